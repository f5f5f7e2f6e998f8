//! One decision for each subject, by what the three trees say of it.

use std::collections::{HashMap, HashSet};

use holdfast_metadata_client::EntryId;

use crate::local::LocalId;
use crate::names::check_name;
use crate::operation::Operation;
use crate::remote::RemoteEntry;
use crate::stat::{Content, NodeKind};
use crate::synced::{SyncedEntry, Whereabouts};
use crate::trees::{Subject, Trees};

/// One pass over the subjects that changed.
pub(crate) struct Decisions<'a> {
    pub(crate) trees: &'a mut Trees,
    pub(crate) operations: Vec<Operation>,
    seen: HashSet<Subject>,
    /// Entries whose decision is under way, further up the stack.
    pub(crate) visiting: HashSet<EntryId>,
    /// Places that operations of this pass free.
    pub(crate) freed: HashSet<(LocalId, String)>,
    /// Places that operations of this pass take.
    pub(crate) claimed: HashSet<(EntryId, String)>,
    /// Folders that operations of this pass make on the disk.
    making: HashSet<EntryId>,
    /// Whether a folder can be deleted on the server as a whole.
    deletable: HashMap<EntryId, bool>,
}

/// Where the folder of an entry is on the disk.
pub(crate) enum Folder {
    Here(LocalId),
    /// An earlier operation makes it.
    Planned,
}

impl<'a> Decisions<'a> {
    pub(crate) fn new(trees: &'a mut Trees) -> Self {
        Self {
            trees,
            operations: Vec::new(),
            seen: HashSet::new(),
            visiting: HashSet::new(),
            freed: HashSet::new(),
            claimed: HashSet::new(),
            making: HashSet::new(),
            deletable: HashMap::new(),
        }
    }

    pub(crate) fn decide(&mut self, subject: Subject) {
        match subject {
            Subject::Entry(entry) => self.entry(entry),
            Subject::Local(local) => self.local(local),
        }
    }

    pub(crate) fn emit(&mut self, operation: Operation) {
        self.trees.begin(&operation);
        self.operations.push(operation);
    }

    pub(crate) fn wait(&mut self, entry: EntryId) {
        self.trees.wait(Subject::Entry(entry));
    }

    fn fault(&mut self, subject: Subject, reason: &str) {
        self.trees.fault(subject, reason.to_owned());
    }

    pub(crate) fn entry(&mut self, id: EntryId) {
        let subject = Subject::Entry(id);
        if id == EntryId::ROOT || self.trees.is_parked(subject) || !self.seen.insert(subject) {
            return;
        }
        if self.trees.is_busy(id) || self.trees.is_held(id) {
            self.trees.wants_pull |= self.trees.is_held(id);
            self.wait(id);
            return;
        }
        let remote = self.trees.remote.get(id).cloned();
        let synced = self.trees.synced.get(id).cloned();
        self.visiting.insert(id);
        match (synced, remote) {
            (None, None) => self.trees.clear_fault(subject),
            (None, Some(remote)) => self.appear(id, &remote),
            (Some(synced), remote) => match synced.local {
                Whereabouts::Unknown => {}
                Whereabouts::Gone => self.gone(id, &synced, remote.as_ref()),
                Whereabouts::Present(local) => self.both(id, &synced, remote.as_ref(), local),
            },
        }
        self.visiting.remove(&id);
    }

    // --- an entry that is new here --------------------------------------------------------------------------

