//! The loop of a disk's thread: messages become tasks, tasks start I/O, completions wake tasks.
//!
//! Tasks are futures that only this loop polls, on one thread; what they share stands in `Rc` and `RefCell`. A task
//! is never dropped while it runs, so a caller that goes away neither undoes an operation nor frees its buffer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::buffer::AlignedBuf;
use crate::engine::Engine;
use crate::mailbox::{Mailbox, Message, Task};
use crate::raw::{Done, RawDisk, Work};

/// Things by number, with the numbers of removed ones used again.
struct Slab<T> {
    places: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Slab<T> {
    const fn new() -> Self {
        Self { places: Vec::new(), vacant: Vec::new() }
    }

    fn insert(&mut self, value: T) -> usize {
        if let Some(index) = self.vacant.pop() {
            self.places[index] = Some(value);
            return index;
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    fn remove(&mut self, index: usize) -> Option<T> {
        let value = self.places.get_mut(index)?.take()?;
        self.vacant.push(index);
        Some(value)
    }

    fn is_empty(&self) -> bool {
        self.vacant.len() == self.places.len()
    }
}

enum OpState {
    /// Under way; the task to wake, if one waits already.
    Pending(Option<usize>),
    Finished(Done),
    /// Nobody wants the answer.
    Abandoned,
}

/// What tasks use to start I/O and to wait.
pub(crate) struct Io {
    ops: RefCell<Slab<OpState>>,
    outbound: RefCell<Vec<(u64, u64, Work)>>,
    ready: RefCell<VecDeque<usize>>,
    current: Cell<usize>,
}

impl Io {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            ops: RefCell::new(Slab::new()),
            outbound: RefCell::new(Vec::new()),
            ready: RefCell::new(VecDeque::new()),
            current: Cell::new(0),
        })
    }

    /// Starts `work` at once (with the loop's next turn); the future awaits its end.
    pub(crate) fn start(self: &Rc<Self>, offset: u64, work: Work) -> IoFuture {
        let key = self.ops.borrow_mut().insert(OpState::Pending(None));
        self.outbound.borrow_mut().push((key as u64, offset, work));
        IoFuture { io: self.clone(), key, taken: false }
    }

    fn finish(&self, done: Done) {
        let key = done.id as usize;
        let mut ops = self.ops.borrow_mut();
        match ops.places.get_mut(key) {
            Some(Some(state @ OpState::Pending(_))) => {
                if let OpState::Pending(Some(task)) = std::mem::replace(state, OpState::Finished(done)) {
                    self.ready.borrow_mut().push_back(task);
                }
            }
            _ => drop(ops.remove(key)),
        }
    }
}

/// The end of an I/O: the result and the buffer, if the operation had one.
pub(crate) struct IoFuture {
    io: Rc<Io>,
    key: usize,
    taken: bool,
}

impl Future for IoFuture {
    type Output = (io::Result<usize>, Option<AlignedBuf>);

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let io = self.io.clone();
        let mut ops = io.ops.borrow_mut();
        if let Some(Some(state @ OpState::Pending(_))) = ops.places.get_mut(self.key) {
            *state = OpState::Pending(Some(io.current.get()));
            return Poll::Pending;
        }
        self.taken = true;
        match ops.remove(self.key) {
            Some(OpState::Finished(done)) => Poll::Ready((done.result, done.buffer)),
            _ => Poll::Ready((Err(io::Error::other("the operation was awaited twice")), None)),
        }
    }
}

impl Drop for IoFuture {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut ops = self.io.ops.borrow_mut();
        match ops.places.get_mut(self.key) {
            Some(Some(state @ OpState::Pending(_))) => *state = OpState::Abandoned,
            _ => drop(ops.remove(self.key)),
        }
    }
}

/// A lock for tasks of one loop, granted in the order asked for.
pub(crate) struct TaskLock {
    io: Rc<Io>,
    next_ticket: Cell<u64>,
    serving: Cell<u64>,
    waiters: RefCell<VecDeque<(u64, usize)>>,
}

