//! Encrypted blocks that wait for the next batch of whichever volume is free first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_libs_crypto::SealedRecord;
use holdfast_libs_types::{BlockHash, KeyId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::answers::PutFailure;
use crate::budget::Held;
use crate::in_flight::Ticket;

/// While one writer has a batch in flight, another takes blocks only when so many bytes wait, or when one has waited for
/// so long: small blocks are better off together in the next batch than alone in one of their own.
const CROWD_BYTES: usize = 1 << 20;
const CROWD_WAIT: Duration = Duration::from_millis(5);

/// A block on its way into a volume. Its ciphertext does not depend on the volume, so a retry elsewhere reuses it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) hash: BlockHash,
    pub(crate) plain_len: u32,
    pub(crate) key: KeyId,
    pub(crate) sealed: SealedRecord,
    /// Volumes that failed it so far.
    pub(crate) attempts: u32,
    pub(crate) since: Instant,
    pub(crate) _held: Arc<Held>,
}

impl Job {
    fn bytes(&self) -> usize {
        self.sealed.payload.len()
    }

    /// Tells everybody who waits that it cannot be stored.
    pub(crate) fn fail(self, failure: PutFailure) {
        self.ticket.finish(&Err(failure));
    }
}

/// The queue that all writers share.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: VecDeque<Job>,
    /// Bytes of those.
    bytes: usize,
    /// Batches in flight.
    writing: usize,
    /// Writers that hold a volume and wait for work.
    idle: usize,
    /// Writers that hold a volume.
    leased: usize,
    /// A writer is asking for a volume.
    leasing: bool,
    closed: bool,
}

impl Inner {
    fn is_crowded(&self) -> bool {
        self.bytes >= CROWD_BYTES || self.jobs.front().is_some_and(|job| job.since.elapsed() >= CROWD_WAIT)
    }

    /// Whether a writer should act.
    fn is_due(&self, has_volume: bool) -> bool {
        let is_its_turn = has_volume || (self.idle == 0 && !self.leasing);
        !self.jobs.is_empty() && is_its_turn && (self.writing == 0 || self.closed || self.is_crowded())
    }
}

/// A batch in flight.
#[derive(Debug)]
pub(crate) struct Writing(Arc<Queue>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.lock().writing -= 1;
        self.0.changed.notify_waiters();
    }
}

