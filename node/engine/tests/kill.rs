//! kill -9 of a process that appends, and at once a successor on the same file. A kill keeps the page cache and the
//! drive's cache, so this shows that a restart works, not that writes are durable; the crash test shows that.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use holdfast_libs_sim::streams::SimRng;
use holdfast_libs_types::VolumeId;
use holdfast_node_engine::{ExtentState, IoMode};
use support::{EPOCH, aligned, batch, block_on, directory, make_disk, open, volume};

const ROUNDS: u8 = 8;
const CHILD_DISK: &str = "HOLDFAST_TEST_KILL_DISK";
const CHILD_VOLUME: &str = "HOLDFAST_TEST_KILL_VOLUME";

/// The batch that belongs to a place, as both processes know it.
fn batch_at(volume: VolumeId, offset: u64) -> Vec<u8> {
    let mut rng = SimRng::from_seed(offset ^ u64::from(volume.0[15]));
    let payloads: Vec<Vec<u8>> = (0..1 + rng.index(3))
        .map(|_| {
            let mut payload = vec![0; 16 + rng.index(20_000)];
            rng.fill(&mut payload);
            payload
        })
        .collect();
    batch(volume, EPOCH, offset, offset, &payloads).0
}

/// Nothing, unless it is the child of the test below: then it appends until it is killed, and says what was
/// acknowledged.
#[test]
fn child_appends_until_it_is_killed() {
    let (Ok(path), Ok(number)) = (std::env::var(CHILD_DISK), std::env::var(CHILD_VOLUME)) else { return };
    let disk = open(Path::new(&path), IoMode::Auto);
    let v = volume(number.parse().unwrap());
    block_on(disk.create_extent(v, EPOCH)).unwrap();
    let mut tail = 0;
    while let Ok(end) = block_on(disk.append(v, EPOCH, tail, aligned(&batch_at(v, tail)))) {
        println!("acknowledged {tail} {end}");
        tail = end;
    }
    println!("full");
    // Full before it was killed: wait for that.
    loop {
        std::thread::park();
    }
}

#[test]
fn a_successor_of_a_killed_process_opens_the_disk_at_once_and_finds_all_that_was_acknowledged() {
    let dir = directory();
    let path = make_disk(dir.path(), "disk", 64 << 20, 2 << 20);
    let mut acknowledged: Vec<(VolumeId, u64)> = Vec::new();
    let mut rng = SimRng::from_seed(9);
    for round in 1..=ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_appends_until_it_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD_DISK, &path)
            .env(CHILD_VOLUME, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut end = 0;
        let wanted = 1 + rng.below(15);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let answers = lines.map_while(Result::ok).filter_map(|line| {
            let mut words = line.split("acknowledged ").nth(1)?.split(' ').map(|word| word.parse::<u64>().unwrap());
            Some((words.next()?, words.next()?))
        });
        for (start, to) in answers.take(wanted as usize) {
            assert_eq!(start, end);
            end = to;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.push((volume(round), end));

        let disk = open(&path, IoMode::Auto);
        for (v, end) in &acknowledged {
            let info = block_on(disk.extent(*v)).unwrap();
            assert!(info.state == ExtentState::Open && info.length >= *end, "{info:?}, acknowledged {end}");
            let mut at = 0;
            while at < info.length {
                let expected = batch_at(*v, at);
                assert_eq!(block_on(disk.read(*v, at, expected.len() as u32)).unwrap()[..], expected[..]);
                at += expected.len() as u64;
            }
        }
    }
    assert!(acknowledged.iter().all(|(_, end)| *end > 0));
}
