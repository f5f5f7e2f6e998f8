//! The disks: the real engine on disks that forget and tear, one loop a disk, turned as virtual time passes. Disks stand in
//! bays, stay there when their node dies, and can be pulled, replaced and put back.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use holdfast_libs_sim::disk::{Crash, SimDisk, Snapshot};
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_libs_types::{CellId, DiskId};
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{Clock, Disk, OpenError, OpenOptions};
use holdfast_node_server::Bays;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::process::Process;

/// Bytes of a slot: the smallest there is.
pub const SLOT_BYTES: u64 = 256 << 10;
const DISK_BYTES: u64 = 14 << 20;

/// Virtual time, as the engine reads it.
#[derive(Debug, Clone, Copy)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The engine on a disk.
struct Mounted {
    /// Which mount of the cell's it is.
    number: u64,
    engine: SimulatedDisk,
    /// Who mounted it.
    user: Arc<Process>,
}

/// How long reads and writes of a disk take, milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Chance of a thousand that one takes any time.
    pub slow: u64,
    /// Longest such time.
    pub slow_ms: u64,
    /// Until then it completes nothing.
    pub hangs_until: Option<Duration>,
}

/// A disk, wherever it is.
pub struct SimulatedMedia {
    /// The disk.
    pub disk: SharedSimDisk,
    /// Its id.
    pub id: DiskId,
    number: u64,
    mounted: RefCell<Option<Mounted>>,
    speed: Rc<RefCell<Speed>>,
    is_dead: RefCell<bool>,
    is_rotten: RefCell<bool>,
    is_stale: RefCell<bool>,
}

impl SimulatedMedia {
    fn new(streams: &Streams, number: u64, cell: CellId) -> Rc<Self> {
        let streams = Streams::new(streams.stream(&format!("disk {number}")).next_u64());
        let disk: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(DISK_BYTES, &streams)));
        let id = simulated::format(&disk, cell, SLOT_BYTES, &mut streams.stream("format"));
        let speed = Rc::new(RefCell::new(Speed { slow: 50, slow_ms: 5, hangs_until: None }));
        let mut pace = streams.stream("pace");
        disk.borrow_mut().set_service_time(Box::new({
            let speed = speed.clone();
            move |io| {
                let speed = *speed.borrow();
                let hung = speed.hangs_until.map_or(Duration::ZERO, |until| until.saturating_sub(io.at));
                let takes = if pace.chance(speed.slow) { pace.below(speed.slow_ms + 1) } else { 0 };
                hung + Duration::from_millis(takes)
            }
        }));
        Rc::new(Self {
            disk,
            id,
            number,
            mounted: RefCell::new(None),
            speed,
            is_dead: RefCell::new(false),
            is_rotten: RefCell::new(false),
            is_stale: RefCell::new(false),
        })
    }

    /// Tells disks apart.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Everything that is asked of it takes until then.
    pub fn hang_until(&self, until: Duration) {
        self.speed.borrow_mut().hangs_until = Some(until);
    }

    /// It answers nothing but errors from now on.
    pub fn die(&self) {
        *self.is_dead.borrow_mut() = true;
        self.disk.borrow_mut().die(5);
    }

    /// Whether it does.
    pub fn is_dead(&self) -> bool {
        *self.is_dead.borrow()
    }

    /// Flips a bit.
    pub fn rot(&self, at: u64, bit: u8) {
        *self.is_rotten.borrow_mut() = true;
        self.disk.borrow_mut().flip_bit(at, bit);
    }

    /// Whether bits of it were flipped.
    pub fn is_rotten(&self) -> bool {
        *self.is_rotten.borrow()
    }

    /// It is again what it was when `image` was taken. Nobody may use it at the moment.
    pub fn put_back(&self, image: &Snapshot) {
        *self.is_stale.borrow_mut() = true;
        self.disk.borrow_mut().put_back(image);
    }

    /// Whether it came back as it was earlier.
    pub fn is_stale(&self) -> bool {
        *self.is_stale.borrow()
    }

    /// Whoever used it is gone, in the middle of whatever it did.
    pub fn crash(&self, crash: Crash) {
        drop(self.mounted.borrow_mut().take());
        self.disk.borrow_mut().crash(crash);
    }

    /// The engine on it, to be asked past the network; `None` when it is not mounted.
    pub fn handle(&self) -> Option<Disk> {
        self.mounted.borrow().as_ref().map(|mounted| mounted.engine.handle().clone())
    }

    /// Where a slot's data stands.
    pub fn data_range(&self, slot: u32) -> Option<std::ops::Range<u64>> {
        self.mounted.borrow().as_ref().map(|mounted| mounted.engine.data_range(slot))
    }
}

