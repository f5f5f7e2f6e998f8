//! Writers and readers that go on while things are broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use holdfast_libs_types::BlockHash;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::task::JoinSet;

use crate::blocks::{Blocks, Oracle, random_block};
use crate::wait_for;

/// How much is asked of the cell.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Puts at once.
    pub writers: u64,
    /// Gets of acknowledged blocks at once.
    pub readers: u64,
    /// Largest block.
    pub max_bytes: usize,
    /// Between two requests of a writer or reader.
    pub rest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { writers: 8, readers: 0, max_bytes: 512 * 1024, rest: Duration::ZERO }
    }
}

/// Puts blocks until told to stop, noting what was acknowledged, and reads what was.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    in_flight: Arc<AtomicU64>,
    reads: Arc<AtomicU64>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// Starts it on the runtime that this is called in.
    pub fn start(blocks: &Blocks, oracle: &Arc<Oracle>, first_seed: u64, pace: Pace) -> Self {
        let mut load =
            Self { stop: Arc::default(), in_flight: Arc::default(), reads: Arc::default(), tasks: JoinSet::new() };
        for writer in 0..pace.writers {
            let (blocks, oracle) = (blocks.clone(), Arc::clone(oracle));
            let (stop, in_flight) = (Arc::clone(&load.stop), Arc::clone(&load.in_flight));
            load.tasks.spawn(async move {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let block = random_block(first_seed + (writer << 32) + number, pace.max_bytes);
                    in_flight.fetch_add(1, Ordering::Relaxed);
                    let put = blocks.put(&block).await;
                    in_flight.fetch_sub(1, Ordering::Relaxed);
                    match put {
                        Ok(hash) => oracle.note(hash)?,
                        // A dead daemon answers at once; what was not acknowledged is nobody's loss.
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                    tokio::time::sleep(pace.rest).await;
                    number += 1;
                }
                Ok(())
            });
        }
        for reader in 0..pace.readers {
            let (blocks, oracle) = (blocks.clone(), Arc::clone(oracle));
            let (stop, reads) = (Arc::clone(&load.stop), Arc::clone(&load.reads));
            load.tasks.spawn(async move {
                let mut random = SmallRng::seed_from_u64(first_seed + reader);
                while !stop.load(Ordering::Relaxed) {
                    if let Some(hash) = oracle.any(&mut random) {
                        blocks.get(hash).await.with_context(|| format!("acknowledged block {hash}"))?;
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(pace.rest).await;
                }
                Ok(())
            });
        }
        load
    }

    /// Puts under way now.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Blocks read so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Ends it.
    ///
    /// # Errors
    /// The first read that failed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Reads blocks back; every one must come, right.
///
/// # Errors
/// The first that does not.
pub async fn read_back(blocks: &Blocks, hashes: &[BlockHash]) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for chunk in hashes.chunks(hashes.len().div_ceil(8).max(1)) {
        let (blocks, chunk) = (blocks.clone(), chunk.to_vec());
        tasks.spawn(async move {
            for hash in chunk {
                blocks.get(hash).await.with_context(|| format!("acknowledged block {hash}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Waits until a put works.
///
/// # Errors
/// When none does in time.
pub fn wait_writable(
    runtime: &tokio::runtime::Runtime,
    blocks: &Blocks,
    oracle: &Oracle,
    seed: u64,
) -> anyhow::Result<()> {
    let mut number = 0;
    wait_for("a put that works", Duration::from_secs(60), || {
        number += 1;
        let block = random_block(seed ^ (0xaaaa << 40) ^ number, 1000);
        Ok(match runtime.block_on(blocks.put(&block)) {
            Ok(hash) => {
                oracle.note(hash)?;
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        })
    })
}
