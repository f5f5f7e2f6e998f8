//! The catalog is lost and made again from the disks; the volume manager is dead for a while.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use holdfast_libs_transport::Role;
use holdfast_libs_types::{BlockHash, DiskId, InstanceId, VolumeId};
use holdfast_node_client::{ExtentInfo, ExtentState, NodeClient};
use holdfast_tests_cluster::blocks::{Blocks, put_random, random_block};
use holdfast_tests_cluster::cell::{Cell, binary};
use holdfast_tests_cluster::{seed, wait_for};
use holdfast_volume_manager_client::{LeaseRequest, VolumeManagerClient, VolumeRow};
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

const MAX_BYTES: usize = 512 * 1024;

fn volume_manager(cell: &Cell, blocks: &Blocks, role: Role) -> anyhow::Result<VolumeManagerClient> {
    let address = cell.dev_json()?["volume_manager"].as_str().context("no volume manager")?.to_owned();
    Ok(VolumeManagerClient::new(blocks.service(role), address))
}

async fn read_all(blocks: &Blocks, hashes: &[BlockHash]) -> anyhow::Result<()> {
    for hash in hashes {
        blocks.get(*hash).await.with_context(|| format!("acknowledged block {hash}"))?;
    }
    Ok(())
}

/// Every extent in the cell, from the nodes themselves.
async fn extents(cell: &Cell, blocks: &Blocks) -> anyhow::Result<BTreeMap<(DiskId, VolumeId), ExtentInfo>> {
    let dev = cell.dev_json()?;
    let mut found = BTreeMap::new();
    for daemon in dev["daemons"].as_array().into_iter().flatten().filter(|daemon| daemon["role"] == "node") {
        let address = format!("https://{}", daemon["listen"].as_str().context("no address")?);
        let node = NodeClient::new(blocks.service(Role::Admin), address);
        for disk in node.status().await?.disks {
            let disk = disk.disk.context("a disk without an id")?;
            let standing = node.extents(disk).await?.into_iter().filter(|extent| extent.state != ExtentState::Trashed);
            found.extend(standing.map(|extent| ((disk, extent.volume), extent)));
        }
    }
    Ok(found)
}

fn in_state<'a>(volumes: &'a [VolumeRow], state: &'a str) -> impl Iterator<Item = &'a VolumeRow> {
    volumes.iter().filter(move |volume| volume.state == state && volume.length != Some(0))
}

