//! The node's disks at this moment: those in use, those that were and are gone, and those that cannot be used, with the
//! reason. They come and go while the daemon runs.
//!
//! - `bays`: where disks stand
//! - `finding`: which files and devices the configuration means
//! - `watch`: opens what came, closes what vanished
//! - `opening`: opens one, or says why not
//! - `open_disk`, `answers`: a disk in use, its share of the node, and what happens when it does not answer
//! - `faults`: what is logged of a disk's faults, and how often
//!
//! Invariants:
//! - One disk id is in use once; a second one is refused and reported, the first goes on.
//! - Nothing here waits for a disk while the lock is held, and no handle is dropped on the async runtime.
//! - Nothing is formatted, but for missing files at the start when `create_size_bytes` is set; never among devices.

mod answers;
mod bays;
mod faults;
mod finding;
mod open_disk;
mod opening;
#[cfg(test)]
mod stalls;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_libs_transport::ApiError;
use holdfast_libs_types::DiskId;
use holdfast_node_client::{DiskState, DiskStatus, code};
use holdfast_node_engine::{DiskStatus as EngineStatus, IoPath};
use holdfast_volume_manager_client::UnusableDisk;
use http::StatusCode;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::metrics::DiskMetrics;
use crate::pace::Policy;

pub use bays::Bays;
pub(crate) use bays::Places;
pub(crate) use open_disk::OpenDisk;
pub(crate) use watch::{Look, Watcher};

/// How long a stop waits for disks to let go; one that hangs is left to itself after that.
const CLOSE_WAIT: Duration = Duration::from_secs(12);

/// A disk that was in use here and is not any more.
#[derive(Debug, Clone)]
pub(crate) struct GoneDisk {
    /// As it was when it went.
    pub status: EngineStatus,
    /// What happened.
    pub reason: String,
}

/// Why a file or device is not in use, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Blank, or something else stands there.
    Unformatted,
    /// A disk of another cell.
    Foreign,
    /// Its id is in use at this node already.
    Duplicate,
    /// There is no such file or device.
    Missing,
    /// Open elsewhere; may be free a moment later.
    InUse,
    /// Anything else.
    Unusable,
}

impl Cause {
    /// The word for it in messages and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unformatted => "unformatted",
            Self::Foreign => "foreign",
            Self::Duplicate => "duplicate",
            Self::Missing => "missing",
            Self::InUse => "in_use",
            Self::Unusable => "unusable",
        }
    }
}

/// A file or device that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    pub path: PathBuf,
    pub cause: Cause,
    pub reason: String,
}

#[derive(Debug, Default)]
struct Set {
    open: Vec<Arc<OpenDisk>>,
    gone: Vec<GoneDisk>,
    unusable: Vec<Unusable>,
    expected: usize,
    fewer_than_expected: Option<String>,
}

/// All disks of the node.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    set: Mutex<Set>,
    /// Where they stand.
    places: Places,
    /// Handles that are being dropped.
    closing: TaskTracker,
    /// What is counted of all of them.
    pub metrics: DiskMetrics,
    /// Disks came into use or went out of it.
    pub changed: Notify,
    /// How background work is done.
    pub policy: Arc<Policy>,
}

impl Disks {
    /// Those that stand in `places`; none is in use yet.
    pub(crate) fn of(places: Places) -> Self {
        Self { places, ..Self::default() }
    }

    /// The disks in use.
    pub(crate) fn open(&self) -> Vec<Arc<OpenDisk>> {
        self.set().open.clone()
    }

    /// The disk in use of that id.
    ///
    /// # Errors
    /// `unknown_disk`; the message says so when the disk was here.
    pub(crate) fn get(&self, id: DiskId) -> Result<Arc<OpenDisk>, ApiError> {
        let set = self.set();
        if let Some(disk) = set.open.iter().find(|disk| disk.id() == id) {
            return Ok(Arc::clone(disk));
        }
        let message = match set.gone.iter().find(|gone| gone.status.id == id) {
            Some(gone) => format!("this node has no disk {id} in use any more: {}", gone.reason),
            None => format!("this node has no disk {id} in use"),
        };
        Err(ApiError::new(StatusCode::NOT_FOUND, code::UNKNOWN_DISK, message))
    }