    fn appear(&mut self, id: EntryId, remote: &RemoteEntry) {
        let Some(name) = self.shown_name(id) else { return };
        let Some(folder) = self.folder_on_disk(remote.parent) else { return self.wait(id) };
        if let Folder::Here(folder) = folder
            && let Some(taken) = self.occupant(folder, &name)
        {
            let Some(node) = self.trees.local.get(taken) else { return };
            match (node.entry, node.stat.kind) {
                (None, NodeKind::Folder) if remote.content == Content::Folder => {
                    return self.adopt(id, remote, &name, taken);
                }
                (None, NodeKind::Other) => {
                    return self.fault(Subject::Entry(id), "its place is taken by something that is not synced");
                }
                (None, _) => self.local(taken),
                // It moves into this very folder.
                (Some(other), _) if self.visiting.contains(&other) => self.step_aside(other, taken),
                (Some(other), _) => self.entry(other),
            }
            if self.occupant(folder, &name).is_some() {
                return self.wait(id);
            }
        }
        if !self.claimed.insert((remote.parent, name)) {
            return self.wait(id);
        }
        self.trees.clear_fault(Subject::Entry(id));
        if remote.content == Content::Folder {
            self.making.insert(id);
            self.emit(Operation::MakeLocalFolder { entry: id });
        } else {
            self.emit(Operation::Download { entry: id });
        }
    }

    /// Both sides have a folder of this name: it is the same.
    fn adopt(&mut self, id: EntryId, remote: &RemoteEntry, name: &str, local: LocalId) {
        let Some(node) = self.trees.local.get(local) else { return };
        let row = SyncedEntry {
            parent: remote.parent,
            name: name.to_owned(),
            rev: remote.rev.clone(),
            content: Content::Folder,
            stat: node.stat.clone(),
            racy: false,
            local: Whereabouts::Unknown,
        };
        self.trees.agree(id, row, Some(local));
    }

    pub(crate) fn shown_name(&mut self, id: EntryId) -> Option<String> {
        let name = self.trees.remote.shown_name(id)?.to_owned();
        match check_name(&name) {
            Ok(()) => Some(name),
            Err(fault) => {
                self.fault(Subject::Entry(id), &format!("the server sent a name that cannot be used: {fault}"));
                None
            }
        }
    }

    /// What stands at a place after the operations of this pass.
    pub(crate) fn occupant(&self, folder: LocalId, name: &str) -> Option<LocalId> {
        let there = self.trees.local.child(folder, name)?;
        (!self.freed.contains(&(folder, name.to_owned()))).then_some(there)
    }

    /// The folder of an entry on the disk; it is made first where it is missing.
    pub(crate) fn folder_on_disk(&mut self, id: EntryId) -> Option<Folder> {
        if let Some(found) = self.known_folder(id) {
            return Some(found);
        }
        let gone = self.trees.synced.get(id).is_some_and(|row| row.local == Whereabouts::Gone);
        if gone && self.trees.remote.get(id).is_some() && !self.trees.is_busy(id) && !self.trees.is_held(id) {
            // It was deleted here, but something in it lives on: it is made again.
            self.trees.drop_synced(id);
            self.seen.remove(&Subject::Entry(id));
        }
        self.entry(id);
        self.known_folder(id)
    }

    pub(crate) fn known_folder(&self, id: EntryId) -> Option<Folder> {
        if id == EntryId::ROOT {
            return Some(Folder::Here(LocalId::ROOT));
        }
        if self.making.contains(&id) {
            return Some(Folder::Planned);
        }
        match self.trees.synced.get(id).map(|row| row.local) {
            Some(Whereabouts::Present(local)) => {
                let node = self.trees.local.get(local)?;
                (node.stat.kind == NodeKind::Folder && !node.opaque).then_some(Folder::Here(local))
            }
            _ => None,
        }
    }

    // --- an agreed entry that vanished from the disk ----------------------------------------------------------

