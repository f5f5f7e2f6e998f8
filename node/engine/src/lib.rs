//! The storage engine of a node: disks, slots and extents.
//!
//! A [`Disk`] is a handle to one OS thread that owns one disk (a block device or a file) and one io_uring. All
//! writes are O_DIRECT and RWF_DSYNC: durable before they are answered. There is no tokio here and no socket; the
//! async methods run on any executor.
//!
//! Invariants, each stated again where it is kept:
//! - An append that was acknowledged reads back, byte for byte, after any crash.
//! - Bytes that do not validate are never served as a record.
//! - A fence or a seal that was answered holds after any crash; a sealed extent never changes.
//! - After any restart no extent takes appends: the writer's lease died with the process.
//! - A tail is never silently shortened: what stands behind it is reported.
//!
//! `docs/on-disk-format.md` has every byte.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(unsafe_code)] // The kernel's interface; each block says why it is sound.

mod attempt;
mod buffer;
mod candidate;
mod clock;
mod deadline;
mod disk;
mod engine;
mod error;
mod findings;
mod footer;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod geometry;
mod io_error;
mod latency;
mod mailbox;
mod memory;
mod page;
mod planted;
mod raw;
mod reactor;
mod shared;
mod slot_header;
mod stall;
mod status;
mod superblock;
mod suspect;
mod table;
mod thread;

pub use buffer::{AlignedBuf, BufferFull, BufferPool};
pub use candidate::{Candidate, Consent, Formatted, FormattedZones, FoundDisk, Survey};
pub use clock::{Clock, MonotonicClock, SimulatedClock};
pub use disk::{Disk, format};
pub use error::{EngineError, ExtentState, FormatError, OpenError};
pub use findings::{Finding, Place, ScrubStep};
pub use footer::RecordRow;
pub use format::check_slot_bytes;
pub use holdfast_libs_signatures::Signature;
pub use latency::{LATENCY_BUCKETS, LatencyHistogram, LatencySnapshot};
#[cfg(feature = "planted-bugs")]
pub use planted::{PlantedBug, plant};
pub use raw::simulated;
pub use status::{
    DiskCounters, DiskState, DiskStatus, Erased, ErrorCounts, ExtentInfo, FormatOptions, Incarnation, IoErrors, IoMode,
    IoPath, Named, OpenOptions, ScrubStatus, SlotCounts, TrashOrder,
};
