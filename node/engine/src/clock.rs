//! Time as the engine sees it: a reading that only rises, counted from any start. Wall clocks jump and are not used.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A monotonic clock.
pub trait Clock: Send + Sync {
    /// Time since the clock's start, which is the same for all its readings.
    fn now(&self) -> Duration;
}

/// The system's monotonic clock. It stands still while the machine is suspended.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock(Instant);

impl MonotonicClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that a test sets by hand.
#[derive(Debug, Default)]
pub struct SimulatedClock(AtomicU64);

impl SimulatedClock {
    /// A clock at zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Moves it forward to `at`; a time that is past already changes nothing.
    pub fn set(&self, at: Duration) {
        self.0.fetch_max(nanoseconds(at), Ordering::SeqCst);
    }

    /// Moves it forward by `step`.
    pub fn advance(&self, step: Duration) {
        self.0.fetch_add(nanoseconds(step), Ordering::SeqCst);
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

/// 584 years fit.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, SimulatedClock};

    #[test]
    fn a_simulated_clock_only_rises() {
        let clock = SimulatedClock::new();
        clock.set(Duration::from_secs(5));
        clock.set(Duration::from_secs(3));
        assert_eq!(clock.now(), Duration::from_secs(5));
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.now(), Duration::from_millis(5001));
    }
}
