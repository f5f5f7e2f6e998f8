//! Commits: one batch at a time, journaled before it is sent, sent again as it is until it is answered.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_libs_transport::CallError;
use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{Change, CommitAnswer, CommitItem, CommitRequest, Outcome, Parent, Place};
use holdfast_sync_client_planner::outcome::{Sent, SentChange, Verdict, answered};
use holdfast_sync_client_planner::{Content, LocalId, Operation, Whereabouts};

use crate::engine::Engine;
use crate::jobs::{Event, Uploaded};
use crate::state::key;
use crate::status::Meters;

/// Most items of one commit.
const MAX_ITEMS: usize = 1000;

/// Most blocks named by one commit, so that its document stays small.
const MAX_BLOCKS: usize = 100_000;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// An operation that is ready to be committed.
struct Ready {
    operation: Operation,
    uploaded: Option<Uploaded>,
}

/// An item that was sent; the operation is none for one from before a restart.
struct InFlight {
    operation: Option<Operation>,
    sent: Sent,
    blocks: Vec<BlockHash>,
}

/// Where the commits stand.
#[derive(Default)]
pub(crate) struct Commits {
    ready: VecDeque<Ready>,
    in_flight: Vec<InFlight>,
    request: Option<Arc<CommitRequest>>,
    sending: bool,
    from_before: bool,
    last_op: u64,
    acknowledged_op: u64,
    sequence: u64,
    not_before: Option<Instant>,
    pause: Option<Duration>,
    trouble: Option<String>,
}

impl Commits {
    pub(crate) fn new(last_op: u64) -> Self {
        Self { last_op, acknowledged_op: last_op, ..Self::default() }
    }

    /// Items whose answer a process before this one did not get: they are sent first, as they were.
    pub(crate) fn resume(&mut self, request: CommitRequest, sent: Vec<Sent>) {
        self.from_before = true;
        self.acknowledged_op = request.acknowledged_op;
        let blocks_of = |sent: &Sent| match &sent.change {
            SentChange::Put { content, .. } => content.blocks().iter().map(|block| block.hash).collect(),
            _ => Vec::new(),
        };
        self.in_flight =
            sent.into_iter().map(|sent| InFlight { operation: None, blocks: blocks_of(&sent), sent }).collect();
        self.request = Some(Arc::new(request));
    }

    pub(crate) fn is_in_flight(&self) -> bool {
        self.request.is_some()
    }

    pub(crate) fn has_unanswered_from_before(&self) -> bool {
        self.from_before
    }

    pub(crate) fn waiting(&self) -> usize {
        usize::from(self.from_before)
    }

    /// The journal's sequence after the last answered commit.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.not_before
    }

    pub(crate) fn push_plain(&mut self, operation: Operation) {
        self.ready.push_back(Ready { operation, uploaded: None });
    }

    pub(crate) fn push_uploaded(&mut self, operation: Operation, uploaded: Uploaded) {
        self.ready.push_back(Ready { operation, uploaded: Some(uploaded) });
    }
}

/// The item that an operation becomes; none when its node went or its folder is not known, so that it has to be decided
/// again.
type Built = Option<(Change, Sent, Vec<BlockHash>)>;

impl Engine {
    /// Sends the next batch, if none is under way.
    pub(crate) fn start_commit(&mut self) {
        let now = self.parts.clock.now();
        if self.commits.sending || self.commits.not_before.is_some_and(|at| at > now) {
            return;
        }
        self.commits.not_before = None;
        if self.commits.request.is_none() && !self.commits.ready.is_empty() {
            self.build_commit();
        }
        let Some(request) = self.commits.request.clone() else { return };
        self.commits.sending = true;
        let (network, events) = (Arc::clone(&self.parts.network), self.sender.clone());
        tokio::spawn(async move {
            let result = network.commit(&request).await;
            // The engine may be gone; the items are journaled.
            let _ = events.send(Event::Committed(result));
        });
    }

