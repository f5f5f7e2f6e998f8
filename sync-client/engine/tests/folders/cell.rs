//! A cell in memory: the model server of the planner's tests, and blocks with receipts and possession.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use holdfast_libs_transport::{ApiError, CallError};
use holdfast_libs_types::{AccountId, BlockHash, DeviceId};
use holdfast_metadata_client::{
    BlockRef, Change, Changes, ChangesRequest, CommitAnswer, CommitRequest, DownloadPlan, Entry, ItemResult, Me,
    NamespaceId, Outcome, SignedBlock, SignedList, UploadPlan, code,
};
use holdfast_sync_client_engine::Network;
use tokio::sync::watch;

use super::reference::Server;

type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'a>>;

/// Blocks up to this travel in lists.
const LIST_BLOCK_BYTES: u32 = 256 * 1024;
const LIST_BLOCKS: usize = 1024;

#[derive(Default)]
pub struct Inner {
    pub server: Server,
    pub blocks: HashMap<BlockHash, Bytes>,
    possessed: HashSet<BlockHash>,
}

/// The cell, and how it misbehaves.
pub struct Cell {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    pub puts: AtomicU64,
    pub gets: AtomicU64,
    pub committed_items: AtomicU64,
    /// The answer to every commit's first sending is lost.
    pub lose_answers: AtomicBool,
    answered: Mutex<HashSet<(u64, u64)>>,
    /// The numbers of every commit that arrived.
    pub arrived: Mutex<Vec<Vec<u64>>>,
    pub is_down: AtomicBool,
    pub reset: AtomicBool,
}

/// One device's connection.
pub struct Device {
    pub cell: Arc<Cell>,
    pub device: u64,
}

fn unreachable() -> CallError {
    CallError::Unreachable { url: "cell".to_owned(), detail: "down".to_owned() }
}

impl Cell {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changed: watch::channel(0).0,
            puts: AtomicU64::new(0),
            gets: AtomicU64::new(0),
            committed_items: AtomicU64::new(0),
            lose_answers: AtomicBool::new(false),
            answered: Mutex::default(),
            arrived: Mutex::default(),
            is_down: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn plant(&self, entry: Entry) {
        let mut inner = self.lock();
        inner.server.plant(entry);
        let sequence = inner.server.sequence;
        self.changed.send_replace(sequence);
    }

    fn check(&self) -> Result<(), CallError> {
        if self.is_down.load(Ordering::SeqCst) { Err(unreachable()) } else { Ok(()) }
    }
}

fn blocks_of(change: &Change) -> &[BlockRef] {
    match change {
        Change::PutFile { blocks, .. } => blocks,
        _ => &[],
    }
}