    fn gone(&mut self, id: EntryId, synced: &SyncedEntry, remote: Option<&RemoteEntry>) {
        self.trees.clear_fault(Subject::Entry(id));
        let Some(remote) = remote else { return self.trees.drop_synced(id) };
        if !self.is_as_agreed(id, synced, remote) {
            // Edit beats delete: what changed on the server since comes back.
            self.trees.drop_synced(id);
            return self.appear(id, remote);
        }
        if let Some(above) = self.deleted_with(synced.parent) {
            self.entry(above);
            return self.wait(id);
        }
        if remote.content != Content::Folder {
            return self.emit(Operation::DeleteRemote { entry: id, known_sequence: remote.sequence });
        }
        if self.is_deletable(id) {
            let newest = self.newest_below(id);
            if newest > self.trees.remote.sequence() {
                // Own changes that the pull has not reached: others' may lie between.
                self.trees.wants_pull = true;
                return self.wait(id);
            }
            let known_sequence = self.trees.remote.sequence();
            return self.emit(Operation::DeleteRemote { entry: id, known_sequence });
        }
        let children: Vec<_> = self.trees.remote.children(id).collect();
        for child in children {
            self.entry(child);
        }
        if self.trees.synced.get(id).is_some() {
            self.wait(id);
        }
    }

    fn is_as_agreed(&self, id: EntryId, synced: &SyncedEntry, remote: &RemoteEntry) -> bool {
        remote.content == synced.content
            && remote.parent == synced.parent
            && self.trees.remote.shown_name(id) == Some(&synced.name)
    }

    /// The topmost folder, from `folder` upwards, that vanished as a whole and is deleted as a whole.
    fn deleted_with(&mut self, folder: EntryId) -> Option<EntryId> {
        let mut top = None;
        let mut at = folder;
        while at != EntryId::ROOT
            && self.trees.synced.get(at).is_some_and(|row| row.local == Whereabouts::Gone)
            && self.is_deletable(at)
        {
            top = Some(at);
            at = self.trees.remote.get(at)?.parent;
        }
        top
    }

    /// Whether all that the server has in a folder vanished here, and is as it was when it did.
    fn is_deletable(&mut self, folder: EntryId) -> bool {
        if let Some(known) = self.deletable.get(&folder) {
            return *known;
        }
        let vanished = |id: &EntryId| {
            let (Some(synced), Some(remote)) = (self.trees.synced.get(*id), self.trees.remote.get(*id)) else {
                return false;
            };
            synced.local == Whereabouts::Gone
                && self.is_as_agreed(*id, synced, remote)
                && !self.trees.is_held(*id)
                && (*id == folder || !self.trees.is_busy(*id))
        };
        let answer = self.trees.remote.subtree(folder).iter().all(vanished);
        self.deletable.insert(folder, answer);
        answer
    }

    fn newest_below(&self, folder: EntryId) -> u64 {
        let sequence = |id: &EntryId| self.trees.remote.get(*id).map(|entry| entry.sequence);
        self.trees.remote.subtree(folder).iter().filter_map(sequence).max().unwrap_or(0)
    }

    // --- an agreed entry that is on the disk ------------------------------------------------------------------

    fn both(&mut self, id: EntryId, synced: &SyncedEntry, remote: Option<&RemoteEntry>, local: LocalId) {
        let Some(node) = self.trees.local.get(local) else { return };
        if !node.opaque {
            self.trees.clear_fault(Subject::Entry(id));
        }
        let Some(node) = self.trees.local.get(local) else { return };
        let edited = !node.stat.unchanged(&synced.stat);
        if edited && node.stat.kind == NodeKind::Folder {
            // Another folder of the same name took its place; what is in it is looked at by itself.
            let stat = node.stat.clone();
            self.trees.synced.change(id, |row| row.stat = stat);
        }
        let upload = Operation::Upload { local, entry: Some(id), base: Some(synced.rev.clone()) };
        let Some(remote) = remote else { return self.deleted_on_server(id, local, edited.then_some(upload)) };
        let folders = (remote.content == Content::Folder, node.stat.kind == NodeKind::Folder);
        if folders.0 != folders.1 {
            return self.trees.drop_synced(id);
        }
        self.settle_place(id, synced, remote, local);
        let Some(synced) = self.trees.synced.get(id) else { return };
        if folders.0 {
            if synced.rev != remote.rev {
                self.trees.synced.change(id, |row| row.rev.clone_from(&remote.rev));
            }
        } else if edited {
            self.emit(upload);
        } else if remote.content != synced.content {
            let bytes_are_right =
                matches!(remote.content, Content::File { .. }) && remote.content.same_bytes(&synced.content);
            self.emit(match bytes_are_right {
                true => Operation::SetAttributes { entry: id },
                false => Operation::Download { entry: id },
            });
        } else if synced.rev != remote.rev {
            self.trees.synced.change(id, |row| row.rev.clone_from(&remote.rev));
        }
    }

