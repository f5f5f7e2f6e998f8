//! The engine on the simulated disk, crashed at any I/O: no acknowledged append, fence or seal is ever lost.
//!
//! `HOLDFAST_SEED=n` replays one seed. `HOLDFAST_START_SEED=n` with `HOLDFAST_SEEDS=count` or `HOLDFAST_MINUTES=n` runs
//! others than CI does; `cargo xtask soak node` sets these.
#![allow(clippy::unwrap_used)]

mod model;
mod operations;
mod removal;
mod simulation;
#[path = "../support/mod.rs"]
mod support;
mod sweep;

use std::time::{Duration, Instant};

use simulation::{Mutation, run};
use sweep::{env, sweep, sweep_for};

#[test]
fn nothing_acknowledged_is_lost_in_twenty_thousand_seeds_of_crashes() {
    let start = env("HOLDFAST_START_SEED").unwrap_or(0);
    let minutes = env("HOLDFAST_MINUTES");
    let seeds = match (env("HOLDFAST_SEED"), minutes) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(_)) => start..u64::MAX,
        (None, None) => start..start + env("HOLDFAST_SEEDS").unwrap_or(20_000),
    };
    let started = Instant::now();
    match sweep_for(seeds, minutes.map(|minutes| Duration::from_secs(60 * minutes)), Mutation::None) {
        Ok(summary) => {
            let count = summary.seeds;
            println!("{count} seeds in {:.1} s: {summary:?}", started.elapsed().as_secs_f32());
            // Each seed's own operations and crashes are looked at where it ends.
            assert!(summary.operations >= 200 * count && summary.crashes >= 3 * count);
            if count >= 100 {
                assert!(summary.acknowledged_appends > 20 * count && summary.seals > count && summary.copies > count);
                assert!(summary.scrubs > count && summary.scrubbed_bytes > 100_000 * count);
                assert!(summary.marked > count / 4);
                assert!(summary.trashed > count && summary.restored > count / 2 && summary.erased > count / 4);
            }
        }
        Err((seed, lost)) => panic!(
            "seed {seed}: {lost}\nreplay: HOLDFAST_SEED={seed} cargo test -p holdfast-node-engine --test crash nothing"
        ),
    }
}

#[test]
fn a_seed_means_the_same_every_time() {
    let start = env("HOLDFAST_START_SEED").unwrap_or(1000);
    for seed in start..start + 50 {
        assert_eq!(run(seed, Mutation::None), run(seed, Mutation::None), "seed {seed}");
    }
}

fn must_be_noticed(mutation: Mutation) {
    let (seed, lost) = sweep(0..2000, mutation).expect_err("a missing flush must be noticed");
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
