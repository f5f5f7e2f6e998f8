//! The cell's state, for the operator.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, NodeId, VolumeId, told};
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{CellStatus, DiskRow, DrainRow, NodeRow, VolumeCounts, VolumeRow, Work, code};
use holdfast_volume_manager_planner::{COPIES, HealthCounts, Spread, choose_disks};
use http::StatusCode;

use crate::drains;
use crate::error::answer;
use crate::inventory::{DISTINCT, DiskView, Snapshot};
use crate::keyring::{self, Keyless};
use crate::liveness::{NodeStanding, Standing, in_words};
use crate::manager::Manager;
use crate::operate::count;
use crate::reasons::{not_whole, refused, settling, standing_drains, waiting};
use crate::{room, summary};

pub(crate) async fn status(State(manager): State<Arc<Manager>>) -> Result<Json<CellStatus>, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let counted = summary::count(&manager, &snapshot).await.map_err(|error| answer(&error))?;
    let counts = &counted.health;
    let (mut work, damaged) = work(&manager);
    let mut work_summary = summary::work(&manager, &counted, &work);
    let harmed = harmed(&manager, &snapshot);
    let told = (damaged, harmed, waiting(&manager));
    let (mut health, mut reasons) = health(&snapshot, counts, told, stops(&manager, &snapshot));
    work.truncate(MAX_ROWS);
    let drains = drains::drain_rows(&manager, &snapshot, &counted.on_leaving);
    let rebalance = drains::rebalance_row(&manager, &snapshot);
    work_summary.extend(drains::work(&manager, &drains, rebalance.as_ref(), &counted.on_leaving));
    add(&mut reasons, asked(&manager, &snapshot, counted.crowded, &drains).into_iter());
    if health == "ok" && !reasons.is_empty() {
        health = "degraded";
    }
    let catalog_lost = not_whole(&manager);
    if let Some(why) = &catalog_lost {
        health = "critical";
        reasons.insert(0, why.clone());
    }
    let mut capacity = summary::capacity(&snapshot);
    if manager.lost.is_some() {
        capacity.usable_free_bytes = 0;
    }
    let can_lose = counts.can_lose.iter().enumerate().map(|(n, count)| (n.to_string(), *count)).collect();
    Ok(Json(CellStatus {
        health: health.to_owned(),
        reasons,
        catalog_lost,
        nothing_leased: manager.lost.is_some(),
        settling: settling(&manager, &snapshot),
        cell: manager.config.cell,
        term: manager.term.0,
        volumes: VolumeCounts { total: counts.total, can_lose },
        nodes: snapshot.nodes.iter().map(node_row).collect(),
        disks: disk_rows(&snapshot, &counted.on_disk),
        crowded: counted.crowded,
        drains,
        rebalance,
        work,
        work_summary,
        capacity,
    }))
}

/// Most rows in the list of work, and most blocked repairs among them.
const MAX_ROWS: usize = 100;

/// Most reasons of one kind.
const MAX_REASONS: usize = 20;

/// A volume that failed, or was sealed empty, has nothing to lose.
pub(crate) fn holds_something(volume: &Volume) -> bool {
    match volume.state {
        VolumeState::Open | VolumeState::Sealing => true,
        VolumeState::Sealed => volume.length.is_some_and(|length| length > 0),
        VolumeState::Creating | VolumeState::Failed => false,
    }
}

/// What is under way or waits, and the last replicas that are damaged.
fn work(manager: &Manager) -> (Vec<Work>, Vec<String>) {
    let progress = manager.progress();
    let mut work: Vec<Work> = progress.work.values().cloned().collect();
    let idle = progress.blocked.iter().filter(|(volume, _)| !progress.work.contains_key(volume));
    work.extend(idle.take(MAX_ROWS).map(|(volume, why)| Work {
        kind: "repair".to_owned(),
        volume: *volume,
        detail: format!("waits: {why}"),
    }));
    let say = |((volume, disk), why): (&(VolumeId, DiskId), &String)| {
        format!("volume {volume}: its last replica, on disk {disk}, is not what was sealed: {why}")
    };
    (work, progress.damaged.iter().map(say).collect())
}

