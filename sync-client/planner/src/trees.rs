//! The three trees together, and what is still to be looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_metadata_client::{Entry, EntryId};

use crate::decide::Decisions;
use crate::local::{Local, LocalId};
use crate::names::is_transit_name;
use crate::operation::Operation;
use crate::remote::Remote;
use crate::stat::{Inode, NodeKind, Stat};
use crate::synced::{Synced, SyncedEntry, Whereabouts};

/// Passes of one plan: each may settle what another waits for without any I/O. More are left to the next plan.
const MAX_PASSES: usize = 16;

/// What a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An entry that the server or the synced tree knows.
    Entry(EntryId),
    /// A file that only this disk knows.
    Local(LocalId),
}

/// The trees, the subjects that changed since they were last decided about, and those with an operation under way.
#[derive(Debug)]
pub struct Trees {
    pub(crate) remote: Remote,
    pub(crate) local: Local,
    pub(crate) synced: Synced,
    pub(crate) candidates: BTreeSet<Subject>,
    /// Decided: something else comes first.
    pub(crate) waiting: BTreeSet<Subject>,
    /// Failed: again later.
    pub(crate) deferred: BTreeSet<Subject>,
    /// Agreed entries whose local file vanished and may turn up elsewhere.
    pub(crate) limbo: BTreeSet<EntryId>,
    busy_entries: HashMap<EntryId, usize>,
    busy_locals: HashMap<LocalId, Inode>,
    busy_inodes: HashMap<Inode, LocalId>,
    /// Entries about which nothing is decided until the pull has reached a sequence.
    held: BTreeMap<EntryId, u64>,
    pub(crate) faults: BTreeMap<Subject, String>,
    /// Subjects that rest until something about them changes.
    pub(crate) parked: BTreeSet<Subject>,
    pub(crate) wants_pull: bool,
    pub(crate) settled_something: bool,
}

impl Trees {
    /// Takes the persisted trees. The local one knows only its root: everything has to be observed.
    pub fn new(remote: Remote, synced: Synced, root: Stat) -> Self {
        let limbo = synced.iter().map(|(id, _)| id).collect();
        let candidates = remote.iter().map(|(id, _)| Subject::Entry(id)).collect();
        Self {
            remote,
            local: Local::new(root),
            synced,
            candidates,
            waiting: BTreeSet::new(),
            deferred: BTreeSet::new(),
            limbo,
            busy_entries: HashMap::new(),
            busy_locals: HashMap::new(),
            busy_inodes: HashMap::new(),
            held: BTreeMap::new(),
            faults: BTreeMap::new(),
            parked: BTreeSet::new(),
            wants_pull: false,
            settled_something: false,
        }
    }

    /// The server's last word.
    pub fn remote(&self) -> &Remote {
        &self.remote
    }

    /// The disk's last word.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// What was agreed on.
    pub fn synced(&self) -> &Synced {
        &self.synced
    }

    /// Entries whose rows changed since the last call: of the remote and of the synced tree.
    pub fn take_changed(&mut self) -> (BTreeSet<EntryId>, BTreeSet<EntryId>) {
        (self.remote.take_changed(), self.synced.take_changed())
    }

    /// Whether a pull is needed before something can be decided; asking resets it.
    pub fn take_wants_pull(&mut self) -> bool {
        std::mem::take(&mut self.wants_pull)
    }

    /// Subjects that are not settled: to be decided, waiting, failed or under way.
    pub fn unsettled(&self) -> usize {
        self.candidates.len()
            + self.waiting.len()
            + self.deferred.len()
            + self.busy_entries.len()
            + self.busy_locals.len()
    }

    /// Whether something changed since the last plan.
    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Subjects that wait for something else.
    pub fn waiting(&self) -> &BTreeSet<Subject> {
        &self.waiting
    }

    /// Failed subjects.
    pub fn deferred(&self) -> usize {
        self.deferred.len()
    }

    /// What cannot be synced, and why.
    pub fn faults(&self) -> impl Iterator<Item = (Subject, &str)> {
        self.faults.iter().map(|(subject, reason)| (*subject, reason.as_str()))
    }

