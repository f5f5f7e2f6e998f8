//! How fast copies are made: bytes over the time in which at least one was under way.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Measured since the start.
#[derive(Debug, Default)]
pub(crate) struct RepairRate(Mutex<Measured>);

#[derive(Debug, Default)]
struct Measured {
    under_way: usize,
    /// Since when there was always one under way.
    since: Option<Instant>,
    /// Before that.
    busy: Duration,
    bytes: u64,
    /// The copies made of late: when, and how many bytes.
    recent: VecDeque<(Instant, u64)>,
}

/// What counts as of late.
const RECENT: Duration = Duration::from_secs(60);

/// Most copies that are remembered.
const MOST_RECENT: usize = 10_000;

/// A copy under way; its time counts until it is dropped.
pub(crate) struct Copying<'a>(&'a RepairRate);

impl RepairRate {
    /// A copy begins.
    pub fn begin(&self) -> Copying<'_> {
        let mut measured = self.measured();
        measured.under_way += 1;
        measured.since.get_or_insert_with(Instant::now);
        Copying(self)
    }

    /// Bytes a second of the whole cell; `None` before any copy was made.
    pub fn bytes_s(&self) -> Option<f64> {
        let measured = self.measured();
        let busy = measured.busy + measured.since.map_or(Duration::ZERO, |since| since.elapsed());
        (measured.bytes > 0).then(|| measured.bytes as f64 / busy.as_secs_f64().max(1e-3))
    }

    /// Bytes a second of late; `None` when nothing was copied in the last minute.
    pub fn recent_bytes_s(&self) -> Option<f64> {
        let mut measured = self.measured();
        while measured.recent.front().is_some_and(|(at, _)| at.elapsed() > RECENT) {
            measured.recent.pop_front();
        }
        let bytes: u64 = measured.recent.iter().map(|(_, bytes)| bytes).sum();
        let since = measured.since.map_or(RECENT, |since| since.elapsed().min(RECENT));
        (bytes > 0).then(|| bytes as f64 / since.as_secs_f64().max(1.0))
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copying<'_> {
    /// It was made.
    pub fn made(&self, bytes: u64) {
        let mut measured = self.0.measured();
        measured.bytes += bytes;
        if measured.recent.len() >= MOST_RECENT {
            measured.recent.pop_front();
        }
        measured.recent.push_back((Instant::now(), bytes));
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let mut measured = self.0.measured();
        measured.under_way -= 1;
        if measured.under_way == 0 {
            let since = measured.since.take();
            measured.busy += since.map_or(Duration::ZERO, |since| since.elapsed());
        }
    }
}
