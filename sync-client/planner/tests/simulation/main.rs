//! Three clients, one server, random edits, crashes and lost answers: they end up the same, and nothing is lost.

#![allow(clippy::unwrap_used, clippy::field_reassign_with_default)]

mod client;
mod disk;
#[path = "../reference/mod.rs"]
mod reference;

use std::collections::{BTreeMap, BTreeSet};

use client::{Client, Trouble};
use disk::{Disk, Path};
use holdfast_sync_client_planner::NodeKind;
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof};
use proptest::{prop_assert, proptest};
use reference::{Latitude, Server};

const NAMES: [&str; 5] = ["a", "b", "A", "c", "d"];
const ROUNDS: usize = 60;

/// What a person does to a disk; numbers choose among what is there.
#[derive(Debug, Clone)]
enum Act {
    Create(u8, u8),
    Edit(u8),
    Replace(u8),
    Attributes(u8),
    Link(u8, u8),
    MakeFolder(u8, u8),
    Move(u8, u8, u8),
    Swap(u8, u8),
    Delete(u8),
}

#[derive(Debug, Clone)]
enum Step {
    Act(u8, Act),
    Sync { client: u8, budget: u8, lose_every: u8, crash: bool, meanwhile: Option<(u8, Act)> },
}

/// What was written, and what somebody who had seen it removed.
#[derive(Default)]
struct Oracle {
    last: u64,
    removed: BTreeSet<u64>,
}

fn pick(paths: &[Path], at: u8) -> Option<&Path> {
    (!paths.is_empty()).then(|| &paths[at as usize % paths.len()])
}

fn folder_of(disk: &Disk, at: u8) -> Path {
    let mut folders = vec![Path::new()];
    folders.extend(disk.paths().into_iter().filter(|path| disk.get(path).unwrap().kind == NodeKind::Folder));
    folders[at as usize % folders.len()].clone()
}

fn child(folder: Path, name: u8) -> Path {
    let mut path = folder;
    path.push(NAMES[name as usize % NAMES.len()].to_owned());
    path
}

impl Oracle {
    fn fresh(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Everything at a place and below it is removed on purpose.
    fn remove(&mut self, disk: &Disk, path: &[String]) {
        for below in disk.paths().into_iter().filter(|below| below.starts_with(path)) {
            let file = disk.get(&below).unwrap();
            if file.kind == NodeKind::File {
                self.removed.insert(file.content);
            }
        }
    }

    fn act(&mut self, disk: &mut Disk, act: &Act) {
        let paths = disk.paths();
        let files: Vec<Path> =
            paths.iter().filter(|path| disk.get(path).unwrap().kind == NodeKind::File).cloned().collect();
        match act {
            Act::Create(folder, name) => {
                let path = child(folder_of(disk, *folder), *name);
                let content = self.fresh();
                if !disk.make(&path, NodeKind::File, |file| file.content = content) {
                    self.removed.insert(content);
                }
            }
            Act::Edit(at) => {
                let Some(path) = pick(&files, *at) else { return };
                self.remove(disk, path);
                let (content, now) = (self.fresh(), disk.tick());
                disk.change(path, |file| (file.content, file.mtime) = (content, now));
            }
            Act::Replace(at) => {
                let Some(path) = pick(&files, *at) else { return };
                self.remove(disk, path);
                let content = self.fresh();
                let aside = vec!["editor's".to_owned()];
                disk.make(&aside, NodeKind::File, |file| file.content = content);
                disk.rename(&aside, path);
            }
            Act::Attributes(at) => {
                let Some(path) = pick(&files, *at) else { return };
                let now = disk.tick();
                disk.change(path, |file| (file.executable, file.mtime) = (!file.executable, now));
            }
            Act::Link(folder, name) => {
                let path = child(folder_of(disk, *folder), *name);
                let target = Some(format!("to {folder} {name}"));
                disk.make(&path, NodeKind::Symlink, |file| file.target = target);
            }
            Act::MakeFolder(folder, name) => {
                let path = child(folder_of(disk, *folder), *name);
                disk.make(&path, NodeKind::Folder, |_| {});
            }
            Act::Move(at, folder, name) => {
                let Some(from) = pick(&paths, *at) else { return };
                let to = child(folder_of(disk, *folder), *name);
                let both_files = disk.get(from).unwrap().kind != NodeKind::Folder
                    && disk.get(&to).is_some_and(|file| file.kind != NodeKind::Folder);
                if both_files && *from != to {
                    self.remove(disk, &to);
                }
                disk.rename(from, &to);
            }
            Act::Swap(one, other) => {
                let (Some(one), Some(other)) = (pick(&paths, *one), pick(&paths, *other)) else { return };
                if one.starts_with(other) || other.starts_with(one) {
                    return;
                }
                let aside = vec!["aside".to_owned()];
                disk.rename(one, &aside);
                disk.rename(other, one);
                disk.rename(&aside, other);
            }
            Act::Delete(at) => {
                let Some(path) = pick(&paths, *at) else { return };
                self.remove(disk, path);
                disk.remove(path);
            }
        }
    }
}

type Picture = BTreeMap<Path, (NodeKind, u64, u64, bool, Option<String>)>;

fn picture(disk: &Disk) -> Picture {
    let entry = |path: Path| {
        let file = disk.get(&path).unwrap();
        let mtime = if file.kind == NodeKind::Folder { 0 } else { file.mtime };
        let seen = (file.kind, file.content, mtime, file.executable, file.target.clone());
        (path, seen)
    };
    disk.paths().into_iter().map(entry).collect()
}

/// Syncs all until all are settled; whether that came to an end.
fn settle(clients: &mut [Client], server: &mut Server) -> bool {
    let calm = Trouble { budget: usize::MAX, lose_every: 0 };
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        let settled: Vec<bool> = clients.iter_mut().map(|client| client.sync(server, calm, |_, _| {})).collect();
        quiet = if settled.iter().all(|settled| *settled) { quiet + 1 } else { 0 };
        if quiet == 2 {
            return true;
        }
    }
    false
}

