//! Opening a disk: its superblock, its thread, its mount.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, Weak};

use holdfast_libs_types::{CellId, PAGE_BYTES};

use crate::attempt::{Progress, open_in_time};
use crate::buffer::{AlignedBuf, BufferPool};
use crate::clock::MonotonicClock;
use crate::disk::Disk;
use crate::engine::{Engine, Entropy};
use crate::error::{EngineError, OpenError};
use crate::geometry::SUPERBLOCK_OFFSETS;
use crate::mailbox::Mailbox;
use crate::raw::RawDisk;
use crate::raw::file::{DiskFile, FileError};
use crate::raw::threads::ThreadsDisk;
use crate::raw::uring::UringDisk;
use crate::reactor::{Io, Reactor};
use crate::shared::{Counters, Latencies, Life, Shared, Stall, Stopped, Timing, Uptime};
use crate::status::{DiskState, IoMode, IoPath, OpenOptions};
use crate::superblock::{FORMAT_VERSION, Superblock, SuperblockError};

/// Reads both superblocks with `read`, which returns a page or says why it cannot.
pub(crate) fn read_superblocks(
    mut read: impl FnMut(u64) -> std::io::Result<AlignedBuf>,
) -> [Result<Superblock, SuperblockError>; 2] {
    SUPERBLOCK_OFFSETS.map(|offset| match read(offset) {
        Ok(page) if page.len() == PAGE_BYTES => Superblock::decode(&page),
        Ok(page) => Err(SuperblockError::Unreadable(format!("only {} bytes there", page.len()))),
        Err(error) => Err(SuperblockError::Unreadable(error.to_string())),
    })
}

/// The superblock of a disk that may be opened, and which copy it is: the newer valid one, of this version, cell and
/// size.
pub(crate) fn accept_superblock(
    copies: [Result<Superblock, SuperblockError>; 2],
    path: &Path,
    have: u64,
    cell: CellId,
) -> Result<(Superblock, usize), OpenError> {
    let path_text = || path.display().to_string();
    for copy in &copies {
        if let Err(SuperblockError::Version(found)) = copy {
            let (path, found, known) = (path_text(), *found, FORMAT_VERSION);
            return Err(if found < known {
                OpenError::OldVersion { path, found, known }
            } else {
                OpenError::UnknownVersion { path, found, known }
            });
        }
    }
    let (superblock, home) = Superblock::newest(copies).map_err(|(a, b)| {
        let need = SUPERBLOCK_OFFSETS[1] + PAGE_BYTES as u64;
        if have < need {
            return OpenError::TooSmall { path: path_text(), have, need };
        }
        OpenError::NoSuperblock { path: path_text(), a: a.to_string(), b: b.to_string() }
    })?;
    if superblock.cell != cell {
        let (disk, found) = (superblock.disk, superblock.cell);
        return Err(OpenError::WrongCell { path: path_text(), disk, found, expected: cell });
    }
    let need = superblock.geometry.disk_bytes;
    if have < need {
        return Err(OpenError::TooSmall { path: path_text(), have, need });
    }
    Ok((superblock, home))
}

/// What a disk's thread is made from.
pub(crate) struct Parts {
    pub(crate) path: PathBuf,
    /// And which copy of it was read.
    pub(crate) superblock: (Superblock, usize),
    pub(crate) pool: BufferPool,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) o_direct: bool,
    pub(crate) timing: Timing,
}

impl Parts {
    pub(crate) fn shared(&self, io: IoPath) -> Arc<Shared> {
        let superblock = &self.superblock.0;
        Arc::new(Shared {
            id: superblock.disk,
            cell: superblock.cell,
            path: self.path.clone(),
            geometry: superblock.geometry.clone(),
            io,
            o_direct: self.o_direct,
            pool: self.pool.clone(),
            mailbox: self.mailbox.clone(),
            counters: Counters::default(),
            free_slots: AtomicU32::new(0),
            lost_slots: AtomicU32::new(0),
            open_zones: AtomicU32::new(0),
            incarnation: AtomicU64::new(superblock.incarnation),
            mount_read_bytes: AtomicU64::new(0),
            rebuilt: AtomicBool::new(false),
            state: Mutex::new(DiskState::Healthy),
            timing: self.timing.clone(),
            queue_depth: AtomicUsize::new(0),
            stall: Stall::default(),
            latency: Latencies::default(),
            suspicions: Mutex::default(),
            erase_alarms: AtomicU64::new(0),
            term: AtomicU64::new(0),
            slot_counts: Mutex::default(),
            uptime: Uptime::begin(&self.timing),
        })
    }
}

/// A reactor whose first task is the mount; `mounted` is told how it ended.
pub(crate) fn begin_mount<D: RawDisk>(
    device: D,
    shared: &Arc<Shared>,
    superblock: (Superblock, usize),
    entropy: Entropy,
    mounted: impl FnOnce(Result<(), EngineError>) + 'static,
) -> Reactor<D> {
    let io = Io::new(shared.timing.clock.clone());
    let engine = Engine::new(shared.clone(), io.clone(), superblock, entropy);
    let mut reactor = Reactor::new(device, io, engine.clone(), shared.clone());
    reactor.spawn(Box::pin(async move { mounted(engine.mount().await) }));
    reactor
}

/// See [`Disk::open`].
pub(crate) fn open(path: &Path, options: OpenOptions) -> Result<Disk, OpenError> {
    let opened = path.to_owned();
    open_in_time(path, options.operation_deadline, move |progress| open_and_mount(&opened, options, progress))
}

