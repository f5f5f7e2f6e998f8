//! Two folders stay the same, through the whole stack.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use holdfast_tests_cluster::cell::Cell;
use holdfast_tests_cluster::{tree, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

/// In CI: at least 5,000 files and 256 MiB in all.
const SMALL_FILES: usize = 5_000;
const SMALL_MAX_BYTES: usize = 24 * 1024;
const LARGE_BYTES: usize = 224 << 20;

fn counter(status: &Value, folder: &str, key: &str) -> anyhow::Result<u64> {
    let clients = status["clients"].as_array().context("no clients")?;
    let client = clients.iter().find(|client| client["folder"].as_str().is_some_and(|path| path.ends_with(folder)));
    client.and_then(|client| client[key].as_u64()).with_context(|| format!("no {key} of {folder} in {status}"))
}

fn assert_same(cell: &Cell) -> anyhow::Result<()> {
    let found = tree::differences(&cell.path().join("laptop"), &cell.path().join("desktop"))?;
    assert!(found.is_empty(), "the folders differ:\n{}", found.join("\n"));
    Ok(())
}

fn random_file(path: &Path, bytes: usize, seed: u64) -> anyhow::Result<()> {
    use rand::{Rng as _, SeedableRng as _};
    let mut random = rand::rngs::SmallRng::seed_from_u64(seed);
    let mut file = fs::File::create(path)?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        random.fill_bytes(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(())
}

#[test]
fn a_tree_of_all_kinds_becomes_the_same_on_the_other_side() -> anyhow::Result<()> {
    let cell = Cell::start("sync-", &[])?;
    let (laptop, desktop) = (cell.path().join("laptop"), cell.path().join("desktop"));

    let started = Instant::now();
    tree::make_odd(&laptop)?;
    cell.wait_synced(Duration::from_secs(60))?;
    assert_same(&cell)?;
    println!("odd tree: {:?}", started.elapsed());

    let started = Instant::now();
    let small = tree::make_many(&laptop.join("many"), SMALL_FILES, SMALL_MAX_BYTES, 1)?;
    cell.wait_synced(Duration::from_secs(240))?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{SMALL_FILES} files, {} MB: {:.0} files/s", small / 1_000_000, SMALL_FILES as f64 / seconds);

    let started = Instant::now();
    random_file(&laptop.join("large.bin"), LARGE_BYTES, 2)?;
    let status = cell.wait_synced(Duration::from_secs(240))?;
    println!("large file: {:.0} MB/s", LARGE_BYTES as f64 / 1e6 / started.elapsed().as_secs_f64());
    assert_same(&cell)?;
    let received = counter(&status, "desktop", "block_bytes_received")?;
    assert!(received >= small + LARGE_BYTES as u64, "desktop received only {received} bytes of blocks");

    changes(&cell, &laptop, &desktop)?;
    Ok(())
}

/// A folder of many files is renamed, a large file edited in the middle, a folder deleted.
fn changes(cell: &Cell, laptop: &Path, desktop: &Path) -> anyhow::Result<()> {
    let before = cell.wait_synced(Duration::from_secs(60))?;
    let renamed = laptop.join("renamed");
    fs::create_dir(&renamed)?;
    for part in 0..20 {
        fs::rename(laptop.join(format!("many/part-{part:03}")), renamed.join(format!("part-{part:03}")))?;
    }
    fs::rename(&renamed, laptop.join("renamed again"))?;
    let after = cell.wait_synced(Duration::from_secs(60))?;
    assert_same(cell)?;
    for folder in ["laptop", "desktop"] {
        for key in ["block_bytes_sent", "block_bytes_received"] {
            assert_eq!(counter(&before, folder, key)?, counter(&after, folder, key)?, "{folder} {key} after a rename");
        }
    }

    let mut file = fs::OpenOptions::new().write(true).open(laptop.join("large.bin"))?;
    file.seek(SeekFrom::Start(LARGE_BYTES as u64 / 2 + 12_345))?;
    file.write_all(&[0x5a; 4096])?;
    drop(file);
    let edited = wait_for("the edited block", Duration::from_secs(60), || {
        let status = cell.wait_synced(Duration::from_secs(60))?;
        let sent = counter(&status, "laptop", "block_bytes_sent")? - counter(&after, "laptop", "block_bytes_sent")?;
        Ok(if sent > 0 { Ok(status) } else { Err("nothing sent yet".to_owned()) })
    })?;
    assert_same(cell)?;
    let sent = counter(&edited, "laptop", "block_bytes_sent")? - counter(&after, "laptop", "block_bytes_sent")?;
    assert_eq!(sent, 4 << 20, "an edit of 4 KiB sends one block");
    let received =
        counter(&edited, "desktop", "block_bytes_received")? - counter(&after, "desktop", "block_bytes_received")?;
    assert_eq!(received, 4 << 20, "and the other side fetches that block only");

    fs::remove_dir_all(laptop.join("renamed again"))?;
    wait_for("the deletion", Duration::from_secs(60), || {
        Ok(if desktop.join("renamed again").exists() { Err("still there".to_owned()) } else { Ok(()) })
    })?;
    cell.wait_synced(Duration::from_secs(60))?;
    assert_same(cell)
}

#[test]
fn an_edit_on_both_sides_ends_as_a_conflict_copy_on_both() -> anyhow::Result<()> {
    let mut cell = Cell::start("conflict-", &[])?;
    let (laptop, desktop) = (cell.path().join("laptop"), cell.path().join("desktop"));
    fs::create_dir(laptop.join("folder"))?;
    fs::write(laptop.join("folder/shared.txt"), "first")?;
    wait_for("the file on the other side", Duration::from_secs(30), || {
        Ok(if desktop.join("folder/shared.txt").exists() { Ok(()) } else { Err("not there".to_owned()) })
    })?;
    cell.wait_synced(Duration::from_secs(30))?;

    cell.signal("sync-desktop", Signal::SIGTERM)?;
    wait_for("the client's end", Duration::from_secs(20), || {
        let status = cell.json(&["status"])?;
        let stopped = status["clients"].as_array().into_iter().flatten().any(|client| client["state"] == "stopped");
        Ok(if stopped { Ok(()) } else { Err(status.to_string()) })
    })?;
    fs::write(laptop.join("folder/shared.txt"), "edited on the laptop")?;
    fs::write(desktop.join("folder/shared.txt"), "edited on the desktop")?;
    fs::write(laptop.join("folder/same.txt"), "equal on both")?;
    fs::write(desktop.join("folder/same.txt"), "equal on both")?;
    wait_for("the laptop's upload", Duration::from_secs(30), || {
        let status = cell.json(&["status"])?;
        let idle = status["clients"].as_array().into_iter().flatten().any(|client| client["state"] == "idle");
        let listed = cell.run(&["ls", "/folder"])?.1.to_string();
        let edited = listed.contains("same.txt");
        Ok(if idle && edited { Ok(()) } else { Err(listed) })
    })?;
    cell.revive("sync-desktop")?;
    wait_for("the conflict copy on both sides", Duration::from_secs(60), || {
        let names = |folder: &Path| -> anyhow::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(folder.join("folder"))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        let (left, right) = (names(&laptop)?, names(&desktop)?);
        Ok(if left == right && left.len() == 3 { Ok(()) } else { Err(format!("{left:?} against {right:?}")) })
    })?;
    cell.wait_synced(Duration::from_secs(30))?;
    // The equal file's mtime is that of one side; everything else is compared.
    assert_same(&cell)?;
    let mut contents = Vec::new();
    for entry in fs::read_dir(laptop.join("folder"))? {
        let path = entry?.path();
        contents.push(fs::read_to_string(&path)?);
        if path.to_string_lossy().contains("conflicted copy") {
            let name = path.file_name().context("no name")?.to_string_lossy().into_owned();
            assert!(name.starts_with("shared (") && name.ends_with(").txt"), "{name}");
        }
    }
    contents.sort();
    assert_eq!(contents, ["edited on the desktop", "edited on the laptop", "equal on both"]);
    Ok(())
}

#[test]
fn what_cannot_be_synced_stays_local_and_is_listed() -> anyhow::Result<()> {
    let cell = Cell::start("local-", &[])?;
    tree::make_unsyncable(&cell.path().join("laptop"))?;
    fs::write(cell.path().join("laptop/beside"), "synced")?;
    wait_for("the file beside", Duration::from_secs(30), || {
        Ok(if cell.path().join("desktop/beside").exists() { Ok(()) } else { Err("not there".to_owned()) })
    })?;
    let status = cell.wait_synced(Duration::from_secs(30))?;
    assert_eq!(counter(&status, "laptop", "not_synced")?, 2, "{status}");
    assert_eq!(fs::read_dir(cell.path().join("desktop"))?.count(), 1);
    Ok(())
}

#[test]
fn clients_converge_by_pull_when_every_notification_is_dropped() -> anyhow::Result<()> {
    let options = ["--set", "sync.notifications=false", "--set", "sync.pull_interval_ms=300"];
    let cell = Cell::start("pull-", &options)?;
    let (laptop, desktop) = (cell.path().join("laptop"), cell.path().join("desktop"));
    tree::make_many(&laptop.join("from the laptop"), 100, 5000, 3)?;
    tree::make_many(&desktop.join("from the desktop"), 100, 5000, 4)?;
    wait_for("both folders on both sides", Duration::from_secs(60), || {
        let found = tree::differences(&laptop, &desktop)?;
        Ok(if found.is_empty() { Ok(()) } else { Err(found.join("; ")) })
    })?;
    assert_eq!(fs::read_dir(&laptop)?.count(), 2);
    Ok(())
}

#[test]
fn an_edit_is_seen_on_the_other_side() -> anyhow::Result<()> {
    let cell = Cell::start("latency-", &[])?;
    let (laptop, desktop) = (cell.path().join("laptop/note.txt"), cell.path().join("desktop/note.txt"));
    let mut times = Vec::new();
    for edit in 0..21 {
        let content = format!("edit {edit}");
        fs::write(&laptop, &content)?;
        let written = Instant::now();
        wait_for("the edit", Duration::from_secs(30), || {
            let seen = fs::read_to_string(&desktop).unwrap_or_default();
            Ok(if seen == content { Ok(()) } else { Err(seen) })
        })?;
        times.push(written.elapsed());
        cell.wait_synced(Duration::from_secs(30))?;
    }
    // The first one also creates the file and takes the first lease.
    let mut edits = times[1..].to_vec();
    edits.sort();
    println!("edit to visible: median {:?}, max {:?} of {}", edits[10], edits[edits.len() - 1], edits.len());
    Ok(())
}