    fn build_commit(&mut self) {
        let mut items = Vec::new();
        let mut in_flight = Vec::new();
        let mut receipts = Vec::new();
        let mut made: HashMap<LocalId, u64> = HashMap::new();
        let mut blocks_named = 0;
        let mut op = self.commits.last_op;
        while items.len() < MAX_ITEMS && blocks_named < MAX_BLOCKS {
            let Some(ready) = self.commits.ready.pop_front() else { break };
            let Some((change, sent, blocks)) = self.build(&ready, &made) else {
                self.trees.done(&ready.operation);
                continue;
            };
            op += 1;
            if let Operation::MakeRemoteFolder { local } = &ready.operation {
                made.insert(*local, op);
            }
            blocks_named += blocks.len();
            receipts.extend(ready.uploaded.into_iter().flat_map(|uploaded| uploaded.receipts).map(|(_, text)| text));
            items.push(CommitItem { op, change });
            in_flight.push(InFlight { operation: Some(ready.operation), sent, blocks });
        }
        if items.is_empty() {
            return;
        }
        receipts.sort_unstable();
        receipts.dedup();
        let acknowledged_op = self.commits.acknowledged_op;
        let request = CommitRequest { namespace: self.namespace, items, receipts, acknowledged_op };
        if let Err(error) = self.journal(&request, &in_flight, op) {
            self.cannot_write(&error);
            for item in in_flight {
                if let Some(operation) = item.operation {
                    self.trees.failed(&operation);
                }
            }
            return;
        }
        self.commits.last_op = op;
        self.commits.in_flight = in_flight;
        self.commits.request = Some(Arc::new(request));
    }

    fn journal(&mut self, request: &CommitRequest, sent: &[InFlight], last_op: u64) -> rusqlite::Result<()> {
        let receipts = serde_json::to_string(&request.receipts)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        self.state.write(|writing| {
            for (item, in_flight) in request.items.iter().zip(sent) {
                writing.pending(item, &in_flight.sent)?;
            }
            writing.set(key::RECEIPTS, &receipts)?;
            writing.set(key::LAST_OP, last_op)
        })
    }

    fn build(&self, ready: &Ready, made: &HashMap<LocalId, u64>) -> Built {
        match &ready.operation {
            Operation::Upload { local, entry, base } => {
                self.build_put(*local, *entry, base.clone(), ready.uploaded.as_ref()?, made)
            }
            Operation::MakeRemoteFolder { local } => self.build_folder(*local, made),
            Operation::MoveRemote { entry, parent, name } => {
                let (parent, parent_entry) = self.parent(*parent, made)?;
                let local = match self.trees.synced().get(*entry).map(|row| row.local) {
                    Some(Whereabouts::Present(local)) => Some(local),
                    _ => None,
                };
                let change = Change::Move { entry: *entry, parent, name: name.clone() };
                let sent = SentChange::Move { entry: *entry, parent: parent_entry, name: name.clone() };
                Some((change, Sent { change: sent, local }, Vec::new()))
            }
            Operation::DeleteRemote { entry, known_sequence } => {
                let change = Change::Delete { entry: *entry, known_sequence: *known_sequence };
                let sent = Sent { change: SentChange::Delete { entry: *entry }, local: None };
                Some((change, sent, Vec::new()))
            }
            _ => None,
        }
    }

    /// A folder as the server knows it: by its entry, or by the item of this batch that makes it.
    fn parent(
        &self,
        folder: LocalId,
        made: &HashMap<LocalId, u64>,
    ) -> Option<(Parent, Option<holdfast_metadata_client::EntryId>)> {
        match self.trees.local().get(folder)?.entry {
            Some(entry) => Some((Parent::Entry(entry), Some(entry))),
            None => Some((Parent::Op(*made.get(&folder)?), None)),
        }
    }

    fn build_put(
        &self,
        local: LocalId,
        entry: Option<holdfast_metadata_client::EntryId>,
        base: Option<String>,
        uploaded: &Uploaded,
        made: &HashMap<LocalId, u64>,
    ) -> Built {
        let node = self.trees.local().get(local)?;
        let name = node.name.clone();
        let parent = self.parent(node.parent, made);
        let at = match (entry, parent) {
            (Some(entry), _) => Place::Entry(entry),
            (None, Some((parent, _))) => Place::Name { parent, name: name.clone() },
            (None, None) => return None,
        };
        let content = uploaded.content.clone();
        let change = match &content {
            Content::File { size, blocks, mtime, executable } => Change::PutFile {
                at,
                base,
                size: *size,
                blocks: blocks.to_vec(),
                mtime: *mtime,
                executable: *executable,
            },
            Content::Symlink { target, mtime } => {
                Change::PutSymlink { at, base, target: target.clone(), mtime: *mtime }
            }
            Content::Folder => return None,
        };
        let blocks = content.blocks().iter().map(|block| block.hash).collect();
        let parent = parent.and_then(|(_, entry)| entry);
        let (stat, racy) = (uploaded.stat.clone(), uploaded.racy);
        let put = SentChange::Put { entry, name, parent, content, stat, racy };
        Some((change, Sent { change: put, local: Some(local) }, blocks))
    }