/// The bays of one node.
#[derive(Default)]
pub struct Chassis {
    bays: RefCell<BTreeMap<PathBuf, Rc<SimulatedMedia>>>,
    /// The same for the node's own look, which may come from any thread for all its types know.
    numbers: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
}

impl Chassis {
    /// Puts a disk into a bay; answers the one that stood there.
    pub fn insert(&self, bay: &Path, disk: Rc<SimulatedMedia>) -> Option<Rc<SimulatedMedia>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).insert(bay.to_owned(), disk.number);
        self.bays.borrow_mut().insert(bay.to_owned(), disk)
    }

    /// Pulls the disk out of a bay. Its engine goes on until whoever uses it lets go.
    pub fn pull(&self, bay: &Path) -> Option<Rc<SimulatedMedia>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).remove(bay);
        self.bays.borrow_mut().remove(bay)
    }

    /// The disks, by bay.
    pub fn disks(&self) -> Vec<(PathBuf, Rc<SimulatedMedia>)> {
        self.bays.borrow().iter().map(|(bay, disk)| (bay.clone(), Rc::clone(disk))).collect()
    }

    /// The disk in a bay.
    pub fn disk(&self, bay: &Path) -> Option<Rc<SimulatedMedia>> {
        self.bays.borrow().get(bay).cloned()
    }
}

/// What a process asks of the bays of its node.
struct Order {
    bay: PathBuf,
    options: OpenOptions,
    answer: oneshot::Sender<Result<Disk, OpenError>>,
}

/// A process's way to the bays of its node.
#[derive(Debug, Clone)]
struct BayPort {
    numbers: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
    orders: mpsc::UnboundedSender<Order>,
    process: Arc<Process>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("bay", &self.bay).finish_non_exhaustive()
    }
}

impl Bays for BayPort {
    fn holds(&self, bay: &Path) -> Option<u64> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).get(bay).copied()
    }

    fn open(&self, bay: &Path, options: OpenOptions) -> BoxFuture<'static, Result<Disk, OpenError>> {
        let (answer, answered) = oneshot::channel();
        let port = self.clone();
        let order = Order { bay: bay.to_owned(), options, answer };
        Box::pin(async move {
            port.process.gate().await;
            let path = order.bay.display().to_string();
            // The machine ends with the simulation.
            let _ = port.orders.send(order);
            let opened = answered.await;
            port.process.gate().await;
            opened.unwrap_or_else(|_| Err(unreadable(path)))
        })
    }
}

fn unreadable(path: String) -> OpenError {
    OpenError::Io { path, what: "reading its superblock", source: std::io::Error::from_raw_os_error(5) }
}

/// Makes disks, and mounts them for processes.
pub struct DiskMaker {
    streams: Streams,
    cell: CellId,
    made: RefCell<u64>,
    rng: RefCell<SimRng>,
    clock: VirtualClock,
}

impl DiskMaker {
    /// One for a cell.
    pub fn new(streams: &Streams, cell: CellId, start: Instant) -> Rc<Self> {
        Rc::new(Self {
            streams: *streams,
            cell,
            made: RefCell::new(0),
            rng: RefCell::new(streams.stream("nonces")),
            clock: VirtualClock(start),
        })
    }

    /// A new disk, formatted.
    pub fn make(&self) -> Rc<SimulatedMedia> {
        *self.made.borrow_mut() += 1;
        SimulatedMedia::new(&self.streams, *self.made.borrow(), self.cell)
    }

