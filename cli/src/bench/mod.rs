//! Measurements. They print figures and never judge them.

mod blocks;
mod fio;
mod processes;

use crate::arguments::BenchCommand;

/// Runs a benchmark.
pub fn run(command: BenchCommand) -> anyhow::Result<()> {
    match command {
        BenchCommand::Blocks(options) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(blocks::run(options))
        }
    }
}
