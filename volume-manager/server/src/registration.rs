//! Nodes announce themselves and their disks, and say every second that they live.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::NodeId;
use holdfast_volume_manager_catalog::{CatalogError, DiskInfo, Node, Registration};
use holdfast_volume_manager_client::{
    DiskReport, Heartbeat, HeartbeatAnswer, Register, RegisterAnswer, RegisteredDisk, code,
};
use http::StatusCode;

use crate::error::answer;
use crate::liveness::Heard;
use crate::manager::{Manager, now_ms};

/// Most disks one node may report.
const MAX_DISKS: usize = 1000;

pub(crate) async fn register(
    State(manager): State<Arc<Manager>>,
    Json(request): Json<Register>,
) -> Result<Json<RegisterAnswer>, ApiError> {
    check(&manager, &request)?;
    let row = Node {
        node: request.node.clone(),
        zone: request.zone.clone(),
        address: request.address.clone(),
        instance: request.instance,
        last_seen_ms: now_ms(),
    };
    let (node, reports) = (request.node.clone(), request.disks.clone());
    let judged = manager
        .catalog(move |catalog, term| {
            catalog.table.upsert_node(term, &row)?;
            let mut judged = Vec::new();
            for report in reports {
                let (previous, proposed) = (report.previous_nonce, report.nonce);
                let info = info(&node, &report);
                let table = &catalog.table;
                let result = table.register_disk_incarnation(term, &info, previous, report.incarnation, proposed)?;
                let reason = match result {
                    Registration::Accepted => None,
                    Registration::Refused(reason) => Some(reason),
                };
                judged.push(RegisteredDisk { disk: report.disk, accepted: reason.is_none(), reason });
            }
            Ok(judged)
        })
        .await
        .map_err(|error| answer(&error))?;
    let mut liveness = manager.liveness();
    let heard = Heard { instance: request.instance, address: request.address.clone(), at: Instant::now() };
    // A disk that was refused is another one than the catalog's: its report must not stand for that one.
    let accepted: Vec<DiskReport> = request
        .disks
        .iter()
        .zip(&judged)
        .filter(|(_, judged)| judged.accepted)
        .map(|(report, _)| report.clone())
        .collect();
    liveness.hear(&request.node, heard, &accepted);
    for disk in &judged {
        match &disk.reason {
            None => liveness.judge(disk.disk, None),
            Some(reason) => tracing::warn!(disk = %disk.disk, node = %request.node, reason, "disk refused"),
        }
    }
    drop(liveness);
    tracing::info!(node = %request.node, zone = request.zone, disks = judged.len(), "node registered");
    manager.progress().audits.insert(request.node);
    manager.wake.notify_one();
    let heartbeat_ms = manager.config.timing.heartbeat_ms;
    Ok(Json(RegisterAnswer { disks: judged, term: manager.term.0, heartbeat_ms }))
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
    Json(request): Json<Heartbeat>,
) -> Result<Json<HeartbeatAnswer>, ApiError> {
    let term = manager.term.0;
    let changed = {
        let mut liveness = manager.liveness();
        let Some(known) = liveness.node(&request.node).filter(|known| known.instance == request.instance) else {
            return Ok(Json(HeartbeatAnswer { register: true, term }));
        };
        let heard = Heard { at: Instant::now(), ..known.clone() };
        let mine = |report: &&DiskReport| liveness.report(report.disk).is_some();
        let reports: Vec<DiskReport> = request.disks.iter().filter(mine).cloned().collect();
        let differs = |report: &&DiskReport| {
            liveness.report(report.disk).is_none_or(|known| {
                (&known.state, &known.reason, known.free_slots) != (&report.state, &report.reason, report.free_slots)
            })
        };
        let changed: Vec<DiskReport> = reports.iter().filter(differs).cloned().collect();
        liveness.hear(&request.node, heard, &reports);
        changed
    };
    if changed.iter().any(|report| report.state != "healthy") {
        for report in &changed {
            tracing::warn!(disk = %report.disk, state = report.state, reason = report.reason, "disk changed");
        }
        manager.wake.notify_one();
    }
    let node = request.node;
    let written = manager.catalog(move |catalog, term| {
        for report in changed {
            match catalog.table.upsert_disk(term, &info(&node, &report)) {
                // A clone's report says nothing about the disk that the catalog knows.
                Ok(()) | Err(CatalogError::DiskElsewhere { .. } | CatalogError::UnknownDisk(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    });
    written.await.map_err(|error| answer(&error))?;
    Ok(Json(HeartbeatAnswer { register: false, term }))
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
