//! Real MariaDB servers for tests: each on a free port of 127.0.0.1, with a folder of its own under `target/`.
//!
//! `mariadbd` is the one on the PATH or in `/usr/sbin`, or the one that `cargo xtask mariadb` unpacked from Debian's packages into
//! `target/mariadb`. Without either a test fails and says so.
//!
//! A server ends with its value, by its process id, and with the test's process at the latest, however that ends: the
//! kernel kills it then. The user is root, without a password.

#![allow(clippy::unwrap_used)] // Only tests use it: a panic is how it fails.

mod program;
mod spawn;

use std::fs::File;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::program::Program;

/// A server that does not answer by then is broken.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Keeps folders small, and stays away from the settings that durability rests on: those are the server's defaults.
const SETTINGS: [&str; 8] = [
    "--innodb-log-file-size=8M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-temp-data-file-path=ibtmp1:4M:autoextend",
    "--innodb-undo-tablespaces=0",
    "--innodb-buffer-pool-size=64M",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--max-connections=300",
];

/// A running server.
#[derive(Debug)]
pub struct Server {
    port: u16,
    settings: Vec<String>,
    folder: TempDir,
    child: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Server {
    /// Starts one with the server's own defaults, which are durable.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further settings, `--name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let program = Program::find();
        let folder = tempfile::Builder::new().prefix("mariadb-").tempdir_in(target()).unwrap();
        program.copy_template(&folder.path().join("data"));
        let server = Self {
            port: free_port(),
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            folder,
            child: Mutex::default(),
            databases: AtomicU32::new(0),
        };
        server.restart();
        server
    }

    /// One that all tests of this process share, started when it is first asked for.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Where a database of it is.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A name that no database of it has yet.
    pub fn fresh_name(&self) -> String {
        format!("db{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }

    /// Kills it with SIGKILL and waits until it is gone. Its folder stays as the kill left it.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same folder and port, after a kill.
    pub fn restart(&self) {
        let program = Program::find();
        let folder = self.folder.path();
        let log = File::options().append(true).create(true).open(folder.join("log")).unwrap();
        let mut command = program.command(folder);
        command.args(SETTINGS).args(&self.settings);
        command.args(["--bind-address=127.0.0.1".to_owned(), format!("--port={}", self.port)]);
        command.arg(format!("--datadir={}", folder.join("data").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.child() = Some(spawn::on_lasting_thread(command));
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&self) {
        let until = Instant::now() + START_LIMIT;
        while Instant::now() < until {
            // It greets first.
            let greeted = TcpStream::connect(("127.0.0.1", self.port)).is_ok_and(|mut stream| {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
                stream.read(&mut [0; 1]).is_ok_and(|read| read == 1)
            });
            if greeted {
                return;
            }
            let ended = self.child().as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "mariadbd ended: {ended:?}; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("mariadbd does not answer after {START_LIMIT:?}; its log:\n{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The workspace's folder for what is built; a real file system, other than `/tmp` on many machines.
fn target() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
}

/// Runs a command to its end; panics with what it wrote when it fails.
fn run(command: &mut Command, what: &str) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what} failed: {}", String::from_utf8_lossy(&output.stderr));
}
