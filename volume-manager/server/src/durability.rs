//! `POST /v1/durability`: how long the cell's data lasts on paper, from what the cell is, what its repairs reached, and
//! what the operator says of its disks. Every input is answered with where it comes from.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::told;
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{DurabilityAnswer, DurabilityAsk, DurabilityInput, code};
use holdfast_volume_manager_planner::{COPIES, DurabilityInputs, durability};
use http::StatusCode;

use crate::error::answer;
use crate::inventory::{DiskView, Snapshot};
use crate::manager::Manager;
use crate::reasons::not_whole;
use crate::routes::Message;
use crate::status::holds_something;

/// Share of the disks that fails within a year: the upper end of what operators of large fleets publish.
const YEARLY_FAILURES: f64 = 0.02;

/// Unreadable bits for each bit read, as the data sheets of large hard disks say.
const UNREADABLE_BITS: f64 = 1e-15;

/// Bytes a second that each disk gives to repair while none was measured: about a tenth of what a large hard disk reads in
/// sequence.
const REPAIR_BYTES_S: f64 = 20e6;

pub(crate) async fn on_paper(
    State(manager): State<Arc<Manager>>,
    Message(ask): Message<DurabilityAsk>,
) -> Result<Json<DurabilityAnswer>, ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let volumes = manager.catalog.table.volumes().await.map_err(|error| answer(&error))?;
    let measured = manager.repair_rate.bytes_s();
    let mut sources = Vec::new();
    let lost_s = manager.config.timing.lost().as_secs_f64();
    let inputs = gather(&snapshot, &volumes, &ask, lost_s, measured, &mut sources);
    if inputs.zones < COPIES as u64 {
        let (zones, disks) = (told::count(inputs.zones, "zone"), told::count(inputs.disks, "disk"));
        let message = format!(
            "the model has each of {COPIES} replicas in a zone of its own, and the {disks} in service stand in {zones}"
        );
        return Err(ApiError::new(StatusCode::CONFLICT, code::TOO_FEW_DOMAINS, message));
    }
    let found = durability(&inputs).map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(Json(DurabilityAnswer {
        catalog_lost: not_whole(&manager),
        stored_bytes: Some(stored_bytes(&volumes)),
        inputs: sources,
        mean_years_to_loss: found.mean_years_to_loss,
        yearly_loss: found.yearly_loss,
        yearly_share: found.yearly_share,
        nines: found.nines,
        repair_s: found.repair_s,
        urgent_repair_s: found.urgent_repair_s,
        shared_by_two: found.shared_by_two,
        third_disk_matters: found.third_disk_matters,
        last_replica_unreadable: found.last_replica_unreadable,
    }))
}

/// The model's inputs; each is told with its source.
fn gather(
    snapshot: &Snapshot,
    volumes: &[Volume],
    ask: &DurabilityAsk,
    lost_s: f64,
    measured: Option<f64>,
    told: &mut Vec<DurabilityInput>,
) -> DurabilityInputs {
    let counts = |view: &&DiskView| view.standing.keeps_replicas() && !view.leaving;
    let disks: Vec<&DiskView> = snapshot.disks.iter().filter(counts).collect();
    let zones: HashSet<&str> = disks.iter().map(|view| view.zone.as_str()).collect();
    let volume_bytes = disks.iter().map(|view| view.disk.info.volume_bytes).min().unwrap_or(0);
    let mut tell = |name: &str, value: f64, unit: &str, source: &str| {
        told.push(DurabilityInput { name: name.into(), value, unit: unit.into(), source: source.into() });
        value
    };
    tell("disks", disks.len() as f64, "", "counted: in service, those being drained left out");
    tell("zones", zones.len() as f64, "", "counted: with disks in service");
    let (on_a_disk, source) = if ask.full {
        let full = disks.iter().map(|view| view.disk.info.slots * view.disk.info.volume_bytes).sum::<u64>();
        (full, "asked: all slots in use")
    } else {
        (stored_bytes(volumes), "counted: held now")
    };
    // A cell that holds less than a volume on each disk is taken as one that does.
    let on_a_disk = (on_a_disk as f64 / disks.len().max(1) as f64).max(volume_bytes as f64);
    let rate = match (ask.repair_bytes_s, measured) {
        (Some(asked), _) => (asked, "given"),
        (None, Some(measured)) => (measured / disks.len().max(2) as f64, "measured since the volume manager started"),
        (None, None) => (REPAIR_BYTES_S, "assumed: no repair has run since the volume manager started"),
    };
    let given = |asked: Option<f64>, otherwise: f64| match asked {
        Some(asked) => (asked, "given"),
        None => (otherwise, "assumed"),
    };
    let (failures, bits) = (given(ask.yearly_failures, YEARLY_FAILURES), given(ask.unreadable_bits, UNREADABLE_BITS));
    DurabilityInputs {
        disks: disks.len() as u64,
        zones: zones.len() as u64,
        disk_bytes: tell("data on a disk", on_a_disk, "bytes", source),
        volume_bytes: tell("a volume", volume_bytes as f64, "bytes", "counted"),
        yearly_failures: tell("disks that fail in a year", failures.0, "share", failures.1),
        notice_s: tell("failure to first copy", lost_s, "s", "configured: timing.lost_ms"),
        repair_bytes_s: tell("repair by each disk", rate.0, "bytes/s", rate.1),
        unreadable_bits: tell("unreadable bits", bits.0, "for each read", bits.1),
    }
}

/// Of all replicas; of a volume without a length yet, what it may become.
fn stored_bytes(volumes: &[Volume]) -> u64 {
    let bytes = |volume: &Volume| volume.length.unwrap_or(volume.capacity) * volume.replicas.len() as u64;
    volumes.iter().filter(|volume| holds_something(volume)).map(bytes).sum()
}
