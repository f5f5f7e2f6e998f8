//! What can go wrong, in the words a caller acts on.

use holdfast_libs_types::batch::BatchError;
use holdfast_libs_types::{CellId, DiskId, VolumeId, WriteEpoch};

/// Why an operation on a disk was not done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk's queue or its buffers are full. Retry later; nothing was done.
    #[error("disk {disk} is busy: {detail}")]
    Busy {
        /// The disk.
        disk: DiskId,
        /// Which bound was reached.
        detail: &'static str,
    },
    /// No free slot, or the file system under the disk file is full. Nothing was taken.
    #[error("no space on disk {disk}: {detail}")]
    NoSpace {
        /// The disk.
        disk: DiskId,
        /// What ran out.
        detail: String,
    },
    /// This disk holds no extent of the volume.
    #[error("disk {disk} holds no extent of volume {volume}")]
    UnknownVolume {
        /// The disk.
        disk: DiskId,
        /// The volume asked for.
        volume: VolumeId,
    },
    /// The disk already holds an extent of the volume (and it is not the very one that was asked for).
    #[error("volume {volume} already has an extent on this disk, in state {state}")]
    AlreadyExists {
        /// The volume.
        volume: VolumeId,
        /// State of the extent that stands there.
        state: ExtentState,
    },
    /// The writer's epoch is not the current one, or the extent was fenced or sealed. The writer must stop.
    #[error("volume {volume} is fenced at write epoch {current}")]
    Fenced {
        /// The volume.
        volume: VolumeId,
        /// The epoch that stands on disk.
        current: WriteEpoch,
    },
    /// An order from a leader whose term is over.
    #[error("term {given} is stale: this disk has seen term {current}")]
    StaleTerm {
        /// Term of the order.
        given: u64,
        /// Highest term seen.
        current: u64,
    },
    /// The append starts neither at the tail nor wholly below it.
    #[error("append is not at the tail of the volume, which is {tail}")]
    NotTail {
        /// The volume's tail on this disk, bytes.
        tail: u64,
    },
    /// The place was written before with other bytes. The writer broke its promise and must abandon the volume.
    #[error("other bytes stand already at offset {offset} of volume {volume}")]
    ConflictingRepeat {
        /// The volume.
        volume: VolumeId,
        /// Where the append started, bytes.
        offset: u64,
    },
    /// The extent takes no more appends on this disk: it was open across a restart, or a write to it failed. A copy
    /// takes parts again once it is begun anew.
    #[error("the extent of volume {volume} takes no more appends: {reason}")]
    NoAppends {
        /// The volume.
        volume: VolumeId,
        /// Why.
        reason: String,
    },
    /// The batch does not fit into what is left of the volume, by bytes or by records. Seal it.
    #[error("the volume is full: {detail}")]
    VolumeFull {
        /// Which limit, with the numbers.
        detail: String,
    },
    /// The bytes are no valid batch for this volume, epoch and offset.
    #[error("the batch is not valid: {detail}")]
    InvalidBatch {
        /// What is wrong with it.
        detail: String,
    },
    /// An argument is outside what the format allows (alignment, lengths).
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The disk takes no writes.
    #[error("disk {disk} is read-only: {reason}")]
    ReadOnly {
        /// The disk.
        disk: DiskId,
        /// Why.
        reason: String,
    },
    /// The disk is out of use.
    #[error("disk {disk} has failed: {reason}")]
    Failed {
        /// The disk.
        disk: DiskId,
        /// Why.
        reason: String,
    },
    /// The bytes on disk are not what was written, or cannot be read. Never served; read another replica.
    #[error("damaged: disk {disk} slot {slot} volume {volume} offset {offset}: {detail}")]
    Damaged {
        /// The disk.
        disk: DiskId,
        /// The slot on it.
        slot: u32,
        /// The volume.
        volume: VolumeId,
        /// Where in the volume, bytes.
        offset: u64,
        /// What was found.
        detail: String,
    },
    /// A read beyond the volume's end on this disk.
    #[error("{offset}+{len} is outside of the volume, whose end here is {end}")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Bytes asked for.
        len: u64,
        /// The volume's end on this disk, bytes.
        end: u64,
    },
    /// This replica does not reach the length it should be sealed at.
    #[error("this replica is too short: its tail is {tail}, asked for {length}")]
    TooShort {
        /// The local tail, bytes.
        tail: u64,
        /// The length asked for, bytes.
        length: u64,
    },
    /// The length does not end where a batch ends, so it was never a volume's tail.
    #[error("{length} is no end of a batch (a batch spans {start}..{end})")]
    NotABoundary {
        /// The length asked for, bytes.
        length: u64,
        /// Start of the batch that spans it.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// The volume is sealed already, at another length.
    #[error("volume {volume} is sealed at {length}")]
    SealedOtherwise {
        /// The volume.
        volume: VolumeId,
        /// The length it was sealed at, bytes.
        length: u64,
    },
    /// The operation does not apply to an extent in this state.
    #[error("the extent of volume {volume} is {state}")]
    WrongState {
        /// The volume.
        volume: VolumeId,
        /// Its state.
        state: ExtentState,
    },
    /// A copy that was read back differs from the digest it should have.
    #[error("the copy of volume {volume} does not have the digest it should: read back {found}, expected {expected}")]
    CopyMismatch {
        /// The volume.
        volume: VolumeId,
        /// SHA-256 of what stands on disk, hex.
        found: String,
        /// SHA-256 it should have, hex.
        expected: String,
    },
    /// A write failed and was classified as this extent's or this operation's trouble.
    #[error("I/O error on disk {disk} while {what}: {source}")]
    Io {
        /// The disk.
        disk: DiskId,
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The disk did not answer in time, or hangs. Nothing is served; of a write nobody knows whether it was done, and
    /// it may still be. Another disk can be asked at once, this one when it answers again.
    #[error("disk {disk} does not answer: {detail}")]
    Stalled {
        /// The disk.
        disk: DiskId,
        /// For how long, and what to do.
        detail: String,
    },
    /// An order to remove an extent does not name the one that stands there. Nothing was done.
    #[error("the order was refused by disk {disk}: {detail}")]
    WrongOrder {
        /// The disk.
        disk: DiskId,
        /// What differs.
        detail: String,
    },
    /// The erase watcher refused to free a slot: nobody had ordered that. A fault of this program or of memory.
    #[error("disk {disk} refused to erase slot {slot}: {detail}")]
    EraseRefused {
        /// The disk.
        disk: DiskId,
        /// The slot that stays as it is.
        slot: u32,
        /// What spoke against it.
        detail: String,
    },
    /// The extent is in the trash: it serves no records. It can be restored until it is erased.
    #[error("the extent of volume {volume} on disk {disk} is in the trash, in slot {slot}")]
    Trashed {
        /// The disk.
        disk: DiskId,
        /// The volume.
        volume: VolumeId,
        /// The slot that holds it.
        slot: u32,
    },
    /// The disk's thread has stopped.
    #[error("disk {disk} is stopped")]
    Stopped {
        /// The disk.
        disk: DiskId,
    },
}

impl EngineError {
    /// The same error, for one more caller whom it concerns.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::ReadOnly { disk, reason } => Self::ReadOnly { disk: *disk, reason: reason.clone() },
            Self::Failed { disk, reason } => Self::Failed { disk: *disk, reason: reason.clone() },
            Self::Io { disk, what, source } => {
                let source = match source.raw_os_error() {
                    Some(code) => std::io::Error::from_raw_os_error(code),
                    None => std::io::Error::new(source.kind(), source.to_string()),
                };
                Self::Io { disk: *disk, what, source }
            }
            other => Self::InvalidArgument(other.to_string()),
        }
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }
}

