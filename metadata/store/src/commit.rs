//! `/v1` commits: a batch of items in one transaction, each answered once and for all.

use std::collections::HashMap;

use holdfast_libs_types::BlockHash;
use holdfast_metadata_model::{
    Answer, BlockRef, Content, Decision, EntryId, EntryState, Location, Refusal, Rev, Wish, decide,
};
use rusqlite::{OptionalExtension, params};

use crate::namespace::{Done, NamespaceTx};
use crate::possession::{self, KnownBlock};
use crate::writer::Write;
use crate::{Actor, Store, StoreError};

/// A folder, by its id or by the op that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchParent {
    /// By id.
    Entry(EntryId),
    /// By the op number of an item of the same device.
    Op(u64),
}

/// A change whose parent may be one that an earlier item makes.
#[derive(Debug, Clone)]
pub enum BatchWish {
    /// A change that is refused before anything is read.
    Impossible(Refusal),
    /// Writes a file or link onto an entry.
    PutOnto {
        /// Which.
        entry: EntryId,
        /// What the edit started from.
        base: Option<Rev>,
        /// What it holds.
        content: Content,
    },
    /// Writes a file or link under a name.
    PutNamed {
        /// In which folder.
        parent: BatchParent,
        /// Exactly as on the device.
        name: String,
        /// What the edit started from.
        base: Option<Rev>,
        /// What it holds.
        content: Content,
    },
    /// Makes a folder.
    MakeFolder {
        /// In which.
        parent: BatchParent,
        /// Under which name.
        name: String,
    },
    /// Moves or renames.
    Move {
        /// What.
        entry: EntryId,
        /// Into which folder.
        parent: BatchParent,
        /// Under which name.
        name: String,
    },
    /// Deletes.
    Delete {
        /// What.
        entry: EntryId,
        /// Up to where the device knows the namespace.
        known_sequence: u64,
    },
}

/// An item with its number.
#[derive(Debug, Clone)]
pub struct BatchItem {
    /// The device's number for it.
    pub op: u64,
    /// What it wishes.
    pub wish: BatchWish,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Done.
    Applied(Box<EntryState>),
    /// The same was there.
    Merged(Box<EntryState>),
    /// `stands` stands, the content is in `copy`.
    ConflictCopy {
        /// The entry that stands.
        stands: Box<EntryState>,
        /// The copy.
        copy: Box<EntryState>,
    },
    /// Not done.
    Refused(Refusal),
    /// Not done: these blocks are not possessed. Not remembered as the op's answer, so that the op can be repeated
    /// once they are delivered.
    NeedBlocks(Vec<BlockHash>),
    /// Not done: no room left.
    NoSpace {
        /// Bytes the account may hold.
        quota: u64,
    },
}

/// An item's number and outcome, for the one who writes the answer's text.
#[derive(Debug)]
pub struct ItemAnswer<'a> {
    /// The number.
    pub op: u64,
    /// The outcome.
    pub outcome: &'a ItemOutcome,
}

/// A batch.
pub struct Commit {
    /// In order.
    pub items: Vec<BatchItem>,
    /// What the receipts that came with it proved.
    pub proven: Vec<KnownBlock>,
    /// Answers up to this op may be forgotten.
    pub acknowledged_op: u64,
    /// Writes an answer as the text that is stored and given out.
    pub render: fn(&ItemAnswer<'_>) -> String,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("items", &self.items.len()).finish_non_exhaustive()
    }
}

/// The answers to a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// One text for each item, in order.
    pub answers: Vec<String>,
    /// The namespace's sequence after it.
    pub sequence: u64,
}

impl Store {
    /// Commits a batch; durable when this answers.
    ///
    /// # Errors
    /// When the database fails; then nothing of the batch is kept.
    pub async fn commit(&self, actor: Actor, commit: Commit) -> Result<Committed, StoreError> {
        self.write(move |write| Batch::begin(write, &actor, commit)?.run()).await
    }
}

