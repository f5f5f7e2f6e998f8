//! What the cell's volumes, its space and its work come to, in a few numbers.

use std::collections::{BTreeMap, HashMap};

use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_client::{Capacity, Work, WorkSummary};
use holdfast_volume_manager_planner::{COPIES, HealthCounts, Spread, volumes_that_fit};

use crate::inventory::Snapshot;
use crate::listing::PAGE;
use crate::manager::Manager;
use crate::status::{holds_something, is_crowded};

/// All volumes of the cell, counted.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Those that hold something, by what they can lose.
    pub health: HealthCounts,
    /// How many of them have a replica on a disk.
    pub on_disk: HashMap<DiskId, u64>,
    /// Sealed volumes that lack a replica, and the bytes that copies of them come to.
    pub lacking: u64,
    pub lacking_bytes: u64,
    /// Those whose replicas stand closer together than the cell allows.
    pub crowded: u64,
    /// Those with a replica on a disk that is being drained.
    pub on_leaving: Vec<Volume>,
}

/// Goes through the table page by page: it need not fit into memory, and other calls go on between two pages.
pub(crate) async fn count(manager: &Manager, snapshot: &Snapshot) -> Result<Counted, CatalogError> {
    let mut counted = Counted::default();
    let best = snapshot.best_spread();
    let mut after: Option<VolumeId> = None;
    loop {
        let page = manager.catalog.table.volumes_after(after, None, PAGE).await?;
        let is_leaving = |disk: &DiskId| snapshot.disk(*disk).is_some_and(|view| view.leaving);
        for volume in page.iter().filter(|volume| holds_something(volume)) {
            let live = snapshot.live(volume).len();
            counted.health.note(live);
            counted.crowded += u64::from(is_crowded(snapshot, volume, best));
            if volume.replicas.iter().any(is_leaving) {
                counted.on_leaving.push(volume.clone());
            }
            for disk in &volume.replicas {
                *counted.on_disk.entry(*disk).or_default() += 1;
            }
            if volume.state == VolumeState::Sealed && live < COPIES {
                counted.lacking += 1;
                counted.lacking_bytes += (COPIES - live) as u64 * volume.length.unwrap_or(0);
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.volume),
            _ => return Ok(counted),
        }
    }
}

/// What the cell's space comes to.
pub(crate) fn capacity(snapshot: &Snapshot) -> Capacity {
    let mut capacity = Capacity::default();
    let planner = snapshot.planner();
    for (view, disk) in snapshot.disks.iter().zip(&planner.disks) {
        let slot_bytes = view.disk.info.slot_bytes;
        let raw = disk.slots * slot_bytes;
        if !view.standing.holds_replicas() {
            capacity.lost_bytes += raw;
            continue;
        }
        capacity.raw_bytes += raw;
        capacity.free_bytes += disk.free_slots * slot_bytes;
        capacity.used_bytes += disk.slots.saturating_sub(disk.free_slots) * slot_bytes;
        capacity.trash_extents += view.trashed_extents;
        capacity.trash_bytes += view.trashed_extents * slot_bytes;
        capacity.reserve_bytes += disk.reserved_slots().min(disk.free_slots) * slot_bytes;
    }
    // One size in the cell, as its slots are.
    let volume_bytes = snapshot.disks.iter().map(|view| view.disk.info.volume_bytes).min().unwrap_or(0);
    let taking = || planner.disks.iter().filter(|disk| disk.eligible && !disk.leaving);
    // With too few zones replicas stand on distinct nodes at least.
    let in_zones = Spread::best(taking()).zones >= COPIES;
    let room = |free: bool| {
        let mut domains: BTreeMap<&str, u64> = BTreeMap::new();
        for disk in taking() {
            let slots = if free { disk.free_above_reserve() } else { disk.slots.saturating_sub(disk.reserved_slots()) };
            *domains.entry(if in_zones { &disk.zone } else { &disk.node.0 }).or_default() += slots;
        }
        volumes_that_fit(&domains.into_values().collect::<Vec<_>>()) * volume_bytes
    };
    (capacity.usable_bytes, capacity.usable_free_bytes) = (room(false), room(true));
    capacity
}

/// All work, by kind.
pub(crate) fn work(manager: &Manager, counted: &Counted, work: &[Work]) -> Vec<WorkSummary> {
    let mut kinds: BTreeMap<&str, WorkSummary> = BTreeMap::new();
    for one in work {
        let kind = kinds.entry(&one.kind).or_default();
        if one.detail.starts_with("wait") { kind.waiting += 1 } else { kind.running += 1 }
    }
    if counted.lacking > 0 {
        let repair = kinds.entry("repair").or_default();
        // Those that nobody has begun with, or says anything of.
        repair.waiting = counted.lacking.saturating_sub(repair.running);
        repair.bytes_left = Some(counted.lacking_bytes);
        repair.bytes_s = manager.repair_rate.bytes_s();
        // What stands has no end that a rate tells.
        let goes_on = manager.repair_rate.is_under_way();
        repair.eta_s =
            repair.bytes_s.filter(|rate| *rate > 0.0 && goes_on).map(|rate| counted.lacking_bytes as f64 / rate);
    }
    kinds.into_iter().map(|(kind, summary)| WorkSummary { kind: kind.to_owned(), ..summary }).collect()
}
