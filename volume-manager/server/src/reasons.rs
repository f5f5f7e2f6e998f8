//! Reasons of the status that concern the whole cell, or many volumes or disks at once: those are told once, with how many they
//! are.

use std::collections::BTreeMap;

use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_client::{DrainRow, RebuildState, Work};

use crate::drains::of_volumes;
use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::manager::Manager;
use crate::operate::count;

/// Most volumes or disks that a reason names.
const MOST_NAMED: usize = 3;

/// What the catalog does not know, if anything shows that.
pub(crate) fn not_whole(manager: &Manager) -> Option<String> {
    if let Some(why) = &manager.lost {
        let rebuild = manager.rebuild.status();
        let next = match rebuild.state {
            RebuildState::Running => format!(
                "that is under way, {} of {} are looked at; `holdfast admin catalog rebuild --status` tells how far it is",
                rebuild.volumes_done,
                count(rebuild.volumes, "volume")
            ),
            _ => "when all nodes are up, run `holdfast admin catalog rebuild`".to_owned(),
        };
        return Some(format!(
            "the catalog is not whole ({why}); nothing is leased or ordered until it is rebuilt: {next}"
        ));
    }
    let progress = manager.progress();
    let (disks, extents) = (progress.strangers.len() as u64, progress.strangers.values().sum::<u64>());
    (extents > 0).then(|| {
        let (extents, disks) = (count(extents, "extent"), count(disks, "disk"));
        format!(
            "the catalog does not know the volumes of {extents} on {disks}: blocks in them cannot be read; \
             `holdfast admin catalog rebuild` takes them in"
        )
    })
}

/// What is not known yet since this volume manager began to lead. A lost catalog is compared with nothing.
pub(crate) fn settling(manager: &Manager, snapshot: &Snapshot) -> Option<String> {
    if manager.lost.is_some() {
        return None;
    }
    if snapshot.nodes.is_empty() {
        return Some("no node has registered yet".to_owned());
    }
    let awaited = snapshot.nodes.iter().filter(|view| view.is_awaited()).count();
    let progress = manager.progress();
    let is_unaudited = |node: &NodeId| progress.audits.contains_key(node) || progress.auditing.get(node) == Some(&true);
    let up = snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up);
    let unaudited = up.filter(|view| is_unaudited(&view.node.node)).count() as u64;
    let of = snapshot.nodes.len();
    let said = [
        (awaited > 0).then(|| format!("{awaited} of {of} nodes are not heard of yet")),
        (unaudited > 0).then(|| {
            let hold = if unaudited == 1 { "holds" } else { "hold" };
            format!("what {} {hold} is still being compared with the catalog", count(unaudited, "node"))
        }),
    ];
    let said: Vec<String> = said.into_iter().flatten().collect();
    (!said.is_empty()).then(|| said.join(", and "))
}

/// Work that waits.
pub(crate) fn waiting(manager: &Manager) -> Vec<String> {
    let progress = manager.progress();
    let waits = |work: &Work| work.detail.strip_prefix("waits: ").map(str::to_owned);
    let claimed = progress.work.values().filter_map(|work| Some((work.kind.as_str(), waits(work)?, work.volume)));
    let blocked = progress.blocked.iter().filter(|(volume, _)| !progress.work.contains_key(volume));
    let blocked = blocked.map(|(volume, why)| ("repair", why.clone(), *volume));
    let all = claimed.chain(blocked).map(|(kind, why, volume)| ((kind, why), volume));
    let say = |((kind, why), number, named): ((&str, String), u64, String)| match number {
        1 => format!("volume {named}: {kind} waits: {why}"),
        _ => format!("{number} volumes: {kind} waits: {why} ({named})"),
    };
    grouped(all).into_iter().map(say).collect()
}

/// Extents that a disk does not give up though no list names them.
pub(crate) fn refused(manager: &Manager) -> Vec<String> {
    let progress = manager.progress();
    let all = progress.refused.iter().map(|((volume, disk), why)| ((*disk, why.as_str()), *volume));
    let say = |((disk, why), number, named): ((DiskId, &str), u64, String)| match number {
        1 => format!("disk {disk} does not give up its extent of volume {named}, which no list names: {why}"),
        _ => format!(
            "disk {disk} does not give up its extents of {number} volumes, which no list names: {why} ({named})"
        ),
    };
    grouped(all).into_iter().map(say).collect()
}

