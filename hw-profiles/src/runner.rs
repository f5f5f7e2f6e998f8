//! Runs `smartctl` and `ledctl`, which may be absent, and may hang with the disk they ask.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Most bytes of output that are kept; smartctl writes some 100 KiB.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// Where Debian and others put programs for root, which may be missing in a user's PATH.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What a program that ended said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, at most 4 MiB.
    pub stdout: String,
    /// Its standard error, at most 4 MiB.
    pub stderr: String,
}

/// Why there is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The program is not installed.
    #[error("{0} is not installed")]
    Absent(String),
    /// It did not end in time and was killed.
    #[error("{program} did not answer within {seconds} s and was killed")]
    Hung {
        /// The program.
        program: String,
        /// How long it had.
        seconds: u64,
    },
    /// It could not be started or read.
    #[error("{program}: {detail}")]
    Failed {
        /// The program.
        program: String,
        /// Why.
        detail: String,
    },
}

/// Starts programs; tests answer from recorded output.
pub trait Runner: Sync {
    /// Runs `program` until it ends or `deadline` has passed.
    ///
    /// # Errors
    /// See [`RunError`]. An exit code other than 0 is no error here.
    fn run(&self, program: &str, arguments: &[&str], deadline: Duration) -> Result<Output, RunError>;
}

/// Runs real programs.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRunner;

impl Runner for SystemRunner {
    fn run(&self, program: &str, arguments: &[&str], deadline: Duration) -> Result<Output, RunError> {
        let failed = |error: io::Error| RunError::Failed { program: program.to_owned(), detail: error.to_string() };
        let mut child = match start(program, arguments) {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(RunError::Absent(program.to_owned())),
            Err(error) => return Err(failed(error)),
        };
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (send, receive) = mpsc::channel();
        // This thread outlives the call when the program sits in the kernel where no signal reaches it; the answer is
        // given without it.
        std::thread::spawn(move || {
            let errors = std::thread::spawn(move || stderr.map(kept).unwrap_or_default());
            let stdout = stdout.map(kept).unwrap_or_default();
            let stderr = errors.join().unwrap_or_default();
            send.send(child.wait().map(|status| Output { code: status.code(), stdout, stderr }))
        });
        match receive.recv_timeout(deadline) {
            Ok(output) => output.map_err(failed),
            Err(_) => {
                if group.as_raw() > 1 {
                    // It may have ended this moment: then there is nothing to kill.
                    let _ = killpg(group, Signal::SIGKILL);
                }
                Err(RunError::Hung { program: program.to_owned(), seconds: deadline.as_secs() })
            }
        }
    }
}

/// Starts a program from PATH or a folder of root's programs, in a process group of its own.
fn start(program: &str, arguments: &[&str]) -> io::Result<std::process::Child> {
    let command = |name: &str| {
        Command::new(name)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
    };
    let mut result = command(program);
    for folder in FOLDERS {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !program.contains('/') => {
                result = command(&format!("{folder}/{program}"));
            }
            _ => break,
        }
    }
    result
}

/// All output is read, so that the program can end; the first 4 MiB are kept.
fn kept(mut from: impl io::Read) -> String {
    let mut bytes = Vec::new();
    let read = (&mut from).take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes);
    if read.is_ok() {
        // Whatever is past the limit is of no interest, nor why it could not be read.
        let _ = io::copy(&mut from, &mut io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{RunError, Runner as _, SystemRunner};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn output_and_code_come_back() {
        let output = SystemRunner.run("sh", &["-c", "echo out; echo err >&2; exit 4"], LONG).unwrap();
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(4), "out\n", "err\n"));
    }

    #[test]
    fn an_absent_program_is_told_from_a_failing_one() {
        let error = SystemRunner.run("no-such-program-of-holdfast", &[], LONG).unwrap_err();
        assert_eq!(error, RunError::Absent("no-such-program-of-holdfast".to_owned()));
    }

    #[test]
    fn a_hung_program_is_killed_with_its_children_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let error = SystemRunner.run("sh", &["-c", &script], Duration::from_secs(1)).unwrap_err();
        assert_eq!(error, RunError::Hung { program: "sh".to_owned(), seconds: 1 });
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let stat = format!("/proc/{}/stat", pid.trim());
        let limit = std::time::Instant::now() + LONG;
        // Dead, or a zombie whose new parent has not yet looked.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(std::time::Instant::now() < limit, "the child of the killed program still runs");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
