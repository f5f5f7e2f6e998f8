//! A catalog to be tested, in one of the stores.

use holdfast_libs_types::{BlockHash, CellId};
use holdfast_tests_mariadb::Server;
use holdfast_volume_manager_catalog::{
    Candidate, Catalog, CatalogConfig, CatalogError, CatalogStore, FrontendCatalog, Kind,
};
use mysql_async::prelude::Queryable;
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;

pub const CELL: CellId = CellId([1; 16]);

/// The tables of the replication table's database.
const TABLES: [&str; 7] = ["meta", "leader", "volumes", "nodes", "disks", "replicas", "settings"];

/// An empty catalog and a way to look at it from behind.
pub struct Subject {
    pub config: CatalogConfig,
    place: Place,
}

enum Place {
    Sqlite(TempDir),
    Mysql,
}

impl Subject {
    pub async fn sqlite() -> Self {
        Self { config: CatalogConfig::default(), place: Place::Sqlite(TempDir::new().unwrap()) }
    }

    /// Fresh databases on the server that all tests share, `shards` of them for the index.
    pub async fn mysql(shards: usize) -> Self {
        let server = Server::shared();
        Self { config: fresh(server, shards).await, place: Place::Mysql }
    }

    pub async fn mysql_one_shard() -> Self {
        Self::mysql(1).await
    }

    pub async fn mysql_four_shards() -> Self {
        Self::mysql(4).await
    }

    /// Another empty one of the same kind.
    pub async fn another(&self) -> Self {
        match &self.place {
            Place::Sqlite(_) => Self::sqlite().await,
            Place::Mysql => Self::mysql(self.config.index.len()).await,
        }
    }

    /// How many random cases a test tries.
    pub fn cases(&self) -> usize {
        match &self.place {
            Place::Sqlite(_) => 40,
            Place::Mysql => 6,
        }
    }

    pub fn store(&self) -> CatalogStore {
        match &self.place {
            Place::Sqlite(folder) => self.config.store(folder.path()).unwrap(),
            Place::Mysql => self.config.store("/nowhere".as_ref()).unwrap(),
        }
    }

    /// A handle of its own, as another process has one.
    pub async fn open(&self) -> Catalog {
        self.store().open(CELL).await.unwrap()
    }

    pub async fn open_for_frontend(&self) -> Result<FrontendCatalog, CatalogError> {
        self.store().open_for_frontend(CELL).await
    }

    /// The day a block was last touched.
    pub async fn touched(&self, hash: BlockHash) -> Option<i64> {
        match &self.place {
            Place::Sqlite(folder) => {
                let sql = "SELECT touched FROM blocks WHERE hash = ?1";
                raw(folder, "index.db").query_row(sql, [hash.as_bytes()], |row| row.get(0)).optional().unwrap()
            }
            Place::Mysql => {
                for url in &self.config.index {
                    let mut session = session(url).await;
                    let sql = "SELECT touched FROM blocks WHERE hash = ?";
                    let found: Option<i64> = session.exec_first(sql, (hash.as_bytes(),)).await.unwrap();
                    if found.is_some() {
                        return found;
                    }
                }
                None
            }
        }
    }

    /// As if everything had been touched a day earlier than it was.
    pub async fn a_day_passes(&self) {
        let pass = "UPDATE blocks SET touched = touched - 1";
        match &self.place {
            Place::Sqlite(folder) => {
                raw(folder, "index.db").execute(pass, []).unwrap();
            }
            Place::Mysql => {
                for url in &self.config.index {
                    session(url).await.query_drop(pass).await.unwrap();
                }
            }
        }
    }

    /// Writes the leader's row as steps could have left it: the term, and whose lease it is and whether it runs.
    pub async fn set_leader(&self, term: u64, lease: Option<(Candidate, bool)>) {
        let expires = lease.as_ref().map(|(_, runs)| if *runs { i64::from(i32::MAX) * 1000 } else { 1 });
        let (holder, address) = lease.map(|(candidate, _)| (candidate.holder, candidate.address)).unzip();
        let (sql, term) = ("UPDATE leader SET term = ?, holder = ?, address = ?, expires_ms = ?", term as i64);
        match &self.place {
            Place::Sqlite(folder) => {
                raw(folder, "table.db").execute(sql, (term, holder, address, expires)).unwrap();
            }
            Place::Mysql => {
                let mut session = session(self.config.table.as_ref().unwrap()).await;
                session.exec_drop(sql, (term, holder, address, expires)).await.unwrap();
            }
        }
    }

    /// As if the leader's lease had run out.
    pub async fn lease_runs_out(&self) {
        let sql = "UPDATE leader SET expires_ms = 1";
        match &self.place {
            Place::Sqlite(folder) => {
                raw(folder, "table.db").execute(sql, []).unwrap();
            }
            Place::Mysql => session(self.config.table.as_ref().unwrap()).await.query_drop(sql).await.unwrap(),
        }
    }

    /// Every value of every row of the table.
    pub async fn dump(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for table in TABLES {
            let sql = format!("SELECT * FROM {table}");
            match &self.place {
                Place::Sqlite(folder) => {
                    let raw = raw(folder, "table.db");
                    let mut statement = raw.prepare(&sql).unwrap();
                    let columns = statement.column_count();
                    let value = |row: &rusqlite::Row<'_>, at| row.get::<_, rusqlite::types::Value>(at).unwrap();
                    let found = statement
                        .query_map([], |row| Ok((0..columns).map(|at| value(row, at)).collect::<Vec<_>>()))
                        .unwrap();
                    rows.extend(found.map(|row| format!("{table}: {:?}", row.unwrap())));
                }
                Place::Mysql => {
                    let mut session = session(self.config.table.as_ref().unwrap()).await;
                    let found: Vec<mysql_async::Row> = session.query(sql).await.unwrap();
                    rows.extend(found.into_iter().map(|row| format!("{table}: {:?}", row.unwrap())));
                }
            }
        }
        rows
    }
}

/// The configuration of a catalog in databases that were just made on `server`.
pub async fn fresh(server: &Server, shards: usize) -> CatalogConfig {
    let mut names = Vec::new();
    let mut session = session(&server.url("mysql")).await;
    for _ in 0..=shards {
        let name = server.fresh_name();
        session.query_drop(format!("CREATE DATABASE {name}")).await.unwrap();
        names.push(server.url(&name));
    }
    CatalogConfig { kind: Kind::Mysql, table: names.pop(), index: names, password: None }
}

/// A connection past the catalog.
pub async fn session(url: &str) -> mysql_async::Conn {
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(url).unwrap()).prefer_socket(false);
    mysql_async::Conn::new(opts).await.unwrap()
}

fn raw(folder: &TempDir, file: &str) -> Connection {
    Connection::open(folder.path().join(file)).unwrap()
}
