//! Measurements. They print figures and never judge them.

mod blocks;
mod disk;
mod fio;
mod foreground;
mod processes;
mod repair;
mod rounds;

use crate::arguments::BenchCommand;

/// Waits until the benchmark is to be given up.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminate.recv() => Ok(()),
    }
}

/// Runs a benchmark.
pub fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Blocks(options) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(blocks::run(options))
        }
        BenchCommand::Repair(options) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(repair::run(options))
        }
        // One thread for the caller, beside the disk's own: what is measured is the disk.
        BenchCommand::Disk(options) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(disk::run(options))
        }
    }
}
