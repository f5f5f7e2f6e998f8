//! `admin disk`: one disk, or all of them.

use clap::Subcommand;

use super::cell::BeforeCommand;
use crate::arguments::FormatDisk;
use crate::disk;
use crate::outcome::usage;

#[derive(Subcommand)]
pub enum DiskCommand {
    /// Make a disk of a block device or a file; run it on the storage server itself, no daemon is needed
    ///
    /// Refuses, with the reason and what to do, a device that is in use or on which anything stands: a mount, a partition
    /// table, a known signature, or any byte that is not zero in its first or last 2 MiB. What lies between is not looked
    /// at, and is overwritten.
    #[command(after_help = "Exit codes: 0 it is a disk now, 1 refused or failed (a refusal changes nothing), 2 usage.")]
    Format(FormatDisk),
}

pub fn run(before: &BeforeCommand, command: DiskCommand) -> anyhow::Result<()> {
    match command {
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
