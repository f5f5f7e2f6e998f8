//! The server's last word, by entry id.

use std::collections::{BTreeSet, HashMap};

use holdfast_metadata_client::{Entry, EntryId};

use crate::stat::Content;

/// An entry that exists on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEntry {
    /// Its folder.
    pub parent: EntryId,
    /// Its name as stored.
    pub name: String,
    /// Its exact name for case-sensitive clients, where it differs.
    pub exact_name: Option<String>,
    /// Its revision.
    pub rev: String,
    /// Journal sequence of its last change.
    pub sequence: u64,
    /// What it holds.
    pub content: Content,
}

impl RemoteEntry {
    /// Takes over a server's entry.
    pub fn of(entry: &Entry) -> Self {
        Self {
            parent: entry.parent,
            name: entry.name.clone(),
            exact_name: entry.exact_name.clone(),
            rev: entry.rev.clone(),
            sequence: entry.sequence,
            content: Content::of(entry),
        }
    }
}

type Names = HashMap<EntryId, HashMap<String, BTreeSet<EntryId>>>;

/// All entries that exist on the server.
#[derive(Debug, Default)]
pub struct Remote {
    entries: HashMap<EntryId, RemoteEntry>,
    children: HashMap<EntryId, BTreeSet<EntryId>>,
    stored: Names,
    exact: Names,
    /// Deleted entries and when: what an older page says about them is old news.
    dead: HashMap<EntryId, u64>,
    /// Folders deleted in the pull under way: what is still in them at its end is gone too.
    dead_folders: Vec<(EntryId, u64)>,
    changed: BTreeSet<EntryId>,
    sequence: u64,
}

fn note(names: &mut Names, parent: EntryId, name: &str, id: EntryId) {
    names.entry(parent).or_default().entry(name.to_owned()).or_default().insert(id);
}

fn forget(names: &mut Names, parent: EntryId, name: &str, id: EntryId) {
    let Some(folder) = names.get_mut(&parent) else { return };
    if let Some(ids) = folder.get_mut(name) {
        ids.remove(&id);
        if ids.is_empty() {
            folder.remove(name);
        }
    }
    if folder.is_empty() {
        names.remove(&parent);
    }
}

fn named<'a>(names: &'a Names, parent: EntryId, name: &str) -> impl Iterator<Item = EntryId> + 'a {
    names.get(&parent).and_then(|folder| folder.get(name)).into_iter().flatten().copied()
}

impl Remote {
    /// Takes the persisted entries and the journal sequence that they stand at.
    pub fn load(entries: impl IntoIterator<Item = (EntryId, RemoteEntry)>, sequence: u64) -> Self {
        let mut remote = Self { sequence, ..Self::default() };
        for (id, entry) in entries {
            remote.insert(id, entry);
        }
        remote.changed.clear();
        remote
    }

    /// An entry that exists.
    pub fn get(&self, id: EntryId) -> Option<&RemoteEntry> {
        self.entries.get(&id)
    }

    /// All entries that exist.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &RemoteEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// How many entries exist.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The journal sequence up to which everything is known.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The entries that changed (or went) since the last call, to be persisted.
    pub fn take_changed(&mut self) -> BTreeSet<EntryId> {
        std::mem::take(&mut self.changed)
    }

