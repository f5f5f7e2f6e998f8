//! Decides whether a disk hangs: it has I/O in flight and has completed none of it for too long.
//!
//! A slow disk is not a hanging one: every completion starts the wait anew.

use std::time::Duration;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StallChange {
    /// It hangs from now on.
    Began,
    /// It completed something after `silent` without any.
    Ended { silent: Duration },
}

/// The silence of one disk.
#[derive(Debug)]
pub(crate) struct StallWatch {
    stall_after: Duration,
    /// Since when I/O is in flight and nothing completed.
    silent_since: Option<Duration>,
    stalled: bool,
}

impl StallWatch {
    pub(crate) fn new(stall_after: Duration) -> Self {
        Self { stall_after, silent_since: None, stalled: false }
    }

    /// Told after I/O was handed to the disk.
    pub(crate) fn submitted(&mut self, now: Duration, in_flight: usize) {
        if in_flight > 0 && self.silent_since.is_none() {
            self.silent_since = Some(now);
        }
    }

    /// Told after completions were collected.
    pub(crate) fn collected(&mut self, now: Duration, completions: usize, in_flight: usize) -> Option<StallChange> {
        let silent_since = self.silent_since;
        if completions > 0 || in_flight == 0 {
            self.silent_since = (in_flight > 0).then_some(now);
        }
        if completions > 0 && self.stalled {
            self.stalled = false;
            return Some(StallChange::Ended { silent: now.saturating_sub(silent_since.unwrap_or(now)) });
        }
        let due = self.due()?;
        if now >= due {
            self.stalled = true;
            return Some(StallChange::Began);
        }
        None
    }

    /// When the disk counts as hanging if nothing completes until then; `None` when it already does, or is idle.
    pub(crate) fn due(&self) -> Option<Duration> {
        let since = self.silent_since.filter(|_| !self.stalled)?;
        Some(since.saturating_add(self.stall_after))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{StallChange, StallWatch};

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn silence_with_io_in_flight_is_a_stall_until_something_completes() {
        let mut watch = StallWatch::new(seconds(2));
        watch.submitted(seconds(10), 1);
        assert_eq!(watch.due(), Some(seconds(12)));
        assert_eq!(watch.collected(seconds(11), 0, 1), None);
        watch.submitted(seconds(11), 2);
        assert_eq!(watch.collected(seconds(12), 0, 2), Some(StallChange::Began));
        assert_eq!(watch.collected(seconds(20), 0, 2), None, "it is said once");
        assert_eq!(watch.collected(seconds(40), 1, 1), Some(StallChange::Ended { silent: seconds(30) }));
        assert_eq!(watch.due(), Some(seconds(42)), "what is still in flight is watched from here");
    }

    #[test]
    fn a_slow_disk_and_an_idle_one_do_not_hang() {
        let mut watch = StallWatch::new(seconds(2));
        watch.submitted(seconds(0), 5);
        for n in 1..5 {
            assert_eq!(watch.collected(seconds(n), 1, 5 - n as usize), None);
        }
        assert_eq!(watch.collected(seconds(5), 1, 0), None);
        assert_eq!(watch.due(), None);
        assert_eq!(watch.collected(seconds(500), 0, 0), None);
    }
}
