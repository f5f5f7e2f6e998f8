//! Requests, and what the engine says of itself.

use std::sync::atomic::Ordering;
use std::time::Instant;

use holdfast_metadata_client::EntryId;
use holdfast_sync_client_planner::{LocalId, Subject, Whereabouts};

use crate::control::{Command, Request};
use crate::engine::Engine;
use crate::status::{MAX_ENTRIES, NotSynced, Status};

impl Engine {
    pub(crate) fn request(&mut self, request: Request) {
        self.drain_watcher();
        match request.what {
            Command::Settle(limit) => {
                let pull = self.pulls.want_now();
                self.waiters.push((self.parts.clock.now() + limit, pull, request.answer));
                return;
            }
            Command::Rescan => {
                self.trees.retry_faults();
                self.scan_everything();
            }
            Command::Status | Command::Proceed | Command::Restore => {}
        }
        let _ = request.answer.send(self.status_line());
    }

    pub(crate) fn answer_waiters(&mut self, now: Instant) {
        if self.waiters.is_empty() {
            return;
        }
        let idle = self.is_idle();
        let mut left = Vec::new();
        for (until, pull, waiter) in std::mem::take(&mut self.waiters) {
            if until <= now || (idle && self.pulls.done() >= pull) {
                let _ = waiter.send(self.status_line());
            } else {
                left.push((until, pull, waiter));
            }
        }
        self.waiters = left;
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.may_plan()
            && self.pending() == 0
            && self.disk_changed.is_none()
            && self.pulls.is_current(self.commits.sequence())
            && self.trouble.is_none()
    }

    pub(crate) fn pending(&self) -> usize {
        self.trees.unsettled() + self.commits.waiting() + self.to_scan.len()
    }

    pub(crate) fn status_line(&self) -> String {
        let status = self.status();
        serde_json::to_string(&status).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
    }

    fn status(&self) -> Status {
        let (count, entries) = self.not_synced();
        let reason = match (self.question, &self.trouble, self.pulls.trouble(), self.commits.trouble()) {
            (Some(question), ..) => question.reason().to_owned(),
            (None, Some(trouble), ..) => trouble.clone(),
            (None, None, Some(trouble), _) | (None, None, None, Some(trouble)) => trouble.to_owned(),
            (None, None, None, None) => self.last_failure.clone().unwrap_or_default(),
        };
        let state = match (self.question.is_some(), self.is_idle()) {
            (true, _) => "asking",
            (false, true) => "idle",
            (false, false) => "working",
        };
        Status {
            folder: self.config.folder.display().to_string(),
            name: self.config.name.clone(),
            state: state.to_owned(),
            reason,
            pending: self.pending() as u64,
            conflicts: self.meters.conflicts.load(Ordering::Relaxed),
            not_synced: count as u64,
            not_synced_entries: entries,
            block_bytes_sent: self.meters.sent.load(Ordering::Relaxed),
            block_bytes_received: self.meters.received.load(Ordering::Relaxed),
            files_done: self.meters.files.load(Ordering::Relaxed),
            entries: self.trees.synced().len() as u64,
        }
    }

    fn not_synced(&self) -> (usize, Vec<NotSynced>) {
        let path = |id: LocalId| self.trees.local().path(id).map(|names| names.join("/"));
        let mut all: Vec<NotSynced> = Vec::new();
        for (id, reason) in &self.local_reasons {
            if let Some(path) = path(*id) {
                all.push(NotSynced { path, reason: reason.clone() });
            }
        }
        for (folder, names) in &self.unnameable {
            let Some(folder) = path(*folder) else { continue };
            for name in names {
                let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
                all.push(NotSynced { path, reason: "the name is not UTF-8".to_owned() });
            }
        }
        for (subject, reason) in self.trees.faults() {
            let path = match subject {
                Subject::Local(id) => path(id),
                Subject::Entry(id) => self.entry_path(id),
            };
            all.push(NotSynced { path: path.unwrap_or_default(), reason: reason.to_owned() });
        }
        all.sort_by(|one, other| one.path.cmp(&other.path));
        all.dedup_by(|one, other| one.path == other.path);
        let count = all.len();
        all.truncate(MAX_ENTRIES);
        (count, all)
    }

    pub(crate) fn entry_path(&self, id: EntryId) -> Option<String> {
        if let Some(Whereabouts::Present(local)) = self.trees.synced().get(id).map(|row| row.local) {
            return self.trees.local().path(local).map(|names| names.join("/"));
        }
        let mut names = Vec::new();
        let mut at = id;
        while let Some(entry) = self.trees.remote().get(at) {
            names.push(self.trees.remote().shown_name(at)?);
            at = entry.parent;
        }
        names.reverse();
        Some(names.join("/"))
    }
}