struct Batch<'a> {
    tx: NamespaceTx<'a>,
    write: &'a Write<'a>,
    actor: &'a Actor,
    commit: Commit,
    acknowledged: u64,
    quota: i64,
    /// Lengths of possessed blocks, as far as they were asked for.
    possessed: HashMap<BlockHash, Option<u32>>,
}

impl<'a> Batch<'a> {
    fn begin(write: &'a Write<'a>, actor: &'a Actor, commit: Commit) -> Result<Self, StoreError> {
        possession::record(write.db, actor.account, &commit.proven)?;
        let acknowledged = write
            .db
            .prepare_cached("SELECT acknowledged_op FROM devices WHERE id = ?")?
            .query_row([actor.device.0], |row| row.get(0))?;
        let quota = quota_of(write, actor)?;
        let tx = NamespaceTx::begin(write, actor)?;
        Ok(Self { tx, write, actor, commit, acknowledged, quota, possessed: HashMap::new() })
    }

    fn run(mut self) -> Result<Committed, StoreError> {
        let mut answers = Vec::with_capacity(self.commit.items.len());
        for item in std::mem::take(&mut self.commit.items) {
            answers.push(self.item(item)?);
        }
        self.forget_acknowledged()?;
        let sequence = self.tx.finish()?;
        Ok(Committed { answers, sequence })
    }

    fn item(&mut self, item: BatchItem) -> Result<String, StoreError> {
        let op = item.op;
        if let Some(answer) = self.answered(op)? {
            return Ok(answer);
        }
        let outcome = if op <= self.acknowledged {
            ItemOutcome::Refused(Refusal::InvalidItem(format!(
                "op {op}: the device said it had the answers up to op {}; use a new number",
                self.acknowledged
            )))
        } else {
            self.decide(item.wish)?
        };
        let answer = (self.commit.render)(&ItemAnswer { op, outcome: &outcome });
        let entry = match &outcome {
            ItemOutcome::Applied(entry) | ItemOutcome::Merged(entry) => Some(entry.id.0),
            ItemOutcome::ConflictCopy { copy, .. } => Some(copy.id.0),
            ItemOutcome::Refused(_) | ItemOutcome::NoSpace { .. } => None,
            ItemOutcome::NeedBlocks(_) => return Ok(answer),
        };
        if op > self.acknowledged {
            self.write
                .db
                .prepare_cached("INSERT INTO op_answers (device, op, entry, answer) VALUES (?, ?, ?, ?)")?
                .execute(params![self.actor.device.0, op, entry, answer])?;
        }
        Ok(answer)
    }

    fn answered(&self, op: u64) -> Result<Option<String>, StoreError> {
        let mut statement =
            self.write.db.prepare_cached("SELECT answer FROM op_answers WHERE device = ? AND op = ?")?;
        Ok(statement.query_row(params![self.actor.device.0, op], |row| row.get(0)).optional()?)
    }

    fn decide(&mut self, wish: BatchWish) -> Result<ItemOutcome, StoreError> {
        if let BatchWish::PutOnto { content, .. } | BatchWish::PutNamed { content, .. } = &wish
            && let Some(outcome) = self.check_blocks(&content.blocks)?
        {
            return Ok(outcome);
        }
        let wish = match self.resolve(wish)? {
            Ok(wish) => wish,
            Err(refusal) => return Ok(ItemOutcome::Refused(refusal)),
        };
        let editor = self.tx.editor();
        match decide(&self.tx, &editor, wish)? {
            Ok(decision) => self.carry_out(decision),
            Err(refusal) => Ok(ItemOutcome::Refused(refusal)),
        }
    }

    fn carry_out(&mut self, decision: Decision) -> Result<ItemOutcome, StoreError> {
        let growth = self.tx.growth(&decision)?;
        if growth > 0 && self.tx.bytes.saturating_add(growth) > self.quota {
            return Ok(ItemOutcome::NoSpace { quota: u64::try_from(self.quota).unwrap_or(0) });
        }
        let Done { answer, entry, stands } = self.tx.carry_out(decision)?;
        let entry = Box::new(entry);
        Ok(match (answer, stands) {
            (Answer::ConflictCopy(_), Some(stands)) => {
                ItemOutcome::ConflictCopy { stands: Box::new(stands), copy: entry }
            }
            (Answer::Merged, _) => ItemOutcome::Merged(entry),
            (Answer::Applied | Answer::ConflictCopy(_), _) => ItemOutcome::Applied(entry),
        })
    }

