//! What both sides agreed on last.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_metadata_client::EntryId;

use crate::LocalId;
use crate::stat::{Content, Stat};

/// Where an agreed entry is on the disk now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// Here.
    Present(LocalId),
    /// It was observed to vanish, and did not turn up elsewhere.
    Gone,
    /// Not known yet, or in a folder that cannot be listed. Nothing is decided about it.
    Unknown,
}

/// An entry that both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncedEntry {
    /// Its folder then.
    pub parent: EntryId,
    /// Its name on this disk then.
    pub name: String,
    /// Its revision then.
    pub rev: String,
    /// Its content then.
    pub content: Content,
    /// The stat of the local file that held this content.
    pub stat: Stat,
    /// The stat was taken so soon after the last change that a later one could look the same.
    pub racy: bool,
    /// Where it is now; not persisted.
    pub local: Whereabouts,
}

/// All agreed entries.
#[derive(Debug, Default)]
pub struct Synced {
    entries: BTreeMap<EntryId, SyncedEntry>,
    changed: BTreeSet<EntryId>,
    present: usize,
}

fn counts(entry: Option<&SyncedEntry>) -> usize {
    usize::from(matches!(entry, Some(SyncedEntry { local: Whereabouts::Present(_), .. })))
}

impl Synced {
    /// Takes the persisted entries; nothing is known of where they are.
    pub fn load(entries: impl IntoIterator<Item = (EntryId, SyncedEntry)>) -> Self {
        let unknown = |(id, entry)| (id, SyncedEntry { local: Whereabouts::Unknown, ..entry });
        Self { entries: entries.into_iter().map(unknown).collect(), changed: BTreeSet::new(), present: 0 }
    }

    /// An agreed entry.
    pub fn get(&self, id: EntryId) -> Option<&SyncedEntry> {
        self.entries.get(&id)
    }

    /// All agreed entries.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &SyncedEntry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of them stand on the disk.
    pub fn present(&self) -> usize {
        self.present
    }

    /// The entries that changed (or went) since the last call, to be persisted.
    pub fn take_changed(&mut self) -> BTreeSet<EntryId> {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn insert(&mut self, id: EntryId, entry: SyncedEntry) {
        self.present += counts(Some(&entry));
        let old = self.entries.insert(id, entry);
        self.present -= counts(old.as_ref());
        self.changed.insert(id);
    }

    pub(crate) fn remove(&mut self, id: EntryId) -> Option<SyncedEntry> {
        let old = self.entries.remove(&id);
        self.present -= counts(old.as_ref());
        if old.is_some() {
            self.changed.insert(id);
        }
        old
    }

    pub(crate) fn change(&mut self, id: EntryId, change: impl FnOnce(&mut SyncedEntry)) {
        if let Some(entry) = self.entries.get_mut(&id) {
            change(entry);
            self.changed.insert(id);
        }
    }

    /// Not persisted.
    pub(crate) fn set_local(&mut self, id: EntryId, local: Whereabouts) {
        if let Some(entry) = self.entries.get_mut(&id) {
            self.present -= counts(Some(entry));
            entry.local = local;
            self.present += counts(Some(entry));
        }
    }
}
