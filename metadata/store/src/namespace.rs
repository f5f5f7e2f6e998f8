//! Carries decisions out, inside a transaction: rows, journal, counters.

use std::ops::Deref;

use holdfast_metadata_model::{
    Act, Answer, ChangeKind, Content, Decision, Editor, EntryId, EntryState, JournalItem, Origin, Rev, Spot,
    VersionVector, View, key,
};
use rusqlite::params;

use crate::accounts::rows_id;
use crate::view::NamespaceView;
use crate::writer::Write;
use crate::{Actor, StoreError, now_ms};

/// A namespace being changed by one device. [`Self::finish`] writes what it counted.
pub(crate) struct NamespaceTx<'a> {
    view: NamespaceView<'a>,
    write: &'a Write<'a>,
    actor: &'a Actor,
    pub sequence: u64,
    hash: [u8; 32],
    /// Bytes of all live files.
    pub bytes: i64,
    edits: u64,
    at_ms: i64,
    date: String,
    changed: bool,
}

/// What a decision left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub answer: Answer,
    /// The entry that was made, changed or kept.
    pub entry: EntryState,
    /// For a conflict: the entry that stands.
    pub stands: Option<EntryState>,
}

impl<'a> Deref for NamespaceTx<'a> {
    type Target = NamespaceView<'a>;

    fn deref(&self) -> &NamespaceView<'a> {
        &self.view
    }
}

