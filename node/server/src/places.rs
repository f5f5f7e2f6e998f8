//! The operator's calls about the places of disks: what stands there, the light of the bay, and taking a new disk into use.
//!
//! A device is made a disk only when it stands where the configuration wants one, is blank, and nobody uses it; the same is
//! looked at as for `holdfast admin disk format`, and what stands there is erased by no option.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use holdfast_node_client::{Adopted, LocateOrder, Located, Occupant, Place, PlaceAsk, code};
use holdfast_node_engine::{Consent, FormatOptions, Formatted};
use http::StatusCode;
use serde_json::json;

use crate::Node;
use crate::disks::{Cause, Look, Watcher};
use crate::format::{self, Device};
use crate::routes::json as message;

/// Runs what waits for disks off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(error.to_string()))
}

/// `POST /v1/places/look`: looks at once for disks that came or went.
pub(crate) async fn look(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Place>, ApiError> {
    let ask: PlaceAsk = message(body)?;
    let mut watcher = node.watcher.lock().await;
    watcher.look(Look::Asked).await;
    let (occupant, disk, reason) = occupant(&node, &watcher, Path::new(&ask.path))?;
    let (machine, profile, path) = (watcher.machine(), node.config.profile.clone(), PathBuf::from(&ask.path));
    drop(watcher);
    let (bay, no_light) = match blocking(move || machine.bay(profile.as_deref(), &path)).await? {
        Ok(bay) => (Some(bay.name.clone()), bay.no_light()),
        Err(why) => (None, Some(why)),
    };
    Ok(Json(Place { path: ask.path, occupant, disk, reason, bay, no_light }))
}

type Standing = (Occupant, Option<holdfast_libs_types::DiskId>, Option<String>);

/// What stands at a path that the configuration wants a disk at.
fn occupant(node: &Node, watcher: &Watcher, path: &Path) -> Result<Standing, ApiError> {
    if let Some(disk) = node.disks.open().into_iter().find(|disk| disk.path == path) {
        return Ok((Occupant::Disk, Some(disk.id()), None));
    }
    if let Some(found) = node.disks.unusable().into_iter().find(|disk| disk.path == path) {
        let occupant = match found.cause {
            Cause::Unformatted => Occupant::Unformatted,
            Cause::Missing => Occupant::Empty,
            Cause::Foreign | Cause::Duplicate | Cause::InUse | Cause::Unusable => Occupant::Unusable,
        };
        return Ok((occupant, None, Some(found.reason)));
    }
    if watcher.wants(path) {
        return Ok((Occupant::Empty, None, Some(format!("{} does not exist", path.display()))));
    }
    let message = format!(
        "the configuration of node {} wants no disk at {}: its `[[disks]]` and `profile` say where disks are",
        node.name,
        path.display()
    );
    Err(ApiError::new(StatusCode::NOT_FOUND, code::UNKNOWN_PLACE, message))
}

/// `POST /v1/places/locate`
pub(crate) async fn locate(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Located>, ApiError> {
    let LocateOrder { path, on } = message(body)?;
    let machine = node.watcher.lock().await.machine();
    let profile = node.config.profile.clone();
    let at = PathBuf::from(&path);
    let switched = blocking(move || {
        let bay = machine.bay(profile.as_deref(), &at)?;
        machine.switch(&bay, on).map(|way| Located { bay: bay.name.clone(), way })
    });
    match switched.await? {
        Ok(located) => {
            tracing::info!(path, bay = located.bay, on, way = located.way, "light switched");
            Ok(Json(located))
        }
        Err(why) => {
            let message = format!("node {}: the place of {path} has no light that can be switched: {why}", node.name);
            Err(ApiError::new(StatusCode::CONFLICT, code::NO_LIGHT, message))
        }
    }
}

/// `POST /v1/places/adopt`
pub(crate) async fn adopt(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Adopted>, ApiError> {
    let ask: PlaceAsk = message(body)?;
    let path = PathBuf::from(&ask.path);
    // Nobody opens it, or takes it out of use, while it is made a disk.
    let mut watcher = node.watcher.lock().await;
    watcher.look(Look::Asked).await;
    match occupant(&node, &watcher, &path)? {
        (Occupant::Unformatted, ..) => {}
        (Occupant::Disk, Some(disk), _) => {
            let message = format!("disk {disk} is in use at {} already", ask.path);
            return Err(ApiError::new(StatusCode::CONFLICT, code::IN_USE, message).with_detail(json!({ "disk": disk })));
        }
        (_, _, reason) => {
            let message =
                format!("there is nothing to adopt: {}", reason.unwrap_or_else(|| "nothing is there".to_owned()));
            return Err(ApiError::new(StatusCode::CONFLICT, code::NOT_BLANK, message));
        }
    }
    let options = FormatOptions { cell: node.config.cell, slot_bytes: node.config.slot_bytes, size_bytes: None };
    let at = path.clone();
    let (formatted, serial) = blocking(move || make_disk(&at, options)).await??;
    tracing::info!(disk = %formatted.disk, path = ask.path, serial, slots = formatted.slots, "blank disk adopted by an operator");
    watcher.look(Look::Asked).await;
    if node.disks.get(formatted.disk).is_err() {
        let message =
            format!("{} is disk {} now, and is not in use yet: {}", ask.path, formatted.disk, not_in_use(&node, &path));
        return Err(ApiError::internal(message));
    }
    let slot_bytes = node.config.slot_bytes;
    Ok(Json(Adopted { disk: formatted.disk, path: ask.path, slots: formatted.slots.into(), slot_bytes, serial }))
}

fn not_in_use(node: &Node, path: &Path) -> String {
    let found = node.disks.unusable().into_iter().find(|disk| disk.path == path);
    found.map_or_else(|| "it is being opened".to_owned(), |disk| disk.reason)
}

/// Makes a disk of what is blank and used by nobody.
fn make_disk(path: &Path, options: FormatOptions) -> Result<(Formatted, Option<String>), ApiError> {
    let refused = |message: String, reasons: serde_json::Value| {
        ApiError::new(StatusCode::CONFLICT, code::NOT_BLANK, message).with_detail(json!({ "reasons": reasons }))
    };
    let tree = holdfast_hw_profiles::Tree::open(Path::new("/"))
        .map_err(|error| ApiError::internal(format!("the machine cannot be looked at: {error}")))?;
    let device = Device::find(&tree, path).map_err(|why| refused(why, json!([])))?;
    let look = format::look(&tree, &device, options).map_err(|error| refused(error.to_string(), json!([])))?;
    let (Some(candidate), []) = (look.candidate, look.obstacles.as_slice()) else {
        let reasons: Vec<String> = look.obstacles.iter().map(ToString::to_string).collect();
        let message =
            format!("{} was not adopted, and nothing on it was changed: {}", device.describe(), reasons.join("; and "));
        return Err(refused(message, json!(look.obstacles)));
    };
    let formatted = candidate.format(Consent::OnlyIfBlank).map_err(|error| refused(error.to_string(), json!([])))?;
    Ok((formatted, device.serial))
}
