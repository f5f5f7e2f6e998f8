//! The replication table at scale: how long a reading of every volume takes, and the memory of it, in SQLite, on the file system
//! of `target/`. The rows are written past the catalog, which would take hours to seal as many.
//!
//! `cargo run --release -p holdfast-volume-manager-catalog --example table_scale [VOLUMES...]`, by default 1 and 10 million.

use std::path::Path;
use std::time::Instant;

use holdfast_libs_types::CellId;
use holdfast_volume_manager_catalog::{CatalogConfig, VolumeState};
use rusqlite::Connection;

const CELL: CellId = CellId([1; 16]);
const DISKS: u64 = 10_000;

/// What a plan of moves reads.
const STATES: [VolumeState; 4] = [VolumeState::Creating, VolumeState::Open, VolumeState::Sealing, VolumeState::Sealed];

type Failed = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut stops = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<Vec<u64>, _>>()?;
    if stops.is_empty() {
        stops = vec![1_000_000, 10_000_000];
    }
    let folder = tempfile::tempdir_in("target")?;
    let table = CatalogConfig::default().store(folder.path())?.open(CELL).await?.table;
    let mut there = 0;
    for stop in stops {
        fill(&folder.path().join("table.db"), there, stop)?;
        there = stop;
        let begun = Instant::now();
        let all = table.volumes_in(&STATES).await?;
        assert!(all.len() as u64 == stop && all.iter().all(|volume| volume.replicas.len() == 3), "rows are missing");
        println!("{stop} volumes: read in {:.2} s; {} MiB at most", begun.elapsed().as_secs_f64(), most_mib());
    }
    Ok(())
}

/// Sealed volumes of this range, their ids in no order as those of leases.
fn fill(path: &Path, from: u64, to: u64) -> Result<(), Failed> {
    let mut db = Connection::open(path)?;
    let tx = db.transaction()?;
    if from == 0 {
        tx.execute("INSERT INTO nodes VALUES ('node-1', 'zone-1', '', 'https://127.0.0.1:1', ?1, 0)", [[1u8; 16]])?;
        for disk in 0..DISKS {
            tx.execute(
                "INSERT INTO disks VALUES (?1, 'node-1', 'path', 1, 1, 'healthy', NULL, 1, 1, 16000, 1000)",
                [id(disk)],
            )?;
        }
    }
    {
        let mut ids: Vec<[u8; 16]> = (from..to).map(|number| id(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        ids.sort_unstable();
        let mut volume =
            tx.prepare("INSERT INTO volumes VALUES (?1, 'sealed', 2, 1073741824, ?2, ?3, NULL, NULL, 'it is full')")?;
        let mut replica = tx.prepare("INSERT INTO replicas VALUES (?1, ?2, ?3)")?;
        for (number, id_of) in (from..to).zip(&ids) {
            volume.execute((id_of, 1_073_000_000u64.cast_signed(), [number.to_le_bytes(); 4].concat()))?;
            for place in 0..3u64 {
                replica.execute((id_of, place.cast_signed(), id((number * 7 + place * 3333) % DISKS)))?;
            }
        }
    }
    tx.commit()?;
    Ok(())
}

fn id(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The most memory that was resident, MiB.
fn most_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}
