//! Whether what stands on some disks finds a place elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::MoveGroup;
use holdfast_volume_manager_planner::{COPIES, Inventory, InventoryDisk, Spread, choose_move_disk};

use super::{Case, Tally, count, on_disk};
use crate::inventory::Snapshot;
use crate::room;

/// Replicas placed one by one for a plan, with so many disks looked at for each; of more, only the sums are compared.
const MOST_PLACED: usize = 20_000;
const MOST_LOOKED_AT: usize = 20_000_000;

/// Looks at a drain of all these disks at once.
pub(super) fn drain(
    case: &mut Case,
    snapshot: &Snapshot,
    volumes: &[Volume],
    disks: &HashSet<DiskId>,
    less_spread: bool,
) {
    let mut inventory = snapshot.for_moves();
    for disk in inventory.disks.iter_mut().filter(|disk| disks.contains(&disk.disk)) {
        (disk.leaving, disk.eligible) = (true, false);
    }
    let held: Vec<(DiskId, &Volume)> =
        disks.iter().flat_map(|disk| on_disk(volumes, *disk).map(|volume| (*disk, volume))).collect();
    let open = held.iter().filter(|(_, volume)| volume.state != VolumeState::Sealed).count() as u64;
    let bytes: u64 = held.iter().filter_map(|(_, volume)| volume.length).sum();
    let need = held.len() as u64;
    let usable = inventory.disks.iter().filter(|disk| disk.eligible);
    let have: u64 = usable.map(InventoryDisk::free_above_reserve).sum();
    case.number("replicas", need);
    case.number("bytes", bytes);
    case.number("open_volumes", open);
    case.number("slots_needed", need);
    case.number("slots_there", have);
    if open > 0 {
        case.say(format!("{} there are sealed first", count(open, "open volume")));
    }
    domains(case, snapshot, &inventory, &held, less_spread);
    if have < need {
        case.refuse(format!(
            "{} must find a place, and the other disks in service have {} above the reserve that repair needs{}",
            count(need, "replica"),
            count(have, "free slot"),
            room::reasons(snapshot)
        ));
    } else {
        places(case, inventory, &held, &room::reasons(snapshot));
    }
    case.say(match need {
        0 => "nothing has to move".to_owned(),
        _ => format!("{} with {bytes} bytes are copied elsewhere, then given up here", count(need, "replica")),
    });
}

/// Whether enough nodes are left, and what becomes of the spread.
fn domains(case: &mut Case, snapshot: &Snapshot, inventory: &Inventory, held: &[(DiskId, &Volume)], less_spread: bool) {
    let left: Vec<&InventoryDisk> = inventory.disks.iter().filter(|disk| !disk.leaving).collect();
    let nodes: BTreeSet<&NodeId> = left.iter().map(|disk| &disk.node).collect();
    case.number("nodes_needed", COPIES as u64);
    case.number("nodes_left", nodes.len() as u64);
    if nodes.len() < COPIES && !held.is_empty() {
        case.refuse(format!(
            "volumes have {COPIES} replicas on as many nodes, and {} would be left",
            count(nodes.len() as u64, "node")
        ));
    }
    let (before, after) = (snapshot.best_spread(), Spread::best(left.iter().copied()));
    case.number("zones_before", before.zones as u64);
    case.number("zones_after", after.zones as u64);
    if after.zones >= before.zones {
        return;
    }
    let zones = |keep: &dyn Fn(&InventoryDisk) -> bool| -> BTreeSet<String> {
        inventory.disks.iter().filter(|disk| keep(disk)).map(|disk| disk.zone.clone()).collect()
    };
    let (all, stays) = (zones(&|_| true), zones(&|disk| !disk.leaving));
    let gone: Vec<String> = all.difference(&stays).cloned().collect();
    let fewer = held.iter().filter(|(_, volume)| snapshot.spread(&volume.replicas).zones > after.zones).count() as u64;
    case.number("volumes_with_less_spread", fewer);
    let sentence = format!(
        "it takes the last disks of {}: {} that {} over {} zones would stand over {}",
        gone.join(", "),
        count(fewer, "volume"),
        if fewer == 1 { "stands" } else { "stand" },
        before.zones,
        after.zones
    );
    match less_spread {
        true => case.warn(sentence),
        false => case.refuse(format!("{sentence} (--less-spread accepts that)")),
    }
}

/// Places the replicas one by one, as the moves will.
fn places(case: &mut Case, mut inventory: Inventory, held: &[(DiskId, &Volume)], reasons: &str) {
    let most = MOST_PLACED.min(MOST_LOOKED_AT / inventory.disks.len().max(1));
    let mut groups: BTreeMap<(DiskId, NodeId), (String, u64, u64)> = BTreeMap::new();
    let mut failed = Tally::default();
    for (from, volume) in held.iter().take(most) {
        let others: Vec<DiskId> = volume.replicas.iter().copied().filter(|disk| disk != from).collect();
        match choose_move_disk(&inventory, volume.volume, &others, &[]) {
            Ok(to) => {
                inventory.take_slot(to);
                let Some(disk) = inventory.disk(to) else { continue };
                let group = groups.entry((*from, disk.node.clone())).or_insert((disk.zone.clone(), 0, 0));
                group.1 += 1;
                group.2 += volume.length.unwrap_or(0);
            }
            Err(error) => failed.add(error.to_string()),
        }
    }
    if held.len() > most {
        case.warn(format!("of {} replicas {most} were placed one by one for this plan", held.len()));
    }
    case.number("replicas_without_place", failed.0.values().sum());
    for (why, replicas) in failed.0 {
        let all = count(held.len() as u64, "replica");
        case.refuse(format!("{replicas} of {all} would find no place: {why}{reasons}"));
    }
    case.plan.moves = groups
        .into_iter()
        .map(|((from, to), (zone, replicas, bytes))| MoveGroup {
            from,
            to,
            zone,
            reason: "drain".to_owned(),
            replicas,
            bytes,
        })
        .collect();
}
