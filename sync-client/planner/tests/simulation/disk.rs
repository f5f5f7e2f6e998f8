//! A disk in memory: names, inodes whose numbers are reused, and times that only grow.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_metadata_client::Timestamp;
use holdfast_sync_client_planner::{Inode, NodeKind, Stat};

#[derive(Debug, Clone)]
pub struct File {
    pub kind: NodeKind,
    pub content: u64,
    pub mtime: u64,
    pub executable: bool,
    pub target: Option<String>,
    ctime: u64,
    birth: u64,
    pub children: BTreeMap<String, u64>,
}

pub type Path = Vec<String>;

#[derive(Debug, Clone)]
pub struct Disk {
    files: BTreeMap<u64, File>,
    free: BTreeSet<u64>,
    clock: u64,
}

const ROOT: u64 = 1;

fn time(at: u64) -> Timestamp {
    Timestamp { secs: at as i64, nanos: 0 }
}

impl Disk {
    pub fn new(clock: u64) -> Self {
        let mut disk = Self { files: BTreeMap::new(), free: BTreeSet::new(), clock };
        disk.files.insert(ROOT, disk.blank(NodeKind::Folder));
        disk
    }

    fn blank(&self, kind: NodeKind) -> File {
        let at = self.clock;
        let children = BTreeMap::new();
        File { kind, content: 0, mtime: at, executable: false, target: None, ctime: at, birth: at, children }
    }

    pub fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub fn find(&self, path: &[String]) -> Option<u64> {
        let mut at = ROOT;
        for name in path {
            at = *self.files.get(&at)?.children.get(name)?;
        }
        Some(at)
    }

    pub fn get(&self, path: &[String]) -> Option<&File> {
        self.files.get(&self.find(path)?)
    }

    pub fn stat(&self, path: &[String]) -> Option<Stat> {
        let number = self.find(path)?;
        let file = &self.files[&number];
        Some(Stat {
            kind: file.kind,
            inode: Inode { number, birth: Some(time(file.birth)) },
            size: file.content,
            mtime: time(file.mtime),
            ctime: time(file.ctime),
            executable: file.executable,
            target: file.target.clone(),
        })
    }

    pub fn list(&self, path: &[String]) -> Vec<(String, Stat)> {
        let Some(folder) = self.get(path) else { return Vec::new() };
        let stat = |name: &String| {
            let path: Path = path.iter().chain([name]).cloned().collect();
            (name.clone(), self.stat(&path).unwrap())
        };
        folder.children.keys().map(stat).collect()
    }

    /// All places below the root, folders before what is in them.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = vec![Path::new()];
        let mut next = 0;
        while next < found.len() {
            let path = found[next].clone();
            for name in self.get(&path).unwrap().children.keys() {
                found.push(path.iter().chain([name]).cloned().collect());
            }
            next += 1;
        }
        found.remove(0);
        found
    }

    /// Makes something at a free place; whether it was free and its folder there.
    pub fn make(&mut self, path: &[String], kind: NodeKind, fill: impl FnOnce(&mut File)) -> bool {
        let Some((name, folder)) = path.split_last() else { return false };
        let Some(parent) = self.find(folder) else { return false };
        if self.files[&parent].kind != NodeKind::Folder || self.files[&parent].children.contains_key(name) {
            return false;
        }
        self.tick();
        let mut file = self.blank(kind);
        fill(&mut file);
        let number = self.free.pop_first().unwrap_or_else(|| self.files.keys().max().unwrap() + 1);
        self.files.insert(number, file);
        self.files.get_mut(&parent).unwrap().children.insert(name.clone(), number);
        true
    }

    /// Changes a file in place; its change time moves.
    pub fn change(&mut self, path: &[String], change: impl FnOnce(&mut File)) {
        let at = self.tick();
        if let Some(number) = self.find(path) {
            let file = self.files.get_mut(&number).unwrap();
            change(file);
            file.ctime = at;
        }
    }

    /// Renames; replaces a file or link at the target. Whether it could.
    pub fn rename(&mut self, from: &[String], to: &[String]) -> bool {
        if from == to || to.starts_with(from) {
            return false;
        }
        let (Some(number), Some((name, folder))) = (self.find(from), to.split_last()) else { return false };
        let Some(parent) = self.find(folder).filter(|parent| self.files[parent].kind == NodeKind::Folder) else {
            return false;
        };
        if let Some(there) = self.get(to) {
            if there.kind == NodeKind::Folder || self.files[&number].kind == NodeKind::Folder {
                return false;
            }
            self.remove(to);
        }
        let at = self.tick();
        let (old_name, old_folder) = from.split_last().unwrap();
        let old_parent = self.find(old_folder).unwrap();
        self.files.get_mut(&old_parent).unwrap().children.remove(old_name);
        self.files.get_mut(&parent).unwrap().children.insert(name.clone(), number);
        self.files.get_mut(&number).unwrap().ctime = at;
        true
    }

    /// Removes something with all below it.
    pub fn remove(&mut self, path: &[String]) {
        let (Some(number), Some((name, folder))) = (self.find(path), path.split_last()) else { return };
        let parent = self.find(folder).unwrap();
        self.files.get_mut(&parent).unwrap().children.remove(name);
        let mut left = vec![number];
        while let Some(number) = left.pop() {
            let file = self.files.remove(&number).unwrap();
            left.extend(file.children.values());
            self.free.insert(number);
        }
        self.tick();
    }
}
