//! `holdfast bench repair`: how fast a running dev cell protects a lost disk's data again, beside what fio makes of the same
//! device, and what clients feel of it.
//!
//! The cell is filled until each disk holds the wanted bytes. Then, round after round, the file of one disk is removed, in
//! another zone each time, and the clock runs from the first copy until everything has all its replicas. Before each loss fio
//! reads and writes at once on the same file system, durably, in the same sizes: as much read as written; and twice as much, as
//! a repair on one device does, which reads every byte at its source and once more where it was written. Rounds without foreground come first, then one
//! with clients that put and get blocks at a fixed rate, whose latencies before the loss and during the repair are compared.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_presign::Method;
use holdfast_libs_transport::{HttpClient, tls};
use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
use holdfast_volume_manager_client::{DiskRow, VolumeManagerClient};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::arguments::BenchRepair;
use crate::bench::blocks::{self, Cell, Job};
use crate::bench::fio::{self, Job as FioJob};
use crate::bench::rounds::{self, Figures};
use crate::{profile, show};

/// Bytes of a block that clients put and get.
const CLIENT_BYTES: usize = 64 << 10;

/// Blocks that clients get.
const KNOWN_BLOCKS: usize = 400;

/// How long clients are measured before a loss.
const BEFORE: Duration = Duration::from_secs(30);

/// How often the cell is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// A loss that is not repaired within this has failed.
const LIMIT: Duration = Duration::from_secs(1800);

struct Bench {
    cell: Arc<Cell>,
    volume_manager: VolumeManagerClient,
    /// Zones whose disks were lost already.
    hit: BTreeSet<String>,
}

/// Runs the benchmark and prints its figures.
pub async fn run(options: BenchRepair) -> anyhow::Result<()> {
    let folder = options.target.dev.clone().context("name the dev cell to measure: --dev DIR, or HOLDFAST_DEV")?;
    if !options.destroy_disks {
        bail!("this removes the files of disks of the cell in {}: say so with --destroy-disks", folder.display());
    }
    let dev = profile::dev_json(&folder)?;
    let ca = tls::client_config(profile::text(&dev, "ca_cert")?.as_ref())?;
    let http = HttpClient::new(&ca, Some(&profile::text(&dev, "admin_token")?));
    let mut bench = Bench {
        cell: Arc::new(blocks::open(&folder, &dev)?),
        volume_manager: VolumeManagerClient::new(http, profile::text(&dev, "volume_manager")?),
        hit: BTreeSet::new(),
    };
    bench.fill(options.disk_bytes.0).await?;
    let mut figures = Figures::default();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {} without foreground", options.rounds);
        let fio = fio_at(&folder, &FioJob::reads_and_writes(4 << 20, 8, 512))?;
        let alike = fio_at(&folder, &FioJob::reads_and_writes_2_to_1(4 << 20, 8, 512))?;
        let (bytes, seconds) = bench.lose_a_disk().await?;
        let rate = bytes as f64 / 1e6 / seconds;
        figures.add("repaired_gb", bytes as f64 / 1e9);
        figures.add("repair_mb_s", rate);
        figures.add("fio_mb_s", fio);
        figures.add("repair_to_fio", rate / fio);
        figures.add("fio_2_reads_mb_s", alike);
        figures.add("repair_to_fio_2_reads", rate / alike);
    }
    if options.ops > 0 {
        eprintln!("a round with foreground");
        bench.with_foreground(f64::from(options.ops), &mut figures).await?;
    }
    let document = figures.document();
    if options.target.json {
        show::line(&serde_json::to_string_pretty(&document)?)
    } else {
        show::text(&rounds::screen(&document))
    }
}

/// 10^6 bytes a second that fio writes on the file system of the cell.
fn fio_at(folder: &Path, job: &FioJob) -> anyhow::Result<f64> {
    let file = folder.join("bench-fio.tmp");
    let outcome = fio::run(&file, job);
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(outcome?.mb_s)
}

impl Bench {
    /// Puts blocks until the disk that holds the least holds so much.
    async fn fill(&self, disk_bytes: u64) -> anyhow::Result<()> {
        loop {
            let volumes = self.volume_manager.volumes().await?;
            let mut held = std::collections::HashMap::new();
            for (volume, length) in volumes.iter().filter_map(|volume| Some((volume, volume.length?))) {
                for replica in &volume.replicas {
                    *held.entry(replica.disk).or_insert(0) += length;
                }
            }
            let disks = self.volume_manager.status().await?.disks;
            let least = disks.iter().map(|disk| held.get(&disk.disk).copied().unwrap_or(0)).min().unwrap_or(0);
            eprintln!("the emptiest disk holds {}", show::bytes(least));
            if least >= disk_bytes {
                return Ok(());
            }
            // Three replicas over all disks; in steps, since placement is even only on average.
            let missing = (disk_bytes - least) * disks.len() as u64 / 3;
            let count = (missing / MAX_BLOCK_BYTES as u64 / 2).clamp(16, 512) as usize;
            self.put(count, MAX_BLOCK_BYTES).await?;
        }
    }

