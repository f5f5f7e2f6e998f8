//! Workers that fetch blocks and write complete temporary files.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{BlockRef, DownloadPlan};
use holdfast_sync_client_planner::Content;
use nix::fcntl::{FallocateFlags, fallocate};
use tokio::sync::mpsc::UnboundedSender;

use crate::apply::needs_a_person;
use crate::files::{FileSystem, Temporary};
use crate::jobs::{Event, Fault, FetchJob, Fetched, fault_of};
use crate::network::Network;
use crate::status::Meters;
use crate::upload::may_pass;

/// Blocks of a large file fetched together.
const WINDOW_BLOCKS: usize = 4;

/// Windows of one file in flight.
const MAX_WINDOWS: usize = 2;

/// Requests of one window in flight.
const MAX_REQUESTS: usize = 4;

/// More files than this are made durable with one `syncfs`.
const MAX_FILE_SYNCS: usize = 4;

const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What a fetch worker needs.
#[derive(Clone)]
pub(crate) struct Fetcher {
    pub(crate) network: Arc<dyn Network>,
    pub(crate) files: Arc<dyn FileSystem>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) events: UnboundedSender<Event>,
}

type Blocks = HashMap<BlockHash, Bytes>;

/// Each block of a file once, in order, with all places where it stands.
fn with_offsets(blocks: &[BlockRef]) -> Vec<(BlockRef, Vec<u64>)> {
    let mut unique: Vec<(BlockRef, Vec<u64>)> = Vec::new();
    let mut known: HashMap<BlockHash, usize> = HashMap::new();
    let mut offset = 0;
    for block in blocks {
        let index = *known.entry(block.hash).or_insert(unique.len());
        if index == unique.len() {
            unique.push((*block, Vec::new()));
        }
        unique[index].1.push(offset);
        offset += u64::from(block.length);
    }
    unique
}

fn disk_fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fault::Later(format!("this disk is full: {error}; make room, it is tried again"))
        }
        _ if needs_a_person(error) => Fault::Stays(format!("cannot be written here: {error}")),
        _ => Fault::Later(format!("cannot be written here: {error}")),
    }
}

impl Fetcher {
    /// A block that this disk has, if it really does.
    fn read_here(&self, block: &BlockRef, here: &HashMap<BlockHash, (String, u64)>) -> Option<Bytes> {
        let (path, offset) = here.get(&block.hash)?;
        let file = self.files.open(path).ok()?;
        let mut buffer = vec![0; block.length as usize];
        file.read_exact_at(&mut buffer, *offset).ok()?;
        (BlockHash::of(&buffer) == block.hash).then(|| Bytes::from(buffer))
    }

