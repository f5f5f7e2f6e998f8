//! A cell of nine nodes loses a disk, a node and a zone, one after another, while it is written and read: it gets back to full
//! protection by itself each time. At last it loses its catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_tests_cluster::blocks::{Blocks, Oracle};
use holdfast_tests_cluster::cell::{Cell, scratch};
use holdfast_tests_cluster::load::{Load, Pace, read_back, wait_writable};
use holdfast_tests_cluster::replicas::{compare_replicas, volume_manager};
use holdfast_tests_cluster::{seed, wait_for};
use holdfast_volume_manager_client::VolumeRow;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

/// A cell under load.
struct Loaded {
    runtime: Runtime,
    cell: Cell,
    blocks: Blocks,
    oracle: Arc<Oracle>,
}

impl Loaded {
    fn status(&self) -> anyhow::Result<Value> {
        self.cell.json(&["admin", "status"])
    }

    fn volumes(&self) -> anyhow::Result<Vec<VolumeRow>> {
        Ok(self.runtime.block_on(volume_manager(&self.cell, &self.blocks)?.volumes())?)
    }

    /// Which disks have a replica of which volume, and how long that is once it is sealed.
    fn replicas(&self) -> anyhow::Result<BTreeMap<(VolumeId, DiskId), u64>> {
        let pairs = self.volumes()?.into_iter().flat_map(|volume| {
            let length = volume.length.unwrap_or(0);
            volume.replicas.into_iter().map(move |replica| ((volume.volume, replica.disk), length))
        });
        Ok(pairs.collect())
    }

    /// Waits until every volume can lose two more disks, in three zones, and no copy is under way.
    fn wait_protected(&self, limit: Duration) -> anyhow::Result<()> {
        wait_for("full protection", limit, || {
            let status = self.status()?;
            let total = status["volumes"]["total"].as_u64();
            let safe = total.is_some() && total == status["volumes"]["can_lose"]["2"].as_u64();
            let copying = status["work"].as_array().into_iter().flatten().any(|work| work["kind"] != "seal");
            let apart = self.volumes()?.iter().all(|volume| volume.length.unwrap_or(0) == 0 || zones(volume) == 3);
            Ok(if safe && !copying && apart { Ok(()) } else { Err(status.to_string()) })
        })
    }

