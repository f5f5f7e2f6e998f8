//! What an operator is told of a disk's faults: a line when one begins, and no more than one in [`QUIET`] for each kind
//! while it goes on, with how many there were meanwhile. What hangs, is read-only or far slower than it was is told by the
//! engine; what the scrub finds, by the scrub.

use std::time::Duration;

use holdfast_hw_profiles::profile::Limits;
use holdfast_node_engine::{DiskStatus, ErrorCounts, LATENCY_BUCKETS, LatencyHistogram};
use tokio::time::Instant;

/// One line of a kind in this time.
const QUIET: Duration = Duration::from_secs(60);

/// I/Os are judged by the profile's latency limits over so long, or longer until there are [`SLOW_ONE_IN`] of them, but no longer
/// than that: what happened to an idle disk now and then is no sign.
const WINDOW: Duration = Duration::from_secs(60);
const LONGEST_WINDOW: Duration = Duration::from_secs(600);

/// One I/O of so many may be past the limit, and so few are always forgiven.
const SLOW_ONE_IN: u64 = 100;
const SLOW_FORGIVEN: u64 = 2;

/// So many tell, too, where there are fewer than [`SLOW_ONE_IN`] I/Os, of which they are more than a tenth then: past the limit in
/// any window, or all of them in time in the longest one.
const FEW_THAT_TELL: u64 = 10;

/// Something to log about a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Worth a look, the disk goes on.
    Warning(String),
    /// Something is lost or broken.
    Error(String),
    /// A fault is over.
    Over(String),
}

/// What was last seen and told of one disk.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    limits: Limits,
    kinds: [Told; KINDS],
    full: bool,
    read: Slow,
    write: Slow,
}

/// One kind of fault.
#[derive(Debug, Default)]
struct Told {
    count: u64,
    last: Option<Instant>,
}

/// One direction against its limit.
#[derive(Debug, Default)]
struct Slow {
    began: Option<(Instant, LatencyHistogram)>,
    why: Option<String>,
}

/// As many as there are kinds of errors in two directions.
const KINDS: usize = 12;

