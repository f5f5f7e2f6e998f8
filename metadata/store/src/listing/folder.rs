//! API v2's listings of a folder, by path.

use holdfast_metadata_model::{ChangeKind, Cursor, EntryId, EntryState, Origin, Position, Scope, View, key};

use super::{Page, PageRequest, start};
use crate::paths::Paths;
use crate::view::NamespaceView;
use crate::{Actor, PathEntry, Store, StoreError, rows};

/// Rows looked at for one page: a page may end short of its limit, but never keeps a reader for long.
const ROWS: usize = 20_000;

const CHUNK: usize = 1000;

/// One line of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedItem {
    /// It is there.
    There(Box<PathEntry>),
    /// Nothing is at this path any more.
    Gone {
        /// The last name of the path.
        name: String,
        /// The path.
        path: String,
    },
}

/// A page, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum FolderPage {
    /// The page.
    Page(Page<ListedItem>),
    /// The cursor is not of this journal, or the folder was moved since: list anew.
    Reset,
    /// The folder is gone.
    NotFound,
}

impl Store {
    /// The next lines of a folder's listing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_folder(&self, actor: Actor, request: PageRequest) -> Result<FolderPage, StoreError> {
        self.read(move |db| {
            let view = NamespaceView { db, id: actor.namespace };
            let only_cursor = matches!(request, PageRequest::End(..));
            let Some(cursor) = start(view, &actor, request)? else { return Ok(FolderPage::Reset) };
            let Scope::Folder { folder, recursive, include_deleted, limit } = cursor.scope else {
                return Ok(FolderPage::Reset);
            };
            if folder != EntryId::ROOT && view.entry(folder)?.is_none_or(|entry| entry.deleted) {
                return Ok(FolderPage::NotFound);
            }
            if only_cursor {
                return Ok(FolderPage::Page(Page { items: Vec::new(), cursor, has_more: false }));
            }
            let limit = limit as usize;
            let lister =
                Lister { view, paths: Paths::new(view), folder, recursive, include_deleted, limit, items: Vec::new() };
            Ok(lister.page(cursor)?.map_or(FolderPage::Reset, FolderPage::Page))
        })
        .await
    }
}

struct Lister<'a> {
    view: NamespaceView<'a>,
    paths: Paths<'a>,
    folder: EntryId,
    recursive: bool,
    include_deleted: bool,
    limit: usize,
    items: Vec<ListedItem>,
}

