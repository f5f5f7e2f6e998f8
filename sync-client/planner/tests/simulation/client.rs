//! A client without an engine: runs the planner's operations one by one against a disk in memory and the model server.

use std::collections::BTreeMap;

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, Change, CommitItem, EntryId, Outcome, Parent, Place, Timestamp};
use holdfast_sync_client_planner::outcome::{self, Sent, SentChange, Verdict};
use holdfast_sync_client_planner::{
    Content, LocalId, NodeKind, Operation, Remote, RemoteEntry, Stat, Subject, Synced, SyncedEntry, Target, Trees,
    Whereabouts,
};

use super::disk::{Disk, Path};
use super::reference::Server;

/// What survives a crash.
#[derive(Debug, Default)]
struct Persisted {
    remote: BTreeMap<EntryId, RemoteEntry>,
    synced: BTreeMap<EntryId, SyncedEntry>,
    cursor: Option<u64>,
    next_op: u64,
    pending: Vec<(CommitItem, Sent)>,
}

pub struct Client {
    pub device: u64,
    pub disk: Disk,
    persisted: Persisted,
    trees: Option<Trees>,
    pub conflicts: u64,
    last: Vec<Operation>,
}

/// How the next operations go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// Stop after so many operations.
    pub budget: usize,
    /// Every so many commits the answer is lost; 0 for never.
    pub lose_every: usize,
}

pub fn content_of(id: u64, mtime: u64, executable: bool) -> Content {
    let hash = BlockHash::of(&id.to_be_bytes());
    let mtime = Timestamp { secs: mtime as i64, nanos: 0 };
    Content::File { size: id, blocks: [BlockRef { hash, length: 8 }].into(), mtime, executable }
}

/// The model's blocks are named by content numbers below this.
const MAX_CONTENT: u64 = 4096;

fn content_id(content: &Content) -> u64 {
    match content {
        Content::File { size, .. } if *size < MAX_CONTENT => *size,
        _ => panic!("not a file of this test: {content:?}"),
    }
}

impl Client {
    pub fn new(device: u64) -> Self {
        // Clocks are days apart; nothing may depend on them.
        Self {
            device,
            disk: Disk::new(device * 100_000),
            persisted: Persisted::default(),
            trees: None,
            conflicts: 0,
            last: Vec::new(),
        }
    }

    pub fn crash(&mut self) {
        self.trees = None;
    }

    fn trees(&mut self) -> &mut Trees {
        let persisted = &self.persisted;
        let root = self.disk.stat(&[]).unwrap();
        self.trees.get_or_insert_with(|| {
            let remote = persisted.remote.iter().map(|(id, row)| (*id, row.clone()));
            let synced = persisted.synced.iter().map(|(id, row)| (*id, row.clone()));
            Trees::new(Remote::load(remote, persisted.cursor.unwrap_or(0)), Synced::load(synced), root)
        })
    }

    fn persist(&mut self) {
        let Some(trees) = &mut self.trees else { return };
        let (remote, synced) = trees.take_changed();
        for id in remote {
            match trees.remote().get(id) {
                Some(row) => self.persisted.remote.insert(id, row.clone()),
                None => self.persisted.remote.remove(&id),
            };
        }
        for id in synced {
            match trees.synced().get(id) {
                Some(row) => self.persisted.synced.insert(id, row.clone()),
                None => self.persisted.synced.remove(&id),
            };
        }
    }

    fn scan(&mut self) {
        let mut left = vec![(LocalId::ROOT, Path::new())];
        while let Some((id, path)) = left.pop() {
            let listing = self.disk.list(&path);
            let trees = self.trees();
            trees.observe_folder(id, listing);
            for (name, child) in &trees.local().get(id).unwrap().children {
                if trees.local().get(*child).unwrap().stat.kind == NodeKind::Folder {
                    left.push((*child, path.iter().chain([name]).cloned().collect()));
                }
            }
        }
    }

    fn pull(&mut self, server: &Server) {
        let (entries, sequence) = server.changes(self.persisted.cursor);
        let trees = self.trees();
        trees.apply_remote(&entries);
        trees.finish_pull(sequence);
        self.persisted.cursor = Some(sequence);
        self.persist();
    }

