//! A namespace in memory, as plain as can be: what the rules are tested on.

use std::collections::BTreeMap;
use std::convert::Infallible;

use holdfast_libs_types::{BlockHash, DeviceId};

use crate::{
    Act, Answer, BlockRef, Content, Decision, Editor, EntryId, EntryState, Refusal, Rev, Revision, Spot, SubtreeNode,
    Timestamp, VersionVector, View, Wish, decide, key,
};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub entries: BTreeMap<EntryId, EntryState>,
    pub revisions: BTreeMap<Rev, Revision>,
    pub sequence: u64,
    pub counters: BTreeMap<DeviceId, u64>,
    pub answers: BTreeMap<(DeviceId, u64), Told>,
}

/// What a device is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub answer: Answer,
    /// The entry as asked for; for a conflict the copy.
    pub entry: EntryState,
}

impl View for Tree {
    type Error = Infallible;

    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, Infallible> {
        Ok(self.entries.get(&id).cloned())
    }

    fn revision(&self, rev: Rev) -> Result<Option<Revision>, Infallible> {
        Ok(self.revisions.get(&rev).cloned())
    }

    fn live_by_key(&self, parent: EntryId, wanted: &str) -> Result<Vec<EntryState>, Infallible> {
        let live = self.entries.values().filter(|entry| entry.parent == parent && !entry.deleted);
        Ok(live.filter(|entry| key(&entry.name) == wanted || key(entry.exact_name()) == wanted).cloned().collect())
    }

    fn is_taken(&self, parent: EntryId, wanted: &str) -> Result<bool, Infallible> {
        let mut live = self.entries.values().filter(|entry| entry.parent == parent && !entry.deleted);
        Ok(live.any(|entry| key(&entry.name) == wanted))
    }

    fn deleted_by_key(&self, parent: EntryId, wanted: &str) -> Result<Option<EntryState>, Infallible> {
        let gone = self.entries.values().filter(|entry| entry.parent == parent && entry.deleted);
        Ok(gone.filter(|entry| key(&entry.name) == wanted).max_by_key(|entry| entry.sequence).cloned())
    }

    fn live_below(&self, folder: EntryId) -> Result<Vec<SubtreeNode>, Infallible> {
        let mut nodes = Vec::new();
        let mut open = vec![folder];
        while let Some(above) = open.pop() {
            for entry in self.entries.values().filter(|entry| entry.parent == above && !entry.deleted) {
                open.push(entry.id);
                nodes.push(SubtreeNode {
                    id: entry.id,
                    parent: above,
                    changed: (entry.sequence, entry.device),
                    revised: (entry.revision.sequence, entry.revision.device),
                });
            }
        }
        Ok(nodes)
    }
}

impl Tree {
    pub fn editor(&self, device: DeviceId) -> Editor {
        let counter = self.counters.get(&device).copied().unwrap_or(0) + 1;
        Editor { device, counter, user: format!("user{}", device.0), date: "2026-03-01".to_owned() }
    }

    /// Commits one item; a repeat of an op is answered as the first time.
    pub fn commit(&mut self, device: DeviceId, op: u64, wish: Wish) -> Result<Told, Refusal> {
        if let Some(told) = self.answers.get(&(device, op)) {
            return Ok(told.clone());
        }
        let editor = self.editor(device);
        let Ok(decided) = decide(self, &editor, wish);
        let told = self.carry_out(&editor, decided?);
        self.answers.insert((device, op), told.clone());
        Ok(told)
    }

    pub fn carry_out(&mut self, editor: &Editor, decision: Decision) -> Told {
        let device = editor.device;
        self.counters.insert(device, editor.counter);
        for revival in decision.revive {
            self.place(revival.folder, revival.spot, device);
        }
        if let Some(displaced) = decision.displace {
            self.place(displaced.entry, displaced.spot, device);
        }
        let id = match decision.act {
            Act::Keep(id) => id,
            Act::Create { spot, content, vector } => {
                let id = EntryId(self.entries.len() as u64 + 1);
                self.revise(id, Some(spot), content, vector, device);
                id
            }
            Act::Revise { entry, content, vector, revived_at } => {
                self.revise(entry, revived_at, content, vector, device);
                entry
            }
            Act::Move { entry, spot } => {
                self.place(entry, spot, device);
                entry
            }
            Act::Delete { entry, gone } => {
                for id in gone {
                    self.sequence += 1;
                    let entry = self.entries.get_mut(&id).unwrap();
                    (entry.deleted, entry.sequence, entry.device) = (true, self.sequence, device);
                }
                entry
            }
        };
        self.check();
        Told { answer: decision.answer, entry: self.entries[&id].clone() }
    }

    fn place(&mut self, id: EntryId, spot: Spot, device: DeviceId) {
        self.sequence += 1;
        let entry = self.entries.get_mut(&id).unwrap();
        (entry.parent, entry.name, entry.exact_name) = (spot.parent, spot.name, spot.exact_name);
        (entry.deleted, entry.sequence, entry.device) = (false, self.sequence, device);
    }

    fn revise(&mut self, id: EntryId, spot: Option<Spot>, content: Content, vector: VersionVector, device: DeviceId) {
        self.sequence += 1;
        let rev = Rev(self.revisions.len() as u64 + 1);
        let revision = Revision { rev, entry: id, vector, content, sequence: self.sequence, device, at_ms: 0 };
        self.revisions.insert(rev, revision.clone());
        let (parent, name, exact_name) = match spot {
            Some(spot) => (spot.parent, spot.name, spot.exact_name),
            None => {
                let entry = &self.entries[&id];
                (entry.parent, entry.name.clone(), entry.exact_name.clone())
            }
        };
        let sequence = self.sequence;
        self.entries
            .insert(id, EntryState { id, parent, name, exact_name, deleted: false, sequence, device, revision });
    }

    /// What must always hold.
    fn check(&self) {
        let live: Vec<_> = self.entries.values().filter(|entry| !entry.deleted).collect();
        for entry in &live {
            let above = entry.parent == EntryId::ROOT || !self.entries[&entry.parent].deleted;
            assert!(above, "{} lives in a deleted folder", entry.name);
            let same = live.iter().filter(|other| other.parent == entry.parent && key(&other.name) == key(&entry.name));
            assert_eq!(same.count(), 1, "{} stands twice", entry.name);
        }
    }

    pub fn live(&self, parent: EntryId, name: &str) -> Option<&EntryState> {
        self.entries.values().find(|entry| entry.parent == parent && !entry.deleted && entry.name == name)
    }
}

/// A file whose one block stands for its content.
pub(crate) fn file(content: u8) -> Content {
    let block = BlockRef { hash: BlockHash([content; 32]), length: 1 };
    Content::file(1, vec![block], Timestamp { secs: i64::from(content), nanos: 0 }, false).unwrap()
}
