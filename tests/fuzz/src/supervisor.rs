//! Runs each target in a process of its own, two at a time, and keeps the input of whatever goes wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::driver::Note;

/// Targets at the same time.
const AT_ONCE: usize = 2;

/// What is asked of all targets.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program of this crate.
    pub program: PathBuf,
    /// Where inputs are noted, and findings kept.
    pub folder: PathBuf,
    /// Time for each target.
    pub time: Duration,
    /// Of the random numbers.
    pub seed: u64,
}

/// A target's end.
#[derive(Debug)]
pub struct End {
    /// The target.
    pub target: String,
    /// Its last line.
    pub line: String,
    /// What was found, with the command that replays it.
    pub finding: Option<String>,
}

impl Plan {
    /// Runs the targets and answers how each ended.
    pub fn run(&self, targets: &[String]) -> Vec<End> {
        let next = AtomicUsize::new(0);
        let ends = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let end = self.one(target);
                        eprintln!("{}", end.finding.as_ref().unwrap_or(&end.line));
                        ends.lock().unwrap().push(end);
                    }
                });
            }
        });
        ends.into_inner().unwrap()
    }

    fn one(&self, target: &str) -> End {
        let note = self.folder.join(format!("{target}.note"));
        let output = Command::new(&self.program)
            .args(["run", target, "--seed", &self.seed.to_string()])
            .args(["--seconds", &self.time.as_secs_f64().to_string(), "--folder"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .output();
        let (ended_well, text) = match output {
            Ok(output) => (
                output.status.success(),
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
            ),
            Err(error) => (false, format!("cannot start {}: {error}", self.program.display())),
        };
        let text = text.trim().to_owned();
        let finding = (!ended_well).then(|| self.describe(target, &text, &note));
        End { target: target.to_owned(), line: text, finding }
    }

    /// A finding that the process told itself has its input kept; one that killed it has it in the note.
    fn describe(&self, target: &str, text: &str, note: &Path) -> String {
        if text.contains(REPLAY) {
            return text.to_owned();
        }
        let input = Note::read(note).unwrap_or_default();
        format!("{target}: the process ended: {text}\n{}", keep(&self.folder, target, &input, self.seed))
    }
}

/// How a replay is typed.
const REPLAY: &str = "cargo run -q -p holdfast-tests-fuzz -- replay";

/// Writes the input of a finding to a file; answers the command that replays it.
pub fn keep(folder: &Path, target: &str, input: &[u8], seed: u64) -> String {
    let path = folder.join(format!("{target}-{:08x}.input", crc32fast::hash(input)));
    match std::fs::write(&path, input) {
        Ok(()) => format!("{} bytes, seed {seed}; replay: {REPLAY} {target} {}", input.len(), path.display()),
        Err(error) => format!("cannot write {}: {error}; the input: {}", path.display(), hex::encode(input)),
    }
}
