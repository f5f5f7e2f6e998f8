//! The configured disks: those that are open, and those that could not be opened, with the reason.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{CellId, DiskId};
use holdfast_node_client::{DiskState, DiskStatus, code};
use holdfast_node_engine::{Disk, FormatOptions, IoPath, OpenError, OpenOptions};
use http::StatusCode;

use crate::{Config, ServerError};

/// A disk that could not be opened when the daemon started.
#[derive(Debug)]
pub(crate) struct UnusableDisk {
    path: PathBuf,
    reason: String,
}

/// All disks of the node.
#[derive(Debug)]
pub(crate) struct Disks {
    open: Vec<Disk>,
    unusable: Vec<UnusableDisk>,
}

impl Disks {
    /// Opens all configured disks at the same time. One that cannot be opened does not stop the others.
    pub(crate) async fn open(config: &Config) -> Result<Self, ServerError> {
        let opening: Vec<_> = config
            .disks
            .iter()
            .map(|disk| {
                let (path, cell) = (disk.path.clone(), config.cell);
                let (slot_bytes, create) = (config.slot_bytes, config.create_size_bytes);
                let task = tokio::task::spawn_blocking(move || open_one(&path, cell, slot_bytes, create));
                (disk.path.clone(), task)
            })
            .collect();
        let mut disks = Self { open: Vec::new(), unusable: Vec::new() };
        let mut foreign = Vec::new();
        for (path, task) in opening {
            let opened = task.await.unwrap_or_else(|panic| Err(Unopened::Unusable(panic.to_string())));
            match opened {
                Ok(disk) => {
                    let status = disk.status();
                    tracing::info!(disk = %status.id, path = %path.display(), io = %status.io, direct = status.o_direct,
                        slots = status.slots, free_slots = status.free_slots, "disk is open");
                    disks.open.push(disk);
                }
                Err(Unopened::Foreign(reason)) => foreign.push(reason),
                Err(Unopened::Unusable(reason)) => {
                    tracing::error!(path = %path.display(), reason, "disk cannot be used");
                    disks.unusable.push(UnusableDisk { path, reason });
                }
            }
        }
        if !foreign.is_empty() {
            return Err(ServerError::ForeignDisk(foreign.join("; ")));
        }
        if disks.open.is_empty() {
            let reasons: Vec<_> = disks.unusable.iter().map(|disk| disk.reason.as_str()).collect();
            return Err(if reasons.is_empty() {
                ServerError::NoDisks
            } else {
                ServerError::NoUsableDisk(reasons.join("; "))
            });
        }
        Ok(disks)
    }

    /// The open disks.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.open.iter()
    }

    /// The open disk of that id.
    pub(crate) fn get(&self, id: DiskId) -> Result<&Disk, ApiError> {
        self.open.iter().find(|disk| disk.id() == id).ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, code::UNKNOWN_DISK, format!("this node has no disk {id} in use"))
        })
    }

    /// All disks, as `GET /v1/status` answers them.
    pub(crate) fn statuses(&self) -> Vec<DiskStatus> {
        let open = self.open.iter().map(|disk| status(&disk.status()));
        let unusable = self.unusable.iter().map(|disk| DiskStatus {
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
        open.chain(unusable).collect()
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

fn status(disk: &holdfast_node_engine::DiskStatus) -> DiskStatus {
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

enum Unopened {
    Foreign(String),
    Unusable(String),
}

/// Opens one disk; a file that does not exist is formatted first when `create` gives its size.
fn open_one(path: &Path, cell: CellId, slot_bytes: u64, create: Option<u64>) -> Result<Disk, Unopened> {
    let missing = matches!(std::fs::metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    if missing && create.is_some() {
        let options = FormatOptions { cell, slot_bytes, size_bytes: create };
        let disk = holdfast_node_engine::format(path, &options).map_err(|e| Unopened::Unusable(e.to_string()))?;
        tracing::info!(%disk, path = %path.display(), size_bytes = create, "disk file was missing and has been made");
    }
    Disk::open(path, OpenOptions::new(cell)).map_err(|error| match error {
        OpenError::WrongCell { .. } => Unopened::Foreign(error.to_string()),
        other => Unopened::Unusable(other.to_string()),
    })
}
