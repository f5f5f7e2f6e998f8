//! Gets: index row, a replica, decrypt, compare SHA-256. Bytes that are not the block are never answered; the next
//! replica is tried, and a slow one gets company.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holdfast_frontend_client::code;
use holdfast_libs_transport::{ApiError, CallError, HttpClient};
use holdfast_libs_types::BlockHash;
use holdfast_libs_types::record::{CheckedRecord, RECORD_HEADER_BYTES};
use holdfast_node_client::{NodeClient, code as node_code};
use holdfast_volume_manager_client::Replica;
use http::StatusCode;

use crate::answers::unavailable;
use crate::cache::Cache;
use crate::counters::Counters;
use crate::cpu::on_cpu;
use crate::index::{Index, Row};
use crate::keyring::Keyring;
use crate::locations::Locations;
use crate::suspects::Suspects;

/// A replica that has not answered by then is counted as away.
const READ_DEADLINE: Duration = Duration::from_secs(15);

/// A disk that failed a read is asked last for so long.
pub(crate) const LAST_FOR: Duration = Duration::from_secs(10);

/// Rounds over all replicas; later ones look the locations up anew.
const ROUNDS: u32 = 3;
const ROUND_WAIT: Duration = Duration::from_millis(50);

/// The way of a block out of the cell.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) index: Index,
    pub(crate) locations: Locations,
    pub(crate) http: HttpClient,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) suspects: Suspects,
    pub(crate) counters: Arc<Counters>,
    pub(crate) hedge: Duration,
}

/// Why one replica gave no block.
#[derive(Debug)]
enum Miss {
    /// Its bytes are wrong; they will not get better.
    Damaged(String),
    /// It does not hold the volume (any more): the list of replicas may be old.
    Moved(String),
    /// It or its node is away, busy or slow.
    Away(String),
    /// The catalog is the trouble, not the replica.
    Catalog(String),
}

impl Miss {
    fn text(&self) -> &str {
        match self {
            Self::Damaged(text) | Self::Moved(text) | Self::Away(text) | Self::Catalog(text) => text,
        }
    }
}

