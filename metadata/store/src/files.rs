//! API v2: what is at a path.

use holdfast_metadata_model::{EntryId, Revision, View};

use crate::paths::{Paths, live, live_or_deleted};
use crate::view::NamespaceView;
use crate::{Actor, LookupFailure, PathEntry, PathRef, Store, StoreError};

/// A file (or link, or folder) at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAt {
    /// Where it is; its state's revision is the newest.
    pub entry: PathEntry,
    /// The revision asked for.
    pub revision: Revision,
}

/// How much room an account uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of live files.
    pub used: u64,
    /// Bytes it may use.
    pub quota: u64,
}

impl Store {
    /// What is at a path.
    ///
    /// # Errors
    /// When the database fails; the inner error says that nothing is there.
    pub async fn at(
        &self,
        actor: Actor,
        path: PathRef,
        include_deleted: bool,
    ) -> Result<Result<FileAt, LookupFailure>, StoreError> {
        self.read(move |db| {
            let view = NamespaceView { db, id: actor.namespace };
            // A past revision can be read whether or not its entry is still there.
            let past = matches!(path, PathRef::Rev(_));
            let found = if include_deleted || past { live_or_deleted(view, &path)? } else { live(view, &path)? };
            let Some(state) = found else { return Ok(Err(LookupFailure::NotFound)) };
            let revision = match path {
                PathRef::Rev(rev) => view.revision(rev)?.unwrap_or_else(|| state.revision.clone()),
                PathRef::Under(..) => state.revision.clone(),
            };
            let entry = Paths::new(view).entry(state)?;
            Ok(Ok(FileAt { entry, revision }))
        })
        .await
    }

    /// The folder a path means; the root for no names.
    ///
    /// # Errors
    /// When the database fails; the inner error says that it is no folder.
    pub async fn folder_at(&self, actor: Actor, path: PathRef) -> Result<Result<EntryId, LookupFailure>, StoreError> {
        if matches!(&path, PathRef::Under(EntryId::ROOT, names) if names.is_empty()) {
            return Ok(Ok(EntryId::ROOT));
        }
        self.read(move |db| {
            let view = NamespaceView { db, id: actor.namespace };
            Ok(match live(view, &path)? {
                None => Err(LookupFailure::NotFound),
                Some(entry) if entry.is_folder() => Ok(entry.id),
                Some(_) => Err(LookupFailure::NotFolder),
            })
        })
        .await
    }

    /// How much room the account uses.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage(&self, actor: Actor) -> Result<Usage, StoreError> {
        self.read(move |db| {
            let sql = "SELECT n.bytes, a.quota_bytes FROM accounts a JOIN namespaces n ON n.id = a.namespace
                       WHERE a.id = ?";
            let mut statement = db.prepare_cached(sql)?;
            let (used, quota) =
                statement.query_row([actor.account.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(Usage { used, quota })
        })
        .await
    }
}
