//! Bugs planted in the engine, one at a time: the crash test finds each. A bug that it does not find shows that the
//! test, not the engine, got weaker.
#![allow(clippy::unwrap_used)]

#[path = "crash/model.rs"]
mod model;
#[path = "crash/operations.rs"]
mod operations;
#[path = "crash/removal.rs"]
mod removal;
#[path = "crash/simulation.rs"]
mod simulation;
mod support;
#[path = "crash/sweep.rs"]
mod sweep;

use std::time::Instant;

use holdfast_node_engine::PlantedBug;
use simulation::Mutation;
use sweep::{env, sweep};

/// Seeds in which each must be found.
const MOST_SEEDS: u64 = 2000;

#[test]
fn every_planted_bug_is_found() {
    let start = env("HOLDFAST_START_SEED").unwrap_or(0);
    let mut missed = Vec::new();
    for bug in PlantedBug::ALL {
        let started = Instant::now();
        match sweep(start..start + MOST_SEEDS, Mutation::Planted(bug)) {
            Err((seed, lost)) => {
                let shown: String = lost.chars().take(160).collect();
                println!("{bug:?}: found at seed {seed} after {:.2} s: {shown}", started.elapsed().as_secs_f32());
            }
            Ok(_) => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found in {MOST_SEEDS} seeds: {missed:?}");
}