impl<'a> NamespaceTx<'a> {
    pub fn begin(write: &'a Write<'a>, actor: &'a Actor) -> Result<Self, StoreError> {
        let view = NamespaceView { db: write.db, id: actor.namespace };
        let (sequence, hash, bytes) = write
            .db
            .prepare_cached("SELECT sequence, hash, bytes FROM namespaces WHERE id = ?")?
            .query_row([actor.namespace.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let edits = write
            .db
            .prepare_cached("SELECT edits FROM devices WHERE id = ?")?
            .query_row([actor.device.0], |row| row.get(0))?;
        let at_ms = now_ms();
        let date = date_of(at_ms);
        Ok(Self { view, write, actor, sequence, hash, bytes, edits, at_ms, date, changed: false })
    }

    /// Who edits, with the counter of the next edit.
    pub fn editor(&self) -> Editor {
        Editor {
            device: self.actor.device,
            counter: self.edits + 1,
            user: self.actor.user.clone(),
            date: self.date.clone(),
        }
    }

    pub fn finish(self) -> Result<u64, StoreError> {
        if self.changed {
            self.db
                .prepare_cached("UPDATE namespaces SET sequence = ?, hash = ?, bytes = ? WHERE id = ?")?
                .execute(params![self.sequence, self.hash, self.bytes, self.id.0])?;
            self.db
                .prepare_cached("UPDATE devices SET edits = ? WHERE id = ?")?
                .execute(params![self.edits, self.actor.device.0])?;
            self.write.changed.borrow_mut().push((self.id, self.sequence));
        }
        Ok(self.sequence)
    }

    /// By how many bytes a decision lets the live files grow.
    pub fn growth(&self, decision: &Decision) -> Result<i64, StoreError> {
        match &decision.act {
            Act::Create { content, .. } => Ok(signed(content.size)),
            Act::Revise { entry, content, .. } => {
                let before = self.entry(*entry)?.filter(|entry| !entry.deleted);
                Ok(signed(content.size) - before.map_or(0, |entry| signed(entry.revision.content.size)))
            }
            Act::Keep(_) | Act::Move { .. } | Act::Delete { .. } => Ok(0),
        }
    }

    pub fn carry_out(&mut self, decision: Decision) -> Result<Done, StoreError> {
        for revival in decision.revive {
            self.revive_folder(revival.folder, revival.spot)?;
        }
        if let Some(displaced) = decision.displace {
            self.relocate(displaced.entry, displaced.spot)?;
        }
        let id = match decision.act {
            Act::Keep(id) => id,
            Act::Create { spot, content, vector } => self.create(&spot, &content, &vector)?,
            Act::Revise { entry, content, vector, revived_at } => {
                self.revise(entry, &content, &vector, revived_at)?;
                entry
            }
            Act::Move { entry, spot } => {
                self.relocate(entry, spot)?;
                entry
            }
            Act::Delete { entry, gone } => {
                for id in gone {
                    self.delete(id)?;
                }
                entry
            }
        };
        let entry = self.entry(id)?.ok_or_else(|| missing(id))?;
        let stands = match decision.answer {
            Answer::ConflictCopy(stands) => Some(self.entry(stands)?.ok_or_else(|| missing(stands))?),
            Answer::Applied | Answer::Merged => None,
        };
        Ok(Done { answer: decision.answer, entry, stands })
    }

    fn create(&mut self, spot: &Spot, content: &Content, vector: &VersionVector) -> Result<EntryId, StoreError> {
        let sequence = self.sequence + 1;
        self.db
            .prepare_cached(
                "INSERT INTO entries (namespace, parent, name, key, exact_name, exact_key, sequence, device, revision)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)",
            )?
            .execute(params![
                self.id.0,
                spot.parent.0,
                spot.name,
                key(&spot.name),
                spot.exact_name,
                spot.exact_name.as_deref().map(key),
                sequence,
                self.actor.device.0,
            ])?;
        let id = EntryId(rows_id(self.db.last_insert_rowid())?);
        let rev = self.insert_revision(id, content, vector)?;
        self.db.prepare_cached("UPDATE entries SET revision = ? WHERE id = ?")?.execute(params![rev.0, id.0])?;
        self.bytes += signed(content.size);
        self.journal(id, rev, put_kind(content), None, spot.parent, &spot.name, content)?;
        Ok(id)
    }

    fn revise(
        &mut self,
        id: EntryId,
        content: &Content,
        vector: &VersionVector,
        revived_at: Option<Spot>,
    ) -> Result<(), StoreError> {
        let before = self.entry(id)?.ok_or_else(|| missing(id))?;
        let rev = self.insert_revision(id, content, vector)?;
        let spot = revived_at.unwrap_or(Spot {
            parent: before.parent,
            name: before.name.clone(),
            exact_name: before.exact_name.clone(),
        });
        if !before.deleted {
            self.bytes -= signed(before.revision.content.size);
        }
        self.bytes += signed(content.size);
        self.update_entry(id, &spot, rev, false)?;
        self.journal(id, rev, put_kind(content), None, spot.parent, &spot.name, content)
    }

    fn revive_folder(&mut self, id: EntryId, spot: Spot) -> Result<(), StoreError> {
        let before = self.entry(id)?.ok_or_else(|| missing(id))?;
        self.update_entry(id, &spot, before.revision.rev, false)?;
        let content = &before.revision.content;
        self.journal(id, before.revision.rev, ChangeKind::Folder, None, spot.parent, &spot.name, content)
    }

    fn relocate(&mut self, id: EntryId, spot: Spot) -> Result<(), StoreError> {
        let before = self.entry(id)?.ok_or_else(|| missing(id))?;
        self.update_entry(id, &spot, before.revision.rev, false)?;
        let from = Origin { parent: before.parent, name: before.name };
        let content = &before.revision.content;
        self.journal(id, before.revision.rev, ChangeKind::Move, Some(from), spot.parent, &spot.name, content)
    }

    fn delete(&mut self, id: EntryId) -> Result<(), StoreError> {
        let before = self.entry(id)?.ok_or_else(|| missing(id))?;
        self.db
            .prepare_cached("UPDATE entries SET deleted = 1, sequence = ?, device = ? WHERE id = ?")?
            .execute(params![self.sequence + 1, self.actor.device.0, id.0])?;
        self.bytes -= signed(before.revision.content.size);
        let content = &before.revision.content;
        self.journal(id, before.revision.rev, ChangeKind::Delete, None, before.parent, &before.name, content)
    }

    fn update_entry(&self, id: EntryId, spot: &Spot, rev: Rev, deleted: bool) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "UPDATE entries SET parent = ?, name = ?, key = ?, exact_name = ?, exact_key = ?, deleted = ?,
                 sequence = ?, device = ?, revision = ? WHERE id = ?",
            )?
            .execute(params![
                spot.parent.0,
                spot.name,
                key(&spot.name),
                spot.exact_name,
                spot.exact_name.as_deref().map(key),
                deleted,
                self.sequence + 1,
                self.actor.device.0,
                rev.0,
                id.0,
            ])?;
        Ok(())
    }

