//! A disk is replaced from its death to full protection by `admin disk replace`, which is stopped and run again on the way.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use holdfast_libs_types::BlockHash;
use holdfast_tests_cluster::blocks::{Blocks, put_random};
use holdfast_tests_cluster::cell::{Cell, binary, has_ended};
use holdfast_tests_cluster::{seed, wait_for};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};

/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(90);

/// Bytes of a disk of these cells.
const DISK_BYTES: u64 = 1 << 30;

/// Frontends that write, one after the other.
const FRONTENDS: u64 = 4;

/// A running `admin disk replace`; what it says goes to a file.
struct Replacing {
    child: Child,
    said: PathBuf,
}

impl Replacing {
    fn start(cell: &Cell, disk: &str, name: &str) -> anyhow::Result<Self> {
        let said = cell.path().join(name);
        let child = Command::new(binary()?)
            .args(["admin", "disk", "replace", disk, "--yes", "--json", "--dev"])
            .arg(cell.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&said)?)
            .spawn()?;
        Ok(Self { child, said })
    }

    fn wait_until_it_says(&self, words: &str) -> anyhow::Result<()> {
        wait_for(words, LIMIT, || {
            let said = std::fs::read_to_string(&self.said)?;
            Ok(if said.contains(words) { Ok(()) } else { Err(said) })
        })
    }

    fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The document that it answers, which must be one of success.
    fn answer(mut self) -> anyhow::Result<Value> {
        let said = self.said.clone();
        let ended = wait_for("the end of the replacement", LIMIT, || match self.child.try_wait()? {
            Some(status) => Ok(Ok(status)),
            None => Ok(Err(std::fs::read_to_string(&said)?)),
        })?;
        assert!(ended.success(), "{}", std::fs::read_to_string(&self.said)?);
        let mut document = String::new();
        self.child.stdout.take().context("it has no stdout")?.read_to_string(&mut document)?;
        Ok(serde_json::from_str(&document)?)
    }
}

impl Drop for Replacing {
    fn drop(&mut self) {
        // One that has ended is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Puts `count` blocks that no other `round` puts.
fn put(cell: &Cell, round: u64, count: u64) -> anyhow::Result<Vec<BlockHash>> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(put_random(&Blocks::of(cell)?, seed(9) + (round << 32), count, 256 * 1024))
}

fn get_all(cell: &Cell, hashes: &[BlockHash]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let blocks = Blocks::of(cell)?;
    hashes.iter().try_for_each(|hash| anyhow::Ok(runtime.block_on(blocks.get(*hash)).map(drop)?))
}

/// A disk of a node: its id and its file.
fn disk_of(cell: &Cell, node: &str) -> anyhow::Result<(String, PathBuf)> {
    let disks = cell.json(&["admin", "disk", "ls", "--node", node])?;
    let disk = &disks["disks"][0];
    let (id, path) = (disk["disk"].as_str().context("no disk")?, disk["path"].as_str().context("no path")?);
    Ok((id.to_owned(), PathBuf::from(path)))
}

/// Volumes with data that have a replica on a disk. One that was sealed empty stays where it is.
fn held(cell: &Cell, disk: &str) -> anyhow::Result<usize> {
    let held = cell.json(&["admin", "volume", "ls", "--disk", disk])?;
    Ok(held["volumes"].as_array().into_iter().flatten().filter(|volume| volume["can_lose"].is_u64()).count())
}

/// A disk as it comes from its maker, put where the old one was: there at once, and whole.
fn insert_blank(path: &Path) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    std::fs::File::create(&beside)?.set_len(DISK_BYTES)?;
    Ok(std::fs::rename(&beside, path)?)
}

