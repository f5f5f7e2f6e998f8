//! Which blocks to deliver, and where to fetch them.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_presign::Method;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::MAX_BLOCK_BYTES;
use holdfast_metadata_client::{BlockRef, DownloadPlan, UploadPlan};
use holdfast_metadata_store::KnownBlock;
use serde::Deserialize;

use super::Document;
use crate::app::{App, Device, store_error};

const MAX_BLOCKS: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct Blocks {
    blocks: Vec<BlockRef>,
}

impl Blocks {
    /// Each block once, in order.
    fn distinct(self) -> Result<Vec<BlockRef>, ApiError> {
        if self.blocks.len() > MAX_BLOCKS {
            let message = format!("{} blocks; at most {MAX_BLOCKS} can be asked for at once", self.blocks.len());
            return Err(ApiError::bad_request(message));
        }
        let mut seen = HashSet::new();
        let mut distinct = Vec::with_capacity(self.blocks.len());
        for block in self.blocks {
            if block.length == 0 || block.length as usize > MAX_BLOCK_BYTES {
                let message =
                    format!("block {} has {} bytes; 1 to {MAX_BLOCK_BYTES} are possible", block.hash, block.length);
                return Err(ApiError::bad_request(message));
            }
            if seen.insert(block.hash) {
                distinct.push(block);
            }
        }
        Ok(distinct)
    }
}

pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Device(actor): Device,
    Document(asked): Document<Blocks>,
) -> Result<Json<UploadPlan>, ApiError> {
    let asked = asked.distinct()?;
    let hashes = asked.iter().map(|block| block.hash).collect();
    let possessed = app.store.possessed(&actor, hashes).await.map_err(store_error)?;
    let needed: Vec<_> = asked
        .into_iter()
        .filter(|block| !possessed.contains_key(&block.hash))
        .map(|block| KnownBlock { hash: block.hash, length: block.length })
        .collect();
    let (single, lists) = app.signer.blocks(Method::Put, actor.account, &needed);
    app.metrics.signed_urls.inc_by((single.len() + lists.len()) as u64);
    Ok(Json(UploadPlan { single, lists }))
}

pub(super) async fn download(
    State(app): State<Arc<App>>,
    Device(actor): Device,
    Document(asked): Document<Blocks>,
) -> Result<Json<DownloadPlan>, ApiError> {
    let asked = asked.distinct()?;
    let hashes = asked.iter().map(|block| block.hash).collect();
    let possessed = app.store.possessed(&actor, hashes).await.map_err(store_error)?;
    let mut readable = Vec::new();
    let mut refused = Vec::new();
    for block in asked {
        match possessed.get(&block.hash) {
            Some(length) => readable.push(KnownBlock { hash: block.hash, length: *length }),
            None => refused.push(block.hash),
        }
    }
    let (single, lists) = app.signer.blocks(Method::Get, actor.account, &readable);
    app.metrics.signed_urls.inc_by((single.len() + lists.len()) as u64);
    Ok(Json(DownloadPlan { single, lists, refused }))
}
