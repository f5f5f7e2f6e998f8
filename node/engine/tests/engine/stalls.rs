//! A disk that hangs: its operations are answered in time, new ones are refused at once, and nobody else notices.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::support::{CELL, EPOCH, aligned, batch, volume};
use holdfast_libs_sim::disk::{Request, ServiceTime, SimDisk};
use holdfast_libs_sim::streams::{SimRng, Streams};
use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{Clock, Disk, EngineError, OpenOptions, SimulatedClock};

const READ: Duration = Duration::from_millis(8);
const DEADLINE: Duration = Duration::from_secs(10);
const STALL_AFTER: Duration = Duration::from_secs(2);

type Answer<T> = std::pin::Pin<Box<dyn Future<Output = Result<T, EngineError>>>>;

/// A simulated disk whose I/O takes virtual time, and which hangs between two times.
struct Timed {
    media: SharedSimDisk,
    engine: SimulatedDisk,
    hangs: Rc<RefCell<(Duration, Duration)>>,
}

impl Timed {
    fn new(seed: u64, clock: &Arc<SimulatedClock>) -> Self {
        let streams = Streams::new(seed);
        let disk: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(24 << 20, &streams)));
        simulated::format(&disk, CELL, 1 << 20, &mut streams.stream("format"));
        let options = OpenOptions {
            operation_deadline: DEADLINE,
            stall_after: STALL_AFTER,
            max_operations: 32,
            ..OpenOptions::new(CELL)
        };
        let mut engine =
            SimulatedDisk::begin_mount_with(&disk, &options, clock.clone(), SimRng::from_seed(seed)).unwrap();
        while !engine.is_mounted() {
            engine.turn();
        }
        let hangs = Rc::new(RefCell::new((Duration::MAX, Duration::MAX)));
        let (until, mut rng) = (hangs.clone(), streams.stream("pace"));
        let timed = Self { media: disk, engine, hangs };
        timed.pace(Box::new(move |io| {
            let (from, to) = *until.borrow();
            let hangs = if (from..to).contains(&io.at) { to - io.at } else { Duration::ZERO };
            hangs + READ + Duration::from_micros(rng.below(4000))
        }));
        timed
    }

    fn pace(&self, time_of: ServiceTime) {
        self.media.borrow_mut().set_service_time(time_of);
    }

    fn handle(&self) -> Disk {
        self.engine.handle().clone()
    }

    /// Runs one operation to its answer, in virtual time; returns how long it took.
    fn run<T>(&mut self, clock: &SimulatedClock, mut answer: Answer<T>) -> (Result<T, EngineError>, Duration) {
        let start = clock.now();
        loop {
            for _ in 0..2 {
                if let Poll::Ready(result) = poll(&mut answer) {
                    return (result, clock.now() - start);
                }
                self.engine.turn();
            }
            self.pass(clock);
        }
    }

    fn step(&mut self, clock: &SimulatedClock) {
        self.engine.turn();
        self.pass(clock);
    }

    /// On to the next time at which something happens.
    fn pass(&self, clock: &SimulatedClock) {
        if let Some(due) = self.engine.next_due() {
            clock.set(due);
        }
    }
}

