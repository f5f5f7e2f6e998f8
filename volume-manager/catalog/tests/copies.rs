//! A copy of a catalog in SQLite files: what it holds when it is made while others write, and when it may be put back.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_libs_types::{BlockHash, CellId, DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use holdfast_volume_manager_catalog::copies::{back_up, restore};
use holdfast_volume_manager_catalog::{
    Candidate, Catalog, CatalogConfig, CatalogError, DiskInfo, Leadership, NewRow, NewVolume, Node, Registration, Term,
    VolumeInsert, VolumeState,
};
use tempfile::TempDir;

const CELL: CellId = CellId([1; 16]);
const DISK: DiskId = DiskId([5; 16]);
const NOW_MS: u64 = 1_700_000_000_000;

async fn open(folder: &Path) -> Catalog {
    CatalogConfig::default().store(folder).unwrap().open(CELL).await.unwrap()
}

/// A catalog with a disk whose nonce stands, and its term.
async fn made(folder: &Path) -> (Catalog, Term) {
    let catalog = open(folder).await;
    let term = catalog.table.take_leadership().await.unwrap();
    let node = Node {
        node: NodeId("node-1".to_owned()),
        zone: "zone-1".to_owned(),
        rack: String::new(),
        address: "https://127.0.0.1:1".to_owned(),
        instance: InstanceId([9; 16]),
        last_seen_ms: 0,
    };
    catalog.table.upsert_node(term, &node).await.unwrap();
    assert_eq!(register(&catalog, term, 0, 77).await, Registration::Accepted);
    (catalog, term)
}

async fn register(catalog: &Catalog, term: Term, previous: u64, nonce: u64) -> Registration {
    let info = DiskInfo {
        disk: DISK,
        node: NodeId("node-1".to_owned()),
        path: "/dev/x".to_owned(),
        state: "healthy".to_owned(),
        reason: None,
        slot_bytes: 1,
        volume_bytes: 1,
        slots: 1,
        free_slots: 1,
    };
    catalog.table.register_disk_incarnation(term, &info, previous, 1, nonce).await.unwrap()
}

/// A new volume with one block, which is acknowledged when this returns.
async fn put(catalog: &Catalog, term: Term, number: u64) -> BlockHash {
    let mut random = [0; 12];
    random[..8].copy_from_slice(&number.to_be_bytes());
    let volume = VolumeId::from_parts(1, random);
    let epoch = WriteEpoch(1);
    let new =
        NewVolume { volume, epoch, disks: vec![DISK], holder: InstanceId([3; 16]), lease_expires_ms: 1, capacity: 100 };
    catalog.table.create_volume(term, &new).await.unwrap();
    catalog.index.create_fence(volume, epoch).await.unwrap();
    catalog.table.open_volume(term, volume).await.unwrap();
    let hash = BlockHash::of(&number.to_be_bytes());
    let row = NewRow { hash, offset: 0, length: 50, plain_len: 5 };
    catalog.index.insert(&VolumeInsert { volume, epoch, end: 50, rows: vec![row] }).await.unwrap();
    hash
}

