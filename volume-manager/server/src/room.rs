//! Why there is less room than the cell has disks for: those that take no new extents, and slots that the trash holds.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_volume_manager_planner::PlacementError;

use crate::inventory::{DiskView, Snapshot};
use crate::keyring::Keyless;
use crate::operate::count;

/// Most disks or nodes that are named for one reason.
const MOST_NAMED: usize = 4;

/// Why a disk takes no new extents, and what to name to say where: the disk, or its node.
fn cause(view: &DiskView) -> Option<(&'static str, String)> {
    if view.takes_new() {
        return None;
    }
    let (disk, node) = (view.disk.info.disk.to_string(), view.disk.info.node.0.clone());
    Some(if view.offline.is_some() {
        ("offline by an operator's order", disk)
    } else if view.leaving {
        ("drained by an operator's order", disk)
    } else if view.cordoned {
        ("on a cordoned node", node)
    } else if let Some(keyless) = view.keyless.as_ref().filter(|_| view.is_well()) {
        (if *keyless == Keyless::Full { "with a full key area" } else { "not taking the keyring" }, disk)
    } else {
        (view.standing.name(), disk)
    })
}

impl DiskView {
    /// Why it takes no new extents, in words; `None` when it does.
    pub fn out_of_use(&self) -> Option<&'static str> {
        cause(self).map(|(why, _)| why)
    }
}

/// Those of the disks that take no new extents, by why: `2 on a cordoned node (node-1, node-2)`.
pub(crate) fn out_of_use<'a>(disks: impl Iterator<Item = &'a DiskView>) -> Vec<String> {
    let mut causes: BTreeMap<&str, (u64, BTreeSet<String>)> = BTreeMap::new();
    for (why, named) in disks.filter_map(cause) {
        let (count, names) = causes.entry(why).or_default();
        *count += 1;
        names.insert(named);
    }
    let say = |(why, (count, names)): (&str, (u64, BTreeSet<String>))| format!("{count} {why} ({})", named(names));
    causes.into_iter().map(say).collect()
}

/// Some of them, and how many more there are.
pub(crate) fn named(names: BTreeSet<String>) -> String {
    let left = names.len().saturating_sub(MOST_NAMED);
    let mut named: Vec<String> = names.into_iter().take(MOST_NAMED).collect();
    named.extend((left > 0).then(|| format!("{left} more")));
    named.join(", ")
}

/// Slots that extents in the trash of disks in use hold, and how many disks those are.
fn in_trash(snapshot: &Snapshot) -> (u64, u64) {
    let held = snapshot.disks.iter().filter(|view| view.takes_new() && view.trashed_extents > 0);
    held.fold((0, 0), |(slots, disks), view| (slots + view.trashed_extents, disks + 1))
}

/// All of it in a sentence or two; empty when every disk takes new extents and no trash holds a slot.
pub(crate) fn reasons(snapshot: &Snapshot) -> String {
    let mut said = String::new();
    let out = out_of_use(snapshot.disks.iter());
    if !out.is_empty() {
        said.push_str(&format!("; of {} disks some take nothing new: {}", snapshot.disks.len(), out.join(", ")));
    }
    let (slots, disks) = in_trash(snapshot);
    if slots > 0 {
        let (slots, disks) = (count(slots, "slot"), count(disks, "disk"));
        said.push_str(&format!("; the trash holds {slots} on {disks} until its retention is over"));
    }
    said
}

/// Why no disks were chosen, with what is behind it.
pub(crate) fn explained(snapshot: &Snapshot, error: &PlacementError) -> String {
    format!("{error}{}", reasons(snapshot))
}
