//! Hands out uploads and downloads, and puts complete files in place.

use std::collections::HashMap;
use std::time::Instant;

use holdfast_libs_types::{BlockHash, MAX_BLOCK_BYTES};
use holdfast_metadata_client::EntryId;
use holdfast_sync_client_planner::{Content, LocalId, NodeKind, Operation, Stat, Whereabouts, check_name, outcome};

use crate::apply::needs_a_person;
use crate::engine::Engine;
use crate::files::Temporary;
use crate::hints::{DELETE_DELAY, QUIET};
use crate::jobs::{Fault, FetchJob, Fetched, UploadJob, Uploaded};
use crate::state::Intent;
use crate::status::Meters;

/// Small files of one worker: at most so many bytes and so many files.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
const BATCH_FILES: usize = 400;

/// Workers at once.
const MAX_BATCHES: usize = 3;
const MAX_LARGE: usize = 2;

/// A complete temporary file and where it goes.
struct Placing {
    fetched: FetchJob,
    temporary: Temporary,
    stat: Stat,
    folder: LocalId,
    name: String,
    replace: bool,
}

impl Engine {
    /// Hands out the operations of a plan.
    pub(crate) fn dispatch(&mut self, operations: Vec<Operation>) {
        let now = self.parts.clock.now();
        let mut on_disk = Vec::new();
        for operation in operations {
            match &operation {
                Operation::Upload { .. } => self.upload_or_hold(operation, now),
                Operation::MakeRemoteFolder { .. } | Operation::MoveRemote { .. } => {
                    self.commits.push_plain(operation);
                }
                Operation::DeleteRemote { .. } => self.held.push((now + DELETE_DELAY, operation)),
                Operation::Download { entry } => self.queue_download(*entry, operation),
                Operation::SetAttributes { .. }
                | Operation::MakeLocalFolder { .. }
                | Operation::MoveLocal { .. }
                | Operation::DeleteLocal { .. } => on_disk.push(operation),
            }
        }
        self.apply_all(on_disk);
    }

    // --- uploads --------------------------------------------------------------------------------------------

    /// Queues an upload, unless somebody is still writing the file.
    pub(crate) fn upload_or_hold(&mut self, operation: Operation, now: Instant) {
        let Operation::Upload { local, entry, .. } = &operation else { return };
        if let Some(written) = self.writing.get(local).filter(|written| now < **written + QUIET) {
            self.held.push((*written + QUIET, operation));
            return;
        }
        let (Some(node), Some(path)) = (self.trees.local().get(*local), self.path(*local)) else {
            return self.trees.done(&operation);
        };
        let size = node.stat.size;
        if node.stat.kind == NodeKind::Symlink {
            return self.upload_link(operation, &path);
        }
        let known = entry.and_then(|entry| self.trees.synced().get(entry)).map_or_else(Vec::new, |row| {
            let hashes = row.content.blocks().iter().map(|block| block.hash);
            hashes.filter(|hash| !self.disowned.contains(hash)).collect()
        });
        let job = UploadJob { operation, path, size, known };
        if size > MAX_BLOCK_BYTES as u64 {
            self.large_uploads.push_back(job);
        } else {
            self.small_uploads.push_back(job);
        }
    }

    fn upload_link(&mut self, operation: Operation, path: &str) {
        let stat = match self.parts.files.stat(path) {
            Ok(Some(seen)) if seen.stat.kind == NodeKind::Symlink => seen.stat,
            _ => return self.look_again(&operation),
        };
        let target = stat.target.clone().unwrap_or_default();
        let content = Content::Symlink { target, mtime: stat.mtime };
        let racy = crate::upload::is_racy(&stat, self.parts.clock.wall());
        self.take_uploaded(operation, Uploaded { content, stat, racy, receipts: Vec::new() });
    }