    /// Records why a subject cannot be synced. It is cleared when it is decided about again.
    pub fn fault(&mut self, subject: Subject, reason: String) {
        self.faults.insert(subject, reason);
    }

    /// Lets what failed be tried again.
    pub fn retry(&mut self) {
        self.candidates.append(&mut self.deferred);
    }

    /// Lets everything that has a fault be decided again.
    pub fn retry_faults(&mut self) {
        self.parked.clear();
        self.candidates.extend(std::mem::take(&mut self.faults).into_keys());
    }

    /// How many agreed entries are known to be gone from the disk while the server still has them.
    pub fn vanished(&self) -> usize {
        let gone =
            |(id, entry): (EntryId, &SyncedEntry)| entry.local == Whereabouts::Gone && self.remote.get(id).is_some();
        self.synced.iter().filter(|(id, entry)| gone((*id, entry))).count()
    }

    // --- what the disk says ---------------------------------------------------------------------------------

    /// Takes in a stat of a place; none when nothing stands there. Answers the node, and whether it is a new one
    /// (a new folder has to be listed).
    pub fn observe(&mut self, parent: LocalId, name: &str, stat: Option<Stat>) -> Option<(LocalId, bool)> {
        if !self.local.get(parent).is_some_and(|folder| folder.stat.kind == NodeKind::Folder) {
            return None;
        }
        let known = self.local.child(parent, name);
        let Some(stat) = stat else {
            if let Some(known) = known {
                self.remove_local(known);
            }
            return None;
        };
        if let Some(known) = known {
            if let Some(node) = self.local.get_mut(known)
                && node.stat.inode == stat.inode
                && node.stat.kind == stat.kind
            {
                if !node.stat.unchanged(&stat) {
                    node.stat = stat;
                    self.touch_local(known);
                }
                return Some((known, false));
            }
            self.remove_local(known);
        }
        let id = self.local.insert(parent, name, stat);
        self.touch_local(id);
        Some((id, true))
    }

    /// Takes in a whole listing of a folder: what is not in it is gone. Answers the folders that are new.
    pub fn observe_folder(&mut self, folder: LocalId, listing: Vec<(String, Stat)>) -> Vec<LocalId> {
        let Some(node) = self.local.get_mut(folder) else { return Vec::new() };
        if std::mem::replace(&mut node.opaque, false) {
            self.touch_local(folder);
        }
        let names: BTreeSet<&str> = listing.iter().map(|(name, _)| name.as_str()).collect();
        let gone: Vec<LocalId> = match self.local.get(folder) {
            Some(node) => {
                let left = |(name, id): (&String, &LocalId)| (!names.contains(name.as_str())).then_some(*id);
                node.children.iter().filter_map(left).collect()
            }
            None => Vec::new(),
        };
        for id in gone {
            self.remove_local(id);
        }
        let mut folders = Vec::new();
        for (name, stat) in listing {
            let is_folder = stat.kind == NodeKind::Folder;
            if let Some((id, true)) = self.observe(folder, &name, Some(stat))
                && is_folder
            {
                folders.push(id);
            }
        }
        folders
    }

    /// A folder cannot be listed: what was known of it stays, and nothing that should be in it counts as gone.
    pub fn observe_opaque(&mut self, folder: LocalId, reason: String) {
        if let Some(node) = self.local.get_mut(folder) {
            node.opaque = true;
            let subject = node.entry.map_or(Subject::Local(folder), Subject::Entry);
            self.fault(subject, reason);
        }
    }

    /// A hint says that the file's bytes changed although its stat may look the same. Compares the bytes again when
    /// the agreed stat was taken too soon after a change to tell.
    pub fn suspect(&mut self, id: LocalId) {
        let Some(entry) = self.local.get(id).and_then(|node| node.entry) else { return };
        if self.synced.get(entry).is_some_and(|synced| synced.racy) {
            self.synced.change(entry, |synced| synced.stat.ctime = Default::default());
            self.touch(entry);
        }
    }

