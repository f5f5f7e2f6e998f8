//! The catalog in MySQL databases (MySQL or MariaDB), for a cell whose daemons run on several machines: the block index
//! sharded by hash over one or more databases, the replication table in one.
//!
//! No transaction spans two databases. Every operation on one database is one transaction, tried until it is carried out, and may be
//! repeated: see `database`. How an index of several databases keeps the promises of one is told in `index`, how a leader that was
//! replaced is kept from writing in `writer`.

mod database;
mod fence;
mod index;
mod reader;
mod recovery;
mod rows;
mod schema;
mod table;
mod url;
mod writer;

pub use index::MysqlIndex;
pub use table::MysqlTable;
pub use url::DatabaseUrl;

pub(crate) use index::MAX_SHARDS;
