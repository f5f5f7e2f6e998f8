//! Which disks a volume goes to.

use std::collections::BTreeMap;

use holdfast_libs_types::{DiskId, VolumeId};

use crate::rendezvous::Ticket;
use crate::{Inventory, InventoryDisk, Spread};

/// Replicas of a volume.
pub const COPIES: usize = 3;

/// Why no disks were chosen. The text names what is missing, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Too few zones (or nodes) have a disk in service: nothing fits however much room there is.
    #[error("{needed} {}{} with a disk in service needed, {available} there: {detail}", if *more { "more " } else { "" }, plural(*needed, domain))]
    TooFewDomains {
        /// Domains needed, beyond those that hold a replica.
        needed: usize,
        /// Domains that have a disk in service, beyond those that hold a replica.
        available: usize,
        /// Whether any holds a replica.
        more: bool,
        /// `zone` or `node`.
        domain: &'static str,
        /// What each zone lacks.
        detail: String,
    },
    /// Enough is in service, but too few zones (or nodes) have a free slot.
    #[error("the cell is full: {needed} {} with a free slot needed, {available} there: {detail}", plural(*needed, domain))]
    Full {
        /// Domains needed.
        needed: usize,
        /// Domains with a free slot.
        available: usize,
        /// `zone` or `node`.
        domain: &'static str,
        /// What each zone lacks.
        detail: String,
    },
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { what.to_owned() } else { format!("{what}s") }
}

/// Which domains the replicas of a volume must not share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distinct {
    /// Each stands in a zone of its own, or nowhere.
    Zones,
    /// They stand in distinct zones as far as so many are in service, else in distinct racks, at least on distinct nodes. For
    /// cells that move them apart again later ([`plan_rebalance`](crate::plan_rebalance)).
    Nodes,
}

/// What a placement is for.
#[derive(Clone, Copy)]
enum Purpose {
    /// A new volume leaves the reserve alone.
    NewVolume,
    /// Repair may use it.
    Repair,
}

impl Purpose {
    fn weight(self, disk: &InventoryDisk) -> u64 {
        match self {
            Self::NewVolume => disk.free_above_reserve(),
            Self::Repair => disk.free_slots,
        }
    }
}

/// Chooses `copies` disks for a new volume, by weighted rendezvous hashing over its id; a disk's weight is its free slots
/// above the reserve. They are in distinct zones if so many zones are in service. Otherwise, if `distinct` lets them, each zone gets one, and
/// the rest goes to distinct racks, then nodes ([`Spread`] tells which it was).
/// Disks in `avoid` are never chosen: it is better to have no volume for a while than to use up a slot on each disk every
/// time a sick one fails.
///
/// # Errors
/// `TooFewDomains`, `Full`.
pub fn choose_disks(
    inventory: &Inventory,
    volume: VolumeId,
    avoid: &[DiskId],
    copies: usize,
    distinct: Distinct,
) -> Result<Vec<DiskId>, PlacementError> {
    choose(inventory, volume, (Purpose::NewVolume, distinct), copies, &[], avoid)
}

/// Chooses a disk for one more replica of `volume`, as far from the `live` replicas as a free slot can be found: in another
/// zone, else, if `distinct` lets it, in another rack, else on another node. The reserve may be used. Disks in `avoid` are never chosen. Those that have a `restorable` replica in their trash need no slot, and
/// come first among disks as far away.
///
/// # Errors
/// `TooFewDomains`, `Full`.
pub fn choose_repair_disk(
    inventory: &Inventory,
    volume: VolumeId,
    live: &[DiskId],
    restorable: &[DiskId],
    avoid: &[DiskId],
    distinct: Distinct,
) -> Result<DiskId, PlacementError> {
    let there: Vec<&InventoryDisk> = live.iter().filter_map(|disk| inventory.disk(*disk)).collect();
    let far = |disk: DiskId| inventory.disk(disk).map_or(u8::MAX, |disk| nearness(disk, &there));
    let chosen = choose(inventory, volume, (Purpose::Repair, distinct), 1, &there, avoid);
    match (choose_restore_disk(inventory, live, restorable, avoid, distinct), chosen) {
        (Some(back), Ok(chosen)) if far(back) > far(chosen[0]) => Ok(chosen[0]),
        (Some(back), _) => Ok(back),
        (None, chosen) => chosen.map(|chosen| chosen[0]),
    }
}

