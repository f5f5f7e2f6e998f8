//! Background work of a disk (copies to it and from it) held to what the foreground (appends and reads of records) bears.
//!
//! Each disk has a level: how many background I/Os it has under way on average. Below one, an I/O is followed by a rest. The
//! level is steered by the latencies of the foreground on this very disk, operation by operation:
//! - An operation is slow when it took longer than the 99th percentile of its like without background work, and the impact
//!   that is allowed on top. A slow one cuts the level, all others raise it a little, so that about one in 170 is slow: fewer
//!   than one in a hundred, since a put waits for three disks.
//! - Without foreground for [`IDLE`] background work runs at its full speed, and the level stays as it was.
//! - The level never falls below a floor, so that repair ends; that of urgent work, for a volume with one replica left, is
//!   half of the disk's time: losing the volume would harm its readers more.
//!
//! What is usual is measured while the cell copies nothing, and in quiet moments: for [`QUIET_MS`] of every [`QUIET_EVERY_MS`]
//! by the clock no node begins background work that is neither urgent nor on a disk without foreground. So disks that share a device, a network or a processor
//! still see what is usual without each other's background work.

mod latencies;
mod level;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use holdfast_libs_surroundings::WallClock;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use latencies::Kind;
use latencies::{Class, Latencies};
use level::{Impact, Level};

/// Without foreground for so long, background work has the disk for itself.
pub(crate) const IDLE: Duration = Duration::from_secs(2);

/// Within the first `QUIET_MS` of every `QUIET_EVERY_MS`, milliseconds since 1970, no background work begins that is neither urgent
/// nor on a disk without foreground.
const QUIET_EVERY_MS: u64 = 10_000;
const QUIET_MS: u64 = 500;

/// What was begun before a quiet moment may last so long into it.
const SETTLES_MS: u64 = 150;

/// Bytes of one background I/O while there is foreground, and without.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
pub(crate) const LARGE_PIECE_BYTES: u64 = 4 << 20;

/// Background I/Os of one disk that may wait for their place.
const MOST_WAITING: usize = 256;

/// How often one that rests or waits looks again.
const LOOK: Duration = Duration::from_millis(20);

/// Longest rest, so that a caller of a slow disk is answered in time.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What the volume manager said last of background work.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Percent, as bits of an f64; infinite for no limit.
    impact: AtomicU64,
    /// The cell copies nothing at the moment.
    no_copies: AtomicBool,
    /// The machine's until another is given.
    clock: OnceLock<WallClock>,
}

/// How much longer the foreground's 99th percentile may take, percent, until a volume manager says otherwise.
const DEFAULT_IMPACT: f64 = 50.0;

impl Default for Policy {
    fn default() -> Self {
        Self {
            impact: AtomicU64::new(DEFAULT_IMPACT.to_bits()),
            no_copies: AtomicBool::new(false),
            clock: OnceLock::new(),
        }
    }
}

impl Policy {
    /// `percent` is `None` for no limit.
    pub(crate) fn set(&self, percent: Option<f64>, copies: bool) {
        let percent = percent.filter(|percent| percent.is_finite() && *percent >= 0.0).unwrap_or(f64::INFINITY);
        self.impact.store(percent.to_bits(), Ordering::Relaxed);
        self.no_copies.store(!copies, Ordering::Relaxed);
    }

    /// Tells the time of day by this from now on.
    pub(crate) fn use_clock(&self, clock: WallClock) {
        let _ = self.clock.set(clock);
    }

    fn unix_ms(&self) -> u64 {
        self.clock.get().map_or_else(|| WallClock::system().unix_ms(), WallClock::unix_ms)
    }

    fn impact(&self) -> Impact {
        Impact(f64::from_bits(self.impact.load(Ordering::Relaxed)) / 100.0)
    }
}

/// What an operator sees of a disk's pace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PaceReport {
    /// The foreground's 99th percentile of the last seconds, microseconds, if there is any.
    pub recent_us: Option<u64>,
    /// The same without background work.
    pub usual_us: Option<u64>,
    /// Background I/Os that the disk has under way on average while it has foreground.
    pub level: f64,
    /// Bytes of background I/Os under way.
    pub bytes: u64,
    /// The most there ever were.
    pub most_bytes: u64,
    /// Background bytes since the disk was opened.
    pub moved_bytes: u64,
}

/// Refused: too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crowded;

/// The pace of one disk.
pub(crate) struct Pace {
    policy: Arc<Policy>,
    state: Mutex<State>,
    freed: Notify,
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pace").field("report", &self.report()).finish_non_exhaustive()
    }
}

struct State {
    level: Level,
    latencies: Latencies,
    /// Foreground operations under way, and when one last ended.
    foreground: usize,
    ended: Option<Instant>,
    /// Background I/Os that hold a place: under way or resting; those under way; those that wait.
    places: usize,
    under_way: usize,
    waiting: usize,
    /// Background I/Os begun.
    begun: u64,
    bytes: u64,
    most_bytes: u64,
    moved_bytes: u64,
}

/// A foreground operation under way.
pub(crate) struct Foreground<'a> {
    pace: &'a Pace,
    class: Class,
    since: Instant,
    /// Nothing of the cell's background work can be in its way, as far as is known; and how many I/Os had begun by then.
    clean: bool,
    begun: u64,
}

