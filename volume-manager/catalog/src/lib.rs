//! The catalog of a cell: the block index (`index.db`) and the replication table with the inventory (`table.db`).
//!
//! This crate and `metadata/store` are the only places with SQL. Every call blocks on a disk: async callers wrap it in
//! `spawn_blocking`. Handles are cheap to clone and may be used from any thread.
//!
//! What must stay true:
//! - A write has been flushed when its call returns: WAL with `synchronous=FULL`, read back after opening.
//! - There is no transaction across the two files. The seal protocol (`docs/protocols.md`) is ordered so that none is needed.
//! - Nothing is inserted into the index for a volume whose fence is closed, missing or of another epoch; the check and the
//!   insert are one transaction, whichever process does it.
//! - Every write to the replication table checks the leader's term in its own transaction.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod database;
mod error;
mod index;
mod table;

pub use error::{CatalogError, FenceReason, Fenced, InsertError};
pub use index::{BlockIndex, Fence, IndexRow, NewRow, VolumeInsert, WrappedKeys};
pub use table::{
    Disk, DiskInfo, LengthCommitted, NewVolume, Node, Registration, ReplicaLocation, ReplicationTable, TableReader,
    Term, Volume, VolumeLocations, VolumeState,
};
