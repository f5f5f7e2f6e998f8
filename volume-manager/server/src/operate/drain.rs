//! Whether what stands on some disks finds a place elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use holdfast_libs_types::{DiskId, NodeId, VolumeId, told};
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{MoveGroup, Order};
use holdfast_volume_manager_planner::{Barred, COPIES, Inventory, InventoryDisk, Spread};

use super::{Case, Tally, count, is, is_hollow};
use crate::intents::Drain;
use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::moves::place_off;
use crate::room;

/// Replicas placed one by one for a plan, with so many disks looked at for each; of more, only the sums are compared.
const MOST_PLACED: usize = 20_000;
const MOST_LOOKED_AT: usize = 20_000_000;

/// Looks at a drain of all these disks at once. `barred` disks take no copy of a volume. Each disk's volumes may stand over fewer
/// zones if that was accepted for its own drain or its node's, as for the moves.
pub(super) fn drain(
    case: &mut Case,
    snapshot: &Snapshot,
    volumes: &[Volume],
    disks: &HashSet<DiskId>,
    barred: &Barred,
    less_spread: bool,
) {
    let mut inventory = snapshot.for_moves();
    // What drains that run have still to move needs places too.
    let running = inventory.disks.iter().filter(|disk| disk.leaving && !disks.contains(&disk.disk));
    let others = replicas_on(volumes, &running.map(|disk| disk.disk).collect());
    for disk in inventory.disks.iter_mut().filter(|disk| disks.contains(&disk.disk)) {
        (disk.leaving, disk.eligible) = (true, false);
    }
    let held = replicas_on(volumes, disks);
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
    case.number("replicas_of_other_drains", others.len() as u64);
    if open > 0 {
        case.say(format!("{} there {} sealed first", count(open, "open volume"), is(open)));
    }
    let accepts = |disk: DiskId| {
        less_spread && disks.contains(&disk)
            || snapshot.disk(disk).is_some_and(|view| snapshot.accepts_less_spread(view))
    };
    domains(case, snapshot, (&inventory, disks), &[&held[..], &others].concat(), disks.iter().copied().all(accepts));
    if have < need {
        case.refuse(format!(
            "{} must find a place, and the other disks in service have {} above the reserve that repair needs",
            count(need, "replica"),
            count(have, "free slot"),
        ));
    }
    // What is behind a lack of places is told once, however many are lacking.
    if have < need || !places(case, snapshot, &inventory, (barred, &accepts), &held, &others) {
        case.explain(room::reasons(snapshot).trim_start_matches("; "));
    }
    case.say(match need {
        0 => "nothing has to move".to_owned(),
        _ => {
            let (replicas, bytes) = (count(need, "replica"), told::bytes(bytes));
            format!("{replicas} ({bytes}) {} copied elsewhere, then given up here", is(need))
        }
    });
}

/// Says what holds on from earlier orders about these disks or their nodes, where this one does not ask for it, and what ends it.
pub(super) fn say_accepted(case: &mut Case, snapshot: &Snapshot, disks: &HashSet<DiskId>, ask: &Order) {
    if ask.less_spread {
        return;
    }
    let accepted = |drain: Option<Drain>| drain.is_some_and(|drain| drain.less_spread);
    let mut ends = BTreeSet::new();
    for view in disks.iter().filter_map(|disk| snapshot.disk(*disk)) {
        let info = &view.disk.info;
        ends.extend(accepted(snapshot.intents.disk(info.disk).drain).then(|| format!("disk online {}", info.disk)));
        ends.extend(accepted(snapshot.intents.node(&info.node).drain).then(|| format!("node uncordon {}", info.node)));
    }
    if let Some(first) = ends.first() {
        let more = match ends.len() {
            1 => String::new(),
            number => format!(", and {} more", number - 1),
        };
        case.say(format!(
            "--less-spread was accepted before, and holds on until that drain ends (`holdfast admin {first}`{more})"
        ));
    }
}

/// A replica that is to move: where it stands, and its volume.
type Leaving<'a> = (DiskId, &'a Volume);

/// The replicas on these disks, of volumes that hold something.
fn replicas_on<'a>(volumes: &'a [Volume], disks: &HashSet<DiskId>) -> Vec<Leaving<'a>> {
    let mut found = Vec::new();
    for volume in volumes.iter().filter(|volume| !is_hollow(volume)) {
        found.extend(volume.replicas.iter().filter(|disk| disks.contains(disk)).map(|disk| (*disk, volume)));
    }
    found
}

