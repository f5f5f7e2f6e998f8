//! Takes the server's answers, and what was done on the disk, into the trees.

use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{Entry, EntryId, Outcome, code};

use crate::local::LocalId;
use crate::stat::{Content, Stat};
use crate::synced::{SyncedEntry, Whereabouts};
use crate::trees::Trees;

/// A change as it was committed; with the server's answer it makes an agreement. It is all that has to be kept to
/// take in an answer after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// What was committed.
    pub change: SentChange,
    /// The node, while this process knows it.
    pub local: Option<LocalId>,
}

/// See [`Sent`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SentChange {
    /// A file, link or folder.
    Put {
        /// The entry it was known as.
        entry: Option<EntryId>,
        /// The name it was put to, or stands under here.
        name: String,
        /// Its folder, where it had an entry when this was sent.
        parent: Option<EntryId>,
        /// What was committed.
        content: Content,
        /// The stat around the hash.
        stat: Stat,
        /// See [`SyncedEntry::racy`].
        racy: bool,
    },
    /// A move.
    Move {
        /// What.
        entry: EntryId,
        /// Its new folder, where that had an entry when this was sent.
        parent: Option<EntryId>,
        /// Its new name.
        name: String,
    },
    /// A delete.
    Delete {
        /// What.
        entry: EntryId,
    },
}

/// What the engine does with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken in.
    Done {
        /// A conflict copy was made.
        conflict: bool,
    },
    /// The server misses blocks; send them and commit again under a new number.
    NeedBlocks(Vec<BlockHash>),
    /// Try again later; something else may have to come first.
    Later(String),
    /// It will not work as it is.
    Refused(String),
}

/// Takes in the answer to a change; `sequence` is the journal's after the commit. The operation itself is ended by the
/// caller with [`Trees::done`] or [`Trees::failed`].
pub fn answered(trees: &mut Trees, sent: &Sent, outcome: &Outcome, sequence: u64) -> Verdict {
    match (&sent.change, outcome) {
        (SentChange::Put { .. }, Outcome::Applied { entry } | Outcome::Merged { entry }) => {
            trees.apply_entry(entry);
            agree_put(trees, sent, entry);
            Verdict::Done { conflict: false }
        }
        (SentChange::Put { .. }, Outcome::ConflictCopy { entry, copy }) => {
            trees.apply_entry(entry);
            trees.apply_entry(copy);
            conflict(trees, sent, entry, copy);
            Verdict::Done { conflict: true }
        }
        (SentChange::Move { entry, parent, name }, outcome) => moved(trees, *entry, *parent, name, sent.local, outcome),
        (SentChange::Delete { entry }, outcome) => deleted(trees, *entry, outcome, sequence),
        (SentChange::Put { entry, parent, .. }, Outcome::Refused { code, message, missing }) => match code.as_str() {
            code::NEED_BLOCKS => Verdict::NeedBlocks(missing.clone()),
            code::NOT_FOUND => {
                trees.wants_pull = true;
                forget_if_dead(trees, *entry);
                forget_if_dead(trees, *parent);
                Verdict::Later(message.clone())
            }
            _ => Verdict::Refused(message.clone()),
        },
    }
}

fn forget_if_dead(trees: &mut Trees, entry: Option<EntryId>) {
    if let Some(entry) = entry.filter(|entry| *entry != EntryId::ROOT)
        && trees.remote.get(entry).is_none()
    {
        trees.drop_synced(entry);
    }
}

fn row(entry: &Entry, sent: &Sent, place: (EntryId, String)) -> Option<SyncedEntry> {
    let SentChange::Put { content, stat, racy, .. } = &sent.change else { return None };
    Some(SyncedEntry {
        parent: place.0,
        name: place.1,
        rev: entry.rev.clone(),
        content: content.clone(),
        stat: stat.clone(),
        racy: *racy,
        local: Whereabouts::Unknown,
    })
}

fn agree_put(trees: &mut Trees, sent: &Sent, entry: &Entry) {
    let SentChange::Put { entry: known_as, parent, name, .. } = &sent.change else { return };
    // A put onto an entry says nothing about its place: what was agreed stays.
    let agreed = trees.synced.get(entry.id).filter(|_| *known_as == Some(entry.id));
    let place = match agreed {
        Some(row) => (row.parent, row.name.clone()),
        None => (parent.unwrap_or(entry.parent), name.clone()),
    };
    if let Some(row) = row(entry, sent, place) {
        trees.agree(entry.id, row, sent.local);
    }
}

/// The own bytes become the copy, wherever they stand here; the winner is new here.
fn conflict(trees: &mut Trees, sent: &Sent, entry: &Entry, copy: &Entry) {
    let SentChange::Put { entry: known_as, parent, name, .. } = &sent.change else { return };
    let here = sent.local.and_then(|local| {
        let (parent, name) = trees.place_of(local)?;
        Some((parent?, name.to_owned()))
    });
    let agreed = known_as.and_then(|id| trees.synced.get(id)).map(|row| (row.parent, row.name.clone()));
    let place = here.or(agreed).unwrap_or((parent.unwrap_or(copy.parent), name.clone()));
    if *known_as == Some(entry.id) {
        trees.drop_synced(entry.id);
    }
    if let Some(row) = row(copy, sent, place) {
        trees.agree(copy.id, row, sent.local);
    }
}

