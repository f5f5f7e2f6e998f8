//! The daemons as child processes: started, watched, stopped in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::select_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::daemon::SUPERVISOR;
use crate::dev::layout::Layout;

/// How long a daemon may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// A daemon that dies again within this time of its start is left dead, even with `--restart`.
const CRASH_LOOP: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `node`, `volume-manager`, `frontend`, `metadata` or `sync`: also the subcommand.
    pub role: &'static str,
    /// Unique name.
    pub name: String,
    /// A node's zone.
    pub zone: Option<String>,
    /// Configuration file.
    pub config: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// A node's disks.
    pub disks: Vec<PathBuf>,
    /// A sync client's folder.
    pub folder: Option<PathBuf>,
}

struct Daemon {
    spec: Spec,
    pid: u32,
    child: Child,
    started: Instant,
    dead: bool,
}

/// What became of a daemon that ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It runs again under another process id.
    Restarted,
    /// It stays dead.
    LeftDead,
}

/// All daemons.
pub struct Children {
    binary: PathBuf,
    root: PathBuf,
    restart: bool,
    daemons: Vec<Daemon>,
}

impl Children {
    /// None yet.
    ///
    /// # Errors
    /// When this program's own file cannot be found.
    pub fn new(layout: &Layout, restart: bool) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("cannot find this program's own file")?;
        Ok(Self { binary, root: layout.path(""), restart, daemons: Vec::new() })
    }

    /// Starts a daemon. It must be called on the thread that lives as long as this process.
    ///
    /// # Errors
    /// When the process or its log cannot be made.
    pub fn start(&mut self, spec: Spec) -> anyhow::Result<()> {
        let child = self.spawn(&spec)?;
        let pid = child.id().context("a new child has no process id")?;
        self.daemons.push(Daemon { spec, pid, child, started: Instant::now(), dead: false });
        Ok(())
    }

    fn spawn(&self, spec: &Spec) -> anyhow::Result<Child> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("cannot open {}", spec.log.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .arg(spec.role)
            .arg("--config")
            .arg(&spec.config)
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env(SUPERVISOR, std::process::id().to_string())
            // Ctrl-C in a terminal reaches this process only, which then stops the others in order.
            .process_group(0);
        for (name, _) in std::env::vars_os() {
            // One variable would change every daemon; `--set ROLE.KEY=VALUE` is how dev is told.
            if name.to_string_lossy().starts_with("HOLDFAST__") {
                command.env_remove(name);
            }
        }
        command.spawn().with_context(|| format!("cannot start {}", spec.name))
    }

    /// The daemons that have ended, each with the end of its log: for start-up, when none may.
    pub fn first_failure(&mut self) -> Option<String> {
        for daemon in &mut self.daemons {
            if let Ok(Some(status)) = daemon.child.try_wait() {
                daemon.dead = true;
                let log = std::fs::read_to_string(&daemon.spec.log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let tail: Vec<&str> = lines.into_iter().rev().collect();
                let (name, log) = (&daemon.spec.name, daemon.spec.log.display());
                return Some(format!("{name} ended while starting ({status}); from {log}:\n{}", tail.join("\n")));
            }
        }
        None
    }

    /// Waits until a daemon ends by itself, reports it, and starts it again if that was asked for.
    pub async fn next_end(&mut self) -> Ended {
        let living: Vec<usize> = (0..self.daemons.len()).filter(|index| !self.daemons[*index].dead).collect();
        if living.is_empty() {
            return std::future::pending().await;
        }
        let waits = self.daemons.iter_mut().filter(|daemon| !daemon.dead).map(|daemon| Box::pin(daemon.child.wait()));
        let (status, which, _) = select_all(waits).await;
        let daemon = &mut self.daemons[living[which]];
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        eprintln!(
            "holdfast dev: {} (pid {}) died: {how}; log: {}",
            daemon.spec.name,
            daemon.pid,
            daemon.spec.log.display()
        );
        daemon.dead = true;
        if !self.restart || daemon.started.elapsed() < CRASH_LOOP {
            return Ended::LeftDead;
        }
        let spec = daemon.spec.clone();
        match self.spawn(&spec) {
            Ok(child) => {
                let daemon = &mut self.daemons[living[which]];
                daemon.pid = child.id().unwrap_or_default();
                daemon.child = child;
                daemon.started = Instant::now();
                daemon.dead = false;
                eprintln!("holdfast dev: {} runs again (pid {})", spec.name, daemon.pid);
                Ended::Restarted
            }
            Err(error) => {
                eprintln!("holdfast dev: {} cannot be started again: {}", spec.name, crate::outcome::told(&error));
                Ended::LeftDead
            }
        }
    }

    /// The daemons as `dev.json` lists them.
    pub fn describe(&self) -> Value {
        self.daemons
            .iter()
            .map(|daemon| {
                let spec = &daemon.spec;
                json!({
                    "role": spec.role,
                    "name": spec.name,
                    "zone": spec.zone,
                    "pid": daemon.pid,
                    "argv": [self.binary.display().to_string(), spec.role, "--config", spec.config.display().to_string()],
                    "log": spec.log,
                    "listen": spec.listen,
                    "disks": spec.disks,
                    "folder": spec.folder,
                })
            })
            .collect()
    }

    /// Stops all of them, callers before those they call.
    pub async fn stop(&mut self) {
        for role in ["sync", "metadata", "frontend", "volume-manager", "node"] {
            let of_role = |daemon: &&mut Daemon| daemon.spec.role == role && !daemon.dead;
            let mut group: Vec<&mut Daemon> = self.daemons.iter_mut().filter(of_role).collect();
            for daemon in &group {
                // It may have ended this instant; then there is nothing to stop.
                let _ = kill(Pid::from_raw(daemon.pid as i32), Signal::SIGTERM);
            }
            for daemon in &mut group {
                if tokio::time::timeout(STOP_LIMIT, daemon.child.wait()).await.is_err() {
                    eprintln!("holdfast dev: {} does not stop and is killed", daemon.spec.name);
                    let _ = daemon.child.kill().await;
                }
                daemon.dead = true;
            }
        }
    }
}
