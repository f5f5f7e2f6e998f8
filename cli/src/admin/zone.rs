//! `admin zone`: the largest failure domains.

use clap::{Args, Subcommand};
use holdfast_volume_manager_client::{DiskDetail, Inventory, NodeRow};
use serde_json::json;

use super::cell::{BeforeCommand, Cell, CellTarget};
use super::tree::{Fill, Tree};
use super::{disk, names, node, on};
use crate::show::Table;

#[derive(Subcommand)]
pub enum ZoneCommand {
    /// List the zones with their nodes, disks and how full they are
    Ls(CellTarget),
    /// One zone: its nodes and disks
    Show(NamedZone),
    /// Zones, racks, nodes and disks as they stand in each other
    Tree(CellTarget),
}

#[derive(Args)]
pub struct NamedZone {
    /// Name of the zone, or the beginning of it
    pub zone: String,
    #[command(flatten)]
    pub target: CellTarget,
}

pub fn run(before: &BeforeCommand, command: ZoneCommand) -> anyhow::Result<()> {
    match command {
        ZoneCommand::Ls(target) => on(before, &target, ls),
        ZoneCommand::Show(options) => on(before, &options.target, |cell| show(cell, &options.zone)),
        ZoneCommand::Tree(target) => on(before, &target, tree),
    }
}

async fn ls(cell: Cell) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let mut names: Vec<&String> = inventory.nodes.iter().map(|node| &node.zone).collect();
    names.sort();
    names.dedup();
    let zones: Vec<(&String, Vec<&NodeRow>, Fill)> = names
        .into_iter()
        .map(|zone| {
            let nodes = inventory.nodes.iter().filter(|node| node.zone == *zone).collect();
            (zone, nodes, Fill::of(inventory.disks.iter().filter(|disk| disk.zone == *zone)))
        })
        .collect();
    let up = |nodes: &[&NodeRow]| nodes.iter().filter(|node| node.state == "up").count();
    let rows: Vec<_> = zones
        .iter()
        .map(|(zone, nodes, fill)| json!({"zone": zone, "nodes": nodes.len(), "nodes_up": up(nodes), "fill": fill}))
        .collect();
    cell.answer(&json!({ "zones": rows }), || {
        let mut table = Table::new(["ZONE", "NODES", "DISKS", "USED"]);
        for (zone, nodes, fill) in &zones {
            let nodes = match up(nodes) {
                up if up == nodes.len() => up.to_string(),
                up => format!("{up} of {} up", nodes.len()),
            };
            table.row([zone, &nodes, &fill.health(), &fill.shown()]);
        }
        table.to_string()
    })
}

async fn show(cell: Cell, zone: &str) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let zone = names::zone(&inventory, zone)?;
    let nodes: Vec<&NodeRow> = inventory.nodes.iter().filter(|node| node.zone == zone).collect();
    let disks: Vec<&DiskDetail> = inventory.disks.iter().filter(|disk| disk.zone == zone).collect();
    let fill = Fill::of(disks.iter().copied());
    cell.answer(&json!({"zone": zone, "fill": fill, "nodes": nodes, "disks": disks}), || {
        let head = format!("zone  {zone}\ndisks {}\nused  {}\n", fill.health(), fill.shown());
        format!("{head}\n{}\n{}", node::table(&inventory, &nodes), disk::table(&inventory, &disks))
    })
}

async fn tree(cell: Cell) -> anyhow::Result<()> {
    print_tree(&cell, &cell.volume_manager().inventory().await?, |_| true)
}

/// Answers with the tree of the nodes that `wanted` lets through.
pub fn print_tree(cell: &Cell, inventory: &Inventory, wanted: impl Fn(&NodeRow) -> bool) -> anyhow::Result<()> {
    let tree = Tree::of(inventory, wanted);
    cell.answer(&tree, || tree.shown(inventory))
}