impl Pace {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        let state = State {
            level: Level::default(),
            latencies: Latencies::new(Instant::now()),
            foreground: 0,
            ended: None,
            places: 0,
            under_way: 0,
            waiting: 0,
            begun: 0,
            bytes: 0,
            most_bytes: 0,
            moved_bytes: 0,
        };
        Self { policy, state: Mutex::new(state), freed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A foreground operation begins.
    pub(crate) fn foreground(&self, kind: Kind, bytes: usize) -> Foreground<'_> {
        let clean = self.is_clean();
        let mut state = self.state();
        state.foreground += 1;
        let clean = clean && state.under_way == 0;
        Foreground { pace: self, class: Class::of(kind, bytes), since: Instant::now(), clean, begun: state.begun }
    }

    /// Whether latencies are what they are without background work.
    fn is_clean(&self) -> bool {
        let into = self.policy.unix_ms() % QUIET_EVERY_MS;
        self.policy.no_copies.load(Ordering::Relaxed) || (SETTLES_MS..QUIET_MS).contains(&into)
    }

    fn is_quiet(&self) -> bool {
        self.policy.unix_ms() % QUIET_EVERY_MS < QUIET_MS
    }

    /// Bytes that the next background I/O should move.
    pub(crate) fn piece_bytes(&self) -> u64 {
        if self.state().is_idle() || self.policy.impact().is_unlimited() { LARGE_PIECE_BYTES } else { PIECE_BYTES }
    }

    /// Runs a background I/O of so many bytes when it is its turn, and lets the disk rest after it.
    ///
    /// # Errors
    /// `Crowded`: too many wait.
    pub(crate) async fn background<T>(
        self: &Arc<Self>,
        urgent: bool,
        bytes: u64,
        io: impl Future<Output = T>,
    ) -> Result<T, Crowded> {
        let mut place = self.enter(urgent, bytes).await?;
        let since = Instant::now();
        let result = io.await;
        place.end();
        let took = since.elapsed();
        // The caller goes on while the place rests.
        if place.rest_of(took) > Duration::ZERO {
            tokio::spawn(async move {
                loop {
                    let left = place.rest_of(took).saturating_sub(since.elapsed().saturating_sub(took));
                    if left.is_zero() {
                        break;
                    }
                    tokio::time::sleep(left.min(LOOK)).await;
                }
                drop(place);
            });
        }
        Ok(result)
    }

    async fn enter(self: &Arc<Self>, urgent: bool, bytes: u64) -> Result<Place, Crowded> {
        {
            let mut state = self.state();
            if state.waiting >= MOST_WAITING {
                return Err(Crowded);
            }
            state.waiting += 1;
        }
        let waiting = Waiting(self);
        loop {
            let freed = self.freed.notified();
            let quiet = !urgent && self.is_quiet();
            {
                let mut state = self.state();
                let idle = state.is_idle();
                let level = state.level.of(self.policy.impact(), urgent, idle);
                if (!quiet || idle) && (state.places as f64) < level.max(1.0).floor() {
                    state.places += 1;
                    state.under_way += 1;
                    state.begun += 1;
                    state.bytes += bytes;
                    state.most_bytes = state.most_bytes.max(state.bytes);
                    drop(state);
                    drop(waiting);
                    return Ok(Place { pace: Arc::clone(self), urgent, bytes, under_way: true });
                }
            }
            // The level may rise, and a quiet moment end, without anybody telling.
            let _ = tokio::time::timeout(LOOK, freed).await;
        }
    }

    /// As it is now.
    pub(crate) fn report(&self) -> PaceReport {
        let mut state = self.state();
        let (recent_us, usual_us) = state.latencies.percentiles(Instant::now());
        PaceReport {
            recent_us,
            usual_us,
            level: state.level.of(self.policy.impact(), false, false),
            bytes: state.bytes,
            most_bytes: state.most_bytes,
            moved_bytes: state.moved_bytes,
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.foreground == 0 && self.ended.is_none_or(|ended| ended.elapsed() >= IDLE)
    }
}

impl Foreground<'_> {
    /// It was done; one that failed tells nothing.
    pub(crate) fn done(self) {
        let (now, clean) = (Instant::now(), self.clean && self.pace.is_clean());
        let took = now.duration_since(self.since);
        let mut state = self.pace.state();
        let clean = clean && state.begun == self.begun;
        state.latencies.note(self.class, took, clean, now);
        let impact = self.pace.policy.impact();
        if state.places + state.waiting > 0
            && let Some(usual) = state.latencies.usual(self.class)
        {
            state.level.learn(took > impact.limit(usual));
        }
    }
}

impl Drop for Foreground<'_> {
    fn drop(&mut self) {
        let mut state = self.pace.state();
        state.foreground -= 1;
        state.ended = Some(Instant::now());
    }
}

struct Waiting<'a>(&'a Pace);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// A background I/O's place; freed when dropped.
struct Place {
    pace: Arc<Pace>,
    urgent: bool,
    bytes: u64,
    under_way: bool,
}

impl Place {
    fn end(&mut self) {
        if std::mem::take(&mut self.under_way) {
            let mut state = self.pace.state();
            state.under_way -= 1;
            state.bytes -= self.bytes;
            state.moved_bytes += self.bytes;
        }
    }

    /// How long the disk rests after an I/O that took so long.
    fn rest_of(&self, took: Duration) -> Duration {
        let state = self.pace.state();
        let level = state.level.of(self.pace.policy.impact(), self.urgent, state.is_idle());
        if level >= 1.0 { Duration::ZERO } else { took.mul_f64(1.0 / level - 1.0).min(LONGEST_REST) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end();
        self.pace.state().places -= 1;
        self.pace.freed.notify_one();
    }
}

/// Most bytes of background I/Os that a disk ever has under way.
#[cfg(test)]
const MOST_BYTES: u64 = level::MOST as u64 * LARGE_PIECE_BYTES;

#[cfg(test)]
mod tests;
