//! Which disks a volume goes to.

use std::collections::BTreeMap;

use holdfast_libs_types::{DiskId, VolumeId};

use crate::rendezvous::Ticket;
use crate::{Inventory, InventoryDisk};

/// Replicas of a volume.
pub const COPIES: usize = 3;

/// Why no disks were chosen. The text names what is missing, zone by zone, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// Too few zones have a disk in service: nothing fits however much room there is.
    #[error("{needed} more {} with a disk in service needed, {available} there: {detail}", zones(*needed))]
    TooFewDomains {
        /// Zones needed, beyond those that hold a replica.
        needed: usize,
        /// Zones that have a disk in service, beyond those that hold a replica.
        available: usize,
        /// What each other zone lacks.
        detail: String,
    },
    /// Enough zones are in service, but too few of them have a free slot.
    #[error("the cell is full: {needed} {} with a free slot needed, {available} there: {detail}", zones(*needed))]
    Full {
        /// Zones needed.
        needed: usize,
        /// Zones with a free slot.
        available: usize,
        /// What each other zone lacks.
        detail: String,
    },
}

fn zones(count: usize) -> &'static str {
    if count == 1 { "zone" } else { "zones" }
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

/// Chooses `copies` disks in distinct zones for a new volume, by weighted rendezvous hashing over its id; a disk's weight is
/// its free slots above the reserve. Disks in `avoid` are never chosen: it is better to have no volume for a while than to
/// use up a slot on three disks each time a sick disk fails another one.
///
/// # Errors
/// `TooFewDomains`, `Full`.
pub fn choose_disks(
    inventory: &Inventory,
    volume: VolumeId,
    avoid: &[DiskId],
    copies: usize,
) -> Result<Vec<DiskId>, PlacementError> {
    choose(inventory, volume, Purpose::NewVolume, copies, &[], avoid)
}

/// Chooses a disk for one more replica of `volume`, in a zone where none of the `live` replicas is. The reserve may be
/// used. Disks in `avoid` are never chosen: those with a stale extent of the volume, or that failed a copy just now.
///
/// # Errors
/// `TooFewDomains`, `Full`.
pub fn choose_repair_disk(
    inventory: &Inventory,
    volume: VolumeId,
    live: &[DiskId],
    avoid: &[DiskId],
) -> Result<DiskId, PlacementError> {
    let taken: Vec<&str> =
        live.iter().filter_map(|disk| inventory.disk(*disk)).map(|disk| disk.zone.as_str()).collect();
    let avoid: Vec<DiskId> = live.iter().chain(avoid).copied().collect();
    let chosen = choose(inventory, volume, Purpose::Repair, 1, &taken, &avoid)?;
    Ok(chosen[0])
}

/// What a zone has to offer.
#[derive(Default)]
struct Zone {
    disks: usize,
    avoided: usize,
    usable: usize,
    free: u64,
    best: Option<Ticket>,
}

fn choose(
    inventory: &Inventory,
    volume: VolumeId,
    purpose: Purpose,
    copies: usize,
    taken: &[&str],
    avoid: &[DiskId],
) -> Result<Vec<DiskId>, PlacementError> {
    let mut zones: BTreeMap<&str, Zone> = BTreeMap::new();
    for disk in &inventory.disks {
        if taken.contains(&disk.zone.as_str()) {
            continue;
        }
        let zone = zones.entry(&disk.zone).or_default();
        zone.disks += 1;
        if !disk.eligible {
            continue;
        }
        if avoid.contains(&disk.disk) {
            zone.avoided += 1;
            continue;
        }
        zone.usable += 1;
        let weight = purpose.weight(disk);
        zone.free += weight;
        let ticket = Ticket::draw(volume, disk.disk, weight);
        zone.best = [zone.best, ticket].into_iter().flatten().min_by(Ticket::compare);
    }
    let mut winners: Vec<Ticket> = zones.values().filter_map(|zone| zone.best).collect();
    if winners.len() < copies {
        return Err(lacking(&zones, purpose, copies));
    }
    winners.sort_by(Ticket::compare);
    Ok(winners.iter().take(copies).map(|ticket| ticket.disk).collect())
}

fn lacking(zones: &BTreeMap<&str, Zone>, purpose: Purpose, needed: usize) -> PlacementError {
    let in_service = zones.values().filter(|zone| zone.usable > 0).count();
    let with_room = zones.values().filter(|zone| zone.best.is_some()).count();
    let above = match purpose {
        Purpose::NewVolume => " above the reserve",
        Purpose::Repair => "",
    };
    let mut details = Vec::new();
    for (name, zone) in zones.iter().filter(|(_, zone)| zone.best.is_none()) {
        let disks = format!("{} {}", zone.disks, if zone.disks == 1 { "disk" } else { "disks" });
        details.push(if zone.usable > 0 {
            format!("{name} has no disk with a free slot ({disks}, {} free slots{above})", zone.free)
        } else if zone.avoided > 0 {
            format!("{name} has no disk to use ({disks}, {} avoided after a failure)", zone.avoided)
        } else {
            format!("{name} has no disk in service ({disks})")
        });
    }
    if details.is_empty() {
        details.push(match zones.len() {
            0 => "there is no further zone".to_owned(),
            1 => "there is only 1 further zone".to_owned(),
            count => format!("there are only {count} zones"),
        });
    }
    let detail = details.join("; ");
    if in_service < needed {
        PlacementError::TooFewDomains { needed, available: in_service, detail }
    } else {
        PlacementError::Full { needed, available: with_room, detail }
    }
}
