//! Moves, removes and makes what others moved, removed and made. Each place is looked at again right before.

use std::io;

use holdfast_metadata_client::EntryId;
use holdfast_sync_client_planner::{Content, LocalId, NodeKind, Operation, Stat, Target, check_name, outcome};

use crate::engine::Engine;
use crate::state::Intent;

/// Operations journaled and made durable together.
const BATCH: usize = 500;

/// How an operation on the disk ended.
enum Applied {
    Done,
    /// The disk is not what the trees say: decide anew.
    Again,
    Later(String),
    /// It needs a person.
    Stays(String),
}

impl Engine {
    /// Runs operations on the disk, in order.
    pub(crate) fn apply_all(&mut self, operations: Vec<Operation>) {
        for batch in operations.chunks(BATCH) {
            self.apply_batch(batch);
        }
    }

    fn apply_batch(&mut self, batch: &[Operation]) {
        let intents: Vec<(EntryId, Intent)> = batch.iter().filter_map(intent_of).collect();
        if !intents.is_empty() {
            let journaled =
                self.state.write(|writing| intents.iter().try_for_each(|(id, intent)| writing.intent(*id, intent)));
            if let Err(error) = journaled {
                self.cannot_write(&error);
                batch.iter().for_each(|operation| self.trees.failed(operation));
                return;
            }
        }
        let mut folders = Vec::new();
        for operation in batch {
            let applied = match operation {
                Operation::SetAttributes { entry } => self.set_attributes(*entry),
                Operation::MakeLocalFolder { entry } => self.make_folder(*entry, &mut folders),
                Operation::MoveLocal { entry, to } => self.move_local(*entry, to, &mut folders),
                Operation::DeleteLocal { entry } => self.delete_local(*entry, &mut folders),
                _ => Some(Applied::Again),
            };
            match applied.unwrap_or(Applied::Again) {
                Applied::Done => self.trees.done(operation),
                Applied::Again => self.look_again(operation),
                Applied::Later(reason) => {
                    tracing::debug!(reason, ?operation, "tried again later");
                    self.look_again(operation);
                    self.put_off(operation, &reason);
                }
                Applied::Stays(reason) => self.trees.park(operation, &reason),
            }
        }
        self.settle_disk(folders);
    }

    fn put_off(&mut self, operation: &Operation, reason: &str) {
        if let Some(entry) = operation.entry() {
            self.trees.defer(entry);
            let path = self.entry_path(entry).unwrap_or_default();
            self.last_failure = Some(format!("{path}: {reason}"));
        }
    }

    /// The path and stat of a node that is on the disk what the local tree says.
    fn untouched(&mut self, local: LocalId) -> Option<(String, Stat)> {
        let path = self.path(local)?;
        let seen = self.parts.files.stat(&path).ok()??;
        self.trees.local().get(local)?.stat.unchanged(&seen.stat).then_some((path, seen.stat))
    }

    fn set_attributes(&mut self, entry: EntryId) -> Option<Applied> {
        let remote = self.trees.remote().get(entry)?.clone();
        let local = self.present(entry)?;
        let (path, stat) = self.untouched(local)?;
        let Content::File { mtime, executable, .. } = &remote.content else { return None };
        if !self.trees.synced().get(entry)?.stat.unchanged(&stat) {
            return None;
        }
        let stat = match self.parts.files.set_attributes(&path, *mtime, *executable) {
            Ok(stat) => stat,
            Err(error) => return Some(failure("its attributes cannot be set", &error)),
        };
        let node = self.trees.local().get(local)?;
        let (folder, name) = (node.parent, node.name.clone());
        self.trees.observe(folder, &name, Some(stat.clone()));
        outcome::compared(&mut self.trees, entry, remote.content, Some(&remote.rev), stat, false);
        Some(Applied::Done)
    }

    fn make_folder(&mut self, entry: EntryId, folders: &mut Vec<String>) -> Option<Applied> {
        let remote = self.trees.remote().get(entry)?.clone();
        let name = self.trees.remote().shown_name(entry)?.to_owned();
        check_name(&name).ok()?;
        let folder = self.present(remote.parent)?;
        let path = self.path_in(folder, &name)?;
        match self.parts.files.make_folder(&path) {
            Ok(stat) => {
                folders.extend(self.path(folder));
                outcome::written(&mut self.trees, entry, &remote.rev, Content::Folder, stat, (folder, &name));
                if let Some(made) = self.present(entry) {
                    // Watch it before anything can be put into it unseen.
                    self.scan_later(made, false);
                }
                Some(Applied::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.look(folder, &name);
                Some(Applied::Again)
            }
            Err(error) => Some(failure("the folder cannot be made", &error)),
        }
    }

    fn move_local(&mut self, entry: EntryId, to: &Target, folders: &mut Vec<String>) -> Option<Applied> {
        let local = self.present(entry)?;
        let (from, _) = self.untouched(local)?;
        let (folder, name) = match to {
            Target::Place { parent, name } => (self.present(*parent)?, name.clone()),
            Target::Transit { name } => (LocalId::ROOT, name.clone()),
        };
        check_name(&name).ok()?;
        let path = self.path_in(folder, &name)?;
        match self.parts.files.rename(&from, &path) {
            Ok(stat) => {
                folders.push(from.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned()));
                folders.extend(self.path(folder));
                self.trees.relocated(local, folder, &name, stat);
                Some(Applied::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.look(folder, &name);
                Some(Applied::Again)
            }
            Err(error) => Some(failure("it cannot be moved", &error)),
        }
    }

    fn delete_local(&mut self, entry: EntryId, folders: &mut Vec<String>) -> Option<Applied> {
        let local = self.present(entry)?;
        let (path, stat) = self.untouched(local)?;
        if !self.trees.synced().get(entry)?.stat.unchanged(&stat) {
            return None;
        }
        let is_folder = stat.kind == NodeKind::Folder;
        let removed =
            if is_folder { self.parts.files.remove_folder(&path) } else { self.parts.files.remove_file(&path) };
        match removed {
            Ok(()) => {
                folders.push(path.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned()));
                outcome::removed(&mut self.trees, entry);
                Some(Applied::Done)
            }
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.scan_later(local, false);
                let hidden = self.unnameable.contains_key(&local);
                let reason = "deleted on the server, but what is in it here is not synced; remove it by hand";
                Some(if hidden { Applied::Stays(reason.to_owned()) } else { Applied::Later(reason.to_owned()) })
            }
            Err(error) => Some(failure("it cannot be removed", &error)),
        }
    }
}

/// Whether trying again soon is of no use.
pub(crate) fn needs_a_person(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::InvalidFilename
    )
}

fn failure(what: &str, error: &io::Error) -> Applied {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Applied::Again,
        _ if needs_a_person(error) => Applied::Stays(format!("{what} here: {error}")),
        _ => Applied::Later(format!("{what} here: {error}")),
    }
}

fn intent_of(operation: &Operation) -> Option<(EntryId, Intent)> {
    match operation {
        Operation::MoveLocal { entry, to: Target::Place { parent, name } } => {
            Some((*entry, Intent::Move { parent: *parent, name: name.clone() }))
        }
        Operation::DeleteLocal { entry } => Some((*entry, Intent::Delete)),
        _ => None,
    }
}
