//! API v2's changes: by path, without regard to case, each in one transaction.

use holdfast_metadata_model::{
    Act, Content, Decision, EntryId, EntryState, Rev, Spot, UploadOptions, VersionVector, View, autorename,
    decide_delete, decide_new_folder, decide_upload, key, path_ids,
};

use crate::commit::quota_of;
use crate::namespace::NamespaceTx;
use crate::paths::{Paths, live, live_or_deleted};
use crate::possession;
use crate::writer::Write;
use crate::{Actor, KnownBlock, LookupFailure, PathEntry, PathRef, Store, StoreError, WriteFailure, uploads};

/// Most entries one copy makes: more would hold up everybody's commits.
const MAX_COPIED: usize = 10_000;

/// A file to be written.
#[derive(Debug, Clone)]
pub struct Upload {
    /// Where.
    pub path: PathRef,
    /// What it holds.
    pub content: Content,
    /// How.
    pub options: UploadOptions,
    /// What the receipts for its blocks proved.
    pub proven: Vec<KnownBlock>,
    /// The session that its bytes came through, which ends with it.
    pub session: Option<[u8; 16]>,
}

/// Why something was not moved, copied, deleted or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relocation {
    /// What it is about is not there.
    From(LookupFailure),
    /// Where it should go is not free, or what it is about is protected.
    To(WriteFailure),
    /// A folder into itself.
    IntoItself,
    /// More than a copy may hold.
    TooManyFiles,
    /// The revision is not one of this file.
    InvalidRevision,
}

impl From<WriteFailure> for Relocation {
    fn from(failure: WriteFailure) -> Self {
        Self::To(failure)
    }
}

type Written<E> = Result<Result<PathEntry, E>, StoreError>;

/// Gives back the value, or answers the failure.
macro_rules! checked {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(failure) => return Ok(Err(failure.into())),
        }
    };
}

impl Store {
    /// Writes a file, and the folders above it that are missing.
    ///
    /// # Errors
    /// When the database fails; the inner error is the conflict.
    pub async fn upload(&self, actor: Actor, upload: Upload) -> Written<WriteFailure> {
        self.write_unless_refused(move |write| Change::begin(write, &actor)?.upload(upload)).await
    }

    /// Makes a folder, and those above it that are missing.
    ///
    /// # Errors
    /// When the database fails; the inner error is the conflict.
    pub async fn create_folder(&self, actor: Actor, path: PathRef, rename: bool) -> Written<WriteFailure> {
        self.write_unless_refused(move |write| Change::begin(write, &actor)?.create_folder(&path, rename)).await
    }

    /// Deletes what is at a path, a folder with all below it. Answers what was there. With `parent_rev` only a file that
    /// is still at that revision.
    ///
    /// # Errors
    /// When the database fails; the inner error says why it stays.
    pub async fn delete(&self, actor: Actor, path: PathRef, parent_rev: Option<Rev>) -> Written<Relocation> {
        self.write_unless_refused(move |write| Change::begin(write, &actor)?.delete(&path, parent_rev)).await
    }

    /// Moves (or copies) what is at a path.
    ///
    /// # Errors
    /// When the database fails; the inner error says why it stays.
    pub async fn relocate(
        &self,
        actor: Actor,
        from: PathRef,
        to: PathRef,
        rename: bool,
        copy: bool,
    ) -> Written<Relocation> {
        self.write_unless_refused(move |write| Change::begin(write, &actor)?.relocate(&from, &to, rename, copy)).await
    }

    /// Makes a past revision of the file at a path its newest one.
    ///
    /// # Errors
    /// When the database fails; the inner error says why not.
    pub async fn restore(&self, actor: Actor, path: PathRef, rev: Rev) -> Written<Relocation> {
        self.write_unless_refused(move |write| Change::begin(write, &actor)?.restore(&path, rev)).await
    }
}

struct Change<'a> {
    tx: NamespaceTx<'a>,
    write: &'a Write<'a>,
    actor: &'a Actor,
    quota: i64,
}

impl<'a> Change<'a> {
    fn begin(write: &'a Write<'a>, actor: &'a Actor) -> Result<Self, StoreError> {
        let quota = quota_of(write, actor)?;
        Ok(Self { tx: NamespaceTx::begin(write, actor)?, write, actor, quota })
    }

