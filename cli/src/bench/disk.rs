//! `holdfast bench disk`: what the storage engine makes of a disk, beside what fio makes of it.
//!
//! Both do the same I/O: O_DIRECT, io_uring, the same depth, the same aligned sizes, every write durable (O_DSYNC), into
//! space that was allocated and never written, as fresh slots are; reads come from what was just written. The engine's
//! work on top of it is the checking of every batch and record. Each figure is taken in turn with fio's, round after
//! round, so that both meet the same neighbours.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use holdfast_libs_types::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use holdfast_libs_types::record::{RECORD_HEADER_BYTES, RecordHeader};
use holdfast_libs_types::{BlockHash, CellId, KeyId, MAX_BLOCK_BYTES, PAGE_BYTES, VolumeId, WriteEpoch};
use holdfast_node_engine::{AlignedBuf, Disk, EngineError, FormatOptions, OpenOptions, format};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::arguments::BenchDisk;
use crate::bench::fio::{self, Job};
use crate::bench::interrupted;
use crate::bench::rounds::{self, Figures};
use crate::show;

const SLOT_BYTES: u64 = 512 << 20;
/// Slots one round fills: 4 MiB appends, 64 KiB appends, 4 KiB records.
const ROUND_SLOTS: u64 = LARGE_DEPTH + SMALL_DEPTH + 1;
const EPOCH: WriteEpoch = WriteEpoch(1);

/// Volumes that 4 MiB batches go to at once, as many as a busy frontend has open; a volume takes one batch at a time.
const LARGE_DEPTH: u64 = 4;
/// Volumes that 64 KiB batches go to at once.
const SMALL_DEPTH: u64 = 8;
/// Reads of 4 MiB at once.
const READ_LARGE_DEPTH: usize = 4;
/// Reads of 4 KiB at once.
const READ_SMALL_DEPTH: usize = 32;

/// Payload of a 64 KiB batch of one record.
const SMALL_PAYLOAD: usize = 64 * 1024 - BATCH_HEADER_BYTES - RECORD_HEADER_BYTES;
/// A 4 MiB block in a record in a batch, and the pages that a read of the record touches.
const LARGE_BATCH: usize = (BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + MAX_BLOCK_BYTES).next_multiple_of(PAGE_BYTES);
/// A 4 KiB record with its header stands in two pages.
const TINY_SPAN: usize = 2 * PAGE_BYTES;

/// A record that was appended: where to read it.
#[derive(Clone, Copy)]
struct Placed {
    volume: VolumeId,
    offset: u64,
    length: u32,
}

/// Runs the benchmark and prints its figures.
///
/// # Errors
/// When the disk cannot be made, fio is missing, or an operation fails.
pub async fn run(options: BenchDisk) -> anyhow::Result<()> {
    let scratch = Scratch::at(&options.path)?;
    let figures = tokio::select! {
        figures = measure(&scratch, &options) => figures?,
        stopped = interrupted() => {
            stopped?;
            bail!("interrupted; the scratch files are removed");
        }
    };
    let figures = figures.document();
    if options.json {
        show::line(&serde_json::to_string_pretty(&figures)?)?;
    } else {
        show::text(&rounds::screen(&figures))?;
    }
    Ok(())
}

async fn measure(scratch: &Scratch, options: &BenchDisk) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {}", options.rounds);
        round(scratch, options, &mut figures).await?;
    }
    Ok(figures)
}

