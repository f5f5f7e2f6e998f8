//! Daemons are killed at any moment; what was acknowledged stays readable.
//!
//! The oracle is a log of acknowledgements outside the cell's folder. A kill -9 keeps the page cache, so this shows
//! restart, not durability; durability is shown by the engine's crash test on the simulated disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holdfast_tests_cluster::blocks::{Blocks, Oracle};
use holdfast_tests_cluster::cell::{Cell, has_ended, scratch};
use holdfast_tests_cluster::load::{Load, Pace, read_back, wait_writable};
use holdfast_tests_cluster::{rounds, seed, wait_for};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

#[test]
fn what_was_acknowledged_survives_kills_of_everything_under_load() -> anyhow::Result<()> {
    let seed = seed(20_261_124);
    println!("HOLDFAST_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let outside = scratch("oracle-")?;
    let oracle = Arc::new(Oracle::create(&outside.path().join("acknowledged.log"))?);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut cell = Cell::start("kills-", &["--no-clients"])?;
    let rounds = rounds(20);
    let mut with_requests = 0;
    for round in 0..rounds {
        let blocks = Blocks::of(&cell)?;
        wait_writable(&runtime, &blocks, &oracle, seed + round)?;
        let already = oracle.all().len();
        let load = runtime.block_on(async { Load::start(&blocks, &oracle, seed ^ (round << 40), Pace::default()) });
        let started = Instant::now();
        let least = 60 + u64::from(random.next_u32() % 40);
        wait_for("acknowledgements", Duration::from_secs(60), || {
            let done = (oracle.all().len() - already) as u64;
            Ok(if done >= least { Ok(()) } else { Err(format!("{done} of {least}")) })
        })?;
        with_requests += u64::from(load.in_flight() > 0);
        cell.kill_all()?;
        runtime.block_on(load.stop())?;
        cell.resume()?;
        println!("round {round}: {} acknowledged, killed after {:?}", oracle.all().len(), started.elapsed());
        let mut sample = oracle.all();
        sample.shuffle(&mut random);
        sample.truncate(100);
        runtime.block_on(read_back(&Blocks::of(&cell)?, &sample))?;
    }
    let all = oracle.all();
    runtime.block_on(read_back(&Blocks::of(&cell)?, &all))?;
    println!("{rounds} rounds, {with_requests} with requests in flight, {} acknowledged, none lost", all.len());
    assert!(all.len() as u64 >= 50 * rounds, "too few acknowledgements: {}", all.len());
    assert!(with_requests * 2 >= rounds, "only {with_requests} of {rounds} kills met a request in flight");
    Ok(())
}

#[test]
fn one_node_may_die_during_writes_and_during_reads() -> anyhow::Result<()> {
    let seed = seed(7);
    println!("HOLDFAST_SEED={seed}");
    let outside = scratch("oracle-")?;
    let oracle = Arc::new(Oracle::create(&outside.path().join("acknowledged.log"))?);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut cell = Cell::start("node-death-", &["--no-clients"])?;
    let blocks = Blocks::of(&cell)?;

    let load = runtime.block_on(async { Load::start(&blocks, &oracle, seed, Pace::default()) });
    let enough = |least: usize| {
        wait_for("acknowledgements", Duration::from_secs(60), || {
            let done = oracle.all().len();
            Ok(if done >= least { Ok(done) } else { Err(format!("{done} of {least}")) })
        })
    };
    enough(200)?;
    cell.kill("node-1")?;
    // With three zones a volume needs all three; writes wait for the node and then go on.
    std::thread::sleep(Duration::from_millis(500));
    let before = oracle.all().len();
    cell.revive("node-1")?;
    enough(before + 200)?;
    runtime.block_on(load.stop())?;
    let all = oracle.all();
    runtime.block_on(read_back(&blocks, &all))?;

    cell.kill("node-2")?;
    runtime.block_on(read_back(&blocks, &all)).context("reads with one node dead")?;
    cell.revive("node-2")?;
    println!("{} acknowledged, none lost, every read served with a node dead", all.len());
    Ok(())
}

#[test]
fn a_frontend_that_dies_between_append_and_index_row_loses_nothing_acknowledged() -> anyhow::Result<()> {
    let seed = seed(11);
    println!("HOLDFAST_SEED={seed}");
    let outside = scratch("oracle-")?;
    let oracle = Arc::new(Oracle::create(&outside.path().join("acknowledged.log"))?);
    let runtime = tokio::runtime::Runtime::new()?;
    let options = ["--no-clients", "--set", "frontend.writer.fault_after_append=5"];
    let mut cell = Cell::start("frontend-death-", &options)?;
    let blocks = Blocks::of(&cell)?;
    let load = runtime.block_on(async { Load::start(&blocks, &oracle, seed, Pace::default()) });
    let mut deaths = 0;
    let mut pid = cell.pid("frontend")?;
    while deaths < 5 {
        wait_for("the frontend's death", Duration::from_secs(60), || {
            Ok(if has_ended(pid) { Ok(()) } else { Err(format!("pid {pid} lives")) })
        })?;
        deaths += 1;
        pid = cell.revive("frontend")?;
    }
    runtime.block_on(load.stop())?;
    if oracle.all().is_empty() {
        bail!("nothing was acknowledged before the frontend died");
    }
    let all = oracle.all();
    cell.kill_all()?;
    cell.set_options(&["--no-clients"]);
    cell.resume()?;
    let blocks = Blocks::of(&cell)?;
    runtime.block_on(read_back(&blocks, &all))?;
    println!("{deaths} deaths between append and index row, {} acknowledged, none lost", all.len());
    Ok(())
}
