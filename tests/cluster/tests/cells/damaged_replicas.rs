//! Disks are lost, bits flip; no wrong byte is served and everything is protected again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_transport::{CallError, Role};
use holdfast_libs_types::record::{RECORD_HEADER_BYTES, RecordHeader};
use holdfast_libs_types::{BlockHash, DiskId, VolumeId};
use holdfast_node_client::NodeClient;
use holdfast_tests_cluster::blocks::{Blocks, put_random};
use holdfast_tests_cluster::cell::Cell;
use holdfast_tests_cluster::disks::written_parts;
use holdfast_tests_cluster::replicas::{compare_replicas, volume_manager};
use holdfast_tests_cluster::{seed, wait_for};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

const MAX_BYTES: usize = 256 * 1024;

#[test]
fn a_lost_disk_file_is_noticed_and_every_volume_gets_three_replicas_again() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("lost-disk-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let hashes = runtime.block_on(put_random(&blocks, seed(3), 1600, MAX_BYTES))?;
    let before = runtime.block_on(volume_manager(&cell, &blocks)?.volumes())?;
    let victim = before.iter().flat_map(|volume| &volume.replicas).next().context("no replica anywhere")?.disk;
    let status = cell.json(&["admin", "status"])?;
    let row = status["disks"].as_array().into_iter().flatten().find(|disk| disk["disk"] == victim.to_string());
    let path = row.and_then(|disk| disk["path"].as_str()).context("the disk has no path")?.to_owned();
    fs::remove_file(&path)?;
    wait_for("the loss to be noticed", Duration::from_secs(60), || {
        let status = cell.json(&["admin", "status"])?;
        Ok(if status["health"] == "ok" { Err("health is still ok".to_owned()) } else { Ok(()) })
    })?;
    cell.wait_protected(Duration::from_secs(120))?;
    let after = runtime.block_on(volume_manager(&cell, &blocks)?.volumes())?;
    // The rows of volumes that nothing was written to stay as they are.
    for volume in after.iter().filter(|volume| volume.length != Some(0) && volume.state != "failed") {
        assert!(volume.replicas.iter().all(|replica| replica.disk != victim), "{} is on the lost disk", volume.volume);
    }
    let compared = runtime.block_on(compare_replicas(&blocks, &after))?;
    assert!(compared >= 3, "nothing was compared");
    for hash in &hashes {
        runtime.block_on(blocks.get(*hash))?;
    }
    println!("{} blocks, {compared} replicas read directly and compared after the loss of {path}", hashes.len());
    Ok(())
}

/// A live record: where its bytes are in a disk's file.
struct Place {
    hash: BlockHash,
    volume: VolumeId,
    offset: u64,
    file: std::path::PathBuf,
    at: u64,
    length: u64,
}

/// Finds every record of the cell's disk files by its header, as a reader without any index would.
fn records(cell: &Cell) -> anyhow::Result<Vec<Place>> {
    let mut found = Vec::new();
    for daemon in cell.dev_json()?["daemons"].as_array().into_iter().flatten() {
        for path in daemon["disks"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let bytes = written_parts(path.as_ref())?;
            for (start, extent) in &bytes {
                let mut at = 0;
                while let Some(header) = extent.get(at..at + RECORD_HEADER_BYTES) {
                    match RecordHeader::decode(header) {
                        Ok(record) => {
                            let length = record.record_len() as u64;
                            found.push(Place {
                                hash: record.hash,
                                volume: record.volume,
                                offset: record.offset,
                                file: path.into(),
                                at: start + at as u64,
                                length,
                            });
                            at += record.record_len();
                        }
                        Err(_) => at += 1,
                    }
                }
            }
        }
    }
    Ok(found)
}

fn flip(place: &Place, random: &mut SmallRng) -> anyhow::Result<()> {
    let file = fs::OpenOptions::new().read(true).write(true).open(&place.file)?;
    let bit = random.next_u64() % (place.length * 8);
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.at + bit / 8)?;
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, place.at + bit / 8)?;
    file.sync_all()?;
    Ok(())
}

