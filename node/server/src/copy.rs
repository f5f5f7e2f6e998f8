//! Pulls a sealed replica from other nodes. The bytes never pass through the volume manager.
//!
//! Pieces are asked for some ahead and written in order; then the copy is read back from the disk, piece by piece, and its
//! digest compared. Every piece, at the source, written, and read back, waits until the foreground of its disk bears it
//! (`pace`). What pieces may occupy is bounded over all copies of the node ([`COPY_BYTES`]).
//!
//! A piece goes from the socket into one aligned buffer, which the disk then owns.
//!
//! Where the disk has the replica in its trash nothing is pulled: it is read back and compared in the same way, and taken out.
//! What else the disk holds of the volume stays until the copy is whole, and gives way then if the order names it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use holdfast_libs_transport::{ApiError, CallError, HttpClient};
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_client::{CancelCopy, CopyRequest, GivesWay, NodeClient, Sealed, Source, code};
use holdfast_node_engine::{AlignedBuf, Disk, EngineError, ExtentInfo, ExtentState, Named, TrashOrder};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::Node;
use crate::disks::OpenDisk;
use crate::refusal::refusal;
use crate::routes::json;
use crate::trash::order_name;

/// Copies that run at once on a node. Each disk takes fewer, so that one that hangs leaves places to the others.
const MAX_COPIES: usize = 64;

/// Bytes of pieces that were asked for and are not written yet, or are being read back, over all copies of a node. What a disk
/// that hangs was given to write stays with it and counts no more, so that it keeps no other disk's copies waiting.
pub(crate) const COPY_BYTES: usize = 64 << 20;

/// Pieces of one copy that are asked for at once.
const AHEAD: usize = 3;

/// How often a copy looks whether its disk still answers.
const STALL_LOOK: Duration = Duration::from_secs(1);

/// Who is busy is asked again after this, and given up after so long.
const BUSY_WAIT: Duration = Duration::from_millis(100);
const BUSY_LIMIT: Duration = Duration::from_secs(60);

/// The copies under way.
pub(crate) struct Copies {
    http: HttpClient,
    places: Semaphore,
    bytes: Arc<Semaphore>,
    running: Mutex<HashMap<(DiskId, VolumeId), CancellationToken>>,
}

/// Keeps a second copy of the same volume to the same disk out.
struct Running<'a> {
    copies: &'a Copies,
    key: (DiskId, VolumeId),
    cancelled: CancellationToken,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.copies.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Copies {
    /// `http` carries the token of the role node.
    pub(crate) fn new(http: HttpClient) -> Self {
        let (places, bytes) = (Semaphore::new(MAX_COPIES), Arc::new(Semaphore::new(COPY_BYTES)));
        Self { http, places, bytes, running: Mutex::default() }
    }

    /// Bytes of pieces at the moment.
    pub(crate) fn bytes(&self) -> usize {
        COPY_BYTES - self.bytes.available_permits()
    }

    /// The right to copy; else how to cancel the copy that is under way.
    fn enter(&self, disk: DiskId, volume: VolumeId) -> Result<Running<'_>, CancellationToken> {
        let key = (disk, volume);
        match self.running.lock().unwrap_or_else(PoisonError::into_inner).entry(key) {
            Entry::Occupied(running) => Err(running.get().clone()),
            Entry::Vacant(place) => {
                let cancelled = place.insert(CancellationToken::new()).clone();
                Ok(Running { copies: self, key, cancelled })
            }
        }
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
    let instead_of = match &order.instead_of {
        None => None,
        Some(GivesWay { slot, slot_generation, order: name }) => {
            let CopyRequest { volume, term, .. } = order;
            let (slot, slot_generation, order) = (*slot, *slot_generation, order_name(name)?);
            Some(TrashOrder { volume, slot, slot_generation, term, order })
        }
    };
    // On its own: a volume manager that stops waiting finds the copy done, or under way, when it asks again.
    let made = tokio::spawn(async move {
        let restored = make(&node, &order, digest, instead_of).await;
        restored.map(|restored| (order, restored))
    });
    let (order, restored) = made.await.map_err(|error| ApiError::internal(error.to_string()))??;
    Ok(Json(Sealed { length: order.length, digest: order.digest, restored }))
}

/// `POST /v1/copy/cancel`
pub(crate) async fn cancel(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let order: CancelCopy = json(body)?;
    node.heed(order.term)?;
    let disk = node.disks.get(order.disk)?;
    disk.admit()?;
    match node.copies.enter(order.disk, order.volume) {
        Err(running) if order.under_way => running.cancel(),
        Err(_) => {}
        Ok(_running) => {
            let left = disk.engine().extents_of(order.volume).await.map_err(|error| refusal(&error))?;
            if left.iter().any(|extent| extent.state == ExtentState::Copying) {
                disk.engine().abort_copy(order.volume).await.map_err(|error| refusal(&error))?;
                tracing::info!(volume = %order.volume, disk = %order.disk, "unfinished copy given up");
            }
        }
    }
    Ok(Json(Value::Null))
}

