//! The calls about extents that are a thin layer over the engine.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::DiskId;
use holdfast_libs_types::record::{MAX_PAYLOAD_BYTES, RECORD_HEADER_BYTES};
use holdfast_node_client::{
    CreateExtent, ExtentInfo, ExtentState, FenceRequest, MAX_READ_BYTES, NodeStatus, RecordInfo, SealRequest, Sealed,
    Tail, code,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::Node;
use crate::metrics::Operation;
use crate::pace::Kind;
use crate::refusal::refusal;
use crate::routes::{bad_query, disk, disk_and_volume, json as message};

/// `GET /v1/status`
pub(crate) async fn status(State(node): State<Arc<Node>>) -> Json<NodeStatus> {
    Json(NodeStatus {
        node: node.name.clone(),
        cell: node.config.cell,
        zone: node.config.zone.clone(),
        disks: node.disks.statuses(),
    })
}

/// `GET /v1/disks/D/extents`
pub(crate) async fn list(
    State(node): State<Arc<Node>>,
    Path(text): Path<String>,
) -> Result<Json<Vec<ExtentInfo>>, ApiError> {
    let disk = disk(&node, &text)?;
    let extents = disk.answer(Operation::List, disk.engine().extents()).await?;
    Ok(Json(extents.into_iter().map(|extent| info(disk.id(), extent)).collect()))
}

/// `GET /v1/disks/D/extents/V`
pub(crate) async fn one(
    State(node): State<Arc<Node>>,
    path: Path<(String, String)>,
) -> Result<Json<ExtentInfo>, ApiError> {
    let (disk, volume) = disk_and_volume(&node, &path)?;
    let extent = disk.answer(Operation::List, disk.engine().extent(volume)).await?;
    Ok(Json(info(disk.id(), extent)))
}

/// An extent in the words of the protocol.
pub(crate) fn info(disk: DiskId, extent: holdfast_node_engine::ExtentInfo) -> ExtentInfo {
    ExtentInfo {
        disk,
        volume: extent.volume,
        slot: extent.slot.into(),
        slot_generation: extent.slot_generation.into(),
        state: state(extent.state),
        epoch: extent.epoch,
        tail: extent.length,
        digest: extent.digest.map(hex::encode),
        note: extent.note,
        records: extent.records,
        trashed_at_s: extent.trashed_at_s,
        order: extent.order.map(hex::encode),
    }
}

/// `GET /v1/disks/D/records/V`
pub(crate) async fn records(
    State(node): State<Arc<Node>>,
    path: Path<(String, String)>,
) -> Result<Json<Vec<RecordInfo>>, ApiError> {
    let (disk, volume) = disk_and_volume(&node, &path)?;
    let rows = disk.answer(Operation::Records, disk.engine().records(volume)).await?;
    let info = |row: holdfast_node_engine::RecordRow| RecordInfo {
        hash: row.hash,
        offset: row.offset,
        length: row.length,
        flags: row.flags,
    };
    Ok(Json(rows.into_iter().map(info).collect()))
}

fn state(state: holdfast_node_engine::ExtentState) -> ExtentState {
    use holdfast_node_engine::ExtentState as Engine;
    match state {
        Engine::Copying => ExtentState::Copying,
        Engine::Open => ExtentState::Open,
        Engine::Fenced => ExtentState::Fenced,
        Engine::Sealed => ExtentState::Sealed,
        Engine::Damaged => ExtentState::Damaged,
        Engine::Trashed => ExtentState::Trashed,
    }
}

/// `POST /v1/extents`
pub(crate) async fn create(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Tail>, ApiError> {
    let order: CreateExtent = message(body)?;
    node.heed(order.term)?;
    let disk = node.disks.get(order.disk)?;
    disk.answer(Operation::Create, disk.engine().create_extent(order.volume, order.epoch)).await?;
    Ok(Json(Tail { tail: 0 }))
}

/// `POST /v1/fence`
pub(crate) async fn fence(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Tail>, ApiError> {
    let order: FenceRequest = message(body)?;
    node.heed(order.term)?;
    let disk = node.disks.get(order.disk)?;
    let tail = disk.answer(Operation::Fence, disk.engine().fence(order.volume, order.epoch, order.term)).await?;
    Ok(Json(Tail { tail }))
}

/// `POST /v1/seal`
pub(crate) async fn seal(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Sealed>, ApiError> {
    let order: SealRequest = message(body)?;
    node.heed(order.term)?;
    let disk = node.disks.get(order.disk)?;
    disk.admit()?;
    let sealed = disk.engine().seal(order.volume, order.epoch, order.length, order.term).await;
    let digest = sealed.map_err(|error| refusal(&error))?;
    Ok(Json(Sealed { length: order.length, digest: hex::encode(digest), restored: false }))
}

/// The query of a read.
#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    offset: u64,
    length: u32,
    /// Of `bytes`: for a copy of a volume's last replica.
    #[serde(default)]
    urgent: bool,
    /// Of `bytes`: of what this slot holds of the volume.
    slot: Option<u32>,
}

impl Range {
    fn at_most(self, max: usize) -> Result<Self, ApiError> {
        if self.length as usize > max {
            return Err(ApiError::bad_request(format!("length {} is above the most, {max} bytes", self.length)));
        }
        Ok(self)
    }
}

/// `GET /v1/disks/D/volumes/V/record?offset=&length=`
pub(crate) async fn record(
    State(node): State<Arc<Node>>,
    path: Path<(String, String)>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Bytes, ApiError> {
    let (disk, volume) = disk_and_volume(&node, &path)?;
    let range = range.map_err(|error| bad_query(&error))?.0.at_most(RECORD_HEADER_BYTES + MAX_PAYLOAD_BYTES)?;
    let read = disk.engine().read_record(volume, range.offset, range.length);
    disk.answer_foreground(Kind::Read, range.length as usize, read).await
}

/// `GET /v1/disks/D/volumes/V/bytes?offset=&length=&urgent=&slot=`: background work, so it waits for its turn.
pub(crate) async fn bytes(
    State(node): State<Arc<Node>>,
    path: Path<(String, String)>,
    range: Result<Query<Range>, QueryRejection>,
) -> Result<Bytes, ApiError> {
    let (disk, volume) = disk_and_volume(&node, &path)?;
    let range = range.map_err(|error| bad_query(&error))?.0.at_most(MAX_READ_BYTES)?;
    let Range { offset, length, .. } = range;
    let read = disk.answer(Operation::Read, async {
        match range.slot {
            None => disk.engine().read(volume, offset, length).await,
            Some(slot) => disk.engine().read_slot(volume, slot, offset, length).await,
        }
    });
    disk.background(range.urgent, range.length.into(), read).await
}

impl Node {
    /// Refuses an order whose term is below one that was seen since the start. (The engine compares and keeps terms
    /// extent by extent, durably; this also covers orders about extents that do not exist yet.)
    pub(crate) fn heed(&self, term: u64) -> Result<(), ApiError> {
        let seen = self.term.fetch_max(term, Ordering::Relaxed);
        if term < seen {
            let message = format!("term {term} is stale: this node has seen term {seen}");
            return Err(
                ApiError::new(StatusCode::CONFLICT, code::STALE_TERM, message).with_detail(json!({"term": seen}))
            );
        }
        Ok(())
    }
}
