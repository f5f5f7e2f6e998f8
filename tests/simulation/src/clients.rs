//! Clients that put and get blocks, and the oracle: what was acknowledged, known here and nowhere else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_frontend_client::{FrontendClient, code};
use holdfast_libs_presign::{Grant, Method, SigningKeys, Subject, list_digest};
use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{AccountId, BlockHash};
use tokio::time::sleep;

use crate::cell::{CELL, Cell, signing_keys};

/// URLs outlive the seed and all jumps of clocks.
const EXPIRES: u64 = u64::MAX / 2;
const MAX_BYTES: u64 = 4 << 20;

/// What clients were told.
#[derive(Debug, Default)]
pub struct Oracle {
    acknowledged: RefCell<BTreeMap<BlockHash, Bytes>>,
    violations: RefCell<Vec<String>>,
    /// Puts and gets that were answered well, and that were not.
    pub puts: RefCell<u64>,
    /// Puts of unknown outcome.
    pub failed_puts: RefCell<u64>,
    /// Gets that gave the block.
    pub gets: RefCell<u64>,
    /// Gets that gave none.
    pub failed_gets: RefCell<u64>,
}

impl Oracle {
    /// Everything that was acknowledged.
    pub fn acknowledged(&self) -> Vec<(BlockHash, Bytes)> {
        self.acknowledged.borrow().iter().map(|(hash, block)| (*hash, block.clone())).collect()
    }

    /// What was seen that must never be.
    pub fn violations(&self) -> Vec<String> {
        self.violations.borrow().clone()
    }

    fn acknowledge(&self, hash: BlockHash, block: Bytes) {
        self.acknowledged.borrow_mut().insert(hash, block);
    }

    fn pick(&self, rng: &mut SimRng) -> Option<(BlockHash, Bytes)> {
        let known = self.acknowledged.borrow();
        let at = rng.index(known.len());
        known.iter().nth(at).map(|(hash, block)| (*hash, block.clone()))
    }

    fn violation(&self, what: String) {
        self.violations.borrow_mut().push(what);
    }

    /// Judges the answer to a get of a block that was acknowledged; says why there was no block.
    pub fn judge(&self, hash: &BlockHash, block: &Bytes, answer: Result<Bytes, CallError>) -> Result<(), String> {
        match answer {
            Ok(bytes) if bytes == *block => Ok(()),
            Ok(bytes) => {
                self.violation(format!("block {hash} was read as {} other bytes", bytes.len()));
                Ok(())
            }
            Err(error @ CallError::Malformed { .. }) => {
                self.violation(format!("block {hash} was read as other bytes: {error}"));
                Ok(())
            }
            Err(error) if error.code() == Some(code::NOT_FOUND) => {
                self.violation(format!("acknowledged block {hash} was not found: {error}"));
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A client of one frontend.
pub struct Caller {
    client: FrontendClient,
    address: String,
    keys: SigningKeys,
}

impl Caller {
    /// The client `name` of the frontend `frontend`.
    pub fn new(cell: &Cell, name: &str, frontend: &str) -> Self {
        let client = FrontendClient::new(&cell.outsider(name));
        Self { client, address: format!("https://{frontend}"), keys: signing_keys() }
    }

    fn url(&self, method: Method, subject: Subject) -> String {
        let account = AccountId([3; 16]);
        let grant = Grant { cell: CELL, method, subject, account, max_bytes: MAX_BYTES, expires: EXPIRES };
        format!("{}{}", self.address, grant.sign(&self.keys))
    }

    /// Gets a block.
    pub async fn get(&self, hash: &BlockHash) -> Result<Bytes, CallError> {
        self.client.get(&self.url(Method::Get, Subject::Block(*hash)), hash).await
    }

    async fn put(&self, blocks: &[(BlockHash, Bytes)]) -> Result<(), CallError> {
        if let [(hash, block)] = blocks {
            let url = self.url(Method::Put, Subject::Block(*hash));
            return self.client.put(&url, block.clone()).await.map(drop);
        }
        let digest = list_digest(blocks.iter().map(|(hash, _)| hash));
        self.client.put_list(&self.url(Method::Put, Subject::List(digest)), blocks).await.map(drop)
    }
}

fn new_block(rng: &mut SimRng) -> (BlockHash, Bytes) {
    let most = if rng.chance(100) { 24_000 } else { 6000 };
    let mut block = vec![0; rng.within(1..most) as usize];
    // The first bytes make it one of its kind; the rest costs less.
    let filled = block.len().min(64);
    rng.fill(&mut block[..filled]);
    (BlockHash::of(&block), Bytes::from(block))
}

/// Puts and gets until `until`, one after the other.
pub async fn work(cell: Rc<Cell>, oracle: Rc<Oracle>, number: u64, until: Duration, mut rng: SimRng) {
    let frontends = [1, 2].map(|n| format!("frontend-{n}"));
    let name = format!("client-{number}");
    let callers = frontends.map(|frontend| Caller::new(&cell, &name, &frontend));
    while cell.start.elapsed() < until {
        let caller = &callers[rng.index(callers.len())];
        if rng.chance(250)
            && let Some((hash, block)) = oracle.pick(&mut rng)
        {
            let count = match oracle.judge(&hash, &block, caller.get(&hash).await) {
                Ok(()) => &oracle.gets,
                Err(_) => &oracle.failed_gets,
            };
            *count.borrow_mut() += 1;
        } else {
            let blocks = match rng.below(10) {
                // What another put brought already, or brings at this moment.
                0 => oracle.pick(&mut rng).into_iter().collect(),
                1 => (0..rng.within(2..6)).map(|_| new_block(&mut rng)).collect(),
                _ => vec![new_block(&mut rng)],
            };
            let blocks = if blocks.is_empty() { vec![new_block(&mut rng)] } else { blocks };
            if caller.put(&blocks).await.is_ok() {
                *oracle.puts.borrow_mut() += blocks.len() as u64;
                blocks.into_iter().for_each(|(hash, block)| oracle.acknowledge(hash, block));
            } else {
                *oracle.failed_puts.borrow_mut() += blocks.len() as u64;
            }
        }
        sleep(Duration::from_millis(rng.below(800))).await;
    }
}