/// Answers whether it was in the trash, and nothing had to be pulled.
async fn make(
    node: &Node,
    order: &CopyRequest,
    digest: [u8; 32],
    instead_of: Option<TrashOrder>,
) -> Result<bool, ApiError> {
    let disk = node.disks.get(order.disk)?;
    disk.admit()?;
    let busy = |message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, message);
    let running = node
        .copies
        .enter(order.disk, order.volume)
        .map_err(|_| busy("this volume is being copied to this disk already"))?;
    let _place = disk.copies.try_acquire().map_err(|_| busy("the disk takes as many copies as it may"))?;
    let _place = node.copies.places.try_acquire().map_err(|_| busy("the node makes as many copies as it may"))?;
    let there = sealed_as_ordered(disk.engine(), order, &digest).await.map_err(|error| refusal(&error))?;
    if there.as_ref().is_some_and(|there| there.state == ExtentState::Sealed) {
        return Ok(false);
    }
    let trashed = there.map(|there| there.named());
    let copy = Copy { copies: &node.copies, disk: &disk, order, digest, instead_of };
    let work = async {
        match trashed {
            Some(named) => copy.take_out(named).await,
            None => copy.pull_from_any().await,
        }
    };
    let made = tokio::select! {
        biased;
        made = work => made,
        refused = until_stalled(&disk) => Err(refused),
        () = running.cancelled.cancelled() => {
            if trashed.is_none() {
                copy.give_up().await;
            }
            let message = "the volume manager does not need this copy any more";
            Err(ApiError::new(StatusCode::CONFLICT, code::CANCELLED, message))
        }
    };
    if let (Some(named), Err(_)) = (trashed, &made) {
        // Of a disk that has stalled nobody waits for the answer.
        let disk = Arc::clone(&disk);
        tokio::spawn(async move { disk.engine().forget_read_back(named).await });
    }
    made?;
    let how = if trashed.is_some() { "replica restored from the trash" } else { "replica copied" };
    tracing::info!(volume = %order.volume, disk = %order.disk, length = order.length, "{how}");
    Ok(trashed.is_some())
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

/// The extent that has the length and the digest of the order and is not known to be damaged: sealed by an earlier copy, or in
/// the trash with nothing beside it that would have to give way.
async fn sealed_as_ordered(
    disk: &Disk,
    order: &CopyRequest,
    digest: &[u8; 32],
) -> Result<Option<ExtentInfo>, EngineError> {
    let all = disk.extents_of(order.volume).await?;
    let is_it =
        |extent: &&ExtentInfo| (extent.length, extent.digest) == (order.length, Some(*digest)) && extent.note.is_none();
    let found = match all.iter().find(|extent| extent.state != ExtentState::Trashed) {
        Some(other) => Some(other).filter(is_it).filter(|extent| extent.state == ExtentState::Sealed),
        None => all.iter().find(is_it),
    };
    Ok(found.cloned())
}

enum CopyFailure {
    /// Another source may do better.
    Source(String),
    /// The disk copied to is the trouble.
    Here(ApiError),
}

/// A piece on its way to the disk.
struct Piece {
    offset: u64,
    bytes: AlignedBuf,
    _room: OwnedSemaphorePermit,
}

/// One order.
struct Copy<'a> {
    copies: &'a Copies,
    disk: &'a OpenDisk,
    order: &'a CopyRequest,
    digest: [u8; 32],
    instead_of: Option<TrashOrder>,
}

