//! Options a disk is opened with and the facts it tells about itself.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_libs_types::{CellId, DiskId, VolumeId, WriteEpoch};

pub use crate::error::ExtentState;
use crate::latency::LatencySnapshot;

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
    /// An operation that is not answered for this long is answered `Stalled` (and goes on inside). Those that move a
    /// whole extent have more time while the disk completes I/O at all.
    pub operation_deadline: Duration,
    /// A disk that has I/O in flight and completes none for this long hangs: until it completes something, every
    /// operation is refused at once with `Stalled`.
    pub stall_after: Duration,
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
            operation_deadline: Duration::from_secs(10),
            stall_after: Duration::from_secs(2),
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

/// I/O errors by what they say about the disk, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorCounts {
    /// The disk could not read or write the place (EIO and its like).
    pub medium: u64,
    /// The disk could not be reached.
    pub transport: u64,
    /// I/Os that were under way, unanswered, when the disk was found hanging, or that the system timed out.
    pub timeout: u64,
    /// Space ran out under a file.
    pub no_space: u64,
    /// Bytes came back that do not validate.
    pub checksum: u64,
    /// Anything else.
    pub other: u64,
}

/// I/O errors of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoErrors {
    /// Of reads.
    pub reads: ErrorCounts,
    /// Of writes and of everything else that changes the disk.
    pub writes: ErrorCounts,
}

/// How many slots are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotCounts {
    /// Hold no extent.
    pub free: u32,
    /// Hold a copy that is not finished.
    pub copying: u32,
    /// Hold an open extent.
    pub open: u32,
    /// Hold a fenced extent.
    pub fenced: u32,
    /// Hold a sealed extent.
    pub sealed: u32,
    /// Hold an extent in the trash.
    pub trashed: u32,
    /// Hold an extent that is damaged; counted here only.
    pub damaged: u32,
    /// Nobody knows what they hold; kept out of use.
    pub lost: u32,
}

/// What one slot is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Lost,
    Free,
    Holds(ExtentState),
}

impl Shown {
    /// Its place among the counts.
    pub(crate) fn place(self, counts: &mut SlotCounts) -> &mut u32 {
        match self {
            Self::Lost => &mut counts.lost,
            Self::Free => &mut counts.free,
            Self::Holds(ExtentState::Copying) => &mut counts.copying,
            Self::Holds(ExtentState::Open) => &mut counts.open,
            Self::Holds(ExtentState::Fenced) => &mut counts.fenced,
            Self::Holds(ExtentState::Sealed) => &mut counts.sealed,
            Self::Holds(ExtentState::Damaged) => &mut counts.damaged,
            Self::Holds(ExtentState::Trashed) => &mut counts.trashed,
        }
    }
}

/// How far the scrub of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubStatus {
    /// The round under way, from 1; 0 before the first.
    pub round: u64,
    /// The slot it is at.
    pub slot: u32,
    /// Slots in all.
    pub slots: u32,
    /// Disk uptime at which the last whole round ended, seconds; `None` before that.
    pub last_round_finished_uptime_s: Option<u64>,
    /// Findings since the disk was opened.
    pub found_total: u64,
}

/// Names one extent of a disk, of which it may have several of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The volume.
    pub volume: VolumeId,
    /// The slot it is in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
}

impl ExtentInfo {
    /// Its name.
    pub fn named(&self) -> Named {
        let &Self { volume, slot, slot_generation, .. } = self;
        Named { volume, slot, slot_generation }
    }
}

/// An order of the volume manager to put an extent into the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrashOrder {
    /// The volume whose extent goes.
    pub volume: VolumeId,
    /// The slot it stands in.
    pub slot: u32,
    /// How often that slot has been used.
    pub slot_generation: u32,
    /// The leader's term.
    pub term: u64,
    /// Random; names this removal. A repeat carries the same.
    pub order: [u8; 16],
}

/// An extent that was erased from the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erased {
    /// The volume it was a piece of.
    pub volume: VolumeId,
    /// The slot that is free again.
    pub slot: u32,
    /// How often that slot had been used.
    pub slot_generation: u32,
    /// The order that put it into the trash.
    pub order: [u8; 16],
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
    /// Slots kept out of use because both of their header pages are damaged, or their disk zones cannot be written.
    pub lost_slots: u32,
    /// Of a zoned disk: slots that hold a partly written disk zone.
    pub open_zones: u32,
    /// Most slots that may; 0: any number.
    pub open_zones_limit: u32,
    /// Bytes of data one extent can hold.
    pub volume_capacity_bytes: u64,
    /// Registrations so far that the catalog confirmed.
    pub incarnation: u64,
    /// Bytes that the mount read.
    pub mount_read_bytes: u64,
    /// The I/O path in use.
    pub io: IoPath,
    /// Whether the file is open with O_DIRECT.
    pub o_direct: bool,
    /// Operations admitted and not yet answered.
    pub in_flight: usize,
    /// Counters since it was opened.
    pub counters: DiskCounters,
    /// Why the disk is suspected to be failing: it is far slower than it was. It is used all the same.
    pub suspect: Option<String>,
    /// Why every operation is refused: the disk hangs.
    pub stalled: Option<String>,
    /// How long its I/O takes.
    pub latency: LatencySnapshot,
    /// I/O errors by kind.
    pub errors: IoErrors,
    /// I/Os the disk works on now.
    pub queue_depth: usize,
    /// Slots by what they hold.
    pub slots_by_state: SlotCounts,
    /// How far its scrub is.
    pub scrub: ScrubStatus,
    /// Attempts to free a slot that nobody had ordered: each is a fault of this program or of memory.
    pub erase_alarms: u64,
    /// The highest leader term that it was told, in this mount or an earlier one.
    pub term: u64,
    /// Seconds the disk was mounted in all its life.
    pub uptime_s: u64,
    /// Whether this mount rebuilt the extent table from the slot headers.
    pub rebuilt: bool,
    /// Bytes of buffers in use.
    pub buffer_bytes: usize,
}

impl DiskStatus {
    /// Whether no extent can be created: all slots are in use, or a zoned disk has as many zones open as it can.
    pub fn is_full(&self) -> bool {
        self.free_slots == 0 || self.open_zones_limit > 0 && self.open_zones >= self.open_zones_limit
    }
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
