//! The operator's commands.
//!
//! Each subject has a file: what may be typed, what is asked of the cell, what is shown. [`cell`] knows which cell is meant.
//! A command answers through [`Cell::answer`], with a document and a text of the same content.

mod catalog;
mod cell;
mod disk;
mod durability;
#[cfg(test)]
mod examples;
mod names;
mod node;
mod order;
mod repair;
mod status;
mod token;
mod tree;
mod volume;
mod zone;

use clap::Subcommand;

use self::catalog::CatalogCommand;
pub use self::cell::{BeforeCommand, HOW_TO_NAME_A_CELL};
use self::cell::{Cell, CellTarget};
use self::disk::DiskCommand;
use self::durability::DurabilityOptions;
use self::node::NodeCommand;
use self::repair::RepairCommand;
use self::status::StatusOptions;
use self::token::TokenOptions;
use self::volume::VolumeCommand;
use self::zone::ZoneCommand;

#[derive(Subcommand)]
pub enum AdminCommand {
    /// Health of the cell on one screen: what can lose 0, 1 or 2 more disks, space, running work, what is not well
    ///
    /// What nodes say of themselves and their disks is up to a heartbeat old (1 s, `heartbeat_ms`). A node that is not heard of is
    /// shown as suspect after `suspect_ms` (3 s), so that a short pause alarms nobody.
    ///
    /// How much data fits is counted with the replicas in three zones: 0 while fewer take new data, though writes may go on with
    /// replicas closer together.
    Status(StatusOptions),
    /// How long the cell's data lasts on paper, with every input and where it comes from
    ///
    /// A Markov model of disks that fail one by one and are repaired. It knows of no flood, no fault of a whole batch of
    /// disks and no bug: it tells whether disks and repairs are the weak spot, and promises nothing. Disks must be in service in
    /// at least three zones.
    Durability(DurabilityOptions),
    /// Repair: what lacks a replica, how fast it gets one, how much clients may feel of it
    Repair {
        #[command(subcommand)]
        command: RepairCommand,
    },
    /// The catalog: copy it, put a copy back, make it again from the disks
    Catalog {
        #[command(subcommand)]
        command: CatalogCommand,
    },
    /// Zones: the largest failure domains
    Zone {
        #[command(subcommand)]
        command: ZoneCommand,
    },
    /// Nodes: the storage servers
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Disks: look at them, make them ready
    Disk {
        #[command(subcommand)]
        command: DiskCommand,
    },
    /// Bring every disk to its share of what the cell holds, for example after a node was added
    Rebalance {
        #[command(subcommand)]
        command: RebalanceCommand,
    },
    /// Print the token of the role admin, for an operator's configuration; run it where the cell's secret is kept
    Token(TokenOptions),
    /// Volumes: where they are, what they can lose and why
    Volume {
        #[command(subcommand)]
        command: VolumeCommand,
    },
}

#[derive(Subcommand)]
pub enum RebalanceCommand {
    /// What would move so that every disk holds its share, and why; nothing is done
    Plan(CellTarget),
    /// Begin it now; what moves is printed with the answer. `rebalance plan` shows it before
    Apply(CellTarget),
    /// How far the one under way is
    Status(CellTarget),
    /// End it: what is being copied arrives, nothing more begins, nothing moves back
    Cancel(CellTarget),
}

/// Runs an operator's command.
pub fn run(before: BeforeCommand, command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Repair { command } => on(&before, &command.target(), |cell| repair::run(cell, command)),
        AdminCommand::Status(options) => on(&before, &options.target, |cell| status::run(cell, options.watch)),
        AdminCommand::Durability(options) => {
            on(&before, &options.target.clone(), |cell| durability::run(cell, options))
        }
        AdminCommand::Catalog { command } => catalog::run(&before, command),
        AdminCommand::Zone { command } => zone::run(&before, command),
        AdminCommand::Node { command } => node::run(&before, command),
        AdminCommand::Disk { command } => disk::run(&before, command),
        AdminCommand::Rebalance { command } => {
            let (target, word) = match &command {
                RebalanceCommand::Plan(target) => (target, "plan"),
                RebalanceCommand::Apply(target) => (target, "apply"),
                RebalanceCommand::Status(target) => (target, "status"),
                RebalanceCommand::Cancel(target) => (target, "cancel"),
            };
            on(&before, target, |cell| async move { order::rebalance(&cell, word).await })
        }
        AdminCommand::Token(options) => token::run(&options),
        AdminCommand::Volume { command } => volume::run(&before, command),
    }
}

/// Runs a command on the cell that is named before or behind it.
fn on<F: Future<Output = anyhow::Result<()>>>(
    before: &BeforeCommand,
    target: &CellTarget,
    command: impl FnOnce(Cell) -> F,
) -> anyhow::Result<()> {
    let target = before.or(target);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { command(Cell::open(&target)?).await })
}
