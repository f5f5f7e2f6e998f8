//! Where an agreed entry belongs, and how it gets there.
//!
//! A move made here is committed, one made elsewhere is carried out. What stands in the way is decided first; where that
//! leads back to the entry itself, one of the cycle steps aside under a temporary name.

use holdfast_metadata_client::EntryId;

use crate::decide::{Decisions, Folder};
use crate::local::{LocalId, Node};
use crate::names::{TRANSIT_PREFIX, is_transit_name};
use crate::operation::{Operation, Target};
use crate::remote::RemoteEntry;
use crate::synced::{SyncedEntry, Whereabouts};

/// Names for an entry that steps aside; the first is taken only by somebody's leftovers.
fn transit_names(id: EntryId) -> impl Iterator<Item = String> {
    (0_u32..).map(move |n| match n {
        0 => format!("{TRANSIT_PREFIX}{}", id.0),
        n => format!("{TRANSIT_PREFIX}{}-{n}", id.0),
    })
}

impl Decisions<'_> {
    pub(crate) fn settle_place(&mut self, id: EntryId, synced: &SyncedEntry, remote: &RemoteEntry, local: LocalId) {
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

    pub(crate) fn move_local(&mut self, id: EntryId, remote: &RemoteEntry, name: String, local: LocalId) {
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
    pub(crate) fn is_in_the_way(&self, local: LocalId, target: EntryId) -> bool {
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

    pub(crate) fn is_visited_above(&self, id: EntryId) -> bool {
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
    pub(crate) fn step_aside(&mut self, id: EntryId, local: LocalId) {
        let Some(node) = self.trees.local.get(local) else { return };
        if is_transit_name(id, &node.name) || self.trees.is_busy(id) {
            return self.wait(id);
        }
        let taken = |name: &String| self.trees.local.child(LocalId::ROOT, name).is_some();
        let Some(name) = transit_names(id).find(|name| !taken(name)) else { return };
        self.free_place_of(local);
        self.emit(Operation::MoveLocal { entry: id, to: Target::Transit { name } });
    }

    pub(crate) fn free_place_of(&mut self, local: LocalId) {
        if let Some(Node { parent, name, .. }) = self.trees.local.get(local) {
            self.freed.insert((*parent, name.clone()));
        }
    }

    /// Decides about the folders on the disk from `below` up to, but without, `above`.
    pub(crate) fn decide_between(&mut self, below: LocalId, above: LocalId) {
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

    pub(crate) fn move_remote(&mut self, id: EntryId, local: LocalId) {
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

    pub(crate) fn is_below_on_server(&self, id: EntryId, above: EntryId) -> bool {
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
    pub(crate) fn step_aside_on_server(&mut self, id: EntryId, in_its_own_place: bool) {
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
    pub(crate) fn is_in_its_own_place(&self, id: EntryId, folder: LocalId) -> bool {
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
    pub(crate) fn is_leaving(&self, id: EntryId) -> bool {
        let Some(row) = self.trees.synced.get(id) else { return false };
        match row.local {
            Whereabouts::Gone | Whereabouts::Unknown => true,
            Whereabouts::Present(local) => {
                self.trees.place_of(local) != Some((Some(row.parent), &row.name)) && !self.is_in_transit(local)
            }
        }
    }

    pub(crate) fn is_in_transit(&self, local: LocalId) -> bool {
        let named_so = |node: &Node| node.entry.is_some_and(|entry| is_transit_name(entry, &node.name));
        self.trees.local.get(local).is_some_and(named_so)
    }

    /// On the server the target lies below the entry, and a folder between was moved out of it here: that goes first.
    pub(crate) fn must_move_first(&mut self, target: EntryId, id: EntryId) -> bool {
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
}
