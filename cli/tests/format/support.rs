//! The command under test, files to make devices of, and loop devices that go away with their value.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use sha2::{Digest, Sha256};
use tempfile::TempDir;

pub const CELL: &str = "cececececececececececececececece";
pub const OTHER_CELL: &str = "0ce10ce10ce10ce10ce10ce10ce10ce1";

/// A folder on a real file system: O_DIRECT does not work everywhere.
pub fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs the command on `device` for [`CELL`] with slots of 1 MiB.
pub fn format(device: &Path, more: &[&str]) -> Output {
    format_for(CELL, device, more)
}

pub fn format_for(cell: &str, device: &Path, more: &[&str]) -> Output {
    let mut arguments = vec!["--cell", cell, "--slot-size", "1MiB"];
    arguments.extend(more);
    run(device, &arguments)
}

/// Runs the command with just these arguments.
pub fn run(device: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["admin", "disk", "format"])
        .arg(device)
        .args(arguments)
        .env_remove("HOLDFAST_DEV")
        .output()
        .unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// It worked.
#[track_caller]
pub fn done(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
}

/// It ended with `code` and said all of `words`.
#[track_caller]
pub fn said(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not said in: {text}");
    }
}

/// `command` was refused with `words`, and what stands on the device is the same before and after.
#[track_caller]
pub fn refused(device: &Path, command: impl FnOnce() -> Output, words: &[&str]) {
    let before = hash(device);
    said(&command(), 1, words);
    assert_eq!(hash(device), before, "a refused format changed the device");
}

pub fn hash(path: &Path) -> [u8; 32] {
    let mut file = std::fs::File::open(path).unwrap();
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let got = std::io::Read::read(&mut file, &mut chunk).unwrap();
        if got == 0 {
            return hasher.finalize().into();
        }
        hasher.update(&chunk[..got]);
    }
}

pub fn put(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
    file.sync_all().unwrap();
}

pub fn size(path: &Path) -> u64 {
    std::io::Seek::seek(&mut std::fs::File::open(path).unwrap(), std::io::SeekFrom::End(0)).unwrap()
}

pub fn sparse(path: &Path, bytes: u64) {
    std::fs::File::create(path).unwrap().set_len(bytes).unwrap();
}

/// Whether tests with loop devices can run; says so where they cannot.
pub fn root(test: &str) -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/dev/loop-control").exists();
    if !can {
        // Not by a macro: the harness would swallow it.
        let said = std::format!("SKIPPED {test}: it needs root and loop devices\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
    }
    can
}

/// Runs a program that must succeed, and answers its trimmed output.
#[track_caller]
pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// A loop device over a file or another device; detached when dropped.
pub struct Loop {
    pub path: PathBuf,
}

impl Loop {
    pub fn over(backing: &Path, more: &[&str]) -> Self {
        /// Two that ask for a free device at once may be given the same one.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut arguments = vec!["--find", "--show"];
        arguments.extend(more);
        arguments.push(backing.to_str().unwrap());
        Self { path: must("losetup", &arguments).into() }
    }

    /// Over a sparse file of `bytes` in `folder`.
    pub fn new(folder: &TempDir, bytes: u64) -> Self {
        let file = folder.path().join("backing");
        sparse(&file, bytes);
        Self::over(&file, &[])
    }

    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.path).status();
    }
}
