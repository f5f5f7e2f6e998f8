//! Pulls a sealed replica from other nodes. The bytes never pass through the volume manager.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use holdfast_libs_transport::{ApiError, CallError, HttpClient};
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_client::{CopyRequest, NodeClient, Sealed, Source, code};
use holdfast_node_engine::{Disk, EngineError, ExtentState};
use http::StatusCode;
use tokio::sync::Semaphore;

use crate::Node;
use crate::disks::OpenDisk;
use crate::refusal::refusal;
use crate::routes::json;

/// Bytes asked for at once; at most two such pieces of a copy are in memory.
const PIECE_BYTES: u64 = 4 << 20;

/// Copies that run at once on a node; with the size of a piece this bounds their memory. Each disk takes fewer, so that
/// one that hangs leaves places to the others.
const MAX_COPIES: usize = 16;

/// How often a copy looks whether its disk still answers.
const STALL_LOOK: Duration = Duration::from_secs(1);

/// The copies under way.
pub(crate) struct Copies {
    http: HttpClient,
    places: Semaphore,
    running: Mutex<HashSet<(DiskId, VolumeId)>>,
}

/// Keeps a second copy of the same volume to the same disk out.
struct Running<'a> {
    copies: &'a Copies,
    key: (DiskId, VolumeId),
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.copies.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Copies {
    /// `http` carries the token of the role node.
    pub(crate) fn new(http: HttpClient) -> Self {
        Self { http, places: Semaphore::new(MAX_COPIES), running: Mutex::new(HashSet::new()) }
    }

    fn enter(&self, disk: DiskId, volume: VolumeId) -> Option<Running<'_>> {
        let key = (disk, volume);
        let first = self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        first.then_some(Running { copies: self, key })
    }
}

/// `POST /v1/copy`
pub(crate) async fn copy(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Sealed>, ApiError> {
    let order: CopyRequest = json(body)?;
    node.heed(order.term)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&order.digest, &mut digest)
        .map_err(|_| ApiError::bad_request("`digest` must be 64 hex digits"))?;
    // On its own: a volume manager that stops waiting finds the copy done, or under way, when it asks again.
    let copied = tokio::spawn(async move { make(&node, &order, digest).await.map(|()| order) });
    let order = copied.await.map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(Sealed { length: order.length, digest: order.digest }))
}

async fn make(node: &Node, order: &CopyRequest, digest: [u8; 32]) -> Result<(), ApiError> {
    let disk = node.disks.get(order.disk)?;
    disk.admit()?;
    let busy = |message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, message);
    let _running = node
        .copies
        .enter(order.disk, order.volume)
        .ok_or_else(|| busy("this volume is being copied to this disk already"))?;
    let _place = disk.copies.try_acquire().map_err(|_| busy("the disk takes as many copies as it may"))?;
    let _place = node.copies.places.try_acquire().map_err(|_| busy("the node makes as many copies as it may"))?;
    if !is_there_already(disk.engine(), order, &digest).await {
        tokio::select! {
            biased;
            pulled = pull_from_any(&node.copies.http, disk.engine(), order, digest) => pulled?,
            refused = until_stalled(&disk) => return Err(refused),
        }
        tracing::info!(volume = %order.volume, disk = %order.disk, length = order.length, "replica copied");
    }
    Ok(())
}

/// Ends when the disk has stalled: a copy that waits for it gives its place to others.
async fn until_stalled(disk: &OpenDisk) -> ApiError {
    loop {
        tokio::time::sleep(STALL_LOOK).await;
        if let Err(refused) = disk.admit() {
            return refused;
        }
    }
}

/// Whether an earlier copy of the same order was finished.
async fn is_there_already(disk: &Disk, order: &CopyRequest, digest: &[u8; 32]) -> bool {
    matches!(disk.extent(order.volume).await, Ok(extent)
        if extent.state == ExtentState::Sealed && extent.length == order.length && extent.digest == Some(*digest))
}

/// Tries one source after the other; the copy that fails with the last one is given up and its slot freed.
async fn pull_from_any(http: &HttpClient, disk: &Disk, order: &CopyRequest, digest: [u8; 32]) -> Result<(), ApiError> {
    let mut failures = Vec::new();
    for source in &order.sources {
        disk.begin_copy(order.volume, order.epoch, order.length, digest).await.map_err(|error| refusal(&error))?;
        match pull(http, disk, order, source).await {
            Ok(()) => return Ok(()),
            Err(CopyFailure::Source(reason)) => {
                tracing::warn!(volume = %order.volume, source = source.address, from = %source.disk, reason,
                    "source gives no replica");
                failures.push(format!("{} disk {}: {reason}", source.address, source.disk));
            }
            Err(CopyFailure::Here(error)) => {
                give_up(disk, order.volume).await;
                return Err(refusal(&error));
            }
        }
    }
    give_up(disk, order.volume).await;
    let message = if failures.is_empty() {
        "the order names no source".to_owned()
    } else {
        format!("no source gave the replica: {}", failures.join("; "))
    };
    Err(ApiError::new(StatusCode::GONE, code::DAMAGED, message))
}

async fn give_up(disk: &Disk, volume: VolumeId) {
    if let Err(error) = disk.abort_copy(volume).await {
        tracing::warn!(%volume, disk = %disk.id(), %error, "an unfinished copy stays on the disk");
    }
}

enum CopyFailure {
    /// Another source may do better.
    Source(String),
    /// The disk copied to is the trouble.
    Here(EngineError),
}

impl From<CallError> for CopyFailure {
    fn from(error: CallError) -> Self {
        Self::Source(error.to_string())
    }
}

async fn pull(http: &HttpClient, disk: &Disk, order: &CopyRequest, source: &Source) -> Result<(), CopyFailure> {
    let node = NodeClient::new(http.clone(), source.address.clone());
    let piece_at = |offset: u64| {
        let length = order.length.saturating_sub(offset).min(PIECE_BYTES);
        let node = &node;
        async move {
            if length == 0 {
                return Ok(Bytes::new());
            }
            // No more than PIECE_BYTES, so it fits.
            let bytes = node.read_bytes(source.disk, order.volume, offset, length as u32).await?;
            if bytes.len() as u64 == length {
                Ok(bytes)
            } else {
                Err(CopyFailure::Source(format!("{} bytes instead of {length} at {offset}", bytes.len())))
            }
        }
    };
    let mut offset = 0;
    let mut piece = piece_at(0).await?;
    while !piece.is_empty() {
        let next = offset + piece.len() as u64;
        let (written, following) = futures_util::join!(write(disk, order.volume, offset, &piece), piece_at(next));
        written.map_err(CopyFailure::Here)?;
        offset = next;
        piece = following?;
    }
    match disk.finish_copy(order.volume).await {
        Ok(()) => Ok(()),
        Err(error @ EngineError::CopyMismatch { .. }) => Err(CopyFailure::Source(error.to_string())),
        Err(error) => Err(CopyFailure::Here(error)),
    }
}

async fn write(disk: &Disk, volume: VolumeId, offset: u64, piece: &[u8]) -> Result<(), EngineError> {
    let mut buffer = disk.buffer(piece.len())?;
    buffer.extend_from_slice(piece).map_err(|error| EngineError::InvalidArgument(error.to_string()))?;
    disk.copy_write(volume, offset, buffer).await
}
