//! Many seeds, on all cores, each on one thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::run::{Failure, Options, Summary, run};

/// The number that an environment variable holds.
///
/// # Panics
/// When it holds something else.
pub fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// What all seeds came to.
#[derive(Debug, Default)]
pub struct Total {
    /// How many.
    pub seeds: u64,
    /// Their sums, and the longest healing.
    pub sum: Summary,
}

impl Total {
    fn add(&mut self, one: &Summary) {
        self.seeds += 1;
        let sum = &mut self.sum;
        sum.events += one.events;
        sum.acts += one.acts;
        sum.puts += one.puts;
        sum.failed_puts += one.failed_puts;
        sum.gets += one.gets;
        sum.failed_gets += one.failed_gets;
        sum.rounds += one.rounds;
        sum.displaced += one.displaced;
        sum.healed_ms = sum.healed_ms.max(one.healed_ms);
        sum.virtual_ms += one.virtual_ms;
    }
}

/// Runs one seed; a panic in it is a failure.
///
/// # Errors
/// What did not hold.
pub fn run_caught(seed: u64, options: Options) -> Result<Summary, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Failure { what: format!("panicked: {}", text.unwrap_or_default()), lines: Vec::new() })
    })
}

/// Runs seeds until one fails, and begins none after `time`; every seed is run with `options`.
///
/// # Errors
/// The seed that failed, and why.
pub fn sweep(
    seeds: std::ops::Range<u64>,
    time: Option<Duration>,
    options: impl Fn() -> Options + Sync,
) -> Result<Total, (u64, Failure)> {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let minutes_told = AtomicU64::new(0);
    let outcome = Mutex::new(Ok(Total::default()));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = time.is_some_and(|time| started.elapsed() >= time);
            let failed = outcome.lock().unwrap_or_else(PoisonError::into_inner).is_err();
            if is_over || seed >= seeds.end || failed {
                return;
            }
            let minutes = started.elapsed().as_secs() / 60;
            if time.is_some() && minutes_told.fetch_max(minutes, Ordering::Relaxed) < minutes {
                println!("{minutes} min: at seed {seed}, {} done", seed - seeds.start);
            }
            let result = run_caught(seed, options());
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *outcome, result) {
                (Ok(total), Ok(one)) => total.add(&one),
                (outcome @ Ok(_), Err(failure)) => *outcome = Err((seed, failure)),
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}
