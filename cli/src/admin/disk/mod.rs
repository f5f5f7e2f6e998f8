//! `admin disk`: one disk, or all of them.

mod locate;
mod replace;
mod show;

use clap::{Args, Subcommand};
use holdfast_libs_types::DiskId;
use holdfast_volume_manager_client::{DiskDetail, Inventory, Order, VolumeDetail, VolumeQuery};
use serde_json::json;

use self::locate::LocateDisk;
use self::replace::ReplaceDisk;
use super::cell::{BeforeCommand, Cell, CellTarget};
use super::order::Apply;
use super::tree::Fill;
use super::zone::print_tree;
use super::{names, on, order};
use crate::arguments::FormatDisk;
use crate::disk;
use crate::outcome::usage;
use crate::show::{Table, count, moment};

#[derive(Subcommand)]
pub enum DiskCommand {
    /// List the disks
    Ls(DiskFilter),
    /// One disk: its state and why, what it holds, its scrub and trash, what its node says of it
    Show(NamedDisk),
    /// Disks as they stand in zones, racks and nodes
    Tree(DiskPlaces),
    /// Move everything off a disk, for example before it is taken out for good
    ///
    /// Open volumes there are sealed first. Each replica is given up only once its copy was read back and compared. Refused,
    /// with the numbers, when the other disks have too little room or too few domains.
    Drain(DrainDisk),
    /// A disk is about to be pulled or serviced: nothing new goes there, and nothing is repaired for its sake meanwhile
    ///
    /// Refused when a volume would be left without a readable replica.
    Offline(OfflineDisk),
    /// End `offline` and `drain`
    Online(OrderDisk),
    /// Take a disk off the inventory: one that is lost, or drained and taken out
    Forget(OrderDisk),
    /// Switch the light of a disk's bay
    #[command(
        after_help = "Exit codes: 0 the light was switched, 1 it was not (the reason is told), 2 usage, 3 unreachable."
    )]
    Locate(LocateDisk),
    /// Replace a disk: drain it, wait for the new one in its bay, adopt it, bring it to its share, compare what it holds
    ///
    /// It can end at any moment and be run again, from anywhere: the cell and the bay tell how far it is. A disk that is dead is not
    /// drained, its volumes are made again from their other replicas. A new disk is adopted only when it is blank.
    #[command(
        after_help = "Exit codes: 0 replaced, or the status was told; 1 refused or failed (the reason and the numbers are told), 2 usage, 3 unreachable."
    )]
    Replace(ReplaceDisk),
    /// Make a disk of a block device or a file; run it on the storage server itself, no daemon is needed
    ///
    /// Refuses, with the reason and what to do, a device that is in use or on which anything stands: a mount, a partition
    /// table, a known signature, or any byte that is not zero in its first or last 2 MiB. What lies between is not looked
    /// at, and is overwritten.
    #[command(after_help = "Exit codes: 0 it is a disk now, 1 refused or failed (a refusal changes nothing), 2 usage.")]
    Format(FormatDisk),
}

#[derive(Args)]
pub struct DiskPlaces {
    /// Only those of this node
    #[arg(long)]
    pub node: Option<String>,
    /// Only those in this zone
    #[arg(long)]
    pub zone: Option<String>,
    #[command(flatten)]
    pub target: CellTarget,
}

#[derive(Args)]
pub struct DiskFilter {
    /// Only those in this state
    #[arg(long, value_parser = ["healthy", "suspect", "down", "read_only", "failed", "lost"])]
    pub state: Option<String>,
    /// Only those that are not healthy, are suspected to fail, or hold damaged extents
    #[arg(long)]
    pub troubled: bool,
    #[command(flatten)]
    pub places: DiskPlaces,
}

#[derive(Args)]
pub struct NamedDisk {
    /// Id of the disk, the beginning of it, or NODE:PATH
    pub disk: String,
    #[command(flatten)]
    pub target: CellTarget,
}

#[derive(Args)]
pub struct OrderDisk {
    /// Id of the disk, the beginning of it, or NODE:PATH
    pub disk: String,
    #[command(flatten)]
    pub apply: Apply,
}

#[derive(Args)]
pub struct DrainDisk {
    #[command(flatten)]
    pub order: OrderDisk,
    /// Accept that volumes stand over fewer zones afterwards; holds on until the drain ends (`disk online`), also where the order is
    /// repeated without it
    #[arg(long)]
    pub less_spread: bool,
}

#[derive(Args)]
pub struct OfflineDisk {
    #[command(flatten)]
    pub order: OrderDisk,
    /// For so long, `30m` or `2h`, at most `30d`; without it until `disk online`
    #[arg(long = "for", value_name = "TIME", value_parser = order::seconds)]
    pub for_s: Option<u64>,
}

/// Gives a disk an order.
fn give(before: &BeforeCommand, options: &OrderDisk, word: &str, ask: Order) -> anyhow::Result<()> {
    let ask = Order { apply: options.apply.apply, ..ask };
    on(before, &options.apply.target, |cell| async move {
        let inventory = cell.volume_manager().inventory().await?;
        order::disk(&cell, names::disk(&inventory, &options.disk)?.disk, word, &ask).await
    })
}

