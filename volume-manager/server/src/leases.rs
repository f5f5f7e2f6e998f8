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
use holdfast_libs_types::{DiskId, InstanceId, VolumeId, WriteEpoch};
use holdfast_node_client::{CreateExtent, code as node_code};
use holdfast_volume_manager_catalog::{CatalogError, InsertError, NewVolume, VolumeState};
use holdfast_volume_manager_client::{LeaseRequest, LeasedVolume, RenewRequest, Replica, SealAsk, SealState, code};
use holdfast_volume_manager_planner::{COPIES, PlacementError, choose_disks};
use http::StatusCode;
use serde_json::{Value, json};

use crate::error::answer;
use crate::inventory::{DISTINCT, Snapshot};
use crate::keyring;
use crate::manager::{self, Manager, within};
use crate::room;
use crate::routes::Message;

/// How often other disks are tried before the frontend is told to come again.
const ATTEMPTS: usize = 4;

const CREATE_LIMIT: Duration = Duration::from_secs(5);

const LOST: &str = "the catalog was lost or restored from an older copy; nothing is leased and no order about disks and nodes is taken \
                    until an operator has it rebuilt from the disks: `holdfast admin catalog rebuild`";

/// Most disks a lease may leave out.
const MAX_AVOID: usize = 1000;

/// Most volumes one renewal may name.
const MAX_RENEWALS: usize = 1000;

/// What every call of a frontend, and every order about disks and nodes, is answered while the catalog is not whole.
pub(crate) fn lost() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::CATALOG_LOST, LOST)
}

pub(crate) async fn lease(
    State(manager): State<Arc<Manager>>,
    Message(request): Message<LeaseRequest>,
) -> Result<Json<LeasedVolume>, ApiError> {
    if request.avoid.len() > MAX_AVOID {
        return Err(ApiError::bad_request(format!("a lease avoids at most {MAX_AVOID} disks")));
    }
    // On its own: a caller that hangs up must not leave a volume half made. Its lease runs out unused.
    let made = manager.tasks.spawn(make(Arc::clone(&manager), request));
    made.await.map_err(|error| ApiError::internal(error.to_string()))?.map(Json)
}

async fn make(manager: Arc<Manager>, request: LeaseRequest) -> Result<LeasedVolume, ApiError> {
    let mut avoid = request.avoid.clone();
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let (new, replicas) = place(&manager, request.frontend, &avoid).await?;
        let created = manager.catalog.table.create_volume(manager.term, &new).await;
        created.map_err(|error| answer(&error))?;
        let mut failed = create_extents(&manager, new.volume, &replicas).await;
        if failed.is_empty() {
            failed = keyring::ensure(&manager, &replicas).await.map_err(|error| answer(&error))?;
        }
        if failed.is_empty() {
            open(&manager, new.volume).await?;
            manager.metrics.leases.inc();
            return Ok(LeasedVolume {
                volume: new.volume,
                epoch: new.epoch,
                replicas,
                capacity: new.capacity,
                lease_ms: manager.config.timing.lease_ms,
            });
        }
        for (disk, error) in failed {
            tracing::warn!(volume = %new.volume, %disk, %error, "no replica on this disk");
            last = format!("disk {disk}: {error}");
            if error.code() == Some(node_code::NO_SPACE) {
                manager.liveness().no_slot(disk);
            } else {
                avoid.push(disk);
            }
        }
        give_up(&manager, new.volume, &last).await?;
    }
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", format!("no volume could be made: {last}")))
}

/// Chooses disks for a new volume.
async fn place(manager: &Manager, holder: InstanceId, avoid: &[DiskId]) -> Result<(NewVolume, Vec<Replica>), ApiError> {
    let snapshot = manager.snapshot().await.map_err(|error| answer(&error))?;
    let random = manager.surroundings.ids.draw().map_err(|error| ApiError::internal(error.to_string()))?;
    let volume = VolumeId::from_parts(manager.generation, random);
    let disks = choose_disks(&snapshot.planner(), volume, avoid, COPIES, DISTINCT)
        .map_err(|error| refused(&snapshot, &error))?;
    let replicas = disks.iter().filter_map(|disk| snapshot.replica(*disk)).collect();
    let sizes = disks.iter().filter_map(|disk| snapshot.disk(*disk)).map(|view| view.disk.info.volume_bytes);
    let mut liveness = manager.liveness();
    for disk in &disks {
        liveness.take_slot(*disk);
    }
    let new = NewVolume {
        volume,
        epoch: WriteEpoch(1),
        capacity: sizes.min().unwrap_or(0),
        disks,
        holder,
        lease_expires_ms: manager.now_ms() + manager.config.timing.lease_ms,
    };
    Ok((new, replicas))
}

