//! What a device may wish, and what is decided about it.

use holdfast_libs_types::DeviceId;

use crate::{Content, EntryId, Rev, VersionVector};

/// Who wishes it.
#[derive(Debug, Clone)]
pub struct Editor {
    /// The device.
    pub device: DeviceId,
    /// What the device's counter becomes with this edit: one more than the edits taken from it so far.
    pub counter: u64,
    /// The person's name, for copies.
    pub user: String,
    /// The server's date, `YYYY-MM-DD` (UTC), for copies. No decision depends on it.
    pub date: String,
}

/// The revision an edit started from.
pub type Base = Option<Rev>;

/// Where a put goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Onto an entry, wherever it is now.
    Entry(EntryId),
    /// To a name in a folder, exactly as it stands on the device.
    Name {
        /// The folder.
        parent: EntryId,
        /// The name.
        name: String,
    },
}

/// One change, its parents known by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Writes a file or link.
    Put {
        /// Where.
        at: Location,
        /// What the edit started from.
        base: Base,
        /// What it holds now.
        content: Content,
    },
    /// Makes a folder.
    MakeFolder {
        /// In which.
        parent: EntryId,
        /// Under which name.
        name: String,
    },
    /// Moves or renames.
    Move {
        /// What.
        entry: EntryId,
        /// Into which folder.
        parent: EntryId,
        /// Under which name.
        name: String,
    },
    /// Deletes.
    Delete {
        /// What.
        entry: EntryId,
        /// Up to where the device knows the namespace.
        known_sequence: u64,
    },
}

/// A name in a folder, as it will be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The folder.
    pub parent: EntryId,
    /// The stored name; its key is free.
    pub name: String,
    /// The exact name, where the stored one had to differ.
    pub exact_name: Option<String>,
}

/// A deleted folder that must live again because something in it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revival {
    /// Which.
    pub folder: EntryId,
    /// Where it comes back.
    pub spot: Spot,
}

/// A file or link that gives its name to a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Displacement {
    /// Which.
    pub entry: EntryId,
    /// Where it goes.
    pub spot: Spot,
}

/// The change itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nothing to do: the entry is as wished.
    Keep(EntryId),
    /// A new entry.
    Create {
        /// Where.
        spot: Spot,
        /// What.
        content: Content,
        /// Its vector.
        vector: VersionVector,
    },
    /// A new revision of an entry; a spot when it is revived.
    Revise {
        /// Which.
        entry: EntryId,
        /// What.
        content: Content,
        /// Its vector.
        vector: VersionVector,
        /// Where it comes back.
        revived_at: Option<Spot>,
    },
    /// Another place.
    Move {
        /// Which.
        entry: EntryId,
        /// Where to.
        spot: Spot,
    },
    /// These go; `entry` is the one asked for, which stays if it is not among them.
    Delete {
        /// What was asked for.
        entry: EntryId,
        /// What goes, the deepest first.
        gone: Vec<EntryId>,
    },
}

/// How the device is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Applied,
    /// Equal content was there.
    Merged,
    /// The content went into a copy; this entry stands.
    ConflictCopy(EntryId),
}

/// What to do. Carried out in order: revivals (the topmost first), displacement, act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Folders that live again.
    pub revive: Vec<Revival>,
    /// A file that gives way.
    pub displace: Option<Displacement>,
    /// The change.
    pub act: Act,
    /// The answer.
    pub answer: Answer,
}

impl Decision {
    /// This act and this answer, nothing besides.
    pub(crate) fn new(act: Act, answer: Answer) -> Self {
        Self { revive: Vec::new(), displace: None, act, answer }
    }

    /// Nothing happens; the entry is the answer.
    pub(crate) fn keep(entry: EntryId) -> Self {
        Self::new(Act::Keep(entry), Answer::Merged)
    }

    /// The device's wish, carried out.
    pub fn applied(act: Act) -> Self {
        Self::new(act, Answer::Applied)
    }
}
