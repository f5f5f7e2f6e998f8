//! A whole cell for tests: `holdfast dev` from the build of the tests themselves, driven as an operator and an application would.
//!
//! `cargo xtask test --only cluster` builds and runs it. The folder of a cell lies under `target/`, on the file system of the checkout, so that O_DIRECT and durable writes are real.

pub mod blocks;
pub mod cell;
pub mod disks;
pub mod load;
pub mod replicas;
pub mod tree;

use std::time::{Duration, Instant};

use anyhow::bail;

/// Waits until `check` answers something; an error message while it does not.
///
/// # Errors
/// The last message, when `limit` is over.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match check()? {
            Ok(found) => return Ok(found),
            Err(reason) if started.elapsed() > limit => {
                bail!("{what}: not after {} s: {reason}", limit.as_secs());
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The seed of a test: HOLDFAST_SEED, or the one that CI runs. Print it with every failure.
pub fn seed(default: u64) -> u64 {
    std::env::var("HOLDFAST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The number of rounds of a test: HOLDFAST_ROUNDS, or what CI runs.
pub fn rounds(default: u64) -> u64 {
    std::env::var("HOLDFAST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
