//! A real metadata server on a real database, over TLS, and beside it a frontend that keeps blocks in memory but checks
//! signatures and signs receipts as the real one does.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as UrlPath, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use bytes::BytesMut;
use holdfast_frontend_client::{FrontendClient, ListReceipts, PutAnswer, frames};
use holdfast_libs_presign::{Grant, Method, Receipt, SigningKeys, Subject, list_digest};
use holdfast_libs_transport::{ApiError, HttpClient, Role, ServiceTokens, serve};
use holdfast_libs_types::{BlockHash, CellId};
use holdfast_metadata_client::{
    BlockRef, Change, CommitAnswer, CommitItem, CommitRequest, CreateUser, EntryId, Login, LoginAnswer, MetadataClient,
    Outcome, Parent, Place, Timestamp,
};
use holdfast_metadata_server::{Config, ServerError, run};
use holdfast_tests_certificates::certificates;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const CELL: CellId = CellId([7; 16]);
const SECRET: [u8; 32] = [3; 32];

pub fn keys() -> SigningKeys {
    SigningKeys::parse(&keys_text()).unwrap()
}

fn keys_text() -> String {
    format!("1:{}", "ab".repeat(32))
}

/// The frontend of these tests.
#[derive(Default)]
pub struct Blocks {
    pub stored: Mutex<HashMap<BlockHash, Bytes>>,
    pub puts: AtomicU64,
    pub gets: AtomicU64,
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn check(method: Method, subject: Subject, query: Option<String>) -> Result<Grant, ApiError> {
    Grant::verify(&keys(), CELL, method, subject, &query.unwrap_or_default(), now())
        .map_err(|error| ApiError::new(http::StatusCode::FORBIDDEN, "url_signature", error.to_string()))
}

impl Blocks {
    fn keep(&self, grant: &Grant, hash: BlockHash, block: Bytes) -> Result<String, ApiError> {
        if BlockHash::of(&block) != hash {
            return Err(ApiError::new(http::StatusCode::BAD_REQUEST, "hash_mismatch", "another block"));
        }
        self.puts.fetch_add(1, Ordering::SeqCst);
        let length = block.len() as u32;
        self.stored.lock().unwrap().insert(hash, block);
        Ok(Receipt { account: grant.account, hash, length, expires: now() + 3600 }.sign(&keys()))
    }
}

async fn put_block(
    State(blocks): State<Arc<Blocks>>,
    UrlPath(hash): UrlPath<BlockHash>,
    RawQuery(query): RawQuery,
    block: Bytes,
) -> Result<Response, ApiError> {
    let grant = check(Method::Put, Subject::Block(hash), query)?;
    let receipt = blocks.keep(&grant, hash, block)?;
    Ok(axum::Json(PutAnswer { receipt, deduplicated: false }).into_response())
}

async fn get_block(
    State(blocks): State<Arc<Blocks>>,
    UrlPath(hash): UrlPath<BlockHash>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    check(Method::Get, Subject::Block(hash), query)?;
    blocks.gets.fetch_add(1, Ordering::SeqCst);
    let block = blocks.stored.lock().unwrap().get(&hash).cloned();
    block
        .map(IntoResponse::into_response)
        .ok_or_else(|| ApiError::new(http::StatusCode::NOT_FOUND, "not_found", "no such block"))
}

async fn put_list(
    State(blocks): State<Arc<Blocks>>,
    UrlPath(digest): UrlPath<BlockHash>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, ApiError> {
    let grant = check(Method::Put, Subject::List(digest), query)?;
    let frames = frames::parse(body, 1024).unwrap();
    assert_eq!(list_digest(frames.iter().map(|(hash, _)| hash)), digest);
    let mut receipts = Vec::new();
    for (hash, block) in frames {
        receipts.push(blocks.keep(&grant, hash, block.unwrap())?);
    }
    Ok(axum::Json(ListReceipts { receipts, deduplicated: 0 }).into_response())
}

async fn get_list(
    State(blocks): State<Arc<Blocks>>,
    UrlPath(digest): UrlPath<BlockHash>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, ApiError> {
    check(Method::Get, Subject::List(digest), query)?;
    let mut out = BytesMut::new();
    for hash in body.chunks(32) {
        let hash = BlockHash(hash.try_into().unwrap());
        let block = blocks.stored.lock().unwrap().get(&hash).cloned();
        frames::put(&mut out, &hash, block.as_deref());
    }
    Ok(out.freeze().into_response())
}

fn frontend_router(blocks: Arc<Blocks>) -> Router {
    Router::new()
        .route("/v1/blocks/{hash}", put(put_block).get(get_block))
        .route("/v1/block-lists/{digest}/put", post(put_list))
        .route("/v1/block-lists/{digest}/get", post(get_list))
        .layer(DefaultBodyLimit::max(32 << 20))
        .with_state(blocks)
}

/// A running server.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub address: String,
    pub blocks: Arc<Blocks>,
    pub http: HttpClient,
    pub admin_token: String,
    config: Config,
    shutdown: CancellationToken,
    server: Option<JoinHandle<Result<(), ServerError>>>,
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

impl Bench {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tls = certificates(directory.path());
        let shutdown = CancellationToken::new();
        let blocks = Arc::new(Blocks::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let frontend = format!("https://{}", listener.local_addr().unwrap());
        let server_tls = tls.server().unwrap();
        tokio::spawn(serve(listener, server_tls, frontend_router(Arc::clone(&blocks)), shutdown.clone()));
        let listen = format!("127.0.0.1:{}", free_port().await);
        let http = HttpClient::new(&tls.client().unwrap(), None);
        let config = Config {
            address: format!("https://{listen}"),
            listen,
            cell: CELL,
            cell_secret: hex::encode(SECRET),
            signing_keys: keys_text(),
            data_dir: directory.path().join("metadata"),
            frontend,
            quota_bytes: 1 << 30,
            tls,
        };
        let admin_token = ServiceTokens::new(&SECRET).token(Role::Admin);
        let address = config.address.clone();
        let mut bench = Self { directory, address, blocks, http, admin_token, config, shutdown, server: None };
        bench.serve().await;
        bench
    }

    async fn serve(&mut self) {
        let stop = self.shutdown.child_token();
        self.server = Some(tokio::spawn(run(self.config.clone(), stop)));
        let url = format!("{}/healthz", self.address);
        within(Duration::from_secs(10), "the server answers", async || {
            self.http.get(&url, 100, Duration::from_secs(1)).await.is_ok()
        })
        .await;
    }

    /// Stops the server, changes its files, and starts it again.
    pub async fn restart(&mut self, change: impl FnOnce(&Path)) {
        self.shutdown.cancel();
        self.server.take().unwrap().await.unwrap().unwrap();
        self.shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.config.frontend = format!("https://{}", listener.local_addr().unwrap());
        let server_tls = self.config.tls.server().unwrap();
        let router = frontend_router(Arc::clone(&self.blocks));
        tokio::spawn(serve(listener, server_tls, router, self.shutdown.clone()));
        change(&self.config.data_dir);
        self.serve().await;
    }

    pub fn client(&self, token: Option<&str>) -> MetadataClient {
        MetadataClient::new(self.http.with_token(token), self.address.clone())
    }

    pub async fn user(&self, user: &str) {
        let new = CreateUser { user: user.to_owned(), password: "secret".to_owned() };
        self.client(Some(&self.admin_token)).create_user(&new).await.unwrap();
    }

    pub async fn device(&self, user: &str) -> Device {
        let login = Login { user: user.to_owned(), password: "secret".to_owned(), device_name: "test".to_owned() };
        let me = self.client(None).login(&login).await.unwrap();
        let client = self.client(Some(&me.token));
        Device { client, me, frontend: FrontendClient::new(&self.http), op: 0, receipts: Vec::new() }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits until `holds`, or fails with what was waited for.
pub async fn within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    while !holds().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A linked device as a sync client would be.
pub struct Device {
    pub client: MetadataClient,
    pub me: LoginAnswer,
    pub frontend: FrontendClient,
    pub op: u64,
    pub receipts: Vec<String>,
}

pub fn block(content: &[u8]) -> BlockRef {
    BlockRef { hash: BlockHash::of(content), length: content.len() as u32 }
}

pub fn named(parent: EntryId, name: &str) -> Place {
    Place::Name { parent: Parent::Entry(parent), name: name.to_owned() }
}

impl Device {
    /// Delivers a block if the server asks for it; the receipt goes with the next commit.
    pub async fn deliver(&mut self, content: &[u8]) -> usize {
        let plan = self.client.upload(&[block(content)]).await.unwrap();
        let body = Bytes::copy_from_slice(content);
        for single in &plan.single {
            self.receipts.push(self.frontend.put(&single.url, body.clone()).await.unwrap().receipt);
        }
        for list in &plan.lists {
            let blocks = [(list.hashes[0], body.clone())];
            self.receipts.extend(self.frontend.put_list(&list.url, &blocks).await.unwrap().receipts);
        }
        plan.single.len() + plan.lists.len()
    }

    pub fn request(&mut self, changes: Vec<Change>) -> CommitRequest {
        let items = changes.into_iter().map(|change| {
            self.op += 1;
            CommitItem { op: self.op, change }
        });
        CommitRequest {
            namespace: self.me.namespace,
            items: items.collect(),
            receipts: std::mem::take(&mut self.receipts),
            acknowledged_op: 0,
        }
    }

    pub async fn commit(&mut self, changes: Vec<Change>) -> CommitAnswer {
        let request = self.request(changes);
        self.client.commit(&request).await.unwrap()
    }

    /// Commits one change.
    pub async fn one(&mut self, change: Change) -> Outcome {
        self.commit(vec![change]).await.results.remove(0).outcome
    }

    /// Delivers and commits a small file.
    pub async fn put(&mut self, at: Place, base: Option<&str>, content: &[u8]) -> Outcome {
        self.deliver(content).await;
        self.one(put_file(at, base, content)).await
    }
}

pub fn put_file(at: Place, base: Option<&str>, content: &[u8]) -> Change {
    Change::PutFile {
        at,
        base: base.map(str::to_owned),
        size: content.len() as u64,
        blocks: if content.is_empty() { Vec::new() } else { vec![block(content)] },
        mtime: Timestamp { secs: 1_000_000_000, nanos: 123_456_789 },
        executable: false,
    }
}

/// The entry of an outcome that was applied or merged.
pub fn applied(outcome: &Outcome) -> &holdfast_metadata_client::Entry {
    match outcome {
        Outcome::Applied { entry } | Outcome::Merged { entry } => entry,
        other => panic!("not applied: {other:?}"),
    }
}

/// The code of a refused item.
pub fn refused(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Refused { code, .. } => code,
        other => panic!("not refused: {other:?}"),
    }
}