/// Disks whose node reports damage that no audit has looked at yet.
fn harmed(manager: &Manager, snapshot: &Snapshot) -> Vec<String> {
    let progress = manager.progress();
    let say = |view: &DiskView| {
        let (info, damaged) = (&view.disk.info, view.damaged_extents);
        format!(
            "disk {} ({}) of node {} reports damaged extents ({damaged}); what it holds is being compared with the catalog",
            info.disk, info.path, info.node
        )
    };
    // One that reports none any more is compared as well, and nobody need know.
    snapshot.unaudited_damage(&progress).filter(|view| view.damaged_extents > 0).map(say).collect()
}

/// Whether the replicas of a volume stand closer together than the cell, with everything in service, allows.
pub(crate) fn is_crowded(snapshot: &Snapshot, volume: &Volume, best: Spread) -> bool {
    volume.replicas.len() >= COPIES && holds_something(volume) && snapshot.spread(&volume.replicas) < best
}

/// What an operator asked for and is not done, and what waits for one.
fn asked(manager: &Manager, snapshot: &Snapshot, crowded: u64, drains: &[DrainRow]) -> Vec<String> {
    let mut said = snapshot.intents.unreadable.clone();
    if crowded > 0 {
        let best = snapshot.best_spread();
        let serving = Spread::best(snapshot.planner().disks.iter().filter(|disk| disk.eligible));
        let why = match serving.zones < best.zones {
            true => format!("{} of {} zones take new replicas now", serving.zones, best.zones),
            false => "they are moved apart as far as there is room".to_owned(),
        };
        let stand = if crowded == 1 { "stands" } else { "stand" };
        said.push(format!("{} {stand} closer together than the cell allows: {why}", count(crowded, "volume")));
    }
    // Of one that is away that is its reason already.
    for view in snapshot.disks.iter().filter(|view| view.offline.is_some() && view.standing == Standing::Healthy) {
        said.push(format!("disk {} is offline by an operator's order", view.disk.info.disk));
    }
    said.extend(standing_drains(drains));
    said.extend(refused(manager));
    let progress = manager.progress();
    let strangers = progress.strangers.iter();
    said.extend(strangers.map(|(disk, count)| {
        format!("disk {disk} holds extents of volumes that the catalog does not know ({count}); they are left alone")
    }));
    said
}