    /// Does harm, waits until `noticed` in the status, then for full protection; tells what that took.
    fn lose(
        &self,
        what: &str,
        harm: impl FnOnce() -> anyhow::Result<()>,
        noticed: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<()> {
        let (before, done) = (self.replicas()?, self.oracle.all().len());
        let started = Instant::now();
        harm()?;
        wait_for("the loss to be noticed", Duration::from_secs(60), || {
            let status = self.status()?;
            Ok(if noticed(&status) { Ok(()) } else { Err(status.to_string()) })
        })?;
        let after = started.elapsed();
        self.wait_protected(Duration::from_secs(180))?;
        let now = self.replicas()?;
        // What was begun meanwhile was written by a frontend, not copied.
        let known: BTreeSet<VolumeId> = before.keys().map(|(volume, _)| *volume).collect();
        let copied = now.iter().filter(|((volume, _), _)| known.contains(volume));
        let copied: u64 = copied.filter(|(place, _)| !before.contains_key(place)).map(|(_, length)| length).sum();
        println!(
            "{what}: noticed after {:.1} s, full protection after {:.1} s, {:.1} MB of what stood before copied, {} blocks acknowledged \
             meanwhile",
            after.as_secs_f32(),
            started.elapsed().as_secs_f32(),
            copied as f64 / 1e6,
            self.oracle.all().len() - done
        );
        Ok(())
    }

    /// Deletes the catalog while the nodes run on, makes it again from their disks, as `docs/runbooks/lost-catalog.md` says, and
    /// compares every block that was ever acknowledged. A node still shows the disk that is `unreadable`: it is told.
    fn lose_catalog(&mut self, seed: u64, unreadable: &str) -> anyhow::Result<()> {
        let (started, disks, done) = (Instant::now(), healthy_disks(&self.status()?), self.oracle.all().len() as u64);
        self.cell.kill("frontend")?;
        self.cell.kill("volume-manager")?;
        std::fs::remove_dir_all(self.cell.path().join("catalog"))?;
        self.cell.revive("volume-manager")?;
        wait_for("every disk under the new catalog", Duration::from_secs(60), || {
            let (_, status, error) = self.cell.run(&["admin", "status"])?;
            Ok(if healthy_disks(&status) == disks { Ok(()) } else { Err(format!("{status} {error}")) })
        })?;
        let (code, report, said) = self.cell.run(&["admin", "catalog", "rebuild"])?;
        let not_read = report["not_reached"].as_array().into_iter().flatten().flat_map(|node| node["disks"].as_array());
        let not_read: Vec<&str> = not_read.flatten().filter_map(Value::as_str).collect();
        ensure!(not_read == [unreadable] && code == 1, "{code}: {said} {report}");
        let number = |name: &str| report[name].as_u64().unwrap_or(0);
        let whole = report["state"] == "done" && report["not_recovered_total"] == 0;
        ensure!(whole && number("taken_in") == number("volumes"), "not all of it comes from the disks: {report}");
        ensure!(number("blocks") >= done, "{} of {done} blocks: {report}", number("blocks"));
        let rebuilt = started.elapsed();
        self.cell.revive("frontend")?;
        wait_writable(&self.runtime, &self.blocks, &self.oracle, seed)?;
        self.wait_protected(Duration::from_secs(60))?;
        let all = self.oracle.all();
        self.runtime.block_on(read_back(&self.blocks, &all)).context("after the catalog was made again")?;
        println!(
            "a deleted catalog: {} volumes of {disks} disks taken in after {:.1} s, {} of them sealed now, {} blocks; all {} \
             acknowledged ones compared after {:.1} s",
            number("volumes"),
            rebuilt.as_secs_f32(),
            number("sealed"),
            number("blocks"),
            all.len(),
            started.elapsed().as_secs_f32()
        );
        Ok(())
    }

    fn acknowledge(&self, more: usize) -> anyhow::Result<()> {
        let least = self.oracle.all().len() + more;
        wait_for("acknowledgements", Duration::from_secs(90), || {
            let done = self.oracle.all().len();
            Ok(if done >= least { Ok(()) } else { Err(format!("{done} of {least}")) })
        })
    }
}

fn zones(volume: &VolumeRow) -> usize {
    volume.replicas.iter().map(|replica| replica.zone.as_str()).collect::<BTreeSet<_>>().len()
}

fn is_away(status: &Value, node: &str) -> bool {
    status["nodes"].as_array().into_iter().flatten().any(|row| row["node"] == node && row["state"] != "up")
}

fn healthy_disks(status: &Value) -> usize {
    status["disks"].as_array().into_iter().flatten().filter(|row| row["state"] == "healthy").count()
}

/// Makes a disk's file read as zeros from end to end. Not by writing them: the kernel answers with EIO when pages of the page
/// cache meet the node's direct writes.
fn wipe(path: &str) -> anyhow::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let length = i64::try_from(file.metadata()?.len())?;
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(&file, hole, 0, length)?)
}

