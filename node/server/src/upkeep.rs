//! What goes on in the background for all disks, and the operator's calls about disks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use holdfast_node_client::{NodeStatus, ScrubOrder, ScrubStatus};
use tokio_util::sync::CancellationToken;

use crate::Node;
use crate::disks::Look;
use crate::routes::{disk, json as message};
use crate::scrub::LEAST_BYTES_PER_SECOND;

/// Looks for disks that came or went, and whether those in use still answer, until `shutdown`.
pub(crate) async fn watch(node: Arc<Node>, shutdown: CancellationToken) {
    let period = node.config.watch();
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = look(&node, period) => {}
        () = check(&node, period) => {}
    }
}

async fn look(node: &Node, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        node.watcher.lock().await.look(Look::Again).await;
    }
}

/// Each disk on a task of its own, so that one that hangs holds up no other.
pub(crate) async fn check(node: &Node, period: Duration) {
    loop {
        for disk in node.disks.open() {
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    () = disk.stop.cancelled() => {}
                    () = disk.check() => {}
                }
            });
        }
        tokio::time::sleep(period).await;
    }
}

/// `POST /v1/disks/rescan`: looks at once, also at what could not be opened before, and answers as `GET /v1/status`.
pub(crate) async fn rescan(State(node): State<Arc<Node>>) -> Json<NodeStatus> {
    node.watcher.lock().await.look(Look::Asked).await;
    crate::extents::status(State(node)).await
}

/// `GET /v1/disks/D/scrub`
pub(crate) async fn scrub(
    State(node): State<Arc<Node>>,
    Path(text): Path<String>,
) -> Result<Json<ScrubStatus>, ApiError> {
    Ok(Json(disk(&node, &text)?.scrub.status()))
}

/// `POST /v1/disks/D/scrub`
pub(crate) async fn order_scrub(
    State(node): State<Arc<Node>>,
    Path(text): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ScrubStatus>, ApiError> {
    let order: ScrubOrder = message(body)?;
    let disk = disk(&node, &text)?;
    if let Some(other) = order.action.as_deref().filter(|action| !["start", "pause", "resume"].contains(action)) {
        let message = format!("`action` must be \"start\", \"pause\" or \"resume\", not \"{other}\"");
        return Err(ApiError::bad_request(message));
    }
    if order.bytes_per_second.is_some_and(|rate| rate < LEAST_BYTES_PER_SECOND) {
        let message =
            format!("`bytes_per_second` must be at least {LEAST_BYTES_PER_SECOND}; to stop the scrub, pause it");
        return Err(ApiError::bad_request(message));
    }
    disk.scrub.order(&order);
    tracing::info!(disk = %disk.id(), action = order.action, bytes_per_second = order.bytes_per_second, "scrub ordered");
    Ok(Json(disk.scrub.status()))
}
