//! The loop of a disk's thread: messages become tasks, tasks start I/O, completions wake tasks.
//!
//! Tasks are futures that only this loop polls, on one thread; what they share stands in `Rc` and `RefCell`. A task
//! is never dropped while it runs, so a caller that goes away neither undoes an operation nor frees its buffer.
//!
//! The disk is never given more than it works on at once, so that what is measured from the handing over to the
//! completion is the disk's own time.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::buffer::AlignedBuf;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::io_error::Direction;
use crate::mailbox::{Mailbox, Message, Task};
use crate::raw::{Done, RawDisk, Wait, Work};
use crate::shared::Shared;
use crate::stall::{StallChange, StallWatch};
use crate::suspect::Suspicion;

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

/// An I/O from its start until its answer was taken.
struct Op {
    state: OpState,
    /// `None` for what moves no bytes.
    direction: Option<Direction>,
    /// When the disk was given it; `None` while it waits for that.
    submitted: Option<Duration>,
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
    ops: RefCell<Slab<Op>>,
    outbound: RefCell<VecDeque<(u64, u64, Work)>>,
    ready: RefCell<VecDeque<usize>>,
    current: Cell<usize>,
    /// The task to wake at a time; the number tells sleeps to the same time apart.
    alarms: RefCell<BTreeMap<(Duration, u64), usize>>,
    next_alarm: Cell<u64>,
    clock: Arc<dyn Clock>,
    now: Cell<Duration>,
    moved_at: Cell<Duration>,
}

impl Io {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Rc<Self> {
        let now = Cell::new(clock.now());
        Rc::new(Self {
            ops: RefCell::new(Slab::new()),
            outbound: RefCell::new(VecDeque::new()),
            ready: RefCell::new(VecDeque::new()),
            current: Cell::new(0),
            alarms: RefCell::new(BTreeMap::new()),
            next_alarm: Cell::new(0),
            clock,
            now,
            moved_at: Cell::new(Duration::ZERO),
        })
    }

    /// The time, as of the loop's last look at the clock.
    pub(crate) fn now(&self) -> Duration {
        self.now.get()
    }

    /// When the disk last completed anything.
    pub(crate) fn moved_at(&self) -> Duration {
        self.moved_at.get()
    }

    /// Sleeps until the loop's clock shows `at`.
    pub(crate) fn sleep_until(self: &Rc<Self>, at: Duration) -> Sleep {
        Sleep { io: self.clone(), at, alarm: None }
    }

    /// Looks at the clock and wakes the tasks whose time has come.
    fn tick(&self) -> Duration {
        let now = self.clock.now();
        self.now.set(now);
        let mut alarms = self.alarms.borrow_mut();
        while let Some(first) = alarms.first_entry() {
            if first.key().0 > now {
                break;
            }
            self.ready.borrow_mut().push_back(first.remove());
        }
        now
    }

    fn next_alarm(&self) -> Option<Duration> {
        self.alarms.borrow().first_key_value().map(|((at, _), _)| *at)
    }

    /// Starts `work` at once (with the loop's next turn); the future awaits its end.
    pub(crate) fn start(self: &Rc<Self>, offset: u64, work: Work) -> IoFuture {
        let direction = match work {
            Work::Read { .. } => Some(Direction::Read),
            Work::Write { .. } => Some(Direction::Write),
            Work::Allocate { .. }
            | Work::Deallocate { .. }
            | Work::ResetZones { .. }
            | Work::FinishZones { .. }
            | Work::ReportZones { .. }
            | Work::Flush
            | Work::Identify => None,
        };
        let op = Op { state: OpState::Pending(None), direction, submitted: None };
        let key = self.ops.borrow_mut().insert(op);
        self.outbound.borrow_mut().push_back((key as u64, offset, work));
        IoFuture { io: self.clone(), key, taken: false }
    }

    fn submitted(&self, id: u64, now: Duration) {
        if let Some(Some(op)) = self.ops.borrow_mut().places.get_mut(id as usize) {
            op.submitted = Some(now);
        }
    }

    /// Takes a completion; returns how long the disk took, for what moves bytes.
    fn finish(&self, done: Done, now: Duration) -> Option<(Direction, Duration)> {
        let key = done.id as usize;
        let mut ops = self.ops.borrow_mut();
        let op = ops.places.get_mut(key)?.as_mut()?;
        let took = op.direction.zip(op.submitted.map(|at| now.saturating_sub(at)));
        match std::mem::replace(&mut op.state, OpState::Finished(done)) {
            OpState::Pending(task) => self.ready.borrow_mut().extend(task),
            OpState::Finished(_) | OpState::Abandoned => drop(ops.remove(key)),
        }
        took
    }