    /// Fetches and writes small files and links together.
    pub(crate) async fn small(self, jobs: Vec<FetchJob>) {
        let worker = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let mut blocks = Blocks::new();
            for job in &jobs {
                for block in job.content.blocks() {
                    if let Some(bytes) = worker.read_here(block, &job.here) {
                        blocks.insert(block.hash, bytes);
                    }
                }
            }
            (jobs, blocks)
        });
        let Ok((jobs, mut blocks)) = reading.await else { return };
        let mut seen = HashSet::new();
        let missing: Vec<BlockRef> = jobs
            .iter()
            .flat_map(|job| job.content.blocks())
            .filter(|block| !blocks.contains_key(&block.hash) && seen.insert(block.hash))
            .copied()
            .collect();
        let fetched = self.fetch(&missing).await;
        let trouble = match fetched {
            Ok(fetched) => {
                blocks.extend(fetched);
                None
            }
            Err(error) => Some(fault_of(&error)),
        };
        let worker = self.clone();
        let writing = tokio::task::spawn_blocking(move || worker.write_small(jobs, &blocks, trouble.as_ref()));
        if let Ok(results) = writing.await {
            let _ = self.events.send(Event::Fetched(results));
        }
    }

    fn write_small(&self, jobs: Vec<FetchJob>, blocks: &Blocks, trouble: Option<&Fault>) -> Vec<Fetched> {
        let sync_each = jobs.len() <= MAX_FILE_SYNCS;
        let write = |job: FetchJob| {
            let result = self.write_one(&job, blocks, trouble, sync_each);
            Fetched { job, result }
        };
        let mut results: Vec<Fetched> = jobs.into_iter().map(write).collect();
        if !sync_each && let Err(error) = self.files.sync_all() {
            for fetched in &mut results {
                if let Ok(temporary) = &fetched.result {
                    self.files.discard(temporary);
                    fetched.result = Err(disk_fault(&error));
                }
            }
        }
        results
    }

    fn write_one(
        &self,
        job: &FetchJob,
        blocks: &Blocks,
        trouble: Option<&Fault>,
        sync: bool,
    ) -> Result<Temporary, Fault> {
        let (mtime, executable) = match &job.content {
            Content::Symlink { target, mtime } => {
                return self.files.create_link(target, *mtime).map_err(|error| disk_fault(&error));
            }
            Content::Folder => return Err(Fault::Changed),
            Content::File { mtime, executable, .. } => (*mtime, *executable),
        };
        let bytes: Option<Vec<&Bytes>> = job.content.blocks().iter().map(|block| blocks.get(&block.hash)).collect();
        let Some(bytes) = bytes else {
            let missing = || Fault::Later("blocks of it are not readable on the server now".to_owned());
            return Err(trouble.cloned().unwrap_or_else(missing));
        };
        let (temporary, file) = self.files.create().map_err(|error| disk_fault(&error))?;
        let write = || -> io::Result<()> {
            let mut offset = 0;
            for block in bytes {
                file.write_all_at(block, offset)?;
                offset += block.len() as u64;
            }
            self.files.finish(&file, mtime, executable, job.like.as_deref())?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        self.kept(write(), temporary)
    }

    fn kept(&self, written: io::Result<()>, temporary: Temporary) -> Result<Temporary, Fault> {
        match written {
            Ok(()) => Ok(temporary),
            Err(error) => {
                self.files.discard(&temporary);
                Err(disk_fault(&error))
            }
        }
    }

    /// Fetches and writes one file of several blocks.
    pub(crate) async fn large(self, job: FetchJob) {
        let result = self.large_file(&job).await;
        let _ = self.events.send(Event::Fetched(vec![Fetched { job, result }]));
    }

    async fn large_file(&self, job: &FetchJob) -> Result<Temporary, Fault> {
        let Content::File { size, blocks, mtime, executable } = job.content.clone() else {
            return Err(Fault::Changed);
        };
        let (temporary, file) = self.files.create().map_err(|error| disk_fault(&error))?;
        let file = Arc::new(file);
        let filled = self.fill(&file, size, &blocks, &job.here).await;
        if let Err(fault) = filled {
            self.files.discard(&temporary);
            return Err(fault);
        }
        let (worker, like) = (self.clone(), job.like.clone());
        let finishing = tokio::task::spawn_blocking(move || {
            worker.files.finish(&file, mtime, executable, like.as_deref())?;
            file.sync_all()
        });
        let finished = finishing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.kept(finished, temporary)
    }

    async fn fill(
        &self,
        file: &Arc<File>,
        size: u64,
        blocks: &[BlockRef],
        here: &HashMap<BlockHash, (String, u64)>,
    ) -> Result<(), Fault> {
        if let Ok(size) = i64::try_from(size)
            && let Err(error) = fallocate(&**file, FallocateFlags::empty(), 0, size)
            && matches!(error, nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT)
        {
            return Err(disk_fault(&error.into()));
        }
        let mut windows = FuturesUnordered::new();
        for window in with_offsets(blocks).chunks(WINDOW_BLOCKS) {
            windows.push(self.fill_window(Arc::clone(file), window.to_vec(), here));
            if windows.len() > MAX_WINDOWS
                && let Some(done) = windows.next().await
            {
                done?;
            }
        }
        while let Some(done) = windows.next().await {
            done?;
        }
        Ok(())
    }

    async fn fill_window(
        &self,
        file: Arc<File>,
        window: Vec<(BlockRef, Vec<u64>)>,
        here: &HashMap<BlockHash, (String, u64)>,
    ) -> Result<(), Fault> {
        let own: HashMap<_, _> =
            window.iter().filter_map(|(block, _)| Some((block.hash, here.get(&block.hash)?.clone()))).collect();
        let (worker, asked) = (self.clone(), window.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let found = |(block, _): &(BlockRef, Vec<u64>)| Some((block.hash, worker.read_here(block, &own)?));
            asked.iter().filter_map(found).collect::<Blocks>()
        });
        let mut found = reading.await.map_err(|error| Fault::Later(error.to_string()))?;
        let missing: Vec<BlockRef> =
            window.iter().map(|(block, _)| *block).filter(|block| !found.contains_key(&block.hash)).collect();
        found.extend(self.fetch(&missing).await.map_err(|error| fault_of(&error))?);
        let writing = tokio::task::spawn_blocking(move || {
            for (block, offsets) in &window {
                let Some(bytes) = found.get(&block.hash) else {
                    return Err(Fault::Later("blocks of it are not readable on the server now".to_owned()));
                };
                for offset in offsets {
                    file.write_all_at(bytes, *offset).map_err(|error| disk_fault(&error))?;
                }
            }
            Ok(())
        });
        writing.await.map_err(|error| Fault::Later(error.to_string()))?
    }

    /// Fetches blocks; those that are refused or not readable now are missing from the answer.
    async fn fetch(&self, blocks: &[BlockRef]) -> Result<Blocks, CallError> {
        let mut attempt = 0;
        loop {
            match self.fetch_once(blocks).await {
                Err(error) if attempt + 1 < ATTEMPTS && may_pass(&error) => {
                    tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn fetch_once(&self, blocks: &[BlockRef]) -> Result<Blocks, CallError> {
        if blocks.is_empty() {
            return Ok(Blocks::new());
        }
        let DownloadPlan { single, lists, .. } = self.network.download(blocks).await?;
        let mut calls: Vec<BoxFuture<'_, Result<Blocks, CallError>>> = Vec::new();
        for signed in &single {
            calls.push(Box::pin(self.get_one(&signed.url, signed.hash)));
        }
        for list in &lists {
            calls.push(Box::pin(self.get_many(&list.url, &list.hashes)));
        }
        let mut answers = futures_util::stream::iter(calls).buffer_unordered(MAX_REQUESTS);
        let mut found = Blocks::new();
        while let Some(answer) = answers.next().await {
            found.extend(answer?);
        }
        Ok(found)
    }

    async fn get_one(&self, url: &str, hash: BlockHash) -> Result<Blocks, CallError> {
        let bytes = self.network.get(url, hash).await?;
        Meters::add(&self.meters.received, bytes.len() as u64);
        Ok(Blocks::from([(hash, bytes)]))
    }

    async fn get_many(&self, url: &str, hashes: &[BlockHash]) -> Result<Blocks, CallError> {
        let answers = self.network.get_list(url, hashes).await?;
        let found: Blocks = hashes.iter().zip(answers).filter_map(|(hash, bytes)| Some((*hash, bytes?))).collect();
        let received: usize = found.values().map(Bytes::len).sum();
        Meters::add(&self.meters.received, received as u64);
        Ok(found)
    }
}