impl Network for Device {
    fn me(&self) -> Answer<'_, Me> {
        Box::pin(async {
            self.cell.check()?;
            Ok(Me {
                user: "user".to_owned(),
                account: AccountId([1; 16]),
                device: DeviceId(self.device),
                namespace: NamespaceId(1),
            })
        })
    }

    fn changes(&self, request: ChangesRequest) -> Answer<'_, Changes> {
        Box::pin(async move {
            let mut changed = self.cell.changed.subscribe();
            let since = request.cursor.as_ref().map(|cursor| cursor.parse::<u64>().unwrap());
            let wait = Duration::from_millis(request.wait_ms);
            let news = changed.wait_for(|sequence| Some(*sequence) > since);
            let _ = tokio::time::timeout(wait, news).await;
            self.cell.check()?;
            let (entries, sequence) = self.cell.lock().server.changes(since);
            let reset = self.cell.reset.load(Ordering::SeqCst) && since.is_some();
            let cursor = sequence.to_string();
            Ok(Changes { entries, cursor, sequence, has_more: false, reset })
        })
    }

    fn commit<'a>(&'a self, request: &'a CommitRequest) -> Answer<'a, CommitAnswer> {
        Box::pin(async move {
            self.cell.check()?;
            assert!(request.items.len() <= 1000);
            let numbers = request.items.iter().map(|item| item.op).collect();
            self.cell.arrived.lock().unwrap().push(numbers);
            let (results, sequence) = {
                let mut inner = self.cell.lock();
                for receipt in &request.receipts {
                    let hash = receipt.strip_prefix("receipt ").unwrap().parse().unwrap();
                    inner.possessed.insert(hash);
                }
                let mut results = Vec::new();
                for item in &request.items {
                    let missing: Vec<_> = blocks_of(&item.change)
                        .iter()
                        .map(|block| block.hash)
                        .filter(|hash| !inner.possessed.contains(hash))
                        .collect();
                    if missing.is_empty() {
                        results.extend(inner.server.commit(self.device, std::slice::from_ref(item)));
                        inner.server.commits -= 1;
                    } else {
                        let code = code::NEED_BLOCKS.to_owned();
                        let outcome = Outcome::Refused { message: code.clone(), code, missing };
                        results.push(ItemResult { op: item.op, outcome });
                    }
                }
                inner.server.commits += 1;
                (results, inner.server.sequence)
            };
            self.cell.committed_items.fetch_add(results.len() as u64, Ordering::SeqCst);
            self.cell.changed.send_replace(sequence);
            let first = self.cell.answered.lock().unwrap().insert((self.device, request.items[0].op));
            if first && self.cell.lose_answers.load(Ordering::SeqCst) {
                return Err(unreachable());
            }
            Ok(CommitAnswer { results, sequence })
        })
    }

    fn upload<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, UploadPlan> {
        Box::pin(async move {
            self.cell.check()?;
            let inner = self.cell.lock();
            let wanted = blocks.iter().filter(|block| !inner.possessed.contains(&block.hash)).copied();
            let (single, lists) = plan(wanted.collect());
            Ok(UploadPlan { single, lists })
        })
    }

    fn download<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, DownloadPlan> {
        Box::pin(async move {
            self.cell.check()?;
            let (single, lists) = plan(blocks.to_vec());
            Ok(DownloadPlan { single, lists, refused: Vec::new() })
        })
    }

    fn put<'a>(&'a self, url: &'a str, block: Bytes) -> Answer<'a, String> {
        Box::pin(async move {
            self.cell.check()?;
            let hash: BlockHash = url.parse().unwrap();
            assert_eq!(BlockHash::of(&block), hash);
            self.cell.lock().blocks.insert(hash, block);
            self.cell.puts.fetch_add(1, Ordering::SeqCst);
            Ok(format!("receipt {hash}"))
        })
    }

    fn put_list<'a>(&'a self, _url: &'a str, blocks: Vec<(BlockHash, Bytes)>) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let mut receipts = Vec::new();
            for (hash, block) in blocks {
                receipts.push(self.put(&hash.to_string(), block).await?);
            }
            Ok(receipts)
        })
    }

    fn get<'a>(&'a self, _url: &'a str, hash: BlockHash) -> Answer<'a, Bytes> {
        Box::pin(async move {
            self.cell.check()?;
            self.cell.gets.fetch_add(1, Ordering::SeqCst);
            let found = self.cell.lock().blocks.get(&hash).cloned();
            found.ok_or_else(|| ApiError::new(http_status(), "not_found", "no such block").into())
        })
    }

    fn get_list<'a>(&'a self, url: &'a str, hashes: &'a [BlockHash]) -> Answer<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let mut blocks = Vec::new();
            for hash in hashes {
                blocks.push(Some(self.get(url, *hash).await?));
            }
            Ok(blocks)
        })
    }
}

fn http_status() -> http::StatusCode {
    http::StatusCode::NOT_FOUND
}

fn plan(blocks: Vec<BlockRef>) -> (Vec<SignedBlock>, Vec<SignedList>) {
    let (small, large): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|block| block.length <= LIST_BLOCK_BYTES);
    let single = large.iter().map(|block| SignedBlock { hash: block.hash, url: block.hash.to_string() }).collect();
    let lists = small
        .chunks(LIST_BLOCKS)
        .map(|chunk| SignedList { hashes: chunk.iter().map(|block| block.hash).collect(), url: "list".to_owned() })
        .collect();
    (single, lists)
}