#[test]
fn nine_nodes_lose_a_disk_a_node_and_a_zone_under_load_then_their_catalog_and_are_whole_again_each_time()
-> anyhow::Result<()> {
    let seed = seed(9);
    println!("HOLDFAST_SEED={seed}");
    let outside = scratch("oracle-")?;
    let oracle = Arc::new(Oracle::create(&outside.path().join("acknowledged.log"))?);
    let cell = Cell::start("losses-", &["--no-clients", "--nodes", "9", "--disks", "3", "--disk-size", "1GiB"])?;
    let mut loaded = Loaded { runtime: Runtime::new()?, blocks: Blocks::of(&cell)?, cell, oracle };
    let pace = Pace { writers: 4, readers: 2, max_bytes: 1 << 20, rest: Duration::from_millis(40) };
    let load = loaded.runtime.block_on(async { Load::start(&loaded.blocks, &loaded.oracle, seed, pace) });
    loaded.acknowledge(600)?;

    let held =
        loaded.volumes()?.into_iter().flat_map(|volume| volume.replicas).next().context("no replica anywhere")?;
    let disk = held.disk.to_string();
    let status = loaded.status()?;
    let row = status["disks"].as_array().into_iter().flatten().find(|row| row["disk"] == *disk);
    let path = row.and_then(|row| row["path"].as_str()).context("the disk has no path")?.to_owned();
    let is_gone = |status: &Value| {
        let row = status["disks"].as_array().into_iter().flatten().find(|row| row["disk"] == *disk);
        row.is_none_or(|row| row["state"] != "healthy" && row["volumes"] == 0)
    };
    loaded.lose("a wiped disk", || wipe(&path), is_gone)?;

    // Another node than that of the wiped disk, which stays `failed` whatever becomes of its node.
    let mut replicas = loaded.volumes()?.into_iter().flat_map(|volume| volume.replicas);
    let dead = replicas.find(|replica| replica.node != held.node).context("no replica on another node")?;
    let kill = || loaded.cell.signal(&dead.node.0, Signal::SIGKILL);
    loaded.lose("a dead node", kill, |status| {
        let mut rows = status["disks"].as_array().into_iter().flatten().filter(|row| row["node"] == dead.node.0);
        rows.all(|row| row["state"] == "lost" && row["volumes"] == 0)
    })?;

    let zone: Vec<String> = loaded.status()?["nodes"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["zone"] != dead.zone && row["state"] == "up")
        .filter_map(|row| Some((row["zone"].as_str()?.to_owned(), row["node"].as_str()?.to_owned())))
        .fold(BTreeMap::<String, Vec<String>>::new(), |mut zones, (zone, node)| {
            zones.entry(zone).or_default().push(node);
            zones
        })
        .into_values()
        .next()
        .context("no zone is whole")?;
    let signal = |signal| zone.iter().try_for_each(|node| loaded.cell.signal(node, signal));
    let stop_and_return = || {
        signal(Signal::SIGSTOP)?;
        wait_for("the zone to be missed", Duration::from_secs(60), || {
            let status = loaded.status()?;
            Ok(if zone.iter().all(|node| is_away(&status, node)) { Ok(()) } else { Err(status.to_string()) })
        })?;
        loaded.acknowledge(100).context("writes over two zones")?;
        let crowded =
            loaded.volumes()?.iter().filter(|volume| volume.replicas.len() == 3 && zones(volume) == 2).count();
        ensure!(crowded > 0, "writes went on, but no volume stands in two zones");
        let status = loaded.status()?;
        let reasons = status["reasons"].to_string();
        ensure!(status["health"] == "degraded" && reasons.contains("closer together"), "not marked: {reasons}");
        signal(Signal::SIGCONT)
    };
    loaded.lose("a stopped zone", stop_and_return, |status| zone.iter().all(|node| !is_away(status, node)))?;

    let reads = load.reads();
    loaded.runtime.block_on(load.stop()).context("a read failed")?;
    let all = loaded.oracle.all();
    loaded.runtime.block_on(read_back(&loaded.blocks, &all))?;
    loaded.wait_protected(Duration::from_secs(60))?;
    let compared = loaded.runtime.block_on(compare_replicas(&loaded.blocks, &loaded.volumes()?))?;
    ensure!(reads > 200 && compared > 3, "too little happened: {reads} reads, {compared} replicas");
    println!(
        "{} blocks acknowledged, none lost; {reads} reads meanwhile, none failed; {compared} replicas compared",
        all.len()
    );
    loaded.lose_catalog(seed, &disk)
}
