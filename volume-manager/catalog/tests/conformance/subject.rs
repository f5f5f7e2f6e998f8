//! A catalog to be tested, in one of the stores.

use std::path::PathBuf;

use holdfast_libs_types::{BlockHash, CellId};
use holdfast_volume_manager_catalog::{Catalog, CatalogError, CatalogStore, FrontendCatalog};
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;

pub const CELL: CellId = CellId([1; 16]);

/// An empty catalog and a way to look at it from behind.
pub struct Subject {
    store: CatalogStore,
    place: Place,
}

enum Place {
    Sqlite(TempDir),
}

impl Subject {
    pub fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        Self { store: CatalogStore::Sqlite { folder: folder.path().to_owned() }, place: Place::Sqlite(folder) }
    }

    /// Another empty one of the same kind.
    pub async fn another(&self) -> Self {
        match &self.place {
            Place::Sqlite(_) => Self::sqlite(),
        }
    }

    /// How many random cases a test tries.
    pub fn cases(&self) -> usize {
        match &self.place {
            Place::Sqlite(_) => 40,
        }
    }

    /// A handle of its own, as another process has one.
    pub async fn open(&self) -> Catalog {
        self.store.open(CELL).await.unwrap()
    }

    pub async fn open_for_frontend(&self) -> Result<FrontendCatalog, CatalogError> {
        self.store.open_for_frontend(CELL).await
    }

    /// The day a block was last touched.
    pub async fn touched(&self, hash: BlockHash) -> Option<i64> {
        match &self.place {
            Place::Sqlite(folder) => {
                let sql = "SELECT touched FROM blocks WHERE hash = ?1";
                raw(folder, "index.db").query_row(sql, [hash.as_bytes()], |row| row.get(0)).optional().unwrap()
            }
        }
    }

    /// As if everything had been touched a day earlier than it was.
    pub async fn a_day_passes(&self) {
        match &self.place {
            Place::Sqlite(folder) => {
                raw(folder, "index.db").execute("UPDATE blocks SET touched = touched - 1", []).unwrap();
            }
        }
    }

    /// Every value of every row of the table.
    pub async fn dump(&self) -> Vec<String> {
        match &self.place {
            Place::Sqlite(folder) => {
                let raw = raw(folder, "table.db");
                let mut rows = Vec::new();
                for table in ["meta", "leader", "volumes", "nodes", "disks", "replicas"] {
                    let mut statement = raw.prepare(&format!("SELECT * FROM {table}")).unwrap();
                    let columns = statement.column_count();
                    let value = |row: &rusqlite::Row<'_>, at| row.get::<_, rusqlite::types::Value>(at).unwrap();
                    let found = statement
                        .query_map([], |row| Ok((0..columns).map(|at| value(row, at)).collect::<Vec<_>>()))
                        .unwrap();
                    rows.extend(found.map(|row| format!("{table}: {:?}", row.unwrap())));
                }
                rows
            }
        }
    }
}

fn raw(folder: &TempDir, file: &str) -> Connection {
    let path: PathBuf = folder.path().join(file);
    Connection::open(path).unwrap()
}