/// The one of the `restorable` disks that is farthest from the `live` replicas, if one may have another: it needs no source
/// either. Whether it takes anything new does not matter, it has it.
pub fn choose_restore_disk(
    inventory: &Inventory,
    live: &[DiskId],
    restorable: &[DiskId],
    avoid: &[DiskId],
    distinct: Distinct,
) -> Option<DiskId> {
    let there: Vec<&InventoryDisk> = live.iter().filter_map(|disk| inventory.disk(*disk)).collect();
    let usable = |disk: &&InventoryDisk| {
        !avoid.contains(&disk.disk) && !there.iter().any(|other| excludes(other, disk, distinct))
    };
    let known = restorable.iter().filter_map(|disk| inventory.disk(*disk)).filter(usable);
    known.min_by_key(|disk| (nearness(disk, &there), disk.disk)).map(|disk| disk.disk)
}

/// Chooses the disk that takes over a replica of `volume` whose other replicas are on `others`: on a node of its own, with a
/// free slot above the reserve, and as far from the others as any disk is that does not leave. That one may be full, or out of
/// service for a while: then the move waits, rather than bring the replicas nearer to each other. Disks in `avoid` are never chosen.
///
/// # Errors
/// `TooFewDomains`, `Full`.
pub fn choose_move_disk(
    inventory: &Inventory,
    volume: VolumeId,
    others: &[DiskId],
    avoid: &[DiskId],
) -> Result<DiskId, PlacementError> {
    let there: Vec<&InventoryDisk> = others.iter().filter_map(|disk| inventory.disk(*disk)).collect();
    let fits = |disk: &&InventoryDisk| {
        !disk.leaving && !avoid.contains(&disk.disk) && there.iter().all(|other| other.node != disk.node)
    };
    let candidates: Vec<(u8, &InventoryDisk)> =
        inventory.disks.iter().filter(fits).map(|disk| (nearness(disk, &there), disk)).collect();
    let farthest = candidates.iter().map(|(near, _)| *near).min();
    let usable: Vec<&InventoryDisk> = candidates
        .into_iter()
        .filter(|(near, disk)| Some(*near) == farthest && disk.eligible)
        .map(|(_, disk)| disk)
        .collect();
    let draw =
        |disk: &&InventoryDisk| Some((Ticket::draw(volume, disk.disk, Purpose::NewVolume.weight(disk))?, disk.disk));
    if let Some((_, disk)) = usable.iter().filter_map(draw).min_by(|(a, _), (b, _)| a.compare(b)) {
        return Ok(disk);
    }
    let domain = if farthest == Some(0) { "zone" } else { "node" };
    let detail = lacking(inventory, (Purpose::NewVolume, Distinct::Nodes), &there, avoid);
    Err(match usable.is_empty() {
        true => PlacementError::TooFewDomains { needed: 1, available: 0, more: !there.is_empty(), domain, detail },
        false => PlacementError::Full { needed: 1, available: 0, domain, detail },
    })
}

