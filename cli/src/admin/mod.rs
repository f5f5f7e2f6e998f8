//! The operator's commands.
//!
//! Each subject has a file: what may be typed, what is asked of the cell, what is shown. [`cell`] knows which cell is meant.
//! A command answers through [`Cell::answer`], with a document and a text of the same content.

mod cell;
mod disk;
mod durability;
mod status;

use clap::Subcommand;

pub use self::cell::{BeforeCommand, HOW_TO_NAME_A_CELL};
use self::cell::{Cell, CellTarget};
use self::disk::DiskCommand;
use self::durability::DurabilityOptions;

#[derive(Subcommand)]
pub enum AdminCommand {
    /// Health of the cell: what can lose 0, 1 or 2 more disks, nodes, disks, running work
    Status(CellTarget),
    /// How long the cell's data lasts on paper, with every input and where it comes from
    ///
    /// A Markov model of disks that fail one by one and are repaired. It knows of no flood, no fault of a whole batch of
    /// disks and no bug: it tells whether disks and repairs are the weak spot, and promises nothing.
    Durability(DurabilityOptions),
    /// Disks: make them ready on their own machine
    Disk {
        #[command(subcommand)]
        command: DiskCommand,
    },
}

/// Runs an operator's command.
pub fn run(before: BeforeCommand, command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status(target) => on(&before, &target, status::run),
        AdminCommand::Durability(options) => {
            on(&before, &options.target.clone(), |cell| durability::run(cell, options))
        }
        AdminCommand::Disk { command } => disk::run(&before, command),
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
        .block_on(async { command(Cell::open(&target).await?).await })
}