    /// Resends, scans, pulls, plans, runs: at most `budget` operations, `between` before each. Whether all is settled.
    pub fn sync(&mut self, server: &mut Server, trouble: Trouble, mut between: impl FnMut(&mut Disk, usize)) -> bool {
        self.trees();
        for (item, sent) in std::mem::take(&mut self.persisted.pending) {
            let result = server.commit(self.device, std::slice::from_ref(&item)).remove(0);
            outcome::answered(self.trees(), &Sent { local: None, ..sent }, &result.outcome, server.sequence);
            self.persist();
        }
        self.pull(server);
        self.scan();
        self.trees().retry();
        self.trees().retry_faults();
        let operations = self.trees().plan();
        self.persist();
        let mut commits = 0;
        for (step, operation) in operations.iter().enumerate() {
            between(&mut self.disk, step);
            if step >= trouble.budget {
                self.trees().failed(operation);
                continue;
            }
            match self.run(server, operation, trouble, &mut commits) {
                Some(true) => self.trees().done(operation),
                Some(false) => self.trees().failed(operation),
                None => {
                    // The answer is lost and the client with it.
                    self.crash();
                    return false;
                }
            }
            self.persist();
        }
        self.last.clone_from(&operations);
        operations.is_empty() && self.trees().unsettled() == 0
    }

    fn path(&self, local: LocalId) -> Option<Path> {
        let path = self.trees.as_ref()?.local().path(local)?;
        Some(path.into_iter().map(str::to_owned).collect())
    }

    /// The path of a node that is still as the local tree says.
    fn untouched(&self, local: LocalId) -> Option<(Path, Stat)> {
        let path = self.path(local)?;
        let stat = self.disk.stat(&path)?;
        let known = &self.trees.as_ref()?.local().get(local)?.stat;
        known.unchanged(&stat).then_some((path, stat))
    }

    fn present(&self, entry: EntryId) -> Option<LocalId> {
        if entry == EntryId::ROOT {
            return Some(LocalId::ROOT);
        }
        match self.trees.as_ref()?.synced().get(entry)?.local {
            Whereabouts::Present(local) => Some(local),
            _ => None,
        }
    }

    /// None when the process died.
    fn run(
        &mut self,
        server: &mut Server,
        operation: &Operation,
        trouble: Trouble,
        commits: &mut usize,
    ) -> Option<bool> {
        let prepared = match operation {
            Operation::Upload { local, entry, base } => match self.upload(*local, *entry, base.as_deref()) {
                Some(None) => return Some(true),
                Some(Some(prepared)) => Some(prepared),
                None => None,
            },
            Operation::MakeRemoteFolder { local } => self.make_remote_folder(*local),
            Operation::MoveRemote { entry, parent, name } => self.move_remote(*entry, *parent, name),
            Operation::DeleteRemote { entry, known_sequence } => Some((
                Change::Delete { entry: *entry, known_sequence: *known_sequence },
                Sent { change: SentChange::Delete { entry: *entry }, local: None },
            )),
            Operation::Download { entry } => return Some(self.download(*entry).is_some()),
            Operation::SetAttributes { entry } => return Some(self.set_attributes(*entry).is_some()),
            Operation::MakeLocalFolder { entry } => return Some(self.make_local_folder(*entry).is_some()),
            Operation::MoveLocal { entry, to } => return Some(self.move_local(*entry, to).is_some()),
            Operation::DeleteLocal { entry } => return Some(self.delete_local(*entry).is_some()),
        };
        let Some((change, sent)) = prepared else { return Some(false) };
        *commits += 1;
        self.persisted.next_op += 1;
        let item = CommitItem { op: self.persisted.next_op, change };
        self.persisted.pending.push((item.clone(), sent.clone()));
        let mut result = server.commit(self.device, std::slice::from_ref(&item)).remove(0);
        if trouble.lose_every > 0 && commits.is_multiple_of(trouble.lose_every) {
            if commits.is_multiple_of(2) {
                return None;
            }
            result = server.commit(self.device, &[item]).remove(0);
        }
        self.persisted.pending.clear();
        if matches!(result.outcome, Outcome::ConflictCopy { .. }) {
            self.conflicts += 1;
        }
        let verdict = outcome::answered(self.trees(), &sent, &result.outcome, server.sequence);
        Some(matches!(verdict, Verdict::Done { .. }))
    }

