//! Where disks stand: files and devices of this machine, or the bays of a simulation. The machine's may hang, so nothing is
//! asked of them on the async threads.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use holdfast_node_engine::{Disk, OpenError, OpenOptions};
use tokio_util::task::TaskTracker;

use super::finding::{FileIdentity, Found, Wanted, find};
use super::opening::{Opened, Opening};

/// The bays of a simulation. A path in the configuration is the name of a bay.
pub trait Bays: std::fmt::Debug + Send + Sync {
    /// A number for the disk that stands in a bay, another one for each disk; `None`: the bay is empty.
    fn holds(&self, bay: &Path) -> Option<u64>;

    /// Opens the disk in a bay and mounts it.
    fn open(&self, bay: &Path, options: OpenOptions) -> BoxFuture<'static, Result<Disk, OpenError>>;
}

/// Where this node's disks stand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    /// `None`: they are files and devices.
    pub bays: Option<Arc<dyn Bays>>,
}

impl Places {
    /// What the configuration means at this moment; `None` when the daemon ends.
    pub(crate) async fn find(&self, wanted: Vec<Wanted>) -> Option<Vec<Found>> {
        let Some(bays) = &self.bays else { return tokio::task::spawn_blocking(move || find(&wanted)).await.ok() };
        let found =
            |wanted: Wanted| Found { identity: bays.holds(&wanted.path).map(FileIdentity::of_bay), path: wanted.path };
        Some(wanted.into_iter().map(found).collect())
    }

    /// What stands at each path; `None` when the daemon ends.
    pub(crate) async fn identities(&self, paths: Vec<PathBuf>) -> Option<Vec<io::Result<FileIdentity>>> {
        let Some(bays) = &self.bays else {
            let look = move || paths.iter().map(|path| FileIdentity::of(path)).collect();
            return tokio::task::spawn_blocking(look).await.ok();
        };
        let identity = |path: PathBuf| {
            bays.holds(&path).map(FileIdentity::of_bay).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        };
        Some(paths.into_iter().map(identity).collect())
    }

    /// Opens a disk.
    pub(crate) async fn open(&self, opening: Opening) -> Opened {
        if let Some(bays) = &self.bays {
            let result = opening.judge(bays.open(&opening.path, opening.options.clone()).await);
            let identity = bays.holds(&opening.path).map(FileIdentity::of_bay);
            return Opened { path: opening.path, result, identity };
        }
        let opened = tokio::task::spawn_blocking(move || {
            let result = opening.run();
            let path = opening.path;
            let identity = FileIdentity::of(&path).ok();
            Opened { path, result, identity }
        });
        match opened.await {
            Ok(opened) => opened,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Blocking tasks are cancelled only when the runtime goes down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Drops a handle, which may wait for a disk that hangs.
    pub(crate) fn let_go(&self, disk: Disk, closing: &TaskTracker) {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if self.bays.is_none() => drop(closing.spawn_blocking_on(move || drop(disk), &runtime)),
            _ => drop(disk),
        }
    }
}