async fn round(scratch: &Scratch, options: &BenchDisk, figures: &mut Figures) -> anyhow::Result<()> {
    let disk = scratch.fresh_disk()?;
    let with_fio = !options.no_fio;
    let mut bench = Bench { disk, next: 1, random: SmallRng::seed_from_u64(rand::random()) };

    let (per_volume, small) = (options.large.div_ceil(LARGE_DEPTH as usize).max(1), options.small);
    let large_total = per_volume * LARGE_DEPTH as usize;
    let (seconds, cpu, large) = bench.append(LARGE_DEPTH, per_volume, &[MAX_BLOCK_BYTES]).await?;
    let bytes = (large_total * LARGE_BATCH) as u64;
    let gigabytes = bytes as f64 / 1e9;
    figures.add("append_4m_mb_s", gigabytes * 1e3 / seconds);
    figures.add("cpu_s_per_gb_append", cpu / gigabytes);
    if with_fio {
        let job = Job::durable_writes(LARGE_BATCH, LARGE_DEPTH, large_total);
        let fio = scratch.fio(&scratch.fio, job).await?;
        figures.add("fio_append_4m_mb_s", fio.mb_s);
        figures.add("append_4m_to_fio", gigabytes * 1e3 / seconds / fio.mb_s);
        figures.add("fio_cpu_s_per_gb_append", fio.cpu_s / fio.gigabytes);
        let checksum = checksum_cost();
        figures.add("checksum_cpu_s_per_gb", checksum);
        figures.add("cpu_append_to_limit", cpu / gigabytes / (1.5 * fio.cpu_s / fio.gigabytes + checksum));
    }

    let per_volume = small.div_ceil(SMALL_DEPTH as usize).max(1);
    let (seconds, _, _) = bench.append(SMALL_DEPTH, per_volume, &[SMALL_PAYLOAD]).await?;
    let done = per_volume as f64 * SMALL_DEPTH as f64;
    figures.add("append_64k_durable_op_s", done / seconds);
    if with_fio {
        let job = Job::durable_writes(64 * 1024, SMALL_DEPTH, done as usize);
        let fio = scratch.fio(&scratch.fio_small, job).await?;
        figures.add("fio_append_64k_durable_op_s", fio.iops);
        figures.add("append_64k_to_fio", done / seconds / fio.iops);
    }

    let (seconds, cpu) = bench.read(large, large_total, READ_LARGE_DEPTH).await?;
    figures.add("read_4m_mb_s", gigabytes * 1e3 / seconds);
    figures.add("cpu_s_per_gb_read", cpu / gigabytes);
    if with_fio {
        let fio = scratch
            .fio(&scratch.fio, Job::random_reads(LARGE_BATCH, READ_LARGE_DEPTH as u64, large_total, bytes))
            .await?;
        figures.add("fio_read_4m_mb_s", fio.mb_s);
        figures.add("read_4m_to_fio", gigabytes * 1e3 / seconds / fio.mb_s);
        figures.add("fio_cpu_s_per_gb_read", fio.cpu_s / fio.gigabytes);
        let limit = 1.5 * fio.cpu_s / fio.gigabytes + checksum_cost();
        figures.add("cpu_read_to_limit", cpu / gigabytes / limit);
    }

    let (tiny_batches, tiny_records) = (240, 240);
    let tiny_batch = BATCH_HEADER_BYTES + tiny_records * (RECORD_HEADER_BYTES + 4096);
    let (_, _, tiny) = bench.append(1, tiny_batches, &vec![4096; tiny_records]).await?;
    let (seconds, _) = bench.read(tiny, options.reads, READ_SMALL_DEPTH).await?;
    figures.add("read_4k_iops", options.reads as f64 / seconds);
    if with_fio {
        let among = (tiny_batches * tiny_batch) as u64;
        let job = Job::random_reads(TINY_SPAN, READ_SMALL_DEPTH as u64, options.reads, among.min(bytes));
        let fio = scratch.fio(&scratch.fio, job).await?;
        figures.add("fio_read_4k_iops", fio.iops);
        figures.add("read_4k_to_fio", options.reads as f64 / seconds / fio.iops);
    }
    Ok(())
}

/// One round's disk.
struct Bench {
    disk: Disk,
    next: u64,
    random: SmallRng,
}

impl Bench {
    /// Appends `per_volume` batches of records with these payloads to each of `volumes` new volumes, one batch at a time
    /// for each; seconds, CPU seconds, and where the records stand. Extents and batches are made before the clock runs.
    async fn append(
        &mut self,
        volumes: u64,
        per_volume: usize,
        payloads: &[usize],
    ) -> anyhow::Result<(f64, f64, Vec<Placed>)> {
        let mut placed = Vec::new();
        let mut jobs = Vec::new();
        for _ in 0..volumes {
            let volume = VolumeId::from_parts(1, std::array::from_fn(|n| (self.next >> (8 * n.min(7))) as u8));
            self.next += 1;
            self.disk.create_extent(volume, EPOCH).await?;
            let mut batches = Vec::new();
            let mut offset = 0;
            for _ in 0..per_volume {
                let batch = self.batch(volume, offset, payloads, &mut placed);
                batches.push((offset, AlignedBuf::copy_of(&batch)));
                offset += batch.len() as u64;
            }
            jobs.push((volume, batches));
        }
        let before = cpu_s()?;
        let started = Instant::now();
        let mut running: FuturesUnordered<_> = jobs
            .into_iter()
            .map(|(volume, batches)| {
                let disk = self.disk.clone();
                async move {
                    for (offset, batch) in batches {
                        disk.append(volume, EPOCH, offset, batch).await?;
                    }
                    Ok::<(), EngineError>(())
                }
            })
            .collect();
        while let Some(done) = running.next().await {
            done?;
        }
        Ok((started.elapsed().as_secs_f64(), cpu_s()? - before, placed))
    }