/// Waits for the disk for as long as it takes.
fn open_and_mount(path: &Path, options: OpenOptions, progress: &Arc<Progress>) -> Result<Disk, OpenError> {
    let path_text = || path.display().to_string();
    let file = DiskFile::open(path, false).map_err(|error| match error {
        FileError::InUse => OpenError::AlreadyOpen { path: path_text() },
        FileError::Io { what, source } => OpenError::Io { path: path_text(), what, source },
    })?;
    let have = file.size().map_err(|source| OpenError::Io { path: path_text(), what: "reading its size", source })?;
    let copies = read_superblocks(|offset| file.read_pages(offset, PAGE_BYTES));
    let superblock = accept_superblock(copies, path, have, options.cell)?;

    let registered = if options.io == IoMode::Threads { 0 } else { options.registered_bytes };
    let mailbox = Mailbox::new(options.max_operations);
    let parts = Parts {
        path: path.to_owned(),
        superblock,
        pool: BufferPool::new(registered, options.max_buffer_bytes),
        mailbox: mailbox.clone(),
        o_direct: file.o_direct,
        timing: Timing::new(Arc::new(MonotonicClock::start()), &options),
    };
    let stopped = Arc::new(Stopped::default());
    let life = Life { mailbox: mailbox.clone(), stopped: Some(stopped.clone()) };
    let (report, reported) = sync_channel(1);
    let last_act = LastAct { mailbox, stopped, shared: None };
    std::thread::Builder::new()
        .name(format!("disk-{}", &parts.superblock.0.disk.to_string()[..8]))
        .spawn({
            let report = Report { mounted: report, progress: Arc::downgrade(progress) };
            move || thread_main(last_act, &parts, Arc::new(file), &options, &report)
        })
        .map_err(|source| OpenError::Io { path: path_text(), what: "starting its thread", source })?;
    match reported.recv() {
        Ok(Ok(shared)) => Ok(Disk::new(shared, life)),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(OpenError::Io {
            path: path_text(),
            what: "mounting it",
            source: std::io::Error::other("the disk's thread ended"),
        }),
    }
}

/// Done however the thread ends: nobody waits for an answer that will not come.
struct LastAct {
    mailbox: Arc<Mailbox>,
    stopped: Arc<Stopped>,
    shared: Option<Arc<Shared>>,
}

impl Drop for LastAct {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(shared) = &self.shared
        {
            shared.set_failed("its thread panicked");
        }
        self.mailbox.abandon();
        self.stopped.set();
    }
}

/// Tells whoever waits for the mount.
#[derive(Clone)]
struct Report {
    mounted: SyncSender<Result<Arc<Shared>, OpenError>>,
    progress: Weak<Progress>,
}

/// `last_act` is the first parameter because parameters are dropped last to first: it speaks when all else is gone.
fn thread_main(mut last_act: LastAct, parts: &Parts, file: Arc<DiskFile>, options: &OpenOptions, report: &Report) {
    let bytes = parts.superblock.0.geometry.disk_bytes;
    let path = parts.path.display().to_string();
    if options.io != IoMode::Threads {
        match UringDisk::new(file.clone(), bytes, parts.pool.clone(), options.queue_depth) {
            Ok(device) => {
                let io = if device.arena_registered() { IoPath::UringRegistered } else { IoPath::UringPlain };
                drop(file);
                return serve(device, parts, io, report, &mut last_act);
            }
            Err(source) if options.io == IoMode::Uring => {
                let _ = report.mounted.send(Err(OpenError::NoUring { path, source }));
                return;
            }
            Err(error) => tracing::warn!(path, %error, "io_uring is refused here; using pread/pwrite threads"),
        }
    }
    match ThreadsDisk::new(&file, bytes, options.queue_depth) {
        Ok(device) => {
            drop(file);
            serve(device, parts, IoPath::Threads, report, &mut last_act);
        }
        Err(source) => {
            let _ = report.mounted.send(Err(OpenError::Io { path, what: "starting its I/O threads", source }));
        }
    }
}

fn serve<D: RawDisk>(device: D, parts: &Parts, io: IoPath, report: &Report, last_act: &mut LastAct) {
    let shared = parts.shared(io);
    last_act.shared = Some(shared.clone());
    if let Some(progress) = report.progress.upgrade() {
        let shared = shared.clone();
        progress.follow(move || shared.counters.ended());
    }
    let failed = {
        let path = parts.path.display().to_string();
        move |source| OpenError::Io { path, what: "mounting it", source }
    };
    let mounted = {
        let (shared, report, failed, o_direct) = (shared.clone(), report.clone(), failed.clone(), parts.o_direct);
        // A caller that gave up has closed the mailbox; the report then goes nowhere.
        move |result| match result {
            Ok(()) => {
                tracing::info!(disk = %shared.id, path = %shared.path.display(), io = %shared.io, o_direct, "disk is open");
                let _ = report.mounted.send(Ok(shared));
            }
            Err(error) => {
                shared.mailbox.close();
                let _ = report.mounted.send(Err(failed(std::io::Error::other(error))));
            }
        }
    };
    let mut reactor = begin_mount(device, &shared, parts.superblock.clone(), Box::new(rand::random), mounted);
    if let Err(error) = reactor.run() {
        shared.set_failed(&format!("its I/O queue broke: {error}"));
        // Full or gone unless the mount was still under way.
        let _ = report.mounted.try_send(Err(failed(error)));
    }
}
