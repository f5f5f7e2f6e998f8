//! Agreements, and which local file belongs to which entry.
//!
//! An agreed entry whose file vanished is in limbo until both ends of a possible rename were observed; then it is paired
//! with the file that has its inode, or with the one that stands in its place, or it is gone.

use holdfast_metadata_client::EntryId;

use crate::local::{LocalId, Node};
use crate::synced::{SyncedEntry, Whereabouts};
use crate::trees::{Subject, Trees};

impl Trees {
    /// Both sides agree on `row` for an entry, which is at `local` if that still stands, else wherever it turns up.
    pub fn agree(&mut self, id: EntryId, row: SyncedEntry, local: Option<LocalId>) {
        if let Some(SyncedEntry { local: Whereabouts::Present(old), .. }) = self.synced.get(id)
            && Some(*old) != local
        {
            let old = *old;
            self.unpair(old);
        }
        let kind = row.content.kind();
        self.synced.insert(id, SyncedEntry { local: Whereabouts::Unknown, ..row });
        self.settled_something = true;
        let fits = |node: &Node| node.stat.kind == kind && node.entry.is_none_or(|entry| entry == id);
        match local {
            Some(local) if self.local.get(local).is_some_and(fits) => self.pair(id, local),
            _ => {
                self.limbo.insert(id);
                self.touch(id);
            }
        }
    }

    pub(crate) fn change_synced(&mut self, id: EntryId, change: impl FnOnce(&mut SyncedEntry)) {
        self.synced.change(id, change);
        self.settled_something = true;
        self.touch(id);
    }

    /// Forgets an agreement: the entry is new here, its local file is new to the server.
    pub fn drop_synced(&mut self, id: EntryId) {
        if let Some(old) = self.synced.remove(id) {
            self.settled_something = true;
            self.limbo.remove(&id);
            self.touch(id);
            if let Whereabouts::Present(local) = old.local {
                self.unpair(local);
            }
        }
    }

    pub(crate) fn unpair(&mut self, local: LocalId) {
        if let Some(node) = self.local.get_mut(local) {
            node.entry = None;
            self.touch_local(local);
            self.touch_children(local);
        }
    }

    fn pair(&mut self, id: EntryId, local: LocalId) {
        if let Some(node) = self.local.get_mut(local) {
            node.entry = Some(id);
            self.candidates.remove(&Subject::Local(local));
            self.waiting.remove(&Subject::Local(local));
            self.deferred.remove(&Subject::Local(local));
            self.faults.remove(&Subject::Local(local));
            self.parked.remove(&Subject::Local(local));
            self.synced.set_local(id, Whereabouts::Present(local));
            self.limbo.remove(&id);
            self.touch(id);
            self.touch_children(local);
        }
    }

    /// The place of what is in a folder changes with the folder's entry.
    fn touch_children(&mut self, folder: LocalId) {
        let children: Vec<_> =
            self.local.get(folder).map(|node| node.children.values().copied().collect()).unwrap_or_default();
        for child in children {
            self.touch_local(child);
        }
    }

    /// Finds agreed entries whose files vanished: by inode, which finds renames; else at their place, which finds
    /// files written anew under the old name. The rest is gone.
    pub fn resolve(&mut self) {
        if self.limbo.is_empty() {
            return;
        }
        let mut lost: Vec<(usize, EntryId)> =
            std::mem::take(&mut self.limbo).into_iter().map(|id| (self.synced_depth(id), id)).collect();
        lost.sort_unstable();
        lost.retain(|(_, id)| match self.find_by_inode(*id) {
            Some(local) => {
                self.pair(*id, local);
                false
            }
            None => true,
        });
        for (_, id) in lost {
            let Some(row) = self.synced.get(id) else { continue };
            let (kind, parent) = (row.content.kind(), self.synced_folder(row.parent));
            let there = match parent {
                Ok(parent) => self.local.child(parent, &row.name),
                Err(Whereabouts::Gone) => None,
                Err(_) => {
                    self.limbo.insert(id);
                    self.synced.set_local(id, Whereabouts::Unknown);
                    continue;
                }
            };
            let fits = |node: &Node| node.entry.is_none() && node.stat.kind == kind;
            match there.filter(|there| self.local.get(*there).is_some_and(fits)) {
                Some(there) => self.pair(id, there),
                None => {
                    self.synced.set_local(id, Whereabouts::Gone);
                    self.touch(id);
                }
            }
        }
    }

    fn find_by_inode(&self, id: EntryId) -> Option<LocalId> {
        let row = self.synced.get(id)?;
        let kind = row.content.kind();
        let free =
            |local: &LocalId| self.local.get(*local).is_some_and(|node| node.entry.is_none() && node.stat.kind == kind);
        let found: Vec<_> = self.local.with_inode(row.stat.inode).filter(free).collect();
        // A file with several names: the one it was agreed under.
        let here = |local: &&LocalId| self.local.get(**local).is_some_and(|node| node.name == row.name);
        found.iter().find(here).or(found.first()).copied()
    }

    /// The node of a folder of the synced tree; or why there is none.
    fn synced_folder(&self, id: EntryId) -> Result<LocalId, Whereabouts> {
        if id == EntryId::ROOT {
            return Ok(LocalId::ROOT);
        }
        match self.synced.get(id).map(|row| row.local) {
            Some(Whereabouts::Present(local)) if self.local.get(local).is_some_and(|node| node.opaque) => {
                Err(Whereabouts::Unknown)
            }
            Some(Whereabouts::Present(local)) => Ok(local),
            Some(other) => Err(other),
            None => Err(Whereabouts::Gone),
        }
    }

    fn synced_depth(&self, id: EntryId) -> usize {
        let mut depth = 0;
        let mut at = id;
        while let Some(row) = self.synced.get(at)
            && depth <= self.synced.len()
        {
            depth += 1;
            at = row.parent;
        }
        depth
    }

    /// The place of a node: its folder's entry, if that has one, and its name.
    pub fn place_of(&self, id: LocalId) -> Option<(Option<EntryId>, &str)> {
        let node = self.local.get(id)?;
        Some((self.local.get(node.parent)?.entry, &node.name))
    }
}
