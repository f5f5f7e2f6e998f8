//! A disk in use: the engine's handle with what the node adds to it, each disk its own share so that one that hangs holds
//! nothing that others need.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_hw_profiles::profile::Limits;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::DiskId;
use holdfast_node_client::code;
use holdfast_node_engine::{Disk, EngineError};
use http::StatusCode;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers::{Answers, Unanswered};
use super::faults::{Faults, Line};
use super::finding::FileIdentity;
use super::{Disks, Places};
use crate::memory::Share;
use crate::metrics::{Operation, OperationMetrics};
use crate::pace::{Crowded, Kind, Pace};
use crate::refusal::refusal;
use crate::scrub::Scrub;
use crate::smart::Smart;

/// Copies onto one disk at once. The volume manager orders fewer; those of a leader before it may still run.
const COPIES: usize = 8;

/// A disk in use. Dropping the last reference never blocks: the engine's handle is dropped on a thread of its own.
#[derive(Debug)]
pub(crate) struct OpenDisk {
    /// The name it was opened under.
    pub path: PathBuf,
    /// What that name stood for.
    pub identity: FileIdentity,
    /// Bytes of appends to this disk that are received or written.
    pub append_bytes: Arc<Semaphore>,
    /// Places for copies onto this disk.
    pub copies: Arc<Semaphore>,
    /// How much background work it bears.
    pub pace: Arc<Pace>,
    /// Its scrub.
    pub scrub: Scrub,
    /// Cancelled when it is taken out of use: its background work ends.
    pub stop: CancellationToken,
    /// Its part of the node's memory.
    pub share: Share,
    /// When it was opened.
    pub opened: Instant,
    /// Extents erased from its trash.
    pub erased: AtomicU64,
    /// What the profile allows of its like.
    pub limits: Limits,
    /// Its own view of its health.
    pub smart: Smart,
    /// Held while its keyring is added to.
    pub keyring: tokio::sync::Mutex<()>,
    faults: Mutex<Faults>,
    metrics: OperationMetrics,
    /// When to open it anew, because it was not believed and may be by then.
    reopen_at: Mutex<Option<Instant>>,
    /// A check whether it is still there is under way.
    checking: AtomicBool,
    /// Whether the last check found it stalled, and how many found that anew.
    was_stalled: AtomicBool,
    stalls: AtomicU64,
    answers: Answers,
    /// `None` only while it is dropped.
    handle: Option<Disk>,
    places: Places,
    closing: TaskTracker,
}

impl OpenDisk {
    /// `disks` counts what it does and tracks its handle while that is dropped.
    pub(crate) fn new(
        handle: Disk,
        path: PathBuf,
        identity: FileIdentity,
        share: Share,
        scrub: Scrub,
        limits: Limits,
        disks: &Disks,
    ) -> Self {
        Self {
            path,
            identity,
            append_bytes: Arc::new(Semaphore::new(share.append_bytes)),
            copies: Arc::new(Semaphore::new(COPIES)),
            pace: Arc::new(Pace::new(Arc::clone(&disks.policy))),
            scrub,
            stop: CancellationToken::new(),
            share,
            opened: Instant::now(),
            erased: AtomicU64::new(0),
            limits,
            smart: Smart::default(),
            keyring: tokio::sync::Mutex::default(),
            faults: Mutex::new(Faults::new(limits)),
            metrics: disks.metrics.of(handle.id()),
            reopen_at: Mutex::new(None),
            checking: AtomicBool::new(false),
            was_stalled: AtomicBool::new(false),
            stalls: AtomicU64::new(0),
            answers: Answers::default(),
            handle: Some(handle),
            places: disks.places.clone(),
            closing: disks.closing.clone(),
        }
    }

    /// The engine's handle.
    pub(crate) fn engine(&self) -> &Disk {
        self.handle.as_ref().expect("the handle is taken only by drop")
    }

    /// The disk's id.
    pub(crate) fn id(&self) -> DiskId {
        self.engine().id()
    }

