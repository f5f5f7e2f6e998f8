//! The block index at scale: puts and look-ups a second and bytes a row, in SQLite and in four MariaDB databases on a server
//! that it starts, on the file system of `target/`. One writer, a thousand rows a transaction; one reader, 64 blocks a look-up.
//!
//! `cargo run --release -p holdfast-volume-manager-catalog --example index_scale [sqlite|mariadb] [ROWS...]`, by default both
//! stores, at 1 and at 20 million.

use std::path::Path;
use std::time::Instant;

use holdfast_libs_types::{BlockHash, CellId, VolumeId, WriteEpoch};
use holdfast_tests_mariadb::Server;
use holdfast_volume_manager_catalog::{
    BlockIndex, CatalogConfig, CatalogError, InsertError, Kind, NewRow, VolumeInsert,
};
use mysql_async::prelude::Queryable as _;

const CELL: CellId = CellId([1; 16]);
const EPOCH: WriteEpoch = WriteEpoch(1);
const SHARDS: usize = 4;

/// Rows of a transaction: some volumes' batches of small blocks.
const BATCH: u64 = 1000;
const RECORD_BYTES: u32 = 16_512;
const ROWS_OF_A_VOLUME: u64 = 65_536;

/// Blocks of a look-up, as a list of a client has them, and how many look-ups are timed.
const ASKED: u64 = 64;
const QUESTIONS: u64 = 2000;

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = match arguments.first().map(String::as_str) {
        Some("sqlite" | "mariadb") => Some(arguments.remove(0)),
        _ => None,
    };
    let mut stops = arguments.iter().map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if stops.is_empty() {
        stops = vec![1_000_000, 20_000_000];
    }
    if only.as_deref() != Some("mariadb") {
        sqlite(&stops).await?;
    }
    if only.as_deref() != Some("sqlite") {
        mariadb(&stops).await?;
    }
    Ok(())
}

async fn sqlite(stops: &[u64]) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in("target")?;
    let sqlite = CatalogConfig::default().store(folder.path())?.open(CELL).await?.index;
    measure("SQLite", &*sqlite, stops, async || Ok(std::fs::metadata(folder.path().join("index.db"))?.len())).await
}

async fn mariadb(stops: &[u64]) -> Result<(), Failed> {
    let server = Server::start_with(&["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M"]);
    let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(&server.url("mysql"))?);
    let mut session = mysql_async::Conn::new(opts.prefer_socket(false)).await?;
    let names: Vec<String> = (0..=SHARDS).map(|number| format!("scale{number}")).collect();
    for name in &names {
        session.query_drop(format!("CREATE DATABASE {name}")).await?;
    }
    let mut urls: Vec<String> = names.iter().map(|name| server.url(name)).collect();
    let config = CatalogConfig { kind: Kind::Mysql, table: urls.pop(), index: urls, password: None };
    let mysql = config.store(Path::new("/"))?.open(CELL).await?.index;
    let size = "SELECT CAST(sum(file_size) AS UNSIGNED) FROM information_schema.innodb_sys_tablespaces WHERE name LIKE 'scale%/blocks'";
    let session = tokio::sync::Mutex::new(session);
    let bytes = async || Ok(session.lock().await.query_first::<u64, _>(size).await?.unwrap_or(0));
    measure("4 MariaDB databases", &*mysql, stops, bytes).await
}

/// Inserts up to each stop; there it prints how fast the last tenth went, how fast look-ups are, and the size.
async fn measure(
    name: &str,
    index: &dyn BlockIndex,
    stops: &[u64],
    bytes: impl AsyncFn() -> Result<u64, Failed>,
) -> Result<(), Failed> {
    let mut next = 0;
    for stop in stops {
        let timed_from = next + (stop - next) * 9 / 10 / BATCH * BATCH;
        let mut begun = Instant::now();
        let from = next;
        while next < *stop {
            if next == timed_from {
                begun = Instant::now();
            }
            insert(index, next).await?;
            next += BATCH;
        }
        let puts = (next - timed_from.max(from)) as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        for question in 0..QUESTIONS {
            // Spread over all that was inserted.
            let asked: Vec<_> = (0..ASKED).map(|at| hash((question * ASKED + at) * 7919 % next)).collect();
            let found = index.lookup(&asked).await?;
            assert!(found.iter().all(Option::is_some), "a row is missing");
        }
        let lookups = (QUESTIONS * ASKED) as f64 / begun.elapsed().as_secs_f64();
        let size = bytes().await? / next;
        println!("{name}, {next} rows: {puts:.0} puts/s, {lookups:.0} look-ups/s, {size} bytes a row");
    }
    Ok(())
}

fn hash(number: u64) -> BlockHash {
    BlockHash::of(&number.to_le_bytes())
}

async fn insert(index: &dyn BlockIndex, first: u64) -> Result<(), CatalogError> {
    let number = first / ROWS_OF_A_VOLUME;
    let mut volume = VolumeId([0; 16]);
    volume.0[..8].copy_from_slice(&number.to_le_bytes());
    if first % ROWS_OF_A_VOLUME < BATCH {
        index.create_fence(volume, EPOCH).await.map_err(catalog)?;
    }
    let offset = |number: u64| number % ROWS_OF_A_VOLUME * u64::from(RECORD_BYTES);
    let row = |number| NewRow { hash: hash(number), offset: offset(number), length: RECORD_BYTES, plain_len: 16_384 };
    let end = ROWS_OF_A_VOLUME * u64::from(RECORD_BYTES);
    let insert = VolumeInsert { volume, epoch: EPOCH, end, rows: (first..first + BATCH).map(row).collect() };
    index.insert(&insert).await.map_err(catalog)
}

fn catalog(error: InsertError) -> CatalogError {
    match error {
        InsertError::Catalog(error) => error,
        InsertError::Fenced(fenced) => CatalogError::Damaged(fenced.to_string()),
    }
}
