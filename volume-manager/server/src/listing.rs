//! The calls by which an operator looks at nodes, disks and volumes. A cell may have millions of volumes, so they are
//! read page by page, and a call that finds few looks at no more than [`MOST_EXAMINED`] before it answers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_volume_manager_catalog::{CatalogError, Volume};
use holdfast_volume_manager_client::{
    DiskDetail, Inventory, MAX_PAGE_VOLUMES, ReplicaDetail, VolumeDetail, VolumePage, VolumeQuery,
};
use holdfast_volume_manager_planner::{COPIES, InventoryDisk, can_lose};

use crate::discard::is_hollow;
use crate::error::answer;
use crate::inventory::{DiskView, Snapshot};
use crate::manager::{Manager, Progress};
use crate::reasons::not_whole;
use crate::routes::Message;
use crate::status::{holds_something, node_row, row_reason, words};

/// Volumes read from the catalog at once.
pub(crate) const PAGE: usize = 500;

/// Volumes that one call looks at.
const MOST_EXAMINED: usize = 20_000;

/// The words for the states of a volume.
const STATES: [&str; 5] = ["creating", "open", "sealing", "sealed", "failed"];

/// `GET /v1/inventory`
pub(crate) async fn inventory(State(manager): State<Arc<Manager>>) -> Result<Json<Inventory>, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let planner = snapshot.planner();
    let unknown = manager.progress().strangers.clone();
    let detail = |(view, disk)| disk_detail(view, disk, &unknown);
    let mut disks: Vec<DiskDetail> = snapshot.disks.iter().zip(&planner.disks).map(detail).collect();
    // A catalog that is not whole does not know what a disk holds.
    let drained = |view: &DiskView| view.leaving && manager.lost.is_none();
    for (row, _) in disks.iter_mut().zip(&snapshot.disks).filter(|(_, view)| drained(view)) {
        row.drain_left = Some(drain_left(&manager, row.disk).await.map_err(|error| answer(&error))?);
    }
    Ok(Json(Inventory {
        cell: manager.config.cell,
        nodes: snapshot.nodes.iter().map(node_row).collect(),
        disks,
        catalog_lost: not_whole(&manager),
    }))
}

fn disk_detail(view: &DiskView, planner: &InventoryDisk, unknown: &HashMap<DiskId, u64>) -> DiskDetail {
    let info = &view.disk.info;
    DiskDetail {
        disk: info.disk,
        node: info.node.clone(),
        zone: view.zone.clone(),
        rack: view.rack.clone(),
        address: view.address.clone(),
        path: info.path.clone(),
        state: view.standing.name().to_owned(),
        reason: row_reason(view),
        failing: view.failing.clone(),
        damaged_extents: view.damaged_extents,
        unknown_extents: unknown.get(&info.disk).copied().unwrap_or(0),
        in_service: view.standing.holds_replicas(),
        slots: info.slots,
        free_slots: view.free_slots,
        reserved_slots: planner.reserved_slots(),
        slot_bytes: info.slot_bytes,
        volume_bytes: info.volume_bytes,
        incarnation: view.disk.incarnation,
        asked: words(&[(view.offline.is_some(), "offline"), (view.leaving, "draining"), (view.cordoned, "cordoned")]),
        offline_until_ms: view.offline.and_then(|offline| offline.until_ms),
        drain_left: None,
    }
}

/// Volumes that still have a replica on a disk: no more than it has slots.
async fn drain_left(manager: &Manager, disk: DiskId) -> Result<u64, CatalogError> {
    let (mut left, mut after) = (0, None);
    loop {
        let page = manager.catalog.table.volumes_after(after, Some(disk), PAGE).await?;
        left += page.iter().filter(|volume| !is_hollow(volume)).count() as u64;
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.volume),
            _ => return Ok(left),
        }
    }
}

/// `POST /v1/volumes/find`
pub(crate) async fn find(
    State(manager): State<Arc<Manager>>,
    Message(query): Message<VolumeQuery>,
) -> Result<Json<VolumePage>, ApiError> {
    let wanted = Wanted::of(&query)?;
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let places = wanted.places(&snapshot);
    let mut found = Vec::new();
    let mut after = wanted.after;
    let mut examined = 0;
    loop {
        let page =
            manager.catalog.table.volumes_after(after, query.disk, PAGE).await.map_err(|error| answer(&error))?;
        examined += page.len();
        let is_last = page.len() < PAGE;
        for volume in page {
            if wanted.is_beyond(volume.volume) {
                return Ok(Json(page_of(&manager, &snapshot, &found, None)));
            }
            after = Some(volume.volume);
            if wanted.lets_through(&volume, &snapshot, places.as_ref()) {
                found.push(volume);
            }
            if found.len() >= wanted.limit {
                return Ok(Json(page_of(&manager, &snapshot, &found, after)));
            }
        }
        if is_last || examined >= MOST_EXAMINED {
            let next = after.filter(|_| !is_last);
            return Ok(Json(page_of(&manager, &snapshot, &found, next)));
        }
    }
}