fn restored(from: &Path, to: &TempDir, replace: bool) -> Result<Option<PathBuf>, CatalogError> {
    restore(from, to.path(), CELL, replace, NOW_MS).map(|restored| restored.replaced)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_made_while_others_write_has_what_was_acknowledged_before_and_no_row_without_its_volume() {
    let (folder, copies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (catalog, term) = made(folder.path()).await;
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = tokio::spawn({
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                put(&catalog, term, number).await;
                number += 1;
                acknowledged.store(usize::try_from(number).unwrap(), Ordering::Relaxed);
            }
        }
    });
    for round in 0..10 {
        let until = acknowledged.load(Ordering::Relaxed) + 5;
        while acknowledged.load(Ordering::Relaxed) < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = acknowledged.load(Ordering::Relaxed);
        let (into, from) = (copies.path().join(format!("{round}")), folder.path().to_owned());
        let made = into.clone();
        tokio::task::spawn_blocking(move || back_up(&from, CELL, &made, NOW_MS)).await.unwrap().unwrap();

        let written = |name: &str| std::fs::metadata(into.join(name)).unwrap().modified().unwrap();
        assert!(written("index.db") <= written("table.db"), "round {round}: the table was not copied last");
        let target = TempDir::new().unwrap();
        restored(&into, &target, false).unwrap();
        let copy = open(target.path()).await;
        let rows = copy.index.scan(None, 100_000).await.unwrap();
        let known: BTreeSet<VolumeId> =
            copy.table.volumes().await.unwrap().iter().map(|volume| volume.volume).collect();
        for (hash, row) in &rows {
            assert!(known.contains(&row.volume), "round {round}: block {hash} is in a volume that is not known");
        }
        let hashes: BTreeSet<BlockHash> = rows.iter().map(|(hash, _)| *hash).collect();
        for number in 0..before as u64 {
            assert!(hashes.contains(&BlockHash::of(&number.to_be_bytes())), "round {round}: block {number} is missing");
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
}

#[tokio::test]
async fn a_restored_catalog_counts_as_lost_and_nothing_that_was_issued_is_issued_again() {
    let (folder, copies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (catalog, term) = made(folder.path()).await;
    let into = copies.path().join("copy");
    put(&catalog, term, 1).await;
    back_up(folder.path(), CELL, &into, NOW_MS).unwrap();
    // The catalog goes on.
    put(&catalog, term, 2).await;
    let candidate = Candidate { holder: "one".to_owned(), address: "https://127.0.0.1:1".to_owned() };
    let leadership = catalog.table.acquire_leadership(&candidate, Duration::from_secs(60)).await.unwrap();
    let Leadership::Taken(newest) = leadership else { panic!("{leadership:?}") };
    catalog.table.raise_generation(newest).await.unwrap();
    catalog.table.raise_generation(newest).await.unwrap();

    let refused = restored(&into, &folder, true).unwrap_err().to_string();
    assert!(refused.contains("volume manager one leads"), "{refused}");
    catalog.table.release_leadership(newest).await.unwrap();
    drop(catalog);
    let refused = restored(&into, &folder, false).unwrap_err().to_string();
    assert!(refused.contains("--replace"), "{refused}");
    let aside = restored(&into, &folder, true).unwrap().unwrap();
    assert_eq!(open(&aside).await.table.volumes().await.unwrap().len(), 2, "what stood there is kept");

    let catalog = open(folder.path()).await;
    let table = &catalog.table;
    assert_eq!(table.lost().await.unwrap().unwrap(), "restored from a copy made at 2023-11-14T22:13:20Z");
    assert!(table.term().await.unwrap() > newest);
    assert!(table.generation().await.unwrap() > 3);
    assert_eq!(table.volumes().await.unwrap().len(), 1);
    let term = table.take_leadership().await.unwrap();
    // The disk was given other nonces since.
    assert_eq!(register(&catalog, term, 500, 501).await, Registration::Accepted);
    assert!(matches!(register(&catalog, term, 400, 401).await, Registration::Refused(_)));
    assert_eq!(table.volumes_in(&[VolumeState::Open]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_copy_that_was_changed_is_refused_and_nothing_is_written() {
    let (folder, copies, target) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (catalog, term) = made(folder.path()).await;
    put(&catalog, term, 1).await;
    let into = copies.path().join("copy");
    back_up(folder.path(), CELL, &into, NOW_MS).unwrap();
    assert!(matches!(back_up(folder.path(), CELL, &into, NOW_MS), Err(CatalogError::File { .. })), "it is there");
    for name in ["index.db", "table.db"] {
        let path = into.join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let refused = restored(&into, &target, false).unwrap_err().to_string();
        assert!(refused.contains(name) && refused.contains("not what its manifest says"), "{refused}");
        assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0, "half a copy is left");
        let new = target.path().join("new");
        restore(&into, &new, CELL, false, NOW_MS).unwrap_err();
        assert!(!new.exists(), "its folder is left");
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
    }
    let foreign = restore(&into, target.path(), CellId([2; 16]), false, NOW_MS).unwrap_err();
    assert!(matches!(foreign, CatalogError::ForeignCell { .. }), "{foreign}");
    assert!(!target.path().join("table.db").exists());
    assert_eq!(restored(&into, &target, false).unwrap(), None, "and put right it is taken");
    std::fs::remove_file(into.join("backup.json")).unwrap();
    assert!(matches!(restored(&into, &target, true), Err(CatalogError::File { .. })));
    let nothing = back_up(copies.path(), CELL, &copies.path().join("none"), NOW_MS).unwrap_err();
    assert!(matches!(nothing, CatalogError::Missing { .. }), "{nothing}");
    assert!(!copies.path().join("none").exists());
}
