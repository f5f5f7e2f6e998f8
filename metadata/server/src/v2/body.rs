//! Bodies of bytes on their way to the frontend: cut into blocks, hashed, put by signed URL, a few at a time.
//!
//! Memory: a body being received holds one block that fills and up to [`IN_FLIGHT`] that are being put. Each of them
//! takes a place of [`App::block_places`], so that all bodies together stay bounded. A body that sends nothing for
//! [`IDLE`] is given up, so that a slow caller cannot keep a place for long.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use holdfast_frontend_client::code::CELL_FULL;
use holdfast_libs_presign::{Method, Receipt};
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{BlockHash, ContentHasher, MAX_BLOCK_BYTES};
use holdfast_metadata_model::BlockRef;
use holdfast_metadata_store::{Actor, KnownBlock};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::error::ApiFailure;
use crate::app::{App, unix_now};

/// Blocks of one body being put at once.
const IN_FLIGHT: usize = 4;

/// Longest body of one request: 150 MiB, as in API v2.
pub(super) const MAX_BODY_BYTES: u64 = 150 * 1024 * 1024;

/// What is read and thrown away of a body that is refused, so that its sender hears why.
const MAX_DRAINED_BYTES: u64 = 512 * 1024 * 1024;

const IDLE: Duration = Duration::from_secs(60);

/// Why a body was not taken.
#[derive(Debug)]
pub(super) enum BodyFailure {
    /// Over [`MAX_BODY_BYTES`].
    TooLarge,
    /// Its bytes are not those of the `content_hash` that came with it.
    HashMismatch,
    /// The cell has no room.
    CellFull,
    /// Anything else.
    Other(ApiFailure),
}

impl From<ApiFailure> for BodyFailure {
    fn from(failure: ApiFailure) -> Self {
        Self::Other(failure)
    }
}

impl BodyFailure {
    /// As a route tells it: `full` is its word for a cell without room.
    pub fn told(self, full: impl FnOnce() -> ApiFailure) -> ApiFailure {
        match self {
            Self::TooLarge => ApiFailure::tag("payload_too_large"),
            Self::HashMismatch => ApiFailure::tag("content_hash_mismatch"),
            Self::CellFull => full(),
            Self::Other(failure) => failure,
        }
    }
}

/// A body that was received.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// Its whole blocks of 4 MiB, all in the cell.
    pub blocks: Vec<BlockHash>,
    /// What came after them.
    pub tail: Vec<u8>,
    /// Bytes of the body.
    pub size: u64,
    /// What the receipts proved.
    pub proven: Vec<KnownBlock>,
}

/// Receives a body; `head` are the bytes before it that fill no block yet.
pub(super) async fn receive(
    app: &Arc<App>,
    actor: &Actor,
    body: Body,
    head: Vec<u8>,
    content_hash: Option<&str>,
) -> Result<Received, BodyFailure> {
    let mut stream = body.into_data_stream();
    let mut receiver = Receiver::new(app, actor, head, content_hash.is_some()).await;
    let result = receiver.run(&mut stream, content_hash).await;
    match result {
        Ok(()) => Ok(receiver.received),
        Err(failure) => {
            drain(&mut stream).await;
            Err(failure)
        }
    }
}

/// Reads the rest of a body that is refused.
async fn drain(stream: &mut BodyDataStream) {
    let mut read = 0;
    while let Ok(Some(Ok(piece))) = tokio::time::timeout(IDLE, stream.next()).await {
        read += piece.len() as u64;
        if read > MAX_DRAINED_BYTES {
            return;
        }
    }
}

/// Reads a whole refused body.
pub(super) async fn drain_body(body: Body) {
    drain(&mut body.into_data_stream()).await;
}

type Putting = JoinHandle<Result<KnownBlock, CallError>>;

struct Receiver<'a> {
    app: &'a Arc<App>,
    actor: &'a Actor,
    buffer: BytesMut,
    place: Option<OwnedSemaphorePermit>,
    putting: FuturesOrdered<Putting>,
    hasher: Option<ContentHasher>,
    received: Received,
}

impl<'a> Receiver<'a> {
    async fn new(app: &'a Arc<App>, actor: &'a Actor, head: Vec<u8>, hashing: bool) -> Self {
        let place = Arc::clone(&app.block_places).acquire_owned().await.ok();
        Self {
            app,
            actor,
            buffer: BytesMut::from(head.as_slice()),
            place,
            putting: FuturesOrdered::new(),
            hasher: hashing.then(ContentHasher::default),
            received: Received::default(),
        }
    }