    fn deleted_on_server(&mut self, id: EntryId, local: LocalId, upload: Option<Operation>) {
        let Some(node) = self.trees.local.get(local) else { return };
        if node.stat.kind == NodeKind::Folder {
            if node.opaque {
                return self.fault(Subject::Entry(id), "deleted on the server, but it cannot be listed here");
            }
            if !node.children.is_empty() {
                let stays = |child: &LocalId| {
                    self.trees.local.get(*child).is_some_and(|child| child.stat.kind == NodeKind::Other)
                };
                if node.children.values().all(stays) {
                    return self.fault(
                        Subject::Entry(id),
                        "deleted on the server, but what is in it here is not synced; remove it by hand",
                    );
                }
                return self.wait(id);
            }
        } else if let Some(upload) = upload {
            // Edit beats delete: the server revives it.
            return self.emit(upload);
        }
        self.freed.insert((node.parent, node.name.clone()));
        self.emit(Operation::DeleteLocal { entry: id });
    }

    // --- a file that only this disk knows ---------------------------------------------------------------------

    pub(crate) fn local(&mut self, id: LocalId) {
        let subject = Subject::Local(id);
        let Some(node) = self.trees.local.get(id) else { return };
        if let Some(entry) = node.entry {
            return self.entry(entry);
        }
        let (parent, name, kind, inode) = (node.parent, node.name.clone(), node.stat.kind, node.stat.inode);
        if kind == NodeKind::Other || self.trees.is_parked(subject) || !self.seen.insert(subject) {
            return;
        }
        if self.trees.is_busy_local(id) || self.trees.is_busy_inode(inode) {
            return self.trees.wait(subject);
        }
        if !self.parent_is_known(parent) {
            if self.is_below_parked(parent) {
                return self.fault(subject, "the folder that it is in is not synced");
            }
            return self.trees.wait(subject);
        }
        if let Some(folder) = self.trees.local.get(parent).and_then(|node| node.entry)
            && let Some(other) = self.trees.remote.at_place(folder, &name)
        {
            if self.is_leaving(other) {
                if self.visiting.contains(&other) {
                    // It moves into this very folder.
                    self.step_aside_on_server(other, true);
                } else {
                    self.entry(other);
                }
                return self.trees.wait(subject);
            }
            let remote = self.trees.remote.get(other).filter(|remote| remote.content == Content::Folder).cloned();
            if let Some(remote) = remote
                && kind == NodeKind::Folder
                && self.trees.synced.get(other).is_none()
            {
                return self.adopt(other, &remote, &name, id);
            }
        }
        self.trees.clear_fault(subject);
        self.emit(match kind {
            NodeKind::Folder => Operation::MakeRemoteFolder { local: id },
            _ => Operation::Upload { local: id, entry: None, base: None },
        });
    }

    /// Whether a new folder, or one above it, rests because the server refused it. What is in it is decided again when the
    /// folder has an entry.
    fn is_below_parked(&self, folder: LocalId) -> bool {
        let mut at = folder;
        while let Some(node) = self.trees.local.get(at).filter(|node| node.entry.is_none()) {
            if self.trees.is_parked(Subject::Local(at)) {
                return true;
            }
            at = node.parent;
        }
        false
    }

    /// Whether the server knows a local folder, or will by the time it is needed.
    pub(crate) fn parent_is_known(&mut self, folder: LocalId) -> bool {
        let known = |this: &Self| {
            this.trees.local.get(folder).is_some_and(|node| node.entry.is_some()) || this.trees.is_busy_local(folder)
        };
        if !known(self) {
            self.local(folder);
        }
        known(self)
    }
}