/// What drains wait for. Those that wait for the same are one reason, with how many volumes wait for it on all of their disks.
pub(crate) fn standing_drains(drains: &[DrainRow]) -> Vec<String> {
    let standing =
        || drains.iter().filter(|row| row.left > 0).flat_map(|row| row.waiting.iter().map(move |wait| (row, wait)));
    let mut volumes: BTreeMap<&str, u64> = BTreeMap::new();
    standing().for_each(|(_, wait)| *volumes.entry(&wait.why).or_default() += wait.volumes);
    let say = |(why, number, named): (&str, u64, String)| {
        let what = of_volumes(why, volumes.get(why).copied().unwrap_or(0));
        match number {
            1 => format!("the drain of disk {named} waits: {what}"),
            _ => format!("the drains of {number} disks ({named}) wait: {what}"),
        }
    };
    grouped(standing().map(|(row, wait)| (wait.why.as_str(), row.disk))).into_iter().map(say).collect()
}

/// Brings together those of which the same is to be said: it, how many they are, and the first few by their ids.
fn grouped<K: Ord, T: ToString>(all: impl Iterator<Item = (K, T)>) -> Vec<(K, u64, String)> {
    let mut groups: BTreeMap<K, (u64, Vec<String>)> = BTreeMap::new();
    for (said, of) in all {
        let (number, named) = groups.entry(said).or_default();
        *number += 1;
        if named.len() < MOST_NAMED {
            named.push(of.to_string());
        }
    }
    let group = |(said, (number, named)): (K, (u64, Vec<String>))| {
        let more = match number - named.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (said, number, named.join(", ") + &more)
    };
    groups.into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, NodeId};
    use holdfast_volume_manager_client::{DrainRow, DrainWait};

    use super::{grouped, standing_drains};

    #[test]
    fn those_of_which_the_same_is_said_are_counted_and_the_first_of_them_named() {
        let all = (1..=1006).map(|number| (if number % 3 == 0 { "no disk" } else { "a disk" }, number));
        let expected =
            [("a disk", 671, "1, 2, 4 and 668 more".to_owned()), ("no disk", 335, "3, 6, 9 and 332 more".to_owned())];
        assert_eq!(grouped(all), expected);
        assert_eq!(grouped([("a disk", 7)].into_iter()), [("a disk", 1, "7".to_owned())]);
    }

    #[test]
    fn drains_of_several_disks_that_wait_for_the_same_are_one_reason_however_many_volumes_each_has() {
        let row = |id: u8, left: u64, waiting: &[(&str, u64)]| DrainRow {
            disk: DiskId([id; 16]),
            node: NodeId("node-1".to_owned()),
            since_ms: 0,
            left,
            left_bytes: 0,
            moving: 0,
            waits: Vec::new(),
            waiting: waiting
                .iter()
                .map(|(why, volumes)| DrainWait { why: (*why).to_owned(), volumes: *volumes })
                .collect(),
            eta_s: None,
        };
        let [a, b] = [1, 2].map(|id| DiskId([id; 16]));
        let repairs = [("repairs come first", 0)];
        let one = format!("the drain of disk {a} waits: repairs come first");
        assert_eq!(standing_drains(&[row(1, 3, &repairs), row(2, 0, &repairs)]), [one], "the other one is done");
        let both = format!("the drains of 2 disks ({a}, {b}) wait: repairs come first");
        assert_eq!(standing_drains(&[row(1, 3, &repairs), row(2, 1, &repairs)]), [both]);
        let said = standing_drains(&[row(1, 3, &[("no place", 3)]), row(2, 5, &[("no place", 4), ("it is open", 1)])]);
        let open = format!("the drain of disk {b} waits: 1 volume: it is open");
        assert_eq!(said, [open, format!("the drains of 2 disks ({a}, {b}) wait: 7 volumes: no place")]);
    }
}
