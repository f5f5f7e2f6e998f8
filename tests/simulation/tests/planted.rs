//! Bugs planted into the daemons, one at a time, by answering in their place or by spoiling what they write: the seeds find
//! each. One that they do not find shows that the simulation, not the cell, got weaker.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use holdfast_tests_simulation::sweep::{env, sweep};
use holdfast_tests_simulation::{Arrived, Options, Tamper};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Seeds in which each must be found.
const MOST_SEEDS: u64 = 300;

fn parameter(target: &str, name: &str) -> u64 {
    let query = target.split_once('?').unwrap().1;
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('=')).unwrap().parse().unwrap()
}

/// A batch counts as durable on a disk though it never got there: two of three times, as if the writer did not wait.
struct AcknowledgedBeforeAllReplicas;

impl Tamper for AcknowledgedBeforeAllReplicas {
    fn instead(&mut self, arrived: &Arrived<'_>) -> Option<Value> {
        let disk = arrived.target.strip_prefix("/v1/disks/").filter(|rest| rest.contains("/append?"))?;
        let lies = !matches!(disk.as_bytes()[0], b'0'..b'5');
        lies.then(|| json!({"tail": parameter(arrived.target, "offset") + arrived.body.len() as u64}))
    }
}

/// A copy is told as made and compared, and was not made.
struct CopyNotMade;

impl Tamper for CopyNotMade {
    fn instead(&mut self, arrived: &Arrived<'_>) -> Option<Value> {
        (arrived.target == "/v1/copy").then(|| {
            let order: Value = serde_json::from_slice(arrived.body).unwrap();
            json!({"length": order["length"], "digest": order["digest"]})
        })
    }
}

/// A replica that was away counts as whole though nobody compared it: what the volume's other replicas are, it is as well.
#[derive(Default)]
struct ReturnedReplicaBelieved {
    /// Volume -> digest, and how many replicas have answered it.
    digests: BTreeMap<String, (String, u32)>,
}

impl Tamper for ReturnedReplicaBelieved {
    fn instead(&mut self, arrived: &Arrived<'_>) -> Option<Value> {
        let order: Value = (arrived.target == "/v1/seal" && arrived.from.starts_with("vm"))
            .then(|| serde_json::from_slice(arrived.body).unwrap())?;
        let (digest, answers) = self.digests.get(order["volume"].as_str()?)?;
        (*answers >= 3).then(|| json!({"length": order["length"], "digest": digest}))
    }

    fn answered(&mut self, arrived: &Arrived<'_>, answer: &[u8]) {
        if arrived.target == "/v1/seal" && arrived.from.starts_with("vm") {
            let order: Value = serde_json::from_slice(arrived.body).unwrap();
            let answer: Value = serde_json::from_slice(answer).unwrap();
            let known = self.digests.entry(order["volume"].as_str().unwrap().to_owned()).or_default();
            *known = (answer["digest"].as_str().unwrap().to_owned(), known.1 + 1);
        }
    }
}

/// A fence is closed and stays open: late rows get into the index.
fn fences_stay_open(catalog: &Path) {
    let index = Connection::open(catalog.join("index.db")).unwrap();
    index
        .execute_batch(
            "CREATE TRIGGER planted BEFORE UPDATE OF closed ON fences WHEN NEW.closed = 1 BEGIN
                 SELECT RAISE(IGNORE);
             END;",
        )
        .unwrap();
}

fn must_be_found(bug: &str, options: impl Fn() -> Options + Sync) {
    let start = env("HOLDFAST_START_SEED").unwrap_or(0);
    let started = Instant::now();
    match sweep(start..start + MOST_SEEDS, None, options) {
        Err((seed, failure)) => {
            let shown: String = failure.what.chars().take(160).collect();
            println!("{bug}: found at seed {seed} after {:.1} s: {shown}", started.elapsed().as_secs_f32());
        }
        Ok(_) => panic!("{bug}: not found in {MOST_SEEDS} seeds"),
    }
}

#[test]
fn a_put_acknowledged_before_all_replicas_are_durable_is_found() {
    must_be_found("acknowledged before all replicas", || Options {
        tamper: Some(Box::new(AcknowledgedBeforeAllReplicas)),
        ..Options::default()
    });
}

#[test]
fn a_repair_committed_without_a_copy_is_found() {
    must_be_found("copy not made", || Options { tamper: Some(Box::new(CopyNotMade)), ..Options::default() });
}

#[test]
fn a_returned_replica_that_nobody_compared_is_found() {
    must_be_found("returned replica believed", || Options {
        tamper: Some(Box::new(ReturnedReplicaBelieved::default())),
        ..Options::default()
    });
}

#[test]
fn a_fence_that_does_not_close_is_found() {
    must_be_found("fences stay open", || Options {
        spoil_catalog: Some(Box::new(fences_stay_open)),
        ..Options::default()
    });
}
