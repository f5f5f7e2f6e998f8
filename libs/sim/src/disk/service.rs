//! How long an operation takes, in virtual time: the disk has a clock of its own that whoever drives it moves on.

use std::time::Duration;

/// An operation whose time is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When it was submitted.
    pub at: Duration,
    /// First byte; 0 for what has none.
    pub offset: u64,
    /// Bytes read or written; 0 for anything else.
    pub len: usize,
    /// Whether it is a read.
    pub is_read: bool,
    /// Operations in flight before it.
    pub queued: usize,
}

/// Tells how long an operation takes from its submission on. An hour for one request is a stall.
pub type ServiceTime = Box<dyn FnMut(Request) -> Duration>;

/// The disk's clock.
#[derive(Default)]
pub(super) struct Service {
    pub(super) now: Duration,
    pub(super) time_of: Option<ServiceTime>,
}

impl Service {
    /// When a request that is submitted now can complete.
    pub(super) fn due(&mut self, request: Request) -> Duration {
        match &mut self.time_of {
            Some(time_of) => self.now.saturating_add(time_of(Request { at: self.now, ..request })),
            None => self.now,
        }
    }
}
