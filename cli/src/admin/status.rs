//! `admin status`: the cell on one screen.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use holdfast_volume_manager_client::{CellStatus, NodeRow, WorkSummary};

use super::cell::{Cell, CellTarget};
use crate::outcome::{told, usage};
use crate::show::{self, Table};

/// Reasons that are shown.
const MOST_REASONS: usize = 12;

/// Rows of a table that are shown.
const MOST_ROWS: usize = 20;

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

#[derive(Args)]
pub struct StatusOptions {
    #[command(flatten)]
    pub target: CellTarget,
    /// Show it again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
}

pub async fn run(cell: Cell, watch: Option<u64>) -> anyhow::Result<()> {
    let Some(seconds) = watch else {
        let status = cell.volume_manager().status().await?;
        return cell.answer(&status, || screen(&status));
    };
    if cell.json() || !std::io::stdout().is_terminal() {
        return Err(usage("--watch shows a screen again and again, so it needs a terminal and goes without --json"));
    }
    loop {
        let shown = match cell.volume_manager().status().await {
            Ok(status) => screen(&status),
            // A leader may change, a machine start anew: one who watches wants to see that too.
            Err(error) => format!("no status: {}\n", told(&error.into())),
        };
        if !show::more(&format!("{CLEAR}{shown}"))? {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

/// The whole status: what is well in numbers, what is not by name.
fn screen(status: &CellStatus) -> String {
    let line = |name: &str, value: &str| format!("{name:<9} {}\n", show::name(value));
    let mut out = line("health", &status.health);
    for reason in status.reasons.iter().take(MOST_REASONS) {
        out.push_str(&line("", reason));
    }
    if status.reasons.len() > MOST_REASONS {
        out.push_str(&line(
            "",
            &format!("and {} more reasons (--json has them all)", status.reasons.len() - MOST_REASONS),
        ));
    }
    if let Some(unknown) = &status.settling {
        out.push_str(&line("so far", &format!("{unknown}; until then the numbers below may be too good")));
    }
    let can_lose = |n: &str| status.volumes.can_lose.get(n).copied().unwrap_or(0);
    let (two, one, none) = (can_lose("2"), can_lose("1"), can_lose("0"));
    let volumes = format!("{} in all; can lose 2 more disks: {two}, 1: {one}, none: {none}", status.volumes.total);
    out.push_str(&line("volumes", &volumes));
    let space = &status.capacity;
    let raw = format!(
        "{} of {} used ({}), {} free, {} of it kept for repair",
        show::bytes(space.used_bytes),
        show::bytes(space.raw_bytes),
        show::percent(space.used_bytes, space.raw_bytes),
        show::bytes(space.free_bytes),
        show::bytes(space.reserve_bytes)
    );
    out.push_str(&line("raw space", &raw));
    let trash = match space.trash_extents {
        0 => "empty".to_owned(),
        extents => format!(
            "{} of what is used, in {}; free again when their retention is over",
            show::bytes(space.trash_bytes),
            show::count(extents, "extent")
        ),
    };
    out.push_str(&line("trash", &trash));
    let usable = match status.nothing_leased {
        true => format!("nothing fits until the catalog is rebuilt, of {} in all", show::bytes(space.usable_bytes)),
        false => {
            format!("{} more fit, of {} in all", show::bytes(space.usable_free_bytes), show::bytes(space.usable_bytes))
        }
    };
    out.push_str(&line("data", &usable));
    let count = |all: usize, well: usize, word: &str| match all - well {
        0 => format!("{all}, all {word}"),
        _ => format!("{all}, {well} of them {word}"),
    };
    let up = status.nodes.iter().filter(|node| node.state == "up").count();
    let mut zones: Vec<&String> = status.nodes.iter().map(|node| &node.zone).collect();
    zones.sort();
    zones.dedup();
    let healthy = status.disks.iter().filter(|disk| disk.state == "healthy").count();
    let zones = show::count(zones.len() as u64, "zone");
    out.push_str(&line("nodes", &format!("{}, in {zones}", count(status.nodes.len(), up, "up"))));
    out.push_str(&line("disks", &count(status.disks.len(), healthy, "healthy")));
    asked(status).iter().for_each(|told| out.push_str(&line("asked", told)));
    if status.work_summary.is_empty() {
        out.push_str(&line("work", "none"));
    }
    for (at, work) in status.work_summary.iter().enumerate() {
        out.push_str(&line(if at == 0 { "work" } else { "" }, &summary(work)));
    }
    troubled(status)
        .into_iter()
        .filter(|table| !table.is_empty())
        .for_each(|table| out.push_str(&format!("\n{table}")));
    out
}

/// What an operator asked for that holds on, also once it is done: disks and nodes that take no new data, and a rebalance.
fn asked(status: &CellStatus) -> Vec<String> {
    let drains = status.drains.iter().map(|row| match row.left {
        0 => format!("disk {} of node {} is drained: no volume of the catalog has a replica on it", row.disk, row.node),
        left => {
            let (left, are) = (show::count(left, "volume"), if left == 1 { "is" } else { "are" });
            format!("disk {} of node {} is being drained: {left} {are} still to leave it", row.disk, row.node)
        }
    });
    let offline = status.disks.iter().filter(|row| row.asked.iter().any(|word| word == "offline"));
    let offline = offline.map(|row| {
        let until = row.offline_until_ms.map(|until| format!(" until {}", show::moment(until))).unwrap_or_default();
        format!("disk {} of node {} is offline by order{until}", row.disk, row.node)
    });
    let cordoned = status.nodes.iter().filter(|row| row.asked.iter().any(|word| word == "cordoned"));
    let cordoned = cordoned.map(|row| format!("node {} is cordoned: it takes no new data", row.node));
    let rebalance = status.rebalance.iter().flat_map(|row| &row.waits).map(|why| format!("the rebalance waits: {why}"));
    let mut all: Vec<String> = drains.chain(offline).chain(cordoned).chain(rebalance).collect();
    let more = all.len().saturating_sub(MOST_ROWS);
    all.truncate(MOST_ROWS);
    all.extend((more > 0).then(|| format!("and {more} more (--json has them all)")));
    all
}

/// `repair: 2 running, 118 waiting, 7.2 GiB left at 85.0 MiB/s, about 1 min 27 s`.
fn summary(work: &WorkSummary) -> String {
    let mut text = format!("{}: {} running, {} waiting", work.kind, work.running, work.waiting);
    if let Some(left) = work.bytes_left {
        text.push_str(&format!(", {} left", show::bytes(left)));
        // A rate is that of the copies made so far: of what stands it tells nothing.
        match (work.bytes_s, work.eta_s) {
            _ if work.running == 0 && work.eta_s.is_none() => text.push_str(", nothing is copied now"),
            (Some(rate), Some(eta)) => {
                text.push_str(&format!(" at {}/s, about {}", show::bytes(rate as u64), show::duration(eta)));
            }
            (Some(rate), None) => text.push_str(&format!(" at {}/s", show::bytes(rate as u64))),
            (None, Some(eta)) => text.push_str(&format!(", about {}", show::duration(eta))),
            (None, None) => text.push_str(", no rate is known yet"),
        }
    }
    text
}

/// Nodes, disks and devices that somebody should look at.
fn troubled(status: &CellStatus) -> [Table; 3] {
    let mut nodes = Table::new(["NODE", "ZONE", "STATE", "ADDRESS"]);
    for node in status.nodes.iter().filter(|node| node.state != "up").take(MOST_ROWS) {
        nodes.row([&node.node.0, &node.zone, &node.state, &node.address]);
    }
    let mut disks = Table::new(["DISK", "NODE", "STATE", "VOLUMES", "PATH", "WHY"]);
    let bad = status.disks.iter().filter(|disk| disk.state != "healthy" || disk.reason.is_some());
    for disk in bad.take(MOST_ROWS) {
        disks.row([
            &disk.disk.to_string(),
            &disk.node.0,
            &disk.state,
            &disk.volumes.to_string(),
            &disk.path,
            disk.reason.as_deref().unwrap_or(""),
        ]);
    }
    let mut unusable = Table::new(["NOT IN USE", "NODE", "WHY"]);
    // Where nothing is at the place of a disk, that disk is in the table above.
    let is_told = |node: &NodeRow, path: &str| {
        let mut bad = status.disks.iter().filter(|disk| disk.state != "healthy");
        bad.any(|disk| disk.node == node.node && disk.path == path)
    };
    let devices = status.nodes.iter().flat_map(|node| node.unusable.iter().map(move |disk| (node, disk)));
    let devices = devices.filter(|(node, disk)| disk.cause != "missing" || !is_told(node, &disk.path));
    for (node, disk) in devices.take(MOST_ROWS) {
        unusable.row([&disk.path, &node.node.0, &disk.reason]);
    }
    [nodes, disks, unusable]
}

#[cfg(test)]
mod tests {
    use holdfast_volume_manager_client::{CellStatus, WorkSummary};
    use serde_json::json;

    use super::{screen, summary};

    fn status(extra: serde_json::Value) -> CellStatus {
        let mut status = json!({
            "health": "ok", "reasons": [], "cell": "ce".repeat(16), "term": 1, "nodes": [], "disks": [], "work": [],
            "volumes": {"total": 0, "can_lose": {}},
        });
        let all = status.as_object_mut().unwrap();
        all.extend(extra.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn the_trash_is_told_with_the_space_that_it_holds() {
        assert!(screen(&status(json!({}))).contains("\ntrash     empty\n"));
        let capacity = json!({
            "raw_bytes": 8_u64 << 30, "used_bytes": 4_u64 << 30, "free_bytes": 4_u64 << 30, "reserve_bytes": 0, "lost_bytes": 0,
            "usable_bytes": 0, "usable_free_bytes": 0, "trash_bytes": 3 << 28, "trash_extents": 1,
        });
        let text = screen(&status(json!({ "capacity": capacity })));
        let told = "\ntrash     768.0 MiB of what is used, in 1 extent; free again when their retention is over\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_volume_manager_that_does_not_know_all_says_so_and_nothing_fits_while_the_catalog_is_lost() {
        let capacity = json!({
            "raw_bytes": 0, "used_bytes": 0, "free_bytes": 0, "reserve_bytes": 0, "lost_bytes": 0,
            "usable_bytes": 8_u64 << 30, "usable_free_bytes": 2_u64 << 30,
        });
        let known = screen(&status(json!({ "capacity": capacity })));
        assert!(
            known.contains("\ndata      2.0 GiB more fit, of 8.0 GiB in all\n") && !known.contains("so far"),
            "{known}"
        );
        let unknown =
            json!({ "capacity": capacity, "nothing_leased": true, "settling": "2 of 3 nodes are not heard of yet" });
        let text = screen(&status(unknown));
        assert!(text.contains("\ndata      nothing fits until the catalog is rebuilt, of 8.0 GiB in all\n"), "{text}");
        let told = text.find("\nso far    2 of 3 nodes are not heard of yet; until then").unwrap();
        assert!(told < text.find("\nvolumes ").unwrap(), "{text}");
    }

    #[test]
    fn a_disk_that_was_pulled_is_in_one_table_only() {
        let disk = |path: &str, state: &str| {
            json!({
                "disk": "d1".repeat(16), "node": "node-1", "path": path, "state": state, "reason": "it was pulled",
                "slots": 1, "free_slots": 1, "slot_bytes": 1, "volumes": 0,
            })
        };
        let missing = json!({"path": "/dev/b", "cause": "missing", "reason": "/dev/b does not exist"});
        let node = json!({
            "node": "node-1", "zone": "zone-1", "address": "https://a:1", "state": "up", "last_heartbeat_ms": 1,
            "unusable": [missing],
        });
        let told = |disk: serde_json::Value| screen(&status(json!({ "nodes": [node], "disks": [disk] })));
        let pulled = told(disk("/dev/b", "down"));
        assert!(pulled.contains("it was pulled") && !pulled.contains("does not exist"), "{pulled}");
        let never_there = told(disk("/dev/a", "down"));
        assert!(never_there.contains("/dev/b does not exist"), "{never_there}");
    }

    #[test]
    fn work_is_told_with_what_is_left_and_how_long_it_takes() {
        let mut work = WorkSummary { kind: "repair".to_owned(), running: 2, waiting: 118, ..WorkSummary::default() };
        assert_eq!(summary(&work), "repair: 2 running, 118 waiting");
        work.bytes_left = Some(10 << 30);
        assert!(summary(&work).ends_with("10.0 GiB left, no rate is known yet"));
        (work.bytes_s, work.eta_s) = (Some(85.0 * 1048576.0), Some(120.4));
        assert!(summary(&work).ends_with("10.0 GiB left at 85.0 MiB/s, about 2 min 0 s"), "{}", summary(&work));
        (work.running, work.eta_s) = (0, None);
        assert!(summary(&work).ends_with("10.0 GiB left, nothing is copied now"), "{}", summary(&work));
    }
}
