//! The project's own commands: `cargo xtask test`, `cargo xtask tidy`, `cargo xtask soak`, `cargo xtask mariadb`.

mod beside;
mod mariadb;
mod metric_names;
mod packages;
mod programs;
mod soak;
mod suites;
mod tidy;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Commands for working on Holdfast")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format check, clippy, tidy and every test: what CI runs
    Test {
        /// Only suites whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
    /// Unpacks a MariaDB server for tests into `target/mariadb`, unless there is one
    Mariadb,
    /// The rules of the workspace: who may import whom, where SQL and `unsafe` may stand
    Tidy,
    /// Tests that run for hours
    Soak {
        /// Which one: `node`, `cluster`, `fuzz`, `kill`, `kill-engine`
        suite: String,
        /// How many seeds or rounds
        #[arg(long, default_value_t = 100_000)]
        rounds: u64,
        /// `node`, `cluster`: how long, instead of how many seeds
        #[arg(long, conflicts_with = "rounds")]
        minutes: Option<u64>,
        /// Where to start; by default 1, `node` and `cluster` where they never were
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test { only } => suites::test(only.as_deref()),
        Command::Mariadb => mariadb::ensure(&suites::root()),
        Command::Tidy => tidy::run(),
        Command::Soak { suite, rounds, minutes, seed } => soak::run(&suite, &soak::Length { rounds, minutes }, seed),
    }
}
