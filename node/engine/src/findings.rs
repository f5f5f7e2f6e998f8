//! What a scrub reports.

use holdfast_libs_types::VolumeId;

/// Which kind of bytes a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A copy of the superblock.
    Superblock,
    /// A copy of the key area.
    KeyArea,
    /// A checkpoint of the extent table, or its log.
    ExtentTable,
    /// A header page of a slot.
    SlotHeader,
    /// Data of an extent.
    Data,
    /// The footer of a sealed extent.
    Footer,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::KeyArea => "key area",
            Self::ExtentTable => "extent table",
            Self::SlotHeader => "slot header",
            Self::Data => "data",
            Self::Footer => "footer",
        })
    }
}

/// Damage that a scrub found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is damaged.
    pub place: Place,
    /// The slot; none for areas that belong to the disk as a whole.
    pub slot: Option<u32>,
    /// The volume whose extent stands there, if one does.
    pub volume: Option<VolumeId>,
    /// Data and footers: bytes from the start of the volume. Headers: bytes from the start of the slot. Otherwise bytes
    /// from the start of the disk.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Whether it was written again from a good copy.
    pub repaired: bool,
}

impl Finding {
    /// In an area that belongs to the disk as a whole; `offset` on the disk.
    pub(crate) fn area(place: Place, offset: u64, what: String) -> Self {
        Self { place, slot: None, volume: None, offset, what, repaired: false }
    }

    /// In an extent; `offset` in the volume.
    pub(crate) fn in_extent(place: Place, slot: u32, volume: VolumeId, offset: u64, what: String) -> Self {
        Self { place, slot: Some(slot), volume: Some(volume), offset, what, repaired: false }
    }
}

/// What one step of a scrub did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubStep {
    /// Bytes read.
    pub read_bytes: u64,
    /// Whether the step ended a round: everything live was read once.
    pub finished_round: bool,
    /// What was found, in the order of the disk.
    pub found: Vec<Finding>,
}