/// Chooses `copies` disks, one after the other: as far as possible from `there` and from those chosen before, and of equals
/// the one that wins the race for the volume.
fn choose(
    inventory: &Inventory,
    volume: VolumeId,
    (purpose, distinct): (Purpose, Distinct),
    copies: usize,
    there: &[&InventoryDisk],
    avoid: &[DiskId],
) -> Result<Vec<DiskId>, PlacementError> {
    let usable = |disk: &&InventoryDisk| {
        disk.eligible && !avoid.contains(&disk.disk) && !there.iter().any(|other| excludes(other, disk, distinct))
    };
    let candidates: Vec<&InventoryDisk> = inventory.disks.iter().filter(usable).collect();
    let with_room: Vec<(Ticket, &InventoryDisk)> = candidates
        .iter()
        .filter_map(|disk| Some((Ticket::draw(volume, disk.disk, purpose.weight(disk))?, *disk)))
        .collect();
    let free: Vec<&InventoryDisk> = with_room.iter().map(|(_, disk)| *disk).collect();
    let (service, room) = (Spread::of(candidates.iter().copied()), Spread::of(free.iter().copied()));
    let shortage = match purpose {
        _ if distinct == Distinct::Zones && service.zones < copies => Some((true, "zone", copies, service.zones)),
        _ if service.nodes < copies => Some((true, "node", copies, service.nodes)),
        // A full zone is no reason to crowd new volumes into the others: it would never end.
        Purpose::NewVolume if room.zones < copies.min(service.zones) => {
            Some((false, "zone", copies.min(service.zones), room.zones))
        }
        _ if distinct == Distinct::Zones && room.zones < copies => Some((false, "zone", copies, room.zones)),
        _ if room.nodes < copies => Some((false, "node", copies, room.nodes)),
        _ => None,
    };
    if let Some((out_of_service, domain, needed, available)) = shortage {
        let detail = lacking(inventory, (purpose, distinct), there, avoid);
        return Err(if out_of_service {
            PlacementError::TooFewDomains { needed, available, more: !there.is_empty(), domain, detail }
        } else {
            PlacementError::Full { needed, available, domain, detail }
        });
    }
    let mut chosen: Vec<&InventoryDisk> = Vec::with_capacity(copies);
    for _ in 0..copies {
        let taken: Vec<&InventoryDisk> = there.iter().chain(&chosen).copied().collect();
        let left = with_room.iter().filter(|(_, disk)| taken.iter().all(|other| other.node != disk.node));
        let best = left.min_by(|(a, one), (b, other)| {
            nearness(one, &taken).cmp(&nearness(other, &taken)).then_with(|| a.compare(b))
        });
        chosen.extend(best.map(|(_, disk)| *disk));
    }
    Ok(chosen.iter().map(|disk| disk.disk).collect())
}

/// Whether a replica on `other` rules `disk` out.
fn excludes(other: &InventoryDisk, disk: &InventoryDisk, distinct: Distinct) -> bool {
    other.node == disk.node || distinct == Distinct::Zones && other.zone == disk.zone
}

/// How near a disk on a node of its own is to the nearest of the others: 0 in another zone than all, 1 in another rack, 2
/// in a rack that has one.
fn nearness(disk: &InventoryDisk, others: &[&InventoryDisk]) -> u8 {
    let near = |other: &&InventoryDisk| match (other.zone == disk.zone, other.rack_key() == disk.rack_key()) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
    others.iter().map(near).max().unwrap_or(0)
}

/// What a zone has to offer.
#[derive(Default)]
struct Zone {
    disks: usize,
    taken: usize,
    avoided: usize,
    usable: usize,
    free: u64,
}

/// What each zone lacks.
fn lacking(
    inventory: &Inventory,
    (purpose, distinct): (Purpose, Distinct),
    there: &[&InventoryDisk],
    avoid: &[DiskId],
) -> String {
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    for disk in &inventory.disks {
        let zone = zones.entry(&disk.zone).or_default();
        zone.disks += 1;
        if there.iter().any(|other| excludes(other, disk, distinct)) {
            zone.taken += 1;
        } else if disk.eligible && avoid.contains(&disk.disk) {
            zone.avoided += 1;
        } else if disk.eligible {
            zone.usable += 1;
            zone.free += purpose.weight(disk);
        }
    }
    let above = match purpose {
        Purpose::NewVolume => " above the reserve",
        Purpose::Repair => "",
    };
    let mut details = Vec::new();
    for (name, zone) in zones.iter().filter(|(_, zone)| zone.free == 0 && zone.taken < zone.disks) {
        let mut disks = format!("{} {}", zone.disks, plural(zone.disks, "disk"));
        if zone.taken > 0 {
            disks = format!("{disks}, {} on nodes that have a replica", zone.taken);
        }
        details.push(if zone.usable > 0 {
            format!("{name} has no disk with a free slot ({disks}, {} free slots{above})", zone.free)
        } else if zone.avoided > 0 {
            format!("{name} has no disk to use ({disks}, {} avoided: a copy failed there just now, or what it holds of the volume is damaged)", zone.avoided)
        } else {
            let other = if zone.taken > 0 { "other disk" } else { "disk" };
            format!("{name} has no {other} in service ({disks})")
        });
    }
    if details.is_empty() {
        let cell = Spread::of(&inventory.disks);
        let (zones, nodes) = (plural(cell.zones, "zone"), plural(cell.nodes, "node"));
        details.push(format!("the cell has {} {zones} and {} {nodes}", cell.zones, cell.nodes));
    }
    details.join("; ")
}
