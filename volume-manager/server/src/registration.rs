//! Nodes announce themselves and their disks, and say every second that they live.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_catalog::{CatalogError, DiskInfo, Node, Registration};
use holdfast_volume_manager_client::{
    Background, DiskReport, Heartbeat, HeartbeatAnswer, Register, RegisterAnswer, RegisteredDisk, UnusableDisk, code,
};
use http::StatusCode;
use tokio::time::Instant;

use crate::error::answer;
use crate::forgotten::{self, Forgotten};
use crate::liveness::Heard;
use crate::manager::Manager;
use crate::routes::Message;

/// Most disks one node may report.
const MAX_DISKS: usize = 1000;

/// Longest name of a node or zone.
const MAX_NAME_BYTES: usize = 200;

pub(crate) async fn register(
    State(manager): State<Arc<Manager>>,
    Message(request): Message<Register>,
) -> Result<Json<RegisterAnswer>, ApiError> {
    check(&manager, &request)?;
    manager.highest_term.fetch_max(request.term, Ordering::Relaxed);
    let known = manager.catalog.table.disks().await.map_err(|error| answer(&error))?;
    let owners: HashMap<DiskId, NodeId> = known.into_iter().map(|disk| (disk.info.disk, disk.info.node)).collect();
    let forgotten = Forgotten::read(&manager).await.map_err(|error| answer(&error))?;
    if let Some(refused) =
        suspect_loss(&manager, &request, &owners, &forgotten).await.map_err(|error| answer(&error))?
    {
        return Err(refused);
    }
    let judged = judge(&manager, &request, &owners).await.map_err(|error| answer(&error))?;
    {
        // Together: no copy may go to a disk that is in service again before its audit is asked for.
        let mut progress = manager.progress();
        note(&manager, &request, &judged, &owners);
        progress.audits.insert(request.node.clone(), Instant::now());
        // What failed may have been the node that is gone.
        progress.failed_copies.retain(|(_, disk), _| request.disks.iter().all(|report| report.disk != *disk));
    }
    for back in judged.iter().filter(|judged| judged.accepted && forgotten.contains(judged.disk)) {
        forgotten::is_back(&manager, back.disk).await.map_err(|error| answer(&error))?;
    }
    let new = judged.iter().filter(|judged| judged.accepted && !owners.contains_key(&judged.disk)).count();
    tracing::info!(node = %request.node, zone = request.zone, disks = judged.len(), new, "node registered");
    manager.returned.notify_waiters();
    manager.wake.notify_one();
    let heartbeat_ms = manager.config.timing.heartbeat_ms;
    Ok(Json(RegisterAnswer { disks: judged, term: manager.term.0, heartbeat_ms }))
}

/// Whether a registration shows that the catalog is not the one that this cell had: nodes that obeyed a later leader than it
/// ever had, or disks that were registered before, and not forgotten since, while it knows of no volume at all. It is marked as lost then, before
/// anything rests on it, and this leadership begins anew; the answer is for the node, which tries again.
async fn suspect_loss(
    manager: &Manager,
    request: &Register,
    owners: &HashMap<DiskId, NodeId>,
    forgotten: &Forgotten,
) -> Result<Option<ApiError>, CatalogError> {
    if manager.lost.is_some() {
        return Ok(None);
    }
    let table = &manager.catalog.table;
    let had_a_life =
        |report: &&DiskReport| report.previous_nonce != 0 || (report.nonce == 0 && report.incarnation != 0);
    let is_stranger = |report: &&DiskReport| !owners.contains_key(&report.disk) && !forgotten.explains(report);
    let stranger = request.disks.iter().filter(had_a_life).find(is_stranger);
    let why = if request.term > manager.term.0 {
        let current = table.term().await?;
        if current != manager.term {
            return Err(CatalogError::StaleTerm { given: manager.term, current });
        }
        format!("node {} obeyed term {}, and this catalog is at {current}", request.node, request.term)
    } else if let Some(stranger) = stranger
        && table.volumes().await?.is_empty()
    {
        format!("disk {} was registered before, and it knows no volume", stranger.disk)
    } else {
        return Ok(None);
    };
    tracing::error!(why, "the catalog looks lost, or restored from an older copy");
    table.mark_lost(manager.term, &why).await?;
    manager.begin_anew();
    let message = "this volume manager has just found its catalog lost; register again";
    Ok(Some(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::CATALOG_LOST, message)))
}

