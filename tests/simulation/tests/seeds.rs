//! Seeds of the cluster simulation: nothing acknowledged is lost, nothing wrong is read, and the cell makes itself whole.
//!
//! `HOLDFAST_SEED=n` replays one seed, with the lines of its trace. `HOLDFAST_START_SEED=n` with `HOLDFAST_SEEDS=count` or
//! `HOLDFAST_MINUTES=n` runs others than CI does; `cargo xtask soak cluster` sets these.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use holdfast_tests_simulation::sweep::{env, run_caught, sweep};
use holdfast_tests_simulation::{Options, run};

/// What CI runs.
const SEEDS: u64 = 2000;

#[test]
fn nothing_acknowledged_is_lost_and_the_cell_becomes_whole_again_in_two_thousand_seeds() {
    if let Some(seed) = env("HOLDFAST_SEED") {
        return replay(seed);
    }
    let start = env("HOLDFAST_START_SEED").unwrap_or(0);
    let minutes = env("HOLDFAST_MINUTES");
    let seeds = match minutes {
        Some(_) => start..u64::MAX,
        None => start..start + env("HOLDFAST_SEEDS").unwrap_or(SEEDS),
    };
    let started = Instant::now();
    match sweep(seeds, minutes.map(|minutes| Duration::from_secs(60 * minutes)), Options::default) {
        Ok(total) => {
            println!("{} seeds in {:.1} s: {:?}", total.seeds, started.elapsed().as_secs_f32(), total.sum);
            assert!(total.seeds < SEEDS || total.sum.displaced > 0, "nothing gave way to a copy");
        }
        Err((seed, failure)) => panic!(
            "seed {seed}: {}\nreplay: HOLDFAST_SEED={seed} cargo test -p holdfast-tests-simulation --test seeds nothing -- \
             --nocapture",
            failure.what
        ),
    }
}

fn replay(seed: u64) {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time().init();
    }
    match run_caught(seed, Options { lines: true, ..Options::default() }) {
        Ok(summary) => println!("seed {seed}: {summary:?}"),
        Err(failure) => {
            failure.lines.iter().for_each(|line| println!("{line}"));
            panic!("seed {seed}: {}", failure.what);
        }
    }
}

#[test]
fn a_seed_means_the_same_every_time() {
    let start = env("HOLDFAST_START_SEED").unwrap_or(0);
    for seed in start..start + 20 {
        let [one, other] = [0, 1].map(|_| run(seed, Options::default()).unwrap());
        assert_eq!(one, other, "seed {seed}");
    }
}
