//! The one binary: every daemon, the operator's commands and the user's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod arguments;
mod bench;
mod daemon;
mod dev;
mod disk;
mod hardware;
mod outcome;
mod profile;
mod show;
mod user;

use clap::Parser;

use crate::arguments::{Arguments, Command};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = daemon::die_with_supervisor() {
        eprintln!("holdfast: {error}");
        return outcome::FAILED.into();
    }
    holdfast_libs_telemetry::init_logging();
    outcome::report(run(arguments))
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Dev(options) => dev::run(options),
        Command::Node(options) => match (options.command, options.config) {
            (Some(command), _) => hardware::run(command),
            (None, Some(config)) => daemon::node(&config),
            // clap asks for one of the two.
            (None, None) => Err(outcome::usage("`holdfast node` needs --config FILE, or a command such as probe")),
        },
        Command::VolumeManager(file) => daemon::volume_manager(&file.config),
        Command::Frontend(file) => daemon::frontend(&file.config),
        Command::Metadata(file) => daemon::metadata(&file.config),
        Command::Sync(file) => daemon::sync(&file.config),
        Command::Admin { before, command } => admin::run(before, command),
        Command::Login(options) => user::login(&options),
        Command::Status(options) => user::status(&options),
        Command::Ls(options) => user::ls(&options),
        Command::Put(options) => user::put(&options),
        Command::Get(options) => user::get(&options),
        Command::Bench { command } => bench::run(command),
    }
}
