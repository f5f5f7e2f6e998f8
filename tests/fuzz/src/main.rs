//! `holdfast-fuzz`: tries one target, all of them, or one input again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand};
use holdfast_tests_fuzz::allocations::Counted;
use holdfast_tests_fuzz::driver::{Limit, Note, Target, note_panics, watch_for_hangs};
use holdfast_tests_fuzz::supervisor::{Plan, keep};
use holdfast_tests_fuzz::targets;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The names of all targets
    List,
    /// Try one target in this process
    Run {
        target: String,
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        #[arg(long, default_value_t = u64::MAX)]
        runs: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Where the input under trial is noted
        #[arg(long, default_value = "target/fuzz")]
        folder: PathBuf,
    },
    /// Try all targets, round after round with a new seed, each in a process of its own
    All {
        /// For each target and round
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        #[arg(long, default_value_t = 1)]
        rounds: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value = "target/fuzz")]
        folder: PathBuf,
    },
    /// Try one input, with the panic's own message
    Replay { target: String, input: PathBuf },
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::List => {
            targets::all().iter().for_each(|target| println!("{}", target.name));
            Ok(ExitCode::SUCCESS)
        }
        Command::Run { target, seconds, runs, seed, folder } => {
            let limit = Limit { time: Duration::from_secs_f64(seconds), runs };
            run(&find(&target)?, limit, seed, &folder)
        }
        Command::All { seconds, rounds, seed, folder } => all(seconds, rounds, seed, folder),
        Command::Replay { target, input } => {
            let bytes = std::fs::read(&input).with_context(|| format!("cannot read {}", input.display()))?;
            match find(&target)?.try_input(&bytes) {
                Ok((outcome, asked)) => println!("{target}: {outcome:?}, {asked} bytes asked for"),
                Err(what) => return Err(anyhow!("{target}: {what}")),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn find(name: &str) -> anyhow::Result<Target> {
    targets::all()
        .into_iter()
        .find(|target| target.name == name)
        .with_context(|| format!("no target `{name}`; see list"))
}

fn run(target: &Target, limit: Limit, seed: u64, folder: &std::path::Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder)?;
    let note = Note::create(&folder.join(format!("{}.note", target.name)))?;
    note_panics();
    watch_for_hangs();
    match target.explore(limit, seed, &note) {
        Ok(tried) => {
            println!(
                "{:<24} {:>9} runs, {:>8} parsed, {:>4} kinds of answers, {:>4} inputs, at most {} bytes asked for",
                target.name, tried.runs, tried.parsed, tried.kinds, tried.inputs, tried.most_asked
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(finding) => {
            println!("{}: {}\n{}", target.name, finding.what, keep(folder, target.name, &finding.input, seed));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn all(seconds: f64, rounds: u64, seed: u64, folder: PathBuf) -> anyhow::Result<ExitCode> {
    let folder = std::path::absolute(folder)?;
    std::fs::create_dir_all(&folder)?;
    let names: Vec<String> = targets::all().iter().map(|target| target.name.to_owned()).collect();
    for seed in seed..seed.saturating_add(rounds) {
        let program = std::env::current_exe()?;
        let plan = Plan { program, folder: folder.clone(), time: Duration::from_secs_f64(seconds), seed };
        let ends = plan.run(&names);
        if ends.iter().any(|end| end.finding.is_some()) {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
