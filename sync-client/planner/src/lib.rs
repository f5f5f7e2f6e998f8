//! What a sync client does next: a pure function of three trees.
//!
//! - [`Remote`] is the server's last word, by entry id.
//! - [`Local`] is the disk's last word, by place.
//! - [`Synced`] is what both sides agreed on last; it pairs an entry with a place on the disk.
//!
//! [`Trees`] holds them. The engine reports what it saw ([`Trees::observe`], [`Trees::vanish`], [`Trees::apply_remote`])
//! and what became of an operation ([`outcome`]), and asks [`Trees::plan`] what to do. Nothing here does I/O or
//! looks at a clock, so the property test drives it with simulated disks, crashes and lost answers.
//!
//! Must stay true:
//! - an entry is deleted on the server only after its local file was observed to vanish ([`Whereabouts::Gone`]), and
//!   only if the server has no change that this device has not yet shown on its disk;
//! - a local file is removed or replaced only while it is what the synced tree says; an edit is uploaded first;
//! - when both sides changed, the server decides: the client commits with its base revision.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod decide;
mod local;
mod moves;
mod names;
mod operation;
pub mod outcome;
mod pairing;
mod remote;
mod stat;
mod synced;
mod trees;

pub use local::{Local, LocalId, Node};
pub use names::{NameFault, TRANSIT_PREFIX, check_name};
pub use operation::{Operation, Target};
pub use remote::{Remote, RemoteEntry};
pub use stat::{Content, Inode, NodeKind, Stat};
pub use synced::{Synced, SyncedEntry, Whereabouts};
pub use trees::{Subject, Trees};