#[test]
fn a_deleted_catalog_is_made_again_from_the_disks_with_every_acknowledged_block() -> anyhow::Result<()> {
    let seed = seed(20_261_129);
    println!("HOLDFAST_SEED={seed}");
    let runtime = Runtime::new()?;
    let mut cell = Cell::start("lost-catalog-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let mut hashes = runtime.block_on(put_random(&blocks, seed, 400, MAX_BYTES))?;
    // The frontend's volumes are sealed when nobody renews their leases any more.
    cell.signal("frontend", Signal::SIGKILL)?;
    let manager = volume_manager(&cell, &blocks, Role::Admin)?;
    wait_for("sealed volumes", Duration::from_secs(60), || {
        let volumes = runtime.block_on(manager.volumes())?;
        let sealed = in_state(&volumes, "sealed").count();
        Ok(if sealed >= 2 && in_state(&volumes, "sealing").count() == 0 { Ok(()) } else { Err(format!("{volumes:?}")) })
    })?;
    cell.revive("frontend")?;
    wait_for("the frontend", Duration::from_secs(60), || {
        Ok(match runtime.block_on(blocks.put(&random_block(seed ^ 1, 1000))) {
            Ok(hash) => {
                hashes.push(hash);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        })
    })?;
    hashes.extend(runtime.block_on(put_random(&blocks, seed + 1000, 200, MAX_BYTES))?);
    let before = runtime.block_on(manager.volumes())?;
    let (sealed, open) = (in_state(&before, "sealed").count(), in_state(&before, "open").count());
    assert!(sealed >= 2 && open >= 1, "{sealed} sealed, {open} open");
    let extents_before = runtime.block_on(extents(&cell, &blocks))?;

    cell.kill_all()?;
    std::fs::remove_dir_all(cell.path().join("catalog"))?;
    cell.resume()?;
    let blocks = Blocks::of(&cell)?;
    let status = cell.json(&["admin", "status"])?;
    let reasons = status["reasons"].to_string();
    assert!(status["health"] == "critical" && reasons.contains("holdfast admin catalog rebuild"), "{status}");
    for command in [&["admin", "volume", "ls"][..], &["admin", "repair", "status"]] {
        let told = cell.json(command)?["catalog_lost"].to_string();
        assert!(told.contains("holdfast admin catalog rebuild"), "{command:?}: {told}");
        let screen = Command::new(binary()?).args(command).arg("--dev").arg(cell.path()).output()?;
        let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
        assert!(screen.starts_with("NOT ALL") && screen.contains("holdfast admin catalog rebuild"), "{screen}");
    }
    let ask = LeaseRequest { frontend: InstanceId([1; 16]), avoid: Vec::new() };
    let lease = runtime.block_on(volume_manager(&cell, &blocks, Role::Frontend)?.lease(&ask));
    assert_eq!(lease.as_ref().err().and_then(|error| error.code()), Some("catalog_lost"), "{lease:?}");
    let unharmed = runtime.block_on(extents(&cell, &blocks))?;
    assert_eq!(unharmed.keys().collect::<Vec<_>>(), extents_before.keys().collect::<Vec<_>>());
    for (place, extent) in &extents_before {
        assert!(unharmed[place].tail >= extent.tail && unharmed[place].digest == extent.digest, "{extent:?}");
    }

    let report = cell.json(&["admin", "catalog", "rebuild"])?;
    println!("{report:#}");
    assert_eq!(report["state"], "done");
    assert_eq!((report["not_recovered_total"].as_u64(), report["keys"].as_u64()), (Some(0), Some(2)));
    assert!(report["sealed"].as_u64() >= Some(1) && report["taken_in"].as_u64() >= Some(3), "{report}");
    assert_eq!(report["blocks"].as_u64(), Some(hashes.len() as u64));
    runtime.block_on(read_all(&blocks, &hashes))?;
    let after = runtime.block_on(volume_manager(&cell, &blocks, Role::Admin)?.volumes())?;
    for volume in in_state(&before, "sealed") {
        let again = after.iter().find(|row| row.volume == volume.volume).context("a sealed volume is gone")?;
        assert_eq!((again.length, &again.digest), (volume.length, &volume.digest), "{volume:?}");
    }
    let all = runtime.block_on(extents(&cell, &blocks))?;
    assert!(extents_before.keys().all(|place| all.get(place).is_some_and(|at| at.state != ExtentState::Trashed)));

    // In service again, and protected.
    hashes.extend(runtime.block_on(put_random(&blocks, seed + 2000, 80, MAX_BYTES))?);
    runtime.block_on(read_all(&blocks, &hashes))?;
    cell.wait_protected(Duration::from_secs(120))?;
    println!("{} blocks acknowledged, {sealed} volumes sealed and {open} open before, none lost", hashes.len());
    cell.stop()
}

#[test]
fn with_the_volume_manager_dead_every_read_is_served_and_writes_until_the_leased_volumes_are_full() -> anyhow::Result<()>
{
    let seed = seed(3);
    println!("HOLDFAST_SEED={seed}");
    let runtime = Runtime::new()?;
    let mut cell = Cell::start("no-manager-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;
    let mut hashes = runtime.block_on(put_random(&blocks, seed, 80, MAX_BYTES))?;
    let volumes = runtime.block_on(volume_manager(&cell, &blocks, Role::Admin)?.volumes())?;
    let open = in_state(&volumes, "open").count();
    assert!(open >= 1);
    cell.signal("volume-manager", Signal::SIGKILL)?;
    runtime.block_on(read_all(&blocks, &hashes)).context("reads with the volume manager dead")?;

    // A volume holds less than 64 MiB; with so much written one of them at least is full.
    let mut written = 0;
    let full = loop {
        let block = random_block(seed ^ (7 << 40) ^ hashes.len() as u64, 4 << 20);
        match runtime.block_on(blocks.put(&block)) {
            Ok(hash) => {
                hashes.push(hash);
                written += block.len();
            }
            Err(error) => break error,
        }
        if written > open * (64 << 20) + (64 << 20) {
            bail!("{written} bytes went into {open} volumes of at most 64 MiB");
        }
    };
    assert_eq!(full.code(), Some("unavailable"), "{full}");
    assert!(written > 16 << 20, "writes stopped after {written} bytes");
    runtime.block_on(read_all(&blocks, &hashes)).context("reads after the volumes were full")?;
    println!("{written} bytes acknowledged and {} blocks read with the volume manager dead", hashes.len());

    cell.revive("volume-manager")?;
    wait_for("writes with the volume manager back", Duration::from_secs(60), || {
        let put = runtime.block_on(blocks.put(&random_block(seed ^ 5, 4 << 20)));
        Ok(put.map(|hash| hashes.push(hash)).map_err(|error| error.to_string()))
    })?;
    runtime.block_on(read_all(&blocks, &hashes))
}
