//! Clients that put and get small blocks at a fixed rate, and how long each operation takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use holdfast_libs_presign::Method;
use holdfast_libs_types::BlockHash;
use tokio::task::{JoinHandle, JoinSet};

use crate::bench::blocks::{Cell, Job, new_block};

/// Bytes of a block that clients put and get.
pub const BLOCK_BYTES: usize = 64 << 10;

/// What clients did: puts and gets.
#[derive(Debug, Default)]
pub struct Operations {
    pub puts: Vec<Operation>,
    pub gets: Vec<Operation>,
}

/// One operation that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    begun: Instant,
    took: Duration,
}

impl Operations {
    /// Only those that were under way at any time from `begin` to `end`.
    pub fn keep(&mut self, begin: Instant, end: Instant) {
        for operations in [&mut self.puts, &mut self.gets] {
            operations.retain(|operation| operation.begun <= end && operation.begun + operation.took >= begin);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Operation> {
        [&self.puts[..], &self.gets].concat()
    }
}

/// The latency, in milliseconds, that a share of the operations did not exceed; not a number when there are none.
pub fn percentile(operations: &[Operation], share: f64) -> f64 {
    let mut sorted: Vec<Duration> = operations.iter().map(|operation| operation.took).collect();
    sorted.sort();
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

/// Clients at work until they are stopped.
pub struct Clients {
    stop: Arc<AtomicBool>,
    working: JoinHandle<anyhow::Result<Operations>>,
}

impl Clients {
    /// `ops` operations a second, puts of new blocks and gets of `known` ones in turn, whether or not earlier ones have ended.
    pub fn start(cell: &Arc<Cell>, known: &[(BlockHash, Bytes)], ops: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let working = tokio::spawn(work(Arc::clone(cell), known.to_vec(), ops, Arc::clone(&stop)));
        Self { stop, working }
    }

    /// What they did, once the last operation has ended.
    ///
    /// # Errors
    /// The first operation that failed.
    pub async fn stop(self) -> anyhow::Result<Operations> {
        self.stop.store(true, Ordering::Relaxed);
        self.working.await?
    }
}

async fn work(
    cell: Arc<Cell>,
    known: Vec<(BlockHash, Bytes)>,
    ops: f64,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Operations> {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / ops));
    let mut running = JoinSet::new();
    let mut done = Operations::default();
    let mut count = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let is_put = count.is_multiple_of(2);
        let job = if is_put {
            let (hash, block) = new_block(BLOCK_BYTES);
            Job::new(&cell, Method::Put, hash, block)
        } else {
            let (hash, block) = known[count / 2 % known.len()].clone();
            Job::new(&cell, Method::Get, hash, block)
        };
        count += 1;
        let cell = Arc::clone(&cell);
        let begun = Instant::now();
        running.spawn(async move {
            job.run(&cell).await.with_context(|| format!("a {} failed", if is_put { "put" } else { "get" }))?;
            anyhow::Ok((is_put, Operation { begun, took: begun.elapsed() }))
        });
        while let Some(ended) = running.try_join_next() {
            done.note(ended??);
        }
    }
    while let Some(ended) = running.join_next().await {
        done.note(ended??);
    }
    Ok(done)
}

impl Operations {
    fn note(&mut self, (is_put, operation): (bool, Operation)) {
        if is_put { self.puts.push(operation) } else { self.gets.push(operation) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Operation, Operations, percentile};

    #[test]
    fn a_percentile_is_what_so_many_operations_did_not_exceed() {
        let begun = Instant::now();
        let took = |ms| Operation { begun, took: Duration::from_millis(ms) };
        let mut operations: Vec<Operation> = (1..=200).rev().map(took).collect();
        assert_eq!((percentile(&operations, 0.5), percentile(&operations, 0.99)), (101.0, 199.0));
        operations.truncate(1);
        assert_eq!(percentile(&operations, 0.99), 200.0);
        assert!(percentile(&[], 0.99).is_nan());
    }

    #[test]
    fn an_operation_counts_that_was_under_way_at_either_end_of_the_time_that_is_kept() {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let operation = |begin, end| Operation { begun: at(begin), took: Duration::from_secs(end - begin) };
        let puts = vec![operation(0, 9), operation(0, 11), operation(12, 13), operation(19, 30), operation(21, 22)];
        let mut operations = Operations { puts: puts.clone(), gets: puts };
        operations.keep(at(10), at(20));
        let took = |operations: &[Operation]| operations.iter().map(|each| each.took.as_secs()).collect::<Vec<_>>();
        assert_eq!((took(&operations.puts), took(&operations.gets)), (vec![11, 1, 11], vec![11, 1, 11]));
        assert_eq!(operations.all().len(), 6);
    }
}
