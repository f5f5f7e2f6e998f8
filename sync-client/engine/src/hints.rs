//! Takes in what the watcher saw. An event says where to look, never what is there.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use holdfast_sync_client_planner::{LocalId, Operation};

use crate::disk::TEMPORARY_FOLDER;
use crate::engine::Engine;
use crate::watch::Hint;

/// A file that is open for writing counts as quiet so long after its last write.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// A delete is committed so long after the file vanished, unless the file is back: editors do that.
pub(crate) const DELETE_DELAY: Duration = Duration::from_millis(250);

impl Engine {
    pub(crate) fn drain_watcher(&mut self) {
        let local = self.trees.local();
        let hints = self.watcher.drain(|id| local.get(id).is_some());
        if hints.is_empty() {
            return;
        }
        let now = self.parts.clock.now();
        let mut looked = HashSet::new();
        let mut written = HashSet::new();
        let mut changed = false;
        // The state of a place now answers all its events: each place is looked at once, after its last event.
        for hint in hints.iter().rev() {
            let (folder, name) = match hint {
                Hint::Overflow => {
                    tracing::info!("the watcher lost events; everything is looked at");
                    self.scan_everything();
                    changed = true;
                    continue;
                }
                Hint::Root => {
                    self.root_is_there();
                    continue;
                }
                Hint::Folder { folder } => {
                    self.scan_later(*folder, false);
                    changed = true;
                    continue;
                }
                Hint::Name { folder, name } | Hint::Written { folder, name } | Hint::Closed { folder, name } => {
                    (*folder, name.as_str())
                }
            };
            if is_own(folder, name) {
                continue;
            }
            if looked.insert((folder, name)) {
                self.look(folder, name);
                changed = true;
            }
            if matches!(hint, Hint::Name { .. }) || !written.insert((folder, name)) {
                continue;
            }
            let Some(node) = self.trees.local().child(folder, name) else { continue };
            if matches!(hint, Hint::Written { .. }) {
                self.writing.insert(node, now);
            } else {
                self.writing.remove(&node);
            }
            self.trees.suspect(node);
        }
        if changed {
            self.disk_has_changed();
        }
    }

    /// Hands out operations whose moment has come.
    pub(crate) fn release_held(&mut self, now: Instant) {
        let (due, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held).into_iter().partition(|(at, operation)| {
            *at <= now
                || matches!(operation, Operation::Upload { local, .. }
                    if !self.writing.contains_key(local))
        });
        self.held = held;
        let local = self.trees.local();
        self.writing.retain(|id, at| now < *at + QUIET && local.get(*id).is_some());
        if due.is_empty() {
            return;
        }
        for (_, operation) in due {
            match &operation {
                Operation::Upload { .. } => self.upload_or_hold(operation, now),
                Operation::DeleteRemote { entry, .. } => {
                    if self.trees.retake(*entry) {
                        self.trees.done(&operation);
                    } else if self.root_is_there() {
                        self.commits.push_plain(operation);
                    }
                }
                _ => self.trees.done(&operation),
            }
        }
    }
}

fn is_own(folder: LocalId, name: &str) -> bool {
    folder == LocalId::ROOT && name.starts_with(TEMPORARY_FOLDER)
}
