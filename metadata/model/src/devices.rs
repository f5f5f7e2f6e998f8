//! Three devices edit one namespace, in any order, with answers lost on the way and commits repeated.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_libs_types::DeviceId;
use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::memory::{Told, Tree, file};
use crate::{Answer, EntryId, EntryState, Location, Rev, Wish};

const NAMES: [&str; 3] = ["a.txt", "b.txt", "A.txt"];

#[derive(Debug, Clone)]
enum Step {
    /// Edits what it knows under a name, or makes it; the answer may be lost, and is asked for again.
    Edit {
        device: usize,
        name: usize,
        content: u8,
        lost: usize,
    },
    Delete {
        device: usize,
        name: usize,
        lost: usize,
    },
    Pull {
        device: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0_usize..3;
    let name = 0..NAMES.len();
    prop_oneof![
        5 => (device.clone(), name.clone(), 0_u8..6, 0_usize..3)
            .prop_map(|(device, name, content, lost)| Step::Edit { device, name, content, lost }),
        1 => (device.clone(), name, 0_usize..2).prop_map(|(device, name, lost)| Step::Delete { device, name, lost }),
        3 => (device, Just(())).prop_map(|(device, ())| Step::Pull { device }),
    ]
}

/// What a device knows: the entry, and which revision of it.
#[derive(Debug, Clone, Default)]
struct Device {
    id: DeviceId,
    op: u64,
    known: BTreeMap<String, (EntryId, Rev)>,
    sequence: u64,
}

#[derive(Default)]
struct World {
    tree: Tree,
    devices: Vec<Device>,
    committed: BTreeSet<u8>,
}

impl World {
    fn new() -> Self {
        let devices = (1..=3).map(|id| Device { id: DeviceId(id), ..Device::default() }).collect();
        Self { devices, ..Self::default() }
    }

    /// Commits, then repeats the commit for each lost answer.
    fn commit(&mut self, device: usize, wish: Wish, lost: usize) -> Told {
        self.devices[device].op += 1;
        let Device { id, op, .. } = self.devices[device];
        let told = self.tree.commit(id, op, wish.clone()).unwrap();
        let after = self.tree.clone();
        for _ in 0..lost {
            assert_eq!(self.tree.commit(id, op, wish.clone()), Ok(told.clone()));
            assert_eq!(self.tree, after, "a repeat changes nothing");
        }
        told
    }

    fn edit(&mut self, device: usize, name: &str, content: u8, lost: usize) {
        let known = self.devices[device].known.get(name).copied();
        let before = known.and_then(|(id, _)| self.tree.entries.get(&id)).cloned();
        let at = match known {
            Some((id, _)) => Location::Entry(id),
            None => Location::Name { parent: EntryId::ROOT, name: name.to_owned() },
        };
        let unseen = known.is_none().then(|| self.exactly(name)).flatten();
        let wish = Wish::Put { at, base: known.map(|(_, rev)| rev), content: file(content) };
        let told = self.commit(device, wish, lost);
        self.committed.insert(content);
        let expected = match (before.or(unseen), known) {
            (None, _) => Answer::Applied,
            (Some(current), _) if current.deleted => Answer::Applied,
            (Some(current), known) => {
                let newest = known.is_some_and(|(_, rev)| rev == current.revision.rev);
                match (newest, current.revision.content == file(content)) {
                    (true, true) => Answer::Merged,
                    (true, false) => Answer::Applied,
                    (false, true) => Answer::Merged,
                    (false, false) => Answer::ConflictCopy(current.id),
                }
            }
        };
        assert_eq!(told.answer, expected, "edit of {name} by device {device}");
        let known = match told.answer {
            Answer::ConflictCopy(_) => return,
            Answer::Applied | Answer::Merged => (told.entry.id, told.entry.revision.rev),
        };
        self.devices[device].known.insert(name.to_owned(), known);
    }

    fn exactly(&self, name: &str) -> Option<EntryState> {
        self.tree.entries.values().find(|entry| !entry.deleted && entry.exact_name() == name).cloned()
    }

    fn delete(&mut self, device: usize, name: &str, lost: usize) {
        let known_sequence = self.devices[device].sequence;
        let Some((entry, rev)) = self.devices[device].known.remove(name) else { return };
        let before = self.tree.entries[&entry].clone();
        let told = self.commit(device, Wish::Delete { entry, known_sequence }, lost);
        let unseen = before.revision.rev != rev && before.revision.device != self.devices[device].id;
        if unseen && !before.deleted {
            assert!(!told.entry.deleted, "an edit that the device did not know of survives its delete");
        }
    }

    fn pull(&mut self, device: usize) {
        let live = self.tree.entries.values().filter(|entry| !entry.deleted);
        let known = live.map(|entry| (entry.exact_name().to_owned(), (entry.id, entry.revision.rev))).collect();
        self.devices[device].known = known;
        self.devices[device].sequence = self.tree.sequence;
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Edit { device, name, content, lost } => self.edit(*device, NAMES[*name], *content, *lost),
                Step::Delete { device, name, lost } => self.delete(*device, NAMES[*name], *lost),
                Step::Pull { device } => self.pull(*device),
            }
        }
    }

    fn contents(&self) -> BTreeSet<Vec<u8>> {
        self.tree.revisions.values().map(|revision| revision.content.encode_blocks()).collect()
    }
}

proptest! {
    /// Descendant edits never conflict, concurrent ones do (checked at every edit), repeats change nothing (checked at
    /// every commit), and every content ever committed stays in a revision.
    #[test]
    fn three_devices_lose_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        world.run(&steps);
        let contents = world.contents();
        for content in &world.committed {
            prop_assert!(contents.contains(&file(*content).encode_blocks()), "content {content} is lost");
        }
        for entry in world.tree.entries.values() {
            prop_assert_eq!(&world.tree.revisions[&entry.revision.rev], &entry.revision);
        }
    }
}