impl Reader {
    /// The index row of a block.
    ///
    /// # Errors
    /// `not_found` when the cell has no such block; `unavailable` when the catalog cannot be read, or does not have the row and
    /// is not whole: the block may be on the disks all the same.
    pub(crate) async fn row(&self, hash: BlockHash) -> Result<Row, ApiError> {
        if let Some(row) = self.index_row(hash).await? {
            return Ok(row);
        }
        if let Some(why) = self.index.not_whole().await.map_err(|error| unavailable(error.to_string()))? {
            return Err(unavailable(format!(
                "block {hash} is not in the catalog, which is not whole ({why}): whether the cell has it is known when \
                 `holdfast admin catalog rebuild` has ended"
            )));
        }
        // A rebuild may have ended meanwhile: its rows are there before the catalog counts as whole.
        let found = self.index_row(hash).await?;
        found.ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, code::NOT_FOUND, format!("the cell has no block {hash}"))
        })
    }

    async fn index_row(&self, hash: BlockHash) -> Result<Option<Row>, ApiError> {
        Ok(self.rows(vec![hash]).await?.pop().flatten())
    }

    /// The index rows of blocks, in order.
    ///
    /// # Errors
    /// `unavailable` when the catalog cannot be read.
    pub(crate) async fn rows(&self, hashes: Vec<BlockHash>) -> Result<Vec<Option<Row>>, ApiError> {
        self.index.lookup(&hashes).await.map_err(|error| unavailable(error.to_string()))
    }

    /// A block from the cache, verified when it was put there.
    pub(crate) fn cached(&self, hash: &BlockHash) -> Option<Bytes> {
        let found = self.cache.get(hash);
        if found.is_some() {
            self.counters.cache_hits.one();
        } else if self.cache.is_on() {
            self.counters.cache_misses.one();
        }
        found
    }

    /// Reads and verifies the block that `row` points to.
    ///
    /// # Errors
    /// `unreadable` when no replica gives it, `unavailable` when the catalog cannot be read.
    pub(crate) async fn read(&self, row: &Row) -> Result<Bytes, ApiError> {
        let mut misses = Vec::new();
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_WAIT * round).await;
            }
            let replicas = self.locations.of(row.volume, round > 0).await;
            let replicas = replicas.map_err(|error| unavailable(error.to_string()))?;
            match self.read_from_any(row, &replicas).await {
                Ok(block) => {
                    self.cache.put(row.hash, block.clone());
                    return Ok(block);
                }
                Err(round_misses) => misses = round_misses,
            }
            // Damage does not go away, and reading it again would count it again.
            if !misses.is_empty() && misses.iter().all(|miss| matches!(miss, Miss::Damaged(_))) {
                break;
            }
        }
        self.counters.unreadable_blocks.one();
        let reasons: Vec<_> = misses.iter().map(Miss::text).collect();
        let reasons = if reasons.is_empty() { "no replica is known".to_owned() } else { reasons.join("; ") };
        tracing::error!(block = %row.hash, volume = %row.volume, offset = row.offset, reasons, "block is unreadable");
        if misses.iter().any(|miss| matches!(miss, Miss::Catalog(_))) {
            return Err(unavailable(reasons));
        }
        let message = format!("block {}: no replica of volume {} gives it now: {reasons}", row.hash, row.volume);
        Err(ApiError::new(StatusCode::BAD_GATEWAY, code::UNREADABLE, message))
    }

    /// The first good answer of the replicas: the next is asked when one fails, or is slow.
    async fn read_from_any(&self, row: &Row, replicas: &[Replica]) -> Result<Bytes, Vec<Miss>> {
        let mut left = self.in_order(row, replicas).into_iter();
        let mut running = FuturesUnordered::new();
        let mut misses = Vec::new();
        running.extend(left.next().map(|replica| self.read_from(row, replica)));
        loop {
            let hedge = tokio::time::sleep(self.hedge);
            tokio::select! {
                biased;
                answer = running.next() => match answer {
                    Some(Ok(block)) => return Ok(block),
                    Some(Err(miss)) => {
                        misses.push(miss);
                        running.extend(left.next().map(|replica| self.read_from(row, replica)));
                    }
                    None => return Err(misses),
                },
                () = hedge, if left.len() > 0 => {
                    self.counters.hedged_reads.one();
                    running.extend(left.next().map(|replica| self.read_from(row, replica)));
                }
            }
        }
    }

    /// The replicas, starting where the block's hash says (so that load spreads), disks that failed of late last.
    fn in_order<'a>(&self, row: &Row, replicas: &'a [Replica]) -> Vec<&'a Replica> {
        let start = usize::from(row.hash.as_bytes()[31]) % replicas.len().max(1);
        let (late, early): (Vec<_>, Vec<_>) =
            replicas.iter().cycle().skip(start).take(replicas.len()).partition(|r| self.suspects.contains(r.disk));
        early.into_iter().chain(late).collect()
    }

    async fn read_from(&self, row: &Row, replica: &Replica) -> Result<Bytes, Miss> {
        let node = NodeClient::new(self.http.clone(), replica.address.clone());
        let place = || format!("{} disk {} volume {} offset {}", replica.node, replica.disk, row.volume, row.offset);
        let read = node.read_record(replica.disk, row.volume, row.offset, row.length, READ_DEADLINE).await;
        let miss = match read {
            Ok(record) => match self.open(row, record).await {
                Ok(block) => return Ok(block),
                Err(Miss::Damaged(what)) => Miss::Damaged(format!("{}: {what}", place())),
                Err(other) => other,
            },
            Err(error) => self.judge(replica, &error),
        };
        if let Miss::Damaged(what) = &miss {
            self.counters.damaged_records_detected.one();
            tracing::error!(block = %row.hash, what, "damaged record; another replica is read");
        } else {
            self.counters.failed_reads.one();
        }
        Err(miss)
    }

    fn judge(&self, replica: &Replica, error: &CallError) -> Miss {
        let text = format!("{}: {error}", replica.node);
        match error.code() {
            Some(node_code::DAMAGED) => Miss::Damaged(text),
            Some(node_code::UNKNOWN_VOLUME | node_code::UNKNOWN_DISK | node_code::WRONG_STATE) => Miss::Moved(text),
            Some(node_code::BUSY) => Miss::Away(text),
            _ => {
                self.suspects.note(replica.disk);
                Miss::Away(text)
            }
        }
    }

    /// Checks, decrypts and verifies a record.
    async fn open(&self, row: &Row, record: Bytes) -> Result<Bytes, Miss> {
        let header = CheckedRecord::decode(&record, row.volume, row.offset)
            .map_err(|error| Miss::Damaged(error.to_string()))?
            .header;
        if header.hash != row.hash {
            return Err(Miss::Damaged(format!("it holds block {}", header.hash)));
        }
        if header.flags != 0 {
            return Err(Miss::Damaged(format!("flags {:#x} are not known here", header.flags)));
        }
        let key = match self.keyring.opening(header.key).await {
            Ok(Some(key)) => key,
            Ok(None) => return Err(Miss::Damaged(format!("it is sealed with an unknown key, {}", header.key))),
            Err(error) => return Err(Miss::Catalog(error.to_string())),
        };
        on_cpu(record.len(), move || {
            let payload = &record[RECORD_HEADER_BYTES..header.record_len()];
            let block =
                holdfast_libs_crypto::open(&key, header.nonce, &header.hash, header.plain_len, header.flags, payload)
                    .map_err(|error| Miss::Damaged(error.to_string()))?;
            if BlockHash::of(&block) != header.hash {
                return Err(Miss::Damaged("its bytes do not have the hash of the block".to_owned()));
            }
            Ok(Bytes::from(block))
        })
        .await
    }
}
