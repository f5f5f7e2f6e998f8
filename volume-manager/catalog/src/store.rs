//! Which store a cell's catalog is in, and how it is opened.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_libs_types::CellId;

use crate::{BlockIndex, CatalogError, ReplicationTable, TableReader, sqlite};

/// Where a catalog is.
#[derive(Debug, Clone)]
pub enum CatalogStore {
    /// SQLite files in a folder of this machine.
    Sqlite {
        /// The folder.
        folder: PathBuf,
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
    /// `ForeignCell`, `NewerSchema`, `NotCatalog`, `Pragma`, `File`, `Busy`.
    pub async fn open(&self, cell: CellId) -> Result<Catalog, CatalogError> {
        match self {
            Self::Sqlite { folder } => {
                let index = sqlite::SqliteIndex::open(folder, cell).await?;
                let table = sqlite::SqliteTable::open(folder, cell).await?;
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
            Self::Sqlite { folder } => {
                // The table first: the volume manager makes the index before it.
                let table = sqlite::SqliteReader::open(folder, cell).await?;
                let index = sqlite::SqliteIndex::open(folder, cell).await?;
                Ok(FrontendCatalog { index: Arc::new(index), table: Arc::new(table) })
            }
        }
    }
}
