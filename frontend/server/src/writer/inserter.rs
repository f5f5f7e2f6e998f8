//! Index rows for the batches that are on the disks: those of all volumes that finished meanwhile in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_volume_manager_catalog::VolumeInsert;
use tokio::sync::mpsc;

use crate::answers::PutFailure;
use crate::counters::Counters;
use crate::in_flight::Stored;
use crate::index::{Index, Inserted};
use crate::writer::queue::{Job, Queue};

/// A volume's blocks are put elsewhere so many times before their puts fail.
const MAX_ATTEMPTS: u32 = 6;

/// Batches in one transaction.
const MAX_GROUP: usize = 64;

/// How often a transaction is tried.
const TRIES: u32 = 4;

/// A batch that all replicas have.
pub(crate) struct FinishedBatch {
    pub(crate) insert: VolumeInsert,
    pub(crate) jobs: Vec<Job>,
    /// Set when the volume turns out to be fenced.
    pub(crate) fenced: Arc<AtomicBool>,
}

pub(crate) struct Inserter {
    pub(crate) index: Index,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Arc<Counters>,
    /// For tests: see `WriterConfig::fault_after_append`.
    pub(crate) fault_after_append: u64,
}

impl Inserter {
    /// Runs until all writers are gone.
    pub(crate) async fn run(mut self, mut finished: mpsc::Receiver<FinishedBatch>) {
        while let Some(first) = finished.recv().await {
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(next) = finished.try_recv()
            {
                group.push(next);
            }
            self.maybe_crash(group.len() as u64);
            self.insert(group).await;
        }
    }

    async fn insert(&self, group: Vec<FinishedBatch>) {
        let (rows, rest): (Vec<_>, Vec<_>) =
            group.into_iter().map(|batch| (batch.insert, (batch.jobs, batch.fenced))).unzip();
        let mut tries = 1;
        let results = loop {
            match self.index.insert(&rows).await {
                Ok(results) => break results,
                Err(error) if tries < TRIES => {
                    tracing::warn!(%error, "index rows not inserted; trying again");
                    tokio::time::sleep(Duration::from_millis(100) * tries).await;
                    tries += 1;
                }
                Err(error) => {
                    tracing::error!(%error, "index rows not inserted; the puts fail");
                    let failure = PutFailure::Unavailable(error.to_string());
                    rest.into_iter().flat_map(|(jobs, _)| jobs).for_each(|job| job.fail(failure.clone()));
                    return;
                }
            }
        };
        self.counters.index_transactions.one();
        for ((jobs, fenced), result) in rest.into_iter().zip(results) {
            match result {
                Inserted::Done => jobs.into_iter().for_each(|job| job.ticket.finish(&Ok(Stored::New))),
                Inserted::Fenced => {
                    self.counters.fenced_inserts.one();
                    fenced.store(true, Ordering::Relaxed);
                    again(&self.queue, jobs, "its volume was sealed meanwhile");
                }
            }
        }
    }

    fn maybe_crash(&mut self, batches: u64) {
        if self.fault_after_append == 0 {
            return;
        }
        self.fault_after_append = self.fault_after_append.saturating_sub(batches);
        if self.fault_after_append == 0 {
            tracing::error!("fault_after_append: ending the process between an append and its index rows");
            std::process::abort();
        }
    }
}

/// Puts the blocks of a failed batch back in the queue, for another volume; those that have failed too often fail.
pub(crate) fn again(queue: &Queue, jobs: Vec<Job>, reason: &str) {
    let mut kept = Vec::with_capacity(jobs.len());
    for mut job in jobs {
        job.attempts += 1;
        if job.attempts < MAX_ATTEMPTS {
            kept.push(job);
        } else {
            job.fail(PutFailure::Unavailable(format!("not stored after {MAX_ATTEMPTS} attempts; the last: {reason}")));
        }
    }
    queue.put_back(kept);
}
