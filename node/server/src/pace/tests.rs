//! A disk in virtual time: background I/O in the way of a foreground operation makes it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_libs_surroundings::WallClock;
use tokio::time::{Instant, sleep, timeout};

use super::level::{Impact, Level};
use super::{IDLE, Kind, LARGE_PIECE_BYTES, MOST_BYTES, PIECE_BYTES, Pace, Policy};

/// A background I/O takes so long for each MiB, and delays what it meets by as much.
const IO: Duration = Duration::from_millis(4);

struct World {
    pace: Arc<Pace>,
    policy: Arc<Policy>,
    /// MiB of background I/Os under way.
    under_way: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

/// The wall clock goes with tokio's.
fn clock() -> WallClock {
    let start = Instant::now();
    WallClock::given(move || 7_000 + start.elapsed().as_millis() as u64)
}

impl World {
    fn new(percent: Option<f64>) -> Self {
        let policy = Arc::new(Policy::default());
        policy.set(percent, false);
        policy.use_clock(clock());
        let pace = Arc::new(Pace::new(Arc::clone(&policy)));
        Self { pace, policy, under_way: Arc::default(), done: Arc::default() }
    }

    /// Copies that never end.
    fn copy(&self, parallel: usize, urgent: bool) {
        for _ in 0..parallel {
            let (pace, under_way, done) = (self.pace.clone(), self.under_way.clone(), self.done.clone());
            tokio::spawn(async move {
                loop {
                    let bytes = pace.piece_bytes();
                    let mib = (bytes >> 20) as usize;
                    let io = async {
                        under_way.fetch_add(mib, Ordering::Relaxed);
                        sleep(IO * mib as u32).await;
                        under_way.fetch_sub(mib, Ordering::Relaxed);
                    };
                    pace.background(urgent, bytes, io).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }

    /// A hundred operations a second for so long; milliseconds that each took, sorted. One in fifty takes 8 ms by itself, the others 4.
    async fn serve(&self, seconds: u64) -> Vec<u128> {
        let mut taken = Vec::new();
        for n in 0..seconds * 100 {
            let begun = Instant::now();
            let operation = self.pace.foreground(Kind::Append, 4096);
            sleep(Duration::from_millis(if n % 50 == 0 { 8 } else { 4 })).await;
            sleep(IO * self.under_way.load(Ordering::Relaxed) as u32).await;
            operation.done();
            taken.push(begun.elapsed().as_millis());
            sleep(Duration::from_millis(10).saturating_sub(begun.elapsed())).await;
        }
        taken.sort_unstable();
        taken
    }

    /// As it is before a repair.
    async fn learn_what_is_usual(&self, percent: Option<f64>) {
        self.policy.set(percent, false);
        self.policy.no_copies.store(true, Ordering::Relaxed);
        self.serve(5).await;
        self.policy.set(percent, true);
    }

    fn done(&self) -> usize {
        self.done.swap(0, Ordering::Relaxed)
    }
}

fn p99(sorted: &[u128]) -> u128 {
    sorted[sorted.len() * 99 / 100]
}

#[tokio::test(start_paused = true)]
async fn the_foregrounds_99th_percentile_stays_within_the_impact_and_background_work_goes_on() {
    for (percent, most_ms, least_done) in [(50.0, 13, 6000), (400.0, 40, 40_000)] {
        let world = World::new(Some(percent));
        world.learn_what_is_usual(Some(percent)).await;
        world.copy(4, false);
        world.serve(20).await;
        world.done();
        let taken = world.serve(60).await;
        let done = world.done();
        assert!(p99(&taken) <= most_ms, "{percent}: {} ms, usual are 8", p99(&taken));
        assert!(done >= least_done, "{percent}: {done} background I/Os in 60 s");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_the_foreground_feels_it() {
    let world = World::new(None);
    world.learn_what_is_usual(None).await;
    world.copy(4, false);
    assert!(p99(&world.serve(20).await) > 30);
}

#[tokio::test(start_paused = true)]
async fn without_foreground_it_runs_at_its_full_speed_whatever_the_impact_that_is_allowed() {
    for percent in [0.0, 50.0] {
        let world = World::new(Some(percent));
        world.learn_what_is_usual(Some(percent)).await;
        sleep(IDLE).await;
        world.copy(4, false);
        world.done();
        sleep(Duration::from_secs(10)).await;
        assert!(world.done() >= 2400, "4 at once, 16 ms each");
        assert_eq!(world.pace.piece_bytes(), LARGE_PIECE_BYTES);
    }
}

#[tokio::test(start_paused = true)]
async fn with_an_impact_of_0_little_runs_until_the_disk_is_idle() {
    let world = World::new(Some(0.0));
    world.learn_what_is_usual(Some(0.0)).await;
    world.copy(4, false);
    assert_eq!(world.pace.piece_bytes(), PIECE_BYTES);
    world.serve(30).await;
    let done = world.done();
    assert!((50..=80).contains(&done), "{done}: a hundredth of the time, so that a repair ends");
}

#[tokio::test(start_paused = true)]
async fn a_foreground_that_is_slow_whatever_is_done_leaves_the_floor_and_urgent_work_half_of_the_disk() {
    for (urgent, least) in [(false, 250), (true, 5000)] {
        let world = World::new(Some(50.0));
        world.learn_what_is_usual(Some(50.0)).await;
        world.copy(4, urgent);
        for _ in 0..600 {
            let operation = world.pace.foreground(Kind::Append, 4096);
            sleep(Duration::from_millis(100)).await;
            operation.done();
        }
        let done = world.done();
        assert!((least..least * 2).contains(&done), "{urgent}: {done} in 60 s, of 15,000");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_usual_is_learned_in_quiet_moments_of_a_long_repair() {
    let world = World::new(Some(50.0));
    world.copy(4, false);
    world.serve(60).await;
    assert_eq!(
        world.pace.report().usual_us.map(|us| us / 1000),
        Some(8),
        "it is not that of operations that were delayed"
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_under_way_are_bounded_however_many_copies_want_the_disk() {
    let world = World::new(Some(50.0));
    world.copy(100, false);
    sleep(Duration::from_secs(5)).await;
    let report = world.pace.report();
    assert!(report.most_bytes <= MOST_BYTES && report.bytes > 0, "{report:?}");
    let more: Vec<_> = (0..300).map(|_| world.pace.background(false, 1, std::future::pending::<()>())).collect();
    let first = futures_util::future::select_all(more.into_iter().map(Box::pin));
    let (refused, ..) = timeout(Duration::from_secs(5), first).await.expect("what waits is bounded too");
    assert!(refused.is_err());
}

#[test]
fn the_level_balances_below_one_slow_operation_in_a_hundred() {
    let mut level = Level::default();
    let mut before = level;
    for n in 0..171 * 20 {
        before = if n % 171 == 0 { level } else { before };
        level.learn(n % 171 == 170);
    }
    let (was, is) = (before.of(Impact(0.5), false, false), level.of(Impact(0.5), false, false));
    assert!((is / was - 1.0).abs() < 0.02, "{was} {is}");
}