impl From<BatchError> for EngineError {
    fn from(error: BatchError) -> Self {
        Self::InvalidBatch { detail: error.to_string() }
    }
}

/// State of an extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentState {
    /// A copy from another replica is being written; it serves no reads.
    Copying,
    /// Takes appends from the writer of its epoch (unless `takes_appends` says otherwise).
    Open,
    /// Takes no appends; waits to be sealed.
    Fenced,
    /// Ended for good.
    Sealed,
    /// A batch below acknowledged ones does not validate.
    Damaged,
    /// Removed by an order; kept for a while, to be looked at or restored.
    Trashed,
}

impl std::fmt::Display for ExtentState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Copying => "copying",
            Self::Open => "open",
            Self::Fenced => "fenced",
            Self::Sealed => "sealed",
            Self::Damaged => "damaged",
            Self::Trashed => "trashed",
        })
    }
}

/// Why a disk could not be formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// A disk of Holdfast stands there already.
    #[error(
        "{path} already is a Holdfast disk: disk {disk} of cell {cell}; `holdfast admin disk format` tells how to erase it"
    )]
    AlreadyFormatted {
        /// The file or device.
        path: String,
        /// The disk found there.
        disk: DiskId,
        /// The cell it belongs to.
        cell: CellId,
    },
    /// Something else stands there: a file system, somebody's data.
    #[error("{path} is not blank: something stands at byte {at}; `holdfast admin disk format` tells how to erase it")]
    NotBlank {
        /// The file or device.
        path: String,
        /// The first byte that is not zero.
        at: u64,
    },
    /// Not even one slot fits.
    #[error("{path} is too small: {have} bytes, need at least {need} bytes for one slot of {slot_bytes} bytes")]
    TooSmall {
        /// The file or device.
        path: String,
        /// Its size, bytes.
        have: u64,
        /// The least size, bytes.
        need: u64,
        /// The slot size asked for, bytes.
        slot_bytes: u64,
    },
    /// A slot size the format does not allow.
    #[error("slot size {slot_bytes} is not allowed: it must be a multiple of 65536, from {min} to {max} bytes")]
    SlotSize {
        /// The slot size asked for, bytes.
        slot_bytes: u64,
        /// The least allowed, bytes.
        min: u64,
        /// The most allowed, bytes.
        max: u64,
    },
    /// More slots than a disk can number.
    #[error("{path} would hold {slots} slots, more than {max}; choose larger slots")]
    TooManySlots {
        /// The file or device.
        path: String,
        /// Slots it would hold.
        slots: u64,
        /// The most it may hold.
        max: u64,
    },
    /// A zoned disk has too few conventional zones, as disks with sequential zones only have none.
    #[error(
        "{path} is a zoned disk with {have} bytes in conventional zones at its front; what is written in place needs {need}; disks with sequential zones only (as many ZNS drives are) cannot be used yet"
    )]
    NoConventional {
        /// The device.
        path: String,
        /// Bytes in conventional zones.
        have: u64,
        /// Bytes needed.
        need: u64,
    },
    /// In use by another process.
    #[error("{path} is in use: open in another process, or mounted")]
    InUse {
        /// The file or device.
        path: String,
    },
    /// The system refused.
    #[error("cannot format {path} while {what}: {source}")]
    Io {
        /// The file or device.
        path: String,
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl FormatError {
    pub(crate) fn io(path: &std::path::Path, what: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.display().to_string(), what, source }
    }
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk belongs to another cell.
    #[error("{path} (disk {disk}) belongs to cell {found}, not to cell {expected}")]
    WrongCell {
        /// The file or device.
        path: String,
        /// The disk's id.
        disk: DiskId,
        /// The cell named on the disk.
        found: CellId,
        /// The cell this node belongs to.
        expected: CellId,
    },
    /// The file is shorter than the disk that was formatted on it, or shorter than any disk.
    #[error("{path} is too small: {have} bytes, need {need} bytes; was it truncated?")]
    TooSmall {
        /// The file or device.
        path: String,
        /// Its size, bytes.
        have: u64,
        /// The size it must have, bytes.
        need: u64,
    },
    /// Neither superblock is one.
    #[error("{path} is not a Holdfast disk: no valid superblock (A: {a}; B: {b}); format it first")]
    NoSuperblock {
        /// The file or device.
        path: String,
        /// What stands at superblock A.
        a: String,
        /// What stands at superblock B.
        b: String,
    },
    /// Written by a newer Holdfast.
    #[error("{path} has format version {found}; this program knows {known}; update it")]
    UnknownVersion {
        /// The file or device.
        path: String,
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// Written before the format was frozen.
    #[error(
        "{path} has format version {found}: it was made by a development version before the format was frozen (this \
         program knows version {known}); format it anew: remove the file or zero the device's first 2 MiB, then format"
    )]
    OldVersion {
        /// The file or device.
        path: String,
        /// Version found.
        found: u32,
        /// Version known.
        known: u32,
    },
    /// Open already, here or in another process.
    #[error("{path} is in use already: open here or in another process, or mounted")]
    AlreadyOpen {
        /// The file or device.
        path: String,
    },
    /// It does not answer. The attempt is left behind, and the disk not touched again before that has ended.
    #[error("{path} hangs: {detail}; look at its cable, its power and the kernel's log, or pull it")]
    Hangs {
        /// The file or device.
        path: String,
        /// What was waited for.
        detail: String,
    },
    /// io_uring was demanded and the system refused it.
    #[error("io_uring is not available for {path}: {source}; use io mode auto or threads")]
    NoUring {
        /// The file or device.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system refused.
    #[error("cannot open {path} while {what}: {source}")]
    Io {
        /// The file or device.
        path: String,
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}
