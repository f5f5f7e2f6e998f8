//! How far drains and a rebalance are, and what they wait for: told from the table as it is, so that it is true whoever leads.

use std::collections::BTreeMap;

use holdfast_libs_types::DiskId;
use holdfast_volume_manager_catalog::{Volume, VolumeState};
use holdfast_volume_manager_client::{DrainRow, DrainWait, RebalanceRow, WorkSummary};
use holdfast_volume_manager_planner::{COPIES, Inventory, MoveReason};

use crate::discard::is_hollow;
use crate::inventory::{DiskView, Snapshot};
use crate::manager::Manager;
use crate::moves::{Progress, Step, is_movable, place_off};
use crate::repair;

/// Volumes of a disk for which a place is looked for, to tell whether there is one.
const SAMPLE: usize = 200;

/// Every disk that is being drained.
pub(crate) fn drain_rows(manager: &Manager, snapshot: &Snapshot, volumes: &[Volume]) -> Vec<DrainRow> {
    let inventory = repair::without_unaudited(manager, snapshot.for_moves());
    let (_, running) = manager.moves.steps();
    let leaving = snapshot.disks.iter().filter(|view| view.leaving);
    let mut rows: Vec<DrainRow> =
        leaving.map(|view| row(manager, snapshot, &inventory, volumes, view, &running)).collect();
    let all: u64 = rows.iter().map(|row| row.left_bytes).sum();
    for row in rows.iter_mut().filter(|row| row.left > 0 && goes_on(row.moving, &row.waits)) {
        row.eta_s = eta_s(manager, all);
    }
    rows
}

/// Whether there is an end that a rate tells: of what stands there is none.
fn goes_on(moving: u64, waits: &[String]) -> bool {
    moving > 0 || waits.is_empty()
}

fn row(
    manager: &Manager,
    snapshot: &Snapshot,
    inventory: &Inventory,
    volumes: &[Volume],
    view: &DiskView,
    running: &[Step],
) -> DrainRow {
    let info = &view.disk.info;
    let left: Vec<&Volume> =
        volumes.iter().filter(|volume| volume.replicas.contains(&info.disk) && !is_hollow(volume)).collect();
    let waiting = waits(manager, snapshot, inventory, &left, view);
    DrainRow {
        disk: info.disk,
        node: info.node.clone(),
        since_ms: snapshot.drains(&view.disk).map(|drain| drain.since_ms).min().unwrap_or(0),
        left: left.len() as u64,
        left_bytes: left.iter().filter_map(|volume| volume.length).sum(),
        moving: running.iter().filter(|step| step.from == info.disk).count() as u64,
        waits: waiting.iter().map(|wait| of_volumes(&wait.why, wait.volumes)).collect(),
        waiting,
        eta_s: None,
    }
}

/// What keeps volumes on the disk that cannot move now.
fn waits(
    manager: &Manager,
    snapshot: &Snapshot,
    inventory: &Inventory,
    left: &[&Volume],
    view: &DiskView,
) -> Vec<DrainWait> {
    let disk = view.disk.info.disk;
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let mut looked_at = 0;
    for volume in left {
        let why = match volume.state {
            VolumeState::Sealed if is_movable(snapshot, volume) => {
                looked_at += 1;
                if looked_at > SAMPLE {
                    continue;
                }
                let avoid = repair::avoided(manager, volume.volume);
                let less_spread = snapshot.accepts_less_spread(view);
                match place_off(inventory, (volume.volume, &volume.replicas), disk, &avoid, less_spread) {
                    Ok(_) => continue,
                    Err(why) => format!("no place for its replica: {why}"),
                }
            }
            VolumeState::Sealed => unwhole(snapshot, volume, Some(disk)),
            state => format!("it is {state}: it moves once it is sealed"),
        };
        *reasons.entry(why).or_default() += 1;
    }
    let mut all = Vec::new();
    let mut for_all = |why: &str| all.push(DrainWait { why: why.to_owned(), volumes: 0 });
    if !left.is_empty() && manager.wishes.pause(manager.now_ms()).is_some() {
        for_all("an operator has paused repair, and copies with it");
    } else if !left.is_empty() && manager.progress().repair_waits {
        for_all("repairs come first");
    }
    all.extend(reasons.into_iter().map(|(why, volumes)| DrainWait { why, volumes }));
    all
}

/// A reason, and for how many volumes; 0 when it is for none in particular.
pub(crate) fn of_volumes(why: &str, count: u64) -> String {
    match count {
        0 => why.to_owned(),
        1 => format!("1 volume: {why}"),
        _ => format!("{count} volumes: {why}"),
    }
}

