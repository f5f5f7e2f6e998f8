//! The programs of tests: what Cargo built of them, and how each is run.

use std::io::BufReader;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use cargo_metadata::Message;

use crate::suites::{Suite, cargo, root, told};

/// A program of tests.
pub struct Program {
    /// Its main source file, from the workspace's root on: what it is called by.
    pub source: String,
    /// Where it belongs.
    pub suite: &'static Suite,
    /// What Cargo built.
    pub executable: PathBuf,
    /// Where it runs: its package's folder, as with Cargo.
    folder: PathBuf,
}

impl Program {
    /// What runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(self.suite.arguments).current_dir(&self.folder);
        command
    }

    /// What runs it for as much of the processors as others leave.
    pub fn command_behind_others(&self) -> Command {
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(&self.executable).args(self.suite.arguments).current_dir(&self.folder);
        command
    }

    /// What to type to run it once more.
    pub fn again(&self) -> String {
        let (folder, executable) = (self.folder.display(), self.executable.display());
        format!("(cd {folder} && {executable} {})", self.suite.arguments.join(" "))
    }
}

/// Builds what `selection` chooses of the workspace's tests, and answers their programs in the order of their sources.
///
/// # Errors
/// When something cannot be built; Cargo has said why.
pub fn build(selection: &[&str]) -> anyhow::Result<Vec<Program>> {
    let mut command = cargo(&["test", "--no-run", "--message-format=json-render-diagnostics"]);
    command.args(selection).stdout(Stdio::piped());
    let mut programs = Vec::new();
    told("build", || {
        let mut cargo = command.spawn().context("cannot start cargo")?;
        let messages = cargo.stdout.take().context("cargo has no stdout")?;
        for message in Message::parse_stream(BufReader::new(messages)) {
            programs.extend(program(message?)?);
        }
        if !cargo.wait()?.success() {
            bail!("build failed: {command:?}");
        }
        Ok(())
    })?;
    programs.sort_by(|one, other| one.source.cmp(&other.source));
    Ok(programs)
}

/// The program that a message of Cargo tells of.
fn program(message: Message) -> anyhow::Result<Option<Program>> {
    let Message::CompilerArtifact(artifact) = message else { return Ok(None) };
    let Some(executable) = artifact.executable.filter(|_| artifact.profile.test) else { return Ok(None) };
    let source = artifact.target.src_path.strip_prefix(root())?.to_string();
    let folder = artifact.manifest_path.parent().context("a manifest lies in a folder")?.into();
    Ok(Some(Program { suite: Suite::of(&source), source, executable: executable.into(), folder }))
}