/// A query whose words were checked.
struct Wanted<'a> {
    query: &'a VolumeQuery,
    limit: usize,
    /// Where to begin.
    after: Option<VolumeId>,
    /// The last id that the prefix allows.
    last: Option<VolumeId>,
}

impl<'a> Wanted<'a> {
    fn of(query: &'a VolumeQuery) -> Result<Self, ApiError> {
        if let Some(state) = query.state.as_ref().filter(|state| !STATES.contains(&state.as_str())) {
            let message = format!("`{state}` is no state of a volume; there are {}", STATES.join(", "));
            return Err(ApiError::bad_request(message));
        }
        let limit = if query.limit == 0 { MAX_PAGE_VOLUMES } else { query.limit.min(MAX_PAGE_VOLUMES) };
        let mut wanted = Self { query, limit, after: query.after, last: None };
        if let Some(prefix) = &query.prefix {
            let filled = |digit: &str| -> Result<VolumeId, ApiError> {
                let text =
                    format!("{}{}", prefix.to_ascii_lowercase(), digit.repeat(32_usize.saturating_sub(prefix.len())));
                text.parse().map_err(|_| {
                    ApiError::bad_request(format!(
                        "`{prefix}` does not begin the id of a volume: hex digits, at most 32"
                    ))
                })
            };
            let (first, last) = (filled("0")?, filled("f")?);
            // The catalog answers what is behind an id.
            let before = u128::from_be_bytes(first.0).checked_sub(1).map(|id| VolumeId(id.to_be_bytes()));
            wanted.after = wanted.after.max(before);
            wanted.last = Some(last);
        }
        Ok(wanted)
    }

    /// The disks of the node or zone that is asked for.
    fn places(&self, snapshot: &Snapshot) -> Option<HashSet<DiskId>> {
        let (node, zone) = (&self.query.node, &self.query.zone);
        (node.is_some() || zone.is_some()).then(|| {
            let there = |view: &&DiskView| {
                node.as_ref().is_none_or(|node| view.disk.info.node == *node)
                    && zone.as_ref().is_none_or(|zone| view.zone == *zone)
            };
            snapshot.disks.iter().filter(there).map(|view| view.disk.info.disk).collect()
        })
    }

    fn is_beyond(&self, volume: VolumeId) -> bool {
        self.last.is_some_and(|last| volume > last)
    }

    fn lets_through(&self, volume: &Volume, snapshot: &Snapshot, places: Option<&HashSet<DiskId>>) -> bool {
        let query = self.query;
        query.state.as_ref().is_none_or(|state| volume.state.as_str() == state)
            && places.is_none_or(|places| volume.replicas.iter().any(|disk| places.contains(disk)))
            && (!query.at_risk || (holds_something(volume) && snapshot.live(volume).len() < COPIES))
    }
}

fn page_of(manager: &Manager, snapshot: &Snapshot, found: &[Volume], next: Option<VolumeId>) -> VolumePage {
    let catalog_lost = not_whole(manager);
    let progress = manager.progress();
    let blocked: HashMap<VolumeId, &String> = progress.blocked.iter().map(|(volume, why)| (*volume, why)).collect();
    let volumes = found.iter().map(|volume| detail(snapshot, &progress, &blocked, volume)).collect();
    VolumePage { volumes, next, catalog_lost }
}

fn detail(
    snapshot: &Snapshot,
    progress: &Progress,
    blocked: &HashMap<VolumeId, &String>,
    volume: &Volume,
) -> VolumeDetail {
    let live = snapshot.live(volume).len();
    let holds = holds_something(volume);
    let under_way = progress.work.get(&volume.volume).map(|work| format!("{}: {}", work.kind, work.detail));
    let waits = || blocked.get(&volume.volume).map(|why| format!("repair: waits: {why}"));
    VolumeDetail {
        volume: volume.volume,
        state: volume.state.as_str().to_owned(),
        epoch: volume.epoch,
        capacity: volume.capacity,
        length: volume.length,
        digest: volume.digest.map(hex::encode),
        can_lose: holds.then(|| can_lose(live).into()),
        unreadable: holds && live == 0,
        reason: volume.seal_reason.clone(),
        work: under_way.or_else(waits),
        replicas: volume.replicas.iter().filter_map(|disk| replica_detail(snapshot, *disk)).collect(),
    }
}

fn replica_detail(snapshot: &Snapshot, disk: DiskId) -> Option<ReplicaDetail> {
    let view = snapshot.disk(disk)?;
    Some(ReplicaDetail {
        disk,
        node: view.disk.info.node.clone(),
        zone: view.zone.clone(),
        address: view.address.clone(),
        path: view.disk.info.path.clone(),
        state: view.standing.name().to_owned(),
        reason: row_reason(view),
        counts: view.standing.holds_replicas(),
    })
}
