//! `GET /v1/health`: whether the node can do its work, and if not, why. `/healthz` only says that the process
//! lives, `/readyz` that anything can be read.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use holdfast_node_client::{DiskState, Health, HealthState};
use http::StatusCode;

use crate::Node;
use crate::disks::{Cause, Disks, state};

/// `GET /v1/health`
pub(crate) async fn health(State(node): State<Arc<Node>>) -> Json<Health> {
    Json(judge(&node.disks, node.registered.load(Ordering::Relaxed)))
}

/// `GET /readyz`: 200 while anything can be read here, 503 otherwise. Tells no more, as it asks for no token.
pub(crate) async fn ready(State(node): State<Arc<Node>>) -> (StatusCode, &'static str) {
    match judge(&node.disks, true).state {
        HealthState::Ok | HealthState::Degraded => (StatusCode::OK, "ready"),
        HealthState::Failed => (StatusCode::SERVICE_UNAVAILABLE, "no disk can be read"),
    }
}

fn judge(disks: &Disks, registered: bool) -> Health {
    let mut reasons = Vec::new();
    let mut serving = 0;
    for disk in disks.open() {
        let status = disk.engine().status();
        let (state, why) = state(&status.state);
        let name = format!("disk {} ({})", status.id, disk.path.display());
        match (state, disk.stalled()) {
            (DiskState::Failed, _) => reasons.push(format!("{name} has failed: {}", why.unwrap_or_default())),
            (_, Some(stalled)) => reasons.push(format!("{name} has stalled: {stalled}")),
            (DiskState::ReadOnly, None) => {
                serving += 1;
                reasons.push(format!("{name} takes no writes: {}", why.unwrap_or_default()));
            }
            (DiskState::Healthy, None) => serving += 1,
        }
        if let Some(suspect) = disk.suspect() {
            reasons.push(format!("{name} is suspected to be failing: {suspect}"));
        }
        for breach in disk.smart.answer().breaches {
            reasons.push(format!("{name} tells of itself (SMART): {breach}"));
        }
        if status.erase_alarms > 0 {
            reasons.push(format!("{name}: {} erasures that nobody ordered were stopped", status.erase_alarms));
        }
        if status.slots_by_state.damaged > 0 {
            let count = status.slots_by_state.damaged;
            reasons.push(format!("{name} has {count} damaged {}", if count == 1 { "extent" } else { "extents" }));
        }
        if status.lost_slots > 0 {
            reasons.push(format!(
                "{name} has {} slots out of use (their headers, or their disk zones, are damaged)",
                status.lost_slots
            ));
        }
    }
    reasons.extend(disks.gone().into_iter().map(|gone| format!("disk {} is gone: {}", gone.status.id, gone.reason)));
    let unusable = disks.unusable().into_iter().filter(|disk| disk.cause != Cause::Unformatted);
    reasons.extend(unusable.map(|disk| disk.reason));
    reasons.extend(disks.fewer_than_expected());
    if !registered {
        reasons.push("the volume manager does not answer".to_owned());
    }
    let state = match (serving, reasons.is_empty()) {
        (0, _) => HealthState::Failed,
        (_, true) => HealthState::Ok,
        (_, false) => HealthState::Degraded,
    };
    if serving == 0 {
        reasons.insert(0, "no disk can be read".to_owned());
    }
    Health { state, reasons }
}
