//! The one task that owns the trees and decides.
//!
//! A turn: take in what the watcher saw, look at folders to be scanned, take in what workers report, plan, hand out
//! work, commit; then wait for the next event. Nothing else touches the trees or the state file.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{EntryId, NamespaceId};
use holdfast_sync_client_planner::{LocalId, Operation, Trees};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use crate::commit::Commits;
use crate::config::Config;
use crate::control::Control;
use crate::error::EngineError;
use crate::fetch::Fetcher;
use crate::jobs::{Event, FetchJob, UploadJob};
use crate::pull::Pulls;
use crate::question::{Exit, Question};
use crate::start::Parts;
use crate::state::{State, Writing, key};
use crate::status::Meters;
use crate::upload::Uploader;
use crate::watch::Watcher;

/// After a change on the disk: wait so long for more before planning, so that both ends of a rename are seen.
const DEBOUNCE: Duration = Duration::from_millis(8);

/// Plan at the latest so long after a change, however many follow.
const MAX_DEBOUNCE: Duration = Duration::from_millis(80);

/// How soon failed operations are tried again; doubles up to the limit while they go on failing.
const RETRY: Duration = Duration::from_millis(500);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Folders are scanned so long at a time; in between other work goes on.
pub(crate) const SCAN_SLICE: Duration = Duration::from_millis(20);

/// More agreed entries than this, all gone from the disk at once, are a question and no delete.
const FEW: usize = 5;

pub(crate) struct Engine {
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    pub(crate) state: State,
    pub(crate) trees: Trees,
    pub(crate) watcher: Watcher,
    pub(crate) meters: Arc<Meters>,
    pub(crate) namespace: NamespaceId,
    pub(crate) events: UnboundedReceiver<Event>,
    pub(crate) sender: UnboundedSender<Event>,
    pub(crate) pulls: Pulls,
    pub(crate) commits: Commits,
    /// Folders to be listed; with all below where told.
    pub(crate) to_scan: VecDeque<(LocalId, bool)>,
    pub(crate) to_scan_known: BTreeSet<(LocalId, bool)>,
    pub(crate) last_scan: Instant,
    pub(crate) first_scan_done: bool,
    /// When the disk changed first and last since the last plan.
    pub(crate) disk_changed: Option<(Instant, Instant)>,
    /// Files that are open for writing, and when they were last written.
    pub(crate) writing: HashMap<LocalId, Instant>,
    /// Operations that wait for a moment.
    pub(crate) held: Vec<(Instant, Operation)>,
    pub(crate) small_uploads: VecDeque<UploadJob>,
    pub(crate) large_uploads: VecDeque<UploadJob>,
    pub(crate) uploads_running: usize,
    pub(crate) large_uploads_running: usize,
    pub(crate) downloads: VecDeque<FetchJob>,
    pub(crate) large_downloads: VecDeque<FetchJob>,
    pub(crate) downloads_running: usize,
    pub(crate) large_downloads_running: usize,
    /// Receipts of blocks delivered for files that are not committed yet.
    pub(crate) receipts: HashMap<BlockHash, String>,
    /// Blocks that the server said it misses, though it should have them.
    pub(crate) disowned: BTreeSet<BlockHash>,
    /// Which synced file has a block.
    pub(crate) block_at: HashMap<BlockHash, EntryId>,
    /// Names that are not UTF-8, by folder.
    pub(crate) unnameable: HashMap<LocalId, Vec<String>>,
    /// Why nodes stay local.
    pub(crate) local_reasons: HashMap<LocalId, String>,
    /// Rows that changed and are not persisted yet.
    unsaved: (BTreeSet<EntryId>, BTreeSet<EntryId>),
    pub(crate) trouble: Option<String>,
    /// Why the last operation failed that is tried again.
    pub(crate) last_failure: Option<String>,
    retry_at: Option<Instant>,
    retry_pause: Duration,
    pub(crate) waiters: Vec<(Instant, u64, tokio::sync::oneshot::Sender<String>)>,
    pub(crate) question: Option<Question>,
    answered_emptied: bool,
}

/// What an engine starts from.
pub(crate) struct Beginning {
    pub(crate) state: State,
    pub(crate) trees: Trees,
    pub(crate) watcher: Watcher,
    pub(crate) namespace: NamespaceId,
    pub(crate) meters: Arc<Meters>,
    pub(crate) receipts: HashMap<BlockHash, String>,
    pub(crate) pulls: Pulls,
    pub(crate) commits: Commits,
    pub(crate) answered_emptied: bool,
}

