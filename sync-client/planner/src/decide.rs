//! One decision for each subject, by what the three trees say of it.

use std::collections::{HashMap, HashSet};

use holdfast_metadata_client::EntryId;

use crate::local::{LocalId, Node};
use crate::names::{TRANSIT_PREFIX, check_name, is_transit_name};
use crate::operation::{Operation, Target};
use crate::remote::RemoteEntry;
use crate::stat::{Content, NodeKind};
use crate::synced::{SyncedEntry, Whereabouts};
use crate::trees::{Subject, Trees};

/// One pass over the subjects that changed.
pub(crate) struct Decisions<'a> {
    trees: &'a mut Trees,
    pub(crate) operations: Vec<Operation>,
    seen: HashSet<Subject>,
    /// Entries whose decision is under way, further up the stack.
    visiting: HashSet<EntryId>,
    /// Places that operations of this pass free.
    freed: HashSet<(LocalId, String)>,
    /// Places that operations of this pass take.
    claimed: HashSet<(EntryId, String)>,
    /// Folders that operations of this pass make on the disk.
    making: HashSet<EntryId>,
    /// Whether a folder can be deleted on the server as a whole.
    deletable: HashMap<EntryId, bool>,
}

/// Where the folder of an entry is on the disk.
enum Folder {
    Here(LocalId),
    /// An earlier operation makes it.
    Planned,
}

