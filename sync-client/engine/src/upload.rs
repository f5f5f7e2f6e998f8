//! Workers that hash files and deliver blocks.
//!
//! A file is read between two stats; if they differ nothing is committed. Small files travel many at a time; a large one
//! in windows of blocks, so that hashing goes on while blocks are delivered and no more than a few windows are in memory.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
use holdfast_metadata_client::{BlockRef, Timestamp};
use holdfast_sync_client_planner::{Content, NodeKind, Stat};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::files::FileSystem;
use crate::jobs::{Event, Fault, UploadJob, Uploaded, fault_of};
use crate::network::Network;
use crate::status::Meters;

/// Blocks hashed and delivered together, of a large file.
const WINDOW_BLOCKS: usize = 4;

/// Windows of one file being delivered while the next is hashed.
const MAX_WINDOWS: usize = 2;

/// Requests of one delivery in flight.
const MAX_REQUESTS: usize = 4;

/// A change later than this before the hash could not be told from one after it, by stats alone.
const RACY: Duration = Duration::from_millis(20);

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What an upload worker needs.
#[derive(Clone)]
pub(crate) struct Uploader {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) events: UnboundedSender<Event>,
}

struct Hashed {
    blocks: Vec<BlockRef>,
    bytes: Vec<Bytes>,
    stat: Stat,
    racy: bool,
}

fn io_fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fault::Changed,
        _ if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => Fault::Changed,
        _ => Fault::Stays(format!("cannot be read: {error}")),
    }
}

/// Whether the change time is so close to `now` that the same stat could come again.
pub(crate) fn is_racy(stat: &Stat, now: Timestamp) -> bool {
    let nanos = |time: Timestamp| i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    nanos(now) - nanos(stat.ctime) < RACY.as_nanos() as i128
}

fn content(stat: &Stat, blocks: Vec<BlockRef>) -> Content {
    Content::File { size: stat.size, blocks: blocks.into(), mtime: stat.mtime, executable: stat.executable }
}

/// Reads exactly the bytes of a window; a file that got shorter has changed.
fn read_window(file: &File, offset: u64, size: u64) -> Result<Vec<(BlockRef, Bytes)>, Fault> {
    let mut blocks = Vec::new();
    let mut at = offset;
    while at < size && blocks.len() < WINDOW_BLOCKS {
        let length = (size - at).min(MAX_BLOCK_BYTES as u64) as usize;
        let mut buffer = vec![0; length];
        file.read_exact_at(&mut buffer, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Fault::Changed,
            _ => io_fault(&error),
        })?;
        blocks.push((BlockRef { hash: BlockHash::of(&buffer), length: length as u32 }, Bytes::from(buffer)));
        at += length as u64;
    }
    Ok(blocks)
}

impl Uploader {
    fn opened(&self, path: &str) -> Result<(File, Stat), Fault> {
        let file = self.files.open(path).map_err(|error| io_fault(&error))?;
        let stat = self.files.stat_open(&file).map_err(|error| io_fault(&error))?;
        if stat.kind != NodeKind::File {
            return Err(Fault::Changed);
        }
        Ok((file, stat))
    }

    /// The second stat, of the open file and of the place.
    fn is_unchanged(&self, path: &str, file: &File, before: &Stat) -> bool {
        let open = self.files.stat_open(file).is_ok_and(|after| before.unchanged(&after));
        open && matches!(self.files.stat(path), Ok(Some(seen)) if before.unchanged(&seen.stat))
    }

    fn hash_small(&self, job: &UploadJob) -> Result<Hashed, Fault> {
        let (file, stat) = self.opened(&job.path)?;
        if stat.size > MAX_BLOCK_BYTES as u64 {
            return Err(Fault::Changed);
        }
        let (blocks, bytes) = read_window(&file, 0, stat.size)?.into_iter().unzip();
        if !self.is_unchanged(&job.path, &file, &stat) {
            return Err(Fault::Changed);
        }
        let racy = is_racy(&stat, self.clock.wall());
        Ok(Hashed { blocks, bytes, stat, racy })
    }