fn detections(cell: &Cell, blocks: &Blocks, runtime: &tokio::runtime::Runtime) -> anyhow::Result<u64> {
    let url = format!("{}/v1/status", cell.dev_json()?["frontend"].as_str().context("no frontend")?);
    let status: Value = runtime.block_on(blocks.service(Role::Admin).get_json(&url, Duration::from_secs(10)))?;
    status["damaged_records_detected"].as_u64().with_context(|| format!("no counter in {status}"))
}

#[test]
fn flipped_bits_are_detected_and_never_served() -> anyhow::Result<()> {
    let seed = seed(5);
    println!("HOLDFAST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let runtime = tokio::runtime::Runtime::new()?;
    let cell = Cell::start("flips-", &["--no-clients", "--set", "frontend.cache.bytes=0"])?;
    let blocks = Blocks::of(&cell)?;
    let hashes: BTreeSet<_> = runtime.block_on(put_random(&blocks, seed, 400, MAX_BYTES))?.into_iter().collect();
    let places: Vec<Place> = records(&cell)?.into_iter().filter(|place| hashes.contains(&place.hash)).collect();
    assert_eq!(places.len(), hashes.len() * 3, "three records of every block");

    // One damaged replica in each of 250 blocks: it is served from another one.
    let mut damaged = BTreeSet::new();
    for hash in hashes.iter().take(250) {
        let copies: Vec<&Place> = places.iter().filter(|place| place.hash == *hash).collect();
        flip(copies[random.next_u32() as usize % copies.len()], &mut random)?;
        damaged.insert(*hash);
    }
    let before = detections(&cell, &blocks, &runtime)?;
    // The nearest replica is read first, so a damaged one is met only when it is chosen: each is also read directly.
    for hash in &hashes {
        runtime.block_on(blocks.get(*hash)).context("a block with one damaged replica")?;
    }
    let met = detections(&cell, &blocks, &runtime)? - before;
    let direct = runtime.block_on(read_all_records(&cell, &blocks, &places))?;
    assert_eq!(direct, damaged.len(), "damaged records that their nodes refused");
    println!(
        "{} flips; {met} met and detected by reads of the frontend, {direct} refused by their nodes",
        damaged.len()
    );

    // All three replicas of ten other blocks: an error, never bytes.
    for hash in hashes.iter().skip(250).take(10) {
        for place in places.iter().filter(|place| place.hash == *hash) {
            flip(place, &mut random)?;
        }
        match runtime.block_on(blocks.get(*hash)) {
            Err(CallError::Api(error)) if error.code == "unreadable" => {}
            other => bail!("{hash} with three damaged replicas: {other:?}"),
        }
    }
    Ok(())
}

/// Reads each record from its own node; answers how many were refused as damaged. Any other failure is an error.
async fn read_all_records(cell: &Cell, blocks: &Blocks, places: &[Place]) -> anyhow::Result<usize> {
    let volumes = volume_manager(cell, blocks)?.volumes().await?;
    let status = cell.json(&["admin", "status"])?;
    let mut refused = 0;
    for place in places {
        let path = place.file.to_string_lossy();
        let row = status["disks"].as_array().into_iter().flatten().find(|disk| disk["path"] == *path);
        let disk: DiskId = row.and_then(|disk| disk["disk"].as_str()).context("unknown disk")?.parse()?;
        let volume = volumes.iter().find(|row| row.volume == place.volume).context("unknown volume")?;
        let replica = volume.replicas.iter().find(|replica| replica.disk == disk).context("no such replica")?;
        let node = NodeClient::new(blocks.service(Role::Admin), replica.address.clone());
        let length = u32::try_from(place.length)?;
        match node.read_record(disk, place.volume, place.offset, length, Duration::from_secs(30)).await {
            Ok(bytes) => assert_good(&bytes, place),
            Err(CallError::Api(error)) if error.code == "damaged" => refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(refused)
}

fn assert_good(bytes: &Bytes, place: &Place) {
    let header = RecordHeader::decode(bytes).expect("a node answers only records that check");
    assert_eq!(header.hash, place.hash);
}
