//! Leases: a frontend asks for a volume, keeps it alive, and says when it is done with it.
//!
//! The four steps of `docs/protocols.md`, "Lease". A volume that cannot be made on the disks chosen is given up and
//! another one tried; no frontend ever saw it, so it holds nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use futures_util::future::join_all;
use holdfast_libs_transport::{ApiError, CallError};
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, code as node_code};
use holdfast_volume_manager_catalog::{InsertError, NewVolume, VolumeState};
use holdfast_volume_manager_client::{LeaseRequest, LeasedVolume, RenewRequest, Replica, SealAsk, SealState, code};
use holdfast_volume_manager_planner::{COPIES, PlacementError, choose_disks};
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::answer;
use crate::manager::{Manager, now_ms, within};

/// How often other disks are tried before the frontend is told to come again.
const ATTEMPTS: usize = 4;

const CREATE_LIMIT: Duration = Duration::from_secs(5);

/// Most volumes one renewal may name.
const MAX_RENEWALS: usize = 1000;

pub(crate) async fn lease(
    State(manager): State<Arc<Manager>>,
    Json(request): Json<LeaseRequest>,
) -> Result<Json<LeasedVolume>, ApiError> {
    let mut avoid = request.avoid.clone();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
        let random = holdfast_libs_crypto::random().map_err(|error| ApiError::internal(error.to_string()))?;
        let volume = VolumeId::from_parts(manager.generation, random);
        let disks = choose_disks(&snapshot.planner(), volume, &avoid, COPIES).map_err(|error| refused(&error))?;
        let replicas: Vec<Replica> = disks.iter().filter_map(|disk| snapshot.replica(*disk)).collect();
        let sizes = disks.iter().filter_map(|disk| snapshot.disk(*disk)).map(|view| view.disk.info.volume_bytes);
        let new = NewVolume {
            volume,
            epoch: WriteEpoch(1),
            disks: disks.clone(),
            holder: request.frontend,
            lease_expires_ms: now_ms() + manager.config.timing.lease_ms,
            capacity: sizes.min().unwrap_or(0),
        };
        let capacity = new.capacity;
        manager
            .catalog(move |catalog, term| catalog.table.create_volume(term, &new))
            .await
            .map_err(|error| answer(&error))?;
        match create_extents(&manager, volume, &replicas).await {
            Ok(()) => {
                open(&manager, volume).await?;
                manager.metrics.leases.inc();
                let lease_ms = manager.config.timing.lease_ms;
                let epoch = WriteEpoch(1);
                return Ok(Json(LeasedVolume { volume, epoch, replicas, capacity, lease_ms }));
            }
            Err(failed) => {
                for (disk, error) in failed {
                    tracing::warn!(%volume, %disk, %error, "extent not made");
                    last = format!("disk {disk}: {error}");
                    avoid.push(disk);
                }
                give_up(&manager, volume, &last).await?;
            }
        }
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", format!("no volume could be made: {last}")))
}

fn refused(error: &PlacementError) -> ApiError {
    let (status, code) = match error {
        PlacementError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, code::CELL_FULL),
        PlacementError::TooFewDomains { .. } => (StatusCode::SERVICE_UNAVAILABLE, code::TOO_FEW_DOMAINS),
    };
    ApiError::new(status, code, error.to_string())
}

/// Step 2: an extent on each disk.
async fn create_extents(
    manager: &Manager,
    volume: VolumeId,
    replicas: &[Replica],
) -> Result<(), Vec<(DiskId, CallError)>> {
    let calls = replicas.iter().map(|replica| async {
        let node = manager.node(&replica.address);
        let request = CreateExtent { disk: replica.disk, volume, epoch: WriteEpoch(1), term: manager.term.0 };
        (replica.disk, within(CREATE_LIMIT, node.create_extent(&request)).await)
    });
    let answers = join_all(calls).await;
    let failed: Vec<_> = answers
        .into_iter()
        .filter_map(|(disk, answer)| answer.err().map(|error| (disk, error)))
        .filter(|(_, error)| error.code() != Some(node_code::ALREADY_EXISTS))
        .collect();
    if failed.is_empty() { Ok(()) } else { Err(failed) }
}

/// Steps 3 and 4: the fence row, then the state.
async fn open(manager: &Manager, volume: VolumeId) -> Result<(), ApiError> {
    manager
        .catalog(move |catalog, term| match catalog.index.create_fence(volume, WriteEpoch(1)) {
            Ok(()) => catalog.table.open_volume(term, volume),
            Err(InsertError::Catalog(error)) => Err(error),
            // Only a newer leader closes the fence of a volume that is being made.
            Err(InsertError::Fenced(_)) => Err(catalog_stale(catalog, term)),
        })
        .await
        .map_err(|error| answer(&error))
}

fn catalog_stale(
    catalog: &crate::manager::Catalog,
    term: holdfast_volume_manager_catalog::Term,
) -> holdfast_volume_manager_catalog::CatalogError {
    match catalog.table.term() {
        Ok(current) => holdfast_volume_manager_catalog::CatalogError::StaleTerm { given: term, current },
        Err(error) => error,
    }
}

/// Closes the fence first: whatever happens to the table's row then, nothing can point into the volume.
async fn give_up(manager: &Manager, volume: VolumeId, reason: &str) -> Result<(), ApiError> {
    let reason = reason.to_owned();
    manager
        .catalog(move |catalog, term| {
            catalog.index.close_fence(volume, WriteEpoch(2))?;
            catalog.table.fail_volume(term, volume, &reason)
        })
        .await
        .map_err(|error| answer(&error))
}

pub(crate) async fn renew(
    State(manager): State<Arc<Manager>>,
    Json(request): Json<RenewRequest>,
) -> Result<Json<Value>, ApiError> {
    if request.volumes.len() > MAX_RENEWALS {
        return Err(ApiError::bad_request(format!("a renewal names at most {MAX_RENEWALS} volumes")));
    }
    let expires = now_ms() + manager.config.timing.lease_ms;
    let kept = manager
        .catalog(move |catalog, term| catalog.table.renew_leases(term, request.frontend, &request.volumes, expires))
        .await
        .map_err(|error| answer(&error))?;
    Ok(Json(json!({ "kept": kept })))
}

pub(crate) async fn seal(
    State(manager): State<Arc<Manager>>,
    Json(request): Json<SealAsk>,
) -> Result<Json<SealState>, ApiError> {
    let reason = match (&request.failed_disk, &request.reason) {
        (Some(disk), Some(reason)) => format!("disk {disk} failed the writer: {reason}"),
        (Some(disk), None) => format!("disk {disk} failed the writer"),
        (None, Some(reason)) => reason.clone(),
        (None, None) => "the writer is done with it".to_owned(),
    };
    let state = manager
        .catalog(move |catalog, term| {
            catalog.table.begin_seal(term, request.volume, request.epoch, &reason)?;
            Ok(catalog.table.volume(request.volume)?.map_or(VolumeState::Sealing, |row| row.state))
        })
        .await
        .map_err(|error| answer(&error))?;
    manager.wake.notify_one();
    Ok(Json(SealState { state: state.as_str().to_owned() }))
}
