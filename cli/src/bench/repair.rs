//! `holdfast bench repair`: how fast a running dev cell protects a lost disk's data again, beside what fio makes of the same
//! device, and what clients feel of it.
//!
//! The cell is filled until each disk holds the wanted bytes. Then, round after round, one disk is pulled, in another zone each
//! time, and the clock runs from the first copy until everything has all its replicas. The pulled disk's file is renamed, and
//! removed only in the end, also after an error: a file system that frees gigabytes keeps every other write waiting for seconds.
//!
//! Before each loss without foreground fio reads and writes at once on the same file system, durably, in the same sizes: as much
//! read as written; and twice as much, as a repair on one device does, which reads every byte at its source and once more where
//! it was written. In rounds with foreground, clients put and get blocks at a fixed rate: their latencies right before the loss
//! are compared with those during the repair.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_presign::Method;
use holdfast_libs_transport::{HttpClient, tls};
use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
use holdfast_volume_manager_client::{DiskRow, VolumeManagerClient};
use tokio::task::JoinSet;

use crate::arguments::BenchRepair;
use crate::bench::blocks::{self, Cell, Job, new_block};
use crate::bench::fio::{self, Job as FioJob};
use crate::bench::foreground::{self, Clients, Operations, percentile};
use crate::bench::interrupted;
use crate::bench::rounds::{self, Figures};
use crate::outcome::usage;
use crate::{profile, show};

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
    pulled: Pulled,
}

/// The renamed files of lost disks. They are removed when this goes, however the benchmark ends.
#[derive(Default)]
struct Pulled(Vec<PathBuf>);

impl Pulled {
    /// Pulls the disk in a file.
    fn pull(&mut self, disk: &str) -> anyhow::Result<()> {
        let pulled = PathBuf::from(format!("{disk}.pulled"));
        std::fs::rename(disk, &pulled).with_context(|| format!("cannot rename {disk}"))?;
        self.0.push(pulled);
        Ok(())
    }
}

impl Drop for Pulled {
    fn drop(&mut self) {
        for file in &self.0 {
            if let Err(error) = std::fs::remove_file(file) {
                eprintln!("holdfast: cannot remove {}: {error}; remove it yourself", file.display());
            }
        }
    }
}

/// Runs the benchmark and prints its figures.
pub async fn run(options: BenchRepair) -> anyhow::Result<()> {
    let folder = options.target.dev.clone().context("name the dev cell to measure: --dev DIR, or HOLDFAST_DEV")?;
    if !options.destroy_disks {
        return Err(usage(format!(
            "this takes disks from the cell in {} and removes their files: say so with --destroy-disks",
            folder.display()
        )));
    }
    let dev = profile::dev_json(&folder)?;
    let ca = tls::client_config(profile::text(&dev, "ca_cert")?.as_ref())?;
    let http = HttpClient::new(&ca, Some(&profile::text(&dev, "admin_token")?));
    let mut bench = Bench {
        cell: Arc::new(blocks::open(&folder, &dev)?),
        volume_manager: VolumeManagerClient::new(http, profile::text(&dev, "volume_manager")?),
        hit: BTreeSet::new(),
        pulled: Pulled::default(),
    };
    let figures = tokio::select! {
        figures = bench.measure(&options, &folder) => figures?,
        stopped = interrupted() => {
            stopped?;
            bail!("interrupted; the files of the disks that were pulled are removed");
        }
    };
    drop(bench);
    let document = figures.document();
    if options.target.json {
        show::line(&serde_json::to_string_pretty(&document)?)
    } else {
        show::text(&rounds::screen(&document))
    }
}

/// 10^6 bytes a second that fio writes on the file system of the cell, while so much of all it does is to read.
fn fio_at(folder: &Path, read_percent: u32) -> anyhow::Result<f64> {
    let file = folder.join("bench-fio.tmp");
    let outcome = fio::run(&file, &FioJob::reads_and_writes(4 << 20, 8, 512, read_percent));
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(outcome?.mb_s)
}

/// A repair, from its first copy to its last.
struct Repair {
    bytes: u64,
    began: Instant,
    ended: Instant,
}

impl Repair {
    /// 10^6 bytes a second.
    fn mb_s(&self) -> f64 {
        self.bytes as f64 / 1e6 / (self.ended - self.began).as_secs_f64()
    }
}