/// Accepts or refuses each disk's incarnation, and writes those that are accepted.
async fn judge(
    manager: &Manager,
    request: &Register,
    owners: &HashMap<DiskId, NodeId>,
) -> Result<Vec<RegisteredDisk>, CatalogError> {
    let elsewhere: Vec<Option<String>> = {
        let liveness = manager.liveness();
        let now = Instant::now();
        let live = |disk: DiskId, owner: &&NodeId| {
            **owner != request.node && liveness.may_live_at(disk, owner, now, &manager.config.timing)
        };
        let why = |report: &DiskReport| {
            let owner = owners.get(&report.disk).filter(|owner| live(report.disk, owner))?;
            let disk = report.disk;
            Some(format!(
                "disk {disk} is in use at node {owner}: this is a clone of it; if the disk itself was moved here, it is taken in \
                 once that node does not report it any more"
            ))
        };
        request.disks.iter().map(why).collect()
    };
    let gone: Vec<bool> = request.disks.iter().map(|report| is_own_and_gone(report, request, owners)).collect();
    let row = Node {
        node: request.node.clone(),
        zone: request.zone.clone(),
        rack: request.rack.clone(),
        address: request.address.clone(),
        instance: request.instance,
        last_seen_ms: manager.now_ms(),
    };
    let (node, reports) = (request.node.clone(), request.disks.clone());
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    let write = async move {
        table.upsert_node(term, &row).await?;
        let mut judged = Vec::with_capacity(reports.len());
        for ((report, elsewhere), gone) in reports.iter().zip(elsewhere).zip(gone) {
            let info = info(&node, report);
            // The node that has it now may let go of it.
            let retry = elsewhere.is_some();
            let reason = match elsewhere {
                Some(reason) => Some(reason),
                None if gone => None,
                // A disk that takes no writes cannot show that it is not a copy.
                None if report.nonce == 0 => Some(format!(
                    "disk {} could not write a new incarnation: {}",
                    report.disk,
                    report.reason.as_deref().unwrap_or("its node gave no reason")
                )),
                None => {
                    let (previous, nonce) = (report.previous_nonce, report.nonce);
                    let registered = table.register_disk_incarnation(term, &info, previous, report.incarnation, nonce);
                    match registered.await? {
                        Registration::Accepted => None,
                        Registration::Refused(reason) => Some(reason),
                    }
                }
            };
            judged.push(RegisteredDisk { disk: report.disk, accepted: reason.is_none(), reason, retry });
        }
        Ok(judged)
    };
    manager.to_the_end(write).await
}

/// Whether a disk of this very node is not in its place any more: nothing is there to be judged, and it is waited for.
fn is_own_and_gone(report: &DiskReport, request: &Register, owners: &HashMap<DiskId, NodeId>) -> bool {
    report.state == "gone" && owners.get(&report.disk) == Some(&request.node)
}

/// Notes who was heard, and of which disks. A refused disk of this very node's is not the one the catalog knows, so that one
/// is not here: it counts as failed. A refused disk that is another node's says nothing about that node's; it is told as one
/// that this node cannot use.
fn note(manager: &Manager, request: &Register, judged: &[RegisteredDisk], owners: &HashMap<DiskId, NodeId>) {
    let mine = |judged: &RegisteredDisk| {
        judged.accepted || owners.get(&judged.disk).is_none_or(|owner| *owner == request.node)
    };
    let reports: Vec<DiskReport> =
        request.disks.iter().zip(judged).filter(|(_, judged)| mine(judged)).map(|(report, _)| report.clone()).collect();
    let copy = |(report, judged): (&DiskReport, &RegisteredDisk)| {
        let reason = judged.reason.clone().filter(|_| !mine(judged))?;
        let (path, cause) = (report.path.clone(), "duplicate".to_owned());
        Some((report.disk, UnusableDisk { path, cause, reason }))
    };
    let now = Instant::now();
    let heard = Heard {
        instance: request.instance,
        address: request.address.clone(),
        registered: now,
        at: now,
        unusable: bounded(&request.unusable),
        copies: request.disks.iter().zip(judged).filter_map(copy).collect(),
    };
    let mut liveness = manager.liveness();
    liveness.hear(&request.node, heard, &reports);
    for (report, disk) in request.disks.iter().zip(judged) {
        if let Some(reason) = &disk.reason {
            tracing::warn!(disk = %disk.disk, node = %request.node, reason, "disk refused");
        }
        if mine(disk) && !is_own_and_gone(report, request, owners) {
            liveness.judge(disk.disk, disk.reason.clone());
        }
    }
}

/// As much of it as is kept in memory.
fn bounded(unusable: &[UnusableDisk]) -> Vec<UnusableDisk> {
    unusable.iter().take(MAX_DISKS).cloned().collect()
}