    fn upload(&mut self, local: LocalId, entry: Option<EntryId>, base: Option<&str>) -> Option<Option<(Change, Sent)>> {
        let (path, stat) = self.untouched(local)?;
        let file = self.disk.get(&path)?.clone();
        let mtime = Timestamp { secs: file.mtime as i64, nanos: 0 };
        let content = match file.target.clone() {
            Some(target) => Content::Symlink { target, mtime },
            None => content_of(file.content, file.mtime, file.executable),
        };
        let trees = self.trees();
        if let Some(entry) = entry {
            let remote = trees.remote().get(entry).filter(|remote| remote.content == content);
            if let Some(rev) = remote.map(|remote| remote.rev.clone()) {
                outcome::compared(trees, entry, content, Some(&rev), stat, false);
                return Some(None);
            }
            if trees.remote().get(entry).is_some() && trees.synced().get(entry)?.content == content {
                outcome::compared(trees, entry, content, None, stat, false);
                return Some(None);
            }
        }
        let (parent, name) = trees.place_of(local)?;
        let (parent, name) = (parent, name.to_owned());
        let at = match entry {
            Some(entry) => Place::Entry(entry),
            None => Place::Name { parent: Parent::Entry(parent?), name: name.clone() },
        };
        let base = base.map(str::to_owned);
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
        let put = SentChange::Put { entry, name, parent, content, stat, racy: false };
        Some(Some((change, Sent { change: put, local: Some(local) })))
    }

    fn make_remote_folder(&mut self, local: LocalId) -> Option<(Change, Sent)> {
        let (_, stat) = self.untouched(local)?;
        let (parent, name) = self.trees().place_of(local)?;
        let (parent, name) = (parent?, name.to_owned());
        let put = SentChange::Put {
            entry: None,
            name: name.clone(),
            parent: Some(parent),
            content: Content::Folder,
            stat,
            racy: false,
        };
        let change = Change::MakeFolder { parent: Parent::Entry(parent), name };
        Some((change, Sent { change: put, local: Some(local) }))
    }

    fn move_remote(&mut self, entry: EntryId, parent: LocalId, name: &str) -> Option<(Change, Sent)> {
        let local = self.present(entry);
        let parent = self.trees().local().get(parent)?.entry?;
        let change = Change::Move { entry, parent: Parent::Entry(parent), name: name.to_owned() };
        let sent = SentChange::Move { entry, parent: Some(parent), name: name.to_owned() };
        Some((change, Sent { change: sent, local }))
    }

    /// The place of an entry that is not here yet.
    fn new_place(&mut self, entry: EntryId) -> Option<(LocalId, String)> {
        let remote = self.trees().remote().get(entry)?.clone();
        let name = self.trees().remote().shown_name(entry)?.to_owned();
        Some((self.present(remote.parent)?, name))
    }

    fn child_path(&self, folder: LocalId, name: &str) -> Option<Path> {
        let mut path = self.path(folder)?;
        path.push(name.to_owned());
        Some(path)
    }

    fn download(&mut self, entry: EntryId) -> Option<()> {
        let remote = self.trees().remote().get(entry)?.clone();
        let (folder, name) = match self.present(entry) {
            Some(local) => {
                let (path, stat) = self.untouched(local)?;
                if !self.trees().synced().get(entry)?.stat.unchanged(&stat) {
                    return None;
                }
                let node = self.trees().local().get(local)?;
                let place = (node.parent, node.name.clone());
                self.disk.remove(&path);
                place
            }
            None => self.new_place(entry)?,
        };
        let path = self.child_path(folder, &name)?;
        let made = match &remote.content {
            Content::File { mtime, executable, .. } => self.disk.make(&path, NodeKind::File, |file| {
                file.content = content_id(&remote.content);
                (file.mtime, file.executable) = (mtime.secs as u64, *executable);
            }),
            Content::Symlink { target, mtime } => self.disk.make(&path, NodeKind::Symlink, |file| {
                (file.target, file.mtime) = (Some(target.clone()), mtime.secs as u64);
            }),
            Content::Folder => false,
        };
        if !made {
            return None;
        }
        let stat = self.disk.stat(&path)?;
        outcome::written(self.trees(), entry, &remote.rev, remote.content, stat, (folder, &name));
        Some(())
    }