fn run(steps: &[Step], latitude: Latitude) -> Result<(), String> {
    let mut server = Server::default();
    server.latitude = latitude;
    let mut clients: Vec<Client> = (1..=3).map(Client::new).collect();
    let mut oracle = Oracle::default();
    for step in steps {
        match step {
            Step::Act(client, act) => oracle.act(&mut clients[*client as usize % 3].disk, act),
            Step::Sync { client, budget, lose_every, crash, meanwhile } => {
                let client = &mut clients[*client as usize % 3];
                let trouble = Trouble { budget: *budget as usize, lose_every: *lose_every as usize };
                client.sync(&mut server, trouble, |disk, step| {
                    if let Some((at, act)) = meanwhile
                        && step == *at as usize
                    {
                        oracle.act(disk, act);
                    }
                });
                if *crash {
                    client.crash();
                }
            }
        }
    }
    if !settle(&mut clients, &mut server) {
        let states: Vec<String> = clients.iter_mut().map(Client::explain).collect();
        return Err(format!("no end in {ROUNDS} rounds\n{}", states.join("\n====\n")));
    }
    let pictures: Vec<Picture> = clients.iter().map(|client| picture(&client.disk)).collect();
    if pictures[0] != pictures[1] || pictures[0] != pictures[2] {
        let states: Vec<String> = clients.iter_mut().map(Client::explain).collect();
        return Err(format!("the disks differ\n{}", states.join("\n====\n")));
    }
    if server.alive().count() != pictures[0].len() {
        let alive: Vec<_> = server.alive().collect();
        return Err(format!("the server has other entries than the disks: {alive:#?}\n{:#?}", pictures[0]));
    }
    let there: BTreeSet<u64> =
        pictures[0].values().filter(|seen| seen.0 == NodeKind::File).map(|seen| seen.1).collect();
    let lost: Vec<u64> =
        (1..=oracle.last).filter(|content| !there.contains(content) && !oracle.removed.contains(content)).collect();
    if !lost.is_empty() {
        return Err(format!("lost: {lost:?}; there: {:#?}", pictures[0]));
    }
    Ok(())
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(f, n)| Act::Create(f, n)),
        4 => any::<u8>().prop_map(Act::Edit),
        2 => any::<u8>().prop_map(Act::Replace),
        1 => any::<u8>().prop_map(Act::Attributes),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(f, n)| Act::Link(f, n)),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(f, n)| Act::MakeFolder(f, n)),
        4 => (any::<u8>(), any::<u8>(), any::<u8>()).prop_map(|(a, f, n)| Act::Move(a, f, n)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Act::Swap(a, b)),
        2 => any::<u8>().prop_map(Act::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let meanwhile = prop_oneof![3 => Just(None), 1 => (0..6_u8, act()).prop_map(Some)];
    let budget = prop_oneof![Just(u8::MAX), 0..6_u8];
    let lose = prop_oneof![2 => Just(0_u8), 1 => 1..5_u8];
    let sync = (0..3_u8, budget, lose, any::<bool>(), meanwhile).prop_map(|(client, budget, lose_every, c, m)| {
        Step::Sync { client, budget, lose_every, crash: c, meanwhile: m }
    });
    prop_oneof![3 => (0..3_u8, act()).prop_map(|(client, act)| Step::Act(client, act)), 2 => sync]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn clients_end_up_the_same_and_nothing_is_lost(
        steps in vec(step(), 1..60),
        revive_parents: bool,
        tell_all_deleted: bool,
    ) {
        let ended = run(&steps, Latitude { revive_parents, tell_all_deleted });
        prop_assert!(ended.is_ok(), "{}", ended.unwrap_err());
    }
}
