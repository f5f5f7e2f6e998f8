//! The suites of `cargo xtask test`. `tests/README.md` keeps how long each may take.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};

use crate::beside::Beside;
use crate::programs::{self, Program};

/// What belongs to a suite of tests.
pub struct Suite {
    name: &'static str,
    /// The folder of its package; of `unit` every other's.
    folder: &'static str,
    /// What of the workspace has to be built for it alone.
    targets: &'static [&'static str],
    /// Of the test harness, for each of its programs.
    pub arguments: &'static [&'static str],
    /// Its tests are programs that Cargo builds.
    has_programs: bool,
}

/// What runs before the suites, and is chosen as they are.
const STEPS: [&str; 3] = ["format", "tidy", "clippy"];

/// In the order in which they run.
static SUITES: [Suite; 5] = [
    Suite { name: "unit", folder: "", targets: &["--tests"], arguments: &[], has_programs: true },
    Suite {
        name: "simulation",
        folder: "tests/simulation/",
        targets: &["--test", "seeds", "--test", "planted"],
        // Each test keeps all cores busy.
        arguments: &["--nocapture", "--test-threads=1"],
        has_programs: true,
    },
    Suite { name: "fuzz", folder: "tests/fuzz/", targets: &["--test", "parsers"], arguments: &[], has_programs: true },
    Suite {
        name: "cluster",
        folder: "tests/cluster/",
        // Its cells run the `holdfast` that lies beside it, which is built for tests of the commands.
        targets: &["--test", "cells", "--test", "commands"],
        // One cell at a time: they share two cores, and each starts eight processes.
        arguments: &["--test-threads=1"],
        has_programs: true,
    },
    Suite {
        name: "compatibility",
        folder: "tests/compatibility/",
        // For the `holdfast` as well; the tests are in Python.
        targets: &["--test", "commands"],
        arguments: &[],
        has_programs: false,
    },
];

impl Suite {
    /// Where a program belongs, by its source.
    pub fn of(source: &str) -> &'static Suite {
        let [unit, others @ ..] = &SUITES;
        others.iter().find(|suite| source.starts_with(suite.folder)).unwrap_or(unit)
    }
}

/// Programs that keep processors busy for long and look at no clock: they run beside all others, behind which they stand back.
/// Those that need one core for long come first, while others need the second.
const BESIDE: [&str; 8] = [
    "volume-manager/planner/tests/protocol/main.rs",
    "volume-manager/planner/tests/durability.rs",
    "volume-manager/planner/tests/rebalance.rs",
    "sync-client/planner/tests/simulation/main.rs",
    "node/engine/tests/mutations.rs",
    "tests/simulation/tests/planted.rs",
    "node/engine/tests/crash/main.rs",
    "tests/simulation/tests/seeds.rs",
];

/// What is built together, for all suites at once. A single package's tests would be built with other features of most
/// dependencies than the whole workspace's are. The engine has its bugs to plant everywhere, each off until a test plants it on
/// its thread: without, all that holds the engine would be built twice. A release has none.
const TESTED: [&str; 3] = ["--workspace", "--features", "holdfast-node-engine/planted-bugs"];

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// A command of the cargo that runs this, in the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Says how a step ends and how long it took.
///
/// # Errors
/// The step's.
pub fn told(name: &str, step: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    eprintln!("==> {name}");
    let started = Instant::now();
    let result = step();
    eprintln!(
        "==> {name}: {} in {:.0} s",
        if result.is_ok() { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f32()
    );
    result
}

/// Runs a command and says how long it took.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(name: &str, command: &mut Command) -> anyhow::Result<()> {
    told(name, || {
        let status = command.status().with_context(|| format!("{name}: cannot start {command:?}"))?;
        if !status.success() {
            bail!("{name} failed: {command:?}");
        }
        Ok(())
    })
}

