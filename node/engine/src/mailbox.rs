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
    /// `None` once the thread is gone: nobody would answer.
    queue: Mutex<Option<VecDeque<Message>>>,
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
            queue: Mutex::new(Some(VecDeque::new())),
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

    /// Hands a message over; `false` when the thread is gone.
    pub(crate) fn send(&self, message: Message) -> bool {
        match &mut *self.lock() {
            Some(queue) => queue.push_back(message),
            None => return false,
        }
        self.rouse();
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<VecDeque<Message>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's last act: what was sent and not taken is dropped, which tells its senders; later sends fail.
    pub(crate) fn abandon(&self) {
        let left = self.lock().take();
        drop(left);
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
        if let Some(queue) = &mut *self.lock() {
            into.append(queue);
        }
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_drained(&self) -> bool {
        self.lock().as_ref().is_none_or(VecDeque::is_empty)
    }

    /// Announces that the thread is about to wait in the kernel; `false` when there is something to do first.
    /// After `true`, every send wakes it, until `woke`.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.is_drained() && !self.is_closed() {
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
