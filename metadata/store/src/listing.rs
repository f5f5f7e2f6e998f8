//! What changed in a namespace since a cursor.
//!
//! A first listing goes by entry id (or by key, for one folder) from a recorded sequence; then the changes after that
//! sequence are replayed. Nothing is missed and nothing is told by offset.

use holdfast_metadata_model::{Cursor, EntryId, EntryState, NamespaceId, Position, Scope};

use crate::view::NamespaceView;
use crate::{Actor, Store, StoreError};

mod folder;

pub use folder::{FolderPage, ListedItem};

/// One page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What it tells.
    pub items: Vec<T>,
    /// Where to go on.
    pub cursor: Cursor,
    /// There is more.
    pub has_more: bool,
}

/// Entries that changed (`/v1`).
pub type Changed = Page<EntryState>;

/// Where a page starts.
#[derive(Debug, Clone)]
pub enum PageRequest {
    /// At the beginning.
    Start(NamespaceId, Scope),
    /// Where a cursor stands.
    Continue(Cursor),
    /// Nowhere: only a cursor that stands at the end.
    End(NamespaceId, Scope),
}

/// A cursor whose journal item is not here (or was another): list anew.
pub(crate) fn known(view: NamespaceView<'_>, cursor: &Cursor) -> Result<bool, StoreError> {
    Ok(view.hash_at(cursor.sequence)? == Some(cursor.hash))
}

/// The cursor that a request starts from; `None` when it must be reset.
fn start(view: NamespaceView<'_>, actor: &Actor, request: PageRequest) -> Result<Option<Cursor>, StoreError> {
    let (namespace, scope, position) = match request {
        PageRequest::Continue(cursor) => return Ok(known(view, &cursor)?.then_some(cursor)),
        PageRequest::End(namespace, scope) => (namespace, scope, Position::Replay),
        PageRequest::Start(namespace, scope) => {
            let by_key = matches!(scope, Scope::Folder { recursive: false, include_deleted: false, .. });
            let position =
                if by_key { Position::ByKey { after: None } } else { Position::ById { after: EntryId::ROOT } };
            (namespace, scope, position)
        }
    };
    let (sequence, hash) = view.head()?;
    let Actor { account, device, .. } = *actor;
    Ok(Some(Cursor { account, device, namespace, scope, sequence, hash, position }))
}

impl Store {
    /// The next entries of a `/v1` listing; `None` when the cursor must be reset.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn changes(&self, actor: Actor, request: PageRequest, limit: u32) -> Result<Option<Changed>, StoreError> {
        self.read(move |db| {
            let view = NamespaceView { db, id: actor.namespace };
            let Some(cursor) = start(view, &actor, request)? else { return Ok(None) };
            changes(view, cursor, limit).map(Some)
        })
        .await
    }
}

fn changes(view: NamespaceView<'_>, mut cursor: Cursor, limit: u32) -> Result<Changed, StoreError> {
    let mut items = Vec::new();
    if let Position::ById { after } = cursor.position {
        let rest = "WHERE e.namespace = ? AND e.id > ? AND e.deleted = 0 ORDER BY e.id LIMIT ?";
        items = view.select(rest, (view.id.0, after.0, limit))?;
        match items.last() {
            Some(last) if items.len() == limit as usize => {
                cursor.position = Position::ById { after: last.id };
                return Ok(Page { items, cursor, has_more: true });
            }
            _ => cursor.position = Position::Replay,
        }
        let (head, _) = view.head()?;
        let has_more = head > cursor.sequence;
        return Ok(Page { items, cursor, has_more });
    }
    let rest = "WHERE e.namespace = ? AND e.sequence > ? ORDER BY e.sequence LIMIT ?";
    items.extend(view.select(rest, (view.id.0, cursor.sequence, limit))?);
    let (head, head_hash) = view.head()?;
    match items.last() {
        Some(last) if items.len() == limit as usize && last.sequence < head => {
            cursor.sequence = last.sequence;
            cursor.hash = view
                .hash_at(last.sequence)?
                .ok_or_else(|| StoreError::Damaged(format!("journal item {} is missing", last.sequence)))?;
            Ok(Page { items, cursor, has_more: true })
        }
        _ => {
            (cursor.sequence, cursor.hash) = (head, head_hash);
            Ok(Page { items, cursor, has_more: false })
        }
    }
}
