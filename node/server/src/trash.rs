//! The calls about trash: removal by order, its undoing, and what lies there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use holdfast_node_client::{OperatorRestore, RestoreRequest, TrashRequest, TrashStatus};
use holdfast_node_engine::{EngineError, ExtentState, TrashOrder};
use serde_json::{Value, json};

use crate::Node;
use crate::extents::info;
use crate::metrics::Operation;
use crate::routes::{disk, json as message};

/// `POST /v1/trash`
pub(crate) async fn trash(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let request: TrashRequest = message(body)?;
    let order = order_name(&request.order)?;
    node.heed(request.term)?;
    let disk = node.disks.get(request.disk)?;
    let TrashRequest { volume, slot, slot_generation, term, .. } = request;
    let order = TrashOrder { volume, slot, slot_generation, term, order };
    disk.answer(Operation::Trash, disk.engine().trash(order)).await?;
    Ok(Json(json!({})))
}

/// The bytes of an order's name.
pub(crate) fn order_name(text: &str) -> Result<[u8; 16], ApiError> {
    let mut order = [0; 16];
    match hex::decode_to_slice(text, &mut order) {
        Ok(()) if order != [0; 16] => Ok(order),
        _ => Err(ApiError::bad_request("`order` must be 32 hex digits, not all of them 0")),
    }
}

/// `POST /v1/restore`
pub(crate) async fn restore(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let RestoreRequest { disk, volume, slot, slot_generation, term } = message(body)?;
    node.heed(term)?;
    let disk = node.disks.get(disk)?;
    disk.answer(Operation::Trash, disk.engine().restore(volume, slot, slot_generation, term)).await?;
    Ok(Json(json!({})))
}

/// `POST /v1/disks/D/restore`
pub(crate) async fn restore_by_operator(
    State(node): State<Arc<Node>>,
    Path(text): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let OperatorRestore { volume, slot, slot_generation } = message(body)?;
    let disk = disk(&node, &text)?;
    let term = node.term.load(Ordering::Relaxed);
    let restored = disk.answer(Operation::Trash, async {
        match disk.engine().restore(volume, slot, slot_generation, term).await {
            // The disk heard of a later leader than this node since its start.
            Err(EngineError::StaleTerm { current, .. }) => {
                disk.engine().restore(volume, slot, slot_generation, current).await
            }
            other => other,
        }
    });
    restored.await?;
    tracing::info!(disk = %disk.id(), %volume, slot, slot_generation, "an operator took the extent out of the trash");
    Ok(Json(json!({})))
}

/// `GET /v1/disks/D/trash`
pub(crate) async fn status(
    State(node): State<Arc<Node>>,
    Path(text): Path<String>,
) -> Result<Json<TrashStatus>, ApiError> {
    let disk = disk(&node, &text)?;
    let extents = disk.answer(Operation::List, disk.engine().extents()).await?;
    let status = disk.engine().status();
    let trashed = extents.into_iter().filter(|extent| extent.state == ExtentState::Trashed);
    Ok(Json(TrashStatus {
        retention_s: node.config.trash.retention_s,
        uptime_s: status.uptime_s,
        erase_alarms: status.erase_alarms,
        erased: disk.erased.load(Ordering::Relaxed),
        extents: trashed.map(|extent| info(disk.id(), extent)).collect(),
    }))
}
