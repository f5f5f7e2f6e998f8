//! Which disk is suspect: one that has become far slower than its own history. Drives often slow down for weeks before
//! they fail, and no limit fits them all, so each is compared with itself.
//!
//! The rule, for reads and for writes alike:
//! - I/Os are looked at in windows, that end after 128 I/Os and 30 seconds, whichever comes last.
//! - A window is bad when its 99th percentile is 8 times that of the history or more, and at least 50 ms. It is good
//!   when its 99th percentile is below 4 times that of the history, or below 50 ms.
//! - Two bad windows in a row make the disk suspect; two good ones in a row clear it. What is between ends no row.
//! - The history is all windows that were not bad, 1,024 I/Os at least before it judges; what is old in it fades, by
//!   half whenever 2^20 I/Os have been counted.
//!
//! Percentiles are bounds of power-of-two buckets, so that "8 times" is three buckets.

use std::time::Duration;

use crate::latency::LatencyHistogram;

const WINDOW_IOS: u64 = 128;
const WINDOW_TIME: Duration = Duration::from_secs(30);
const LEAST_HISTORY: u64 = 1024;
const FADE_AT: u64 = 1 << 20;
const BAD_RATIO: u64 = 8;
const GOOD_RATIO: u64 = 4;
const FLOOR_US: u64 = 50_000;
const WINDOWS_IN_A_ROW: u32 = 2;
/// The 99th percentile, in thousandths.
const PERCENTILE: u64 = 990;

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SuspicionChange {
    /// Suspect from now on, and why.
    Raised(String),
    Cleared,
}

/// The recent latencies of one kind of I/O, against the history.
#[derive(Debug)]
pub(crate) struct Suspicion {
    /// "reads" or "writes", for the reason.
    what: &'static str,
    history: LatencyHistogram,
    window: LatencyHistogram,
    window_began: Option<Duration>,
    bad: u32,
    good: u32,
    suspect: bool,
}

impl Suspicion {
    pub(crate) fn new(what: &'static str) -> Self {
        let (history, window) = (LatencyHistogram::default(), LatencyHistogram::default());
        Self { what, history, window, window_began: None, bad: 0, good: 0, suspect: false }
    }

    /// Told of every I/O when it completes.
    pub(crate) fn record(&mut self, now: Duration, latency: Duration) -> Option<SuspicionChange> {
        let began = *self.window_began.get_or_insert(now.saturating_sub(latency));
        self.window.count_in(latency);
        let age = now.saturating_sub(began);
        if age < WINDOW_TIME || self.window.count() < WINDOW_IOS {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        self.window_began = Some(now);
        self.judge(&window, age)
    }

    fn judge(&mut self, window: &LatencyHistogram, age: Duration) -> Option<SuspicionChange> {
        let recent = window.percentile_us(PERCENTILE)?;
        let usual = self.history.percentile_us(PERCENTILE).filter(|_| self.history.count() >= LEAST_HISTORY);
        let bad = usual.is_some_and(|usual| recent >= FLOOR_US && recent >= usual * BAD_RATIO);
        let good = usual.is_none_or(|usual| recent < FLOOR_US || recent < usual * GOOD_RATIO);
        if !bad {
            self.remember(window);
        }
        self.bad = if bad { self.bad + 1 } else { 0 };
        self.good = if good { self.good + 1 } else { 0 };
        if !self.suspect && self.bad >= WINDOWS_IN_A_ROW {
            self.suspect = true;
            return Some(SuspicionChange::Raised(format!(
                "1 % of its {} took {} ms or longer, in the last {} of them ({} s); over its history it is {} ms. Look at \
                 its SMART values and drain it if it stays so",
                self.what,
                recent / 2 / 1000,
                window.count(),
                age.as_secs(),
                milliseconds(usual.unwrap_or(0) / 2),
            )));
        }
        if self.suspect && self.good >= WINDOWS_IN_A_ROW {
            self.suspect = false;
            return Some(SuspicionChange::Cleared);
        }
        None
    }

    fn remember(&mut self, window: &LatencyHistogram) {
        self.history.add(window);
        if self.history.count() >= FADE_AT {
            self.history.halve();
        }
    }
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Suspicion, SuspicionChange};

    /// A disk that is read once every 100 ms, for some time, with a latency.
    struct Disk {
        suspicion: Suspicion,
        now: Duration,
    }

    impl Disk {
        fn new() -> Self {
            Self { suspicion: Suspicion::new("reads"), now: Duration::ZERO }
        }

        fn read(&mut self, seconds: u64, latency_of: impl Fn(u64) -> u64) -> Vec<SuspicionChange> {
            let reads = (0..seconds * 10).filter_map(|n| {
                self.now += Duration::from_millis(100);
                self.suspicion.record(self.now, Duration::from_micros(latency_of(n)))
            });
            reads.collect()
        }
    }

    #[test]
    fn a_disk_that_gets_far_slower_than_it_was_is_suspect_until_it_is_itself_again() {
        let mut disk = Disk::new();
        assert_eq!(disk.read(600, |n| 8_000 + n % 9_000), []);
        let raised = disk.read(120, |n| if n % 20 == 0 { 400_000 } else { 9_000 });
        let [SuspicionChange::Raised(reason)] = &raised[..] else { panic!("{raised:?}") };
        assert!(reason.contains("262 ms") && reason.contains("8.192 ms") && reason.contains("reads"), "{reason}");
        assert_eq!(disk.read(600, |_| 400_000), [], "it is said once, and its history does not get used to it");
        assert_eq!(disk.read(70, |_| 9_000), [SuspicionChange::Cleared]);
        assert_eq!(disk.read(600, |_| 9_000), []);
    }

    #[test]
    fn one_slow_window_a_slow_history_and_a_fast_disk_are_no_reason() {
        let mut disk = Disk::new();
        disk.read(600, |_| 10_000);
        assert_eq!(disk.read(30, |_| 900_000), [], "a single window");
        assert_eq!(disk.read(600, |_| 10_000), []);
        let mut slow = Disk::new();
        assert_eq!(slow.read(3600, |_| 900_000), [], "it was always so");
        let mut fast = Disk::new();
        fast.read(600, |_| 100);
        assert_eq!(fast.read(600, |_| 30_000), [], "300 times slower and still below the floor");
        let mut young = Disk::new();
        young.read(60, |_| 1_000);
        assert_eq!(young.read(600, |_| 300_000), [], "it has no history yet");
    }

    #[test]
    fn what_hovers_between_bad_and_good_neither_raises_nor_clears() {
        let mut disk = Disk::new();
        disk.read(600, |_| 15_000);
        assert_eq!(disk.read(600, |_| 60_000), [], "between 4 and 8 times");
        assert_eq!(disk.read(90, |_| 300_000).len(), 1);
    }
}
