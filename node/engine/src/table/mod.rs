//! The extent table: the state of every slot, as a mount reads it. Pure encodings, and the pure replay that says what
//! the table is from what stands on the disk; the writing is in `engine/table.rs`.
//!
//! Two copies hold checkpoints, two halves of a log hold what changed since:
//!
//! - The table is a write-ahead log of slot states. A change is durable in the log before the slot's header is
//!   written, so the table is never behind a header: it is the truth at a mount, and headers are what it is rebuilt
//!   from.
//! - A log block is written once a generation, and only when the one before it is durable. Sequences go on over
//!   checkpoints. So a block that is missing or bad below a valid newer one is damage; and a bad one at the very end
//!   may be a torn write or an acknowledged one that rotted: it is not believed to be either.
//! - The checkpoint of generation g goes to copy g % 2 and its log to half g % 2, and it is durable (pages first,
//!   header last) before its first log block is written. So what is written over belongs to g - 2, and checkpoint
//!   g - 1 with both logs is still the full state when checkpoint g goes bad.
//!
//! Whatever cannot be explained by these rules is answered by "rebuild", never by a guess.

pub(crate) mod checkpoint;
pub(crate) mod entry;
pub(crate) mod log;
pub(crate) mod replay;

#[cfg(test)]
mod model_test;

use crate::page::{MOST_COUNT, PageFault, PageReader, PageWriter};

/// What a disk knows about itself beside its slots; carried by checkpoints and log blocks.
///
/// ```text
/// offset  size  field
///      0     8  disk uptime: seconds this disk was mounted in all its life
///      8     8  highest leader term seen
///     16     4  scrub: the slot to go on with
///     20     4  zero
///     24     8  scrub: number of the round under way
///     32     8  scrub: disk uptime at which the round began, seconds
///     40     8  scrub: disk uptime at which the last whole round ended, seconds; 0: none ever did
///     48     8  scrub: findings in all rounds
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Facts {
    pub(crate) uptime_s: u64,
    pub(crate) term: u64,
    pub(crate) scrub: ScrubCursor,
}

/// Where a scrub goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ScrubCursor {
    pub(crate) slot: u32,
    pub(crate) round: u64,
    pub(crate) round_began_s: u64,
    pub(crate) last_round_ended_s: u64,
    pub(crate) found_total: u64,
}

impl ScrubCursor {
    /// The cursor, when it can be one of a disk of so many slots.
    pub(crate) fn within(self, slots: u32) -> Option<Self> {
        let counts = [self.round, self.round_began_s, self.last_round_ended_s, self.found_total];
        (self.slot < slots && counts.iter().all(|count| *count <= MOST_COUNT)).then_some(self)
    }
}

impl Facts {
    fn put(&self, page: &mut PageWriter, at: usize) {
        page.put_u64(at, self.uptime_s);
        page.put_u64(at + 8, self.term);
        page.put_u32(at + 16, self.scrub.slot);
        page.put_u64(at + 24, self.scrub.round);
        page.put_u64(at + 32, self.scrub.round_began_s);
        page.put_u64(at + 40, self.scrub.last_round_ended_s);
        page.put_u64(at + 48, self.scrub.found_total);
    }

    fn get(page: &PageReader<'_>, at: usize) -> Self {
        Self {
            uptime_s: page.u64(at),
            term: page.u64(at + 8),
            scrub: ScrubCursor {
                slot: page.u32(at + 16),
                round: page.u64(at + 24),
                round_began_s: page.u64(at + 32),
                last_round_ended_s: page.u64(at + 40),
                found_total: page.u64(at + 48),
            },
        }
    }
}

/// Why bytes are no page of this disk's table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableFault {
    #[error("blank")]
    Blank,
    #[error("damaged or torn")]
    Damaged,
    #[error("of another disk or place")]
    Elsewhere,
    #[error("of version {0}, which this program does not know")]
    Version(u8),
    #[error("{0}")]
    Impossible(String),
    #[error("cannot be read: {0}")]
    Unreadable(String),
}

impl From<PageFault> for TableFault {
    fn from(fault: PageFault) -> Self {
        if fault == PageFault::Blank { Self::Blank } else { Self::Damaged }
    }
}
