//! One writer: a volume, its tail, and the batch in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_libs_transport::HttpClient;
use holdfast_libs_types::batch::{BATCH_HEADER_BYTES, BatchBuilder};
use holdfast_libs_types::record::{RECORD_HEADER_BYTES, RecordHeader};
use holdfast_libs_types::{MAX_BATCH_BYTES, MAX_VOLUME_RECORDS, PAGE_BYTES, VolumeId, WriteEpoch};
use holdfast_volume_manager_catalog::{NewRow, VolumeInsert};
use holdfast_volume_manager_client::LeasedVolume;
use tokio::sync::mpsc;

use crate::WriterConfig;
use crate::answers::PutFailure;
use crate::counters::Counters;
use crate::cpu::on_cpu;
use crate::writer::append::append_to_all;
use crate::writer::inserter::{FinishedBatch, again};
use crate::writer::leases::{Leases, lease_failure};
use crate::writer::queue::{Job, Queue};

/// How long a put waits for a volume when none can be leased.
const LEASE_PATIENCE: Duration = Duration::from_secs(30);

/// Waits between attempts to lease: the first, and the longest.
const LEASE_WAIT_MIN: Duration = Duration::from_millis(100);
const LEASE_WAIT_MAX: Duration = Duration::from_secs(2);

/// A volume being written to.
pub(crate) struct OpenVolume {
    pub(crate) lease: LeasedVolume,
    /// Bytes that all replicas have.
    tail: u64,
    records: u32,
    fenced: Arc<AtomicBool>,
    /// The queue does not know of it yet: it has taken no block since it was leased.
    fresh: bool,
}

/// A writer.
pub(crate) struct VolumeWriter {
    max_batch_bytes: usize,
    deadline: Duration,
    http: HttpClient,
    queue: Arc<Queue>,
    leases: Arc<Leases>,
    counters: Arc<Counters>,
    finished: mpsc::Sender<FinishedBatch>,
    volume: Option<OpenVolume>,
    lease_wait: Duration,
}

impl VolumeWriter {
    pub(crate) fn new(
        config: &WriterConfig,
        http: &HttpClient,
        queue: &Arc<Queue>,
        leases: &Arc<Leases>,
        counters: &Arc<Counters>,
        finished: mpsc::Sender<FinishedBatch>,
    ) -> Self {
        Self {
            max_batch_bytes: config.max_batch_bytes.clamp(PAGE_BYTES, MAX_BATCH_BYTES),
            deadline: Duration::from_millis(config.append_deadline_ms.max(1)),
            http: http.clone(),
            queue: queue.clone(),
            leases: leases.clone(),
            counters: counters.clone(),
            finished,
            volume: None,
            lease_wait: LEASE_WAIT_MIN,
        }
    }

    /// Writes until the queue is closed and empty; answers with the volume that is open then.
    pub(crate) async fn run(mut self) -> Option<OpenVolume> {
        while self.queue.wait(self.volume.is_some()).await {
            if self.volume.as_ref().is_some_and(|volume| volume.fenced.load(Ordering::Relaxed)) {
                self.give_up(None, "its index rows are fenced".to_owned());
                continue;
            }
            match self.volume.take() {
                Some(volume) => self.write_batch(volume).await,
                None => self.lease().await,
            }
        }
        self.volume
    }

    /// Takes a lease, or tells those who have waited too long why there is none, and waits.
    async fn lease(&mut self) {
        match self.leases.take().await {
            Ok(lease) => {
                self.lease_wait = LEASE_WAIT_MIN;
                let fenced = Arc::new(AtomicBool::new(false));
                self.volume = Some(OpenVolume { lease, tail: 0, records: 0, fenced, fresh: true });
            }
            Err(error) => {
                self.counters.failed_leases.one();
                tracing::warn!(%error, "no volume could be leased");
                let (failure, may_pass) = lease_failure(&error);
                self.queue.no_volume(if may_pass { LEASE_PATIENCE } else { Duration::ZERO }, &failure);
                tokio::time::sleep(self.lease_wait).await;
                self.queue.leased(false);
                self.lease_wait = (self.lease_wait * 2).min(LEASE_WAIT_MAX);
            }
        }
    }

