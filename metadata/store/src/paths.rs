//! Paths as API v2 writes them: names without regard to case, or an entry's id and names below it.

use std::collections::HashMap;

use holdfast_metadata_model::{EntryId, EntryState, Rev, View, key};

use crate::StoreError;
use crate::view::NamespaceView;

/// What a caller points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRef {
    /// Names below an entry (the root, for plain paths); without names the entry itself.
    Under(EntryId, Vec<String>),
    /// A revision.
    Rev(Rev),
}

/// An entry with its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathEntry {
    /// The entry.
    pub state: EntryState,
    /// Its path with the names as they are shown; starts with `/`.
    pub path: String,
}

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupFailure {
    /// Nothing there.
    NotFound,
    /// A folder where a file is meant.
    NotFile,
    /// A file where a folder is meant.
    NotFolder,
}

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFailure {
    /// A file or link is there.
    ConflictFile,
    /// A folder is there.
    ConflictFolder,
    /// Something above it is a file.
    ConflictFileAncestor,
    /// The account is full.
    InsufficientSpace,
    /// The entry that the path names by id does not exist, or the path is the root.
    Malformed,
}

impl WriteFailure {
    /// The conflict with an entry.
    pub(crate) fn with(entry: &EntryState) -> Self {
        if entry.is_folder() { Self::ConflictFolder } else { Self::ConflictFile }
    }
}

/// The live entry a path means; `None` for the root or when nothing is there.
pub(crate) fn live(view: NamespaceView<'_>, path: &PathRef) -> Result<Option<EntryState>, StoreError> {
    walk(view, path, false)
}

/// The live entry a path means, or else the deleted one that stood there last.
pub(crate) fn live_or_deleted(view: NamespaceView<'_>, path: &PathRef) -> Result<Option<EntryState>, StoreError> {
    match walk(view, path, false)? {
        Some(entry) => Ok(Some(entry)),
        None => walk(view, path, true),
    }
}

fn walk(view: NamespaceView<'_>, path: &PathRef, deleted: bool) -> Result<Option<EntryState>, StoreError> {
    let (start, names) = match path {
        PathRef::Under(start, names) => (*start, names),
        PathRef::Rev(rev) => {
            let Some(revision) = view.revision(*rev)? else { return Ok(None) };
            return Ok(view.entry(revision.entry)?.filter(|entry| deleted || !entry.deleted));
        }
    };
    let mut found = match start {
        EntryId::ROOT => None,
        id => match view.entry(id)?.filter(|entry| deleted || !entry.deleted) {
            Some(entry) => Some(entry),
            None => return Ok(None),
        },
    };
    for name in names {
        let parent = found.map_or(EntryId::ROOT, |entry: EntryState| entry.id);
        let key = key(name);
        found = match view.live(parent, &key)? {
            Some(entry) => Some(entry),
            None if deleted => view.deleted_by_key(parent, &key)?,
            None => None,
        };
        if found.is_none() {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Paths of entries, the folders above them looked up once.
pub(crate) struct Paths<'a> {
    view: NamespaceView<'a>,
    folders: HashMap<EntryId, (EntryId, String)>,
}

impl<'a> Paths<'a> {
    pub fn new(view: NamespaceView<'a>) -> Self {
        Self { view, folders: HashMap::new() }
    }

    /// The path of `name` in a folder.
    pub fn of(&mut self, parent: EntryId, name: &str) -> Result<String, StoreError> {
        let mut names = vec![name.to_owned()];
        let mut at = parent;
        while at != EntryId::ROOT {
            let (above, name) = self.folder(at)?;
            names.push(name);
            at = above;
        }
        let mut path = String::new();
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        Ok(path)
    }

    /// The entry with its path.
    pub fn entry(&mut self, state: EntryState) -> Result<PathEntry, StoreError> {
        let path = self.of(state.parent, &state.name)?;
        Ok(PathEntry { state, path })
    }

    /// Whether `parent` is `folder` or lies below it.
    pub fn is_below(&mut self, parent: EntryId, folder: EntryId) -> Result<bool, StoreError> {
        let mut at = parent;
        while at != folder {
            if at == EntryId::ROOT {
                return Ok(false);
            }
            at = self.folder(at)?.0;
        }
        Ok(true)
    }

    fn folder(&mut self, id: EntryId) -> Result<(EntryId, String), StoreError> {
        if let Some(known) = self.folders.get(&id) {
            return Ok(known.clone());
        }
        let sql = "SELECT parent, name FROM entries WHERE id = ? AND namespace = ?";
        let mut statement = self.view.db.prepare_cached(sql)?;
        let mut rows = statement.query((id.0, self.view.id.0))?;
        let row = rows.next()?.ok_or_else(|| StoreError::Damaged(format!("folder {} is missing", id.0)))?;
        let found: (EntryId, String) = (EntryId(row.get(0)?), row.get(1)?);
        self.folders.insert(id, found.clone());
        Ok(found)
    }
}