fn refused(snapshot: &Snapshot, error: &PlacementError) -> ApiError {
    let (status, code) = match error {
        PlacementError::Full { .. } => (StatusCode::INSUFFICIENT_STORAGE, code::CELL_FULL),
        PlacementError::TooFewDomains { .. } => (StatusCode::SERVICE_UNAVAILABLE, code::TOO_FEW_DOMAINS),
    };
    ApiError::new(status, code, room::explained(snapshot, error))
}

/// Step 2: an extent on each disk. Answers those that failed.
async fn create_extents(manager: &Manager, volume: VolumeId, replicas: &[Replica]) -> Vec<(DiskId, CallError)> {
    let calls = replicas.iter().map(|replica| async {
        let node = manager.node(&replica.address);
        let request = CreateExtent { disk: replica.disk, volume, epoch: WriteEpoch(1), term: manager.term.0 };
        (replica.disk, within(CREATE_LIMIT, &replica.address, node.create_extent(&request)).await)
    });
    let answers = join_all(calls).await;
    answers.into_iter().filter_map(|(disk, answer)| answer.err().map(|error| (disk, error))).collect()
}

/// Steps 3 and 4: the fence row, then the state.
async fn open(manager: &Manager, volume: VolumeId) -> Result<(), ApiError> {
    let (catalog, term) = (&manager.catalog, manager.term);
    let opened = match catalog.index.create_fence(volume, WriteEpoch(1)).await {
        Ok(()) => catalog.table.open_volume(term, volume).await,
        Err(InsertError::Catalog(error)) => Err(error),
        // It was given up meanwhile, by a newer leader or because it took too long.
        Err(InsertError::Fenced(_)) => match catalog.table.term().await {
            Ok(current) if current != term => Err(CatalogError::StaleTerm { given: term, current }),
            Ok(_) => Err(CatalogError::WrongState { volume, state: VolumeState::Failed, wanted: "creating" }),
            Err(error) => Err(error),
        },
    };
    opened.map_err(|error| answer(&error))
}

async fn give_up(manager: &Manager, volume: VolumeId, reason: &str) -> Result<(), ApiError> {
    let given_up = match manager.catalog.table.volume(volume).await {
        Ok(Some(volume)) if volume.state == VolumeState::Creating => {
            manager::give_up(&manager.catalog, manager.term, &volume, reason).await
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    given_up.map_err(|error| answer(&error))
}

pub(crate) async fn renew(
    State(manager): State<Arc<Manager>>,
    Message(request): Message<RenewRequest>,
) -> Result<Json<Value>, ApiError> {
    if request.volumes.len() > MAX_RENEWALS {
        return Err(ApiError::bad_request(format!("a renewal names at most {MAX_RENEWALS} volumes")));
    }
    let expires = manager.now_ms() + manager.config.timing.lease_ms;
    let table = &manager.catalog.table;
    let kept = table
        .renew_leases(manager.term, request.frontend, &request.volumes, expires)
        .await
        .map_err(|error| answer(&error))?;
    Ok(Json(json!({ "kept": kept })))
}

pub(crate) async fn seal(
    State(manager): State<Arc<Manager>>,
    Message(request): Message<SealAsk>,
) -> Result<Json<SealState>, ApiError> {
    let reason = match (&request.failed_disk, &request.reason) {
        (Some(disk), Some(reason)) => format!("disk {disk} failed the writer: {reason}"),
        (Some(disk), None) => format!("disk {disk} failed the writer"),
        (None, Some(reason)) => reason.clone(),
        (None, None) => "the writer is done with it".to_owned(),
    };
    let table = &manager.catalog.table;
    table.begin_seal(manager.term, request.volume, request.epoch, &reason).await.map_err(|error| answer(&error))?;
    manager.wake.notify_one();
    let row = table.volume(request.volume).await.map_err(|error| answer(&error))?;
    let state = row.map_or(VolumeState::Sealing, |row| row.state);
    Ok(Json(SealState { state: state.as_str().to_owned() }))
}
