//! The operator's reading commands against a running cell: what they answer, and how they end when they cannot.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use holdfast_tests_cluster::blocks::{Blocks, put_random};
use holdfast_tests_cluster::cell::{Cell, binary};
use holdfast_tests_cluster::{seed, wait_for};
use serde_json::Value;

/// Puts blocks until the cell has some volumes.
fn fill(cell: &Cell, blocks: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(put_random(&Blocks::of(cell)?, seed(7), blocks, 256 * 1024)).map(drop)
}

fn rows<'a>(document: &'a Value, key: &str) -> &'a Vec<Value> {
    static NONE: Vec<Value> = Vec::new();
    document[key].as_array().unwrap_or(&NONE)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Runs a command that must end with `code` and say `words` on stderr, with an empty stdout.
fn fails(cell: &Cell, arguments: &[&str], code: i32, words: &str) -> anyhow::Result<()> {
    let (ended, document, stderr) = cell.run(arguments)?;
    assert!(
        ended == code && stderr.contains(words) && document.is_null(),
        "{arguments:?}: {ended}: {document} {stderr}"
    );
    Ok(())
}

#[test]
fn nodes_disks_and_volumes_are_listed_filtered_and_named_by_the_beginning_of_their_ids() -> anyhow::Result<()> {
    let cell = Cell::start("operator-", &["--no-clients", "--nodes", "4"])?;
    fill(&cell, 60)?;
    let zones = cell.json(&["admin", "zone", "ls"])?;
    assert_eq!(rows(&zones, "zones").len(), 3);
    assert_eq!(rows(&zones, "zones").iter().map(|zone| zone["nodes"].as_u64().unwrap_or(0)).sum::<u64>(), 4);
    let nodes = cell.json(&["admin", "node", "ls"])?;
    assert!(rows(&nodes, "nodes").iter().all(|node| node["state"] == "up" && node["fill"]["disks"] == 2), "{nodes}");
    let disks = cell.json(&["admin", "disk", "ls"])?;
    assert_eq!(rows(&disks, "disks").len(), 8);
    let of_node = cell.json(&["admin", "disk", "ls", "--node", "node-1"])?;
    assert_eq!(rows(&of_node, "disks").len(), 2);
    assert!(rows(&cell.json(&["admin", "disk", "ls", "--state", "lost"])?, "disks").is_empty());
    let first = &rows(&of_node, "disks")[0];
    let (id, path) = (text(&first["disk"]).to_owned(), text(&first["path"]).to_owned());
    for name in [&id, &id[..30], &format!("node-1:{path}"), &path] {
        let shown = cell.json(&["admin", "disk", "show", name])?;
        assert_eq!(shown["disk"]["disk"], first["disk"]);
        assert_eq!(shown["by_node"]["status"]["disk"], first["disk"], "{shown}");
        assert!(shown["by_node"]["scrub"]["state"].is_string() && shown["node_error"].is_null(), "{shown}");
    }
    let tree = cell.json(&["admin", "zone", "tree"])?;
    let in_tree = |zone: &Value| {
        let nodes = rows(zone, "racks").iter().flat_map(|rack| rows(rack, "nodes"));
        nodes.map(|node| rows(node, "disks").len()).sum::<usize>()
    };
    assert_eq!(rows(&tree, "zones").iter().map(in_tree).sum::<usize>(), 8);

    let all = cell.json(&["admin", "volume", "ls"])?;
    let volumes = rows(&all, "volumes");
    assert!(!volumes.is_empty(), "{all}");
    let status = cell.json(&["admin", "status"])?;
    let holding = volumes.iter().filter(|volume| volume["can_lose"].is_u64()).count();
    assert_eq!(status["volumes"]["total"].as_u64(), Some(holding as u64));
    assert!(status["capacity"]["used_bytes"].as_u64() > Some(0), "{status}");
    let one = cell.json(&["admin", "volume", "ls", "--limit", "1"])?;
    assert_eq!(rows(&one, "volumes").len(), 1);
    let by_disk = cell.json(&["admin", "volume", "ls", "--disk", &id[..30]])?;
    let on_disk = |volume: &&Value| rows(volume, "replicas").iter().any(|replica| replica["disk"] == first["disk"]);
    assert_eq!(rows(&by_disk, "volumes").len(), volumes.iter().filter(on_disk).count());
    assert!(rows(&cell.json(&["admin", "volume", "ls", "--at-risk"])?, "volumes").is_empty());
    let volume = text(&volumes[0]["volume"]).to_owned();
    let shown = cell.json(&["admin", "volume", "show", &volume[..31]])?;
    assert_eq!(shown["volume"]["volume"], volumes[0]["volume"]);
    assert_eq!(rows(&shown, "replicas").len(), 3);
    assert!(rows(&shown, "replicas").iter().all(|replica| replica["extent"]["volume"] == volume.as_str()), "{shown}");

    fails(&cell, &["admin", "disk", "show", "zz"], 2, "`zz` names no disk")?;
    fails(&cell, &["admin", "disk", "show", "ffffffffffff"], 1, "no disk `ffffffffffff`")?;
    fails(&cell, &["admin", "node", "show", "node"], 2, "fits several: node-1, node-2, node-3, node-4")?;
    fails(&cell, &["admin", "disk", "ls", "--zone", "atlantis"], 1, "no zone `atlantis`")?;
    fails(&cell, &["admin", "disk", "ls", "--state", "melted"], 2, "possible values")?;
    fails(&cell, &["admin", "volume", "show", "ffffffff"], 1, "no volume `ffffffff`")?;
    fails(&cell, &["admin", "volume", "show", "xyz"], 2, "hex digits")?;
    // All volumes of a catalog begin with its generation.
    if volumes.len() > 1 {
        fails(&cell, &["admin", "volume", "show", &volume[..1]], 2, "fits several")?;
    }
    fails(&cell, &["admin", "status", "--watch"], 2, "needs a terminal")
}

