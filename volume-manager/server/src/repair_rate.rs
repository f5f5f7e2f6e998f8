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
    /// The copies made of late.
    recent: VecDeque<Made>,
}

/// A copy that was made.
#[derive(Debug)]
struct Made {
    begun: Instant,
    ended: Instant,
    bytes: u64,
}

/// What counts as of late.
const RECENT: Duration = Duration::from_secs(60);

/// Most copies that are remembered.
const MOST_RECENT: usize = 10_000;

/// A copy under way; its time counts until it is dropped.
pub(crate) struct Copying<'a> {
    rate: &'a RepairRate,
    begun: Instant,
}

impl RepairRate {
    /// A copy begins.
    pub fn begin(&self) -> Copying<'_> {
        let mut measured = self.measured();
        measured.under_way += 1;
        measured.since.get_or_insert_with(Instant::now);
        Copying { rate: self, begun: Instant::now() }
    }

    /// Whether a copy is under way.
    pub fn is_under_way(&self) -> bool {
        self.measured().under_way > 0
    }

    /// Bytes a second of the whole cell; `None` before any copy was made.
    pub fn bytes_s(&self) -> Option<f64> {
        let measured = self.measured();
        let busy = measured.busy + measured.since.map_or(Duration::ZERO, |since| since.elapsed());
        (measured.bytes > 0).then(|| measured.bytes as f64 / busy.as_secs_f64().max(1e-3))
    }

    /// Bytes a second of late, since the first of the copies that ended in the last minute was begun; `None` without any.
    pub fn recent_bytes_s(&self) -> Option<f64> {
        let mut measured = self.measured();
        while measured.recent.front().is_some_and(|made| made.ended.elapsed() > RECENT) {
            measured.recent.pop_front();
        }
        let bytes: u64 = measured.recent.iter().map(|made| made.bytes).sum();
        let begun = measured.recent.iter().map(|made| made.begun).min()?;
        (bytes > 0).then(|| bytes as f64 / begun.elapsed().as_secs_f64().max(1e-3))
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copying<'_> {
    /// It was made.
    pub fn made(&self, bytes: u64) {
        let mut measured = self.rate.measured();
        measured.bytes += bytes;
        if measured.recent.len() >= MOST_RECENT {
            measured.recent.pop_front();
        }
        measured.recent.push_back(Made { begun: self.begun, ended: Instant::now(), bytes });
    }
}

impl Drop for Copying<'_> {
    fn drop(&mut self) {
        let mut measured = self.rate.measured();
        measured.under_way -= 1;
        if measured.under_way == 0 {
            let since = measured.since.take();
            measured.busy += since.map_or(Duration::ZERO, |since| since.elapsed());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::{RECENT, RepairRate};

    #[tokio::test(start_paused = true)]
    async fn the_rate_of_late_counts_the_pauses_between_copies_and_ends_with_them() {
        let rate = RepairRate::default();
        assert_eq!(rate.recent_bytes_s(), None);
        for _ in 0..10 {
            let copying = rate.begin();
            assert!(rate.is_under_way());
            sleep(Duration::from_millis(900)).await;
            copying.made(1_000_000);
            drop(copying);
            sleep(Duration::from_millis(100)).await;
        }
        let of_late = rate.recent_bytes_s().unwrap();
        assert!((of_late - 1e6).abs() < 1e3, "{of_late}");
        assert!(rate.bytes_s().unwrap() > of_late, "of the time with copies under way only");
        assert!(!rate.is_under_way());
        sleep(RECENT).await;
        assert_eq!(rate.recent_bytes_s(), None);
    }
}