    /// Carries a decision out if there is room for it.
    fn apply(&mut self, decision: Decision) -> Result<Result<EntryState, WriteFailure>, StoreError> {
        let growth = self.tx.growth(&decision)?;
        if growth > 0 && self.tx.bytes.saturating_add(growth) > self.quota {
            return Ok(Err(WriteFailure::InsufficientSpace));
        }
        Ok(Ok(self.tx.carry_out(decision)?.entry))
    }

    fn finish<E>(self, entry: EntryState) -> Written<E> {
        let entry = Paths::new(*self.tx).entry(entry)?;
        self.tx.finish()?;
        Ok(Ok(entry))
    }

    /// The folder and the name that a path to be written means; missing folders are made.
    fn place(&mut self, path: &PathRef) -> Result<Result<(EntryId, String), WriteFailure>, StoreError> {
        let PathRef::Under(start, names) = path else { return Ok(Err(WriteFailure::Malformed)) };
        let start = *start;
        let Some((name, above)) = names.split_last() else {
            // An id alone: onto the entry, where it is.
            let entry = if start == EntryId::ROOT { None } else { self.tx.entry(start)? };
            return Ok(entry
                .filter(|entry| !entry.deleted)
                .map(|entry| (entry.parent, entry.name))
                .ok_or(WriteFailure::Malformed));
        };
        let mut parent = start;
        if start != EntryId::ROOT {
            match self.tx.entry(start)?.filter(|entry| !entry.deleted) {
                None => return Ok(Err(WriteFailure::Malformed)),
                Some(entry) if !entry.is_folder() => return Ok(Err(WriteFailure::ConflictFileAncestor)),
                Some(_) => {}
            }
        }
        for name in above {
            parent = match self.tx.live(parent, &key(name))? {
                Some(entry) if entry.is_folder() => entry.id,
                Some(_) => return Ok(Err(WriteFailure::ConflictFileAncestor)),
                None => checked!(self.new_folder(parent, name)?).id,
            };
        }
        Ok(Ok((parent, name.clone())))
    }

    fn new_folder(&mut self, parent: EntryId, name: &str) -> Result<Result<EntryState, WriteFailure>, StoreError> {
        match decide_new_folder(&self.tx, &self.tx.editor(), parent, name)? {
            Ok(decision) => self.apply(decision),
            Err(_) => Ok(Err(WriteFailure::Malformed)),
        }
    }

    /// The first of `name (2)`, `name (3)`… that is free.
    fn free_name(&self, parent: EntryId, name: &str) -> Result<String, StoreError> {
        let mut attempt = 1;
        loop {
            let candidate = autorename(name, attempt);
            if !self.tx.is_taken(parent, &key(&candidate))? {
                return Ok(candidate);
            }
            attempt += 1;
        }
    }

    fn upload(mut self, upload: Upload) -> Written<WriteFailure> {
        possession::record(self.write.db, self.actor.account, &upload.proven)?;
        let (parent, name) = checked!(self.place(&upload.path)?);
        let editor = self.tx.editor();
        let decision = match decide_upload(&self.tx, &editor, parent, &name, upload.content, &upload.options)? {
            Ok(decision) => decision,
            Err(conflict) => return Ok(Err(WriteFailure::with(&conflict.0))),
        };
        let entry = checked!(self.apply(decision)?);
        if let Some(session) = upload.session {
            uploads::remove(self.write.db, &session)?;
        }
        self.finish(entry)
    }

    fn create_folder(mut self, path: &PathRef, rename: bool) -> Written<WriteFailure> {
        let (parent, mut name) = checked!(self.place(path)?);
        if let Some(there) = self.tx.live(parent, &key(&name))? {
            if !rename {
                return Ok(Err(WriteFailure::with(&there)));
            }
            name = self.free_name(parent, &name)?;
        }
        let entry = checked!(self.new_folder(parent, &name)?);
        self.finish(entry)
    }