impl Bench {
    /// All rounds.
    async fn measure(&mut self, options: &BenchRepair, folder: &Path) -> anyhow::Result<Figures> {
        let with_foreground = if options.ops == 0 { 0 } else { options.foreground_rounds };
        self.require_zones(options.rounds + with_foreground).await?;
        self.fill(options.disk_bytes.0).await?;
        let mut figures = Figures::default();
        for number in 1..=options.rounds {
            eprintln!("round {number} of {} without foreground", options.rounds);
            let fio = fio_at(folder, 50)?;
            let alike = fio_at(folder, 67)?;
            let repair = self.lose_a_disk().await?;
            figures.add("repaired_gb", repair.bytes as f64 / 1e9);
            figures.add("repair_mb_s", repair.mb_s());
            figures.add("fio_mb_s", fio);
            figures.add("repair_to_fio", repair.mb_s() / fio);
            figures.add("fio_2_reads_mb_s", alike);
            figures.add("repair_to_fio_2_reads", repair.mb_s() / alike);
        }
        for number in 1..=with_foreground {
            eprintln!("round {number} of {with_foreground} with foreground");
            self.with_foreground(f64::from(options.ops), &mut figures).await?;
        }
        Ok(figures)
    }

    /// Refuses before anything is done to a cell with too few zones for so many losses.
    async fn require_zones(&self, losses: u32) -> anyhow::Result<()> {
        let status = self.volume_manager.status().await?;
        let zones = status.nodes.iter().map(|node| &node.zone).collect::<BTreeSet<_>>().len();
        if losses as usize > zones {
            bail!(
                "{losses} losses, each in a zone of its own, are more than the cell has zones, {zones}: ask for fewer"
            );
        }
        Ok(())
    }

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

    /// Pulls a disk and waits until everything has all its replicas again.
    async fn lose_a_disk(&mut self) -> anyhow::Result<Repair> {
        let victim = self.victim().await?;
        self.pulled.pull(&victim.path)?;
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
                    return Ok(Repair { bytes, began, ended: Instant::now() });
                }
                _ => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Clients put and get before a disk is lost, and while it is repaired.
    async fn with_foreground(&mut self, ops: f64, figures: &mut Figures) -> anyhow::Result<()> {
        let known = self.put(KNOWN_BLOCKS, foreground::BLOCK_BYTES).await?;
        if let Some(percent) = self.volume_manager.repair().await?.max_client_impact {
            figures.add("max_client_impact", percent.into());
        }
        let clients = Clients::start(&self.cell, &known, ops);
        tokio::time::sleep(BEFORE).await;
        let before = clients.stop().await?;
        let clients = Clients::start(&self.cell, &known, ops);
        let repair = self.lose_a_disk().await?;
        let mut during = clients.stop().await?;
        // From the loss on nothing is copied until the disk is given up.
        during.keep(repair.began, repair.ended);
        figures.add("foreground_repaired_gb", repair.bytes as f64 / 1e9);
        figures.add("foreground_repair_mb_s", repair.mb_s());
        compare(&before, &during, figures);
        Ok(())
    }
}

/// What clients felt of a repair.
fn compare(before: &Operations, during: &Operations, figures: &mut Figures) {
    let (was, is) = (before.all(), during.all());
    figures.add("p50_before_ms", percentile(&was, 0.5));
    figures.add("p50_during_ms", percentile(&is, 0.5));
    let mut p99 = |names: [&'static str; 3], was, is| {
        let (was, is) = (percentile(was, 0.99), percentile(is, 0.99));
        figures.add(names[0], was);
        figures.add(names[1], is);
        figures.add(names[2], is / was);
    };
    p99(["p99_before_ms", "p99_during_ms", "p99_ratio"], &was, &is);
    p99(["put_p99_before_ms", "put_p99_during_ms", "put_p99_ratio"], &before.puts, &during.puts);
    p99(["get_p99_before_ms", "get_p99_during_ms", "get_p99_ratio"], &before.gets, &during.gets);
    figures.add("operations_before", was.len() as f64);
    figures.add("operations_during", is.len() as f64);
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::Pulled;

    #[test]
    fn the_files_of_pulled_disks_go_also_when_the_benchmark_ends_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let left = || std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = ["a.disk", "b.disk", "c.disk"];
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), b"disk").unwrap());
        let path = |name| folder.path().join(name).display().to_string();
        let fails = || -> anyhow::Result<()> {
            let mut pulled = Pulled::default();
            pulled.pull(&path("a.disk"))?;
            pulled.pull(&path("b.disk"))?;
            assert_eq!(left().filter(|name| name.to_str().unwrap().ends_with(".pulled")).count(), 2);
            bail!("the loss is not repaired");
        };
        assert!(fails().is_err());
        assert_eq!(left().collect::<Vec<_>>(), ["c.disk"]);
    }
}
