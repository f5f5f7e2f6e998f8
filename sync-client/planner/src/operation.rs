//! What the planner asks the engine to do.

use holdfast_metadata_client::EntryId;

use crate::LocalId;

/// Where a local move goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the place that the server's tree says.
    Place {
        /// The folder.
        parent: EntryId,
        /// The name.
        name: String,
    },
    /// Out of the way for a moment, into the root, under this name ([`crate::TRANSIT_PREFIX`]).
    Transit {
        /// The name.
        name: String,
    },
}

/// One step. Steps of one plan may run side by side, but each kind in the order given; a step into a folder that an
/// earlier step makes comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Hash a file or link, deliver its blocks, commit it.
    Upload {
        /// What.
        local: LocalId,
        /// The entry it is known as; none for a new one, which is put to its name.
        entry: Option<EntryId>,
        /// The revision the edit started from.
        base: Option<String>,
    },
    /// Commit a folder that is new here.
    MakeRemoteFolder {
        /// Which.
        local: LocalId,
    },
    /// Commit a move or rename.
    MoveRemote {
        /// What.
        entry: EntryId,
        /// Its new folder; one without an entry yet has an earlier operation that makes it.
        parent: LocalId,
        /// Its new name.
        name: String,
    },
    /// Commit a delete.
    DeleteRemote {
        /// What.
        entry: EntryId,
        /// See `Change::Delete`.
        known_sequence: u64,
    },
    /// Fetch a file or link to its place: a free one, or one whose file is what the synced tree says.
    Download {
        /// What.
        entry: EntryId,
    },
    /// Set modification time and executable bit of a file whose bytes are right.
    SetAttributes {
        /// What.
        entry: EntryId,
    },
    /// Make a folder.
    MakeLocalFolder {
        /// What.
        entry: EntryId,
    },
    /// Move or rename.
    MoveLocal {
        /// What.
        entry: EntryId,
        /// Where to.
        to: Target,
    },
    /// Remove a file or link that is what the synced tree says, or an empty folder.
    DeleteLocal {
        /// What.
        entry: EntryId,
    },
}

impl Operation {
    /// The entry that it is about.
    pub fn entry(&self) -> Option<EntryId> {
        match self {
            Self::Upload { entry, .. } => *entry,
            Self::MakeRemoteFolder { .. } => None,
            Self::MoveRemote { entry, .. }
            | Self::DeleteRemote { entry, .. }
            | Self::Download { entry }
            | Self::SetAttributes { entry }
            | Self::MakeLocalFolder { entry }
            | Self::MoveLocal { entry, .. }
            | Self::DeleteLocal { entry } => Some(*entry),
        }
    }

    /// The local node without an entry that it is about.
    pub fn unpaired_local(&self) -> Option<LocalId> {
        match self {
            Self::Upload { local, entry: None, .. } | Self::MakeRemoteFolder { local } => Some(*local),
            _ => None,
        }
    }
}