    fn build_folder(&self, local: LocalId, made: &HashMap<LocalId, u64>) -> Built {
        let node = self.trees.local().get(local)?;
        let (parent, parent_entry) = self.parent(node.parent, made)?;
        let put = SentChange::Put {
            entry: None,
            name: node.name.clone(),
            parent: parent_entry,
            content: Content::Folder,
            stat: node.stat.clone(),
            racy: false,
        };
        let change = Change::MakeFolder { parent, name: node.name.clone() };
        Some((change, Sent { change: put, local: Some(local) }, Vec::new()))
    }

    pub(crate) fn committed(&mut self, result: Result<CommitAnswer, CallError>) {
        self.commits.sending = false;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return self.commit_failed(&error),
        };
        let expected = self.commits.request.as_ref().map_or(0, |request| request.items.len());
        if answer.results.len() != expected {
            let detail = format!("{} results for {expected} items", answer.results.len());
            let url = self.config.server.clone();
            return self.commit_failed(&CallError::Malformed { url, detail });
        }
        (self.commits.trouble, self.commits.pause) = (None, None);
        self.commits.request = None;
        self.commits.acknowledged_op = self.commits.last_op;
        self.commits.sequence = self.commits.sequence.max(answer.sequence);
        let in_flight = std::mem::take(&mut self.commits.in_flight);
        let mut delivered = Vec::new();
        for (item, result) in in_flight.into_iter().zip(&answer.results) {
            delivered.extend(self.take_answer(item, &result.outcome, answer.sequence));
        }
        self.commits.from_before = false;
        self.settle_answers(&delivered);
    }

    /// Takes in one answer; answers the blocks whose receipts are used up.
    fn take_answer(&mut self, item: InFlight, outcome: &Outcome, sequence: u64) -> Vec<BlockHash> {
        let verdict = answered(&mut self.trees, &item.sent, outcome, sequence);
        let is_file = matches!(&item.sent.change, SentChange::Put { content, .. } if *content != Content::Folder);
        let mut delivered = Vec::new();
        match verdict {
            Verdict::Done { conflict } => {
                Meters::add(&self.meters.conflicts, u64::from(conflict));
                Meters::add(&self.meters.files, u64::from(is_file));
                if let Some(operation) = &item.operation {
                    self.trees.done(operation);
                }
                delivered = item.blocks;
            }
            Verdict::NeedBlocks(missing) => {
                self.disowned.extend(missing.iter().copied());
                if let Some(operation) = &item.operation {
                    self.trees.failed(operation);
                }
                delivered = missing;
            }
            Verdict::Later(reason) => {
                tracing::debug!(reason, "an item has to wait");
                if let Some(operation) = &item.operation {
                    self.trees.failed(operation);
                }
                self.pulls.want();
            }
            Verdict::Refused(reason) => {
                tracing::warn!(reason, "the server refused an item");
                if let Some(operation) = &item.operation {
                    self.trees.park(operation, &reason);
                }
            }
        }
        delivered
    }

    fn settle_answers(&mut self, delivered: &[BlockHash]) {
        let used: Vec<BlockHash> =
            delivered.iter().filter(|hash| self.receipts.remove(hash).is_some()).copied().collect();
        // If this is not written the items are sent again after a restart, and answered as the first time.
        self.persist_with(|writing| {
            used.iter().try_for_each(|hash| writing.receipt(*hash, None))?;
            writing.clear_pending()
        });
    }

    fn commit_failed(&mut self, error: &CallError) {
        let pause = self.commits.pause.unwrap_or(FIRST_PAUSE);
        self.commits.pause = Some((pause * 2).min(LAST_PAUSE));
        self.commits.not_before = Some(self.parts.clock.now() + pause);
        self.commits.trouble = Some(error.to_string());
        tracing::debug!(%error, "the commit is sent again");
    }

    /// Keeps receipts of a file that is not complete, so that an interrupted upload goes on where it was.
    pub(crate) fn keep_receipts(&mut self, receipts: Vec<(BlockHash, String)>) {
        let written = self
            .state
            .write(|writing| receipts.iter().try_for_each(|(hash, receipt)| writing.receipt(*hash, Some(receipt))));
        if let Err(error) = written {
            self.cannot_write(&error);
        }
        self.receipts.extend(receipts);
    }
}