    /// After the engine itself moved a node: the place is agreed on at once, or a later move on the server would look
    /// like one made here. A step out of the way agrees on nothing.
    pub fn relocated(&mut self, id: LocalId, parent: LocalId, name: &str, stat: Stat) {
        let Some(node) = self.local.get_mut(id) else { return };
        let (old, entry) = (std::mem::replace(&mut node.stat, stat.clone()), node.entry);
        if let Some(there) = self.local.child(parent, name).filter(|there| *there != id) {
            // The place was free on the disk; what the tree had there went unseen.
            self.remove_local(there);
        }
        self.local.relocate(id, parent, name);
        self.touch_local(id);
        if let (Some(entry), Some(parent)) = (entry, self.local.get(parent).and_then(|folder| folder.entry))
            && !is_transit_name(entry, name)
        {
            self.synced.change(entry, |synced| (synced.parent, synced.name) = (parent, name.to_owned()));
        }
        // The rename moved the change time; that is no edit.
        if let Some(entry) = entry
            && old.unchanged_but_for_ctime(&stat)
            && self.synced.get(entry).is_some_and(|synced| synced.stat.unchanged(&old))
        {
            self.synced.change(entry, |synced| synced.stat = stat);
        }
    }

    fn remove_local(&mut self, id: LocalId) {
        let parent = self.local.get(id).map(|node| node.parent);
        for (id, node) in self.local.remove(id) {
            self.candidates.remove(&Subject::Local(id));
            self.waiting.remove(&Subject::Local(id));
            self.deferred.remove(&Subject::Local(id));
            self.faults.remove(&Subject::Local(id));
            self.parked.remove(&Subject::Local(id));
            if let Some(entry) = node.entry {
                self.synced.set_local(entry, Whereabouts::Unknown);
                self.limbo.insert(entry);
            }
        }
        // A folder that was deleted on the server goes once it is empty.
        if let Some(parent) = parent
            && let Some(entry) = self.local.get(parent).and_then(|node| node.entry)
            && entry != EntryId::ROOT
        {
            self.touch(entry);
        }
    }

    // --- what the server says -------------------------------------------------------------------------------

