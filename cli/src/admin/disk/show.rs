//! `admin disk show`: what the volume manager and the node know of one disk.

use std::collections::BTreeMap;

use holdfast_libs_transport::CallError;
use holdfast_node_client::{DiskStatus, ExtentInfo, ExtentState, NodeClient, ScrubStatus, TrashStatus};
use holdfast_volume_manager_client::DiskDetail;
use serde::Serialize;
use serde_json::json;

use super::{asked, each_volume_on};
use crate::admin::cell::Cell;
use crate::admin::names;
use crate::admin::tree::Fill;
use crate::{outcome, show};

/// Damaged extents that are shown one by one.
const MOST_SHOWN: usize = 20;

/// The volumes that have a replica on a disk.
#[derive(Debug, Default, Serialize)]
struct Held {
    total: u64,
    by_state: BTreeMap<String, u64>,
    /// Those that could not lose two more disks.
    at_risk: u64,
}

/// What the node says.
#[derive(Debug, Serialize)]
struct ByNode {
    status: Option<DiskStatus>,
    scrub: ScrubStatus,
    trash: TrashStatus,
    damaged: Vec<ExtentInfo>,
}

pub async fn run(cell: Cell, text: &str) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let disk = names::disk(&inventory, text)?;
    let held = held(&cell, disk).await?;
    let (node, node_error) = match by_node(&cell.ask(&disk.address), disk).await {
        Ok(node) => (Some(node), None),
        Err(error) => (None, Some(outcome::of_node(error))),
    };
    let document = json!({"disk": disk, "volumes": held, "by_node": node, "node_error": node_error});
    cell.answer(&document, || {
        let mut out = facts(disk, &held);
        if let Some(why) = &inventory.catalog_lost {
            out.push_str(&line("NOT ALL KNOWN", why));
        }
        match (&node, &node_error) {
            (Some(node), _) => out.push_str(&of_node(node)),
            (None, Some(why)) => out.push_str(&line("node says", why)),
            (None, None) => {}
        }
        out
    })
}

async fn held(cell: &Cell, disk: &DiskDetail) -> anyhow::Result<Held> {
    let mut held = Held::default();
    each_volume_on(cell, disk.disk, None, |volume| {
        held.total += 1;
        held.at_risk += u64::from(volume.can_lose.is_some_and(|more| more < 2));
        *held.by_state.entry(volume.state).or_default() += 1;
    })
    .await?;
    Ok(held)
}

async fn by_node(node: &NodeClient, disk: &DiskDetail) -> Result<ByNode, CallError> {
    let status = node.status().await?.disks.into_iter().find(|status| status.disk == Some(disk.disk));
    let scrub = node.scrub(disk.disk).await?;
    let trash = node.trash_of(disk.disk).await?;
    let damaged = if disk.damaged_extents > 0 { node.extents(disk.disk).await? } else { Vec::new() };
    let damaged = damaged.into_iter().filter(|extent| extent.state == ExtentState::Damaged).collect();
    Ok(ByNode { status, scrub, trash, damaged })
}

fn line(name: &str, value: &str) -> String {
    format!("{name:<13} {}\n", show::name(value))
}

fn facts(disk: &DiskDetail, held: &Held) -> String {
    let mut out = line("disk", &disk.disk.to_string());
    let rack = if disk.rack.is_empty() { String::new() } else { format!(", rack {}", disk.rack) };
    out.push_str(&line("place", &format!("{}:{} (zone {}{rack})", disk.node, disk.path, disk.zone)));
    let counts = if disk.in_service { "" } else { ": what it holds does not count" };
    out.push_str(&line("state", &format!("{}{counts}", disk.state)));
    asked(disk).iter().for_each(|told| out.push_str(&line("asked", told)));
    if let Some(reason) = &disk.reason {
        out.push_str(&line("why", reason));
    }
    if let Some(failing) =
        disk.failing.as_ref().filter(|failing| !disk.reason.as_ref().is_some_and(|why| why.contains(*failing)))
    {
        out.push_str(&line("failing", failing));
    }
    let slots = format!(
        "{}; {} of {} slots of {} free, {} of them kept back for repair",
        Fill::of([disk]).shown(),
        disk.free_slots,
        disk.slots,
        show::bytes(disk.slot_bytes),
        disk.reserved_slots.min(disk.free_slots),
    );
    out.push_str(&line("used", &slots));
    let states: Vec<String> = held.by_state.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    let risk = format!("{}{states}; {} cannot lose two more disks", held.total, held.at_risk);
    out.push_str(&line("volumes", &risk));
    out.push_str(&line("incarnation", &disk.incarnation.to_string()));
    out
}

fn of_node(node: &ByNode) -> String {
    let mut out = String::new();
    if let Some(status) = &node.status {
        let direct = if status.direct { "O_DIRECT" } else { "through the page cache" };
        out.push_str(&line("I/O", &format!("{}, {direct}", status.io)));
    }
    let scrub = &node.scrub;
    let last = match scrub.last_round_ended_s_ago {
        Some(ago) => format!("the last round ended {} ago", show::duration(ago as f64)),
        None => "no round has ended since the disk was opened".to_owned(),
    };
    let state = json!(scrub.state);
    let state = state.as_str().unwrap_or("?");
    let read = show::bytes(scrub.round_read_bytes);
    // Data is made again from other replicas.
    let found = format!(
        "{} found damaged since the disk was opened, {} of them written again here",
        show::count(scrub.found, "place"),
        scrub.repaired
    );
    out.push_str(&line("scrub", &format!("{state}; {last}; {read} read in this one; {found}")));
    let trash = &node.trash;
    let bytes: u64 = trash.extents.iter().map(|extent| extent.tail).sum();
    let retention = show::duration(trash.retention_s as f64);
    let extents = show::count(trash.extents.len() as u64, "extent");
    let damaged = match trash.extents.iter().filter(|extent| extent.note.is_some()).count() {
        0 => String::new(),
        damaged => format!(", {damaged} known to be damaged or torn"),
    };
    let held = format!("{extents} ({}){damaged}, each kept for {retention} of uptime", show::bytes(bytes));
    out.push_str(&line("trash", &held));
    if trash.erase_alarms > 0 {
        let alarm = format!("{} erasures that nobody ordered were stopped: a fault of the node", trash.erase_alarms);
        out.push_str(&line("ALARM", &alarm));
    }
    for extent in node.damaged.iter().take(MOST_SHOWN) {
        let note = extent.note.as_deref().unwrap_or("no more is known");
        out.push_str(&line("damaged", &format!("volume {} in slot {}: {note}", extent.volume, extent.slot)));
    }
    if node.damaged.len() > MOST_SHOWN {
        out.push_str(&line("damaged", &format!("and {} more", node.damaged.len() - MOST_SHOWN)));
    }
    out
}
