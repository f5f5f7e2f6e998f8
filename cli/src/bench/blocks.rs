//! `holdfast bench blocks`: durable three-replica puts and gets through a running dev cell, as an application sees
//! them: signed URLs, TLS, a process of its own.
//!
//! Every round writes new random blocks and reads them back in random order. URLs are signed here, with the dev
//! cell's key, so that metadata is not part of the measurement. Reads ask the frontend to leave its cache out.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_presign::{Grant, Method, SigningKeys, Subject};
use holdfast_libs_transport::{HttpClient, tls};
use holdfast_libs_types::{AccountId, BlockHash, CellId, MAX_BLOCK_BYTES};
use http::Request;
use http::header::CACHE_CONTROL;
use http_body_util::Full;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::arguments::BenchBlocks;
use crate::bench::fio::{self, Job as FioJob};
use crate::bench::processes;
use crate::bench::rounds::{self, Figures};
use crate::{profile, show};

const SMALL_BYTES: usize = 16 * 1024;
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Cell {
    http: HttpClient,
    frontend: String,
    keys: SigningKeys,
    cell: CellId,
    dedup_hits: AtomicUsize,
}

/// Figures of one round.
#[derive(Debug, Clone, Copy)]
struct Round {
    put_4m_mb_s: f64,
    get_4m_mb_s: f64,
    put_16k_op_s: f64,
    get_16k_op_s: f64,
    fio: Option<FioRound>,
}

/// Runs the benchmark and prints its figures.
pub async fn run(options: BenchBlocks) -> anyhow::Result<()> {
    let folder = options.target.dev.clone().context("name the dev cell to measure: --dev DIR, or HOLDFAST_DEV")?;
    let dev = profile::dev_json(&folder)?;
    let cell = Arc::new(open(&folder, &dev)?);
    let before = processes::usage(&dev);
    let mut rounds = Vec::new();
    for number in 1..=options.rounds {
        eprintln!("round {number} of {}", options.rounds);
        rounds.push(round(&cell, &options, &folder).await?);
    }
    let after = processes::usage(&dev);
    let mut figures = summary(&rounds);
    figures["dedup_hits"] = cell.dedup_hits.load(Ordering::Relaxed).into();
    figures["daemons"] = processes::report(&before, &after);
    if options.target.json {
        show::line(&serde_json::to_string_pretty(&figures)?)?;
    } else {
        show::text(&screen(&figures))?;
    }
    Ok(())
}

/// The dev cell in a folder.
pub fn open(folder: &Path, dev: &Value) -> anyhow::Result<Cell> {
    let read = |name: &str| {
        let path: PathBuf = folder.join("etc").join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let state: Value = serde_json::from_str(&read("dev-state.json")?)?;
    let ca = tls::client_config(profile::text(dev, "ca_cert")?.as_ref())?;
    Ok(Cell {
        http: HttpClient::new(&ca, None),
        frontend: profile::text(dev, "frontend")?,
        keys: SigningKeys::parse(&read("signing-keys")?)?,
        cell: state["cell"].as_str().context("dev-state.json names no cell")?.parse()?,
        dedup_hits: AtomicUsize::new(0),
    })
}

async fn round(cell: &Arc<Cell>, options: &BenchBlocks, folder: &Path) -> anyhow::Result<Round> {
    let fio = if options.no_fio { None } else { Some(measure_fio(folder)?) };
    let (put_large, get_large) = cycle(cell, options.clients, options.large, MAX_BLOCK_BYTES).await?;
    let (put_small, get_small) = cycle(cell, options.clients, options.small, SMALL_BYTES).await?;
    let bytes = (options.large * MAX_BLOCK_BYTES) as f64 / 1e6;
    Ok(Round {
        put_4m_mb_s: bytes / put_large,
        get_4m_mb_s: bytes / get_large,
        put_16k_op_s: options.small as f64 / put_small,
        get_16k_op_s: options.small as f64 / get_small,
        fio,
    })
}

/// Puts `count` new blocks of `size` bytes, then gets them in random order; answers the seconds of both.
async fn cycle(cell: &Arc<Cell>, clients: u16, count: usize, size: usize) -> anyhow::Result<(f64, f64)> {
    let blocks: Vec<_> = std::iter::repeat_with(|| new_block(size)).take(count).collect();
    let puts: Vec<_> = blocks.iter().map(|(hash, block)| Job::new(cell, Method::Put, *hash, block.clone())).collect();
    let mut gets: Vec<_> =
        blocks.iter().map(|(hash, block)| Job::new(cell, Method::Get, *hash, block.clone())).collect();
    gets.shuffle(&mut rand::rng());
    Ok((work(cell, clients, puts).await?, work(cell, clients, gets).await?))
}

/// A random block of so many bytes, and its name.
pub fn new_block(size: usize) -> (BlockHash, Bytes) {
    let mut block = vec![0; size];
    SmallRng::seed_from_u64(rand::random()).fill_bytes(&mut block);
    (BlockHash::of(&block), Bytes::from(block))
}

pub struct Job {
    method: Method,
    url: String,
    hash: BlockHash,
    block: Bytes,
}

impl Job {
    pub fn new(cell: &Cell, method: Method, hash: BlockHash, block: Bytes) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let grant = Grant {
            cell: cell.cell,
            method,
            subject: Subject::Block(hash),
            account: AccountId([0xbe; 16]),
            max_bytes: block.len() as u64,
            expires: now + 3600,
        };
        Self { method, url: format!("{}{}", cell.frontend, grant.sign(&cell.keys)), hash, block }
    }

    pub async fn run(&self, cell: &Cell) -> anyhow::Result<()> {
        let request = match self.method {
            Method::Put => Request::put(&self.url).body(Full::new(self.block.clone()))?,
            Method::Get => Request::get(&self.url).header(CACHE_CONTROL, "no-cache").body(Full::default())?,
        };
        let answer = cell.http.call(request, MAX_BLOCK_BYTES, DEADLINE).await?;
        match self.method {
            Method::Put => {
                let document: Value = serde_json::from_slice(&answer)?;
                let hit = document["deduplicated"] == true;
                cell.dedup_hits.fetch_add(usize::from(hit), Ordering::Relaxed);
            }
            Method::Get if answer != self.block => bail!("{}: the frontend served wrong bytes", self.hash),
            Method::Get => {}
        }
        Ok(())
    }
}

