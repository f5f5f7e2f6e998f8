//! The suites of `cargo xtask test`, in order. `tests/README.md` keeps how long each may take.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, anyhow, bail};

/// What is built together. A single package's tests would be built with other features of most dependencies than the whole
/// workspace's are, so suites choose tests by name instead. The parsers under fuzz have a suite of their own. The engine has its
/// bugs to plant everywhere, each off until a test plants it on its thread: without, all that holds the engine would be built
/// twice. A release has none.
const TESTED: [&str; 5] = ["--workspace", "--exclude", "holdfast-tests-fuzz", "--features", PLANTED_BUGS];
const PLANTED_BUGS: &str = "holdfast-node-engine/planted-bugs";

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

/// Runs a command and says how long it took.
///
/// # Errors
/// When it cannot be started or fails.
pub fn run(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("==> {name}");
    let started = Instant::now();
    let status = command.status().with_context(|| format!("{name}: cannot start {command:?}"))?;
    eprintln!(
        "==> {name}: {} in {:.0} s",
        if status.success() { "ok" } else { "FAILED" },
        started.elapsed().as_secs_f32()
    );
    if !status.success() {
        bail!("{name} failed: {command:?}");
    }
    Ok(())
}

/// All suites, or those whose name contains `only`.
///
/// # Errors
/// The first suite that fails.
pub fn test(only: Option<&str>) -> anyhow::Result<()> {
    let wanted = |name: &str| only.is_none_or(|part| name.contains(part));
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
    if wanted("unit") {
        crate::mariadb::ensure(&root())?;
        let own_suites = ["--exclude", "holdfast-tests-cluster", "--exclude", "holdfast-tests-simulation"];
        run("unit", cargo(&["test"]).args(TESTED).args(own_suites))?;
    }
    if wanted("simulation") {
        // Each test keeps all cores busy. Named among all that is tested, so that nothing is built anew.
        let tests = ["--test", "seeds", "--test", "planted", "--", "--nocapture", "--test-threads=1"];
        run("simulation", cargo(&["test"]).args(TESTED).args(tests))?;
    }
    if wanted("fuzz") {
        run("fuzz", &mut cargo(&["test", "--workspace", "--features", PLANTED_BUGS, "--test", "parsers"]))?;
    }
    if wanted("cluster") || wanted("compatibility") {
        // As a test of the commands links it: `cargo build` would build it anew, without the features that tests ask for.
        run("binary", cargo(&["test", "--no-run", "--test", "commands"]).args(TESTED))?;
    }
    if wanted("cluster") {
        // On the binary that lies beside them. One cell at a time: they share two cores, and each starts eight processes.
        let tests = ["--test", "cells", "--", "--test-threads=1"];
        run("cluster", cargo(&["test"]).args(TESTED).args(tests))?;
    }
    if wanted("compatibility") {
        compatibility()?;
    }
    eprintln!("==> all in {:.0} s", started.elapsed().as_secs_f32());
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