    /// The bays of `chassis` as `process` sees them. Must be called on the simulation's `LocalSet`.
    pub fn connect(self: &Rc<Self>, chassis: &Rc<Chassis>, process: &Arc<Process>) -> Arc<dyn Bays> {
        let (orders, mut taken) = mpsc::unbounded_channel::<Order>();
        let (maker, chassis, owner) = (Rc::clone(self), Rc::clone(chassis), Arc::clone(process));
        let numbers = Arc::clone(&chassis.numbers);
        tokio::task::spawn_local(async move {
            while let Some(Order { bay, options, answer }) = taken.recv().await {
                if let Some(disk) = chassis.disk(&bay) {
                    tokio::task::spawn_local(Rc::clone(&maker).open(disk, bay, options, Arc::clone(&owner), answer));
                }
            }
        });
        Arc::new(BayPort { numbers, orders, process: Arc::clone(process) })
    }

    async fn open(
        self: Rc<Self>,
        media: Rc<SimulatedMedia>,
        bay: PathBuf,
        options: OpenOptions,
        process: Arc<Process>,
        answer: oneshot::Sender<Result<Disk, OpenError>>,
    ) {
        let path = || bay.display().to_string();
        // Whoever asks may be gone.
        let mut answer = Some(answer);
        let mut tell = move |result| drop(answer.take().map(|answer| answer.send(result)));
        // It was out of its bay when the process ended that used it: what that had in flight ended with it.
        if media.mounted.borrow().as_ref().is_some_and(|mounted| mounted.user.is_dead()) {
            media.crash(Crash::ProcessKill);
        }
        // As the disk's thread: what was admitted is done before it lets go.
        let is_in_use = |mounted: &Mounted| !mounted.engine.is_let_go() || !mounted.engine.is_idle();
        if media.mounted.borrow().as_ref().is_some_and(is_in_use) {
            return tell(Err(OpenError::AlreadyOpen { path: path() }));
        }
        drop(media.mounted.borrow_mut().take());
        if media.is_dead() || process.is_dead() {
            return tell(Err(unreadable(path())));
        }
        let awake = Arc::new(Notify::new());
        let wake = {
            let awake = Arc::clone(&awake);
            Arc::new(move || awake.notify_one())
        };
        let number = self.rng.borrow_mut().next_u64();
        let rng = SimRng::from_seed(number);
        let begun = SimulatedDisk::begin_mount_awake(&media.disk, &options, Arc::new(self.clock), wake, rng);
        let engine = match begun {
            Ok(engine) => engine,
            Err(error) => return tell(Err(error)),
        };
        *media.mounted.borrow_mut() = Some(Mounted { number, engine, user: Arc::clone(&process) });
        let mut mounting = true;
        loop {
            process.gate().await;
            let next = {
                let mut guard = media.mounted.borrow_mut();
                // A crash took it, or another mount.
                let Some(Mounted { engine, .. }) = guard.as_mut().filter(|mounted| mounted.number == number) else {
                    return;
                };
                while engine.next_due().is_some_and(|due| due <= self.clock.now()) {
                    engine.turn();
                }
                if mounting && let Some(mounted) = engine.mounted() {
                    mounting = false;
                    match mounted {
                        Ok(()) => tell(Ok(engine.handle().clone())),
                        Err(why) => {
                            drop(guard.take());
                            let source = std::io::Error::other(why);
                            return tell(Err(OpenError::Io { path: path(), what: "mounting it", source }));
                        }
                    }
                    continue;
                }
                if !engine.rest() {
                    continue;
                }
                engine.next_due()
            };
            match next {
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = awake.notified() => {}
                        () = sleep_until(self.clock.0 + due) => {}
                    }
                }
                None => awake.notified().await,
            }
        }
    }
}

/// What a disk holds, to be put back later.
pub fn image(disk: &SimulatedMedia) -> Snapshot {
    disk.disk.borrow().snapshot()
}