/// Names for an entry that steps aside; the first is taken only by somebody's leftovers.
fn transit_names(id: EntryId) -> impl Iterator<Item = String> {
    (0_u32..).map(move |n| match n {
        0 => format!("{TRANSIT_PREFIX}{}", id.0),
        n => format!("{TRANSIT_PREFIX}{}-{n}", id.0),
    })
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

    fn emit(&mut self, operation: Operation) {
        self.trees.begin(&operation);
        self.operations.push(operation);
    }

    fn wait(&mut self, entry: EntryId) {
        self.trees.wait(Subject::Entry(entry));
    }

    fn fault(&mut self, subject: Subject, reason: &str) {
        self.trees.fault(subject, reason.to_owned());
    }

    fn entry(&mut self, id: EntryId) {
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

    fn shown_name(&mut self, id: EntryId) -> Option<String> {
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
    fn occupant(&self, folder: LocalId, name: &str) -> Option<LocalId> {
        let there = self.trees.local.child(folder, name)?;
        (!self.freed.contains(&(folder, name.to_owned()))).then_some(there)
    }

    /// The folder of an entry on the disk; it is made first where it is missing.
    fn folder_on_disk(&mut self, id: EntryId) -> Option<Folder> {
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

    fn known_folder(&self, id: EntryId) -> Option<Folder> {
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

    fn settle_place(&mut self, id: EntryId, synced: &SyncedEntry, remote: &RemoteEntry, local: LocalId) {
        let Some(name) = self.shown_name(id) else { return };
        let Some((here_parent, here_name)) = self.trees.place_of(local) else { return };
        let agreed = here_parent == Some(synced.parent) && here_name == synced.name;
        if here_parent == Some(remote.parent) && here_name == name {
            if !agreed {
                let parent = remote.parent;
                self.trees.change_synced(id, |row| (row.parent, row.name) = (parent, name));
            }
            return;
        }
        let in_transit = is_transit_name(id, here_name);
        if agreed || in_transit {
            self.move_local(id, remote, name, local);
        } else {
            self.move_remote(id, local);
        }
    }

    fn move_local(&mut self, id: EntryId, remote: &RemoteEntry, name: String, local: LocalId) {
        let Some(folder) = self.folder_on_disk(remote.parent) else {
            // A new folder that is to take this one's place, or that of the folder it is in.
            if self.is_visited_above(remote.parent) || self.is_in_the_way(local, remote.parent) {
                self.step_aside(id, local);
            }
            return self.wait(id);
        };
        if self.trees.is_busy(id) {
            // It had to step aside for its own new folder.
            return self.wait(id);
        }
        if let Folder::Here(folder) = folder {
            if self.trees.local.is_within(folder, local) {
                self.decide_between(folder, local);
                return self.wait(id);
            }
            if let Some(taken) = self.occupant(folder, &name) {
                match self.trees.local.get(taken).and_then(|node| node.entry) {
                    None => self.local(taken),
                    Some(other) if self.visiting.contains(&other) => {
                        // One of the two goes out of the way, and never one that is out of it already.
                        return if self.is_in_transit(local) {
                            self.step_aside(other, taken);
                            self.wait(id);
                        } else {
                            self.step_aside(id, local);
                        };
                    }
                    Some(other) => self.entry(other),
                }
                if self.occupant(folder, &name).is_some() || self.trees.is_busy(id) {
                    // The folder that it is in goes once it is empty.
                    if self.trees.local.is_within(local, taken) {
                        self.step_aside(id, local);
                    }
                    return self.wait(id);
                }
            }
        }
        if !self.claimed.insert((remote.parent, name.clone())) {
            return self.wait(id);
        }
        self.free_place_of(local);
        self.emit(Operation::MoveLocal { entry: id, to: Target::Place { parent: remote.parent, name } });
    }

    /// Whether the topmost folder that is missing above `target` has its place taken by `local` or what that is in.
    fn is_in_the_way(&self, local: LocalId, target: EntryId) -> bool {
        let mut missing = target;
        while let Some(entry) = self.trees.remote.get(missing) {
            if let Some(Folder::Here(folder)) = self.known_folder(entry.parent) {
                let name = self.trees.remote.shown_name(missing);
                let taken = name.and_then(|name| self.trees.local.child(folder, name));
                return taken.is_some_and(|taken| self.trees.local.is_within(local, taken));
            }
            missing = entry.parent;
        }
        false
    }

    fn is_visited_above(&self, id: EntryId) -> bool {
        let mut at = id;
        while let Some(entry) = self.trees.remote.get(at) {
            if self.visiting.contains(&at) {
                return true;
            }
            at = entry.parent;
        }
        false
    }

    /// A cycle of renames: this one goes out of the way.
    fn step_aside(&mut self, id: EntryId, local: LocalId) {
        let Some(node) = self.trees.local.get(local) else { return };
        if is_transit_name(id, &node.name) || self.trees.is_busy(id) {
            return self.wait(id);
        }
        let taken = |name: &String| self.trees.local.child(LocalId::ROOT, name).is_some();
        let Some(name) = transit_names(id).find(|name| !taken(name)) else { return };
        self.free_place_of(local);
        self.emit(Operation::MoveLocal { entry: id, to: Target::Transit { name } });
    }

    fn free_place_of(&mut self, local: LocalId) {
        if let Some(Node { parent, name, .. }) = self.trees.local.get(local) {
            self.freed.insert((*parent, name.clone()));
        }
    }

    /// Decides about the folders on the disk from `below` up to, but without, `above`.
    fn decide_between(&mut self, below: LocalId, above: LocalId) {
        let mut at = below;
        while at != above && at != LocalId::ROOT {
            let Some(node) = self.trees.local.get(at) else { return };
            let (entry, parent) = (node.entry, node.parent);
            match entry {
                // It waits for the place of the folder that it is in.
                Some(entry) if self.visiting.contains(&entry) => self.step_aside(entry, at),
                Some(entry) => self.entry(entry),
                None => {}
            }
            at = parent;
        }
    }

    fn move_remote(&mut self, id: EntryId, local: LocalId) {
        let Some(node) = self.trees.local.get(local) else { return };
        let (parent, name) = (node.parent, node.name.clone());
        if !self.parent_is_known(parent) {
            if self.is_in_its_own_place(id, parent) {
                self.step_aside_on_server(id, true);
            }
            return self.wait(id);
        }
        if let Some(folder) = self.trees.local.get(parent).and_then(|node| node.entry) {
            if let Some(other) = self.trees.remote.at_place(folder, &name)
                && other != id
                && self.is_leaving(other)
            {
                if self.visiting.contains(&other) {
                    // One of the two goes out of the way, and never one that is out of it already.
                    let aside = self.trees.remote.shown_name(id).is_some_and(|name| is_transit_name(id, name));
                    self.step_aside_on_server(if aside { other } else { id }, false);
                    return self.wait(id);
                }
                self.entry(other);
                if self.is_below_on_server(id, other) {
                    // A folder that was deleted here, and goes once this is out of it.
                    self.step_aside_on_server(id, false);
                }
                return self.wait(id);
            }
            if self.must_move_first(folder, id) {
                return self.wait(id);
            }
        }
        if self.trees.is_busy(id) {
            // It had to step aside.
            return self.wait(id);
        }
        self.emit(Operation::MoveRemote { entry: id, parent, name });
    }

    fn is_below_on_server(&self, id: EntryId, above: EntryId) -> bool {
        let mut at = id;
        while let Some(entry) = self.trees.remote.get(at) {
            at = entry.parent;
            if at == above {
                return true;
            }
        }
        false
    }

    /// A cycle of renames made here: this one goes out of the way on the server, for the moment of a commit or two.
    fn step_aside_on_server(&mut self, id: EntryId, in_its_own_place: bool) {
        let aside = self.trees.remote.shown_name(id).is_some_and(|name| is_transit_name(id, name));
        if self.trees.is_busy(id) || (aside && !in_its_own_place) {
            return;
        }
        let taken = |name: &String| self.trees.remote.at_place(EntryId::ROOT, name).is_some();
        if let Some(name) = transit_names(id).find(|name| !taken(name)) {
            self.emit(Operation::MoveRemote { entry: id, parent: LocalId::ROOT, name });
        }
    }

    /// Whether one of the new folders that an entry moves into stands where the entry itself does on the server.
    fn is_in_its_own_place(&self, id: EntryId, folder: LocalId) -> bool {
        let mut at = folder;
        while let Some(node) = self.trees.local.get(at).filter(|node| node.entry.is_none()) {
            if let Some((Some(above), name)) = self.trees.place_of(at)
                && self.trees.remote.at_place(above, name) == Some(id)
            {
                return true;
            }
            at = node.parent;
        }
        false
    }

    /// Whether an agreed entry was moved or removed on this disk, so that its place on the server becomes free.
    fn is_leaving(&self, id: EntryId) -> bool {
        let Some(row) = self.trees.synced.get(id) else { return false };
        match row.local {
            Whereabouts::Gone | Whereabouts::Unknown => true,
            Whereabouts::Present(local) => {
                self.trees.place_of(local) != Some((Some(row.parent), &row.name)) && !self.is_in_transit(local)
            }
        }
    }

    fn is_in_transit(&self, local: LocalId) -> bool {
        let named_so = |node: &Node| node.entry.is_some_and(|entry| is_transit_name(entry, &node.name));
        self.trees.local.get(local).is_some_and(named_so)
    }

    /// On the server the target lies below the entry, and a folder between was moved out of it here: that goes first.
    fn must_move_first(&mut self, target: EntryId, id: EntryId) -> bool {
        let mut between = Vec::new();
        let mut at = target;
        while at != id {
            let Some(entry) = self.trees.remote.get(at) else { return false };
            between.push(at);
            at = entry.parent;
        }
        let leaving: Vec<_> = between.into_iter().filter(|entry| self.is_leaving(*entry)).collect();
        for entry in &leaving {
            if self.visiting.contains(entry) {
                self.step_aside_on_server(*entry, false);
            } else {
                self.entry(*entry);
            }
        }
        !leaving.is_empty()
    }

    // --- a file that only this disk knows ---------------------------------------------------------------------

    fn local(&mut self, id: LocalId) {
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
    fn parent_is_known(&mut self, folder: LocalId) -> bool {
        let known = |this: &Self| {
            this.trees.local.get(folder).is_some_and(|node| node.entry.is_some()) || this.trees.is_busy_local(folder)
        };
        if !known(self) {
            self.local(folder);
        }
        known(self)
    }
}