/// Whether enough nodes are left for all that is to move, and what becomes of the spread.
fn domains(
    case: &mut Case,
    snapshot: &Snapshot,
    (inventory, disks): (&Inventory, &HashSet<DiskId>),
    moving: &[Leaving<'_>],
    less_spread: bool,
) {
    let left: Vec<&InventoryDisk> = inventory.disks.iter().filter(|disk| !disk.leaving).collect();
    let nodes: BTreeSet<&NodeId> = left.iter().map(|disk| &disk.node).collect();
    case.number("nodes_needed", COPIES as u64);
    case.number("nodes_left", nodes.len() as u64);
    if nodes.len() < COPIES && !moving.is_empty() {
        case.refuse(format!(
            "volumes have {COPIES} replicas on as many nodes, and {} would be left",
            count(nodes.len() as u64, "node")
        ));
    }
    let (before, after) = (snapshot.best_spread(), Spread::best(left.iter().copied()));
    case.number("zones_before", before.zones as u64);
    case.number("zones_after", after.zones as u64);
    let zones = |keep: &dyn Fn(&InventoryDisk) -> bool| -> BTreeSet<String> {
        inventory.disks.iter().filter(|disk| keep(disk)).map(|disk| disk.zone.clone()).collect()
    };
    // A zone that has nothing left without this order is no concern of it.
    let (drained, stays) = (zones(&|disk| disks.contains(&disk.disk)), zones(&|disk| !disk.leaving));
    let gone: Vec<String> = drained.difference(&stays).cloned().collect();
    if after.zones >= before.zones || gone.is_empty() {
        return;
    }
    let stand_farther = moving.iter().filter(|(_, volume)| snapshot.spread(&volume.replicas).zones > after.zones);
    let fewer = stand_farther.map(|(_, volume)| volume.volume).collect::<HashSet<_>>().len() as u64;
    case.number("volumes_with_less_spread", fewer);
    let away = snapshot.nodes.iter().filter(|view| view.standing != NodeStanding::Up && gone.contains(&view.node.zone));
    let away: Vec<String> =
        away.map(|view| format!("; node {} there is {}", view.node.node, view.standing.name())).collect();
    let sentence = format!(
        "it takes the last disks of {}: {} that {} over {} zones would stand over {}{}",
        gone.join(", "),
        count(fewer, "volume"),
        if fewer == 1 { "stands" } else { "stand" },
        before.zones,
        after.zones,
        away.concat()
    );
    match less_spread {
        true => case.warn(sentence),
        false => case.refuse(format!("{sentence} (--less-spread accepts that)")),
    }
}

/// Places the replicas one by one, as the moves will: those of other drains first, of which no more may stay for this one.
/// False when not all find a place.
fn places(
    case: &mut Case,
    snapshot: &Snapshot,
    inventory: &Inventory,
    (barred, accepts): (&Barred, &dyn Fn(DiskId) -> bool),
    held: &[Leaving<'_>],
    others: &[Leaving<'_>],
) -> bool {
    let most = MOST_PLACED.min(MOST_LOOKED_AT / inventory.disks.len().max(1));
    let moves = |inventory: Inventory| Moves { inventory, barred, accepts, replicas: HashMap::new() };
    let mut without = moves(snapshot.for_moves());
    let stuck = others.iter().take(most).filter(|replica| without.place(replica).is_err()).count() as u64;
    let mut moves = moves(inventory.clone());
    let mut failed = Tally::default();
    for replica in others.iter().take(most) {
        if let Err(error) = moves.place(replica) {
            failed.add(error);
        }
    }
    let more = failed.total().saturating_sub(stuck);
    if more > 0 {
        let all = count(others.len() as u64, "replica");
        let why: Vec<String> = failed.most_said().into_iter().map(|(why, _)| why).collect();
        case.refuse(format!("{more} of {all} of other drains would find no place any more: {}", why.join(", ")));
    }
    let mut groups: BTreeMap<(DiskId, NodeId), (String, u64, u64)> = BTreeMap::new();
    let mut failed = Tally::default();
    for replica in held.iter().take(most) {
        match moves.place(replica) {
            Ok(to) => {
                let Some(disk) = moves.inventory.disk(to) else { continue };
                let (from, volume) = *replica;
                let group = groups.entry((from, disk.node.clone())).or_insert((disk.zone.clone(), 0, 0));
                group.1 += 1;
                group.2 += volume.length.unwrap_or(0);
            }
            Err(error) => failed.add(error),
        }
    }
    if held.len().max(others.len()) > most {
        let all = held.len() + others.len();
        let placed = held.len().min(most) + others.len().min(most);
        case.warn(format!("of {all} replicas that are to move {placed} were placed one by one for this plan"));
    }
    case.number("replicas_without_place", failed.total());
    let all_placed = more == 0 && failed.total() == 0;
    for (why, replicas) in failed.most_said() {
        let all = count(held.len() as u64, "replica");
        case.refuse(format!("{replicas} of {all} would find no place, those that do counted in: {why}"));
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
    all_placed
}

/// Moves thought through one after the other.
struct Moves<'a> {
    /// As it is after them.
    inventory: Inventory,
    barred: &'a Barred,
    /// Whether the volumes of a disk may stand over fewer zones.
    accepts: &'a dyn Fn(DiskId) -> bool,
    /// Where the volumes stand after them.
    replicas: HashMap<VolumeId, Vec<DiskId>>,
}

impl Moves<'_> {
    /// Finds a place for one more, and takes it.
    fn place(&mut self, (from, volume): &Leaving<'_>) -> Result<DiskId, String> {
        let replicas = self.replicas.entry(volume.volume).or_insert_with(|| volume.replicas.clone());
        let avoid = self.barred.get(&volume.volume).map_or(&[][..], |disks| disks);
        let to = place_off(&self.inventory, (volume.volume, replicas), *from, avoid, (self.accepts)(*from))?;
        self.inventory.take_slot(to);
        replicas.retain(|disk| disk != from);
        replicas.push(to);
        Ok(to)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, NodeId, VolumeId, WriteEpoch};
    use holdfast_volume_manager_catalog::{Volume, VolumeState};
    use holdfast_volume_manager_planner::{Barred, Inventory, InventoryDisk};

    use std::collections::HashMap;

    use super::Moves;

    /// On the disks 1, 2 and 3.
    fn volume() -> Volume {
        Volume {
            volume: VolumeId([7; 16]),
            state: VolumeState::Sealed,
            epoch: WriteEpoch(1),
            capacity: 100,
            length: Some(100),
            digest: None,
            holder: None,
            lease_expires_ms: None,
            seal_reason: None,
            replicas: [1, 2, 3].map(|number| DiskId([number; 16])).to_vec(),
        }
    }

    #[test]
    fn two_replicas_of_a_volume_do_not_find_the_same_node() {
        let disk = |number: u8| DiskId([number; 16]);
        let of_node = |number: u8| InventoryDisk {
            disk: disk(number),
            node: NodeId(format!("node-{number}")),
            zone: "zone-1".to_owned(),
            rack: String::new(),
            slots: 100,
            free_slots: if number == 5 { 0 } else { 100 },
            eligible: number > 2,
            leaving: number <= 2,
        };
        let barred = Barred::new();
        let inventory = Inventory { disks: (1..=5).map(of_node).collect() };
        let mut moves = Moves { inventory, barred: &barred, accepts: &|_| false, replicas: HashMap::new() };
        let volume = volume();
        assert_eq!(moves.place(&(disk(1), &volume)).unwrap(), disk(4));
        moves.place(&(disk(2), &volume)).unwrap_err();
    }

    #[test]
    fn volumes_stand_over_fewer_zones_only_where_that_was_accepted_for_their_own_drain() {
        let disk = |number: u8| DiskId([number; 16]);
        let of_zone = |number: u8, zone: u8| InventoryDisk {
            disk: disk(number),
            node: NodeId(format!("node-{number}")),
            zone: format!("zone-{zone}"),
            rack: String::new(),
            slots: 100,
            free_slots: 100,
            eligible: number > 2,
            leaving: number <= 2,
        };
        let inventory = Inventory { disks: vec![of_zone(1, 1), of_zone(2, 2), of_zone(3, 3), of_zone(4, 3)] };
        let volume = volume();
        let accepts = |of: DiskId| of == disk(1);
        let place = |from: u8| {
            let (inventory, barred) = (inventory.clone(), Barred::new());
            let mut moves = Moves { inventory, barred: &barred, accepts: &accepts, replicas: HashMap::new() };
            moves.place(&(disk(from), &volume))
        };
        assert_eq!(place(1), Ok(disk(4)));
        assert!(place(2).unwrap_err().contains("zones"), "{:?}", place(2));
    }
}
