//! kill -9 of a process that appends, seals, removes and scrubs, and at once a successor on the same disk, round after
//! round: on a file, and on a loop device, where the kernel's block trace shows that every write was issued durable.
//!
//! A kill keeps the page cache and the drive's cache, so the rounds alone show that a restart loses nothing; together with
//! the trace they show that a power cut would not either.
#![allow(clippy::unwrap_used)]

mod child;
mod history;
mod loop_device;
#[path = "../support/mod.rs"]
mod support;
mod trace;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast_libs_sim::streams::SimRng;
use holdfast_node_engine::{Disk, FormatOptions, IoMode, format};

use history::{Event, History};
use loop_device::LoopDevice;
use support::{CELL, directory, make_disk, open};
use trace::Trace;

const DISK_BYTES: u64 = 48 << 20;
const SLOT_BYTES: u64 = 1 << 20;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// Rounds of each test. Most things happen within a few dozens.
fn rounds() -> u64 {
    number("HOLDFAST_KILL_ROUNDS", 60)
}

/// Lets a child work on the disk until it has said a number of things, kills it, and returns what it said.
fn round(path: &Path, seed: u64, rng: &mut SimRng) -> Vec<Event> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child::works_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(child::DISK, path)
        .env(child::SEED, seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut wanted = 1 + rng.index(100);
    let mut events = Vec::new();
    while wanted > 0 {
        let Some(line) = lines.next() else { break };
        let event = Event::parse(&line);
        wanted -= usize::from(matches!(event, Some(Event::Acknowledged { .. })));
        events.extend(event);
    }
    // Anywhere in the middle of what it does.
    std::thread::sleep(Duration::from_micros(rng.below(2000)));
    assert_eq!(child.try_wait().unwrap(), None, "seed {seed}: the child ended by itself after {:?}", events.last());
    child.kill().unwrap();
    child.wait().unwrap();
    events.extend(lines.filter_map(|line| Event::parse(&line)));
    events
}

/// Runs all rounds; `look` sees the events of each round.
fn rounds_on(path: &Path, name: &str, mut look: impl FnMut(u64, &[Event])) {
    let first = number("HOLDFAST_SEED", 1);
    let mut history = History::default();
    let mut said = 0;
    for number in 0..rounds() {
        let seed = first + number;
        let mut rng = SimRng::from_seed(seed);
        let events = round(path, seed, &mut rng);
        said += events.len();
        history.follow(&events);
        look(seed, &events);
        let disk: Disk = open(path, IoMode::Auto);
        history.check(&disk, seed);
    }
    println!("{name}: {} rounds, {said} events; {history}", rounds());
    assert!(rounds() < 50 || history.saw_everything(), "{name}: {history}");
}

#[test]
fn a_file_keeps_all_that_was_acknowledged() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", DISK_BYTES, SLOT_BYTES);
    rounds_on(&path, "file", |_, _| {});
}

#[test]
fn a_block_device_keeps_all_that_was_acknowledged_and_every_write_was_durable() {
    let dir = directory();
    let Some(device) = LoopDevice::attach(&dir.path().join("backing"), DISK_BYTES) else { return };
    let path = device.path();
    format(path, &FormatOptions { cell: CELL, slot_bytes: SLOT_BYTES, size_bytes: None }).unwrap();
    let Some(trace) = Trace::of(path) else { return };
    let (mut appends, mut others) = (0, 0);
    rounds_on(path, "loop device", |seed, events| {
        let found = trace.check(path, events, seed);
        (appends, others) = (appends + found[0], others + found[1]);
        trace.clear();
    });
    println!("loop device: durable before they were acknowledged: {appends} appends, {others} other steps");
    assert!(appends > 0 && others > 0);
}