/// What has to be so at the moment when a replacement says that it is done: no volume lacks a replica, the new disk stands at
/// the place of the old one and has some, and the old one is off the inventory.
fn is_done(cell: &Cell, done: &Value, old: &str, path: &Path, others: &[String]) -> anyhow::Result<()> {
    let status = cell.json(&["admin", "status"])?;
    let volumes = &status["volumes"];
    assert_eq!(volumes["can_lose"]["2"], volumes["total"], "it did not wait until all is whole: {volumes}");
    let by = done["by"].as_str().context("no new disk")?;
    assert!(by != old && !others.iter().any(|other| other == by), "a disk that was there is no new one: {done}");
    let shown = cell.json(&["admin", "disk", "show", by])?;
    assert_eq!((shown["disk"]["path"].as_str(), &shown["disk"]["node"]), (path.to_str(), &done["node"]), "{shown}");
    let on_new = held(cell, by)?;
    assert!(on_new > 0 && done["verified_volumes"].as_u64() > Some(0), "{on_new} volumes: {done}");
    let (code, _, said) = cell.run(&["admin", "disk", "show", old])?;
    assert!(code == 1 && said.contains("no disk"), "it is off the inventory: {code}: {said}");
    Ok(())
}

/// The ids of all disks of the cell.
fn ids(cell: &Cell) -> anyhow::Result<Vec<String>> {
    let disks = cell.json(&["admin", "disk", "ls"])?;
    let ids = disks["disks"].as_array().into_iter().flatten();
    Ok(ids.filter_map(|disk| disk["disk"].as_str()).map(str::to_owned).collect())
}

fn step(cell: &Cell, disk: &str) -> anyhow::Result<Value> {
    cell.json(&["admin", "disk", "replace", disk, "--status"])
}

#[test]
fn a_dead_disk_is_replaced_also_by_a_command_that_is_stopped_and_run_again_and_only_a_blank_disk_is_adopted()
-> anyhow::Result<()> {
    let cell = Cell::start("replace-dead-", &["--no-clients", "--disks", "1", "--disk-size", "1GiB"])?;
    let hashes = put(&cell, 0, 60)?;
    let (others, (old, path)) = (ids(&cell)?, disk_of(&cell, "node-1")?);
    std::fs::remove_file(&path)?;
    wait_for("the loss to be noticed", LIMIT, || {
        let shown = cell.json(&["admin", "disk", "show", &old])?;
        Ok(if shown["disk"]["in_service"] == false { Ok(()) } else { Err(shown.to_string()) })
    })?;
    let first = Replacing::start(&cell, &old, "first")?;
    first.wait_until_it_says("insert: a new disk at")?;
    first.wait_until_it_says("light: ")?;
    first.kill()?;
    let status = step(&cell, &old)?;
    assert!(status["step"] == "insert" && status["lacking"].as_u64() > Some(0), "{status}");

    let precious = b"somebody's only copy".repeat(1000);
    std::fs::write(&path, &precious)?;
    std::fs::File::options().write(true).open(&path)?.set_len(DISK_BYTES)?;
    let second = Replacing::start(&cell, &old, "second")?;
    second.wait_until_it_says("waits for a blank disk")?;
    let mut there = vec![0; precious.len()];
    std::fs::File::open(&path)?.read_exact(&mut there)?;
    assert_eq!(there, precious);
    std::fs::remove_file(&path)?;
    // Nor is a copy of a disk that is in use elsewhere a new one.
    let (_, elsewhere) = disk_of(&cell, "node-2")?;
    std::fs::copy(&elsewhere, path.with_extension("copy"))?;
    std::fs::rename(path.with_extension("copy"), &path)?;
    second.wait_until_it_says("which is in use at node-2")?;
    assert_eq!(step(&cell, &old)?["step"], "unfit");
    std::fs::remove_file(&path)?;
    // Nothing is made again before it is looked whether the command waits for that.
    cell.json(&["admin", "repair", "pause"])?;
    insert_blank(&path)?;
    second.wait_until_it_says(" now (")?;
    second.kill()?;
    // Now two disks were at this place, and only an id tells which is meant.
    let place = format!("node-1:{}", path.display());
    wait_for("the new disk to be taken in", LIMIT, || {
        let (code, _, said) = cell.run(&["admin", "disk", "replace", &place, "--status"])?;
        Ok(if code == 2 && said.contains("say by its id") { Ok(()) } else { Err(format!("{code}: {said}")) })
    })?;
    let third = Replacing::start(&cell, &old, "third")?;
    third.wait_until_it_says("refill: ")?;
    let status = step(&cell, &old)?;
    assert!(status["step"] == "refill" && status["lacking"].as_u64() > Some(0), "{status}");
    cell.json(&["admin", "repair", "resume"])?;
    let done = third.answer()?;
    assert_eq!((&done["replaced"], &done["node"]), (&Value::from(old.as_str()), &Value::from("node-1")), "{done}");
    is_done(&cell, &done, &old, &path, &others)?;
    get_all(&cell, &hashes)
}

