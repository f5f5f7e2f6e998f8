//! The bounded way into a disk's thread.
//!
//! Admission counts operations from the moment they are sent until they are answered, so that what waits inside the
//! thread is bounded too. Control operations (fence, seal, …) have a reserve of their own, so that a flood of
//! appends cannot keep the order out that would end it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::engine::Engine;

/// A task of the disk's thread.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// What is sent to the thread: it makes the task, there.
pub(crate) type Message = Box<dyn FnOnce(Rc<Engine>) -> Task + Send>;

/// Wakes a thread that waits in the kernel.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Operations reserved for control, above the bound for data.
const CONTROL_RESERVE: usize = 64;

/// Which bound an operation counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Data,
    Control,
}

pub(crate) struct Mailbox {
    queue: Mutex<VecDeque<Message>>,
    limit: usize,
    admitted: AtomicUsize,
    sleeping: AtomicBool,
    closed: AtomicBool,
    wake: OnceLock<Wake>,
}

/// Held by an operation until it is answered.
pub(crate) struct Permit(Arc<Mailbox>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mailbox {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(VecDeque::new()),
            limit: limit.max(1),
            admitted: AtomicUsize::new(0),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: OnceLock::new(),
        })
    }

    /// Called once by the thread, before it first sleeps.
    pub(crate) fn set_wake(&self, wake: Wake) {
        let _ = self.wake.set(wake);
    }

    pub(crate) fn admit(self: &Arc<Self>, lane: Lane) -> Option<Permit> {
        let limit = match lane {
            Lane::Data => self.limit,
            Lane::Control => self.limit + CONTROL_RESERVE,
        };
        self.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Permit(self.clone()))
    }

    pub(crate) fn admitted(&self) -> usize {
        self.admitted.load(Ordering::Relaxed)
    }

    /// Hands a message over; `false` when the thread is gone or going.
    pub(crate) fn send(&self, message: Message) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        self.rouse();
        true
    }

    /// No more messages; the thread ends once it has answered those it has.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.rouse();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Takes what was sent. Called by the thread only.
    pub(crate) fn drain(&self, into: &mut VecDeque<Message>) {
        into.append(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Announces that the thread is about to wait in the kernel; `false` when there is something to do first.
    /// After `true`, every send wakes it, until `woke`.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        let empty = self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if empty && !self.is_closed() {
            return true;
        }
        self.woke();
        false
    }

    pub(crate) fn woke(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    fn rouse(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst)
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }
}
