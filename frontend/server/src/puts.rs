//! The calls that put blocks.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use bytes::Bytes;
use holdfast_frontend_client::frames::{self, FRAME_HEADER_BYTES};
use holdfast_frontend_client::{ListReceipts, MAX_LIST_BLOCKS, MAX_LIST_BYTES, PutAnswer};
use holdfast_libs_presign::{Method, Receipt, Subject, list_digest};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{AccountId, BlockHash, MAX_BLOCK_BYTES};

use crate::Frontend;
use crate::answers::{hash_mismatch, too_large, unavailable};
use crate::cpu::on_cpu;
use crate::in_flight::Stored;
use crate::receive::{receive, refuse};
use crate::routes::grant;

/// How long a receipt counts, seconds: a client that uploads for a whole day can still commit.
const RECEIPT_SECONDS: u64 = 24 * 60 * 60;

/// `PUT /v1/blocks/HASH?…`
pub(crate) async fn block(
    State(frontend): State<Arc<Frontend>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<PutAnswer>, ApiError> {
    let (hash, grant) = match grant(&frontend, Method::Put, Subject::Block, &name, request.uri()) {
        Ok(granted) => granted,
        Err(refused) => return Err(refuse(request, refused).await),
    };
    let limit = at_most(MAX_BLOCK_BYTES, grant.max_bytes);
    let received = receive(request, limit, &frontend.put_budget, true)
        .await
        .inspect_err(|_| frontend.counters.refused_puts.one())?;
    if received.hash != Some(hash) {
        frontend.counters.refused_puts.one();
        let found = received.hash.map(|hash| hash.to_string()).unwrap_or_default();
        return Err(hash_mismatch(format!("the body is not block {hash}: its SHA-256 is {found}")));
    }
    let bytes = received.bytes.clone();
    let mut outcomes = frontend.store.put(vec![(hash, received.bytes)], Arc::new(received.held)).await;
    let stored = outcomes.pop().ok_or_else(|| unavailable("the put was given up"))??;
    let receipt = receipt(&frontend, grant.account, hash, bytes.len());
    frontend.cache.put(hash, bytes);
    Ok(Json(PutAnswer { receipt, deduplicated: stored == Stored::Known }))
}

/// `POST /v1/block-lists/DIGEST/put?…`
pub(crate) async fn list(
    State(frontend): State<Arc<Frontend>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<ListReceipts>, ApiError> {
    let (digest, grant) = match grant(&frontend, Method::Put, Subject::List, &name, request.uri()) {
        Ok(granted) => granted,
        Err(refused) => return Err(refuse(request, refused).await),
    };
    let refused = |_: &ApiError| frontend.counters.refused_puts.one();
    let most = at_most(MAX_LIST_BYTES, grant.max_bytes);
    let limit = most + MAX_LIST_BLOCKS * FRAME_HEADER_BYTES;
    let received = receive(request, limit, &frontend.put_budget, false).await.inspect_err(refused)?;
    let blocks =
        on_cpu(received.bytes.len(), move || check_list(received.bytes, digest, most)).await.inspect_err(refused)?;
    let lengths: Vec<_> = blocks.iter().map(|(hash, block)| (*hash, block.len())).collect();
    let outcomes = frontend.store.put(blocks, Arc::new(received.held)).await;
    let mut answer = ListReceipts { receipts: Vec::with_capacity(lengths.len()), deduplicated: 0 };
    for ((hash, length), outcome) in lengths.into_iter().zip(outcomes) {
        answer.deduplicated += u64::from(outcome? == Stored::Known);
        answer.receipts.push(receipt(&frontend, grant.account, hash, length));
    }
    Ok(Json(answer))
}

fn at_most(limit: usize, granted: u64) -> usize {
    usize::try_from(granted).unwrap_or(usize::MAX).min(limit)
}

/// The blocks of a list, each compared with its name, and all names with the list's.
fn check_list(body: Bytes, digest: BlockHash, most: usize) -> Result<Vec<(BlockHash, Bytes)>, ApiError> {
    let frames = frames::parse(body, MAX_LIST_BLOCKS).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if list_digest(frames.iter().map(|(hash, _)| hash)) != digest {
        return Err(hash_mismatch("the blocks in the body are not those that the URL was signed for"));
    }
    let total: usize = frames.iter().filter_map(|(_, block)| block.as_ref()).map(Bytes::len).sum();
    if total > most {
        return Err(too_large(format!("the list has {total} bytes of blocks; at most {most} are allowed")));
    }
    let mut blocks = Vec::with_capacity(frames.len());
    for (index, (hash, block)) in frames.into_iter().enumerate() {
        let block = block.ok_or_else(|| ApiError::bad_request(format!("frame {index} has no bytes")))?;
        if BlockHash::of(&block) != hash {
            return Err(hash_mismatch(format!("frame {index} is not block {hash}")));
        }
        blocks.push((hash, block));
    }
    Ok(blocks)
}

fn receipt(frontend: &Frontend, account: AccountId, hash: BlockHash, length: usize) -> String {
    // A block has at most 4 MiB, so its length fits.
    let receipt = Receipt {
        account,
        hash,
        length: length as u32,
        expires: frontend.surroundings.clock.unix_s() + RECEIPT_SECONDS,
    };
    receipt.sign(&frontend.signing_keys)
}
