//! Counters, and how they are served. `docs/metrics.md` lists every name.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use holdfast_libs_telemetry::{METRICS_CONTENT_TYPE, render_metrics};
use http::header::CONTENT_TYPE;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::manager::Manager;

/// What was done since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub leases: Counter,
    pub seals: Counter,
    pub repairs: Counter,
    pub failed_repairs: Counter,
    pub readmitted: Counter,
    pub restored: Counter,
    pub moves: Counter,
    pub failed_moves: Counter,
    pub trashed: Counter,
}

pub(crate) async fn metrics(State(manager): State<Arc<Manager>>) -> impl IntoResponse {
    let metrics = &manager.metrics;
    let mut registry = Registry::with_prefix("holdfast_volume_manager");
    registry.register("leases", "Volumes leased", metrics.leases.clone());
    registry.register("seals", "Volumes sealed", metrics.seals.clone());
    registry.register("repairs", "Replicas made again", metrics.repairs.clone());
    registry.register("readmitted", "Replicas that came back and were verified", metrics.readmitted.clone());
    registry.register("restored", "Replicas taken out of the trash instead of copied", metrics.restored.clone());
    registry.register("moves", "Replicas moved", metrics.moves.clone());
    registry.register("failed_moves", "Moves whose copy failed", metrics.failed_moves.clone());
    registry.register("trashed", "Extents ordered into the trash", metrics.trashed.clone());
    registry.register("failed_repairs", "Copies that failed", metrics.failed_repairs.clone());
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], render_metrics(&registry))
}
