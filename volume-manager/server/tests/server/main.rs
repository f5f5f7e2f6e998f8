//! The volume manager against nodes that the tests play, over TLS.
//!
//! One program, since each links all that the daemon is made of.

#![allow(missing_docs, clippy::unwrap_used)]

mod absences;
mod authority;
mod leadership;
mod leases;
mod listing;
mod moves;
mod nodes;
mod operator;
mod orders;
mod rebuild;
mod repairs;
mod resume;
mod seals;
mod support;