    /// Puts new blocks, eight at once.
    async fn put(&self, count: usize, size: usize) -> anyhow::Result<Vec<(BlockHash, Bytes)>> {
        let mut putting = JoinSet::new();
        let mut known = Vec::new();
        for _ in 0..count {
            if putting.len() >= 8
                && let Some(put) = putting.join_next().await
            {
                put??;
            }
            let (hash, block) = new_block(size);
            if size < MAX_BLOCK_BYTES {
                known.push((hash, block.clone()));
            }
            let cell = Arc::clone(&self.cell);
            putting.spawn(async move { Job::new(&cell, Method::Put, hash, block).run(&cell).await });
        }
        while let Some(put) = putting.join_next().await {
            put??;
        }
        Ok(known)
    }

    /// A disk of a zone that lost none yet.
    async fn victim(&mut self) -> anyhow::Result<DiskRow> {
        let status = self.volume_manager.status().await?;
        let zone =
            |disk: &DiskRow| status.nodes.iter().find(|node| node.node == disk.node).map(|node| node.zone.clone());
        let well = status.disks.iter().filter(|disk| disk.state == "healthy");
        let fresh = well.filter(|disk| zone(disk).is_some_and(|zone| !self.hit.contains(&zone)));
        let victim =
            fresh.max_by_key(|disk| disk.volumes).context("a disk was lost in every zone; start a new cell")?;
        self.hit.extend(zone(victim));
        Ok(victim.clone())
    }

    /// Removes a disk's file; bytes copied and the seconds from the first copy to the last.
    async fn lose_a_disk(&mut self) -> anyhow::Result<(u64, f64)> {
        let victim = self.victim().await?;
        std::fs::remove_file(&victim.path).with_context(|| format!("cannot remove {}", victim.path))?;
        eprintln!("lost {} with {} volumes", victim.path, victim.volumes);
        let lost = Instant::now();
        let mut began = None;
        let mut bytes = 0;
        loop {
            if lost.elapsed() > LIMIT {
                bail!("the loss of {} is not repaired after {} s", victim.path, LIMIT.as_secs());
            }
            let repair = self.volume_manager.repair().await?;
            bytes = bytes.max(repair.bytes_left);
            match began {
                None if !repair.under_way.is_empty() => began = Some(Instant::now()),
                Some(began) if repair.to_repair.is_empty() && repair.under_way.is_empty() => {
                    return Ok((bytes, began.elapsed().as_secs_f64()));
                }
                _ => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Clients put and get while a disk is repaired.
    async fn with_foreground(&mut self, ops: f64, figures: &mut Figures) -> anyhow::Result<()> {
        let known = self.put(KNOWN_BLOCKS, CLIENT_BYTES).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let load =
            |stop: &Arc<AtomicBool>| tokio::spawn(clients(self.cell.clone(), known.clone(), ops, Arc::clone(stop)));
        let before = load(&stop);
        tokio::time::sleep(BEFORE).await;
        stop.store(true, Ordering::Relaxed);
        let before = before.await??;
        let stop = Arc::new(AtomicBool::new(false));
        let during = load(&stop);
        let (bytes, seconds) = self.lose_a_disk().await?;
        stop.store(true, Ordering::Relaxed);
        let mut during = during.await??;
        // From the loss on nothing is copied until the disk is given up.
        during.retain(|(at, _)| at.elapsed().as_secs_f64() <= seconds + 1.0);
        figures.add("foreground_repair_mb_s", bytes as f64 / 1e6 / seconds);
        let (was, is) = (percentiles(&before), percentiles(&during));
        figures.add("p50_before_ms", was.0);
        figures.add("p99_before_ms", was.1);
        figures.add("p50_during_ms", is.0);
        figures.add("p99_during_ms", is.1);
        figures.add("p99_ratio", is.1 / was.1);
        figures.add("operations_during", during.len() as f64);
        Ok(())
    }
}

fn new_block(size: usize) -> (BlockHash, Bytes) {
    let mut block = vec![0; size];
    SmallRng::seed_from_u64(rand::random()).fill_bytes(&mut block);
    (BlockHash::of(&block), Bytes::from(block))
}

/// When operations ended, and how many milliseconds each took.
type Latencies = Vec<(Instant, f64)>;

/// As many operations a second, puts and gets in turn, whether or not earlier ones have ended.
async fn clients(
    cell: Arc<Cell>,
    known: Vec<(BlockHash, Bytes)>,
    ops: f64,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Latencies> {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / ops));
    let mut running = JoinSet::new();
    let mut taken = Vec::new();
    let mut count = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let job = if count.is_multiple_of(2) {
            let (hash, block) = new_block(CLIENT_BYTES);
            Job::new(&cell, Method::Put, hash, block)
        } else {
            let (hash, block) = known[count / 2 % known.len()].clone();
            Job::new(&cell, Method::Get, hash, block)
        };
        count += 1;
        let cell = Arc::clone(&cell);
        running.spawn(async move {
            let begun = Instant::now();
            job.run(&cell).await.map(|()| (Instant::now(), begun.elapsed().as_secs_f64() * 1e3))
        });
        while let Some(ended) = running.try_join_next() {
            taken.push(ended??);
        }
    }
    while let Some(ended) = running.join_next().await {
        taken.push(ended??);
    }
    Ok(taken)
}

/// The median and the 99th percentile.
fn percentiles(taken: &Latencies) -> (f64, f64) {
    let mut sorted: Vec<f64> = taken.iter().map(|(_, ms)| *ms).collect();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    (at(0.5), at(0.99))
}
