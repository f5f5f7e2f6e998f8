//! `admin node`: storage servers.

use clap::{Args, Subcommand};
use holdfast_volume_manager_client::{DiskDetail, Inventory, NodeRow, Order};
use serde_json::json;

use super::cell::{BeforeCommand, Cell, CellTarget};
use super::order::Apply;
use super::tree::Fill;
use super::zone::print_tree;
use super::{disk, names, on, order};
use crate::outcome;
use crate::show::{self, Table};

#[derive(Subcommand)]
pub enum NodeCommand {
    /// List the nodes
    Ls(NodeFilter),
    /// One node: its health by its own word, its disks, and the devices that it cannot use
    Show(NamedNode),
    /// Nodes and their disks as they stand in zones and racks
    Tree(NodeFilter),
    /// Move everything off all disks of a node
    ///
    /// As `disk drain` for all of them at once; `uncordon` ends it.
    Drain(DrainNode),
    /// Nothing new goes to a node; what it holds stays and is read
    Cordon(OrderNode),
    /// End `cordon` and `drain`
    Uncordon(OrderNode),
    /// Take a node with its disks off the inventory: one that is lost, or drained and stopped
    Forget(OrderNode),
}

#[derive(Args)]
pub struct OrderNode {
    /// Name of the node, or the beginning of it
    pub node: String,
    #[command(flatten)]
    pub apply: Apply,
}

#[derive(Args)]
pub struct DrainNode {
    #[command(flatten)]
    pub order: OrderNode,
    /// Accept that volumes stand over fewer zones afterwards; holds on until the drain ends (`node uncordon`), also where the order is
    /// repeated without it
    #[arg(long)]
    pub less_spread: bool,
}

/// Gives a node an order.
fn give(before: &BeforeCommand, options: &OrderNode, word: &str, less_spread: bool) -> anyhow::Result<()> {
    let ask = Order { apply: options.apply.apply, less_spread, ..Order::default() };
    on(before, &options.apply.target, |cell| async move {
        let inventory = cell.volume_manager().inventory().await?;
        order::node(&cell, &names::node(&inventory, &options.node)?.node, word, &ask).await
    })
}

#[derive(Args)]
pub struct NodeFilter {
    /// Only those in this zone
    #[arg(long)]
    pub zone: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = ["up", "suspect", "down"])]
    pub state: Option<String>,
    #[command(flatten)]
    pub target: CellTarget,
}

#[derive(Args)]
pub struct NamedNode {
    /// Name of the node, or the beginning of it
    pub node: String,
    #[command(flatten)]
    pub target: CellTarget,
}

pub fn run(before: &BeforeCommand, command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Drain(options) => give(before, &options.order, "drain", options.less_spread),
        NodeCommand::Cordon(options) => give(before, &options, "cordon", false),
        NodeCommand::Uncordon(options) => give(before, &options, "uncordon", false),
        NodeCommand::Forget(options) => give(before, &options, "forget", false),
        NodeCommand::Ls(filter) => on(before, &filter.target, |cell| ls(cell, &filter)),
        NodeCommand::Show(options) => on(before, &options.target, |cell| show(cell, &options.node)),
        NodeCommand::Tree(filter) => on(before, &filter.target, |cell| tree(cell, &filter)),
    }
}

/// Whether a node is asked for.
fn wanted(inventory: &Inventory, filter: &NodeFilter) -> anyhow::Result<impl Fn(&NodeRow) -> bool> {
    let zone = filter.zone.as_ref().map(|zone| names::zone(inventory, zone)).transpose()?;
    let state = filter.state.clone();
    Ok(move |node: &NodeRow| {
        zone.as_ref().is_none_or(|zone| node.zone == *zone) && state.as_ref().is_none_or(|state| node.state == *state)
    })
}

async fn ls(cell: Cell, filter: &NodeFilter) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let wanted = wanted(&inventory, filter)?;
    let nodes: Vec<&NodeRow> = inventory.nodes.iter().filter(|node| wanted(node)).collect();
    let document = |node: &&NodeRow| {
        let mut row = json!(node);
        row["fill"] = json!(fill(&inventory, node));
        row
    };
    let document = json!({ "nodes": nodes.iter().map(document).collect::<Vec<_>>() });
    cell.answer(&document, || table(&inventory, &nodes).to_string())
}

async fn tree(cell: Cell, filter: &NodeFilter) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    print_tree(&cell, &inventory, wanted(&inventory, filter)?)
}

fn fill(inventory: &Inventory, node: &NodeRow) -> Fill {
    Fill::of(inventory.disks.iter().filter(|disk| disk.node == node.node))
}

/// What an operator asked for a node, and how far that is.
pub fn asked(inventory: &Inventory, node: &NodeRow) -> String {
    // A node is asked once for all of its disks.
    let left: Option<u64> =
        inventory.disks.iter().filter(|disk| disk.node == node.node).map(|disk| disk.drain_left).sum();
    let told = |word: &String| match (word.as_str(), left) {
        ("draining", Some(0)) => "drained".to_owned(),
        ("draining", Some(left)) => format!("draining, {left} left"),
        _ => word.clone(),
    };
    let asked: Vec<String> = node.asked.iter().map(told).collect();
    asked.join(", ")
}

/// Nodes, a line each.
pub fn table(inventory: &Inventory, nodes: &[&NodeRow]) -> Table {
    let mut table = Table::new(["NODE", "ZONE", "RACK", "STATE", "HEARD", "DISKS", "USED", "ASKED", "ADDRESS"]);
    for node in nodes {
        let heard = node
            .last_heartbeat_ms
            .map_or("not yet".to_owned(), |ms| format!("{} ago", show::duration(ms as f64 / 1e3)));
        let fill = fill(inventory, node);
        let rack = if node.rack.is_empty() { "-" } else { &node.rack };
        let (health, used, asked) = (fill.health(), fill.shown(), asked(inventory, node));
        table.row([&node.node.0, &node.zone, rack, &node.state, &heard, &health, &used, &asked, &node.address]);
    }
    table
}

async fn show(cell: Cell, text: &str) -> anyhow::Result<()> {
    let inventory = cell.volume_manager().inventory().await?;
    let node = names::node(&inventory, text)?;
    let disks: Vec<&DiskDetail> = inventory.disks.iter().filter(|disk| disk.node == node.node).collect();
    let asked = cell.ask(&node.address).health().await;
    let (health, node_error) = match asked {
        Ok(health) => (Some(health), None),
        Err(error) => (None, Some(outcome::of_node(error))),
    };
    let document = json!({
        "node": node, "fill": fill(&inventory, node), "disks": disks, "health": health, "node_error": node_error,
    });
    cell.answer(&document, || {
        let mut out = table(&inventory, &[node]).to_string();
        match (&health, &node_error) {
            (Some(health), _) => {
                out.push_str(&format!("\nhealth  {}\n", json!(health.state).as_str().unwrap_or("?")));
                health.reasons.iter().for_each(|why| out.push_str(&format!("        {}\n", show::name(why))));
            }
            (None, Some(why)) => out.push_str(&format!("\nhealth  not known: {}\n", show::name(why))),
            (None, None) => {}
        }
        out.push_str(&format!("\n{}", disk::table(&inventory, &disks)));
        let mut unusable = Table::new(["NOT IN USE", "CAUSE", "WHY"]);
        node.unusable.iter().for_each(|disk| unusable.row([&disk.path, &disk.cause, &disk.reason]));
        if !unusable.is_empty() {
            out.push_str(&format!("\n{unusable}"));
        }
        out
    })
}
