//! `GET /metrics`: the disks' own counters, read when asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::response::IntoResponse;
use holdfast_libs_telemetry::{METRICS_CONTENT_TYPE, render_metrics};
use holdfast_node_client::DiskState;
use holdfast_node_engine::DiskStatus;
use http::header::CONTENT_TYPE;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::Node;

type Labels = [(&'static str, String); 1];

/// `GET /metrics`
pub(crate) async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let statuses: Vec<DiskStatus> = node.disks.iter().map(holdfast_node_engine::Disk::status).collect();
    let mut registry = Registry::with_prefix("holdfast_node");
    let mut counter = |name: &str, help: &str, value: fn(&DiskStatus) -> u64| {
        let family = Family::<Labels, Counter>::default();
        for status in &statuses {
            family.get_or_create(&[("disk", status.id.to_string())]).inc_by(value(status));
        }
        registry.register(name, help, family);
    };
    counter("disk_reads", "Read I/Os", |disk| disk.counters.reads);
    counter("disk_read_bytes", "Bytes read", |disk| disk.counters.read_bytes);
    counter("disk_writes", "Durable write I/Os", |disk| disk.counters.writes);
    counter("disk_written_bytes", "Bytes written", |disk| disk.counters.written_bytes);
    counter("disk_read_errors", "Reads the system failed", |disk| disk.counters.read_errors);
    counter("disk_write_errors", "Writes the system failed", |disk| disk.counters.write_errors);
    counter("disk_busy", "Operations answered busy", |disk| disk.counters.busy);
    counter("disk_damaged", "Records or batches found damaged", |disk| disk.counters.damaged);
    counter("disk_appends", "Appends acknowledged", |disk| disk.counters.appends);
    let mut gauge = |name: &str, help: &str, value: fn(&DiskStatus) -> u64| {
        let family = Family::<Labels, Gauge<u64, AtomicU64>>::default();
        for status in &statuses {
            family.get_or_create(&[("disk", status.id.to_string())]).set(value(status));
        }
        registry.register(name, help, family);
    };
    gauge("disk_slots", "Slots", |disk| disk.slots.into());
    gauge("disk_free_slots", "Slots that hold no extent", |disk| disk.free_slots.into());
    gauge("disk_in_flight", "Operations not yet answered", |disk| disk.in_flight as u64);
    gauge("disk_healthy", "1 when the disk takes reads and writes", |disk| {
        u64::from(crate::disks::state(&disk.state).0 == DiskState::Healthy)
    });
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], render_metrics(&registry))
}