    /// Reads and writes that the disk was given and has not completed.
    fn under_way(&self, direction: Direction) -> u64 {
        let ops = self.ops.borrow();
        let flying = ops.places.iter().flatten().filter(|op| {
            op.direction == Some(direction) && op.submitted.is_some() && !matches!(op.state, OpState::Finished(_))
        });
        flying.count() as u64
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
        if let Some(Some(Op { state: OpState::Pending(task), .. })) = ops.places.get_mut(self.key) {
            *task = Some(io.current.get());
            return Poll::Pending;
        }
        self.taken = true;
        match ops.remove(self.key) {
            Some(Op { state: OpState::Finished(done), .. }) => Poll::Ready((done.result, done.buffer)),
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
            Some(Some(Op { state: state @ OpState::Pending(_), .. })) => *state = OpState::Abandoned,
            _ => drop(ops.remove(self.key)),
        }
    }
}

/// Ends when its time has come.
pub(crate) struct Sleep {
    io: Rc<Io>,
    at: Duration,
    alarm: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.io.now() >= self.at {
            return Poll::Ready(());
        }
        if self.alarm.is_none() {
            let number = self.io.next_alarm.get();
            self.io.next_alarm.set(number + 1);
            self.alarm = Some(number);
            self.io.alarms.borrow_mut().insert((self.at, number), self.io.current.get());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.alarm {
            self.io.alarms.borrow_mut().remove(&(self.at, number));
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
    shared: Arc<Shared>,
    stall: StallWatch,
    suspicions: [Suspicion; 2],
    tasks: Slab<Option<Task>>,
    inbox: VecDeque<Message>,
    done: Vec<Done>,
}

impl<D: RawDisk> Reactor<D> {
    pub(crate) fn new(device: D, io: Rc<Io>, engine: Rc<Engine>, shared: Arc<Shared>) -> Self {
        let mailbox = shared.mailbox.clone();
        mailbox.set_wake(device.wake());
        let stall = StallWatch::new(shared.timing.stall_after);
        let (tasks, inbox, done) = (Slab::new(), VecDeque::new(), Vec::new());
        let suspicions = [Suspicion::new("reads"), Suspicion::new("writes")];
        Self { device, io, engine, mailbox, shared, stall, suspicions, tasks, inbox, done }
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
        let now = self.io.tick();
        self.run_ready();
        self.hand_over(now);
        self.stall.submitted(now, self.device.in_flight());
        let wait = if wait { self.may_wait(now) } else { Wait::No };
        let polled = self.device.poll(wait, &mut self.done);
        self.mailbox.woke();
        let now = self.io.tick();
        let completions = self.done.len();
        if completions > 0 {
            self.io.moved_at.set(now);
        }
        for done in self.done.drain(..) {
            if let Some((direction, latency)) = self.io.finish(done, now) {
                self.shared.latency.of(direction).record(latency);
                if let Some(change) = self.suspicions[direction as usize].record(now, latency) {
                    self.shared.suspect(direction, change);
                }
            }
        }
        self.watch(now, completions);
        polled
    }

    /// Gives the disk what it can work on.
    fn hand_over(&mut self, now: Duration) {
        let mut outbound = self.io.outbound.borrow_mut();
        while self.device.in_flight() < self.device.depth()
            && let Some((id, offset, work)) = outbound.pop_front()
        {
            self.io.submitted(id, now);
            self.device.submit(id, offset, work);
        }
    }

    /// How long the loop may sleep: until a completion, a message, or the next time something is due.
    fn may_wait(&self, now: Duration) -> Wait {
        let next = self.next_due();
        // Nobody sends to a closed mailbox: only completions and times can bring anything.
        let ends = self.mailbox.is_closed() && (self.device.in_flight() > 0 || next.is_some());
        if !self.mailbox.may_sleep() && !ends {
            return Wait::No;
        }
        next.map_or(Wait::Forever, |at| Wait::For(at.saturating_sub(now)))
    }

    /// Tells everybody when the disk begins to hang, and when that ends.
    fn watch(&mut self, now: Duration, completions: usize) {
        let in_flight = self.device.in_flight();
        self.shared.queue_depth.store(in_flight, Ordering::Relaxed);
        match self.stall.collected(now, completions, in_flight) {
            Some(StallChange::Began) => {
                self.shared.begin_stall(in_flight);
                self.shared.counters.timed_out(Direction::Read, self.io.under_way(Direction::Read));
                self.shared.counters.timed_out(Direction::Write, self.io.under_way(Direction::Write));
            }
            Some(StallChange::Ended { silent }) => self.shared.end_stall(silent),
            None => {}
        }
    }

    /// The next time, by the clock, at which the loop has something to do without any completion.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        [self.io.next_alarm(), self.stall.due()].into_iter().flatten().min()
    }

    /// Whether a turn has something to do at once, completions aside.
    pub(crate) fn has_work(&self) -> bool {
        let room = self.device.in_flight() < self.device.depth();
        let can_hand_over = room && !self.io.outbound.borrow().is_empty();
        can_hand_over || !self.io.ready.borrow().is_empty() || !self.mailbox.is_drained()
    }

    /// Whether the loop may rest until it is woken by a message, or its time has come.
    pub(crate) fn may_rest(&self) -> bool {
        self.mailbox.may_sleep()
    }

    /// The time, as of the loop's last look at the clock.
    pub(crate) fn now(&self) -> Duration {
        self.io.now()
    }

    /// The disk under the loop.
    pub(crate) fn device(&self) -> &D {
        &self.device
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