    async fn run(&mut self, stream: &mut BodyDataStream, content_hash: Option<&str>) -> Result<(), BodyFailure> {
        loop {
            let piece = match tokio::time::timeout(IDLE, stream.next()).await {
                Ok(None) => break,
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => {
                    return Err(ApiFailure::BadInput(format!("the body did not arrive whole: {error}")).into());
                }
                Err(_) => {
                    let message = format!("the body sent nothing for {} s", IDLE.as_secs());
                    return Err(ApiFailure::BadInput(message).into());
                }
            };
            self.received.size += piece.len() as u64;
            self.app.metrics.bytes_in.inc_by(piece.len() as u64);
            if self.received.size > MAX_BODY_BYTES {
                return Err(BodyFailure::TooLarge);
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            self.take(piece).await?;
        }
        while !self.putting.is_empty() {
            self.put_done().await?;
        }
        if let (Some(hasher), Some(expected)) = (self.hasher.take(), content_hash)
            && !hasher.finish().eq_ignore_ascii_case(expected)
        {
            return Err(BodyFailure::HashMismatch);
        }
        self.received.tail = std::mem::take(&mut self.buffer).to_vec();
        Ok(())
    }

    async fn take(&mut self, mut piece: Bytes) -> Result<(), BodyFailure> {
        while !piece.is_empty() {
            let room = MAX_BLOCK_BYTES - self.buffer.len();
            let part = piece.split_to(room.min(piece.len()));
            self.buffer.extend_from_slice(&part);
            if self.buffer.len() == MAX_BLOCK_BYTES {
                if self.putting.len() == IN_FLIGHT {
                    self.put_done().await?;
                }
                let block = std::mem::take(&mut self.buffer).freeze();
                let place = self.place.take();
                let put = put_block(Arc::clone(self.app), self.actor.clone(), block);
                self.putting.push_back(tokio::spawn(async move {
                    let done = put.await;
                    drop(place);
                    done
                }));
                self.place = self.next_place().await?;
            }
        }
        Ok(())
    }

    /// A place for the next block; meanwhile finished puts give theirs back by themselves.
    async fn next_place(&self) -> Result<Option<OwnedSemaphorePermit>, BodyFailure> {
        match Arc::clone(&self.app.block_places).acquire_owned().await {
            Ok(place) => Ok(Some(place)),
            Err(_) => Err(ApiFailure::Unavailable("the server stops".to_owned()).into()),
        }
    }

    async fn put_done(&mut self) -> Result<(), BodyFailure> {
        let Some(done) = self.putting.next().await else { return Ok(()) };
        let done = done.map_err(|error| ApiFailure::Internal(error.to_string()))?;
        let block = done.map_err(put_failure)?;
        self.received.blocks.push(block.hash);
        self.received.proven.push(block);
        Ok(())
    }
}

fn put_failure(error: CallError) -> BodyFailure {
    if error.code() == Some(CELL_FULL) { BodyFailure::CellFull } else { BodyFailure::Other(error.into()) }
}

/// Puts the last, shorter block of a file, if there is one.
pub(super) async fn put_tail(
    app: &Arc<App>,
    actor: &Actor,
    tail: Vec<u8>,
) -> Result<Option<(BlockRef, KnownBlock)>, BodyFailure> {
    if tail.is_empty() {
        return Ok(None);
    }
    let block = put_block(Arc::clone(app), actor.clone(), Bytes::from(tail)).await.map_err(put_failure)?;
    Ok(Some((BlockRef { hash: block.hash, length: block.length }, block)))
}

async fn put_block(app: Arc<App>, actor: Actor, block: Bytes) -> Result<KnownBlock, CallError> {
    let length = block.len() as u32;
    let bytes = block.clone();
    let failed = |detail: String| CallError::Malformed { url: "a block".to_owned(), detail };
    let hash =
        tokio::task::spawn_blocking(move || BlockHash::of(&bytes)).await.map_err(|error| failed(error.to_string()))?;
    let known = KnownBlock { hash, length };
    let possessed = app.store.possessed(&actor, vec![hash]).await.map_err(|error| failed(error.to_string()))?;
    if possessed.get(&hash) == Some(&length) {
        return Ok(known);
    }
    let url = app.signer.block(Method::Put, actor.account, known);
    let answer = app.signer.client.put(&url, block).await?;
    let receipt = Receipt::verify(&answer.receipt, &app.keys, actor.account, unix_now())
        .map_err(|error| failed(format!("the frontend's receipt: {error}")))?;
    if receipt.hash != hash || receipt.length != length {
        return Err(failed("the frontend's receipt is for another block".to_owned()));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::BlockHash;
    use holdfast_metadata_model::{BlockRef, content_hash};

    use super::ContentHasher;

    #[test]
    fn a_body_in_pieces_has_the_content_hash_of_its_blocks() {
        let body: Vec<u8> = (0..(4 << 20) + 12_345_u32).map(|n| (n % 251) as u8).collect();
        let blocks: Vec<_> =
            body.chunks(4 << 20).map(|b| BlockRef { hash: BlockHash::of(b), length: b.len() as u32 }).collect();
        let mut hasher = ContentHasher::default();
        for piece in body.chunks(777_777) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), hex::encode(content_hash(&blocks)));
        assert_eq!(ContentHasher::default().finish(), hex::encode(content_hash(&[])));
    }
}