impl Engine {
    pub(crate) fn new(config: Config, parts: Parts, from: Beginning) -> Self {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let now = parts.clock.now();
        let mut engine = Self {
            config,
            parts,
            state: from.state,
            trees: from.trees,
            watcher: from.watcher,
            meters: from.meters,
            namespace: from.namespace,
            events,
            sender,
            pulls: from.pulls,
            commits: from.commits,
            to_scan: VecDeque::new(),
            to_scan_known: BTreeSet::new(),
            last_scan: now,
            first_scan_done: false,
            disk_changed: None,
            writing: HashMap::new(),
            held: Vec::new(),
            small_uploads: VecDeque::new(),
            large_uploads: VecDeque::new(),
            uploads_running: 0,
            large_uploads_running: 0,
            downloads: VecDeque::new(),
            large_downloads: VecDeque::new(),
            downloads_running: 0,
            large_downloads_running: 0,
            receipts: from.receipts,
            disowned: BTreeSet::new(),
            block_at: HashMap::new(),
            unnameable: HashMap::new(),
            local_reasons: HashMap::new(),
            unsaved: Default::default(),
            trouble: None,
            last_failure: None,
            retry_at: None,
            retry_pause: RETRY,
            waiters: Vec::new(),
            question: None,
            answered_emptied: from.answered_emptied,
        };
        for (id, row) in engine.trees.synced().iter() {
            engine.block_at.extend(row.content.blocks().iter().map(|block| (block.hash, id)));
        }
        engine
    }

    pub(crate) fn uploader(&self) -> Uploader {
        Uploader {
            network: Arc::clone(&self.parts.network),
            files: Arc::clone(&self.parts.files),
            clock: Arc::clone(&self.parts.clock),
            meters: Arc::clone(&self.meters),
            events: self.sender.clone(),
        }
    }

    pub(crate) fn fetcher(&self) -> Fetcher {
        Fetcher {
            network: Arc::clone(&self.parts.network),
            files: Arc::clone(&self.parts.files),
            meters: Arc::clone(&self.meters),
            events: self.sender.clone(),
        }
    }

