//! How long a disk's reads and writes take, by powers of two of a microsecond.
//!
//! Written by the disk's thread, read by anybody without a lock. A snapshot taken while something is recorded may
//! miss it in one of its numbers; nothing depends on that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a histogram. The last one counts everything from 2^26 us (67 s) on.
pub const LATENCY_BUCKETS: usize = 28;

/// Latencies recorded so far, of one kind of I/O.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; LATENCY_BUCKETS],
    sum_us: AtomicU64,
}

/// The bucket that counts a latency: the first whose bound is not below it.
fn bucket(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits as usize).min(LATENCY_BUCKETS - 1)
}

impl Histogram {
    pub(crate) fn record(&self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> LatencyHistogram {
        LatencyHistogram {
            buckets: std::array::from_fn(|n| self.buckets[n].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// A histogram of latencies, as it stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencyHistogram {
    /// How many took at most [`LatencyHistogram::bound_us`] of the index, and more than that of the one before.
    pub buckets: [u64; LATENCY_BUCKETS],
    /// Sum of all, microseconds.
    pub sum_us: u64,
}

impl LatencyHistogram {
    pub(crate) fn count_in(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(bucket, more)| *bucket += more);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    pub(crate) fn halve(&mut self) {
        self.buckets.iter_mut().for_each(|bucket| *bucket /= 2);
        self.sum_us /= 2;
    }

    /// Upper bound of a bucket, microseconds; `None` for the last, which has none.
    pub fn bound_us(bucket: usize) -> Option<u64> {
        (bucket + 1 < LATENCY_BUCKETS).then(|| 1 << bucket)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The bound, microseconds, that at least `thousandths` of all do not exceed (990: the 99th percentile). `None`
    /// when there are none. The last bucket is taken for one more power of two.
    pub fn percentile_us(&self, thousandths: u64) -> Option<u64> {
        let count = self.count();
        let wanted = (count * thousandths).div_ceil(1000).max(1);
        let mut seen = 0;
        for (n, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= wanted {
                return Some(1 << n);
            }
        }
        None
    }
}

/// The latencies of a disk since it was opened, from the handing over of an I/O to its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatencySnapshot {
    /// Reads.
    pub read: LatencyHistogram,
    /// Writes, each durable when it completes.
    pub write: LatencyHistogram,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Histogram, LATENCY_BUCKETS, LatencyHistogram, bucket};

    #[test]
    fn a_bucket_holds_what_is_above_the_bound_before_it_and_not_above_its_own() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1024, 1025].map(bucket), [0, 0, 1, 2, 2, 3, 10, 11]);
        for n in 1..LATENCY_BUCKETS - 1 {
            let bound = LatencyHistogram::bound_us(n).unwrap();
            assert_eq!((bucket(bound), bucket(bound + 1)), (n, n + 1));
        }
        assert_eq!(bucket(u64::MAX), LATENCY_BUCKETS - 1);
        assert_eq!(LatencyHistogram::bound_us(LATENCY_BUCKETS - 1), None);
    }

    #[test]
    fn percentiles_are_bounds_that_so_many_do_not_exceed() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().percentile_us(990), None);
        for _ in 0..98 {
            histogram.record(Duration::from_micros(100));
        }
        histogram.record(Duration::from_millis(5));
        histogram.record(Duration::from_secs(500));
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum_us), (100, 9800 + 5000 + 500_000_000));
        assert_eq!(snapshot.percentile_us(500), Some(128));
        assert_eq!(snapshot.percentile_us(980), Some(128));
        assert_eq!(snapshot.percentile_us(990), Some(8192));
        assert_eq!(snapshot.percentile_us(1000), Some(1 << (LATENCY_BUCKETS - 1)));
    }
}