fn check(manager: &Manager, request: &Register) -> Result<(), ApiError> {
    if request.cell != manager.config.cell {
        let message = format!(
            "node {} belongs to cell {}, this is cell {}; check `cell` in its configuration",
            request.node, request.cell, manager.config.cell
        );
        return Err(ApiError::new(StatusCode::CONFLICT, code::WRONG_CELL, message));
    }
    if request.disks.len() > MAX_DISKS {
        return Err(ApiError::bad_request(format!("a node has at most {MAX_DISKS} disks")));
    }
    for (what, name) in [("name", &request.node.0), ("zone", &request.zone)] {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(ApiError::bad_request(format!("a node's {what} has 1 to {MAX_NAME_BYTES} bytes")));
        }
    }
    if request.rack.len() > MAX_NAME_BYTES {
        return Err(ApiError::bad_request(format!("a node's rack has at most {MAX_NAME_BYTES} bytes")));
    }
    if !request.address.starts_with("https://") {
        return Err(ApiError::bad_request(format!("a node's address is https://HOST:PORT, not {}", request.address)));
    }
    let liveness = manager.liveness();
    let silence = liveness.silence(&request.node, Instant::now());
    match liveness.node(&request.node) {
        // The same address means the same place: that process was started again.
        Some(known)
            if known.instance != request.instance
                && known.address != request.address
                && silence < manager.config.timing.suspect() =>
        {
            let message =
                format!("a node called {} is alive at {}; give this one another name", request.node, known.address);
            Err(ApiError::new(StatusCode::CONFLICT, code::DUPLICATE_NODE, message))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn heartbeat(
    State(manager): State<Arc<Manager>>,
    Message(request): Message<Heartbeat>,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    let term = manager.term.0;
    let (changed, worse, harmed) = {
        // Together, as in a registration.
        let mut progress = manager.progress();
        let mut liveness = manager.liveness();
        let Some(known) = liveness.node(&request.node).filter(|known| known.instance == request.instance) else {
            return Ok(Json(HeartbeatAnswer { register: true, term, background: None }));
        };
        let mut heard = Heard { at: Instant::now(), unusable: bounded(&request.unusable), ..known.clone() };
        let is_there = |disk: DiskId| request.disks.iter().any(|report| report.disk == disk && report.state != "gone");
        heard.copies.retain(|(disk, _)| is_there(*disk));
        let reports: Vec<DiskReport> = liveness.own(&request.node, &request.disks).cloned().collect();
        let state = |report: &DiskReport| (report.state.clone(), report.reason.clone());
        let turned = |report: &&DiskReport| liveness.report(report.disk).map(state) != Some(state(report));
        let worse: Vec<DiskReport> = reports.iter().filter(turned).cloned().collect();
        let differs = |report: &&DiskReport| {
            turned(report) || liveness.report(report.disk).is_none_or(|known| known.free_slots != report.free_slots)
        };
        let changed: Vec<DiskReport> = reports.iter().filter(differs).cloned().collect();
        let harmed = reports.iter().any(|report| {
            liveness.report(report.disk).is_none_or(|known| known.damaged_extents != report.damaged_extents)
        });
        // It was silent for so long that something may have been done without it.
        if liveness.silence(&request.node, heard.at) > manager.config.timing.suspect() {
            progress.audits.insert(request.node.clone(), heard.at);
        }
        liveness.hear(&request.node, heard, &reports);
        (changed, worse, harmed)
    };
    for report in &worse {
        tracing::warn!(disk = %report.disk, state = report.state, reason = report.reason, "disk changed");
    }
    if !worse.is_empty() || harmed {
        manager.wake.notify_one();
    }
    let background =
        Background { max_client_impact: manager.max_client_impact(), copies: manager.copies_are_under_way() };
    let node = request.node;
    // What was heard is not written again by the next heartbeat.
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    let written = manager.to_the_end(async move {
        for report in changed {
            match table.upsert_disk(term, &info(&node, &report)).await {
                // It was registered elsewhere since.
                Ok(()) | Err(CatalogError::DiskElsewhere { .. } | CatalogError::UnknownDisk(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    written.await.map_err(|error| answer(&error))?;
    Ok(Json(HeartbeatAnswer { register: false, term: manager.term.0, background: Some(background) }))
}

fn info(node: &NodeId, report: &DiskReport) -> DiskInfo {
    DiskInfo {
        disk: report.disk,
        node: node.clone(),
        path: report.path.clone(),
        state: report.state.clone(),
        reason: report.reason.clone(),
        slot_bytes: report.slot_bytes,
        volume_bytes: report.volume_bytes,
        slots: report.slots,
        free_slots: report.free_slots,
    }
}