    /// Runs until told to stop or a question comes up.
    pub(crate) async fn run(
        &mut self,
        control: &mut Control,
        shutdown: &CancellationToken,
    ) -> Result<Exit, EngineError> {
        self.scan_everything();
        while self.question.is_none() && !shutdown.is_cancelled() {
            self.turn();
            if self.question.is_some() {
                break;
            }
            if !self.to_scan.is_empty() || self.has_due_work() {
                // More to do at once; but let others run and requests through.
                tokio::task::yield_now().await;
                while let Ok(request) = control.requests.try_recv() {
                    self.request(request);
                }
                continue;
            }
            let deadline = self.next_deadline();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.watcher.ready() => {}
                event = self.events.recv() => {
                    if let Some(event) = event {
                        self.take(event);
                    }
                }
                request = control.requests.recv() => {
                    if let Some(request) = request {
                        self.request(request);
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
        self.stop().await;
        let exit = self.question.map_or(Exit::Shutdown, Exit::Asking);
        for (_, _, waiter) in std::mem::take(&mut self.waiters) {
            let _ = waiter.send(self.status_line());
        }
        Ok(exit)
    }

    /// Lets the commit in hand end, for a moment; what is not answered is journaled and sent again at the next start.
    async fn stop(&mut self) {
        let limit = tokio::time::sleep(Duration::from_secs(1));
        tokio::pin!(limit);
        while self.commits.is_in_flight() {
            tokio::select! {
                () = &mut limit => break,
                event = self.events.recv() => match event {
                    Some(Event::Committed(result)) => self.take(Event::Committed(result)),
                    Some(_) => {}
                    None => break,
                },
            }
        }
        self.persist();
    }

    fn turn(&mut self) {
        self.drain_watcher();
        self.scan_slice();
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        let now = self.parts.clock.now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.trees.retry();
        }
        if self.first_scan_done && now - self.last_scan >= self.rescan_interval() {
            self.trees.retry_faults();
            self.scan_everything();
        }
        self.plan_when_due(now);
        self.release_held(now);
        self.start_uploads();
        self.start_downloads();
        self.start_commit();
        self.start_pulls(now);
        self.plan_retry(now);
        self.answer_waiters(now);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Uploaded(results) => self.uploaded(results),
            Event::Receipts(receipts) => self.keep_receipts(receipts),
            Event::Committed(result) => self.committed(result),
            Event::Fetched(results) => self.fetched(results),
            Event::Pulled { from, result } => self.pulled(from, result),
            Event::Polled { from, result } => self.polled(from, result),
        }
    }

    fn rescan_interval(&self) -> Duration {
        let configured = Duration::from_millis(self.config.rescan_interval_ms.max(100));
        if self.watcher.is_full { configured.min(Duration::from_secs(10)) } else { configured }
    }

    /// Whether the trees are complete enough to decide: the disk was looked at, the server's tree is whole.
    pub(crate) fn may_plan(&self) -> bool {
        self.first_scan_done
            && self.to_scan.is_empty()
            && self.pulls.is_complete()
            && !self.commits.has_unanswered_from_before()
    }

    fn plan_due_at(&self, now: Instant) -> Option<Instant> {
        match self.disk_changed {
            Some((first, last)) => Some((last + DEBOUNCE).min(first + MAX_DEBOUNCE)),
            None if self.trees.has_candidates() => Some(now),
            None => None,
        }
    }

    fn has_due_work(&self) -> bool {
        let now = self.parts.clock.now();
        self.may_plan() && self.plan_due_at(now).is_some_and(|at| at <= now)
    }

    fn plan_when_due(&mut self, now: Instant) {
        if !self.may_plan() || self.plan_due_at(now).is_none_or(|at| at > now) {
            return;
        }
        self.disk_changed = None;
        let operations = self.trees.plan();
        if self.trees.take_wants_pull() {
            self.pulls.want();
        }
        if self.looks_emptied() {
            self.question = Some(Question::RootEmptied);
            return;
        }
        if !operations.is_empty() {
            tracing::debug!(count = operations.len(), "planned");
        }
        self.persist();
        self.dispatch(operations);
        self.persist();
    }

    fn looks_emptied(&self) -> bool {
        let synced = self.trees.synced();
        !self.answered_emptied && synced.len() > FEW && synced.present() == 0 && self.trees.vanished() > FEW
    }

    /// Whether deletes may go out: the root is still the folder that was synced. Asks otherwise.
    pub(crate) fn root_is_there(&mut self) -> bool {
        match self.parts.files.root_identity() {
            Ok(identity) if self.trees.local().get(LocalId::ROOT).is_some_and(|root| root.stat.inode == identity.0) => {
                true
            }
            Ok(_) => {
                self.question = Some(Question::RootExchanged);
                false
            }
            Err(_) => {
                self.question = Some(Question::RootVanished);
                false
            }
        }
    }

    fn plan_retry(&mut self, now: Instant) {
        let deferred = self.trees.deferred() > 0 || !(self.unsaved.0.is_empty() && self.unsaved.1.is_empty());
        if !deferred {
            // What is under way may have failed before; only quiet ends the doubling.
            if self.trees.unsettled() == 0 {
                (self.retry_pause, self.last_failure) = (RETRY, None);
            }
            self.retry_at = None;
        } else if self.retry_at.is_none() {
            self.retry_at = Some(now + self.retry_pause);
            self.retry_pause = (self.retry_pause * 2).min(MAX_RETRY);
        }
    }

    fn next_deadline(&self) -> Instant {
        let now = self.parts.clock.now();
        let mut deadline = now + Duration::from_secs(30);
        let mut earlier = |at: Instant| deadline = deadline.min(at);
        if self.may_plan()
            && let Some(at) = self.plan_due_at(now)
        {
            earlier(at);
        }
        self.retry_at.into_iter().for_each(&mut earlier);
        self.held.iter().for_each(|(at, _)| earlier(*at));
        self.waiters.iter().for_each(|(at, _, _)| earlier(*at));
        self.pulls.next_at().into_iter().for_each(&mut earlier);
        self.commits.next_at().into_iter().for_each(&mut earlier);
        earlier(self.last_scan + self.rescan_interval());
        deadline
    }

    /// Writes all rows that changed, in one transaction. What cannot be written is written with the next ones.
    pub(crate) fn persist(&mut self) {
        self.collect_changed();
        if !(self.unsaved.0.is_empty() && self.unsaved.1.is_empty() && !self.pulls.is_unsaved()) {
            self.write_unsaved(|_| Ok(()));
        }
    }

    /// As [`Self::persist`], with more in the same transaction.
    pub(crate) fn persist_with(&mut self, more: impl FnOnce(&Writing<'_>) -> rusqlite::Result<()>) {
        self.collect_changed();
        self.write_unsaved(more);
    }

    fn collect_changed(&mut self) {
        let (remote, synced) = self.trees.take_changed();
        for id in &synced {
            if let Some(row) = self.trees.synced().get(*id) {
                self.block_at.extend(row.content.blocks().iter().map(|block| (block.hash, *id)));
            }
        }
        self.unsaved.0.extend(remote);
        self.unsaved.1.extend(synced);
    }

    fn write_unsaved(&mut self, more: impl FnOnce(&Writing<'_>) -> rusqlite::Result<()>) {
        let (trees, unsaved, meters, pulls) = (&self.trees, &self.unsaved, &self.meters, &self.pulls);
        let written = self.state.write(|writing| {
            for id in &unsaved.0 {
                writing.remote(*id, trees.remote().get(*id))?;
            }
            for id in &unsaved.1 {
                writing.synced(*id, trees.synced().get(*id))?;
            }
            pulls.write(writing)?;
            writing.set(key::SENT, Meters::get(&meters.sent))?;
            writing.set(key::RECEIVED, Meters::get(&meters.received))?;
            writing.set(key::FILES, Meters::get(&meters.files))?;
            writing.set(key::CONFLICTS, Meters::get(&meters.conflicts))?;
            more(writing)
        });
        match written {
            Ok(()) => {
                self.unsaved = Default::default();
                self.pulls.saved();
                self.trouble = None;
            }
            Err(error) => self.cannot_write(&error),
        }
    }

    pub(crate) fn cannot_write(&mut self, error: &rusqlite::Error) {
        self.trouble = Some(format!("the sync state cannot be written: {error}"));
    }
}