/// `ok`, `degraded` or `critical`, and why. `damaged` replicas are the last of their volumes; `harmed` disks are told in
/// words too, as is what `stops`, and work that is `waiting`.
fn health(
    snapshot: &Snapshot,
    counts: &HealthCounts,
    (damaged, harmed, waiting): (Vec<String>, Vec<String>, Vec<String>),
    stops: Vec<String>,
) -> (&'static str, Vec<String>) {
    let [none_or_one, short, _] = counts.can_lose;
    let (unreadable, last) = (counts.unreadable, none_or_one.saturating_sub(counts.unreadable));
    let critical = unreadable + last > 0 || !damaged.is_empty();
    let mut reasons = Vec::new();
    for (number, what) in
        [(unreadable, "no live replica"), (last, "one live replica left"), (short, "one replica too few")]
    {
        match number {
            0 => {}
            1 => reasons.push(format!("1 volume has {what}")),
            _ => reasons.push(format!("{number} volumes have {what}")),
        }
    }
    add(&mut reasons, damaged.into_iter());
    reasons.extend(vanished(snapshot));
    let awaited: HashSet<&NodeId> =
        snapshot.nodes.iter().filter(|view| view.is_awaited()).map(|view| &view.node.node).collect();
    if !awaited.is_empty() {
        let (silent, of) = (awaited.len(), snapshot.nodes.len());
        let named = room::named(awaited.iter().map(ToString::to_string).collect());
        reasons.push(format!(
            "not heard of yet since this volume manager began to lead: {silent} of {of} nodes ({named})"
        ));
    }
    let nodes = snapshot.nodes.iter().filter(|view| view.standing != NodeStanding::Up && !view.is_awaited());
    reasons.extend(nodes.map(|view| format!("node {} is {}", view.node.node, view.standing.name())));
    let disks = snapshot.disks.iter().filter(|view| !awaited.contains(&view.disk.info.node));
    for view in disks.filter(|view| view.standing != Standing::Healthy) {
        let reason = row_reason(view).unwrap_or_else(|| "no reason given".to_owned());
        reasons.push(format!("disk {} is {}: {reason}", view.disk.info.disk, view.standing.name()));
    }
    add(&mut reasons, harmed.into_iter());
    let failing = snapshot.disks.iter().filter_map(|view| {
        let (info, why) = (&view.disk.info, view.failing.as_ref()?);
        Some(format!("disk {} ({}) of node {} is suspected to be failing: {why}", info.disk, info.path, info.node))
    });
    add(&mut reasons, failing);
    let keyless = snapshot.disks.iter().filter(|view| view.is_well()).filter_map(|view| {
        let disk = view.disk.info.disk;
        let Some(Keyless::Refused(why)) = &view.keyless else { return None };
        Some(format!("disk {disk} does not take the keyring, so nothing new goes there; drain and replace it if that stays: {why}"))
    });
    add(&mut reasons, keyless);
    // A blank device waits to be formatted; that is no trouble. Where nothing is at the place of a disk, that disk was told of.
    let is_missed = |node: &NodeId, path: &str| {
        let mut there =
            snapshot.disks.iter().filter(|view| view.disk.info.node == *node && view.disk.info.path == path);
        there.any(|view| view.standing != Standing::Healthy)
    };
    let unusable = snapshot.nodes.iter().flat_map(|view| {
        let node = &view.node.node;
        let bad = view.unusable.iter().filter(|disk| disk.cause != "unformatted");
        let bad = bad.filter(move |disk| disk.cause != "missing" || !is_missed(node, &disk.path));
        bad.map(move |disk| format!("node {node} cannot use {}: {}", disk.path, disk.reason))
    });
    add(&mut reasons, unusable);
    reasons.extend(stops);
    add(&mut reasons, waiting.into_iter());
    let health = match (critical, reasons.is_empty()) {
        (true, _) => "critical",
        (false, true) => "ok",
        (false, false) => "degraded",
    };
    (health, reasons)
}

/// What stops writes or repair, or will.
fn stops(manager: &Manager, snapshot: &Snapshot) -> Vec<String> {
    // Placement depends on the volume's id only in its choice, never in whether there is one.
    let chosen = choose_disks(&snapshot.planner(), VolumeId::default(), &[], COPIES, DISTINCT);
    let full = chosen
        .err()
        .map(|error| format!("no new volume can be made, so writes stop: {}", room::explained(snapshot, &error)));
    paused(manager).into_iter().chain(full).chain(keyring::full(manager, snapshot)).collect()
}

/// By whom repair is paused, and since when. A volume that lacks a replica stays as it is then.
fn paused(manager: &Manager) -> Option<String> {
    let pause = manager.wishes.pause(manager.now_ms())?;
    let (since, ago) = (told::moment(pause.since_ms), in_words(Duration::from_secs(pause.since_s_ago)));
    let by = if pause.by.is_empty() { "somebody who gave no name" } else { &pause.by };
    let reason = pause.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
    Some(format!("repair is paused by {by} since {since}, {ago} ago{reason}: holdfast admin repair resume"))
}

/// What vanished at once and is waited for.
fn vanished(snapshot: &Snapshot) -> Vec<String> {
    let absences = &snapshot.absences;
    if let Some(cut) = &absences.cut_off {
        return vec![format!(
            "{} of {} nodes, {} of {} zones were not heard of at once: this volume manager may itself be cut off, so it repairs \
             nothing for their sake and waits until some are heard again",
            cut.nodes, cut.of_nodes, cut.zones, cut.of_zones
        )];
    }
    let say = |zone: &String| {
        let of_zone = snapshot.disks.iter().filter(|view| view.zone == *zone);
        let left = of_zone.filter_map(|view| view.standing.away()?.lost_in).max();
        let repair = left.map_or_else(|| "is under way".to_owned(), |left| format!("starts in {}", in_words(left)));
        format!("zone {zone} has vanished, all of its nodes are silent: its repair {repair}")
    };
    absences.zones.iter().map(say).collect()
}

