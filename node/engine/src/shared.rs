//! What a disk's handles and its thread both see.
//!
//! H1: an operation on a disk that hangs is answered within its deadline, and a disk that is known to hang is not even
//! asked. An operation that was answered late still counts against the bounds of its own disk, and of no other.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use holdfast_libs_types::{CellId, DiskId};

use crate::buffer::{AlignedBuf, BufferPool};
use crate::clock::Clock;
use crate::deadline::{Limit, Patience, answer_in_time};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::geometry::Geometry;
use crate::io_error::{Direction, ErrorKind, Place};
use crate::latency::{Histogram, LatencySnapshot};
use crate::mailbox::{Lane, Mailbox, Permit};
use crate::status::{
    DiskCounters, DiskState, DiskStatus, ErrorCounts, IoErrors, IoPath, OpenOptions, ScrubStatus, Shown, SlotCounts,
};
use crate::suspect::SuspicionChange;

/// How long dropping the last handle waits for the thread; a disk whose I/O hangs is left to itself after that.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// The clock of a disk and what is measured with it.
#[derive(Clone)]
pub(crate) struct Timing {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) operation_deadline: Duration,
    pub(crate) stall_after: Duration,
}

impl Timing {
    pub(crate) fn new(clock: Arc<dyn Clock>, options: &OpenOptions) -> Self {
        let (operation_deadline, stall_after) = (options.operation_deadline, options.stall_after);
        Self { clock, operation_deadline, stall_after }
    }
}

pub(crate) struct Shared {
    pub(crate) id: DiskId,
    pub(crate) cell: CellId,
    pub(crate) path: PathBuf,
    pub(crate) geometry: Geometry,
    pub(crate) io: IoPath,
    pub(crate) o_direct: bool,
    pub(crate) pool: BufferPool,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Counters,
    pub(crate) free_slots: AtomicU32,
    pub(crate) lost_slots: AtomicU32,
    pub(crate) open_zones: AtomicU32,
    pub(crate) incarnation: AtomicU64,
    pub(crate) mount_read_bytes: AtomicU64,
    pub(crate) rebuilt: AtomicBool,
    pub(crate) state: Mutex<DiskState>,
    pub(crate) timing: Timing,
    pub(crate) queue_depth: AtomicUsize,
    pub(crate) stall: Stall,
    pub(crate) latency: Latencies,
    /// Why reads and writes are suspect.
    pub(crate) suspicions: Mutex<[Option<String>; 2]>,
    pub(crate) erase_alarms: AtomicU64,
    /// The highest leader term that the disk was told, in an order about any extent.
    pub(crate) term: AtomicU64,
    pub(crate) slot_counts: Mutex<SlotCounts>,
    pub(crate) uptime: Uptime,
}

/// Seconds that the disk was mounted in all its life: what it knew at the mount, and the time since.
pub(crate) struct Uptime {
    /// At the mount, seconds.
    base_s: AtomicU64,
    /// The mount, by the disk's clock.
    since: Duration,
}

impl Uptime {
    pub(crate) fn begin(timing: &Timing) -> Self {
        Self { base_s: AtomicU64::new(0), since: timing.clock.now() }
    }
}