    fn delete(mut self, path: &PathRef, parent_rev: Option<Rev>) -> Written<Relocation> {
        let Some(entry) = live(*self.tx, path)? else { return Ok(Err(Relocation::From(LookupFailure::NotFound))) };
        if let Some(rev) = parent_rev {
            if entry.is_folder() {
                return Ok(Err(Relocation::From(LookupFailure::NotFile)));
            }
            if entry.revision.rev != rev {
                return Ok(Err(Relocation::To(WriteFailure::ConflictFile)));
            }
        }
        let before = Paths::new(*self.tx).entry(entry.clone())?;
        let known = self.tx.sequence;
        if let Ok(decision) = decide_delete(&self.tx, &self.tx.editor(), entry.id, known)? {
            checked!(self.apply(decision)?);
        }
        self.tx.finish()?;
        Ok(Ok(before))
    }

    fn relocate(mut self, from: &PathRef, to: &PathRef, rename: bool, copy: bool) -> Written<Relocation> {
        let Some(entry) = live(*self.tx, from)? else { return Ok(Err(Relocation::From(LookupFailure::NotFound))) };
        if entry.is_folder() && self.leads_below(to, entry.id)? {
            return Ok(Err(Relocation::IntoItself));
        }
        let (parent, mut name) = checked!(self.place(to)?);
        let there = self.tx.live(parent, &key(&name))?;
        let only_case = !copy && there.as_ref().is_some_and(|there| there.id == entry.id && there.name != name);
        if let Some(there) = there.filter(|_| !only_case) {
            if !rename {
                return Ok(Err(WriteFailure::with(&there).into()));
            }
            name = self.free_name(parent, &name)?;
        }
        let spot = Spot { parent, name, exact_name: None };
        if copy {
            return self.copy(entry, spot);
        }
        let moved = checked!(self.apply(Decision::applied(Act::Move { entry: entry.id, spot }))?);
        self.finish(moved)
    }

    /// Whether a path to be written lies inside a folder.
    fn leads_below(&self, to: &PathRef, folder: EntryId) -> Result<bool, StoreError> {
        let PathRef::Under(start, names) = to else { return Ok(false) };
        for length in 0..names.len() {
            let above = PathRef::Under(*start, names[..length].to_vec());
            if let Some(above) = live(*self.tx, &above)?
                && path_ids(&self.tx, above.id)?.iter().any(|above| above.id == folder)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn copy(mut self, entry: EntryState, spot: Spot) -> Written<Relocation> {
        let below = if entry.is_folder() { self.tx.live_below(entry.id)? } else { Vec::new() };
        if below.len() >= MAX_COPIED {
            return Ok(Err(Relocation::TooManyFiles));
        }
        let top = checked!(self.copy_one(&entry, spot)?);
        let mut copies = std::collections::HashMap::from([(entry.id, top.id)]);
        // Each folder comes before what is in it.
        for node in below {
            let (Some(source), Some(parent)) = (self.tx.entry(node.id)?, copies.get(&node.parent).copied()) else {
                return Err(StoreError::Damaged(format!("entry {} has no folder", node.id.0)));
            };
            let spot = Spot { parent, name: source.name.clone(), exact_name: source.exact_name.clone() };
            let made = checked!(self.copy_one(&source, spot)?);
            copies.insert(source.id, made.id);
        }
        self.finish(top)
    }

    fn copy_one(&mut self, source: &EntryState, spot: Spot) -> Result<Result<EntryState, WriteFailure>, StoreError> {
        let editor = self.tx.editor();
        let vector = VersionVector::new().raised(editor.device, editor.counter);
        let content = source.revision.content.clone();
        self.apply(Decision::applied(Act::Create { spot, content, vector }))
    }

    fn restore(mut self, path: &PathRef, rev: Rev) -> Written<Relocation> {
        let Some(entry) = live_or_deleted(*self.tx, path)? else {
            return Ok(Err(Relocation::From(LookupFailure::NotFound)));
        };
        if entry.is_folder() {
            return Ok(Err(Relocation::To(WriteFailure::ConflictFolder)));
        }
        let Some(revision) = self.tx.revision(rev)?.filter(|revision| revision.entry == entry.id) else {
            return Ok(Err(Relocation::InvalidRevision));
        };
        let (parent, name) = checked!(self.place(path)?);
        let editor = self.tx.editor();
        let vector = entry.revision.vector.clone().raised(editor.device, editor.counter);
        let spot = Spot { parent, name, exact_name: None };
        let revived_at = entry.deleted.then_some(spot);
        let act = Act::Revise { entry: entry.id, content: revision.content, vector, revived_at };
        let entry = checked!(self.apply(Decision::applied(act))?);
        self.finish(entry)
    }
}
