//! The table of calls: which path, which role, which function.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use bytes::Bytes;
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::{ApiError, Role, ServiceTokens};
use holdfast_libs_types::{DiskId, VolumeId};
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::disks::OpenDisk;
use crate::{Node, append, copy, extents, health, keyring, metrics, places, trash, upkeep};

/// Largest control message, bytes.
const MAX_CONTROL_BYTES: usize = 1 << 20;

/// Largest keyring, bytes: what a key area holds, about 2 MiB, takes twice as many as JSON with its keys in hex.
const MAX_KEYRING_BYTES: usize = 8 << 20;

/// All calls of the node, each behind the roles that may make it.
pub(crate) fn router(node: Arc<Node>, tokens: &ServiceTokens) -> Router {
    let guarded = |routes: Router<Arc<Node>>, accepted: &'static [Role]| {
        routes.route_layer(from_fn_with_state(Guard { tokens: tokens.clone(), accepted }, require_role))
    };
    let everyone = Router::new()
        .route("/v1/status", get(extents::status))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/health", get(health::health));
    let listing = Router::new()
        .route("/v1/disks/{disk}/extents", get(extents::list))
        .route("/v1/disks/{disk}/extents/{volume}", get(extents::one))
        .route("/v1/disks/{disk}/records/{volume}", get(extents::records));
    let trash = Router::new().route("/v1/disks/{disk}/trash", get(trash::status));
    let scrubs = Router::new().route("/v1/disks/{disk}/scrub", get(upkeep::scrub).post(upkeep::order_scrub));
    let operator = Router::new()
        .route("/v1/disks/rescan", post(upkeep::rescan))
        .route("/v1/places/look", post(places::look))
        .route("/v1/places/locate", post(places::locate))
        .route("/v1/places/adopt", post(places::adopt))
        .route("/v1/disks/{disk}/restore", post(trash::restore_by_operator));
    let orders = Router::new()
        .route("/v1/extents", post(extents::create))
        .route("/v1/fence", post(extents::fence))
        .route("/v1/seal", post(extents::seal))
        .route("/v1/copy", post(copy::copy))
        .route("/v1/copy/cancel", post(copy::cancel))
        .route("/v1/trash", post(trash::trash))
        .route("/v1/restore", post(trash::restore));
    let append = Router::new().route("/v1/disks/{disk}/volumes/{volume}/append", put(append::append));
    let record = Router::new().route("/v1/disks/{disk}/volumes/{volume}/record", get(extents::record));
    let bytes = Router::new().route("/v1/disks/{disk}/volumes/{volume}/bytes", get(extents::bytes));
    let keyring =
        Router::new().route("/v1/keyring", post(keyring::put)).layer(DefaultBodyLimit::max(MAX_KEYRING_BYTES));
    let keys = Router::new().route("/v1/keyring", get(keyring::get));
    Router::new()
        .merge(guarded(everyone, &Role::ALL))
        .merge(guarded(listing, &[Role::VolumeManager, Role::Admin]))
        .merge(guarded(trash, &[Role::VolumeManager, Role::Admin]))
        .merge(guarded(scrubs, &[Role::VolumeManager, Role::Admin]))
        .merge(guarded(operator, &[Role::Admin]))
        .merge(guarded(orders, &[Role::VolumeManager]))
        .merge(guarded(append, &[Role::Frontend]))
        .merge(guarded(record, &[Role::Frontend, Role::Admin]))
        .merge(guarded(bytes, &[Role::Node, Role::VolumeManager, Role::Admin]))
        .merge(guarded(keyring, &[Role::VolumeManager]))
        .merge(guarded(keys, &[Role::VolumeManager, Role::Admin]))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(health::ready))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not_found", "the node has no such call") })
        .layer(DefaultBodyLimit::max(MAX_CONTROL_BYTES))
        .with_state(node)
}

/// The disk named in a path.
pub(crate) fn disk(node: &Node, text: &str) -> Result<Arc<OpenDisk>, ApiError> {
    let id: DiskId = text.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    node.disks.get(id)
}

/// Disk and volume named in a path.
pub(crate) fn disk_and_volume(
    node: &Node,
    Path((disk_text, volume)): &Path<(String, String)>,
) -> Result<(Arc<OpenDisk>, VolumeId), ApiError> {
    let volume = volume.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    Ok((disk(node, disk_text)?, volume))
}

/// A query that lacks a parameter or holds a wrong one.
pub(crate) fn bad_query(error: &QueryRejection) -> ApiError {
    ApiError::bad_request(error.body_text())
}

/// A control message.
pub(crate) fn json<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|error| ApiError::unread(&error))?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(format!("the message is not right: {error}")))
}
