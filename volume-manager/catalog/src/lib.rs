//! The catalog of a cell: the block index and the replication table with the inventory.
//!
//! This crate and `metadata/store` are the only places with SQL. Callers see two traits, [`BlockIndex`] and
//! [`ReplicationTable`]; which store stands behind them is a matter of configuration:
//! - `sqlite`: two files on one machine, opened by the volume manager and the frontends there.
//! - `mysql`: MySQL databases, for daemons on several machines; the index sharded by hash over one or more of them.
//!
//! What must stay true in every store:
//! - A write is durable when its call returns. What that rests on is checked at opening.
//! - There is no transaction across index and table. The seal protocol (`docs/protocols.md`) is ordered so that none is
//!   needed.
//! - Nothing is inserted into the index for a volume whose fence is closed, missing or of another epoch; the check and the
//!   insert are one transaction, whichever process does it.
//! - Every write to the replication table checks the leader's term in its own transaction.
//! - A call that was begun ends, also when nobody waits for it any more.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod index;
mod mysql;
mod number;
mod rules;
mod sqlite;
mod store;
mod table;

pub use error::{CatalogError, FenceReason, Fenced, InsertError};
pub use index::{BlockIndex, Fence, IndexRow, NewRow, VolumeInsert, WrappedKeys};
pub use mysql::DatabaseUrl;
pub use sqlite::{SimulatedCalls, SqliteCalls, copies};
pub use store::{Catalog, CatalogConfig, CatalogStore, FrontendCatalog, Kind};
pub use table::{
    Candidate, Disk, DiskInfo, FoundVolume, Leader, Leadership, LengthCommitted, NewVolume, Node, Registration,
    ReplicaLocation, ReplicationTable, TableReader, Term, Volume, VolumeLocations, VolumeState,
};