    fn set_attributes(&mut self, entry: EntryId) -> Option<()> {
        let remote = self.trees().remote().get(entry)?.clone();
        let (path, _) = self.untouched(self.present(entry)?)?;
        let Content::File { mtime, executable, .. } = &remote.content else { return None };
        self.disk.change(&path, |file| (file.mtime, file.executable) = (mtime.secs as u64, *executable));
        let stat = self.disk.stat(&path)?;
        let local = self.present(entry)?;
        let node = self.trees().local().get(local)?;
        let (parent, name) = (node.parent, node.name.clone());
        self.trees().observe(parent, &name, Some(stat.clone()));
        outcome::compared(self.trees(), entry, remote.content, Some(&remote.rev), stat, false);
        Some(())
    }

    fn make_local_folder(&mut self, entry: EntryId) -> Option<()> {
        let remote = self.trees().remote().get(entry)?.clone();
        let (folder, name) = self.new_place(entry)?;
        let path = self.child_path(folder, &name)?;
        if !self.disk.make(&path, NodeKind::Folder, |_| {}) {
            return None;
        }
        let stat = self.disk.stat(&path)?;
        outcome::written(self.trees(), entry, &remote.rev, Content::Folder, stat, (folder, &name));
        Some(())
    }

    fn move_local(&mut self, entry: EntryId, to: &Target) -> Option<()> {
        let local = self.present(entry)?;
        let (from, _) = self.untouched(local)?;
        let (folder, name) = match to {
            Target::Place { parent, name } => (self.present(*parent)?, name.clone()),
            Target::Transit { name } => (LocalId::ROOT, name.clone()),
        };
        let path = self.child_path(folder, &name)?;
        if self.disk.get(&path).is_some() || !self.disk.rename(&from, &path) {
            return None;
        }
        let stat = self.disk.stat(&path)?;
        self.trees().relocated(local, folder, &name, stat);
        Some(())
    }

    fn delete_local(&mut self, entry: EntryId) -> Option<()> {
        let local = self.present(entry)?;
        let (path, stat) = self.untouched(local)?;
        if !self.trees().synced().get(entry)?.stat.unchanged(&stat) || !self.disk.list(&path).is_empty() {
            return None;
        }
        self.disk.remove(&path);
        outcome::removed(self.trees(), entry);
        Some(())
    }

    /// What it did last, and its three trees, in a few lines.
    pub fn explain(&mut self) -> String {
        let mut text = format!("client {}: {:?}\n", self.device, self.last);
        let trees = self.trees();
        for (id, row) in trees.remote().iter() {
            let at = (row.parent.0, &row.name, &row.exact_name);
            text += &format!("  remote {} {at:?} {} {:?}\n", id.0, row.rev, row.content.kind());
        }
        for (id, row) in trees.synced().iter() {
            let at = (row.parent.0, &row.name);
            text += &format!("  synced {} {at:?} {} {:?} {:?}\n", id.0, row.rev, row.content.kind(), row.local);
        }
        for id in trees.local().subtree(LocalId::ROOT) {
            let (path, node) = (trees.local().path(id), trees.local().get(id).unwrap());
            text += &format!("  local {} {path:?} {:?} {:?}\n", id.0, node.stat.kind, node.entry);
        }
        let faults: Vec<(Subject, String)> = trees.faults().map(|(at, why)| (at, why.to_owned())).collect();
        text + &format!("  faults: {faults:?}, waiting: {:?}", trees.waiting())
    }
}
