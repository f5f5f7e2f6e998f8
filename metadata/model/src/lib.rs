//! The rules of the metadata tier, free of I/O: what a name is, which of two versions is newer, what a commit does.
//!
//! [`decide`] takes a [`View`] of a namespace and one change and answers with a [`Decision`], a list of plain steps;
//! the store carries them out inside its transaction, and the tests do so on a tree in memory. Nothing here knows
//! SQL, HTTP or the time of day: the caller says what day it is.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod content;
mod cursor;
mod decide;
#[cfg(test)]
mod decide_tests;
mod decision;
#[cfg(test)]
mod devices;
mod ids;
mod journal;
mod layout;
#[cfg(test)]
mod memory;
mod names;
mod tree;
mod upload;
mod version;

pub use content::{BlockRef, Content, ContentError, Kind, Timestamp, content_hash};
pub use cursor::{Cursor, CursorError, Position, Scope};
pub use decide::{Decided, decide, decide_delete, decide_make_folder, decide_move, decide_put};
pub use decision::{Act, Answer, Base, Decision, Displacement, Editor, Location, Revival, Spot, Wish};
pub use ids::{EntryId, NamespaceId, Rev};
pub use journal::{ChangeKind, JournalItem, Origin};
pub use names::{
    MAX_NAME_BYTES, NameError, autorename, case_conflict_name, check_name, conflict_copy_name, key, lowercase,
};
pub use tree::{EntryState, Revision, SubtreeNode, View, location_of, path_ids};
pub use upload::{UploadConflict, UploadMode, UploadOptions, decide_live_folder, decide_new_folder, decide_upload};
pub use version::{Order, VersionVector, VersionVectorError};

/// Why an item is not done. The words are those of the `/v1` protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The entry or the parent does not exist in this namespace.
    #[error("{0}")]
    NotFound(String),
    /// The move would put a folder below itself.
    #[error("the folder would come to lie inside itself; move it elsewhere")]
    Cycle,
    /// The name cannot be one.
    #[error(transparent)]
    InvalidName(#[from] NameError),
    /// A field is impossible.
    #[error("{0}")]
    InvalidItem(String),
}

impl Refusal {
    /// The item code of the `/v1` protocol.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Cycle => "cycle",
            Self::InvalidName(_) => "invalid_name",
            Self::InvalidItem(_) => "invalid_item",
        }
    }
}