/// Whether the disk hangs, and why.
#[derive(Default)]
pub(crate) struct Stall {
    /// Asked before every operation, hence no lock.
    stalled: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl Stall {
    fn set(&self, reason: Option<String>) {
        let mut stands = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        self.stalled.store(reason.is_some(), Ordering::Relaxed);
        *stands = reason;
    }

    fn reason(&self) -> Option<String> {
        if !self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How long reads and writes take.
#[derive(Default)]
pub(crate) struct Latencies {
    pub(crate) read: Histogram,
    pub(crate) write: Histogram,
}

impl Latencies {
    pub(crate) fn of(&self, direction: Direction) -> &Histogram {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    area_write_errors: AtomicU64,
    busy: AtomicU64,
    damaged: AtomicU64,
    appends: AtomicU64,
    errors: [[AtomicU64; ErrorKind::ALL]; 2],
}

impl Counters {
    pub(crate) fn read(&self, bytes: usize) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.written_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// I/Os that have ended, well or not.
    pub(crate) fn ended(&self) -> u64 {
        [&self.reads, &self.writes, &self.read_errors, &self.write_errors]
            .into_iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn read_error(&self, kind: ErrorKind) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
        self.kinds(Direction::Read, kind).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write_error(&self, kind: ErrorKind, place: Place) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
        self.area_write_errors.fetch_add(u64::from(place == Place::Area), Ordering::Relaxed);
        self.kinds(Direction::Write, kind).fetch_add(1, Ordering::Relaxed);
    }

    /// I/Os that were under way when the disk was found hanging.
    pub(crate) fn timed_out(&self, direction: Direction, count: u64) {
        self.kinds(direction, ErrorKind::Timeout).fetch_add(count, Ordering::Relaxed);
    }

    fn kinds(&self, direction: Direction, kind: ErrorKind) -> &AtomicU64 {
        &self.errors[direction as usize][kind as usize]
    }

    fn errors(&self) -> IoErrors {
        let counts = |direction| {
            let get = |kind| self.kinds(direction, kind).load(Ordering::Relaxed);
            ErrorCounts {
                medium: get(ErrorKind::Medium),
                transport: get(ErrorKind::Transport),
                timeout: get(ErrorKind::Timeout),
                no_space: get(ErrorKind::NoSpace),
                checksum: get(ErrorKind::Checksum),
                other: get(ErrorKind::Other),
            }
        };
        IoErrors { reads: counts(Direction::Read), writes: counts(Direction::Write) }
    }

    /// Writes that failed for good; and those of them that were for areas.
    pub(crate) fn failed_writes(&self) -> (u64, u64) {
        (self.write_errors.load(Ordering::Relaxed), self.area_write_errors.load(Ordering::Relaxed))
    }

    pub(crate) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        self.kinds(Direction::Read, ErrorKind::Checksum).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn appended(&self) {
        self.appends.fetch_add(1, Ordering::Relaxed);
    }

    fn snapshot(&self) -> DiskCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounters {
            reads: get(&self.reads),
            read_bytes: get(&self.read_bytes),
            writes: get(&self.writes),
            written_bytes: get(&self.written_bytes),
            read_errors: get(&self.read_errors),
            write_errors: get(&self.write_errors),
            busy: get(&self.busy),
            damaged: get(&self.damaged),
            appends: get(&self.appends),
        }
    }
}

impl Shared {
    pub(crate) fn status(&self) -> DiskStatus {
        DiskStatus {
            id: self.id,
            cell: self.cell,
            path: self.path.clone(),
            state: self.state(),
            slot_bytes: self.geometry.slot_bytes,
            slots: self.geometry.slots,
            free_slots: self.free_slots.load(Ordering::Relaxed),
            lost_slots: self.lost_slots.load(Ordering::Relaxed),
            open_zones: self.open_zones.load(Ordering::Relaxed),
            open_zones_limit: self.geometry.zones.as_ref().map_or(0, |zones| zones.limit),
            volume_capacity_bytes: self.geometry.volume_capacity_bytes(),
            incarnation: self.incarnation.load(Ordering::Relaxed),
            mount_read_bytes: self.mount_read_bytes.load(Ordering::Relaxed),
            rebuilt: self.rebuilt.load(Ordering::Relaxed),
            io: self.io,
            o_direct: self.o_direct,
            in_flight: self.mailbox.admitted(),
            counters: self.counters.snapshot(),
            suspect: self.suspicion(),
            stalled: self.stall.reason(),
            latency: LatencySnapshot { read: self.latency.read.snapshot(), write: self.latency.write.snapshot() },
            errors: self.counters.errors(),
            queue_depth: self.queue_depth.load(Ordering::Relaxed),
            slots_by_state: self.slot_counts(),
            scrub: ScrubStatus { slots: self.geometry.slots, ..ScrubStatus::default() },
            erase_alarms: self.erase_alarms.load(Ordering::Relaxed),
            term: self.term.load(Ordering::Relaxed),
            uptime_s: self.uptime_s(),
            buffer_bytes: self.pool.used_bytes(),
        }
    }

    pub(crate) fn hear_term(&self, term: u64) {
        self.term.fetch_max(term, Ordering::Relaxed);
    }

    pub(crate) fn slot_counts(&self) -> SlotCounts {
        *self.slot_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One slot, counted as `before` until now, counts as `after`.
    pub(crate) fn recount_slot(&self, before: Shown, after: Shown) {
        let mut counts = self.slot_counts.lock().unwrap_or_else(PoisonError::into_inner);
        let place = before.place(&mut counts);
        // A mount counts when it is done.
        *place = place.saturating_sub(1);
        *after.place(&mut counts) += 1;
    }

    pub(crate) fn count_slots(&self, counts: SlotCounts) {
        *self.slot_counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// The disk's uptime, seconds. It only rises, over all mounts.
    pub(crate) fn uptime_s(&self) -> u64 {
        let since_mount = self.timing.clock.now().saturating_sub(self.uptime.since);
        self.uptime.base_s.load(Ordering::Relaxed) + since_mount.as_secs()
    }

    /// The mount found that the uptime was `base_s` before.
    pub(crate) fn resume_uptime(&self, base_s: u64) {
        self.uptime.base_s.store(base_s, Ordering::Relaxed);
    }

    /// The disk completed nothing for too long, with `in_flight` I/Os under way.
    pub(crate) fn begin_stall(&self, in_flight: usize) {
        let reason = format!(
            "it completed none of {in_flight} I/Os for {:?}; check its cables, its controller and the kernel's log, \
             or take it out of the node",
            self.timing.stall_after
        );
        tracing::error!(disk = %self.id, path = %self.path.display(), reason, "disk hangs; it is not asked until it answers");
        self.stall.set(Some(reason));
    }

    /// The disk completed something after `silent`.
    pub(crate) fn end_stall(&self, silent: Duration) {
        tracing::warn!(disk = %self.id, path = %self.path.display(), ?silent, "disk answers again");
        self.stall.set(None);
    }

    /// The disk became suspect for its reads or writes, or is so no longer.
    pub(crate) fn suspect(&self, direction: Direction, change: SuspicionChange) {
        let path = self.path.display();
        let reason = match change {
            SuspicionChange::Raised(reason) => {
                tracing::warn!(disk = %self.id, %path, reason, "disk is suspect: it is far slower than it was");
                Some(reason)
            }
            SuspicionChange::Cleared => {
                tracing::info!(disk = %self.id, %path, ?direction, "disk is as fast as it was, and suspect no longer");
                None
            }
        };
        self.suspicions.lock().unwrap_or_else(PoisonError::into_inner)[direction as usize] = reason;
    }

    fn suspicion(&self) -> Option<String> {
        let reasons = self.suspicions.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<&str> = reasons.iter().flatten().map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// The error of an operation that was not answered for `waited`.
    fn late(&self, waited: Duration) -> EngineError {
        let detail = format!(
            "the operation was not answered for {waited:?} and goes on inside; ask another replica, and this disk again \
             once its status shows no stall"
        );
        EngineError::Stalled { disk: self.id, detail }
    }

    pub(crate) fn state(&self) -> DiskState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Read-only until opened anew; a failed disk stays failed.
    pub(crate) fn set_read_only(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state == DiskState::Healthy {
            tracing::error!(disk = %self.id, reason, "disk is read-only from now on");
            *state = DiskState::ReadOnly { reason: reason.to_owned() };
        }
    }

    pub(crate) fn set_failed(&self, reason: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, DiskState::Failed { .. }) {
            tracing::error!(disk = %self.id, reason, "disk is out of use from now on");
            *state = DiskState::Failed { reason: reason.to_owned() };
        }
    }

    /// Whether the disk may be read.
    pub(crate) fn readable(&self) -> Result<(), EngineError> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            DiskState::Failed { reason } => Err(EngineError::Failed { disk: self.id, reason: reason.clone() }),
            _ => Ok(()),
        }
    }

    /// Whether the disk may be written.
    pub(crate) fn writable(&self) -> Result<(), EngineError> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            DiskState::Healthy => Ok(()),
            DiskState::ReadOnly { reason } => Err(EngineError::ReadOnly { disk: self.id, reason: reason.clone() }),
            DiskState::Failed { reason } => Err(EngineError::Failed { disk: self.id, reason: reason.clone() }),
        }
    }

    pub(crate) fn buffer(&self, capacity: usize) -> Result<AlignedBuf, EngineError> {
        self.pool.take(capacity).ok_or_else(|| self.busy("its buffers are in use"))
    }

    fn busy(&self, detail: &'static str) -> EngineError {
        self.counters.busy.fetch_add(1, Ordering::Relaxed);
        EngineError::Busy { disk: self.id, detail }
    }

    /// The right to send an operation.
    pub(crate) fn admit(&self, lane: Lane) -> Result<Permit, EngineError> {
        if let Some(reason) = self.stall.reason() {
            return Err(EngineError::Stalled { disk: self.id, detail: reason });
        }
        self.mailbox.admit(lane).ok_or_else(|| self.busy("its queue is full"))
    }

    /// Sends an operation to the thread and awaits its answer, for as long as `patience` allows.
    pub(crate) async fn call<T, F, Fut>(
        self: &Arc<Self>,
        permit: Permit,
        patience: Patience,
        operation: F,
    ) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Engine>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (shared, deadline) = (self.clone(), self.timing.operation_deadline);
        let limit = Limit { sent_at: self.timing.clock.now(), deadline, patience };
        let sent = self.mailbox.send(Box::new(move |engine| {
            let io = engine.io().clone();
            let operation = async move {
                let result = operation(engine).await;
                drop(permit);
                result
            };
            Box::pin(answer_in_time(io, limit, operation, answer, move |waited| shared.late(waited)))
        }));
        if !sent {
            return Err(self.gone());
        }
        answered.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why nobody answers.
    fn gone(&self) -> EngineError {
        self.readable().err().unwrap_or(EngineError::Stopped { disk: self.id })
    }
}

/// Closes the mailbox when the last handle goes, and waits for the thread to have let go of the disk.
pub(crate) struct Life {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) stopped: Option<Arc<Stopped>>,
}

/// Set by the thread as its last act.
#[derive(Default)]
pub(crate) struct Stopped {
    done: Mutex<bool>,
    changed: Condvar,
}

impl Stopped {
    pub(crate) fn set(&self) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.changed.wait_timeout_while(done, STOP_WAIT, |done| !*done);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.mailbox.close();
        if let Some(stopped) = &self.stopped {
            stopped.wait();
        }
    }
}