pub fn run(before: &BeforeCommand, command: DiskCommand) -> anyhow::Result<()> {
    match command {
        DiskCommand::Drain(options) => {
            let ask = Order { less_spread: options.less_spread, ..Order::default() };
            give(before, &options.order, "drain", ask)
        }
        DiskCommand::Offline(options) => {
            give(before, &options.order, "offline", Order { for_s: options.for_s, ..Order::default() })
        }
        DiskCommand::Online(options) => give(before, &options, "online", Order::default()),
        DiskCommand::Forget(options) => give(before, &options, "forget", Order::default()),
        DiskCommand::Ls(filter) => on(before, &filter.places.target, |cell| ls(cell, &filter)),
        DiskCommand::Show(options) => on(before, &options.target, |cell| show::run(cell, &options.disk)),
        DiskCommand::Tree(places) => on(before, &places.target, |cell| tree(cell, &places)),
        DiskCommand::Locate(options) => on(before, &options.target.clone(), |cell| locate::run(cell, options)),
        DiskCommand::Replace(options) => on(before, &options.target.clone(), |cell| replace::run(cell, options)),
        DiskCommand::Format(_) if before.dev.is_some() => {
            Err(usage("--dev names a cell; a disk is formatted on its own machine, without one"))
        }
        DiskCommand::Format(_) if before.config.is_some() => {
            Err(usage("--config before the command names a cell; the node's configuration goes behind `format`"))
        }
        DiskCommand::Format(mut options) => {
            options.json |= before.json;
            disk::format(&options)
        }
    }
}

/// Goes through the volumes that have a replica on a disk, in `state` if it is given. They may be many more than the disk has
/// slots: rows of volumes that failed or were sealed empty stay.
async fn each_volume_on(
    cell: &Cell,
    disk: DiskId,
    state: Option<&str>,
    mut each: impl FnMut(VolumeDetail),
) -> anyhow::Result<()> {
    let mut query = VolumeQuery { disk: Some(disk), state: state.map(str::to_owned), ..VolumeQuery::default() };
    loop {
        let page = cell.volume_manager().find_volumes(&query).await?;
        page.volumes.into_iter().for_each(&mut each);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// The node and the zone that are asked for, by their full names.
fn places(inventory: &Inventory, places: &DiskPlaces) -> anyhow::Result<(Option<String>, Option<String>)> {
    let node = places.node.as_ref().map(|node| names::node(inventory, node)).transpose()?;
    let zone = places.zone.as_ref().map(|zone| names::zone(inventory, zone)).transpose()?;
    Ok((node.map(|node| node.node.0.clone()), zone))
}

async fn ls(cell: Cell, filter: &DiskFilter) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let (node, zone) = places(&inventory, &filter.places)?;
    let mut disks: Vec<&DiskDetail> = inventory
        .disks
        .iter()
        .filter(|disk| node.as_ref().is_none_or(|node| disk.node.0 == *node))
        .filter(|disk| zone.as_ref().is_none_or(|zone| disk.zone == *zone))
        .filter(|disk| filter.state.as_ref().is_none_or(|state| disk.state == *state))
        .filter(|disk| !filter.troubled || disk.reason.is_some() || disk.state != "healthy" || disk.damaged_extents > 0)
        .collect();
    disks.sort_by(|a, b| (&a.zone, &a.node.0, &a.path).cmp(&(&b.zone, &b.node.0, &b.path)));
    cell.answer(&json!({ "disks": disks }), || table(&inventory, &disks).to_string())
}

async fn tree(cell: Cell, filter: &DiskPlaces) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let (node, zone) = places(&inventory, filter)?;
    print_tree(&cell, &inventory, |row| {
        node.as_ref().is_none_or(|node| row.node.0 == *node) && zone.as_ref().is_none_or(|zone| row.zone == *zone)
    })
}

/// What an operator asked for a disk, and how far that is.
pub fn asked(disk: &DiskDetail) -> Vec<String> {
    let until = || disk.offline_until_ms.map(|until| format!(" until {}", moment(until))).unwrap_or_default();
    let told = |word: &String| match (word.as_str(), disk.drain_left) {
        ("draining", Some(0)) if disk.unknown_extents > 0 => {
            format!(
                "drained of what the catalog knows: keep it, {} on it",
                count(disk.unknown_extents, "unknown extent")
            )
        }
        ("draining", Some(0)) => "drained: it can be taken out, then `disk forget` ends it".to_owned(),
        ("draining", Some(1)) => "draining: 1 volume is still to leave it".to_owned(),
        ("draining", Some(left)) => format!("draining: {left} volumes are still to leave it"),
        ("offline", _) => format!("offline by order{}", until()),
        ("cordoned", _) => "its node is cordoned: takes no new data".to_owned(),
        _ => word.clone(),
    };
    disk.asked.iter().map(told).collect()
}

/// What is to be known of a disk besides its state.
pub fn notes(disk: &DiskDetail) -> String {
    let damaged = (disk.damaged_extents > 0).then(|| format!("damaged extents: {}", disk.damaged_extents));
    let notes: Vec<String> = asked(disk).into_iter().chain(disk.reason.clone()).chain(damaged).collect();
    notes.join("; ")
}

/// Disks, a line each; ids as short as they can be told apart.
pub fn table(inventory: &Inventory, disks: &[&DiskDetail]) -> Table {
    let digits = names::short(inventory);
    let mut table = Table::new(["DISK", "NODE", "ZONE", "STATE", "USED", "PATH", "NOTE"]);
    for disk in disks {
        let id = disk.disk.to_string();
        table.row([
            &id[..digits],
            &disk.node.0,
            &disk.zone,
            &disk.state,
            &Fill::of([*disk]).shown(),
            &disk.path,
            &notes(disk),
        ]);
    }
    table
}