#[test]
fn a_disk_in_use_is_drained_with_consent_before_it_is_to_be_pulled_and_its_successor_takes_its_place()
-> anyhow::Result<()> {
    let mut cell = Cell::start("replace-live-", &["--no-clients", "--disks", "2", "--disk-size", "1GiB"])?;
    // One that ends has its volumes sealed, and the next one takes others: of few the new disk would have no share worth a move.
    let (mut frontend, mut hashes) = (cell.pid("frontend")?, put(&cell, 0, 40)?);
    for round in 1..FRONTENDS {
        kill(frontend, Signal::SIGTERM)?;
        wait_for("the end of the frontend", LIMIT, || {
            Ok(has_ended(frontend).then_some(()).ok_or("it runs".to_owned()))
        })?;
        frontend = cell.revive("frontend")?;
        hashes.extend(wait_for(
            "the frontend",
            LIMIT,
            || Ok(put(&cell, round, 40).map_err(|error| error.to_string())),
        )?);
    }
    let disks = cell.json(&["admin", "disk", "ls", "--node", "node-1"])?;
    let (mut before, mut fullest) = (0, None);
    for disk in disks["disks"].as_array().into_iter().flatten() {
        let (id, path) = (disk["disk"].as_str().context("no disk")?, disk["path"].as_str().context("no path")?);
        let holds = held(&cell, id)?;
        if holds > before {
            (before, fullest) = (holds, Some((id.to_owned(), PathBuf::from(path))));
        }
    }
    let (old, path) = fullest.context("no disk of node-1 holds anything")?;
    let others = ids(&cell)?;
    let (code, _, said) = cell.run(&["admin", "disk", "replace", &old])?;
    assert!(code == 2 && said.contains("say --yes"), "{code}: {said}");
    let shown = cell.json(&["admin", "disk", "show", &old])?;
    assert_eq!(shown["disk"]["asked"], json!([]), "nothing was ordered");
    let replacing = Replacing::start(&cell, &old, "replacing")?;
    replacing.wait_until_it_says("pull: nothing is left on it")?;
    assert_eq!(held(&cell, &old)?, 0);
    cell.wait_protected(LIMIT)?;
    std::fs::remove_file(&path)?;
    replacing.wait_until_it_says("insert: a new disk at")?;
    insert_blank(&path)?;
    let done = replacing.answer()?;
    // All went to the other disk of the node, and nothing but a rebalance brings the new one its share.
    assert!(done["replaced"] == old.as_str() && done["short"] == 0, "{done}");
    let (holds, share) = (done["holds"].as_f64().context("no holds")?, done["share"].as_f64().context("no share")?);
    assert!(share > 1.5 && holds >= share * 0.97 - 1.0, "open volumes are a part of what the disks hold: {done}");
    is_done(&cell, &done, &old, &path, &others)?;
    get_all(&cell, &hashes)
}

#[test]
fn a_disk_whose_volumes_have_no_other_place_is_not_drained_and_one_that_is_not_there_cannot_be_replaced()
-> anyhow::Result<()> {
    let cell = Cell::start("replace-not-", &["--no-clients", "--disks", "1", "--disk-size", "1GiB"])?;
    put(&cell, 0, 10)?;
    let (disk, path) = disk_of(&cell, "node-2")?;
    // Its volumes have nowhere else to go in distinct zones.
    let (code, _, said) = cell.run(&["admin", "disk", "replace", &disk, "--yes"])?;
    assert!(code == 1 && said.contains("1 more node with a disk in service needed, 0 there"), "{code}: {said}");
    assert_eq!(step(&cell, &disk)?["step"], "drain");
    let (code, _, said) = cell.run(&["admin", "disk", "replace", "ffffffffffffffff", "--yes"])?;
    assert!(code == 1 && said.contains("no disk `ffffffffffffffff`"), "{code}: {said}");
    let (code, _, said) = cell.run(&["admin", "disk", "locate", &disk, "on"])?;
    assert!(code == 1 && said.contains("it is a file"), "{code}: {said}");
    assert!(path.exists());
    Ok(())
}