    /// Runs an operation of moments, within its deadline; refused at once while the disk has stalled.
    ///
    /// # Errors
    /// `stalled`, and the engine's refusals in the words of the protocol.
    pub(crate) async fn answer<T>(
        &self,
        kind: Operation,
        operation: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, ApiError> {
        let begun = Instant::now();
        let result = match self.answers.await_answer(operation).await {
            Ok(result) => result.map_err(|error| refusal(&error)),
            Err(unanswered) => Err(self.unanswered(&unanswered)),
        };
        self.metrics.note(kind, begun.elapsed(), result.as_ref().err());
        result
    }

    /// As [`OpenDisk::answer`], for what a client waits for: its latency decides how much background work there is.
    ///
    /// # Errors
    /// As [`OpenDisk::answer`].
    pub(crate) async fn answer_foreground<T>(
        &self,
        kind: Kind,
        bytes: usize,
        operation: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, ApiError> {
        let foreground = self.pace.foreground(kind, bytes);
        let of_kind = match kind {
            Kind::Append => Operation::Append,
            Kind::Read => Operation::Read,
        };
        let answered = self.answer(of_kind, operation).await?;
        foreground.done();
        Ok(answered)
    }

    /// Runs a part of a copy, to or from the disk, when the foreground bears it.
    ///
    /// # Errors
    /// `busy` when too many wait; those of `io`.
    pub(crate) async fn background<T>(
        &self,
        urgent: bool,
        bytes: u64,
        io: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        match self.pace.background(urgent, bytes, io).await {
            Ok(result) => result,
            Err(Crowded) => {
                let message = format!("more copies wait for disk {} than may", self.id());
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, message))
            }
        }
    }

    /// Refuses while the disk has stalled; for operations that may take long.
    ///
    /// # Errors
    /// `stalled`.
    pub(crate) fn admit(&self) -> Result<(), ApiError> {
        self.answers.admit().map_err(|unanswered| self.unanswered(&unanswered))
    }

    /// Has the watcher close it and open it anew after `wait`.
    pub(crate) fn reopen_after(&self, wait: Duration) {
        *self.reopen_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
    }

    /// Whether that time has come.
    pub(crate) fn is_to_be_reopened(&self) -> bool {
        self.reopen_at.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| Instant::now() >= at)
    }

    /// Why the disk counts as stalled, if it does.
    pub(crate) fn stalled(&self) -> Option<String> {
        let unanswered =
            self.answers.stalled().map(|since| format!("it has answered nothing for {} s", since.as_secs()));
        unanswered.or_else(|| self.engine().status().stalled)
    }

    /// Why the disk is suspected to be failing, if it is: far slower than it was, or than its profile allows.
    pub(crate) fn suspect(&self) -> Option<String> {
        self.engine().status().suspect.or_else(|| self.faults().slow())
    }

    /// All signs that it is about to fail, by its latencies and by its own figures.
    pub(crate) fn failing(&self) -> Option<String> {
        let smart = self.smart.answer().breaches.into_iter().map(|breach| format!("SMART: {breach}"));
        let signs: Vec<String> = self.suspect().into_iter().chain(smart).collect();
        (!signs.is_empty()).then(|| signs.join("; "))
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs what an operator should know of faults that are new.
    fn tell_faults(&self) {
        let lines = self.faults().observe(&self.engine().status(), Instant::now());
        let (disk, path) = (self.id(), self.path.display());
        for line in lines {
            match line {
                Line::Error(text) => tracing::error!(%disk, %path, "{text}"),
                Line::Warning(text) => tracing::warn!(%disk, %path, "{text}"),
                Line::Over(text) => tracing::info!(%disk, %path, "{text}"),
            }
        }
    }

    /// How often it was found to stall since it was opened.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Looks whether the disk is still the one that was opened, unless that is being looked at; also finds out that a
    /// disk answers again. What is found shows in the status.
    pub(crate) async fn check(&self) {
        self.tell_faults();
        let stalled = self.stalled().is_some();
        if stalled && !self.was_stalled.swap(stalled, Ordering::Relaxed) {
            self.stalls.fetch_add(1, Ordering::Relaxed);
        } else if !stalled {
            self.was_stalled.store(false, Ordering::Relaxed);
        }
        if self.checking.swap(true, Ordering::Relaxed) {
            return;
        }
        match self.answers.probe(self.engine().check_present()).await {
            // The engine has logged what it found.
            Ok(_) => {}
            Err(_) => {
                tracing::error!(disk = %self.id(), path = %self.path.display(),
                    "the disk's thread does not answer: it is stuck in the kernel; look at the kernel's log");
            }
        }
        self.checking.store(false, Ordering::Relaxed);
    }

    fn unanswered(&self, unanswered: &Unanswered) -> ApiError {
        let (id, path) = (self.id(), self.path.display());
        let message = match unanswered {
            Unanswered::Refused(since) => {
                format!("disk {id} ({path}) has answered nothing for {} s; nothing was tried", since.as_secs())
            }
            Unanswered::GivenUp => format!("disk {id} ({path}) did not answer in time; the outcome is not known"),
        };
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, code::STALLED, message).with_detail(json!({"disk": id}))
    }
}

impl Drop for OpenDisk {
    fn drop(&mut self) {
        self.stop.cancel();
        let Some(handle) = self.handle.take() else { return };
        // The last handle waits for the disk's thread, which may hang in the kernel.
        self.places.let_go(handle, &self.closing);
    }
}
