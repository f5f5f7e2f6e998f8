//! Many seeds, on all cores.

use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::simulation::{LEAST_CRASHES, LEAST_OPERATIONS, Mutation, Summary, run};

/// The number that an environment variable holds.
pub fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs seeds until one fails; then its number and what was lost.
pub fn sweep(seeds: std::ops::Range<u64>, mutation: Mutation) -> Result<Summary, (u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let outcome = Mutex::new(Ok(Summary::default()));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || outcome.lock().unwrap().is_err() {
                return;
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
                }
                (outcome @ Ok(_), Err(lost)) => *outcome = Err((seed, lost)),
                (Err(_), _) => {}
            }
        }
    };
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    outcome.into_inner().unwrap()
}
