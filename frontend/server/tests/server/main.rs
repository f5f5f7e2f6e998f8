//! The frontend in a cell of this process: real nodes, a real volume manager, TLS between them.
//!
//! One program, since each links all that the daemon is made of.

#![allow(missing_docs, clippy::unwrap_used)]

mod blocks;
mod catalog;
mod cluster;
mod crash;
mod failures;
mod start;
