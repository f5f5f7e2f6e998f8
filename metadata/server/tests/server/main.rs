//! The metadata server over TLS, on a real database.
//!
//! One program, since each links all that the daemon is made of.

#![allow(clippy::unwrap_used, reason = "a test")]

mod bench;
mod daemon;
mod v1_blocks;
mod v1_changes;
mod v1_commit;
