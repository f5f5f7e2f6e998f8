//! What a stat and a revision say about a file.

use std::sync::Arc;

use holdfast_metadata_client::{BlockRef, Entry, Kind, Timestamp};
use serde::{Deserialize, Serialize};

/// What stands at a place on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// Something that stays local (a socket, a fifo, a device, a link whose target is not UTF-8). It takes its name.
    Other,
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Folder => Self::Folder,
            Kind::Symlink => Self::Symlink,
        }
    }
}

/// Who a file is, whatever it is called: its inode number and, since numbers are reused, its time of birth.
///
/// The device number is left out: everything below the root is on the root's file system, and the number changes
/// over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// The inode number.
    pub number: u64,
    /// Time of birth, where the file system tells it.
    pub birth: Option<Timestamp>,
}

/// What a stat says: enough to tell that a file was not touched since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What it is.
    pub kind: NodeKind,
    /// Who it is.
    pub inode: Inode,
    /// Bytes of a file.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time: moves when a program sets `mtime` back after an edit.
    pub ctime: Timestamp,
    /// The owner's executable bit of a file.
    pub executable: bool,
    /// Where a link points.
    pub target: Option<String>,
}

impl Stat {
    /// Whether nothing happened between two stats. Of folders only who they are counts: what is in them has its own.
    pub fn unchanged(&self, other: &Self) -> bool {
        match (self.kind, other.kind) {
            (NodeKind::Folder, NodeKind::Folder) | (NodeKind::Other, NodeKind::Other) => self.inode == other.inode,
            _ => self == other,
        }
    }

    /// Whether nothing happened but a rename or a change of links, which move the change time alone.
    pub fn unchanged_but_for_ctime(&self, other: &Self) -> bool {
        self.unchanged(&Self { ctime: self.ctime, ..other.clone() })
    }
}

/// What a revision holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes and what is synced of their attributes.
    File {
        /// Bytes.
        size: u64,
        /// Blocks, in order.
        blocks: Arc<[BlockRef]>,
        /// Modification time.
        mtime: Timestamp,
        /// The owner's executable bit.
        executable: bool,
    },
    /// Nothing of its own.
    Folder,
    /// A link.
    Symlink {
        /// Where it points.
        target: String,
        /// Modification time of the link.
        mtime: Timestamp,
    },
}

impl Content {
    /// The content of a server's entry.
    pub fn of(entry: &Entry) -> Self {
        let mtime = entry.mtime.unwrap_or_default();
        match entry.kind {
            Kind::Folder => Self::Folder,
            Kind::File => Self::File {
                size: entry.size,
                blocks: entry.blocks.as_slice().into(),
                mtime,
                executable: entry.executable,
            },
            Kind::Symlink => Self::Symlink { target: entry.target.clone().unwrap_or_default(), mtime },
        }
    }

    /// What kind of node shows it on a disk.
    pub fn kind(&self) -> NodeKind {
        match self {
            Self::File { .. } => NodeKind::File,
            Self::Folder => NodeKind::Folder,
            Self::Symlink { .. } => NodeKind::Symlink,
        }
    }

    /// Whether both are the same but for modification time and executable bit.
    pub fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { size, blocks, .. }, Self::File { size: other_size, blocks: other_blocks, .. }) => {
                size == other_size && blocks == other_blocks
            }
            (Self::Folder, Self::Folder) => true,
            (Self::Symlink { target, .. }, Self::Symlink { target: other, .. }) => target == other,
            _ => false,
        }
    }

    /// The blocks of a file; none for the rest.
    pub fn blocks(&self) -> &[BlockRef] {
        match self {
            Self::File { blocks, .. } => blocks,
            _ => &[],
        }
    }
}