impl Faults {
    /// Of a disk that was just opened.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Why the disk is slower than its profile allows.
    pub(crate) fn slow(&self) -> Option<String> {
        let reasons: Vec<&str> = [&self.read.why, &self.write.why].into_iter().flatten().map(String::as_str).collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// What is to be said now.
    pub(crate) fn observe(&mut self, status: &DiskStatus, now: Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        let reads = of_direction("reads", &status.errors.reads);
        let errors = reads.into_iter().chain(of_direction("writes", &status.errors.writes));
        for (told, (count, what)) in self.kinds.iter_mut().zip(errors) {
            if count > told.count && told.last.is_none_or(|last| now.duration_since(last) >= QUIET) {
                let more = count - told.count;
                lines.push(Line::Error(format!("{more} {what} ({count} since the disk was opened)")));
                *told = Told { count, last: Some(now) };
            }
        }
        let full = status.free_slots == 0;
        match (self.full, full) {
            (false, true) => {
                lines.push(Line::Warning(format!("disk is full: all {} slots hold extents", status.slots)));
            }
            (true, false) => lines.push(Line::Over(format!("disk has room again: {} slots", status.free_slots))),
            _ => {}
        }
        self.full = full;
        lines.extend(self.read.observe("reads", self.limits.read_ms, &status.latency.read, now));
        lines.extend(self.write.observe("writes", self.limits.write_ms, &status.latency.write, now));
        lines
    }
}

fn of_direction(direction: &str, counts: &ErrorCounts) -> [(u64, String); 6] {
    [
        (
            counts.medium,
            "failed: the medium could not do it; look at the kernel's log and at SMART, and replace the disk",
        ),
        (counts.transport, "failed: the disk was not reached; look at its cable, bay and adapter"),
        (counts.timeout, "were not answered in time"),
        (counts.no_space, "failed: the file system below the disk's file is full"),
        (counts.checksum, "brought bytes that do not match their checksum, which were not served"),
        (counts.other, "failed; look at the kernel's log"),
    ]
    .map(|(count, what)| (count, format!("{direction} {what}")))
}

impl Slow {
    fn observe(&mut self, what: &str, limit_ms: Option<u32>, so_far: &LatencyHistogram, now: Instant) -> Option<Line> {
        let limit_ms = limit_ms?;
        let (began, before) = *self.began.get_or_insert((now, *so_far));
        let took = now.duration_since(began);
        if took < WINDOW {
            return None;
        }
        let past = |histogram: &LatencyHistogram| past_limit(histogram, limit_ms);
        let (slow, all) = (past(so_far) - past(&before), so_far.count() - before.count());
        // Of a few I/Os nothing can be said; a disk that answers none is found by others.
        let is_over = took >= LONGEST_WINDOW;
        let is_fast = is_over && slow == 0 && all >= FEW_THAT_TELL;
        let is_known = all >= SLOW_ONE_IN || slow >= FEW_THAT_TELL || is_fast;
        if is_over || is_known {
            self.began = Some((now, *so_far));
        }
        if !is_known {
            return None;
        }
        let was = self.why.take();
        if slow > (all / SLOW_ONE_IN).max(SLOW_FORGIVEN) {
            self.why = Some(format!("{slow} of {all} {what} took longer than the profile's {limit_ms} ms"));
        }
        match (&was, &self.why) {
            (None, Some(why)) => Some(Line::Warning(format!("disk is suspect: {why}"))),
            (Some(_), None) => Some(Line::Over(format!("{what} are within the profile's {limit_ms} ms again"))),
            _ => None,
        }
    }
}

/// How many certainly took longer than the limit: the histogram knows powers of two, so up to twice the limit passes.
fn past_limit(histogram: &LatencyHistogram, limit_ms: u32) -> u64 {
    let limit_us = u64::from(limit_ms) * 1000;
    let past = |n: usize| n > 0 && LatencyHistogram::bound_us(n - 1).is_some_and(|least| least >= limit_us);
    (0..LATENCY_BUCKETS).filter(|n| past(*n)).map(|n| histogram.buckets[n]).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_hw_profiles::profile::Limits;
    use holdfast_libs_sim::disk::SimDisk;
    use holdfast_libs_sim::streams::Streams;
    use holdfast_libs_types::CellId;
    use holdfast_node_engine::DiskStatus;
    use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
    use tokio::time::Instant;

    use super::{Faults, LONGEST_WINDOW, Line, QUIET, WINDOW};

    /// The status of a sound disk.
    fn sound() -> DiskStatus {
        let streams = Streams::new(1);
        let cell = CellId([1; 16]);
        let media = SharedSimDisk::new(std::cell::RefCell::new(SimDisk::new(256 << 20, &streams)));
        simulated::format(&media, cell, 16 << 20, &mut streams.stream("format"));
        let mut disk = SimulatedDisk::begin_mount(&media, cell, streams.stream("mount")).unwrap();
        while !disk.is_mounted() {
            disk.turn();
        }
        disk.handle().status()
    }

    #[test]
    fn a_fault_is_told_at_once_then_once_a_minute_with_its_number_and_kinds_do_not_hide_each_other() {
        let (mut faults, mut status, start) = (Faults::new(Limits::default()), sound(), Instant::now());
        assert_eq!(faults.observe(&status, start), []);
        status.errors.reads.medium = 1;
        let [Line::Error(first)] = &faults.observe(&status, start)[..] else { panic!("one line") };
        assert!(first.starts_with("1 reads failed: the medium") && first.contains("replace"), "{first}");
        for n in 2..100 {
            status.errors.reads.medium = n;
            let at = start + QUIET / 100 * u32::try_from(n).unwrap();
            assert_eq!(faults.observe(&status, at), [], "{n}");
        }
        status.errors.writes.medium = 1;
        status.errors.reads.checksum = 1;
        assert_eq!(faults.observe(&status, start + QUIET - Duration::from_millis(1)).len(), 2);
        let [Line::Error(again)] = &faults.observe(&status, start + QUIET)[..] else { panic!("one line") };
        assert!(again.starts_with("98 reads failed") && again.contains("99 since"), "{again}");
        assert_eq!(faults.observe(&status, start + QUIET * 9), []);
    }

    #[test]
    fn a_disk_that_fills_up_is_told_once_and_once_that_it_has_room_again() {
        let (mut faults, mut status, now) = (Faults::new(Limits::default()), sound(), Instant::now());
        let slots = status.free_slots;
        let mut told = Vec::new();
        for free in [1, 0, 0, 0, slots, slots] {
            status.free_slots = free;
            told.extend(faults.observe(&status, now));
        }
        assert!(matches!(&told[..], [Line::Warning(full), Line::Over(_)] if full.contains("full")), "{told:?}");
    }

    #[test]
    fn a_disk_slower_than_its_profile_allows_is_suspect_until_it_is_fast_again() {
        let limits = Limits { read_ms: Some(500), ..Limits::default() };
        let (mut faults, mut status, start) = (Faults::new(limits), sound(), Instant::now());
        let window = |n: u32| start + WINDOW * n;
        // Bucket 19 goes up to 524 ms, so what it counts may be in time; 20 begins there. Writes have no limit.
        faults.observe(&status, start);
        status.latency.read.buckets[20] += 100;
        status.latency.read.buckets[19] += 900;
        status.latency.write.buckets[25] += 1000;
        status.latency.read.buckets[10] += 1000;
        assert_eq!(
            faults.observe(&status, window(1)),
            [Line::Warning("disk is suspect: 100 of 2000 reads took longer than the profile's 500 ms".to_owned())]
        );
        assert!(faults.slow().is_some_and(|why| why.contains("100 of 2000 reads")));
        assert_eq!(
            (faults.observe(&status, window(2)), faults.slow().is_some()),
            (Vec::new(), true),
            "idle: nothing is known"
        );
        status.latency.read.buckets[22] += 10;
        status.latency.read.buckets[10] += 1000;
        assert!(matches!(&faults.observe(&status, window(3))[..], [Line::Over(_)]));
        assert_eq!(faults.slow(), None);
        status.latency.read.buckets[22] += 2;
        status.latency.read.buckets[10] += 98;
        assert_eq!(faults.observe(&status, window(4)), [], "two are forgiven");
        status.latency.read.buckets[22] += 3;
        status.latency.read.buckets[10] += 1;
        assert_eq!(faults.observe(&status, window(5)), [], "of four reads nothing is known");
        status.latency.read.buckets[10] += 96;
        assert_eq!(
            faults.observe(&status, window(6)),
            [Line::Warning("disk is suspect: 3 of 100 reads took longer than the profile's 500 ms".to_owned())]
        );
    }

    /// A disk with a limit of 500 ms for reads, and when it was first looked at.
    fn limited() -> (Faults, DiskStatus, Instant) {
        let (mut faults, status, start) =
            (Faults::new(Limits { read_ms: Some(500), ..Limits::default() }), sound(), Instant::now());
        assert_eq!(faults.observe(&status, start), []);
        (faults, status, start)
    }

    #[test]
    fn slow_reads_of_an_idle_disk_do_not_add_up_over_hours() {
        let (mut faults, mut status, start) = limited();
        for minute in 1..=600 {
            // Each half hour one that is slow, and in the end many more reads than one window needs.
            status.latency.read.buckets[22] += u64::from(minute % 30 == 0);
            status.latency.read.buckets[10] += 1;
            assert_eq!(faults.observe(&status, start + WINDOW * minute), [], "minute {minute}");
        }
    }

    #[test]
    fn a_window_with_few_reads_goes_on_for_ten_minutes() {
        let (mut faults, mut status, start) = limited();
        status.latency.read.buckets[22] += 3;
        assert_eq!(faults.observe(&status, start + LONGEST_WINDOW / 2), []);
        status.latency.read.buckets[10] += 97;
        let told = faults.observe(&status, start + LONGEST_WINDOW - WINDOW);
        assert!(matches!(&told[..], [Line::Warning(told)] if told.contains("3 of 100 reads")), "{told:?}");
    }

    #[test]
    fn a_disk_that_answers_ten_reads_a_minute_and_all_of_them_late_is_suspect_after_one() {
        let (mut faults, mut status, start) = limited();
        status.latency.read.buckets[23] += 9;
        status.latency.read.buckets[10] += 30;
        assert_eq!(faults.observe(&status, start + WINDOW), [], "nine may be by chance");
        status.latency.read.buckets[23] += 1;
        let told = faults.observe(&status, start + WINDOW * 3 / 2);
        assert!(matches!(&told[..], [Line::Warning(told)] if told.contains("10 of 40 reads")), "{told:?}");
        status.latency.read.buckets[23] += 10;
        assert_eq!(faults.observe(&status, start + WINDOW * 5 / 2 - Duration::from_millis(1)), []);
        assert!(faults.slow().is_some_and(|why| why.contains("10 of 40")), "a part of a window says nothing");
        assert_eq!(faults.observe(&status, start + WINDOW * 5 / 2), []);
        assert!(faults.slow().is_some_and(|why| why.contains("10 of 10 reads")));
    }

    #[test]
    fn a_disk_that_is_seldom_read_is_suspect_no_more_after_ten_minutes_in_which_all_was_in_time() {
        let (mut faults, mut status, start) = limited();
        status.latency.read.buckets[23] += 10;
        assert_eq!(faults.observe(&status, start + WINDOW).len(), 1);
        let end_of = |window: u32| start + WINDOW + LONGEST_WINDOW * window;
        let window = |slow, fast, faults: &mut Faults, status: &mut DiskStatus, end| {
            status.latency.read.buckets[23] += slow;
            status.latency.read.buckets[10] += fast;
            faults.observe(status, end)
        };
        assert_eq!(window(0, 9, &mut faults, &mut status, end_of(1)), [], "of nine nothing is known");
        assert_eq!(window(1, 50, &mut faults, &mut status, end_of(2)), [], "one was late");
        assert_eq!(window(0, 10, &mut faults, &mut status, end_of(3) - Duration::from_millis(1)), [], "not yet");
        assert!(faults.slow().is_some());
        assert!(matches!(&faults.observe(&status, end_of(3))[..], [Line::Over(_)]));
        assert_eq!(faults.slow(), None);
    }
}
