//! What the rules may know of a namespace.

use holdfast_libs_types::DeviceId;

use crate::{Content, EntryId, Kind, Rev, VersionVector};

/// A revision of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its name.
    pub rev: Rev,
    /// Whose.
    pub entry: EntryId,
    /// Which edits went into it.
    pub vector: VersionVector,
    /// What it holds.
    pub content: Content,
    /// Journal sequence of the item that made it.
    pub sequence: u64,
    /// The device that made it.
    pub device: DeviceId,
    /// When the server took it, Unix milliseconds.
    pub at_ms: i64,
}

/// An entry as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryState {
    /// Its id.
    pub id: EntryId,
    /// The folder it is in.
    pub parent: EntryId,
    /// Its name as stored.
    pub name: String,
    /// Its exact name on case-sensitive clients where the stored one had to differ.
    pub exact_name: Option<String>,
    /// It is gone; all else is as it was last.
    pub deleted: bool,
    /// Journal sequence of its last change.
    pub sequence: u64,
    /// The device that made its last change.
    pub device: DeviceId,
    /// Its newest revision.
    pub revision: Revision,
}

impl EntryState {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.revision.content.kind
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind() == Kind::Folder
    }

    /// Its name on a case-sensitive client.
    pub fn exact_name(&self) -> &str {
        self.exact_name.as_deref().unwrap_or(&self.name)
    }
}

/// A live entry below a folder, with what a delete needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubtreeNode {
    /// Its id.
    pub id: EntryId,
    /// The folder it is in.
    pub parent: EntryId,
    /// Journal sequence and device of its last change.
    pub changed: (u64, DeviceId),
    /// Journal sequence and device of its newest revision.
    pub revised: (u64, DeviceId),
}

/// A namespace as the rules read it.
pub trait View {
    /// Why reading can fail.
    type Error;

    /// An entry, deleted ones included. Never asked for the root.
    ///
    /// # Errors
    /// When reading fails.
    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, Self::Error>;

    /// A revision of this namespace.
    ///
    /// # Errors
    /// When reading fails.
    fn revision(&self, rev: Rev) -> Result<Option<Revision>, Self::Error>;

    /// The live entries of a folder whose stored or exact name has this key.
    ///
    /// # Errors
    /// When reading fails.
    fn live_by_key(&self, parent: EntryId, key: &str) -> Result<Vec<EntryState>, Self::Error>;

    /// Whether a live entry of the folder has this key as its stored name's key.
    ///
    /// # Errors
    /// When reading fails.
    fn is_taken(&self, parent: EntryId, key: &str) -> Result<bool, Self::Error>;

    /// The deleted entry that last stood in this folder under this key.
    ///
    /// # Errors
    /// When reading fails.
    fn deleted_by_key(&self, parent: EntryId, key: &str) -> Result<Option<EntryState>, Self::Error>;

    /// All live entries below a folder, each folder before what is in it.
    ///
    /// # Errors
    /// When reading fails.
    fn live_below(&self, folder: EntryId) -> Result<Vec<SubtreeNode>, Self::Error>;
}

/// The folders from an entry up to the root (exclusive), the entry itself first.
///
/// # Errors
/// When reading fails.
pub fn path_ids<V: View>(view: &V, mut id: EntryId) -> Result<Vec<EntryState>, V::Error> {
    let mut path = Vec::new();
    while id != EntryId::ROOT {
        let Some(entry) = view.entry(id)? else { break };
        id = entry.parent;
        path.push(entry);
    }
    Ok(path)
}

/// The names from the root down to an entry.
///
/// # Errors
/// When reading fails.
pub fn location_of<V: View>(view: &V, id: EntryId) -> Result<Vec<String>, V::Error> {
    Ok(path_ids(view, id)?.into_iter().rev().map(|entry| entry.name).collect())
}