impl TaskLock {
    pub(crate) fn new(io: &Rc<Io>) -> Rc<Self> {
        Rc::new(Self {
            io: io.clone(),
            next_ticket: Cell::new(0),
            serving: Cell::new(0),
            waiters: RefCell::new(VecDeque::new()),
        })
    }

    pub(crate) async fn lock(self: &Rc<Self>) -> TaskLockGuard {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        std::future::poll_fn(|_| {
            if self.serving.get() == ticket {
                return Poll::Ready(());
            }
            let mut waiters = self.waiters.borrow_mut();
            if !waiters.iter().any(|(waiting, _)| *waiting == ticket) {
                waiters.push_back((ticket, self.io.current.get()));
            }
            Poll::Pending
        })
        .await;
        TaskLockGuard(self.clone())
    }
}

pub(crate) struct TaskLockGuard(Rc<TaskLock>);

impl Drop for TaskLockGuard {
    fn drop(&mut self) {
        let lock = &self.0;
        lock.serving.set(lock.serving.get() + 1);
        let mut waiters = lock.waiters.borrow_mut();
        if waiters.front().is_some_and(|(ticket, _)| *ticket == lock.serving.get())
            && let Some((_, task)) = waiters.pop_front()
        {
            lock.io.ready.borrow_mut().push_back(task);
        }
    }
}

/// The loop over one disk.
pub(crate) struct Reactor<D: RawDisk> {
    device: D,
    io: Rc<Io>,
    engine: Rc<Engine>,
    mailbox: Arc<Mailbox>,
    tasks: Slab<Option<Task>>,
    inbox: VecDeque<Message>,
    done: Vec<Done>,
}

impl<D: RawDisk> Reactor<D> {
    pub(crate) fn new(device: D, io: Rc<Io>, engine: Rc<Engine>, mailbox: Arc<Mailbox>) -> Self {
        mailbox.set_wake(device.wake());
        Self { device, io, engine, mailbox, tasks: Slab::new(), inbox: VecDeque::new(), done: Vec::new() }
    }

    pub(crate) fn spawn(&mut self, task: Task) {
        let index = self.tasks.insert(Some(task));
        self.io.ready.borrow_mut().push_back(index);
    }

    /// One turn: takes messages, runs what can run, starts I/O and collects completions; with `wait`, sleeps until
    /// there is something to do.
    ///
    /// # Errors
    /// When the disk's I/O queue itself is broken.
    pub(crate) fn turn(&mut self, wait: bool) -> io::Result<()> {
        self.mailbox.drain(&mut self.inbox);
        while let Some(message) = self.inbox.pop_front() {
            let task = message(self.engine.clone());
            self.spawn(task);
        }
        self.run_ready();
        for (id, offset, work) in self.io.outbound.borrow_mut().drain(..) {
            self.device.submit(id, offset, work);
        }
        let wait = wait && (self.mailbox.may_sleep() || (self.mailbox.is_closed() && self.device.in_flight() > 0));
        let polled = self.device.poll(wait, &mut self.done);
        self.mailbox.woke();
        for done in self.done.drain(..) {
            self.io.finish(done);
        }
        polled
    }

    /// Whether nothing runs and no I/O is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.device.in_flight() == 0 && self.io.outbound.borrow().is_empty()
    }

    fn run_ready(&mut self) {
        loop {
            let next = self.io.ready.borrow_mut().pop_front();
            let Some(index) = next else { return };
            let Some(mut task) = self.tasks.places.get_mut(index).and_then(Option::as_mut).and_then(Option::take)
            else {
                continue;
            };
            self.io.current.set(index);
            match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(()) => drop(self.tasks.remove(index)),
                Poll::Pending => self.tasks.places[index] = Some(Some(task)),
            }
        }
    }

    /// Runs until the mailbox is closed and everything admitted was answered.
    ///
    /// # Errors
    /// When the disk's I/O queue itself is broken.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        loop {
            self.turn(true)?;
            if self.mailbox.is_closed() && self.inbox.is_empty() && self.mailbox.is_drained() && self.is_idle() {
                return Ok(());
            }
        }
    }
}