/// All suites, or those whose name contains `only`.
///
/// # Errors
/// What failed first.
pub fn test(only: Option<&str>) -> anyhow::Result<()> {
    let wanted = |name: &str| only.is_none_or(|part| name.contains(part));
    check_name(only)?;
    let started = Instant::now();
    crate::packages::ensure()?;
    if wanted("format") {
        run("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    }
    if wanted("tidy") {
        crate::tidy::run()?;
    }
    if wanted("clippy") {
        run("clippy", &mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    }
    let suites: Vec<&'static Suite> = SUITES.iter().filter(|suite| wanted(suite.name)).collect();
    if !suites.is_empty() {
        test_suites(&suites)?;
    }
    eprintln!("==> all in {:.0} s", started.elapsed().as_secs_f32());
    Ok(())
}

fn test_suites(suites: &[&'static Suite]) -> anyhow::Result<()> {
    let has = |name: &str| suites.iter().any(|suite| suite.name == name);
    if has("unit") {
        crate::mariadb::ensure(&root())?;
    }
    let targets: Vec<&str> = suites.iter().flat_map(|suite| suite.targets).copied().collect();
    let mut programs = programs::build(&[&TESTED[..], &targets[..]].concat())?;
    programs.retain(|program| has(program.suite.name));
    if let Some(suite) = without_program(suites, programs.iter().map(|program| program.suite.name)) {
        bail!(
            "Cargo built no program of suite {suite}, so nothing of it would be tested: see its targets in xtask/src/suites.rs"
        );
    }
    let place = |program: &Program| BESIDE.iter().position(|source| *source == program.source);
    let (mut beside, programs): (Vec<_>, Vec<_>) = programs.into_iter().partition(|program| place(program).is_some());
    beside.sort_by_key(place);
    let mut beside = Beside::new(beside);
    for suite in suites {
        let mut own = programs.iter().filter(|program| program.suite.name == suite.name).peekable();
        if own.peek().is_some() {
            told(suite.name, || own.try_for_each(|program| run_program(program, &mut beside)))?;
        }
        match suite.name {
            "unit" => documented(&mut beside)?,
            "compatibility" => compatibility()?,
            _ => {}
        }
    }
    told("what is left beside", || beside.finish())
}

/// A suite that none of these programs belongs to, each told by its suite's name. Such a suite would pass whatever it holds.
fn without_program<'a>(suites: &[&'static Suite], of: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    let there: HashSet<&str> = of.collect();
    let lacks = |suite: &&&Suite| suite.has_programs && !there.contains(suite.name);
    suites.iter().find(lacks).map(|suite| suite.name)
}

fn run_program(program: &Program, beside: &mut Beside) -> anyhow::Result<()> {
    eprintln!("     Running {}", program.source);
    if !beside.wait(&mut program.command())?.success() {
        bail!("{} failed; to run it again: {}", program.source, program.again());
    }
    Ok(())
}

/// The examples in documentation.
fn documented(beside: &mut Beside) -> anyhow::Result<()> {
    let mut command = cargo(&["test", "--doc"]);
    if !beside.wait(command.args(TESTED))?.success() {
        bail!("an example in documentation failed: {command:?}");
    }
    Ok(())
}

/// The official Python SDK against a `holdfast dev` of its own.
fn compatibility() -> anyhow::Result<()> {
    let folder = root().join("tests/compatibility");
    let python = crate::packages::python(&root(), &folder.join("requirements.txt"))?;
    let data = root().join("target/compatibility-cell");
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    let mut dev = Command::new(root().join("target/debug/holdfast"))
        .args(["dev", "--no-clients", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start holdfast dev")?;
    let stdout = dev.stdout.take().context("dev has no stdout")?;
    let ready = BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line == "holdfast ready");
    let mut tests = Command::new(python);
    tests.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).arg(&folder).env("HOLDFAST_DEV", &data);
    let result = if ready { run("compatibility", &mut tests) } else { Err(anyhow!("holdfast dev did not get ready")) };
    // Its children die with it.
    dev.kill()?;
    dev.wait()?;
    result
}

/// Refuses a part of a name that no step and no suite has.
fn check_name(only: Option<&str>) -> anyhow::Result<()> {
    let names: Vec<&str> = STEPS.into_iter().chain(SUITES.iter().map(|suite| suite.name)).collect();
    match only.filter(|part| !names.iter().any(|name| name.contains(part))) {
        Some(part) => bail!("no suite's name contains {part:?}; there are {}", names.join(", ")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BESIDE, SUITES, Suite, check_name, root, without_program};

    #[test]
    fn a_suite_of_which_nothing_was_built_is_named_and_so_is_a_name_that_no_suite_has() {
        let suites: Vec<&'static Suite> = SUITES.iter().collect();
        let lacks = |built: &[&'static str]| without_program(&suites, built.iter().copied());
        assert_eq!(
            lacks(&["unit", "simulation", "fuzz", "cluster"]),
            None,
            "the tests of compatibility are no programs"
        );
        assert_eq!(lacks(&["unit", "unit", "simulation", "cluster"]), Some("fuzz"));
        assert_eq!(without_program(&suites[1..2], ["unit"].into_iter()), Some("simulation"));
        let error = check_name(Some("simulaton")).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("unit, simulation, fuzz")), "{error:?}");
        assert!(check_name(Some("simul")).is_ok() && check_name(None).is_ok());
    }

    #[test]
    fn programs_that_run_beside_others_are_there_and_belong_to_suites() {
        for source in BESIDE {
            assert!(root().join(source).is_file(), "{source}");
        }
        let suites = ["tests/simulation/tests/seeds.rs", "tests/cluster/tests/cells/main.rs", "node/engine/src/lib.rs"];
        assert_eq!(suites.map(|source| Suite::of(source).name), ["simulation", "cluster", "unit"]);
    }
}
