//! A tiny model of the metadata server: the tables of `docs/protocols.md` ("Metadata") and nothing else.

#![allow(dead_code, clippy::unwrap_used, clippy::result_large_err)]

use std::collections::{BTreeMap, BTreeSet};

use holdfast_metadata_client::{
    BlockRef, Change, CommitItem, Entry, EntryId, ItemResult, Kind, Outcome, Parent, Place, Timestamp, code,
};

/// What the protocol leaves open; clients must live with either.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latitude {
    /// A put into a deleted folder revives it, instead of `not_found`.
    pub revive_parents: bool,
    /// The deletion of a folder is told for all below it, instead of for the folder alone.
    pub tell_all_deleted: bool,
}

type Vector = BTreeMap<u64, u64>;

#[derive(Debug, Clone)]
struct Row {
    entry: Entry,
    vector: Vector,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Body {
    kind: Kind,
    size: u64,
    blocks: Vec<BlockRef>,
    mtime: Option<Timestamp>,
    executable: bool,
    target: Option<String>,
}

impl Body {
    fn of(entry: &Entry) -> Self {
        Self {
            kind: entry.kind,
            size: entry.size,
            blocks: entry.blocks.clone(),
            mtime: entry.mtime,
            executable: entry.executable,
            target: entry.target.clone(),
        }
    }

    fn equal(&self, other: &Self) -> bool {
        (self.kind, &self.blocks, &self.target) == (other.kind, &other.blocks, &other.target)
    }
}

#[derive(Debug, Default)]
pub struct Server {
    rows: BTreeMap<u64, Row>,
    children: BTreeMap<u64, BTreeSet<u64>>,
    revs: BTreeMap<String, (u64, Vector)>,
    answers: BTreeMap<(u64, u64), ItemResult>,
    pub sequence: u64,
    last_entry: u64,
    last_rev: u64,
    pub latitude: Latitude,
    pub commits: u64,
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused { code: code.to_owned(), message: code.to_owned(), missing: Vec::new() }
}

fn key(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).collect()
}

fn descends(one: &Vector, other: &Vector) -> bool {
    other.iter().all(|(device, count)| one.get(device).unwrap_or(&0) >= count)
}

fn join(one: &Vector, other: &Vector) -> Vector {
    let mut all = one.clone();
    for (device, count) in other {
        let known = all.entry(*device).or_default();
        *known = (*known).max(*count);
    }
    all
}

impl Server {
    /// Commits a batch of a device: each item with its own result, a repeat answered as the first time.
    pub fn commit(&mut self, device: u64, items: &[CommitItem]) -> Vec<ItemResult> {
        self.commits += 1;
        let mut results = Vec::new();
        for item in items {
            let known = self.answers.get(&(device, item.op)).cloned();
            let result = known.unwrap_or_else(|| ItemResult { op: item.op, outcome: self.decide(device, item) });
            self.answers.insert((device, item.op), result.clone());
            results.push(result);
        }
        results
    }

    /// Everything that changed after `since`, deleted entries included, and the sequence it is complete up to.
    pub fn changes(&self, since: Option<u64>) -> (Vec<Entry>, u64) {
        let new = |row: &&Row| since.map_or(!row.entry.deleted, |since| row.entry.sequence > since);
        let mut entries: Vec<_> = self.rows.values().filter(new).map(|row| row.entry.clone()).collect();
        entries.sort_by_key(|entry| entry.sequence);
        (entries, self.sequence)
    }

    /// All entries that exist.
    pub fn alive(&self) -> impl Iterator<Item = &Entry> {
        self.rows.values().map(|row| &row.entry).filter(|entry| !entry.deleted)
    }

    /// Puts an entry as it is, whatever it says: for a hostile server.
    pub fn plant(&mut self, mut entry: Entry) {
        entry.sequence = self.next_sequence();
        self.last_entry = self.last_entry.max(entry.id.0);
        self.children.entry(entry.parent.0).or_default().insert(entry.id.0);
        self.rows.insert(entry.id.0, Row { entry, vector: Vector::new() });
    }

