//! A running client on a temporary folder.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_sync_client_engine::{Config, EngineError, Status, SystemClock, query, run_with};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cell::{Cell, Device};

pub const LIMIT: Duration = Duration::from_secs(60);

pub struct Client {
    dir: TempDir,
    cell: Arc<Cell>,
    device: u64,
    pub notifications: bool,
    running: Option<(CancellationToken, JoinHandle<Result<(), EngineError>>)>,
}

impl Client {
    pub async fn start(cell: &Arc<Cell>, device: u64) -> Self {
        let mut client = Self::stopped(cell, device);
        client.resume().await;
        client
    }

    pub fn stopped(cell: &Arc<Cell>, device: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        Self { dir, cell: Arc::clone(cell), device, notifications: true, running: None }
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn config(&self) -> Config {
        Config {
            server: "https://cell".to_owned(),
            ca: PathBuf::new(),
            token: String::new(),
            folder: self.folder(),
            state_dir: self.state_dir(),
            name: format!("device {}", self.device),
            notifications: self.notifications,
            pull_interval_ms: if self.notifications { 300_000 } else { 50 },
            rescan_interval_ms: 600_000,
        }
    }

    pub async fn resume(&mut self) {
        assert!(self.running.is_none());
        let shutdown = CancellationToken::new();
        let network = Arc::new(Device { cell: Arc::clone(&self.cell), device: self.device });
        let running = tokio::spawn(run_with(self.config(), network, Arc::new(SystemClock), shutdown.clone()));
        self.running = Some((shutdown, running));
        let socket = self.state_dir().join("control.sock");
        until("the control socket", || socket.exists()).await;
    }

    /// A clean stop.
    pub async fn stop(&mut self) {
        let (shutdown, running) = self.running.take().unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
        assert!(!self.state_dir().join("control.sock").exists());
    }

    /// Cuts it off wherever it is.
    pub async fn crash(&mut self) {
        let (_, running) = self.running.take().unwrap();
        running.abort();
        let _ = running.await;
    }

    pub async fn ask(&self, request: &str) -> Status {
        let answer = query(&self.state_dir(), request).await.unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    pub async fn settle(&self) -> Status {
        let status = self.ask("settle 60").await;
        assert_eq!(status.state, "idle", "{status:#?}");
        status
    }

    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.folder().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.folder().join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn picture(&self) -> BTreeMap<PathBuf, String> {
        picture(&self.folder())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some((shutdown, running)) = &self.running {
            shutdown.cancel();
            running.abort();
        }
    }
}

/// Everything about a tree that has to be the same: kinds, bytes, targets, executable bits, times.
pub fn picture(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(at) = left.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let mtime = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
            let text = if metadata.is_symlink() {
                format!("link to {:?}, {mtime}", std::fs::read_link(&path).unwrap())
            } else if metadata.is_dir() {
                left.push(path.clone());
                "folder".to_owned()
            } else if metadata.is_file() {
                let hash = holdfast_libs_types::BlockHash::of(&std::fs::read(&path).unwrap());
                let executable = metadata.permissions().mode() & 0o100 != 0;
                format!("{hash}, {} bytes, executable: {executable}, {mtime}", metadata.len())
            } else {
                "other".to_owned()
            };
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), text);
        }
    }
    found
}

/// Waits for a condition, with a limit.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(std::time::Instant::now() < end, "waited {LIMIT:?} for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Settles until all say that nothing is left.
pub async fn settle_all(clients: &[&Client]) {
    for _ in 0..2 {
        for client in clients {
            client.settle().await;
        }
    }
}

pub fn assert_same(one: &Client, other: &Client) {
    let (left, right) = (one.picture(), other.picture());
    let differences: Vec<_> = left
        .keys()
        .chain(right.keys())
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| (path, left.get(path), right.get(path)))
        .collect();
    assert!(differences.is_empty(), "{differences:#?}");
}
