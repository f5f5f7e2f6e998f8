//! Many seeds, on all cores.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::simulation::{LEAST_CRASHES, LEAST_OPERATIONS, Mutation, Summary, run};

/// The number that an environment variable holds.
pub fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs seeds until one fails; then its number and what was lost.
pub fn sweep(seeds: std::ops::Range<u64>, mutation: Mutation) -> Result<Summary, (u64, String)> {
    sweep_for(seeds, None, mutation)
}

/// As [`sweep`], and begins no seed after a time; says every minute how far it is.
pub fn sweep_for(
    seeds: std::ops::Range<u64>,
    time: Option<Duration>,
    mutation: Mutation,
) -> Result<Summary, (u64, String)> {
    let started = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let minutes_told = AtomicU64::new(0);
    let outcome = Mutex::new(Ok(Summary::default()));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let is_over = time.is_some_and(|time| started.elapsed() >= time);
            if is_over || seed >= seeds.end || outcome.lock().unwrap().is_err() {
                return;
            }
            let minutes = started.elapsed().as_secs() / 60;
            if time.is_some() && minutes_told.fetch_max(minutes, Ordering::Relaxed) < minutes {
                println!("{minutes} min: at seed {seed}, {} done", seed - seeds.start);
            }
            let result = catch_unwind(|| run(seed, mutation)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                Err(format!("panicked: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default()))
            });
            let mut outcome = outcome.lock().unwrap();
            match (&mut *outcome, result) {
                (Ok(total), Ok(one)) => {
                    assert!(one.operations >= LEAST_OPERATIONS && one.crashes >= LEAST_CRASHES, "seed {seed}: {one:?}");
                    *total += one;
                    total.seeds += 1;
                }
                (outcome @ Ok(_), Err(lost)) => *outcome = Err((seed, lost)),
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner().unwrap()
}