    fn decide(&mut self, device: u64, item: &CommitItem) -> Outcome {
        match &item.change {
            Change::PutFile { at, base, size, blocks, mtime, executable } => {
                let body = Body {
                    kind: Kind::File,
                    size: *size,
                    blocks: blocks.clone(),
                    mtime: Some(*mtime),
                    executable: *executable,
                    target: None,
                };
                self.put(device, item.op, at, base.as_deref(), body)
            }
            Change::PutSymlink { at, base, target, mtime } => {
                let body = Body {
                    kind: Kind::Symlink,
                    size: 0,
                    blocks: Vec::new(),
                    mtime: Some(*mtime),
                    executable: false,
                    target: Some(target.clone()),
                };
                self.put(device, item.op, at, base.as_deref(), body)
            }
            Change::MakeFolder { parent, name } => self.make_folder(device, item.op, *parent, name),
            Change::Move { entry, parent, name } => self.relocate(device, *entry, *parent, name),
            Change::Delete { entry, known_sequence } => self.delete(*entry, *known_sequence),
        }
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    fn folder(&mut self, device: u64, parent: Parent) -> Result<u64, Outcome> {
        let id = match parent {
            Parent::Entry(id) => id.0,
            Parent::Op(op) => match self.answers.get(&(device, op)).map(|answer| &answer.outcome) {
                Some(Outcome::Applied { entry } | Outcome::Merged { entry }) => entry.id.0,
                _ => return Err(refused(code::NOT_FOUND)),
            },
        };
        self.folder_by_id(id)
    }

    fn folder_by_id(&mut self, id: u64) -> Result<u64, Outcome> {
        if id == 0 {
            return Ok(0);
        }
        match self.rows.get(&id) {
            Some(row) if row.entry.kind != Kind::Folder => Err(refused(code::NOT_FOUND)),
            Some(row) if !row.entry.deleted => Ok(id),
            Some(_) if self.latitude.revive_parents => {
                self.revive(id);
                Ok(id)
            }
            _ => Err(refused(code::NOT_FOUND)),
        }
    }

    /// Brings a deleted entry back, with the folders above it.
    fn revive(&mut self, id: u64) {
        let Some(row) = self.rows.get(&id).filter(|row| row.entry.deleted) else { return };
        let (parent, name) = (row.entry.parent.0, row.entry.name.clone());
        self.revive(parent);
        let name = if self.key_taken(parent, &name, Some(id)) { self.copy_name(parent, &name) } else { name };
        let sequence = self.next_sequence();
        let row = self.rows.get_mut(&id).unwrap();
        if row.entry.name != name {
            row.entry.exact_name = None;
        }
        (row.entry.deleted, row.entry.sequence, row.entry.name) = (false, sequence, name);
        // Whoever did not hear of the folder's deletion has to hear what went with it and does not come back.
        let below: Vec<u64> = self
            .rows
            .values()
            .filter(|row| row.entry.deleted && row.entry.parent.0 == id)
            .map(|row| row.entry.id.0)
            .collect();
        for below in below {
            self.tell(below);
        }
    }

    fn tell(&mut self, id: u64) {
        let sequence = self.next_sequence();
        self.rows.get_mut(&id).unwrap().entry.sequence = sequence;
        let below: Vec<u64> = self
            .rows
            .values()
            .filter(|row| row.entry.deleted && row.entry.parent.0 == id)
            .map(|row| row.entry.id.0)
            .collect();
        for below in below {
            self.tell(below);
        }
    }

    fn siblings(&self, parent: u64) -> impl Iterator<Item = &Entry> {
        let children = self.children.get(&parent).into_iter().flatten();
        children.map(|id| &self.rows[id].entry).filter(|entry| !entry.deleted)
    }

    fn key_taken(&self, parent: u64, name: &str, but: Option<u64>) -> bool {
        self.siblings(parent).any(|entry| Some(entry.id.0) != but && key(&entry.name) == key(name))
    }

    fn exact(&self, parent: u64, name: &str) -> Option<u64> {
        self.siblings(parent)
            .find(|entry| entry.exact_name.as_deref().unwrap_or(&entry.name) == name)
            .map(|entry| entry.id.0)
    }

    fn copy_name(&self, parent: u64, name: &str) -> String {
        self.free_name(parent, &format!("{name} (conflicted copy)"))
    }

    fn free_name(&self, parent: u64, name: &str) -> String {
        (1..)
            .map(|n| if n == 1 { name.to_owned() } else { format!("{name} ({n})") })
            .find(|name| !self.key_taken(parent, name, None))
            .unwrap()
    }

    fn create(&mut self, parent: u64, name: String, exact_name: Option<String>, body: Body, vector: Vector) -> Entry {
        self.last_entry += 1;
        let id = self.last_entry;
        let entry = Entry {
            id: EntryId(id),
            parent: EntryId(parent),
            name,
            exact_name,
            kind: body.kind,
            rev: String::new(),
            sequence: 0,
            deleted: false,
            size: 0,
            blocks: Vec::new(),
            mtime: None,
            executable: false,
            target: None,
        };
        self.children.entry(parent).or_default().insert(id);
        self.rows.insert(id, Row { entry, vector: Vector::new() });
        self.write(id, body, vector)
    }

    fn write(&mut self, id: u64, body: Body, vector: Vector) -> Entry {
        self.last_rev += 1;
        let rev = format!("{:09x}", self.last_rev);
        self.revs.insert(rev.clone(), (id, vector.clone()));
        let sequence = self.next_sequence();
        let row = self.rows.get_mut(&id).unwrap();
        row.vector = vector;
        let entry = &mut row.entry;
        (entry.rev, entry.sequence) = (rev, sequence);
        (entry.kind, entry.size, entry.blocks) = (body.kind, body.size, body.blocks);
        (entry.mtime, entry.executable, entry.target) = (body.mtime, body.executable, body.target);
        entry.clone()
    }

    fn put(&mut self, device: u64, op: u64, at: &Place, base: Option<&str>, body: Body) -> Outcome {
        let mut vector = base.and_then(|base| self.revs.get(base)).map(|rev| rev.1.clone()).unwrap_or_default();
        vector.insert(device, op);
        let id = match at {
            Place::Entry(id) => match self.rows.get(&id.0) {
                Some(_) => id.0,
                None => return refused(code::NOT_FOUND),
            },
            Place::Name { parent, name } => {
                let parent = match self.folder(device, *parent) {
                    Ok(parent) => parent,
                    Err(refused) => return refused,
                };
                match self.exact(parent, name) {
                    Some(id) => id,
                    None if self.key_taken(parent, name, None) => {
                        let stored = self.free_name(parent, &format!("{name} (case conflict)"));
                        let entry = self.create(parent, stored, Some(name.clone()), body, vector);
                        return Outcome::Applied { entry };
                    }
                    None => return Outcome::Applied { entry: self.create(parent, name.clone(), None, body, vector) },
                }
            }
        };
        self.put_onto(id, body, vector)
    }

    fn put_onto(&mut self, id: u64, body: Body, vector: Vector) -> Outcome {
        let current = self.rows[&id].clone();
        if current.entry.deleted {
            self.revive(id);
            let joined = join(&vector, &current.vector);
            return Outcome::Applied { entry: self.write(id, body, joined) };
        }
        if current.entry.kind != Kind::Folder {
            // The item's own count does not make it a descendant.
            if descends(&vector, &current.vector) {
                return Outcome::Applied { entry: self.write(id, body, vector) };
            }
            if body.equal(&Body::of(&current.entry)) {
                let joined = join(&vector, &current.vector);
                return Outcome::Merged { entry: self.write(id, Body::of(&current.entry), joined) };
            }
        }
        let parent = current.entry.parent.0;
        let name = self.copy_name(parent, &current.entry.name);
        let copy = self.create(parent, name, None, body, vector);
        Outcome::ConflictCopy { entry: self.rows[&id].entry.clone(), copy }
    }

    fn make_folder(&mut self, device: u64, op: u64, parent: Parent, name: &str) -> Outcome {
        let parent = match self.folder(device, parent) {
            Ok(parent) => parent,
            Err(refused) => return refused,
        };
        let body =
            Body { kind: Kind::Folder, size: 0, blocks: Vec::new(), mtime: None, executable: false, target: None };
        let vector = Vector::from([(device, op)]);
        if let Some(there) = self.exact(parent, name) {
            let entry = self.rows[&there].entry.clone();
            if entry.kind == Kind::Folder {
                return Outcome::Applied { entry };
            }
            // The file becomes the copy.
            let copy = self.copy_name(parent, &entry.name);
            let sequence = self.next_sequence();
            let row = self.rows.get_mut(&there).unwrap();
            (row.entry.name, row.entry.exact_name, row.entry.sequence) = (copy, None, sequence);
        }
        let taken = self.key_taken(parent, name, None);
        let stored = if taken { self.free_name(parent, &format!("{name} (case conflict)")) } else { name.to_owned() };
        let exact = taken.then(|| name.to_owned());
        Outcome::Applied { entry: self.create(parent, stored, exact, body, vector) }
    }

    fn relocate(&mut self, device: u64, id: EntryId, parent: Parent, name: &str) -> Outcome {
        if self.rows.get(&id.0).is_none_or(|row| row.entry.deleted) {
            return refused(code::NOT_FOUND);
        }
        let parent = match self.folder(device, parent) {
            Ok(parent) => parent,
            Err(refused) => return refused,
        };
        let mut above = parent;
        while above != 0 {
            if above == id.0 {
                return refused(code::CYCLE);
            }
            above = self.rows[&above].entry.parent.0;
        }
        let exact_taken = self.exact(parent, name).is_some_and(|other| other != id.0);
        let (stored, exact) = if exact_taken {
            (self.copy_name(parent, name), None)
        } else if self.key_taken(parent, name, Some(id.0)) {
            (self.free_name(parent, &format!("{name} (case conflict)")), Some(name.to_owned()))
        } else {
            (name.to_owned(), None)
        };
        let sequence = self.next_sequence();
        let row = self.rows.get_mut(&id.0).unwrap();
        self.children.get_mut(&row.entry.parent.0).unwrap().remove(&id.0);
        self.children.entry(parent).or_default().insert(id.0);
        row.entry.parent = EntryId(parent);
        (row.entry.name, row.entry.exact_name, row.entry.sequence) = (stored, exact, sequence);
        Outcome::Applied { entry: row.entry.clone() }
    }

    fn delete(&mut self, id: EntryId, known: u64) -> Outcome {
        if self.rows.get(&id.0).is_none_or(|row| row.entry.deleted) {
            return refused(code::NOT_FOUND);
        }
        self.delete_below(id.0, known, true);
        Outcome::Applied { entry: self.rows[&id.0].entry.clone() }
    }

    fn delete_below(&mut self, id: u64, known: u64, top: bool) -> bool {
        let children: Vec<u64> = self.siblings(id).map(|entry| entry.id.0).collect();
        let mut all = true;
        let mut silent = Vec::new();
        for child in children {
            let gone = self.delete_below(child, known, false);
            all &= gone;
            silent.push(child);
        }
        let gone = all && self.rows[&id].entry.sequence <= known;
        // Below a folder that survives every deletion has to be told.
        if !gone && !self.latitude.tell_all_deleted {
            for child in silent {
                if self.rows[&child].entry.deleted {
                    let sequence = self.next_sequence();
                    self.rows.get_mut(&child).unwrap().entry.sequence = sequence;
                }
            }
        }
        if gone {
            let tell = top || self.latitude.tell_all_deleted;
            let sequence = if tell { self.next_sequence() } else { self.rows[&id].entry.sequence };
            let row = self.rows.get_mut(&id).unwrap();
            (row.entry.deleted, row.entry.sequence) = (true, sequence);
        }
        gone
    }
}
