//! API v2: the past of a file.

use holdfast_metadata_model::{EntryId, Rev, Revision};

use crate::paths::{Paths, live_or_deleted};
use crate::rows;
use crate::view::NamespaceView;
use crate::{Actor, LookupFailure, PathEntry, PathRef, Store, StoreError};

/// Past revisions of a file, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionList {
    /// The file.
    pub entry: PathEntry,
    /// Its revisions.
    pub revisions: Vec<Revision>,
    /// There are older ones.
    pub has_more: bool,
    /// When it was deleted, Unix milliseconds, if it is.
    pub deleted_ms: Option<i64>,
}

impl Store {
    /// Revisions of the file at a path, deleted ones included.
    ///
    /// # Errors
    /// When the database fails; the inner error says that there is no such file.
    pub async fn revisions(
        &self,
        actor: Actor,
        path: PathRef,
        before: Option<Rev>,
        limit: u32,
    ) -> Result<Result<RevisionList, LookupFailure>, StoreError> {
        self.read(move |db| {
            let view = NamespaceView { db, id: actor.namespace };
            let Some(state) = live_or_deleted(view, &path)? else { return Ok(Err(LookupFailure::NotFound)) };
            if state.is_folder() {
                return Ok(Err(LookupFailure::NotFile));
            }
            let mut revisions = newest(view, state.id, before, limit.saturating_add(1))?;
            let has_more = revisions.len() > limit as usize;
            revisions.truncate(limit as usize);
            let deleted_ms = if state.deleted { Some(changed_ms(view, state.sequence)?) } else { None };
            let entry = Paths::new(view).entry(state)?;
            Ok(Ok(RevisionList { entry, revisions, has_more, deleted_ms }))
        })
        .await
    }
}

fn newest(
    view: NamespaceView<'_>,
    entry: EntryId,
    before: Option<Rev>,
    limit: u32,
) -> Result<Vec<Revision>, StoreError> {
    let before = before.and_then(|rev| i64::try_from(rev.0).ok()).unwrap_or(i64::MAX);
    let sql = format!(
        "SELECT {} FROM revisions AS r WHERE r.entry = ? AND r.rev < ? ORDER BY r.rev DESC LIMIT ?",
        rows::REVISION
    );
    let mut statement = view.db.prepare_cached(&sql)?;
    let mut found = statement.query((entry.0, before, limit))?;
    let mut revisions = Vec::new();
    while let Some(row) = found.next()? {
        revisions.push(rows::revision(row)?);
    }
    Ok(revisions)
}

fn changed_ms(view: NamespaceView<'_>, sequence: u64) -> Result<i64, StoreError> {
    let sql = "SELECT at_ms FROM journal WHERE namespace = ? AND sequence = ?";
    Ok(view.db.prepare_cached(sql)?.query_row((view.id.0, sequence), |row| row.get(0))?)
}