/// Adds the first few; a cell that lost a zone has as many reasons as volumes.
fn add(reasons: &mut Vec<String>, mut more: impl Iterator<Item = String>) {
    reasons.extend(more.by_ref().take(MAX_REASONS));
    let left = more.count();
    if left > 0 {
        reasons.push(format!("and {left} more like these"));
    }
}

pub(crate) fn node_row(view: &crate::inventory::NodeView) -> NodeRow {
    NodeRow {
        node: view.node.node.clone(),
        zone: view.node.zone.clone(),
        rack: view.node.rack.clone(),
        address: view.node.address.clone(),
        state: view.standing.name().to_owned(),
        asked: words(&[(view.intent.cordoned_ms.is_some(), "cordoned"), (view.intent.drain.is_some(), "draining")]),
        last_heartbeat_ms: view.heard.then_some(view.silence_ms),
        unusable: view.unusable.clone(),
    }
}

pub(crate) fn words(words: &[(bool, &str)]) -> Vec<String> {
    words.iter().filter(|(holds, _)| *holds).map(|(_, word)| (*word).to_owned()).collect()
}

/// Why it is not healthy and when that is repaired, or else why it may soon be so.
pub(crate) fn row_reason(view: &DiskView) -> Option<String> {
    if let Some(away) = view.standing.away().filter(|_| view.offline.is_none()) {
        let repair = away.lost_in.map_or_else(
            || "repair waits until more of the cell is heard".to_owned(),
            |left| format!("repair starts in {}", in_words(left)),
        );
        return Some(format!("{}; {repair}", away.reason));
    }
    let failing = || view.failing.as_ref().map(|why| format!("suspected to be failing: {why}"));
    view.standing.reason().map(str::to_owned).or_else(failing)
}

fn disk_rows(snapshot: &Snapshot, held: &HashMap<DiskId, u64>) -> Vec<DiskRow> {
    let row = |view: &DiskView| DiskRow {
        disk: view.disk.info.disk,
        node: view.disk.info.node.clone(),
        path: view.disk.info.path.clone(),
        state: view.standing.name().to_owned(),
        reason: row_reason(view),
        repair_in_s: view.standing.away().and_then(|away| Some(away.lost_in?.as_secs())),
        slots: view.disk.info.slots,
        free_slots: view.free_slots,
        slot_bytes: view.disk.info.slot_bytes,
        volumes: held.get(&view.disk.info.disk).copied().unwrap_or(0),
        asked: words(&[(view.offline.is_some(), "offline"), (view.leaving, "draining")]),
        offline_until_ms: view.offline.and_then(|offline| offline.until_ms),
    };
    snapshot.disks.iter().map(row).collect()
}

pub(crate) async fn volumes(State(manager): State<Arc<Manager>>) -> Result<Json<Vec<VolumeRow>>, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let volumes = manager.catalog.table.volumes().await.map_err(|error| answer(&error))?;
    let best = snapshot.best_spread();
    Ok(Json(volumes.iter().map(|volume| volume_row(&snapshot, volume, best)).collect()))
}

pub(crate) async fn volume(
    State(manager): State<Arc<Manager>>,
    Path(id): Path<String>,
) -> Result<Json<VolumeRow>, ApiError> {
    let id: VolumeId =
        id.parse().map_err(|error: holdfast_libs_types::ids::InvalidId| ApiError::bad_request(error.to_string()))?;
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let found = manager.catalog.table.volume(id).await.map_err(|error| answer(&error))?;
    match found {
        Some(volume) => Ok(Json(volume_row(&snapshot, &volume, snapshot.best_spread()))),
        None => Err(ApiError::new(StatusCode::NOT_FOUND, code::UNKNOWN_VOLUME, format!("there is no volume {id}"))),
    }
}

fn volume_row(snapshot: &Snapshot, volume: &Volume, best: Spread) -> VolumeRow {
    VolumeRow {
        volume: volume.volume,
        state: volume.state.as_str().to_owned(),
        epoch: volume.epoch,
        length: volume.length,
        digest: volume.digest.map(hex::encode),
        replicas: volume.replicas.iter().filter_map(|disk| snapshot.replica(*disk)).collect(),
        crowded: is_crowded(snapshot, volume, best),
    }
}