/// Counts a writer among the idle ones.
struct Idle<'a>(&'a Queue);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.lock().idle -= 1;
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds blocks at the end.
    pub(crate) fn push(&self, jobs: Vec<Job>) {
        let mut inner = self.lock();
        inner.bytes += jobs.iter().map(Job::bytes).sum::<usize>();
        inner.jobs.extend(jobs);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Puts blocks that a volume failed back to the front, so that they go into the next batch.
    pub(crate) fn put_back(&self, jobs: Vec<Job>) {
        let mut inner = self.lock();
        for job in jobs.into_iter().rev() {
            inner.bytes += job.bytes();
            inner.jobs.push_front(job);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Waits for blocks. A writer without a volume leaves them to one that is idle with a volume, or is about to get one,
    /// so that a volume is leased only when it is needed; when it comes back with `true`, it is the one that leases, and
    /// must say so with `leased`. `false` when the queue is closed and empty.
    pub(crate) async fn wait(&self, has_volume: bool) -> bool {
        let _idle = has_volume.then(|| {
            self.lock().idle += 1;
            Idle(self)
        });
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let oldest = {
                let mut inner = self.lock();
                if inner.is_due(has_volume) {
                    inner.leasing |= !has_volume;
                    return true;
                }
                if inner.closed && inner.jobs.is_empty() {
                    return false;
                }
                inner.jobs.front().map(|job| job.since).filter(|_| !inner.is_crowded())
            };
            match oldest {
                // The queue may become crowded by time alone.
                Some(since) => {
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep_until(since + CROWD_WAIT) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// Takes blocks from the front for as long as `fits` says so; they count as a batch in flight until `Writing` goes.
    pub(crate) fn take(self: &Arc<Self>, mut fits: impl FnMut(&Job) -> bool) -> (Vec<Job>, Writing) {
        let mut inner = self.lock();
        inner.writing += 1;
        let mut taken = Vec::new();
        while inner.jobs.front().is_some_and(&mut fits) {
            taken.extend(inner.jobs.pop_front());
        }
        inner.bytes -= taken.iter().map(Job::bytes).sum::<usize>();
        let more = !inner.jobs.is_empty() || inner.closed;
        drop(inner);
        if more {
            self.changed.notify_waiters();
        }
        (taken, Writing(self.clone()))
    }

    /// Whether any block waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().jobs.is_empty()
    }

    /// Ends the attempt to lease that `wait` began; `true` when the writer holds a volume now.
    pub(crate) fn leased(&self, holds: bool) {
        let mut inner = self.lock();
        inner.leasing = false;
        inner.leased += usize::from(holds);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// A writer does not hold its volume any more.
    pub(crate) fn gave_up(&self) {
        let mut inner = self.lock();
        inner.leased = inner.leased.saturating_sub(1);
    }

    /// No volume could be leased. Blocks that have waited for `patience` are failed; with no writer left that holds a
    /// volume and `patience` zero, that is all of them.
    pub(crate) fn no_volume(&self, patience: Duration, failure: &PutFailure) {
        let mut inner = self.lock();
        if inner.leased > 0 {
            return;
        }
        let late: VecDeque<Job>;
        (late, inner.jobs) =
            std::mem::take(&mut inner.jobs).into_iter().partition(|job| job.since.elapsed() >= patience);
        inner.bytes -= late.iter().map(Job::bytes).sum::<usize>();
        drop(inner);
        for job in late {
            job.fail(failure.clone());
        }
    }

    /// No more blocks will come; writers end once it is empty.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use holdfast_libs_crypto::SealedRecord;
    use holdfast_libs_types::{BlockHash, KeyId};
    use tokio::time::{Instant, advance};

    use super::{CROWD_BYTES, CROWD_WAIT, Job, Queue};
    use crate::budget::Budget;
    use crate::in_flight::InFlight;

    async fn job(n: u8, bytes: usize) -> Job {
        let hash = BlockHash([n; 32]);
        Job {
            ticket: InFlight::default().enter(hash).0.unwrap(),
            hash,
            plain_len: bytes as u32,
            key: KeyId([0; 16]),
            sealed: SealedRecord { nonce: [0; 12], payload: vec![0; bytes] },
            attempts: 0,
            since: Instant::now(),
            _held: Arc::new(Budget::new(1, 1).take(0).await.unwrap()),
        }
    }

    fn is_due(queue: &Queue, has_volume: bool) -> bool {
        let due = queue.wait(has_volume).now_or_never() == Some(true);
        if due && !has_volume {
            queue.leased(false);
        }
        due
    }

    #[tokio::test(start_paused = true)]
    async fn small_blocks_gather_while_a_batch_is_in_flight_and_not_for_ever() {
        let queue = Arc::new(Queue::default());
        queue.push(vec![job(1, 10).await]);
        assert!(is_due(&queue, true));
        let (taken, writing) = queue.take(|_| true);
        assert_eq!(taken.len(), 1);
        queue.push(vec![job(2, 10).await]);
        assert!(!is_due(&queue, true), "it joins the next batch");
        advance(CROWD_WAIT).await;
        assert!(is_due(&queue, true), "it has waited long enough");
        let (_second, second_writing) = queue.take(|_| true);
        queue.push(vec![job(3, CROWD_BYTES).await]);
        assert!(is_due(&queue, true), "it is worth a batch of its own");
        let (_third, third_writing) = queue.take(|_| true);
        queue.push(vec![job(4, 10).await]);
        assert!(!is_due(&queue, true));
        drop((writing, second_writing, third_writing));
        assert!(is_due(&queue, true), "nothing is in flight any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_is_leased_only_when_nobody_who_has_one_is_idle_or_about_to_get_one() {
        let queue = Arc::new(Queue::default());
        let mut idle = Box::pin(queue.wait(true));
        assert_eq!(idle.as_mut().now_or_never(), None);
        queue.push(vec![job(1, 10).await]);
        assert!(!is_due(&queue, false), "the idle one takes it");
        assert!(idle.await);
        assert_eq!(queue.wait(false).now_or_never(), Some(true), "nobody is idle: one leases");
        assert!(!is_due(&queue, false), "and only one");
        queue.leased(true);
        assert!(is_due(&queue, false));
        queue.close();
        let (taken, _writing) = queue.take(|_| true);
        assert_eq!(taken.len(), 1);
        assert_eq!(queue.wait(true).now_or_never(), Some(false), "closed and empty");
    }
}