impl Copy<'_> {
    /// Tries one source after the other; the copy that fails with the last one is given up and its slot freed.
    async fn pull_from_any(&self) -> Result<(), ApiError> {
        let (order, engine) = (self.order, self.disk.engine());
        let mut failures = Vec::new();
        for source in &order.sources {
            let (epoch, length) = (order.epoch, order.length);
            let begun = engine.begin_copy(order.volume, epoch, length, self.digest, self.instead_of).await;
            begun.map_err(|error| refusal(&error))?;
            match self.pull(source).await {
                Ok(()) => return Ok(()),
                Err(CopyFailure::Source(reason)) => {
                    tracing::warn!(volume = %order.volume, source = source.address, from = %source.disk, reason,
                        "source gives no replica");
                    failures.push(format!("{} disk {}: {reason}", source.address, source.disk));
                }
                Err(CopyFailure::Here(error)) => {
                    self.give_up().await;
                    return Err(error);
                }
            }
        }
        self.give_up().await;
        let message = if failures.is_empty() {
            "the order names no source".to_owned()
        } else {
            format!("no source gave the replica: {}", failures.join("; "))
        };
        Err(ApiError::new(StatusCode::GONE, code::DAMAGED, message))
    }

    async fn give_up(&self) {
        let volume = self.order.volume;
        match self.disk.engine().abort_copy(volume).await {
            Ok(()) | Err(EngineError::UnknownVolume { .. } | EngineError::WrongState { .. }) => {}
            Err(error) => {
                tracing::warn!(%volume, disk = %self.disk.id(), %error, "an unfinished copy stays on the disk");
            }
        }
    }

    async fn pull(&self, source: &Source) -> Result<(), CopyFailure> {
        let (length, mut next) = (self.order.length, 0);
        let mut asked = VecDeque::new();
        loop {
            while asked.len() < AHEAD && next < length {
                // How large a piece is depends on how much the disk has to do when it is asked for.
                let bytes = self.disk.pace.piece_bytes().min(length - next);
                let room = Arc::clone(&self.copies.bytes);
                // Only a copy that holds no room waits for some, so that no two wait for each other.
                let room = match asked.is_empty() {
                    true => room.acquire_many_owned(bytes as u32).await.ok(),
                    false => room.try_acquire_many_owned(bytes as u32).ok(),
                };
                let Some(room) = room else { break };
                // Tasks of their own, so that they arrive while another one is written.
                asked.push_back(AbortOnDropHandle::new(tokio::spawn(self.ask(source, next, bytes, room))));
                next += bytes;
            }
            let Some(piece) = asked.pop_front() else { break };
            let piece = piece.await.map_err(|error| CopyFailure::Source(error.to_string()))??;
            self.write(piece).await.map_err(CopyFailure::Here)?;
        }
        self.read_back().await
    }

    /// Gets one piece.
    fn ask(
        &self,
        source: &Source,
        offset: u64,
        length: u64,
        room: OwnedSemaphorePermit,
    ) -> impl Future<Output = Result<Piece, CopyFailure>> + Send + 'static {
        let node = NodeClient::new(self.copies.http.clone(), source.address.clone());
        let (disk, volume, urgent) = (source.disk, self.order.volume, self.order.urgent);
        // A piece is at most a few MiB.
        let length = length as u32;
        async move {
            let since = Instant::now();
            loop {
                // Of no disk's pool: what it takes is bounded by its room.
                let (mut bytes, mut fits) = (AlignedBuf::with_capacity(length as usize), true);
                let fill = |piece: &[u8]| fits &= bytes.extend_from_slice(piece).is_ok();
                match node.read_for_copy(disk, volume, offset, length, urgent, fill).await {
                    Ok(()) if fits && bytes.len() == length as usize => {
                        return Ok(Piece { offset, bytes, _room: room });
                    }
                    Ok(()) => {
                        let much = if fits { format!("{} bytes", bytes.len()) } else { "more bytes".to_owned() };
                        return Err(CopyFailure::Source(format!("{much} instead of {length} at {offset}")));
                    }
                    Err(CallError::Api(error)) if is_worth_waiting(&error, since) => {
                        tokio::time::sleep(BUSY_WAIT).await;
                    }
                    Err(error) => return Err(CopyFailure::Source(error.to_string())),
                }
            }
        }
    }

    async fn write(&self, piece: Piece) -> Result<(), ApiError> {
        let (engine, volume, length) = (self.disk.engine(), self.order.volume, piece.bytes.len() as u64);
        let (mut part, since) = (Some(piece.bytes), Instant::now());
        loop {
            let write = async {
                let written = engine.copy_write(volume, piece.offset, &mut part).await;
                written.map_err(|error| refusal(&error))
            };
            match self.disk.background(self.order.urgent, length, write).await {
                Err(error) if is_worth_waiting(&error, since) => tokio::time::sleep(BUSY_WAIT).await,
                answered => return answered,
            }
        }
    }

    /// Reads the copy back and compares it.
    async fn read_back(&self) -> Result<(), CopyFailure> {
        let (engine, volume) = (self.disk.engine(), self.order.volume);
        self.read_on(|bytes| engine.read_back_copy(volume, bytes)).await.map_err(CopyFailure::Here)?;
        match engine.finish_copy(volume, self.instead_of).await {
            Ok(()) => Ok(()),
            Err(error @ EngineError::CopyMismatch { .. }) => Err(CopyFailure::Source(error.to_string())),
            Err(error) => Err(CopyFailure::Here(refusal(&error))),
        }
    }

    /// Reads back what is in the trash, compares it, and takes it out.
    async fn take_out(&self, named: Named) -> Result<(), ApiError> {
        let engine = self.disk.engine();
        self.read_on(|bytes| engine.read_back_trashed(named, bytes)).await?;
        engine.restore_read_back(named, self.order.term).await.map_err(|error| refusal(&error))
    }

    /// Reads a piece after the other, as the foreground of the disk bears it; `read` answers how many bytes are left.
    async fn read_on<F>(&self, read: impl Fn(u64) -> F) -> Result<(), ApiError>
    where
        F: Future<Output = Result<u64, EngineError>>,
    {
        let mut since = Instant::now();
        loop {
            let bytes = self.disk.pace.piece_bytes();
            // All that it wrote is written: it holds no other room.
            let room = self.copies.bytes.acquire_many(bytes as u32).await;
            let step = async { read(bytes).await.map_err(|error| refusal(&error)) };
            match self.disk.background(self.order.urgent, bytes, step).await {
                Ok(0) => return Ok(()),
                Ok(_) => since = Instant::now(),
                Err(error) if is_worth_waiting(&error, since) => {
                    drop(room);
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether who is busy is asked again.
fn is_worth_waiting(error: &ApiError, since: Instant) -> bool {
    error.code == code::BUSY && since.elapsed() < BUSY_LIMIT
}