#[test]
fn a_node_that_hangs_is_told_after_seconds_with_what_the_catalog_knows_of_it() -> anyhow::Result<()> {
    let cell = Cell::start("operator-hangs-", &["--no-clients"])?;
    fill(&cell, 10)?;
    let volumes = cell.json(&["admin", "volume", "ls"])?;
    assert!(volumes["catalog_lost"].is_null(), "{volumes}");
    let mut whole = rows(&volumes, "volumes").iter().filter(|row| rows(row, "replicas").len() == 3);
    let volume = text(&whole.next().context("no volume")?["volume"]).to_owned();
    cell.signal("node-2", nix::sys::signal::Signal::SIGSTOP)?;
    let hangs = |error: &Value| {
        let error = text(error);
        error.starts_with("the node does not answer: ") && error.ends_with("no answer within 5 s")
    };
    // Its disks are lost, and off the volume's list, after ten seconds.
    let shown = cell.json(&["admin", "volume", "show", &volume])?;
    let (silent, answered): (Vec<&Value>, Vec<&Value>) =
        rows(&shown, "replicas").iter().partition(|replica| replica["node"] == "node-2");
    assert!(silent.len() == 1 && hangs(&silent[0]["node_error"]), "{shown}");
    assert!(answered.len() == 2 && answered.iter().all(|replica| replica["extent"].is_object()), "{shown}");
    let shown = cell.json(&["admin", "node", "show", "node-2"])?;
    assert!(hangs(&shown["node_error"]) && rows(&shown, "disks").len() == 2, "{shown}");
    let disk = text(&rows(&shown, "disks")[0]["disk"]).to_owned();
    let shown = cell.json(&["admin", "disk", "show", &disk])?;
    assert!(hangs(&shown["node_error"]) && shown["volumes"]["total"].is_u64(), "{shown}");
    let shown = cell.json(&["admin", "disk", "replace", &disk, "--status"])?;
    assert!(shown["step"] == "wait" && shown["place"].is_null() && shown["volumes_left"].is_u64(), "{shown}");
    assert!(text(&shown["node_error"]).ends_with("no answer within 5 s"), "{shown}");
    Ok(())
}

#[test]
fn a_node_that_is_gone_is_told_and_a_volume_manager_that_is_gone_ends_commands_with_3() -> anyhow::Result<()> {
    let cell = Cell::start("operator-gone-", &["--no-clients"])?;
    fill(&cell, 10)?;
    cell.signal("node-2", nix::sys::signal::Signal::SIGKILL)?;
    wait_for("the node to be missed", Duration::from_secs(60), || {
        let gone = cell.json(&["admin", "node", "ls", "--state", "down"])?;
        Ok(if rows(&gone, "nodes").len() == 1 { Ok(()) } else { Err(gone.to_string()) })
    })?;
    let shown = cell.json(&["admin", "node", "show", "node-2"])?;
    assert!(shown["health"].is_null() && shown["node_error"].is_string(), "{shown}");
    let disk = text(&rows(&shown, "disks")[0]["disk"]).to_owned();
    let replaced = cell.json(&["admin", "disk", "replace", &disk, "--status"])?;
    assert!(text(&replaced["waits_for"]).starts_with("node node-2 is down, not heard of for "), "{replaced}");
    let troubled = cell.json(&["admin", "disk", "ls", "--troubled"])?;
    assert_eq!(rows(&troubled, "disks").len(), 2);
    let risky = cell.json(&["admin", "volume", "ls", "--at-risk"])?;
    let volume = text(&rows(&risky, "volumes").first().context("nothing is at risk")?["volume"]).to_owned();
    let shown = cell.json(&["admin", "volume", "show", &volume])?;
    let unknown = rows(&shown, "replicas").iter().filter(|replica| replica["node_error"].is_string()).count();
    assert_eq!((unknown, shown["volume"]["can_lose"].as_u64()), (1, Some(1)), "{shown}");
    let screen = Command::new(binary()?).args(["admin", "status", "--dev"]).arg(cell.path()).output()?;
    let screen = String::from_utf8_lossy(&screen.stdout).into_owned();
    assert!(screen.contains("node-2") && screen.contains("raw space") && !screen.contains("node-1 "), "{screen}");

    cell.signal("volume-manager", nix::sys::signal::Signal::SIGKILL)?;
    for arguments in [
        &["admin", "status"][..],
        &["admin", "disk", "ls"],
        &["admin", "volume", "ls"],
        &["admin", "volume", "show", &volume],
    ] {
        fails(&cell, arguments, 3, "https://127.0.0.1:")?;
    }
    Ok(())
}
