//! What a disk's handles and its thread both see.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use holdfast_libs_types::{CellId, DiskId};

use crate::buffer::{AlignedBuf, BufferPool};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::geometry::Geometry;
use crate::mailbox::{Lane, Mailbox};
use crate::status::{DiskCounters, DiskState, DiskStatus, IoPath};

/// How long dropping the last handle waits for the thread; a disk whose I/O hangs is left to itself after that.
const STOP_WAIT: Duration = Duration::from_secs(10);

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
    pub(crate) incarnation: AtomicU64,
    pub(crate) state: Mutex<DiskState>,
}

#[derive(Default)]
pub(crate) struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    busy: AtomicU64,
    damaged: AtomicU64,
    appends: AtomicU64,
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

    pub(crate) fn read_error(&self) {
        self.read_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write_error(&self) {
        self.write_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write_errors(&self) -> u64 {
        self.write_errors.load(Ordering::Relaxed)
    }

    pub(crate) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
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
            volume_capacity_bytes: self.geometry.volume_capacity_bytes(),
            incarnation: self.incarnation.load(Ordering::Relaxed),
            io: self.io,
            o_direct: self.o_direct,
            in_flight: self.mailbox.admitted(),
            counters: self.counters.snapshot(),
        }
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

    /// Sends an operation to the thread and awaits its answer.
    pub(crate) async fn call<T, F, Fut>(&self, lane: Lane, operation: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Engine>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        let permit = self.mailbox.admit(lane).ok_or_else(|| self.busy("its queue is full"))?;
        let (answer, answered) = oneshot::channel();
        let sent = self.mailbox.send(Box::new(move |engine| {
            Box::pin(async move {
                let result = operation(engine).await;
                drop(permit);
                // The caller may have gone away; the operation was done all the same.
                let _ = answer.send(result);
            })
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
