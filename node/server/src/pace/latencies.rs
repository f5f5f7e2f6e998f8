//! How long the foreground takes, by kind and size: what is usual without background work, and what it was lately.

use std::time::Duration;

use tokio::time::Instant;

/// Buckets for each doubling of a latency, so that a bound is at most a tenth too high.
const PER_DOUBLING: f64 = 8.0;

/// The last one counts everything from 67 s on.
const BUCKETS: usize = 26 * PER_DOUBLING as usize + 1;

/// What is usual is known from so many operations on.
const LEAST: u32 = 50;

/// What is old fades: all counts are halved at so many.
const FADE_AT: u32 = 4000;

/// Operations of the last one or two of these are recent.
const RECENT: Duration = Duration::from_secs(5);

/// A foreground operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Append,
    Read,
}

/// What is compared with its like only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(usize);

const CLASSES: usize = 6;

impl Class {
    /// Up to 64 KiB, up to 1 MiB, or more.
    pub(super) fn of(kind: Kind, bytes: usize) -> Self {
        let size = usize::from(bytes > 64 << 10) + usize::from(bytes > 1 << 20);
        Self(kind as usize * 3 + size)
    }
}

#[derive(Debug, Clone)]
struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u32,
}

impl Histogram {
    fn new() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), count: 0 }
    }

    fn note(&mut self, took: Duration) {
        let us = took.as_secs_f64() * 1e6;
        let bucket = (us.max(1.0).log2() * PER_DOUBLING).ceil() as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.count += 1;
    }

    fn fade(&mut self) {
        self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
        self.count = self.buckets.iter().sum();
    }

    fn p99<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Option<Duration> {
        let count: u64 = all.clone().map(|histogram| u64::from(histogram.count)).sum();
        let wanted = (count * 99).div_ceil(100).max(1);
        let mut seen = 0;
        for bucket in 0..BUCKETS {
            seen += all.clone().map(|histogram| u64::from(histogram.buckets[bucket])).sum::<u64>();
            if seen >= wanted {
                return Some(Duration::from_secs_f64((bucket as f64 / PER_DOUBLING).exp2() / 1e6));
            }
        }
        None
    }
}

/// Of one disk.
#[derive(Debug)]
pub(super) struct Latencies {
    usual: [Histogram; CLASSES],
    recent: [Histogram; 2],
    recent_began: Instant,
}

impl Latencies {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            usual: std::array::from_fn(|_| Histogram::new()),
            recent: std::array::from_fn(|_| Histogram::new()),
            recent_began: now,
        }
    }

    /// `clean`: without any background work.
    pub(super) fn note(&mut self, class: Class, took: Duration, clean: bool, now: Instant) {
        self.turn(now);
        self.recent[0].note(took);
        if clean {
            let usual = &mut self.usual[class.0];
            usual.note(took);
            if usual.count >= FADE_AT {
                usual.fade();
            }
        }
    }

    /// The 99th percentile of its like without background work, once that is known.
    pub(super) fn usual(&self, class: Class) -> Option<Duration> {
        let usual = &self.usual[class.0];
        (usual.count >= LEAST).then(|| Histogram::p99(std::iter::once(usual))).flatten()
    }

    /// 99th percentiles over all kinds, microseconds: of late, and what is usual.
    pub(super) fn percentiles(&mut self, now: Instant) -> (Option<u64>, Option<u64>) {
        self.turn(now);
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        (Histogram::p99(self.recent.iter()).map(us), Histogram::p99(self.usual.iter()).map(us))
    }

    fn turn(&mut self, now: Instant) {
        let passed = now.duration_since(self.recent_began);
        if passed >= RECENT {
            self.recent.swap(0, 1);
            self.recent[0] = Histogram::new();
            if passed >= RECENT * 2 {
                self.recent[1] = Histogram::new();
            }
            self.recent_began = now;
        }
    }
}