    /// Takes in entries of a pull.
    pub fn apply_remote(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.apply_entry(entry);
        }
    }

    /// The pull is complete up to `sequence`.
    pub fn finish_pull(&mut self, sequence: u64) {
        let touched = self.remote.finish_pull(sequence);
        self.touch_all(touched);
        self.held.retain(|_, until| *until > sequence);
    }

    pub(crate) fn apply_entry(&mut self, entry: &Entry) {
        let touched = self.remote.apply(entry);
        self.touch_all(touched);
    }

    pub(crate) fn bury(&mut self) {
        let touched = self.remote.bury();
        self.touch_all(touched);
    }

    /// Nothing is decided about an entry before the pull has reached `sequence`.
    pub(crate) fn hold(&mut self, entry: EntryId, sequence: u64) {
        if sequence > self.remote.sequence() {
            self.held.insert(entry, sequence);
            self.wants_pull = true;
        }
        self.touch(entry);
    }

    pub(crate) fn is_held(&self, entry: EntryId) -> bool {
        self.held.contains_key(&entry)
    }

    // --- plans ----------------------------------------------------------------------------------------------

    /// What to do about everything that changed. Each operation is under way until [`Self::done`] or
    /// [`Self::failed`] says otherwise. Call it only when the disk's changes were observed completely, both ends of a
    /// rename, and between pulls.
    pub fn plan(&mut self) -> Vec<Operation> {
        self.resolve();
        let mut operations = Vec::new();
        for _ in 0..MAX_PASSES {
            self.settled_something = false;
            self.candidates.append(&mut self.waiting);
            let subjects = std::mem::take(&mut self.candidates);
            let mut decisions = Decisions::new(self);
            for subject in subjects {
                decisions.decide(subject);
            }
            operations.extend(decisions.operations);
            self.resolve();
            if !self.settled_something {
                break;
            }
        }
        // What was touched by a decision alone, without a state that changed, was decided in the same pass.
        operations
    }

    /// An operation ended well, and its outcome was taken in.
    pub fn done(&mut self, operation: &Operation) {
        for subject in self.release(operation) {
            self.candidates.insert(subject);
        }
    }

    /// An operation failed; its subject is tried again after [`Self::retry`].
    pub fn failed(&mut self, operation: &Operation) {
        for subject in self.release(operation) {
            self.deferred.insert(subject);
        }
    }

    /// An operation will not work as things are: its subject rests, with a reason, until something about it changes or
    /// [`Self::retry_faults`].
    pub fn park(&mut self, operation: &Operation, reason: &str) {
        for subject in self.release(operation) {
            self.fault(subject, reason.to_owned());
            self.parked.insert(subject);
        }
    }

    /// Nothing about an entry is tried before [`Self::retry`].
    pub fn defer(&mut self, entry: EntryId) {
        let subject = Subject::Entry(entry);
        self.candidates.remove(&subject);
        self.waiting.remove(&subject);
        self.deferred.insert(subject);
    }

    /// Compares the bytes of all files whose agreed stat was taken too soon after a change to tell.
    pub fn suspect_all(&mut self) {
        let present = |row: &SyncedEntry| match row.local {
            Whereabouts::Present(local) if row.racy => Some(local),
            _ => None,
        };
        let racy: Vec<_> = self.synced.iter().filter_map(|(_, row)| present(row)).collect();
        for local in racy {
            self.suspect(local);
        }
    }

    pub(crate) fn begin(&mut self, operation: &Operation) {
        if let Some(entry) = operation.entry() {
            *self.busy_entries.entry(entry).or_default() += 1;
        }
        if let Some(local) = operation.unpaired_local()
            && let Some(node) = self.local.get(local)
        {
            self.busy_locals.insert(local, node.stat.inode);
            self.busy_inodes.insert(node.stat.inode, local);
        }
    }

    fn release(&mut self, operation: &Operation) -> Vec<Subject> {
        let mut subjects = Vec::new();
        if let Some(entry) = operation.entry() {
            if let Some(count) = self.busy_entries.get_mut(&entry) {
                *count -= 1;
                if *count == 0 {
                    self.busy_entries.remove(&entry);
                }
            }
            subjects.push(Subject::Entry(entry));
        }
        if let Some(local) = operation.unpaired_local() {
            if let Some(inode) = self.busy_locals.remove(&local)
                && self.busy_inodes.get(&inode) == Some(&local)
            {
                self.busy_inodes.remove(&inode);
            }
            if let Some(node) = self.local.get(local) {
                subjects.push(node.entry.map_or(Subject::Local(local), Subject::Entry));
            }
        }
        subjects
    }

    pub(crate) fn is_busy(&self, entry: EntryId) -> bool {
        self.busy_entries.contains_key(&entry)
    }

    pub(crate) fn is_busy_local(&self, local: LocalId) -> bool {
        self.busy_locals.contains_key(&local)
    }

    pub(crate) fn is_busy_inode(&self, inode: Inode) -> bool {
        self.busy_inodes.contains_key(&inode)
    }

    pub(crate) fn wait(&mut self, subject: Subject) {
        self.candidates.remove(&subject);
        self.waiting.insert(subject);
    }

    pub(crate) fn is_parked(&self, subject: Subject) -> bool {
        self.parked.contains(&subject)
    }

    pub(crate) fn clear_fault(&mut self, subject: Subject) {
        self.faults.remove(&subject);
    }

    /// Looks once more for the file of an entry that vanished, before its delete is committed; whether it turned up.
    pub fn retake(&mut self, entry: EntryId) -> bool {
        if self.synced.get(entry).is_some_and(|row| row.local == Whereabouts::Gone) {
            self.limbo.insert(entry);
            self.resolve();
        }
        self.synced.get(entry).is_some_and(|row| matches!(row.local, Whereabouts::Present(_)))
    }

    /// Lets an entry be decided about.
    pub fn touch(&mut self, entry: EntryId) {
        self.parked.remove(&Subject::Entry(entry));
        self.waiting.remove(&Subject::Entry(entry));
        self.candidates.insert(Subject::Entry(entry));
    }

    pub(crate) fn touch_local(&mut self, local: LocalId) {
        if let Some(node) = self.local.get(local) {
            let subject = node.entry.map_or(Subject::Local(local), Subject::Entry);
            self.parked.remove(&subject);
            self.waiting.remove(&subject);
            self.candidates.insert(subject);
        }
    }

    fn touch_all(&mut self, entries: Vec<EntryId>) {
        for entry in entries {
            self.touch(entry);
        }
    }
}
