//! Looks at folders: watches each, then lists it.

use holdfast_sync_client_planner::{LocalId, NodeKind};

use crate::engine::{Engine, SCAN_SLICE};
use crate::files::Seen;

impl Engine {
    /// Every folder is to be looked at.
    pub(crate) fn scan_everything(&mut self) {
        self.last_scan = self.parts.clock.now();
        self.to_scan.clear();
        self.to_scan_known.clear();
        self.scan_later(LocalId::ROOT, true);
    }

    /// A folder is to be looked at; with all below it when `deep`.
    pub(crate) fn scan_later(&mut self, folder: LocalId, deep: bool) {
        if self.to_scan_known.insert((folder, deep)) {
            self.to_scan.push_back((folder, deep));
        }
    }

    /// The path of a node below the root.
    pub(crate) fn path(&self, id: LocalId) -> Option<String> {
        Some(self.trees.local().path(id)?.join("/"))
    }

    /// The path of a name in a folder.
    pub(crate) fn path_in(&self, folder: LocalId, name: &str) -> Option<String> {
        let folder = self.path(folder)?;
        Some(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
    }

    pub(crate) fn disk_has_changed(&mut self) {
        let now = self.parts.clock.now();
        let first = self.disk_changed.map_or(now, |(first, _)| first);
        self.disk_changed = Some((first, now));
    }

    /// Looks at folders for a moment.
    pub(crate) fn scan_slice(&mut self) {
        if self.to_scan.is_empty() {
            return;
        }
        let until = self.parts.clock.now() + SCAN_SLICE;
        while let Some((folder, deep)) = self.to_scan.pop_front() {
            self.to_scan_known.remove(&(folder, deep));
            self.scan_folder(folder, deep);
            if self.parts.clock.now() >= until {
                break;
            }
        }
        self.disk_has_changed();
        if self.to_scan.is_empty() && !self.first_scan_done {
            self.first_scan_done = true;
            self.after_first_scan();
        }
    }

    fn scan_folder(&mut self, folder: LocalId, deep: bool) {
        let Some(path) = self.path(folder) else { return };
        let listed = self.parts.files.watchable(&path).and_then(|watched| {
            self.watcher.add(&watched, folder)?;
            self.parts.files.list(&path)
        });
        let listing = match listed {
            Ok(listing) => listing,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && folder != LocalId::ROOT => {
                // Gone meanwhile; its own folder tells.
                if let Some(parent) = self.trees.local().get(folder).map(|node| node.parent) {
                    self.scan_later(parent, false);
                }
                return;
            }
            Err(error) => {
                self.trees.observe_opaque(folder, format!("the folder cannot be looked at: {error}"));
                return;
            }
        };
        if listing.unnameable.is_empty() {
            self.unnameable.remove(&folder);
        } else {
            self.unnameable.insert(folder, listing.unnameable);
        }
        let reasons: Vec<(String, String)> =
            listing.entries.iter().filter_map(|(name, seen)| Some((name.clone(), seen.stays_local.clone()?))).collect();
        let stats = listing.entries.into_iter().map(|(name, seen)| (name, seen.stat)).collect();
        let new = self.trees.observe_folder(folder, stats);
        for (name, reason) in reasons {
            self.stays_local(folder, &name, Some(reason));
        }
        let Some(node) = self.trees.local().get(folder) else { return };
        let below: Vec<LocalId> = match deep {
            false => new,
            true => {
                let is_folder =
                    |id: &LocalId| self.trees.local().get(*id).is_some_and(|child| child.stat.kind == NodeKind::Folder);
                node.children.values().copied().filter(is_folder).collect()
            }
        };
        for id in below {
            if !self.local_reasons.contains_key(&id) {
                self.scan_later(id, deep);
            }
        }
    }

    /// Records why a node stays local, or that it does not.
    fn stays_local(&mut self, folder: LocalId, name: &str, reason: Option<String>) {
        let Some(id) = self.trees.local().child(folder, name) else { return };
        let is_folder = self.trees.local().get(id).is_some_and(|node| node.stat.kind == NodeKind::Folder);
        match reason {
            Some(reason) => {
                if is_folder {
                    self.trees.observe_opaque(id, reason.clone());
                }
                self.local_reasons.insert(id, reason);
            }
            None => drop(self.local_reasons.remove(&id)),
        }
    }

    /// Takes in what stands at a place now; answers its node.
    pub(crate) fn look(&mut self, folder: LocalId, name: &str) -> Option<LocalId> {
        let path = self.path_in(folder, name)?;
        let seen = match self.parts.files.stat(&path) {
            Ok(seen) => seen,
            Err(error) => {
                tracing::debug!(%error, path, "cannot be looked at");
                return self.trees.local().child(folder, name);
            }
        };
        self.take_in(folder, name, seen)
    }

    fn take_in(&mut self, folder: LocalId, name: &str, seen: Option<Seen>) -> Option<LocalId> {
        let (stat, reason) = match seen {
            Some(seen) => (Some(seen.stat), seen.stays_local),
            None => (None, None),
        };
        let is_folder = stat.as_ref().is_some_and(|stat| stat.kind == NodeKind::Folder);
        let (id, is_new) = self.trees.observe(folder, name, stat)?;
        let stays = reason.is_some();
        self.stays_local(folder, name, reason);
        if is_folder && is_new && !stays {
            self.scan_later(id, false);
        }
        Some(id)
    }
}
