//! The engine on the simulated disk, crashed at any I/O: no acknowledged append, fence or seal is ever lost.
//!
//! `HOLDFAST_SEED=n` replays one seed; `HOLDFAST_SEEDS=count` and `HOLDFAST_START_SEED=n` soak.
#![allow(clippy::unwrap_used)]

mod model;
mod operations;
mod simulation;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::{Mutation, Summary, run};

fn env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

/// Runs seeds on all cores; stops at the first failure.
fn sweep(seeds: std::ops::Range<u64>, mutation: Mutation) -> Result<Summary, (u64, String)> {
    let next = AtomicU64::new(seeds.start);
    let outcome = Mutex::new(Ok(Summary::default()));
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || outcome.lock().unwrap().is_err() {
                        return;
                    }
                    let result = run(seed, mutation);
                    let mut outcome = outcome.lock().unwrap();
                    match (&mut *outcome, result) {
                        (Ok(total), Ok(one)) => {
                            total.operations += one.operations;
                            total.crashes += one.crashes;
                            total.acknowledged_appends += one.acknowledged_appends;
                            total.seals += one.seals;
                            total.copies += one.copies;
                        }
                        (outcome @ Ok(_), Err(lost)) => *outcome = Err((seed, lost)),
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    outcome.into_inner().unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_in_a_thousand_seeds_of_crashes() {
    let seeds = match env("HOLDFAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let start = env("HOLDFAST_START_SEED").unwrap_or(0);
            start..start + env("HOLDFAST_SEEDS").unwrap_or(1000)
        }
    };
    let count = seeds.end - seeds.start;
    match sweep(seeds, Mutation::None) {
        Ok(summary) => {
            println!("{count} seeds: {summary:?}");
            assert!(summary.operations >= 200 * count && summary.crashes >= 3 * count);
            if count >= 100 {
                assert!(summary.acknowledged_appends > 20 * count && summary.seals > count && summary.copies > count);
            }
        }
        Err((seed, lost)) => panic!(
            "seed {seed}: {lost}\nreplay: HOLDFAST_SEED={seed} cargo test -p holdfast-node-engine --test crash nothing"
        ),
    }
}

fn must_be_noticed(mutation: Mutation) {
    let (seed, lost) = sweep(0..100, mutation).expect_err("a missing flush must be noticed");
    println!("{mutation:?} noticed at seed {seed}: {}", &lost[..lost.len().min(200)]);
}

#[test]
fn data_written_without_dsync_is_noticed() {
    must_be_noticed(Mutation::DataWithoutDsync);
}

#[test]
fn headers_written_without_dsync_are_noticed() {
    must_be_noticed(Mutation::HeadersWithoutDsync);
}

#[test]
fn superblocks_and_keys_written_without_dsync_are_noticed() {
    must_be_noticed(Mutation::AreasWithoutDsync);
}

#[test]
fn a_mount_that_does_not_flush_is_noticed() {
    must_be_noticed(Mutation::MountWithoutFlush);
}
