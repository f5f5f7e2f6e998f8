//! The node on disk files and simulated hardware, over TLS.
//!
//! One program, since each links all that the daemon is made of.

#![allow(missing_docs, clippy::unwrap_used)]

mod calls;
mod copies;
mod hot;
mod machine;
mod places;
mod registration;
mod support;
mod upkeep;
