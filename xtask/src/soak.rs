//! The suites of `cargo xtask soak`: they run for hours.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;

use crate::suites::{cargo, run as run_command};

/// Seeds that a soak takes for a second of the clock: more than it can run, so that no two soaks on one machine run the
/// same. Those from 0 on are CI's.
const SEEDS_PER_S: u64 = 10_000;

/// How long a suite runs.
pub struct Length {
    /// Seeds or rounds.
    pub rounds: u64,
    /// Instead of seeds.
    pub minutes: Option<u64>,
}

/// Runs a suite.
///
/// # Errors
/// When it fails; its output names the seed and how to replay it.
pub fn run(suite: &str, length: &Length, seed: Option<u64>) -> anyhow::Result<()> {
    if length.minutes.is_some() && !["node", "cluster"].contains(&suite) {
        bail!("`--minutes` is for the suites `node` and `cluster`; give `{suite}` a number of `--rounds`");
    }
    let rounds = length.rounds.to_string();
    let first = seed.unwrap_or(1).to_string();
    match suite {
        "node" => seeds(suite, ["holdfast-node-engine", "crash"], length, seed),
        "cluster" => seeds(suite, ["holdfast-tests-simulation", "seeds"], length, seed),
        // In the profile of the tests: it looks for overflows.
        "fuzz" => run_command(
            "soak fuzz",
            cargo(&["run", "--package", "holdfast-tests-fuzz", "--", "all", "--seconds", "60"])
                .args(["--rounds", &rounds, "--seed", &first]),
        ),
        "kill" => {
            run_command("binary", &mut cargo(&["build", "--release", "--bin", "holdfast"]))?;
            run_command(
                "soak kill",
                cargo(&["test", "--release", "--package", "holdfast-tests-cluster", "--test", "cells", "kills::"])
                    .args(["--", "--nocapture", "--test-threads=1"])
                    .env("HOLDFAST_ROUNDS", rounds)
                    .env("HOLDFAST_SEED", first),
            )
        }
        "kill-engine" => run_command(
            "soak kill-engine",
            cargo(&["test", "--package", "holdfast-node-engine", "--test", "kill", "--", "--nocapture"])
                .env("HOLDFAST_KILL_ROUNDS", rounds)
                .env("HOLDFAST_SEED", first),
        ),
        other => bail!("no soak suite `{other}`; there are `node`, `cluster`, `fuzz`, `kill`, `kill-engine`"),
    }
}

/// A test over seeds, in the profile of the tests, with seeds that it did not run before.
fn seeds(suite: &str, [package, test]: [&str; 2], length: &Length, seed: Option<u64>) -> anyhow::Result<()> {
    let start = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() * SEEDS_PER_S,
    };
    eprintln!("seeds from {start} on; `--seed {start}` runs the same");
    let mut command = cargo(&["test", "--package", package, "--test", test, "nothing"]);
    command.args(["--", "--nocapture"]).env("HOLDFAST_START_SEED", start.to_string());
    match length.minutes {
        Some(minutes) => command.env("HOLDFAST_MINUTES", minutes.to_string()),
        None => command.env("HOLDFAST_SEEDS", length.rounds.to_string()),
    };
    run_command(&format!("soak {suite}"), &mut command)
}
