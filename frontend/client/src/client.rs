//! Moves blocks by signed URL.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::{BlockHash, CellId, InstanceId, MAX_BLOCK_BYTES, VolumeId};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::{MAX_LIST_BLOCKS, MAX_LIST_BYTES, frames};

const DEADLINE: Duration = Duration::from_secs(60);

/// The answer to a put of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Proof of delivery, for the commit.
    pub receipt: String,
    /// The block was there already.
    pub deduplicated: bool,
}

/// The answer to a put of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReceipts {
    /// One for each block, in order.
    pub receipts: Vec<String>,
    /// How many were there already.
    pub deduplicated: u64,
}

/// The answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendStatus {
    /// The cell it serves.
    pub cell: CellId,
    /// This start of the process.
    pub instance: InstanceId,
    /// The volumes it writes to.
    pub open_volumes: Vec<VolumeId>,
    /// Counters since the start, at the same level of the document: `puts`, `dedup_hits`,
    /// `damaged_records_detected`, `cache_hits`, …
    #[serde(flatten)]
    pub counters: BTreeMap<String, u64>,
}

/// Asks a frontend for its counters; `http` carries a token of the role admin or metadata.
///
/// # Errors
/// See [`CallError`].
pub async fn status(http: &HttpClient, address: &str) -> Result<FrontendStatus, CallError> {
    http.get_json(&format!("{address}/v1/status"), DEADLINE).await
}

/// A client for signed URLs. It needs no token: the URL is the permission.
#[derive(Debug, Clone)]
pub struct FrontendClient {
    http: HttpClient,
}

impl FrontendClient {
    /// Uses the connections of `http`, without its token.
    pub fn new(http: &HttpClient) -> Self {
        Self { http: http.with_token(None) }
    }

    /// Puts one block.
    ///
    /// # Errors
    /// The codes in [`crate::code`].
    pub async fn put(&self, url: &str, block: Bytes) -> Result<PutAnswer, CallError> {
        let answer = self.http.send_bytes(Method::PUT, url, block, 64 * 1024, DEADLINE).await?;
        parse_json(url, &answer)
    }

    /// Gets one block and compares it with `hash`.
    ///
    /// # Errors
    /// The codes in [`crate::code`]; `Malformed` when the bytes are not the block.
    pub async fn get(&self, url: &str, hash: &BlockHash) -> Result<Bytes, CallError> {
        let block = self.http.get(url, MAX_BLOCK_BYTES, DEADLINE).await?;
        checked(url, hash, block)
    }

    /// Puts a list of blocks, in the order the URL was signed for.
    ///
    /// # Errors
    /// The codes in [`crate::code`].
    pub async fn put_list(&self, url: &str, blocks: &[(BlockHash, Bytes)]) -> Result<ListReceipts, CallError> {
        let total: usize = blocks.iter().map(|(_, block)| block.len() + frames::FRAME_HEADER_BYTES).sum();
        let mut body = BytesMut::with_capacity(total);
        for (hash, block) in blocks {
            frames::put(&mut body, hash, Some(block));
        }
        let answer = self.http.send_bytes(Method::POST, url, body.freeze(), 1024 * 1024, DEADLINE).await?;
        parse_json(url, &answer)
    }

    /// Gets a list of blocks; `None` stands for one that is absent or not readable now.
    ///
    /// # Errors
    /// The codes in [`crate::code`]; `Malformed` when a block's bytes are not the block.
    pub async fn get_list(&self, url: &str, hashes: &[BlockHash]) -> Result<Vec<Option<Bytes>>, CallError> {
        let mut question = BytesMut::with_capacity(hashes.len() * 32);
        for hash in hashes {
            question.extend_from_slice(hash.as_bytes());
        }
        let max = MAX_LIST_BYTES + MAX_LIST_BLOCKS * frames::FRAME_HEADER_BYTES;
        let answer = self.http.send_bytes(Method::POST, url, question.freeze(), max, DEADLINE).await?;
        let parsed = frames::parse(answer, hashes.len()).map_err(|error| malformed(url, error.to_string()))?;
        if parsed.len() != hashes.len() {
            return Err(malformed(url, format!("{} frames for {} blocks", parsed.len(), hashes.len())));
        }
        let mut blocks = Vec::with_capacity(hashes.len());
        for ((name, block), hash) in parsed.into_iter().zip(hashes) {
            if name != *hash {
                return Err(malformed(url, "frames are not in the order asked for".to_owned()));
            }
            blocks.push(block.map(|block| checked(url, hash, block)).transpose()?);
        }
        Ok(blocks)
    }
}

fn malformed(url: &str, detail: String) -> CallError {
    let url = url.split('?').next().unwrap_or(url).to_owned();
    CallError::Malformed { url, detail }
}

fn parse_json<A: serde::de::DeserializeOwned>(url: &str, answer: &[u8]) -> Result<A, CallError> {
    serde_json::from_slice(answer).map_err(|error| malformed(url, error.to_string()))
}

fn checked(url: &str, hash: &BlockHash, block: Bytes) -> Result<Bytes, CallError> {
    if BlockHash::of(&block) == *hash {
        Ok(block)
    } else {
        Err(malformed(url, "the bytes are not the block that was asked for".to_owned()))
    }
}
