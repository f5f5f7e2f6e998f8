//! Which store a cell's catalog is in, and how it is opened.

use std::path::Path;
use std::sync::Arc;

use holdfast_libs_types::CellId;
use serde::Deserialize;

use crate::mysql::{DatabaseUrl, MAX_SHARDS, MysqlIndex, MysqlTable};
use crate::sqlite::{self, SqliteCalls};
use crate::{BlockIndex, CatalogError, ReplicationTable, TableReader};

/// The `[catalog]` section of a daemon's configuration. Left out, the catalog is in SQLite files.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogConfig {
    /// Which store.
    pub kind: Kind,
    /// For MySQL: the database of the replication table, `mysql://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub table: Option<String>,
    /// For MySQL: the databases of the block index, in their order; their number is settled when the catalog is made.
    pub index: Vec<String>,
    /// For MySQL: the password for URLs that hold none.
    pub password: Option<String>,
}

/// A kind of store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Two files in a folder: volume manager and frontends on one machine.
    #[default]
    Sqlite,
    /// MySQL or MariaDB: daemons on several machines.
    Mysql,
}

impl std::fmt::Debug for CatalogConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs hold passwords.
        f.debug_struct("CatalogConfig").field("kind", &self.kind).field("databases", &self.index.len()).finish()
    }
}

impl CatalogConfig {
    /// The store that it names; `folder` is where SQLite's files are.
    ///
    /// # Errors
    /// `BadConfig` when a key is missing or belongs to another kind.
    pub fn store(&self, folder: &Path) -> Result<CatalogStore, CatalogError> {
        let bad = |what: &str| Err(CatalogError::BadConfig(what.to_owned()));
        match self.kind {
            Kind::Sqlite if self.table.is_some() || !self.index.is_empty() || self.password.is_some() => {
                bad("`table`, `index` and `password` belong to `kind = \"mysql\"`, which is not set")
            }
            Kind::Sqlite => Ok(CatalogStore::Sqlite(SqliteCalls::new(folder))),
            Kind::Mysql => {
                let Some(table) = &self.table else {
                    return bad("`kind = \"mysql\"` needs `table`, the URL of the replication table's database");
                };
                if self.index.is_empty() || self.index.len() > MAX_SHARDS {
                    return bad("`kind = \"mysql\"` needs `index`, a list of 1 to 256 URLs of databases");
                }
                let url = |name: String, url: &String| DatabaseUrl::new(name, url, self.password.as_deref());
                let index = self.index.iter().enumerate();
                Ok(CatalogStore::Mysql {
                    table: url("[catalog] table".to_owned(), table),
                    index: index.map(|(at, text)| url(format!("[catalog] index, number {}", at + 1), text)).collect(),
                })
            }
        }
    }
}

/// Where a catalog is.
#[derive(Debug, Clone)]
pub enum CatalogStore {
    /// SQLite files in a folder of this machine.
    Sqlite(SqliteCalls),
    /// MySQL databases.
    Mysql {
        /// The replication table's.
        table: DatabaseUrl,
        /// Those of the block index, in their order.
        index: Vec<DatabaseUrl>,
    },
}

/// An open catalog; clones share its connections.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// The block index.
    pub index: Arc<dyn BlockIndex>,
    /// The replication table.
    pub table: Arc<dyn ReplicationTable>,
}

/// What a frontend has of the catalog: it writes the index and reads the table.
#[derive(Debug, Clone)]
pub struct FrontendCatalog {
    /// The block index.
    pub index: Arc<dyn BlockIndex>,
    /// The replication table.
    pub table: Arc<dyn TableReader>,
}

impl CatalogStore {
    /// Opens the catalog for the volume manager; what is missing is made.
    ///
    /// # Errors
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Busy`; for SQLite `Pragma`, `File`, for MySQL `BadUrl`, `Setting`,
    /// `Database`.
    pub async fn open(&self, cell: CellId) -> Result<Catalog, CatalogError> {
        match self {
            Self::Sqlite(calls) => {
                let index = sqlite::SqliteIndex::open(calls, cell).await?;
                let table = sqlite::SqliteTable::open(calls, cell).await?;
                Ok(Catalog { index: Arc::new(index), table: Arc::new(table) })
            }
            Self::Mysql { table, index } => {
                let shards = index.len();
                let index = MysqlIndex::open(index, cell, true).await?;
                let table = MysqlTable::open(table, shards, cell, true).await?;
                Ok(Catalog { index: Arc::new(index), table: Arc::new(table) })
            }
        }
    }

    /// Opens the catalog for a frontend. Only the volume manager makes one: a frontend that made an index in a wrong place
    /// would answer "not found" to everything.
    ///
    /// # Errors
    /// `Missing` before the volume manager's first start; otherwise as [`CatalogStore::open`].
    pub async fn open_for_frontend(&self, cell: CellId) -> Result<FrontendCatalog, CatalogError> {
        match self {
            Self::Sqlite(calls) => {
                // The table first: the volume manager makes the index before it.
                let table = sqlite::SqliteReader::open(calls, cell).await?;
                let index = sqlite::SqliteIndex::open(calls, cell).await?;
                Ok(FrontendCatalog { index: Arc::new(index), table: Arc::new(table) })
            }
            Self::Mysql { table, index } => {
                let table = MysqlTable::open(table, index.len(), cell, false).await?;
                let index = MysqlIndex::open(index, cell, false).await?;
                Ok(FrontendCatalog { index: Arc::new(index), table: Arc::new(table) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{CatalogConfig, CatalogStore, Kind};

    #[test]
    fn a_configuration_that_fits_no_store_says_which_key() {
        let url = || Some("mysql://a@b/c".to_owned());
        let mysql = || CatalogConfig { kind: Kind::Mysql, table: url(), index: vec![String::new()], password: None };
        let store = |config: CatalogConfig| config.store(Path::new("/folder"));
        assert!(matches!(store(CatalogConfig::default()), Ok(CatalogStore::Sqlite(_))));
        assert!(matches!(store(mysql()), Ok(CatalogStore::Mysql { .. })));
        for (config, key) in [
            (CatalogConfig { kind: Kind::Sqlite, ..mysql() }, "belong to `kind = \"mysql\"`"),
            (CatalogConfig { kind: Kind::Sqlite, table: None, index: Vec::new(), password: url() }, "`password`"),
            (CatalogConfig { table: None, ..mysql() }, "needs `table`"),
            (CatalogConfig { index: Vec::new(), ..mysql() }, "needs `index`"),
            (CatalogConfig { index: vec![String::new(); 257], ..mysql() }, "1 to 256"),
        ] {
            let error = store(config).unwrap_err().to_string();
            assert!(error.starts_with("[catalog]: ") && error.contains(key), "{error}");
        }
    }
}