    /// Disks that were in use since the start and are gone.
    pub(crate) fn gone(&self) -> Vec<GoneDisk> {
        self.set().gone.clone()
    }

    /// Files and devices that cannot be used.
    pub(crate) fn unusable(&self) -> Vec<Unusable> {
        self.set().unusable.clone()
    }

    /// How many disks the profile expects; 0 without one.
    pub(crate) fn expected(&self) -> usize {
        self.set().expected
    }

    /// That fewer disks are in use than the profile expects.
    pub(crate) fn fewer_than_expected(&self) -> Option<String> {
        self.set().fewer_than_expected.clone()
    }

    /// Those that cannot be used, as the volume manager is told.
    pub(crate) fn unusable_reports(&self) -> Vec<UnusableDisk> {
        let report = |disk: &Unusable| UnusableDisk {
            path: disk.path.display().to_string(),
            cause: disk.cause.name().to_owned(),
            reason: disk.reason.clone(),
        };
        self.set().unusable.iter().map(report).collect()
    }

    /// All disks, as `GET /v1/status` answers them.
    pub(crate) fn statuses(&self) -> Vec<DiskStatus> {
        let set = self.set();
        let open = set.open.iter().map(|disk| {
            let status = status(&disk.engine().status());
            match disk.stalled() {
                Some(why) => DiskStatus { reason: status.reason.or(Some(why)), ..status },
                None => status,
            }
        });
        let gone = set.gone.iter().map(|gone| DiskStatus {
            state: DiskState::Failed,
            reason: Some(gone.reason.clone()),
            ..status(&gone.status)
        });
        let unusable = set.unusable.iter().map(|disk| DiskStatus {
            disk: None,
            path: disk.path.display().to_string(),
            state: DiskState::Failed,
            reason: Some(disk.reason.clone()),
            slot_bytes: 0,
            slots: 0,
            free_slots: 0,
            volume_bytes: 0,
            io: String::new(),
            direct: false,
            incarnation: 0,
        });
        open.chain(gone).chain(unusable).collect()
    }

    /// Takes a disk into use. Its id must not be in use.
    fn insert(&self, disk: Arc<OpenDisk>) {
        let mut set = self.set();
        set.gone.retain(|gone| gone.status.id != disk.id());
        set.open.push(disk);
    }

    /// Takes all disks out of use and waits, within limits, until they have let go of their files and devices.
    pub(crate) async fn close_all(&self) {
        let open = std::mem::take(&mut self.set().open);
        open.iter().for_each(|disk| disk.stop.cancel());
        drop(open);
        self.closing.close();
        if tokio::time::timeout(CLOSE_WAIT, self.closing.wait()).await.is_err() {
            tracing::warn!("disks still hang {} s after the stop; they are left to themselves", CLOSE_WAIT.as_secs());
        }
    }

    fn set(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a disk in the words of the protocol, and why it is not healthy.
pub(crate) fn state(state: &holdfast_node_engine::DiskState) -> (DiskState, Option<String>) {
    use holdfast_node_engine::DiskState as Engine;
    match state {
        Engine::Healthy => (DiskState::Healthy, None),
        Engine::ReadOnly { reason } => (DiskState::ReadOnly, Some(reason.clone())),
        Engine::Failed { reason } => (DiskState::Failed, Some(reason.clone())),
    }
}

fn status(disk: &EngineStatus) -> DiskStatus {
    let (state, reason) = state(&disk.state);
    let io = match disk.io {
        IoPath::UringRegistered | IoPath::UringPlain => "io_uring",
        IoPath::Threads => "threads",
        IoPath::Simulated => "simulated",
    };
    DiskStatus {
        disk: Some(disk.id),
        path: disk.path.display().to_string(),
        state,
        reason,
        slot_bytes: disk.slot_bytes,
        slots: disk.slots.into(),
        free_slots: disk.free_slots.into(),
        volume_bytes: disk.volume_capacity_bytes,
        io: io.to_owned(),
        direct: disk.o_direct,
        incarnation: disk.incarnation,
    }
}
