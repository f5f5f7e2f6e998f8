//! Every parser of disk and wire bytes, for a bounded time each.
//!
//! `HOLDFAST_SEED` tries other inputs.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests_fuzz::supervisor::Plan;
use holdfast_tests_fuzz::targets;

/// Of each target. All together must stay below 90 s on two cores.
const SECONDS: f64 = 2.0;

#[test]
fn no_parser_panics_hangs_or_allocates_without_bound() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    let seed = std::env::var("HOLDFAST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_holdfast-fuzz"));
    let plan = Plan { program, folder, time: Duration::from_secs_f64(SECONDS), seed };
    let names: Vec<String> = targets::all().iter().map(|target| target.name.to_owned()).collect();
    let ends = plan.run(&names);
    assert_eq!(ends.len(), names.len());
    let findings: Vec<String> = ends.into_iter().filter_map(|end| end.finding).collect();
    assert!(findings.is_empty(), "HOLDFAST_SEED={seed}\n{}", findings.join("\n"));
}
