//! The seam between the engine and whatever stores bytes: operations are submitted, completions are polled for.
//!
//! Three implementations: [`uring`] (the real one), [`threads`] (where io_uring is refused), and [`simulated`] (the
//! crash disk of `libs/sim`). The engine above is the same for all.
//!
//! What every implementation promises: a write that completed without an error and with its full length is durable
//! (O_DIRECT and RWF_DSYNC); a buffer belongs to the implementation from `submit` until its completion is handed
//! out; completions come in any order.

mod aside;
pub(crate) mod file;
pub mod simulated;
pub(crate) mod threads;
pub(crate) mod uring;
pub(crate) mod zones;

use std::io;
use std::time::Duration;

use crate::buffer::AlignedBuf;
use crate::mailbox::Wake;

/// What to do at an offset of the disk.
#[derive(Debug)]
pub(crate) enum Work {
    /// Fill `buffer` with `len` bytes, which its capacity covers.
    Read { buffer: AlignedBuf, len: usize },
    /// Write the filled part of `buffer`, durably.
    Write { buffer: AlignedBuf },
    /// Take space for `len` bytes, so that later writes to them cannot run out of it.
    Allocate { len: u64 },
    /// Give the space of `len` bytes back to the file system, or tell the device that nobody needs them. What stands
    /// there afterwards is anything. Done without an effect where neither is possible.
    Deallocate { len: u64 },
    /// Make durable what an earlier process may have left in the device's cache.
    Flush,
    /// Empty the whole zones in `len` bytes of a zoned disk.
    ResetZones { len: u64 },
    /// Make the whole zones in `len` bytes of a zoned disk full.
    FinishZones { len: u64 },
    /// Fill `buffer` with `len` bytes, which its capacity covers: a report of as many zones as go into that (see
    /// [`zones`]).
    ReportZones { buffer: AlignedBuf, len: usize },
    /// Check that the path still names the file that is open, at its full size.
    Identify,
}

/// The end of an operation: bytes transferred or the system's error, and the buffer back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) id: u64,
    pub(crate) result: io::Result<usize>,
    pub(crate) buffer: Option<AlignedBuf>,
}

/// How long to block for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// At most this long.
    For(Duration),
    /// Until there is one.
    Forever,
}

/// A disk as a queue of operations. Used by one thread.
pub(crate) trait RawDisk {
    /// Queues an operation; `id` comes back with its completion.
    fn submit(&mut self, id: u64, offset: u64, work: Work);

    /// Starts what is queued and collects completions into `done`. Blocks as `wait` says until there is one or until
    /// it is woken.
    ///
    /// # Errors
    /// When the queue itself is broken; the disk is unusable then.
    fn poll(&mut self, wait: Wait, done: &mut Vec<Done>) -> io::Result<()>;

    /// Operations submitted whose completion was not yet handed out.
    fn in_flight(&self) -> usize;

    /// Most operations it works on at once; more would only wait inside of it.
    fn depth(&self) -> usize;

    /// Something that ends a blocking `poll` from any thread.
    fn wake(&self) -> Wake;
}
