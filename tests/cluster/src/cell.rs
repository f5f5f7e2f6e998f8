//! A running `holdfast dev`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait_for;

/// A cell in a folder of its own; killed and removed when dropped.
pub struct Cell {
    folder: tempfile::TempDir,
    options: Vec<String>,
    dev: Option<Child>,
    revived: Vec<Child>,
}

/// The binary of the same build as the test: it lies beside the folder of this executable.
///
/// # Errors
/// When it has not been built.
pub fn binary() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path = test.ancestors().nth(2).context("the test has no folder")?.join("holdfast");
    if !path.exists() {
        bail!("{} is not built: `cargo xtask test --only cluster` does so", path.display());
    }
    Ok(path)
}

/// A folder for a test, on the checkout's file system.
///
/// # Errors
/// When it cannot be made.
pub fn scratch(name: &str) -> anyhow::Result<tempfile::TempDir> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cluster-tests");
    std::fs::create_dir_all(&base)?;
    Ok(tempfile::Builder::new().prefix(name).tempdir_in(base.canonicalize()?)?)
}

/// Whether a process has ended, whoever is to reap it. Its last thread closes its files: until then it holds its port.
pub fn has_ended(pid: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let is_zombie = state.rsplit_once(')').is_none_or(|(_, rest)| rest.trim().starts_with('Z'));
    is_zombie && std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1
}

fn wait_for_end(pids: &[Pid]) -> anyhow::Result<()> {
    wait_for("the daemons' end", Duration::from_secs(10), || {
        let alive = pids.iter().filter(|pid| !has_ended(**pid)).count();
        Ok(if alive == 0 { Ok(()) } else { Err(format!("{alive} daemons live")) })
    })
}

impl Cell {
    /// Starts a new cell and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with the end of what it printed.
    pub fn start(name: &str, options: &[&str]) -> anyhow::Result<Self> {
        let mut cell = Self { folder: scratch(name)?, options: Vec::new(), dev: None, revived: Vec::new() };
        cell.set_options(options);
        cell.resume()?;
        Ok(cell)
    }

