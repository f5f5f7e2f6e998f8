//! Blocks put and got as an application does, and the record of what was acknowledged.

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use holdfast_libs_presign::{Grant, Method, SigningKeys, Subject};
use holdfast_libs_transport::{CallError, HttpClient, Role, ServiceTokens, tls};
use holdfast_libs_types::{AccountId, BlockHash, CellId, MAX_BLOCK_BYTES};
use http::Request;
use http::header::CACHE_CONTROL;
use http_body_util::Full;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

use crate::cell::Cell;

const DEADLINE: Duration = Duration::from_secs(60);

/// Signs URLs as metadata does and uses them.
#[derive(Debug, Clone)]
pub struct Blocks {
    http: HttpClient,
    frontend: String,
    keys: SigningKeys,
    cell: CellId,
    secret: [u8; 32],
}

/// The account of all test blocks.
pub const ACCOUNT: AccountId = AccountId([0xac; 16]);

impl Blocks {
    /// For a running cell.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn of(cell: &Cell) -> anyhow::Result<Self> {
        let read = |name: &str| std::fs::read_to_string(cell.path().join("etc").join(name));
        let dev = cell.dev_json()?;
        let state: Value = serde_json::from_str(&read("dev-state.json")?)?;
        let ca = tls::client_config(&cell.path().join("ca.pem"))?;
        let mut secret = [0; 32];
        hex::decode_to_slice(read("cell-secret")?.trim(), &mut secret)?;
        Ok(Self {
            http: HttpClient::new(&ca, None),
            frontend: dev["frontend"].as_str().context("no frontend")?.to_owned(),
            keys: SigningKeys::parse(&read("signing-keys")?)?,
            cell: state["cell"].as_str().context("no cell")?.parse()?,
            secret,
        })
    }

    /// A client with the service token of `role`.
    pub fn service(&self, role: Role) -> HttpClient {
        self.http.with_token(Some(&ServiceTokens::new(&self.secret).token(role)))
    }

    /// A client without any token.
    pub fn anonymous(&self) -> &HttpClient {
        &self.http
    }

    /// The signing keys.
    pub fn keys(&self) -> &SigningKeys {
        &self.keys
    }

    /// A signed URL.
    pub fn url(&self, method: Method, hash: BlockHash) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.grant_url(method, hash, MAX_BLOCK_BYTES as u64, now + 3600)
    }

    /// A signed URL with limits of its own.
    pub fn grant_url(&self, method: Method, hash: BlockHash, max_bytes: u64, expires: u64) -> String {
        let subject = Subject::Block(hash);
        let grant = Grant { cell: self.cell, method, subject, account: ACCOUNT, max_bytes, expires };
        format!("{}{}", self.frontend, grant.sign(&self.keys))
    }

    /// Puts a block.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn put(&self, block: &Bytes) -> Result<BlockHash, CallError> {
        let hash = BlockHash::of(block);
        let url = self.url(Method::Put, hash);
        self.http.send_bytes(http::Method::PUT, &url, block.clone(), 1 << 16, DEADLINE).await?;
        Ok(hash)
    }

    /// Gets a block past the frontend's cache; the bytes are compared with the hash.
    ///
    /// # Errors
    /// See [`CallError`]; `Malformed` for wrong bytes.
    pub async fn get(&self, hash: BlockHash) -> Result<Bytes, CallError> {
        let url = self.url(Method::Get, hash);
        let malformed = |detail: String| CallError::Malformed { url: hash.to_string(), detail };
        let request = Request::get(&url)
            .header(CACHE_CONTROL, "no-cache")
            .body(Full::default())
            .map_err(|error| malformed(error.to_string()))?;
        let block = self.http.call(request, MAX_BLOCK_BYTES, DEADLINE).await?;
        if BlockHash::of(&block) == hash { Ok(block) } else { Err(malformed("WRONG BYTES SERVED".to_owned())) }
    }
}

/// A random block of `seed`: its length too, between 1 byte and `max_bytes`, small ones more often.
pub fn random_block(seed: u64, max_bytes: usize) -> Bytes {
    let mut random = SmallRng::seed_from_u64(seed);
    let limit = max_bytes >> (random.next_u32() % 8);
    let length = 1 + random.next_u32() as usize % limit.max(1);
    let mut block = vec![0; length];
    random.fill_bytes(&mut block);
    Bytes::from(block)
}

/// Puts `count` random blocks of `seed`, of at most `max_bytes`, eight at once; all of them are acknowledged.
///
/// # Errors
/// The first put that fails.
pub async fn put_random(blocks: &Blocks, seed: u64, count: u64, max_bytes: usize) -> anyhow::Result<Vec<BlockHash>> {
    const WRITERS: u64 = 8;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let blocks = blocks.clone();
        writers.spawn(async move {
            let mut hashes = Vec::new();
            for number in (writer..count).step_by(WRITERS as usize) {
                hashes.push(blocks.put(&random_block(seed + number, max_bytes)).await?);
            }
            anyhow::Ok(hashes)
        });
    }
    let mut hashes = Vec::new();
    while let Some(ended) = writers.join_next().await {
        hashes.extend(ended??);
    }
    Ok(hashes)
}

/// What was acknowledged, kept outside the cell's folder.
#[derive(Debug)]
pub struct Oracle {
    file: Mutex<std::fs::File>,
    acknowledged: Mutex<Vec<BlockHash>>,
}

impl Oracle {
    /// A new log of acknowledgements.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = std::fs::OpenOptions::new().create_new(true).append(true).open(path)?;
        Ok(Self { file: Mutex::new(file), acknowledged: Mutex::new(Vec::new()) })
    }

    /// Notes an acknowledged block.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn note(&self, hash: BlockHash) -> anyhow::Result<()> {
        let poisoned = |_| anyhow::anyhow!("another task panicked");
        writeln!(self.file.lock().map_err(poisoned)?, "{hash}")?;
        self.acknowledged.lock().map_err(|_| anyhow::anyhow!("another task panicked"))?.push(hash);
        Ok(())
    }

    /// One of them; none when there is none.
    pub fn any(&self, random: &mut SmallRng) -> Option<BlockHash> {
        let all = self.acknowledged.lock().ok()?;
        let at = (random.next_u64() as usize).checked_rem(all.len())?;
        all.get(at).copied()
    }

    /// Everything acknowledged so far.
    pub fn all(&self) -> Vec<BlockHash> {
        self.acknowledged.lock().map(|all| all.clone()).unwrap_or_default()
    }
}