    /// Uploads files of at most one block each, together.
    pub(crate) async fn small(self, jobs: Vec<UploadJob>) {
        let worker = self.clone();
        let hashing = tokio::task::spawn_blocking(move || {
            let hashed: Vec<_> = jobs.iter().map(|job| worker.hash_small(job)).collect();
            (jobs, hashed)
        });
        let Ok((jobs, hashed)) = hashing.await else { return };
        let mut wanted: HashMap<BlockHash, (BlockRef, Bytes)> = HashMap::new();
        for (job, hashed) in jobs.iter().zip(&hashed) {
            let Ok(hashed) = hashed else { continue };
            for (block, bytes) in hashed.blocks.iter().zip(&hashed.bytes) {
                if !job.known.contains(&block.hash) {
                    wanted.insert(block.hash, (*block, bytes.clone()));
                }
            }
        }
        let delivered = self.deliver(wanted.into_values().collect()).await;
        let receipts: Result<HashMap<BlockHash, String>, Fault> =
            delivered.map(|receipts| receipts.into_iter().collect()).map_err(|error| fault_of(&error));
        let finish = |hashed: Result<Hashed, Fault>| {
            let hashed = hashed?;
            let receipts = receipts.clone()?;
            let own = |block: &BlockRef| Some((block.hash, receipts.get(&block.hash)?.clone()));
            let receipts = hashed.blocks.iter().filter_map(own).collect();
            Ok(Uploaded {
                content: content(&hashed.stat, hashed.blocks),
                stat: hashed.stat,
                racy: hashed.racy,
                receipts,
            })
        };
        let results = jobs.into_iter().zip(hashed.into_iter().map(finish)).collect();
        // The engine may be gone; then nothing is lost, for nothing was committed.
        let _ = self.events.send(Event::Uploaded(results));
    }

    /// Uploads one file of several blocks; `held` are receipts from before an interruption.
    pub(crate) async fn large(self, job: UploadJob, held: HashMap<BlockHash, String>) {
        let result = self.large_file(&job, &held).await;
        let _ = self.events.send(Event::Uploaded(vec![(job, result)]));
    }

    async fn large_file(&self, job: &UploadJob, held: &HashMap<BlockHash, String>) -> Result<Uploaded, Fault> {
        let (file, stat) = self.opened(&job.path)?;
        let file = Arc::new(file);
        let mut known: HashSet<BlockHash> = job.known.iter().copied().collect();
        let mut blocks = Vec::new();
        let mut receipts: Vec<(BlockHash, String)> = Vec::new();
        let mut windows = FuturesUnordered::new();
        let mut offset = 0;
        while offset < stat.size {
            let (reading, size) = (Arc::clone(&file), stat.size);
            let window = tokio::task::spawn_blocking(move || read_window(&reading, offset, size))
                .await
                .map_err(|error| Fault::Later(error.to_string()))??;
            offset += window.iter().map(|(block, _)| u64::from(block.length)).sum::<u64>();
            blocks.extend(window.iter().map(|(block, _)| *block));
            let wanted: Vec<_> = window.into_iter().filter(|(block, _)| known.insert(block.hash)).collect();
            receipts.extend(wanted.iter().filter_map(|(block, _)| Some((block.hash, held.get(&block.hash)?.clone()))));
            let wanted: Vec<_> = wanted.into_iter().filter(|(block, _)| !held.contains_key(&block.hash)).collect();
            if !wanted.is_empty() {
                windows.push(self.deliver(wanted));
            }
            while windows.len() > MAX_WINDOWS {
                self.collect(windows.next().await, &mut receipts)?;
            }
        }
        while let Some(delivered) = windows.next().await {
            self.collect(Some(delivered), &mut receipts)?;
        }
        if !self.is_unchanged(&job.path, &file, &stat) {
            return Err(Fault::Changed);
        }
        let racy = is_racy(&stat, self.clock.wall());
        Ok(Uploaded { content: content(&stat, blocks), stat, racy, receipts })
    }

    fn collect(
        &self,
        delivered: Option<Result<Vec<(BlockHash, String)>, CallError>>,
        receipts: &mut Vec<(BlockHash, String)>,
    ) -> Result<(), Fault> {
        match delivered {
            Some(Ok(new)) => {
                let _ = self.events.send(Event::Receipts(new.clone()));
                receipts.extend(new);
                Ok(())
            }
            Some(Err(error)) => Err(fault_of(&error)),
            None => Ok(()),
        }
    }