impl Lister<'_> {
    /// The next page; `None` when the folder itself was moved: the paths told before are no longer its.
    fn page(mut self, mut cursor: Cursor) -> Result<Option<Page<ListedItem>>, StoreError> {
        match cursor.position.clone() {
            Position::ByKey { after } => {
                let next = self.by_key(after.as_deref())?;
                cursor.position = next.map_or(Position::Replay, |key| Position::ByKey { after: Some(key) });
            }
            Position::ById { after } => {
                let next = self.by_id(self.folder, self.recursive, self.include_deleted, after)?;
                cursor.position = next.map_or(Position::Replay, |after| Position::ById { after });
            }
            Position::Below { folder, after } => match self.by_id(folder, true, false, after)? {
                Some(after) => cursor.position = Position::Below { folder, after },
                None => {
                    cursor.position = Position::Replay;
                    self.advance(&mut cursor)?;
                }
            },
            Position::Replay => {
                if !self.replay(&mut cursor)? {
                    return Ok(None);
                }
            }
        }
        let (head, _) = self.view.head()?;
        let has_more = cursor.position != Position::Replay || cursor.sequence < head;
        Ok(Some(Page { items: self.items, cursor, has_more }))
    }

    /// The cursor moves past the next journal item.
    fn advance(&self, cursor: &mut Cursor) -> Result<(), StoreError> {
        cursor.sequence += 1;
        cursor.hash = self
            .view
            .hash_at(cursor.sequence)?
            .ok_or_else(|| StoreError::Damaged(format!("journal item {} is missing", cursor.sequence)))?;
        Ok(())
    }

    /// Answers the key to go on after, if there is more.
    fn by_key(&mut self, after: Option<&str>) -> Result<Option<String>, StoreError> {
        let rest = "WHERE e.namespace = ? AND e.parent = ? AND e.key > ? AND e.deleted = 0 ORDER BY e.key LIMIT ?";
        // No key is empty, so everything comes after "".
        let params = (self.view.id.0, self.folder.0, after.unwrap_or(""), self.limit + 1);
        let mut entries = self.view.select(rest, params)?;
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        let last = entries.last().map(|entry| key(&entry.name));
        for entry in entries {
            self.there(entry)?;
        }
        Ok(last.filter(|_| more))
    }

    /// Answers the id to go on after, if there is more.
    fn by_id(
        &mut self,
        folder: EntryId,
        recursive: bool,
        deleted: bool,
        mut after: EntryId,
    ) -> Result<Option<EntryId>, StoreError> {
        let rest = "WHERE e.namespace = ? AND e.id > ? AND e.deleted <= ? ORDER BY e.id LIMIT ?";
        for _ in 0..ROWS / CHUNK {
            let entries = self.view.select(rest, (self.view.id.0, after.0, deleted, CHUNK))?;
            let last_chunk = entries.len() < CHUNK;
            for entry in entries {
                if self.items.len() == self.limit {
                    return Ok(Some(after));
                }
                after = entry.id;
                let inside =
                    if recursive { self.paths.is_below(entry.parent, folder)? } else { entry.parent == folder };
                match (inside, entry.deleted) {
                    (false, _) => {}
                    (true, false) => self.there(entry)?,
                    (true, true) => self.gone(entry.parent, &entry.name)?,
                }
            }
            if last_chunk {
                return Ok(None);
            }
        }
        Ok(Some(after))
    }

    /// Tells changes until the page is full; answers `false` when the folder that is listed was itself moved or deleted.
    fn replay(&mut self, cursor: &mut Cursor) -> Result<bool, StoreError> {
        let mut statement = self.view.db.prepare_cached(
            "SELECT entry, kind, from_parent, from_name FROM journal
             WHERE namespace = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        )?;
        let mut items = statement.query((self.view.id.0, cursor.sequence, ROWS))?;
        while let Some(row) = items.next()? {
            if self.items.len() >= self.limit {
                break;
            }
            let entry = EntryId(row.get(0)?);
            let kind = rows::change_kind(row.get(1)?)?;
            let from = match (row.get(2)?, row.get(3)?) {
                (Some(parent), Some(name)) => Some(Origin { parent: EntryId(parent), name }),
                _ => None,
            };
            if matches!(kind, ChangeKind::Move | ChangeKind::Delete) && self.paths.is_below(self.folder, entry)? {
                return Ok(false);
            }
            let arrived = self.item(cursor.sequence + 1, entry, kind, from)?;
            if arrived {
                // What is below the folder comes on the next pages, before the item counts as told.
                cursor.position = Position::Below { folder: entry, after: EntryId::ROOT };
                return Ok(true);
            }
            self.advance(cursor)?;
        }
        Ok(true)
    }

    /// Tells one change; answers whether a folder arrived whose content must be told too.
    fn item(&mut self, sequence: u64, id: EntryId, kind: ChangeKind, from: Option<Origin>) -> Result<bool, StoreError> {
        if let Some(from) = from
            && self.in_scope(from.parent)?
        {
            // Told even if something else stands there by now: with a folder went all below it, and what stands there
            // came later, so a later item tells it again.
            self.tell_gone(from.parent, &from.name)?;
        }
        let entry = self.view.entry(id)?.ok_or_else(|| StoreError::Damaged(format!("entry {} is missing", id.0)))?;
        // A later item tells what has become of it.
        if entry.sequence > sequence || !self.in_scope(entry.parent)? {
            return Ok(false);
        }
        let arrived = kind == ChangeKind::Move && self.recursive && entry.is_folder();
        if entry.deleted {
            self.gone(entry.parent, &entry.name)?;
        } else {
            self.there(entry)?;
        }
        Ok(arrived)
    }

    fn in_scope(&mut self, parent: EntryId) -> Result<bool, StoreError> {
        if self.recursive { self.paths.is_below(parent, self.folder) } else { Ok(parent == self.folder) }
    }

    fn there(&mut self, entry: EntryState) -> Result<(), StoreError> {
        let entry = self.paths.entry(entry)?;
        self.items.push(ListedItem::There(Box::new(entry)));
        Ok(())
    }

    /// Tells that a path is free, unless something stands there by now.
    fn gone(&mut self, parent: EntryId, name: &str) -> Result<(), StoreError> {
        if self.view.is_taken(parent, &key(name))? {
            return Ok(());
        }
        self.tell_gone(parent, name)
    }

    fn tell_gone(&mut self, parent: EntryId, name: &str) -> Result<(), StoreError> {
        let path = self.paths.of(parent, name)?;
        let item = ListedItem::Gone { name: name.to_owned(), path };
        self.items.push(item);
        Ok(())
    }
}