    pub(crate) fn start_uploads(&mut self) {
        while self.uploads_running < MAX_BATCHES && !self.small_uploads.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(job) = self.small_uploads.front() {
                if batch.len() >= BATCH_FILES || (bytes + job.size > BATCH_BYTES && !batch.is_empty()) {
                    break;
                }
                bytes += job.size;
                batch.extend(self.small_uploads.pop_front());
            }
            self.uploads_running += 1;
            tokio::spawn(self.uploader().small(batch));
        }
        while self.large_uploads_running < MAX_LARGE {
            let Some(job) = self.large_uploads.pop_front() else { break };
            self.large_uploads_running += 1;
            tokio::spawn(self.uploader().large(job, self.receipts.clone()));
        }
    }

    pub(crate) fn uploaded(&mut self, results: Vec<(UploadJob, Result<Uploaded, Fault>)>) {
        let was_large = results.len() == 1 && results[0].0.size > MAX_BLOCK_BYTES as u64;
        let running = if was_large { &mut self.large_uploads_running } else { &mut self.uploads_running };
        *running = running.saturating_sub(1);
        for (job, result) in results {
            match result {
                Ok(uploaded) => self.take_uploaded(job.operation, uploaded),
                Err(Fault::Changed) => {
                    // Somebody is at it: leave it alone until it is closed, or quiet.
                    if let Operation::Upload { local, .. } = &job.operation {
                        self.writing.insert(*local, self.parts.clock.now());
                    }
                    self.look_again(&job.operation);
                }
                Err(Fault::Later(reason)) => self.try_later(&job.operation, &reason),
                Err(Fault::Stays(reason)) => self.trees.park(&job.operation, &reason),
            }
        }
    }

    fn try_later(&mut self, operation: &Operation, reason: &str) {
        tracing::debug!(reason, ?operation, "tried again later");
        let path = match (operation.entry(), operation.unpaired_local()) {
            (Some(entry), _) => self.entry_path(entry),
            (None, Some(local)) => self.path(local),
            (None, None) => None,
        };
        self.last_failure = Some(format!("{}: {reason}", path.unwrap_or_default()));
        self.trees.failed(operation);
    }

    /// The file changed while it was looked at: stat its place again and decide anew.
    pub(crate) fn look_again(&mut self, operation: &Operation) {
        let local = match operation {
            Operation::Upload { local, .. } | Operation::MakeRemoteFolder { local } => Some(*local),
            other => other.entry().and_then(|entry| self.present(entry)),
        };
        if let Some(node) = local.and_then(|local| self.trees.local().get(local)) {
            let (folder, name) = (node.parent, node.name.clone());
            self.look(folder, &name);
        }
        self.trees.done(operation);
        self.disk_has_changed();
    }

    /// The file is hashed and its blocks delivered: commit it, unless there is nothing to tell.
    fn take_uploaded(&mut self, operation: Operation, uploaded: Uploaded) {
        let Operation::Upload { local, entry, .. } = &operation else { return };
        // What the worker saw is newer than what the tree says.
        if let Some(node) = self.trees.local().get(*local) {
            let (folder, name) = (node.parent, node.name.clone());
            if self.look(folder, &name) != Some(*local) {
                return self.trees.done(&operation);
            }
        }
        if let Some(entry) = *entry {
            let Uploaded { content, stat, racy, .. } = &uploaded;
            let remote = self.trees.remote().get(entry);
            let as_remote = remote.filter(|remote| remote.content == *content).map(|remote| remote.rev.clone());
            let as_agreed = self.trees.synced().get(entry).is_some_and(|row| row.content == *content);
            if as_remote.is_some() || (as_agreed && remote.is_some()) {
                let (content, stat, racy) = (content.clone(), stat.clone(), *racy);
                outcome::compared(&mut self.trees, entry, content, as_remote.as_deref(), stat, racy);
                return self.trees.done(&operation);
            }
        }
        self.commits.push_uploaded(operation, uploaded);
    }

    // --- downloads ------------------------------------------------------------------------------------------

    fn queue_download(&mut self, entry: EntryId, operation: Operation) {
        let Some(remote) = self.trees.remote().get(entry) else { return self.trees.done(&operation) };
        let (rev, content) = (remote.rev.clone(), remote.content.clone());
        let like = self.present(entry).and_then(|local| self.path(local));
        let mut here = HashMap::new();
        for block in content.blocks() {
            if !here.contains_key(&block.hash)
                && let Some(found) = self.block_here(block.hash)
            {
                here.insert(block.hash, found);
            }
        }
        let job = FetchJob { operation, entry, rev, content, like, here };
        if size_of(&job) > MAX_BLOCK_BYTES as u64 {
            self.large_downloads.push_back(job);
        } else {
            self.downloads.push_back(job);
        }
    }

    /// Where a synced file has a block: its path and the offset.
    fn block_here(&self, hash: BlockHash) -> Option<(String, u64)> {
        let entry = *self.block_at.get(&hash)?;
        let row = self.trees.synced().get(entry)?;
        let mut offset = 0;
        for block in row.content.blocks() {
            if block.hash == hash {
                return Some((self.path(self.present(entry)?)?, offset));
            }
            offset += u64::from(block.length);
        }
        None
    }

    pub(crate) fn start_downloads(&mut self) {
        while self.downloads_running < MAX_BATCHES && !self.downloads.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(job) = self.downloads.front() {
                let size = size_of(job);
                if batch.len() >= BATCH_FILES || (bytes + size > BATCH_BYTES && !batch.is_empty()) {
                    break;
                }
                bytes += size;
                batch.extend(self.downloads.pop_front());
            }
            self.downloads_running += 1;
            tokio::spawn(self.fetcher().small(batch));
        }
        while self.large_downloads_running < MAX_LARGE {
            let Some(job) = self.large_downloads.pop_front() else { break };
            self.large_downloads_running += 1;
            tokio::spawn(self.fetcher().large(job));
        }
    }

    pub(crate) fn fetched(&mut self, results: Vec<Fetched>) {
        let was_large = results.len() == 1 && size_of(&results[0].job) > MAX_BLOCK_BYTES as u64;
        let running = if was_large { &mut self.large_downloads_running } else { &mut self.downloads_running };
        *running = running.saturating_sub(1);
        let mut placings = Vec::new();
        for Fetched { job, result } in results {
            match result {
                Ok(temporary) => match self.check_place(&job, &temporary) {
                    Some((folder, name, replace, stat)) => {
                        placings.push(Placing { fetched: job, temporary, stat, folder, name, replace });
                    }
                    None => {
                        self.parts.files.discard(&temporary);
                        self.look_again(&job.operation);
                    }
                },
                Err(Fault::Changed) => self.look_again(&job.operation),
                Err(Fault::Later(reason)) => self.try_later(&job.operation, &reason),
                Err(Fault::Stays(reason)) => self.trees.park(&job.operation, &reason),
            }
        }
        self.place_all(placings);
    }

    /// Where a fetched file goes, if its place is still what the synced tree says: the same file, or none.
    fn check_place(&mut self, job: &FetchJob, temporary: &Temporary) -> Option<(LocalId, String, bool, Stat)> {
        let remote = self.trees.remote().get(job.entry)?;
        if remote.content != job.content {
            return None;
        }
        let (parent, shown) = (remote.parent, self.trees.remote().shown_name(job.entry)?.to_owned());
        let (folder, name, replace) = match self.trees.synced().get(job.entry) {
            Some(row) => {
                let node = self.trees.local().get(self.present(job.entry)?)?;
                let agreed = row.stat.clone();
                let (folder, name) = (node.parent, node.name.clone());
                let path = self.path_in(folder, &name)?;
                let now = self.parts.files.stat(&path).ok()??;
                if !now.stat.unchanged(&agreed) {
                    return None;
                }
                (folder, name, true)
            }
            None => (self.present(parent)?, shown, false),
        };
        check_name(&name).ok()?;
        let path = self.path_in(folder, &name)?;
        if !replace && !matches!(self.parts.files.stat(&path), Ok(None)) {
            // Somebody made something there; take it in, so that the decision is another.
            self.look(folder, &name);
            return None;
        }
        let stat = self.parts.files.stat_temporary(temporary).ok()?;
        Some((folder, name, replace, stat))
    }

    /// Journals what is about to be put in place, renames, makes the names durable, takes it in.
    fn place_all(&mut self, placings: Vec<Placing>) {
        if placings.is_empty() {
            return;
        }
        let intents: Vec<(EntryId, Intent)> = placings.iter().filter_map(|placing| self.intent_of(placing)).collect();
        let journaled =
            self.state.write(|writing| intents.iter().try_for_each(|(id, intent)| writing.intent(*id, intent)));
        if let Err(error) = journaled {
            self.cannot_write(&error);
            for placing in &placings {
                self.parts.files.discard(&placing.temporary);
                self.trees.failed(&placing.fetched.operation);
            }
            return;
        }
        let mut folders = Vec::new();
        for placing in placings {
            self.place(placing, &mut folders);
        }
        self.settle_disk(folders);
    }

    fn intent_of(&self, placing: &Placing) -> Option<(EntryId, Intent)> {
        let job = &placing.fetched;
        let parent = self.trees.local().get(placing.folder)?.entry?;
        let intent = Intent::Write {
            parent,
            name: placing.name.clone(),
            rev: job.rev.clone(),
            content: job.content.clone(),
            stat: placing.stat.clone(),
        };
        Some((job.entry, intent))
    }

    fn place(&mut self, placing: Placing, folders: &mut Vec<String>) {
        let Placing { fetched: job, temporary, folder, name, replace, .. } = placing;
        let Some(path) = self.path_in(folder, &name) else {
            self.parts.files.discard(&temporary);
            return self.trees.done(&job.operation);
        };
        match self.parts.files.place(&temporary, &path, replace) {
            Ok(stat) => {
                folders.extend(self.path(folder));
                outcome::written(&mut self.trees, job.entry, &job.rev, job.content, stat, (folder, &name));
                Meters::add(&self.meters.files, 1);
                self.trees.done(&job.operation);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.parts.files.discard(&temporary);
                self.look(folder, &name);
                self.trees.done(&job.operation);
                self.disk_has_changed();
            }
            Err(error) => {
                self.parts.files.discard(&temporary);
                self.look(folder, &name);
                let reason = format!("cannot be put in place: {error}");
                match needs_a_person(&error) {
                    true => self.trees.park(&job.operation, &reason),
                    false => self.try_later(&job.operation, &reason),
                }
            }
        }
    }

    /// Makes names durable, then persists what was taken in and forgets the intents.
    pub(crate) fn settle_disk(&mut self, mut folders: Vec<String>) {
        folders.sort_unstable();
        folders.dedup();
        if let Err(error) = self.parts.files.sync_folders(&folders) {
            // The rows stay unsaved in memory; after a crash the disk is compared anew.
            self.trouble = Some(format!("the folder cannot be made durable: {error}"));
        }
        self.persist_with(|writing| writing.clear_intents());
    }

    /// The node of an entry that is on the disk.
    pub(crate) fn present(&self, entry: EntryId) -> Option<LocalId> {
        if entry == EntryId::ROOT {
            return Some(LocalId::ROOT);
        }
        match self.trees.synced().get(entry)?.local {
            Whereabouts::Present(local) => Some(local),
            _ => None,
        }
    }
}

fn size_of(job: &FetchJob) -> u64 {
    match &job.content {
        Content::File { size, .. } => *size,
        _ => 0,
    }
}