    /// Asks which blocks must be delivered and delivers them; answers their receipts.
    async fn deliver(&self, blocks: Vec<(BlockRef, Bytes)>) -> Result<Vec<(BlockHash, String)>, CallError> {
        let mut attempt = 0;
        loop {
            match self.deliver_once(&blocks).await {
                Err(error) if attempt + 1 < ATTEMPTS && may_pass(&error) => {
                    tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn deliver_once(&self, blocks: &[(BlockRef, Bytes)]) -> Result<Vec<(BlockHash, String)>, CallError> {
        if blocks.is_empty() {
            return Ok(Vec::new());
        }
        let references: Vec<BlockRef> = blocks.iter().map(|(block, _)| *block).collect();
        let bytes: HashMap<BlockHash, &Bytes> = blocks.iter().map(|(block, bytes)| (block.hash, bytes)).collect();
        let plan = self.network.upload(&references).await?;
        let mut queue = FuturesOrdered::new();
        let mut receipts = Vec::new();
        for signed in &plan.single {
            let Some(block) = bytes.get(&signed.hash) else { continue };
            queue.push_back(futures_util::future::Either::Left(self.put_one(&signed.url, signed.hash, block)));
            if queue.len() >= MAX_REQUESTS
                && let Some(done) = queue.next().await
            {
                receipts.extend(done?);
            }
        }
        for list in &plan.lists {
            let all: Option<Vec<_>> =
                list.hashes.iter().map(|hash| Some((*hash, (*bytes.get(hash)?).clone()))).collect();
            let Some(all) = all else { continue };
            queue.push_back(futures_util::future::Either::Right(self.put_many(&list.url, all)));
            if queue.len() >= MAX_REQUESTS
                && let Some(done) = queue.next().await
            {
                receipts.extend(done?);
            }
        }
        while let Some(done) = queue.next().await {
            receipts.extend(done?);
        }
        Ok(receipts)
    }

    async fn put_one(&self, url: &str, hash: BlockHash, block: &Bytes) -> Result<Vec<(BlockHash, String)>, CallError> {
        let receipt = self.network.put(url, block.clone()).await?;
        Meters::add(&self.meters.sent, block.len() as u64);
        Ok(vec![(hash, receipt)])
    }

    async fn put_many(
        &self,
        url: &str,
        blocks: Vec<(BlockHash, Bytes)>,
    ) -> Result<Vec<(BlockHash, String)>, CallError> {
        let bytes: usize = blocks.iter().map(|(_, block)| block.len()).sum();
        let hashes: Vec<BlockHash> = blocks.iter().map(|(hash, _)| *hash).collect();
        let receipts = self.network.put_list(url, blocks).await?;
        Meters::add(&self.meters.sent, bytes as u64);
        Ok(hashes.into_iter().zip(receipts).collect())
    }
}

/// Whether the same call may work a moment later: a broken connection, a server that is busy, a URL that is too old.
pub(crate) fn may_pass(error: &CallError) -> bool {
    use holdfast_frontend_client::code;
    match error {
        CallError::Unreachable { .. } | CallError::Timeout { .. } => true,
        CallError::Api(error) => {
            matches!(error.code.as_str(), code::UNAVAILABLE | code::URL_EXPIRED | code::UNREADABLE)
                || error.status.is_server_error() && error.code != code::CELL_FULL
        }
        CallError::Malformed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_metadata_client::Timestamp;
    use holdfast_sync_client_planner::{Inode, NodeKind, Stat};

    use super::is_racy;

    #[test]
    fn a_stat_right_after_a_change_is_racy_and_one_before_1970_is_not() {
        let changed = |secs| Stat {
            kind: NodeKind::File,
            inode: Inode { number: 1, birth: None },
            size: 0,
            mtime: Timestamp { secs, nanos: 0 },
            ctime: Timestamp { secs, nanos: 0 },
            executable: false,
            target: None,
        };
        let now = Timestamp { secs: 100, nanos: 10_000_000 };
        assert!(is_racy(&changed(100), now));
        assert!(!is_racy(&changed(99), now));
        assert!(!is_racy(&changed(-5), now));
        assert!(is_racy(&changed(200), now));
    }
}