/// Why none of a sealed volume's replicas is moved; `disk` is the one it is asked for.
pub(crate) fn unwhole(snapshot: &Snapshot, volume: &Volume, disk: Option<DiskId>) -> String {
    let away = volume.replicas.iter().filter_map(|other| snapshot.disk(*other)).find(|view| !view.is_well());
    match away {
        Some(view) if view.offline.is_some() => {
            format!("its replica on disk {} is offline by an operator's order", view.disk.info.disk)
        }
        Some(view) if Some(view.disk.info.disk) == disk => {
            format!("the disk itself is {}: the volume is repaired from its other replicas", view.standing.name())
        }
        Some(view) => {
            format!("its replica on disk {} is on a disk that is {}", view.disk.info.disk, view.standing.name())
        }
        None => format!("it has {} of {COPIES} replicas, and is repaired first", volume.replicas.len()),
    }
}

/// The rebalance under way.
pub(crate) fn rebalance_row(manager: &Manager, snapshot: &Snapshot) -> Option<RebalanceRow> {
    let begun = snapshot.intents.rebalance?;
    let progress = manager.moves.progress(begun.since_ms);
    let all = || progress.waiting.iter().chain(&progress.moving).chain(progress.undone.iter().map(|(step, _)| step));
    let (left, left_bytes) = match progress.is_counted {
        true => (all().count() as u64, all().map(|step| step.bytes).sum()),
        false => (begun.moves, begun.bytes),
    };
    let (moving, waits) = (progress.moving.len() as u64, rebalance_waits(manager, &progress));
    Some(RebalanceRow {
        since_ms: begun.since_ms,
        moves: begun.moves,
        bytes: begun.bytes,
        left,
        left_bytes,
        moving,
        eta_s: goes_on(moving, &waits).then(|| eta_s(manager, left_bytes)).flatten(),
        waits,
    })
}

/// What keeps a rebalance from going on; nothing while it moves.
fn rebalance_waits(manager: &Manager, progress: &Progress) -> Vec<String> {
    if !progress.moving.is_empty() {
        return Vec::new();
    }
    let paused = manager.wishes.pause(manager.now_ms()).map(|_| "an operator has paused repair, and copies with it");
    if !progress.is_counted {
        return paused.into_iter().chain(["what is to move is being counted"]).map(str::to_owned).collect();
    }
    let mut waits: Vec<String> = Vec::new();
    if !progress.waiting.is_empty() {
        let others = if manager.progress().repair_waits { "repairs come first" } else { "other copies are under way" };
        waits.push(paused.unwrap_or(others).to_owned());
    }
    let mut reasons: BTreeMap<String, u64> = progress.held_back.clone();
    for (_, why) in &progress.undone {
        *reasons.entry(format!("{why}; it is tried again")).or_default() += 1;
    }
    waits.extend(reasons.iter().map(|(why, volumes)| of_volumes(why, *volumes)));
    waits
}

/// Drains and the rebalance in the list of work.
pub(crate) fn work(
    manager: &Manager,
    drains: &[DrainRow],
    rebalance: Option<&RebalanceRow>,
    on_leaving: &[Volume],
) -> Vec<WorkSummary> {
    let (_, running) = manager.moves.steps();
    let drained = running.iter().filter(|step| step.reason == MoveReason::Drain).count() as u64;
    let left = on_leaving.iter().filter(|volume| !is_hollow(volume)).count() as u64;
    let left_bytes = on_leaving.iter().filter_map(|volume| volume.length).sum();
    let summary = |kind: &str, running: u64, left: u64, bytes: u64, eta_s: Option<u64>| WorkSummary {
        kind: kind.to_owned(),
        running,
        waiting: left.saturating_sub(running),
        bytes_left: Some(bytes),
        bytes_s: manager.move_rate.bytes_s(),
        eta_s: eta_s.map(|seconds| seconds as f64),
    };
    let drain_eta_s = drains.iter().filter_map(|row| row.eta_s).max();
    let drain = (left > 0).then(|| summary("drain", drained, left, left_bytes, drain_eta_s));
    let rebalance = rebalance.map(|row| summary("rebalance", row.moving, row.left, row.left_bytes, row.eta_s));
    drain.into_iter().chain(rebalance).collect()
}

/// At the pace of the moves since the start.
fn eta_s(manager: &Manager, bytes: u64) -> Option<u64> {
    manager.move_rate.bytes_s().filter(|rate| *rate > 0.0).map(|rate| (bytes as f64 / rate).ceil() as u64)
}
