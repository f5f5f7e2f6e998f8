//! The scrub of each disk: reads everything that is live, a piece at a time, again and again, at a pace that foreground
//! work does not feel. The engine knows where it stopped and what to compare; this decides when the next piece is read,
//! and says what was found.
//!
//! The pace: no more than the configured bytes a second; no more than a tenth of the disk's time, so that a disk that is
//! slow because it is busy is scrubbed less; and a pause while operations of others queue up, but never for good.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_node_client::{ScrubOrder, ScrubState, ScrubStatus};
use holdfast_node_engine::{EngineError, Finding, ScrubStep};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::ScrubConfig;
use crate::disks::OpenDisk;

/// Bytes of one piece: what a hard disk reads in a few milliseconds.
const STEP_BYTES: u64 = 1 << 20;

/// For each moment that a piece took, the disk belongs to others for so many.
const REST: u32 = 9;

/// Operations of others that wait at once, from which on the scrub holds back.
const CROWD: usize = 4;

/// Holds back for so long at a time, and for so many times before a piece is read anyway.
const HOLD: Duration = Duration::from_millis(100);
const MOST_HOLDS: u32 = 50;

/// After an error of the disk.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// Findings that are remembered so that each is logged once.
const MOST_REMEMBERED: usize = 10_000;

/// Slowest pace that can be ordered, bytes a second: below it a large disk would never be done.
pub(crate) const LEAST_BYTES_PER_SECOND: u64 = 64 << 10;

/// The scrub of one disk.
#[derive(Debug)]
pub(crate) struct Scrub {
    control: Mutex<Control>,
    ordered: Notify,
}

#[derive(Debug)]
struct Control {
    config: ScrubConfig,
    state: ScrubState,
    paused: bool,
    next_round: Instant,
    round_began: Option<Instant>,
    round_ended: Option<Instant>,
    rounds: u64,
    round_bytes: u64,
    read_bytes: u64,
    found: u64,
    repaired: u64,
    logged: HashSet<(Option<u32>, u64, String)>,
}

impl Scrub {
    /// A scrub that begins when the configuration says so.
    pub(crate) fn new(config: &ScrubConfig) -> Self {
        let control = Control {
            config: config.clone(),
            state: ScrubState::Idle,
            paused: !config.enabled,
            next_round: Instant::now() + Duration::from_millis(config.start_after_ms),
            round_began: None,
            round_ended: None,
            rounds: 0,
            round_bytes: 0,
            read_bytes: 0,
            found: 0,
            repaired: 0,
            logged: HashSet::new(),
        };
        Self { control: Mutex::new(control), ordered: Notify::new() }
    }

    /// Carries out an operator's order.
    pub(crate) fn order(&self, order: &ScrubOrder) {
        {
            let mut control = self.control();
            match order.action.as_deref() {
                Some("start") => (control.paused, control.next_round) = (false, Instant::now()),
                Some("pause") => control.paused = true,
                Some("resume") => control.paused = false,
                _ => {}
            }
            if let Some(rate) = order.bytes_per_second {
                control.config.bytes_per_second = rate.max(LEAST_BYTES_PER_SECOND);
            }
        }
        self.ordered.notify_one();
    }

    /// How far it is.
    pub(crate) fn status(&self) -> ScrubStatus {
        let control = self.control();
        let ago = |at: Instant| at.elapsed().as_secs();
        ScrubStatus {
            state: if control.paused { ScrubState::Paused } else { control.state },
            bytes_per_second: control.config.bytes_per_second,
            rounds: control.rounds,
            round_began_s_ago: control.round_began.map(ago),
            round_read_bytes: control.round_bytes,
            read_bytes: control.read_bytes,
            last_round_ended_s_ago: control.round_ended.map(ago),
            found: control.found,
            repaired: control.repaired,
        }
    }

