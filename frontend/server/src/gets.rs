//! The calls that get blocks.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use holdfast_frontend_client::frames::{self, FRAME_HEADER_BYTES};
use holdfast_frontend_client::{MAX_LIST_BLOCKS, MAX_LIST_BYTES};
use holdfast_libs_presign::{Method, Subject, list_digest};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::BlockHash;
use http::HeaderMap;
use http::header::CACHE_CONTROL;

use crate::Frontend;
use crate::answers::{hash_mismatch, too_large};
use crate::budget::{Held, HeldBytes};
use crate::index::Row;
use crate::receive::{receive, refuse};
use crate::routes::grant;

/// Blocks of one list that are read at once.
const READS_AT_ONCE: usize = 32;

/// `GET /v1/blocks/HASH?…`
pub(crate) async fn block(
    State(frontend): State<Arc<Frontend>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Bytes, ApiError> {
    let (hash, grant) = grant(&frontend, Method::Get, Subject::Block, &name, request.uri())?;
    let reader = &frontend.reader;
    let cached = if past_cache(request.headers()) { None } else { reader.cached(&hash) };
    let (block, held) = match cached {
        Some(block) => {
            let held = frontend.get_budget.take(block.len()).await?;
            (block, held)
        }
        None => {
            let row = reader.row(hash).await?;
            allowed(row.plain_len as usize, grant.max_bytes)?;
            let held = frontend.get_budget.take(row.plain_len as usize).await?;
            (reader.read(&row).await?, held)
        }
    };
    allowed(block.len(), grant.max_bytes)?;
    frontend.counters.gets.one();
    frontend.counters.get_bytes.add(block.len() as u64);
    Ok(HeldBytes::tie(block, held))
}

/// Whether the caller wants the block from a disk (RFC 9111, 5.2.1.4).
fn past_cache(headers: &HeaderMap) -> bool {
    headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-cache")
}

fn allowed(length: usize, granted: u64) -> Result<(), ApiError> {
    if length as u64 > granted {
        return Err(too_large(format!("the block has {length} bytes, the URL grants {granted}")));
    }
    Ok(())
}

/// `POST /v1/block-lists/DIGEST/get?…`
pub(crate) async fn list(
    State(frontend): State<Arc<Frontend>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Bytes, ApiError> {
    let (digest, grant) = match grant(&frontend, Method::Get, Subject::List, &name, request.uri()) {
        Ok(granted) => granted,
        Err(refused) => return Err(refuse(request, refused).await),
    };
    let hashes = receive_hashes(&frontend, request, digest).await?;
    let found = find(&frontend, &hashes).await?;
    let total: usize = found.iter().map(Found::len).sum();
    let most = usize::try_from(grant.max_bytes).unwrap_or(usize::MAX).min(MAX_LIST_BYTES);
    if total > most {
        return Err(too_large(format!(
            "the list has {total} bytes of blocks; at most {most} may be asked for at once"
        )));
    }
    let held = frontend.get_budget.take(total + hashes.len() * FRAME_HEADER_BYTES).await?;
    Ok(assemble(&frontend, &hashes, found, total, held).await)
}

async fn receive_hashes(frontend: &Frontend, request: Request, digest: BlockHash) -> Result<Vec<BlockHash>, ApiError> {
    let received = receive(request, MAX_LIST_BLOCKS * 32, &frontend.put_budget, false).await?;
    let (hashes, rest) = received.bytes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(ApiError::bad_request("the body must hold hashes of 32 bytes each"));
    }
    let hashes: Vec<_> = hashes.iter().map(|hash| BlockHash(*hash)).collect();
    if list_digest(&hashes) != digest {
        return Err(hash_mismatch("the hashes in the body are not those that the URL was signed for"));
    }
    Ok(hashes)
}

/// What is known of a block before it is read.
enum Found {
    Cached(Bytes),
    Stored(Row),
    Nothing,
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Self::Cached(block) => block.len(),
            Self::Stored(row) => row.plain_len as usize,
            Self::Nothing => 0,
        }
    }
}

async fn find(frontend: &Frontend, hashes: &[BlockHash]) -> Result<Vec<Found>, ApiError> {
    let mut found: Vec<_> =
        hashes.iter().map(|hash| frontend.reader.cached(hash).map_or(Found::Nothing, Found::Cached)).collect();
    let wanted: Vec<_> = (0..hashes.len()).filter(|at| matches!(found[*at], Found::Nothing)).collect();
    let rows = frontend.reader.rows(wanted.iter().map(|at| hashes[*at]).collect()).await?;
    for (at, row) in wanted.into_iter().zip(rows) {
        if let Some(row) = row {
            found[at] = Found::Stored(row);
        }
    }
    Ok(found)
}

/// Reads what has to be read, several at a time, and lays everything out in the order asked for.
async fn assemble(frontend: &Frontend, hashes: &[BlockHash], found: Vec<Found>, total: usize, held: Held) -> Bytes {
    let reads = found.into_iter().map(|found| async move {
        match found {
            Found::Cached(block) => Some(block),
            // The reason has been logged and counted; the answer says "not readable now".
            Found::Stored(row) => frontend.reader.read(&row).await.ok(),
            Found::Nothing => None,
        }
    });
    let mut body = BytesMut::with_capacity(total + hashes.len() * FRAME_HEADER_BYTES);
    let mut blocks = stream::iter(reads).buffered(READS_AT_ONCE);
    for hash in hashes {
        let block = blocks.next().await.flatten();
        if let Some(block) = &block {
            frontend.counters.gets.one();
            frontend.counters.get_bytes.add(block.len() as u64);
        }
        frames::put(&mut body, hash, block.as_deref());
    }
    HeldBytes::tie(body.freeze(), held)
}
