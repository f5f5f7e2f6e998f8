//! `admin status`: the cell on one screen.

use holdfast_volume_manager_client::CellStatus;

use super::cell::Cell;
use crate::show::{self, Table};

pub async fn run(cell: Cell) -> anyhow::Result<()> {
    let status = cell.volume_manager().status().await?;
    cell.answer(&status, || screen(&status))
}

/// The whole status on one screen.
fn screen(status: &CellStatus) -> String {
    let mut out = format!("health   {}\n", status.health);
    for reason in &status.reasons {
        out.push_str(&format!("         {reason}\n"));
    }
    let can_lose = |n: &str| status.volumes.can_lose.get(n).copied().unwrap_or(0);
    out.push_str(&format!(
        "volumes  {} in all; can lose 2 more disks: {}, 1: {}, none: {}\n\n",
        status.volumes.total,
        can_lose("2"),
        can_lose("1"),
        can_lose("0"),
    ));
    let mut nodes = Table::new(["NODE", "ZONE", "STATE", "ADDRESS"]);
    for node in &status.nodes {
        nodes.row([&node.node.0, &node.zone, &node.state, &node.address]);
    }
    out.push_str(&nodes.to_string());
    let mut disks = Table::new(["DISK", "NODE", "STATE", "FREE", "SIZE", "VOLUMES", "PATH"]);
    for disk in &status.disks {
        disks.row([
            &disk.disk.to_string(),
            &disk.node.0,
            &disk.state,
            &show::bytes(disk.free_slots * disk.slot_bytes),
            &show::bytes(disk.slots * disk.slot_bytes),
            &disk.volumes.to_string(),
            &disk.path,
        ]);
    }
    let mut unusable = Table::new(["NOT IN USE", "NODE", "WHY"]);
    for node in &status.nodes {
        for disk in &node.unusable {
            unusable.row([&disk.path, &node.node.0, &disk.reason]);
        }
    }
    let mut work = Table::new(["WORK", "VOLUME", "DETAIL"]);
    for one in &status.work {
        work.row([&one.kind, &one.volume.to_string(), &one.detail]);
    }
    out.push_str(&format!("\n{disks}"));
    for table in [unusable, work] {
        if !table.is_empty() {
            out.push_str(&format!("\n{table}"));
        }
    }
    out
}