    /// What is in a folder.
    pub fn children(&self, folder: EntryId) -> impl Iterator<Item = EntryId> + '_ {
        self.children.get(&folder).into_iter().flatten().copied()
    }

    /// An entry and all below it, folders before what is in them.
    pub fn subtree(&self, id: EntryId) -> Vec<EntryId> {
        let mut found = vec![id];
        let mut next = 0;
        while let Some(at) = found.get(next).copied() {
            found.extend(self.children(at));
            next += 1;
        }
        found
    }

    /// The name that this (case-sensitive) client shows: the exact one, unless another entry stands under it.
    pub fn shown_name(&self, id: EntryId) -> Option<&str> {
        let entry = self.entries.get(&id)?;
        let Some(exact) = &entry.exact_name else { return Some(&entry.name) };
        let taken = named(&self.stored, entry.parent, exact).any(|other| other != id)
            || named(&self.exact, entry.parent, exact).next() != Some(id);
        Some(if taken { &entry.name } else { exact })
    }

    /// The entry that this client shows under a name.
    pub fn at_place(&self, parent: EntryId, name: &str) -> Option<EntryId> {
        named(&self.stored, parent, name)
            .chain(named(&self.exact, parent, name))
            .find(|id| self.shown_name(*id) == Some(name))
    }

    /// Takes in what the server says of an entry, unless something newer is known; answers the entries whose shown
    /// name or state may have changed.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Vec<EntryId> {
        let known = self.entries.get(&entry.id).map(|known| known.sequence);
        let known = known.max(self.dead.get(&entry.id).copied()).unwrap_or(0);
        if entry.sequence < known || entry.id == EntryId::ROOT {
            return Vec::new();
        }
        if entry.deleted {
            let touched = self.remove(entry.id, entry.sequence);
            self.dead_folders.push((entry.id, entry.sequence));
            return touched;
        }
        self.dead.remove(&entry.id);
        let new = RemoteEntry::of(entry);
        if self.entries.get(&entry.id) == Some(&new) {
            return Vec::new();
        }
        let mut touched = self.detach(entry.id);
        touched.extend(self.insert(entry.id, new));
        touched
    }

    /// Ends a pull that is complete up to `sequence`: what was left in deleted folders is gone with them.
    pub(crate) fn finish_pull(&mut self, sequence: u64) -> Vec<EntryId> {
        self.sequence = self.sequence.max(sequence);
        self.bury()
    }

    /// Removes what is left in folders that were deleted.
    pub(crate) fn bury(&mut self) -> Vec<EntryId> {
        let mut touched = Vec::new();
        while let Some((folder, sequence)) = self.dead_folders.pop() {
            if self.entries.contains_key(&folder) {
                continue;
            }
            let children: Vec<_> = self.children(folder).collect();
            for child in children {
                if self.entries.get(&child).is_some_and(|entry| entry.sequence <= sequence) {
                    touched.extend(self.remove(child, sequence));
                    self.dead_folders.push((child, sequence));
                }
            }
        }
        touched
    }

    fn remove(&mut self, id: EntryId, sequence: u64) -> Vec<EntryId> {
        let touched = self.detach(id);
        self.dead.insert(id, sequence);
        touched
    }

    fn detach(&mut self, id: EntryId) -> Vec<EntryId> {
        let mut touched = vec![id];
        let Some(old) = self.entries.remove(&id) else { return touched };
        self.changed.insert(id);
        touched.extend(named(&self.exact, old.parent, &old.name));
        forget(&mut self.stored, old.parent, &old.name, id);
        if let Some(exact) = &old.exact_name {
            touched.extend(named(&self.exact, old.parent, exact));
            forget(&mut self.exact, old.parent, exact, id);
        }
        if let Some(children) = self.children.get_mut(&old.parent) {
            children.remove(&id);
            if children.is_empty() {
                self.children.remove(&old.parent);
            }
        }
        touched
    }

    fn insert(&mut self, id: EntryId, entry: RemoteEntry) -> Vec<EntryId> {
        note(&mut self.stored, entry.parent, &entry.name, id);
        self.children.entry(entry.parent).or_default().insert(id);
        let mut touched: Vec<_> = named(&self.exact, entry.parent, &entry.name).collect();
        if let Some(exact) = &entry.exact_name {
            note(&mut self.exact, entry.parent, exact, id);
            touched.extend(named(&self.exact, entry.parent, exact));
        }
        touched.push(id);
        self.entries.insert(id, entry);
        self.changed.insert(id);
        touched
    }
}