fn poll<T>(answer: &mut Answer<T>) -> Poll<Result<T, EngineError>> {
    answer.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn read(disk: Disk) -> Answer<bytes::Bytes> {
    Box::pin(async move { disk.read(volume(1), 0, 4096).await })
}

/// One volume with a batch.
fn filled(disk: &mut Timed, clock: &SimulatedClock) {
    let (bytes, _) = batch(volume(1), EPOCH, 0, 0, &[vec![1; 3000]]);
    let handle = disk.handle();
    let answer: Answer<u64> = Box::pin(async move {
        handle.create_extent(volume(1), EPOCH).await?;
        handle.append(volume(1), EPOCH, 0, aligned(&bytes)).await
    });
    disk.run(clock, answer).0.unwrap();
}

#[test]
fn an_operation_on_a_disk_that_hangs_is_answered_at_its_deadline_and_counts_until_it_ends() {
    let clock = Arc::new(SimulatedClock::new());
    let mut disk = Timed::new(1, &clock);
    filled(&mut disk, &clock);
    let hang = (clock.now(), clock.now() + Duration::from_secs(30));
    *disk.hangs.borrow_mut() = hang;
    let (answer, took) = disk.run(&clock, read(disk.handle()));
    let error = answer.unwrap_err();
    assert!(matches!(error, EngineError::Stalled { .. }), "{error}");
    assert!(error.to_string().contains(&disk.handle().id().to_string()), "{error}");
    assert_eq!(took, DEADLINE);
    assert_eq!(disk.handle().status().in_flight, 1, "it goes on inside");
    assert!(disk.handle().buffers().used_bytes() > 0, "its buffer is the kernel's");
    let status = disk.handle().status();
    assert!(status.stalled.unwrap().contains("2s"));
    assert_eq!((status.errors.reads.timeout, status.queue_depth), (1, 1));

    let mut refused = read(disk.handle());
    let Poll::Ready(Err(error)) = poll(&mut refused) else { panic!("refused at once") };
    assert!(matches!(error, EngineError::Stalled { .. }), "{error}");

    while disk.handle().status().stalled.is_some() {
        disk.step(&clock);
    }
    assert!(clock.now() >= hang.1);
    while disk.handle().status().in_flight > 0 {
        disk.step(&clock);
    }
    assert_eq!(disk.handle().buffers().used_bytes(), 0);
    assert_eq!(disk.run(&clock, read(disk.handle())).0.unwrap().len(), 4096);
}

#[test]
fn a_write_that_was_answered_late_is_done_or_not_but_never_half() {
    let clock = Arc::new(SimulatedClock::new());
    let mut disk = Timed::new(2, &clock);
    filled(&mut disk, &clock);
    *disk.hangs.borrow_mut() = (clock.now(), clock.now() + Duration::from_secs(30));
    let (bytes, _) = batch(volume(1), EPOCH, 4096, 4096, &[vec![2; 3000]]);
    let append = |disk: &Timed| -> Answer<u64> {
        let (handle, bytes) = (disk.handle(), aligned(&bytes));
        Box::pin(async move { handle.append(volume(1), EPOCH, 4096, bytes).await })
    };
    let answer = disk.run(&clock, append(&disk)).0;
    assert!(matches!(answer.unwrap_err(), EngineError::Stalled { .. }));
    while disk.handle().status().stalled.is_some() {
        disk.step(&clock);
    }
    assert_eq!(disk.run(&clock, append(&disk)).0.unwrap(), 8192, "the repeat is told that it stands");
}

#[test]
fn a_disk_that_is_slow_but_moves_is_not_refused() {
    let clock = Arc::new(SimulatedClock::new());
    let mut disk = Timed::new(3, &clock);
    filled(&mut disk, &clock);
    disk.pace(Box::new(|_| Duration::from_millis(1900)));
    for _ in 0..20 {
        disk.run(&clock, read(disk.handle())).0.unwrap();
        assert_eq!(disk.handle().status().stalled, None);
    }
}

#[test]
fn an_operation_that_moves_a_whole_extent_has_more_time_while_the_disk_moves_and_no_more() {
    let clock = Arc::new(SimulatedClock::new());
    let mut disk = Timed::new(4, &clock);
    let handle = disk.handle();
    let filling: Answer<u64> = Box::pin(async move {
        handle.create_extent(volume(1), EPOCH).await?;
        let mut tail = 0;
        for n in 0..6 {
            let (bytes, _) = batch(volume(1), EPOCH, tail, tail, &[vec![n; 100_000]]);
            tail = handle.append(volume(1), EPOCH, tail, aligned(&bytes)).await?;
        }
        Ok(tail)
    });
    let length = disk.run(&clock, filling).0.unwrap();
    let mut last = clock.now();
    disk.pace(Box::new(move |io: Request| {
        last = last.max(io.at) + Duration::from_secs(4);
        last - io.at
    }));
    let seal = |disk: &Timed| -> Answer<[u8; 32]> {
        let handle = disk.handle();
        Box::pin(async move { handle.seal(volume(1), EPOCH, length, 0).await })
    };
    let (answer, took) = disk.run(&clock, seal(&disk));
    answer.unwrap();
    assert!(took > DEADLINE, "{took:?}");

    let mut disk = Timed::new(5, &clock);
    filled(&mut disk, &clock);
    disk.pace(Box::new(|_| Duration::from_secs(1000)));
    let handle = disk.handle();
    let seal: Answer<[u8; 32]> = Box::pin(async move { handle.seal(volume(1), EPOCH, 4096, 0).await });
    let (answer, took) = disk.run(&clock, seal);
    assert!(matches!(answer.unwrap_err(), EngineError::Stalled { .. }));
    assert_eq!(took, DEADLINE);
}

/// What came of [`node_of_six`].
struct Outcome {
    /// The 99th percentile of each disk's answered reads.
    percentiles: Vec<Duration>,
    /// Reads that failed: after how long, and why.
    refused: Vec<(Duration, String)>,
}

/// A read: its disk, when it was sent, and its answer.
type Running = (usize, Duration, Answer<bytes::Bytes>);

/// Several disks of one node, read at a steady pace for two minutes of virtual time; one may hang for thirty seconds in
/// the middle.
fn node_of_six(hung: Option<usize>) -> Outcome {
    const DISKS: u64 = 6;
    const EVERY: Duration = Duration::from_millis(40);
    const END: Duration = Duration::from_secs(120);
    let clock = Arc::new(SimulatedClock::new());
    let mut disks: Vec<Timed> = (0..DISKS).map(|n| Timed::new(10 + n, &clock)).collect();
    for disk in &mut disks {
        filled(disk, &clock);
    }
    let start = clock.now();
    if let Some(hung) = hung {
        *disks[hung].hangs.borrow_mut() = (start + END / 3, start + END / 3 + Duration::from_secs(30));
    }
    let mut running: Vec<Running> = Vec::new();
    let mut latencies = vec![Vec::new(); disks.len()];
    let mut refused = Vec::new();
    let mut next = start;
    let mut take = |running: &mut Vec<Running>| {
        running.retain_mut(|(disk, sent, answer)| match poll(answer) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                let took = clock.now() - *sent;
                match result {
                    Ok(_) => latencies[*disk].push(took),
                    Err(error) => {
                        assert_eq!(Some(*disk), hung, "only the disk that hangs fails: {error}");
                        refused.push((took, error.to_string()));
                    }
                }
                false
            }
        });
    };
    while clock.now() < start + END || !running.is_empty() {
        if clock.now() >= next && next < start + END {
            running.extend(disks.iter().enumerate().map(|(n, disk)| (n, clock.now(), read(disk.handle()))));
            next += EVERY;
        }
        // The first poll sends; the last takes what was answered at this time.
        for _ in 0..2 {
            take(&mut running);
            for disk in &mut disks {
                while disk.engine.next_due().is_some_and(|due| due <= clock.now()) {
                    disk.engine.turn();
                }
            }
        }
        take(&mut running);
        let due = disks.iter().filter_map(|disk| disk.engine.next_due()).min().unwrap_or(next);
        clock.set(if next < start + END { due.min(next) } else { due });
    }
    let percentile = |of: &mut Vec<Duration>| {
        of.sort_unstable();
        of[of.len() * 99 / 100]
    };
    Outcome { percentiles: latencies.iter_mut().map(percentile).collect(), refused }
}