fn moved(
    trees: &mut Trees,
    id: EntryId,
    parent: Option<EntryId>,
    name: &str,
    local: Option<LocalId>,
    outcome: &Outcome,
) -> Verdict {
    match outcome {
        Outcome::Applied { entry } | Outcome::Merged { entry } | Outcome::ConflictCopy { entry, .. } => {
            trees.apply_entry(entry);
            let parent = parent.unwrap_or(entry.parent);
            trees.change_synced(id, |row| (row.parent, row.name) = (parent, name.to_owned()));
            Verdict::Done { conflict: false }
        }
        Outcome::Refused { code, message, .. } => match code.as_str() {
            code::CYCLE => {
                // The server's place wins: what stands here counts as agreed, so that it is moved here.
                let here = local.and_then(|local| {
                    let (parent, name) = trees.place_of(local)?;
                    Some((parent?, name.to_owned()))
                });
                let place = here.or(parent.map(|parent| (parent, name.to_owned())));
                if let Some(place) = place {
                    trees.change_synced(id, |row| (row.parent, row.name) = place);
                }
                Verdict::Done { conflict: false }
            }
            code::NOT_FOUND => {
                trees.wants_pull = true;
                forget_if_dead(trees, parent);
                Verdict::Later(message.clone())
            }
            _ => Verdict::Refused(message.clone()),
        },
    }
}

fn deleted(trees: &mut Trees, id: EntryId, outcome: &Outcome, sequence: u64) -> Verdict {
    match outcome {
        Outcome::Applied { entry } | Outcome::Merged { entry } | Outcome::ConflictCopy { entry, .. } => {
            let below = trees.remote.subtree(id);
            trees.apply_entry(entry);
            if entry.deleted {
                trees.bury();
            } else {
                // Something in it lives on; the pull tells what.
                for entry in below {
                    trees.hold(entry, sequence);
                }
            }
            Verdict::Done { conflict: false }
        }
        Outcome::Refused { code, message, .. } => match code.as_str() {
            code::NOT_FOUND => {
                trees.wants_pull = true;
                Verdict::Later(message.clone())
            }
            _ => Verdict::Refused(message.clone()),
        },
    }
}

/// The disk has the file or link of an entry now, written by the engine: `stat` is that of what was put in place.
pub fn written(trees: &mut Trees, id: EntryId, rev: &str, content: Content, stat: Stat, at: (LocalId, &str)) {
    let (parent, name) = at;
    let Some(parent_entry) = trees.local.get(parent).and_then(|node| node.entry) else { return };
    let old = trees.local.child(parent, name);
    let agreed_place = trees.synced.get(id).map(|row| (row.parent, row.name.clone()));
    if let Some(old) = old
        && trees.local.get(old).is_some_and(|node| node.entry == Some(id))
    {
        // It was replaced by the engine itself: nothing vanished.
        trees.synced.set_local(id, Whereabouts::Unknown);
    }
    let Some((local, _)) = trees.observe(parent, name, Some(stat.clone())) else { return };
    let place = agreed_place.unwrap_or((parent_entry, name.to_owned()));
    let row = SyncedEntry {
        parent: place.0,
        name: place.1,
        rev: rev.to_owned(),
        content,
        stat,
        racy: false,
        local: Whereabouts::Unknown,
    };
    trees.agree(id, row, Some(local));
}

/// The bytes of a local file turned out to be what `content` says: nothing has to be sent.
pub fn compared(trees: &mut Trees, id: EntryId, content: Content, rev: Option<&str>, stat: Stat, racy: bool) {
    trees.change_synced(id, |row| {
        row.content = content;
        row.stat = stat;
        row.racy = racy;
        if let Some(rev) = rev {
            rev.clone_into(&mut row.rev);
        }
    });
}

/// The engine removed the file or empty folder of an entry.
pub fn removed(trees: &mut Trees, id: EntryId) {
    if let Some(SyncedEntry { local: Whereabouts::Present(local), .. }) = trees.synced.get(id) {
        let local = *local;
        if let Some(node) = trees.local.get(local) {
            let (parent, name) = (node.parent, node.name.clone());
            trees.drop_synced(id);
            trees.observe(parent, &name, None);
        }
    }
}

/// The engine had moved an entry here before it died.
pub fn was_moved(trees: &mut Trees, id: EntryId, parent: EntryId, name: &str) {
    let Some(SyncedEntry { local: Whereabouts::Present(local), .. }) = trees.synced.get(id) else { return };
    if trees.place_of(*local) == Some((Some(parent), name)) {
        trees.change_synced(id, |row| (row.parent, row.name) = (parent, name.to_owned()));
    }
}

/// The engine had put a file in place before it died, if a file with the inode of `row`'s stat stands.
pub fn was_written(trees: &mut Trees, id: EntryId, row: SyncedEntry) {
    let found = trees.local.with_inode(row.stat.inode).next();
    let Some((local, stat)) = found.and_then(|local| Some((local, trees.local.get(local)?.stat.clone()))) else {
        return;
    };
    let stat = if row.stat.unchanged_but_for_ctime(&stat) { stat } else { row.stat.clone() };
    trees.agree(id, SyncedEntry { stat, ..row }, Some(local));
}