    /// Starts `holdfast dev` on the folder again.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(self.path().join("dev.stderr"))?;
        let mut child = Command::new(binary()?)
            .args(["dev", "--data"])
            .arg(self.path())
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let stdout = child.stdout.take().context("dev has no stdout")?;
        self.dev = Some(child);
        for line in BufReader::new(stdout).lines() {
            if line? == "holdfast ready" {
                return Ok(());
            }
        }
        let printed = std::fs::read_to_string(self.path().join("dev.stderr")).unwrap_or_default();
        bail!("holdfast dev ended before it was ready; it printed:\n{printed}")
    }

    /// Changes the options for the next [`Self::resume`].
    pub fn set_options(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
    }

    /// The cell's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `dev.json`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn dev_json(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.path().join("dev.json"))?)?)
    }

    /// A daemon of `dev.json`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn daemon(&self, name: &str) -> anyhow::Result<Value> {
        let dev = self.dev_json()?;
        let found = dev["daemons"].as_array().into_iter().flatten().find(|daemon| daemon["name"] == name).cloned();
        found.with_context(|| format!("no daemon {name} in dev.json"))
    }

    /// A daemon's process id, as `dev` started it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn pid(&self, name: &str) -> anyhow::Result<Pid> {
        let pid = self.daemon(name)?["pid"].as_i64().context("no pid")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }

    /// Sends a signal to a daemon that `dev` started.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn signal(&self, name: &str, signal: Signal) -> anyhow::Result<()> {
        kill(self.pid(name)?, signal).with_context(|| format!("cannot signal {name}"))
    }

    /// Starts a daemon again that was killed, with the command line of `dev.json`. It lives until the cell is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn revive(&mut self, name: &str) -> anyhow::Result<Pid> {
        let daemon = self.daemon(name)?;
        let argv: Vec<&str> = daemon["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let log = std::fs::OpenOptions::new().append(true).open(daemon["log"].as_str().context("no log")?)?;
        let child = Command::new(argv[0])
            .args(&argv[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        self.revived.push(child);
        Ok(pid)
    }

    /// kill -9 of `dev` and of every daemon at once.
    ///
    /// # Errors
    /// When `dev` is not running.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        let dev = self.dev_json()?;
        let mut child = self.dev.take().context("dev does not run")?;
        let pids: Vec<Pid> = dev["daemons"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|daemon| i32::try_from(daemon["pid"].as_i64()?).ok())
            .map(Pid::from_raw)
            .collect();
        child.kill()?;
        for pid in &pids {
            // It may be gone already: its parent was killed first.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        child.wait()?;
        for mut revived in self.revived.drain(..) {
            revived.kill()?;
            revived.wait()?;
        }
        wait_for_end(&pids)
    }

    /// kill -9 of a daemon that `dev` started; it has ended when this answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.pid(name)?;
        kill(pid, Signal::SIGKILL).with_context(|| format!("cannot kill {name}"))?;
        wait_for_end(&[pid])
    }

    /// Stops the cell as Ctrl-C does.
    ///
    /// # Errors
    /// When `dev` does not end well.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let mut child = self.dev.take().context("dev does not run")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
        let status = child.wait()?;
        if !status.success() {
            bail!("holdfast dev ended with {status}");
        }
        Ok(())
    }

    /// Runs `holdfast ARGUMENTS --dev DIR --json`; answers the exit code, the document and stderr.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<(i32, Value, String)> {
        let output = Command::new(binary()?).args(arguments).arg("--json").arg("--dev").arg(self.path()).output()?;
        let document = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code().unwrap_or(-1), document, stderr))
    }

    /// Runs a command that must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let (code, document, stderr) = self.run(arguments)?;
        if code != 0 {
            bail!("holdfast {} ended with {code}: {stderr}", arguments.join(" "));
        }
        Ok(document)
    }

    /// Waits until `admin status` says that every volume can lose two more disks and no work is left.
    ///
    /// # Errors
    /// When that does not come in time.
    pub fn wait_protected(&self, limit: Duration) -> anyhow::Result<Value> {
        wait_for("full protection", limit, || {
            let status = self.json(&["admin", "status"])?;
            let total = status["volumes"]["total"].as_u64();
            let safe = status["volumes"]["can_lose"]["2"].as_u64().unwrap_or(0);
            let idle = status["work"].as_array().is_some_and(Vec::is_empty);
            Ok(if total == Some(safe) && idle { Ok(status) } else { Err(status.to_string()) })
        })
    }

    /// Waits until both sync clients have pulled what there is and are idle, each once more after the other: what one brings the
    /// other may answer, with a conflict copy for example.
    ///
    /// # Errors
    /// When that does not come in time, with what they say.
    pub fn wait_synced(&self, limit: Duration) -> anyhow::Result<Value> {
        for client in ["laptop", "desktop", "laptop", "desktop"] {
            wait_for(client, limit, || Ok(self.settle(client, limit).map_err(|error| error.to_string())))?;
        }
        wait_for("both clients idle", limit, || {
            let status = self.json(&["status"])?;
            let mut clients = status["clients"].as_array().into_iter().flatten();
            Ok(if clients.all(|client| client["state"] == "idle") { Ok(status) } else { Err(status.to_string()) })
        })
    }

    /// Waits until a sync client is idle after one more pull, or until `limit` is over.
    fn settle(&self, client: &str, limit: Duration) -> std::io::Result<()> {
        let folder = std::fs::File::open(self.path().join("sync").join(client))?;
        // Through the folder's descriptor: a socket's address holds 107 bytes.
        let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd()))?;
        writeln!(stream, "settle {}", limit.as_secs())?;
        let mut status = String::new();
        stream.read_to_string(&mut status)?;
        if status.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        for child in self.dev.iter_mut().chain(&mut self.revived) {
            // A test that fails leaves no process behind; one that ended already is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