#[test]
fn a_disk_that_hangs_for_thirty_seconds_costs_the_others_nothing_and_its_callers_little() {
    let calm = node_of_six(None);
    assert_eq!(calm.refused, []);
    let storm = node_of_six(Some(2));
    for (n, (before, after)) in calm.percentiles.iter().zip(&storm.percentiles).enumerate().filter(|(n, _)| *n != 2) {
        println!("disk {n}: p99 {before:?} calm, {after:?} while another hangs");
        assert!(after.abs_diff(*before) * 10 < *before, "disk {n}: {before:?} {after:?}");
    }
    let late = storm.refused.iter().filter(|(took, _)| *took > Duration::ZERO).count();
    println!("{} requests to the hung disk failed, {late} of them at the deadline", storm.refused.len());
    assert!(storm.refused.len() > 500);
    // Those of the two seconds in which it was not yet known, as far as they were admitted.
    assert!((1..=50).contains(&late), "{late}");
    for (took, error) in &storm.refused {
        assert!(*took <= DEADLINE && (error.contains("does not answer") || error.contains("busy")), "{took:?} {error}");
    }
}

#[test]
fn a_disk_that_gets_far_slower_than_it_was_is_reported_and_used_all_the_same() {
    let clock = Arc::new(SimulatedClock::new());
    let mut disk = Timed::new(6, &clock);
    filled(&mut disk, &clock);
    let reads = |disk: &mut Timed, count: u32, time: Duration| {
        disk.pace(Box::new(move |_| time));
        for _ in 0..count {
            disk.run(&clock, read(disk.handle())).0.unwrap();
            clock.advance(Duration::from_millis(100));
        }
    };
    reads(&mut disk, 1500, READ);
    assert_eq!(disk.handle().status().suspect, None);
    reads(&mut disk, 600, READ * 40);
    let reason = disk.handle().status().suspect.unwrap();
    assert!(reason.contains("reads") && reason.contains("262 ms") && reason.contains("4.096 ms"), "{reason}");
    reads(&mut disk, 900, READ);
    let status = disk.handle().status();
    assert_eq!(status.suspect, None);
    assert!(status.latency.read.count() >= 3000 && status.latency.read.percentile_us(500) == Some(8192));
}