    fn insert_revision(&self, id: EntryId, content: &Content, vector: &VersionVector) -> Result<Rev, StoreError> {
        self.db
            .prepare_cached(
                "INSERT INTO revisions (namespace, entry, vector, kind, size, blocks, mtime_secs, mtime_nanos,
                 executable, target, sequence, device, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.id.0,
                id.0,
                vector.encode(),
                content.kind.number(),
                content.size,
                content.encode_blocks(),
                content.mtime.map(|time| time.secs),
                content.mtime.map(|time| time.nanos),
                content.executable,
                content.target,
                self.sequence + 1,
                self.actor.device.0,
                self.at_ms,
            ])?;
        Ok(Rev(rows_id(self.db.last_insert_rowid())?))
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a journal item, each once")]
    fn journal(
        &mut self,
        entry: EntryId,
        revision: Rev,
        kind: ChangeKind,
        from: Option<Origin>,
        parent: EntryId,
        name: &str,
        content: &Content,
    ) -> Result<(), StoreError> {
        let (sequence, device, at_ms) = (self.sequence + 1, self.actor.device, self.at_ms);
        let item = JournalItem { sequence, entry, revision, device, kind, at_ms, from };
        let state = JournalItem::state_digest(parent, name, content);
        let hash = item.chain(&self.hash, &state);
        self.db
            .prepare_cached(
                "INSERT INTO journal (namespace, sequence, entry, revision, device, kind, at_ms, from_parent,
                 from_name, state, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                self.id.0,
                sequence,
                entry.0,
                revision.0,
                device.0,
                kind.number(),
                at_ms,
                item.from.as_ref().map(|from| from.parent.0),
                item.from.as_ref().map(|from| from.name.as_str()),
                state,
                hash,
            ])?;
        self.sequence = sequence;
        self.hash = hash;
        if matches!(kind, ChangeKind::Put | ChangeKind::Folder) {
            self.edits += 1;
        }
        self.changed = true;
        Ok(())
    }
}

impl View for NamespaceTx<'_> {
    type Error = StoreError;

    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, StoreError> {
        self.view.entry(id)
    }

    fn revision(&self, rev: Rev) -> Result<Option<holdfast_metadata_model::Revision>, StoreError> {
        self.view.revision(rev)
    }

    fn live_by_key(&self, parent: EntryId, key: &str) -> Result<Vec<EntryState>, StoreError> {
        self.view.live_by_key(parent, key)
    }

    fn is_taken(&self, parent: EntryId, key: &str) -> Result<bool, StoreError> {
        self.view.is_taken(parent, key)
    }

    fn deleted_by_key(&self, parent: EntryId, key: &str) -> Result<Option<EntryState>, StoreError> {
        self.view.deleted_by_key(parent, key)
    }

    fn live_below(&self, folder: EntryId) -> Result<Vec<holdfast_metadata_model::SubtreeNode>, StoreError> {
        self.view.live_below(folder)
    }
}

fn put_kind(content: &Content) -> ChangeKind {
    if content.kind == holdfast_metadata_model::Kind::Folder { ChangeKind::Folder } else { ChangeKind::Put }
}

fn missing(id: EntryId) -> StoreError {
    StoreError::Damaged(format!("entry {} is missing", id.0))
}

/// Sizes are checked to be sums of 32-bit lengths; no real one comes near the limit.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn date_of(at_ms: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(at_ms.div_euclid(1000));
    let date = moment.map_or(time::Date::MIN, time::OffsetDateTime::date);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}