/// Runs all jobs on `clients` tasks; answers the seconds they took.
async fn work(cell: &Arc<Cell>, clients: u16, jobs: Vec<Job>) -> anyhow::Result<f64> {
    let jobs = Arc::new(jobs);
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (cell, jobs, next) = (Arc::clone(cell), Arc::clone(&jobs), Arc::clone(&next));
        tasks.spawn(async move {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                job.run(&cell).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a client task panicked")??;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The rounds' figures, and those of fio with the ratios to them.
fn summary(rounds: &[Round]) -> Value {
    let mut figures = Figures::default();
    for round in rounds {
        figures.add("put_4m_mb_s", round.put_4m_mb_s);
        figures.add("get_4m_mb_s", round.get_4m_mb_s);
        figures.add("put_16k_op_s", round.put_16k_op_s);
        figures.add("get_16k_op_s", round.get_16k_op_s);
        if let Some(fio) = round.fio {
            figures.add("fio_write_1m_mb_s", fio.write_1m_mb_s);
            figures.add("fio_dsync_64k_op_s", fio.dsync_64k_op_s);
            figures.add("put_4m_to_fio", round.put_4m_mb_s / fio.write_1m_mb_s);
            figures.add("put_16k_to_fio", round.put_16k_op_s / fio.dsync_64k_op_s);
        }
    }
    figures.document()
}

/// What fio reached in one round.
#[derive(Debug, Clone, Copy)]
struct FioRound {
    /// 1 MiB sequential writes, MB/s (10^6 bytes).
    write_1m_mb_s: f64,
    /// 64 KiB durable writes at depth 8, operations a second.
    dsync_64k_op_s: f64,
}

/// Runs both jobs on a scratch file in `folder`.
fn measure_fio(folder: &Path) -> anyhow::Result<FioRound> {
    let file = folder.join("bench-fio.tmp");
    let sequential = fio::run(&file, &FioJob::writes(1 << 20, 1, 1024))?;
    let durable = fio::run(&file, &FioJob::durable_overwrites(64 << 10, 8, 2048))?;
    std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    Ok(FioRound { write_1m_mb_s: sequential.mb_s, dsync_64k_op_s: durable.iops })
}

fn screen(figures: &Value) -> String {
    let mut daemons = vec![["DAEMON", "RESIDENT", "CPU S"].map(str::to_owned).to_vec()];
    for daemon in figures["daemons"].as_array().into_iter().flatten() {
        let resident = daemon["resident_mib"].as_u64().unwrap_or(0) << 20;
        let name = daemon["name"].as_str().unwrap_or("?").to_owned();
        daemons.push(vec![name, show::bytes(resident), daemon["cpu_s"].to_string()]);
    }
    format!("{}\n{}", rounds::screen(figures), show::table(&daemons))
}
