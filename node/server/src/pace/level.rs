//! The control law: what a slow and a fast operation of the foreground do to the level. No clock, no I/O.

use std::time::Duration;

/// Most background I/Os under way at once.
pub(super) const MOST: f64 = 4.0;

/// Before anything is known.
const START: f64 = 0.3;

/// Least share of the disk's time for background work, for urgent work, and with an impact of 0.
const FLOOR: f64 = 0.02;
const URGENT_FLOOR: f64 = 0.5;
const IDLE_ONLY_FLOOR: f64 = 0.01;

/// What a slow operation leaves of the level, and what one that is not slow makes of it. They balance when one in 171 is slow:
/// ln(1.003) / (ln(1.003) - ln(0.6)).
const CUT: f64 = 0.6;
const GROWTH: f64 = 1.003;

/// Nobody feels a difference below this.
const UNFELT: Duration = Duration::from_millis(2);

/// How much longer the foreground's 99th percentile may take, as a share of what is usual.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Impact(pub f64);

impl Impact {
    pub(super) fn is_unlimited(self) -> bool {
        self.0.is_infinite()
    }

    /// From which latency on an operation is slow.
    pub(super) fn limit(self, usual: Duration) -> Duration {
        if self.is_unlimited() { Duration::MAX } else { usual + usual.mul_f64(self.0).max(UNFELT) }
    }
}

/// Background I/Os under way on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level(f64);

impl Default for Level {
    fn default() -> Self {
        Self(START)
    }
}

impl Level {
    /// A foreground operation ended that was slow, or was not, while there was background work.
    pub(super) fn learn(&mut self, slow: bool) {
        self.0 = (self.0 * if slow { CUT } else { GROWTH }).clamp(FLOOR, MOST);
    }

    /// The level that holds now.
    pub(super) fn of(self, impact: Impact, urgent: bool, idle: bool) -> f64 {
        let level = match impact {
            _ if idle || impact.is_unlimited() => return MOST,
            Impact(0.0) => IDLE_ONLY_FLOOR,
            _ => self.0,
        };
        if urgent { level.max(URGENT_FLOOR) } else { level }
    }
}
