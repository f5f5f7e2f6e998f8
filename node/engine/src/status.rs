//! Options a disk is opened with and the facts it tells about itself.

use std::path::PathBuf;

use holdfast_libs_types::{CellId, DiskId, VolumeId, WriteEpoch};

pub use crate::error::ExtentState;

/// How a disk is written for the first time.
#[derive(Debug, Clone)]
pub struct FormatOptions {
    /// The cell the disk belongs to.
    pub cell: CellId,
    /// Bytes of one slot: one size per cell. A multiple of 64 KiB.
    pub slot_bytes: u64,
    /// Creates (or grows) a sparse file of this many bytes; `None` takes the file or device as it is.
    pub size_bytes: Option<u64>,
}

/// Which way the kernel is asked for I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMode {
    /// io_uring, or threads where it is refused.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// pread and pwrite on threads.
    Threads,
}

/// How a disk is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The cell this node belongs to; a disk of another cell is refused.
    pub cell: CellId,
    /// Which way to do I/O.
    pub io: IoMode,
    /// Most I/Os given to the kernel at once.
    pub queue_depth: u32,
    /// Most operations admitted at once; more are answered `Busy`.
    pub max_operations: usize,
    /// Bytes of buffers registered with the ring (pinned memory). 0 registers none.
    pub registered_bytes: usize,
    /// Most bytes of buffers in use at once, registered or not; more are answered `Busy`.
    pub max_buffer_bytes: usize,
}

impl OpenOptions {
    /// Defaults for a disk of `cell`.
    pub fn new(cell: CellId) -> Self {
        Self {
            cell,
            io: IoMode::Auto,
            queue_depth: 64,
            max_operations: 256,
            registered_bytes: 16 << 20,
            max_buffer_bytes: 256 << 20,
        }
    }
}

/// Whether a disk may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    /// Takes reads and writes.
    Healthy,
    /// Takes reads only.
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// Takes nothing.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The I/O path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoPath {
    /// io_uring with registered buffers.
    UringRegistered,
    /// io_uring with plain buffers.
    UringPlain,
    /// pread and pwrite threads.
    Threads,
    /// The simulated disk of the tests.
    Simulated,
}

impl std::fmt::Display for IoPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::UringRegistered => "io_uring, registered buffers",
            Self::UringPlain => "io_uring, plain buffers",
            Self::Threads => "pread/pwrite threads",
            Self::Simulated => "simulated",
        })
    }
}

/// Counters since the disk was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskCounters {
    /// Read I/Os done.
    pub reads: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Write I/Os done, each durable.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads the system failed.
    pub read_errors: u64,
    /// Writes the system failed.
    pub write_errors: u64,
    /// Operations answered `Busy`.
    pub busy: u64,
    /// Records or batches found damaged.
    pub damaged: u64,
    /// Appends acknowledged.
    pub appends: u64,
}

/// What a disk tells about itself.
#[derive(Debug, Clone)]
pub struct DiskStatus {
    /// The disk's id.
    pub id: DiskId,
    /// The cell it belongs to.
    pub cell: CellId,
    /// Its file or device.
    pub path: PathBuf,
    /// Whether it may be used.
    pub state: DiskState,
    /// Bytes of one slot.
    pub slot_bytes: u64,
    /// Slots on it.
    pub slots: u32,
    /// Slots that hold no extent.
    pub free_slots: u32,
    /// Slots kept out of use because both of their header pages are damaged.
    pub lost_slots: u32,
    /// Bytes of data one extent can hold.
    pub volume_capacity_bytes: u64,
    /// Registrations so far that the catalog confirmed.
    pub incarnation: u64,
    /// The I/O path in use.
    pub io: IoPath,
    /// Whether the file is open with O_DIRECT.
    pub o_direct: bool,
    /// Operations admitted and not yet answered.
    pub in_flight: usize,
    /// Counters since it was opened.
    pub counters: DiskCounters,
}

/// One extent on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentInfo {
    /// The volume it is a piece of.
    pub volume: VolumeId,
    /// The slot it stands in.
    pub slot: u32,
    /// How often the slot has been used; an order that names an older one is refused.
    pub slot_generation: u32,
    /// Its state.
    pub state: ExtentState,
    /// The current write epoch (raised by fences).
    pub epoch: WriteEpoch,
    /// Highest leader term seen for it.
    pub term: u64,
    /// Sealed or copying: the length. Open or fenced: the tail, as far as every batch validates. Bytes.
    pub length: u64,
    /// SHA-256 of `[0, length)`, once sealed (or expected, while copying).
    pub digest: Option<[u8; 32]>,
    /// Whether appends of the current epoch are taken.
    pub takes_appends: bool,
    /// Records in it: of a sealed one with a footer, its rows; of an open or fenced one, those below the tail.
    pub records: Option<u32>,
    /// Disk uptime at which it went to trash, seconds.
    pub trashed_at_s: Option<u64>,
    /// The order by which it went to trash.
    pub order: Option<[u8; 16]>,
    /// What the last scan found behind the tail: "torn or damaged" bytes, or damage. Operators want to know.
    pub note: Option<String>,
}

/// How a disk proves which life of itself it is. See `propose_incarnation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incarnation {
    /// The number proposed (or confirmed).
    pub incarnation: u64,
    /// Random; belongs to this incarnation only.
    pub nonce: [u8; 16],
    /// The nonce of the incarnation before; zero for the first.
    pub previous_nonce: [u8; 16],
    /// Whether the catalog has confirmed it.
    pub confirmed: bool,
}