    /// How long to wait before the next piece; `None`: read it now.
    fn wait(&self) -> Option<Duration> {
        let control = self.control();
        if control.paused {
            return Some(Duration::from_secs(3600));
        }
        Some(control.next_round.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }

    fn set(&self, state: ScrubState) {
        self.control().state = state;
    }

    /// Notes what a piece brought, and answers how long to rest.
    fn note(&self, disk: &OpenDisk, step: &ScrubStep, took: Duration) -> Duration {
        let mut control = self.control();
        let now = Instant::now();
        let began = *control.round_began.get_or_insert(now);
        control.read_bytes += step.read_bytes;
        control.round_bytes += step.read_bytes;
        for finding in &step.found {
            control.found += 1;
            control.repaired += u64::from(finding.repaired);
            let key = (finding.slot, finding.offset, finding.what.clone());
            if control.logged.len() < MOST_REMEMBERED && control.logged.insert(key) {
                log(disk, finding);
            }
        }
        if step.finished_round {
            tracing::info!(disk = %disk.id(), read_bytes = control.round_bytes, seconds = began.elapsed().as_secs(),
                found_total = control.found, "scrub has read the whole disk");
            control.rounds += 1;
            control.round_bytes = 0;
            control.round_ended = Some(now);
            control.round_began = None;
            control.next_round = now.max(began + Duration::from_millis(control.config.round_ms));
        }
        let (state, rest) = rest(step.read_bytes, took, control.config.bytes_per_second);
        control.state = state;
        rest
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to rest after a piece of so many bytes that took so long, and whether the disk or the pace is what holds it.
fn rest(read_bytes: u64, took: Duration, bytes_per_second: u64) -> (ScrubState, Duration) {
    let rate = bytes_per_second.max(LEAST_BYTES_PER_SECOND);
    let paced = Duration::from_secs_f64(read_bytes as f64 / rate as f64).saturating_sub(took);
    let busy = took * REST;
    let state = if busy > paced { ScrubState::Throttled } else { ScrubState::Busy };
    // A piece without bytes is never free either.
    (state, paced.max(busy).max(Duration::from_millis(1)))
}

fn log(disk: &OpenDisk, finding: &Finding) {
    let (id, path) = (disk.id(), disk.path.display());
    let volume = finding.volume.map(|volume| volume.to_string());
    let Finding { place, slot, offset, what, repaired, .. } = finding;
    if *repaired {
        tracing::warn!(disk = %id, %path, %place, slot, volume, offset, what, "scrub found damage and repaired it");
    } else {
        tracing::error!(disk = %id, %path, %place, slot, volume, offset, what, "scrub found damage");
    }
}

/// Scrubs a disk until it is taken out of use.
pub(crate) async fn run(disk: Arc<OpenDisk>) {
    tokio::select! {
        biased;
        () = disk.stop.cancelled() => {}
        () = forever(&disk) => {}
    }
}

async fn forever(disk: &OpenDisk) {
    let scrub = &disk.scrub;
    loop {
        if let Some(wait) = scrub.wait() {
            scrub.set(ScrubState::Idle);
            pause(scrub, wait).await;
            continue;
        }
        hold_back(disk).await;
        let begun = Instant::now();
        let rest = match disk.engine().scrub_step(STEP_BYTES).await {
            Ok(step) => scrub.note(disk, &step, begun.elapsed()),
            Err(EngineError::Busy { .. }) => {
                scrub.set(ScrubState::Throttled);
                HOLD
            }
            // The disk is out of use or hangs; whoever finds that says so.
            Err(error) => {
                tracing::debug!(disk = %disk.id(), %error, "no scrub");
                scrub.set(ScrubState::Idle);
                AFTER_ERROR
            }
        };
        pause(scrub, rest).await;
    }
}

/// Waits, or until an order comes.
async fn pause(scrub: &Scrub, wait: Duration) {
    tokio::select! {
        biased;
        () = tokio::time::sleep(wait) => {}
        () = scrub.ordered.notified() => {}
    }
}

/// Waits while operations of others queue up; while the disk has stalled, for as long as that lasts.
async fn hold_back(disk: &OpenDisk) {
    let mut holds = 0;
    while disk.stalled().is_some() || (disk.engine().status().in_flight > CROWD && holds < MOST_HOLDS) {
        disk.scrub.set(ScrubState::Throttled);
        holds += 1;
        tokio::time::sleep(HOLD).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_node_client::ScrubState;

    use super::{STEP_BYTES, rest};
    use crate::config::ScrubConfig;

    const RATE: u64 = 8_000_000;

    #[test]
    fn a_disk_of_20_tb_takes_about_a_month_at_the_default_pace() {
        let took = Duration::from_millis(6);
        let (state, rest) = rest(STEP_BYTES, took, ScrubConfig::default().bytes_per_second);
        let days = (rest + took).as_secs_f64() * 20e12 / STEP_BYTES as f64 / 86_400.0;
        assert!(state == ScrubState::Busy && (25.0..31.0).contains(&days), "{days} days");
    }

    #[test]
    fn a_disk_that_is_slow_because_it_is_busy_is_scrubbed_less() {
        let (state, rest) = rest(STEP_BYTES, Duration::from_millis(200), RATE);
        assert_eq!((state, rest), (ScrubState::Throttled, Duration::from_millis(1800)));
    }

    #[test]
    fn a_piece_that_cost_nothing_still_gives_way() {
        assert!(rest(0, Duration::ZERO, RATE).1 > Duration::ZERO);
    }
}