    /// Builds a batch of what waits and appends it. Keeps the volume if that went well.
    async fn write_batch(&mut self, mut volume: OpenVolume) {
        let mut len = BATCH_HEADER_BYTES;
        let mut count = 0;
        let room = usize::try_from(volume.lease.capacity - volume.tail).unwrap_or(usize::MAX);
        let (jobs, writing) = self.queue.take(|job| {
            let with = len + RECORD_HEADER_BYTES + job.sealed.payload.len();
            let most = if count == 0 { MAX_BATCH_BYTES } else { self.max_batch_bytes };
            let fits =
                with.next_multiple_of(PAGE_BYTES) <= most.min(room) && volume.records + count < MAX_VOLUME_RECORDS;
            if fits {
                (len, count) = (with, count + 1);
            }
            fits
        });
        if std::mem::take(&mut volume.fresh) {
            // Not before: until the blocks it was leased for are taken, another writer would lease one more for them.
            self.queue.leased(true);
        }
        if jobs.is_empty() {
            // Another writer was faster, or the next block does not fit into what is left of the volume.
            let empty = volume.tail == 0;
            self.volume = Some(volume);
            if empty {
                self.refuse_what_fits_nowhere(room);
            } else if !self.queue.is_empty() {
                self.give_up(None, "the volume is full".to_owned());
            }
            return;
        }
        let (id, epoch, offset) = (volume.lease.volume, volume.lease.epoch, volume.tail);
        let built = on_cpu(len, move || build(id, epoch, offset, len, jobs)).await;
        let (batch, rows, jobs) = built;
        let appended = append_to_all(&self.http, &volume.lease, offset, &batch, self.deadline, &self.counters).await;
        drop(writing);
        if let Err(failure) = appended {
            self.volume = Some(volume);
            self.counters.failed_appends.one();
            if !failure.full {
                tracing::warn!(volume = %id, disk = ?failure.disk, reason = failure.reason,
                    "append failed; its blocks go into another volume");
            }
            self.give_up(failure.disk, failure.reason.clone());
            again(&self.queue, jobs, &failure.reason);
            return;
        }
        volume.tail = offset + batch.len() as u64;
        volume.records += count;
        self.counters.batches.one();
        self.counters.appends.add(count.into());
        self.counters.append_bytes.add(batch.len() as u64);
        let insert = VolumeInsert { volume: id, epoch, end: volume.tail, rows };
        let fenced = volume.fenced.clone();
        self.volume = Some(volume);
        // The inserter outlives the writers; if it panicked, the tickets in the batch answer for themselves.
        let _ = self.finished.send(FinishedBatch { insert, jobs, fenced }).await;
    }

    /// A block that is larger than an empty volume would go from volume to volume for ever.
    fn refuse_what_fits_nowhere(&self, room: usize) {
        let record = |job: &Job| BATCH_HEADER_BYTES + RECORD_HEADER_BYTES + job.sealed.payload.len();
        let (jobs, _writing) = self.queue.take(|job| record(job).next_multiple_of(PAGE_BYTES) > room);
        for job in jobs {
            let why = format!("a block of {} bytes does not fit into a volume of {room} bytes", job.plain_len);
            job.fail(PutFailure::CellFull(why));
        }
    }

    fn give_up(&mut self, disk: Option<holdfast_libs_types::DiskId>, reason: String) {
        if let Some(volume) = self.volume.take() {
            self.queue.gave_up();
            self.leases.give_up(&volume.lease, disk, reason);
        }
    }
}

/// Lays the blocks out as one batch at `offset`; `len` is its length before padding.
fn build(
    volume: VolumeId,
    epoch: WriteEpoch,
    offset: u64,
    len: usize,
    jobs: Vec<Job>,
) -> (Bytes, Vec<NewRow>, Vec<Job>) {
    let mut builder = BatchBuilder::new(volume, epoch, offset, offset);
    builder.reserve(len);
    let mut rows = Vec::with_capacity(jobs.len());
    for job in &jobs {
        let header = RecordHeader {
            flags: 0,
            hash: job.hash,
            plain_len: job.plain_len,
            key: job.key,
            nonce: job.sealed.nonce,
            // The builder fills in the place, the length and the checksum.
            volume,
            offset: 0,
            epoch,
            stored_len: 0,
            payload_crc: 0,
        };
        let (offset, length) = builder.push(header, &job.sealed.payload);
        rows.push(NewRow { hash: job.hash, offset, length, plain_len: job.plain_len });
    }
    (Bytes::from(builder.finish()), rows, jobs)
}