    fn batch(&mut self, volume: VolumeId, offset: u64, payloads: &[usize], placed: &mut Vec<Placed>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(volume, EPOCH, offset, offset);
        for length in payloads {
            let mut payload = vec![0; *length];
            self.random.fill_bytes(&mut payload);
            let header = RecordHeader {
                flags: 0,
                hash: BlockHash([7; 32]),
                volume,
                offset: 0,
                epoch: EPOCH,
                stored_len: 0,
                plain_len: 0,
                key: KeyId([1; 16]),
                nonce: [0; 12],
                payload_crc: 0,
            };
            let (offset, length) = builder.push(header, &payload);
            placed.push(Placed { volume, offset, length });
        }
        builder.finish()
    }

    /// Reads `count` of these records in random order, `depth` at once; seconds and CPU seconds.
    async fn read(&mut self, placed: Vec<Placed>, count: usize, depth: usize) -> anyhow::Result<(f64, f64)> {
        let mut order: Vec<Placed> = placed.iter().cycle().take(count).copied().collect();
        order.shuffle(&mut self.random);
        let before = cpu_s()?;
        let started = Instant::now();
        let disk = &self.disk;
        let mut reads = futures_util::stream::iter(order)
            .map(|at| async move { disk.read_record(at.volume, at.offset, at.length).await.map(drop) })
            .buffer_unordered(depth);
        while let Some(done) = reads.next().await {
            done?;
        }
        Ok((started.elapsed().as_secs_f64(), cpu_s()? - before))
    }
}

/// CPU seconds that comparing one CRC-32 costs for 10^9 bytes, over a buffer that is not in the cache.
fn checksum_cost() -> f64 {
    let bytes = vec![0x5a; 256 << 20];
    let before = Instant::now();
    std::hint::black_box(crc32fast::hash(&bytes));
    before.elapsed().as_secs_f64() / (bytes.len() as f64 / 1e9)
}

/// User and system time of this process so far, all threads, seconds.
fn cpu_s() -> anyhow::Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The scratch files, removed when it is dropped.
struct Scratch {
    disk: PathBuf,
    /// Where fio appends 4 MiB, and reads.
    fio: PathBuf,
    /// Where it appends 64 KiB.
    fio_small: PathBuf,
}

impl Scratch {
    fn at(folder: &Path) -> anyhow::Result<Self> {
        if !folder.is_dir() {
            bail!(
                "{} is no folder; name one on the disk to measure, two scratch files are made there",
                folder.display()
            );
        }
        let file = |name: &str| folder.join(format!("holdfast-bench-{}-{name}.tmp", std::process::id()));
        Ok(Self { disk: file("disk"), fio: file("fio"), fio_small: file("fio-small") })
    }

    /// A newly formatted disk on a new file.
    fn fresh_disk(&self) -> anyhow::Result<Disk> {
        remove(&self.disk)?;
        let cell = CellId(rand::random());
        let size_bytes = Some((ROUND_SLOTS + 1) * SLOT_BYTES);
        format(&self.disk, &FormatOptions { cell, slot_bytes: SLOT_BYTES, size_bytes })?;
        Ok(Disk::open(&self.disk, OpenOptions::new(cell))?)
    }

    /// Runs one fio job off this thread. Appends make their file anew; reads take what is there.
    async fn fio(&self, file: &Path, job: Job) -> anyhow::Result<fio::Outcome> {
        if job.makes_its_file() {
            remove(file)?;
        }
        let file = file.to_owned();
        tokio::task::spawn_blocking(move || fio::run(&file, &job)).await.context("running fio")?
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is named by its own file name.
        for file in [&self.disk, &self.fio, &self.fio_small] {
            let _ = remove(file);
        }
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