    /// Why the blocks cannot be committed, if they cannot.
    fn check_blocks(&mut self, blocks: &[BlockRef]) -> Result<Option<ItemOutcome>, StoreError> {
        let mut missing = Vec::new();
        for block in blocks {
            let known = match self.possessed.get(&block.hash) {
                Some(known) => *known,
                None => {
                    let known = possession::length_of(self.write.db, self.actor.account, &block.hash)?;
                    self.possessed.insert(block.hash, known);
                    known
                }
            };
            match known {
                Some(length) if length == block.length => {}
                Some(length) => {
                    let message = format!("block {} has {length} bytes, not {}", block.hash, block.length);
                    return Ok(Some(ItemOutcome::Refused(Refusal::InvalidItem(message))));
                }
                None if missing.contains(&block.hash) => {}
                None => missing.push(block.hash),
            }
        }
        Ok((!missing.is_empty()).then_some(ItemOutcome::NeedBlocks(missing)))
    }

    fn resolve(&self, wish: BatchWish) -> Result<Result<Wish, Refusal>, StoreError> {
        macro_rules! parent {
            ($parent:expr) => {
                match self.parent($parent)? {
                    Ok(parent) => parent,
                    Err(refusal) => return Ok(Err(refusal)),
                }
            };
        }
        Ok(Ok(match wish {
            BatchWish::Impossible(refusal) => return Ok(Err(refusal)),
            BatchWish::PutOnto { entry, base, content } => Wish::Put { at: Location::Entry(entry), base, content },
            BatchWish::PutNamed { parent, name, base, content } => {
                let parent = parent!(parent);
                Wish::Put { at: Location::Name { parent, name }, base, content }
            }
            BatchWish::MakeFolder { parent, name } => Wish::MakeFolder { parent: parent!(parent), name },
            BatchWish::Move { entry, parent, name } => Wish::Move { entry, parent: parent!(parent), name },
            BatchWish::Delete { entry, known_sequence } => Wish::Delete { entry, known_sequence },
        }))
    }

    fn parent(&self, parent: BatchParent) -> Result<Result<EntryId, Refusal>, StoreError> {
        let op = match parent {
            BatchParent::Entry(id) => return Ok(Ok(id)),
            BatchParent::Op(op) => op,
        };
        let mut statement = self.write.db.prepare_cached("SELECT entry FROM op_answers WHERE device = ? AND op = ?")?;
        let made: Option<Option<u64>> =
            statement.query_row(params![self.actor.device.0, op], |row| row.get(0)).optional()?;
        Ok(match made {
            Some(Some(id)) => Ok(EntryId(id)),
            Some(None) => Err(Refusal::NotFound(format!("op {op}, which was to make the parent, was refused"))),
            None => Err(Refusal::NotFound(format!("op {op}, which is to make the parent, is not known here"))),
        })
    }

    fn forget_acknowledged(&self) -> Result<(), StoreError> {
        let up_to = self.commit.acknowledged_op;
        if up_to <= self.acknowledged {
            return Ok(());
        }
        let db = self.write.db;
        db.prepare_cached("DELETE FROM op_answers WHERE device = ? AND op <= ?")?
            .execute(params![self.actor.device.0, up_to])?;
        db.prepare_cached("UPDATE devices SET acknowledged_op = ? WHERE id = ?")?
            .execute(params![up_to, self.actor.device.0])?;
        Ok(())
    }
}

/// Bytes the account may hold.
pub(crate) fn quota_of(write: &Write<'_>, actor: &Actor) -> Result<i64, StoreError> {
    let mut statement = write.db.prepare_cached("SELECT quota_bytes FROM accounts WHERE id = ?")?;
    Ok(statement.query_row([actor.account.as_bytes()], |row| row.get(0))?)
}
