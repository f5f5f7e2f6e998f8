//! What the tests need from outside Cargo, and how to get it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A program and the Debian package that has it.
const PROGRAMS: [(&str, &str); 2] = [("fio", "fio"), ("python3", "python3")];

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    // Owner of /proc/self is the effective user of this process.
    std::fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// Installs what is missing when root; otherwise says which command to type.
///
/// # Errors
/// When something is missing and cannot be installed from here.
pub fn ensure() -> anyhow::Result<()> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !is_root() || !is_there("apt-get") {
        bail!("the tests need {packages}; type: sudo apt-get install {packages}");
    }
    let install = format!("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get install -qy {packages}");
    crate::suites::run("install packages", Command::new("sh").args(["-c", &install]))
}

/// A Python with the packages in `requirements`, in a virtual environment under `target/`.
///
/// # Errors
/// When Python has no `venv` or a package cannot be had.
pub fn python(root: &Path, requirements: &Path) -> anyhow::Result<PathBuf> {
    let environment = root.join("target/python");
    let python = environment.join("bin/python");
    let wanted =
        std::fs::read_to_string(requirements).with_context(|| format!("{} cannot be read", requirements.display()))?;
    let mark = environment.join("installed.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    if crate::suites::run("python venv", &mut make).is_err() {
        bail!("python3 has no venv module; type: sudo apt-get install python3-venv");
    }
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    crate::suites::run("pip install", &mut install)?;
    std::fs::write(&mark, wanted)?;
    Ok(python)
}
