//! Where `mariadbd` is, and the empty data folder that every server begins with.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{SETTINGS, run, target};

/// A `mariadbd` with what it needs.
#[derive(Debug)]
pub(crate) struct Program {
    binary: PathBuf,
    /// Where `share/mysql` is.
    base: PathBuf,
    /// Where to look for libraries first, as `LD_LIBRARY_PATH` has it.
    libraries: Option<String>,
}

impl Program {
    pub fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        // It is for administrators: not on everybody's path.
        let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        for folder in folders {
            let binary = folder.join("mariadbd");
            if let (true, Some(base)) = (binary.is_file(), folder.parent()) {
                return Self { base: base.to_owned(), binary, libraries: None };
            }
        }
        let base = target().join("mariadb/usr");
        let binary = base.join("sbin/mariadbd");
        assert!(
            binary.is_file(),
            "this test needs a MariaDB server: type `cargo xtask mariadb`, which unpacks one into {}, or install the Debian \
             package mariadb-server",
            target().join("mariadb").display()
        );
        let (root, arch) = (target().join("mariadb").display().to_string(), std::env::consts::ARCH);
        let libraries = format!("{root}/usr/lib/{arch}-linux-gnu:{root}/lib/{arch}-linux-gnu");
        Self { libraries: Some(libraries), base, binary }
    }

    /// The server, to be killed when its parent dies; `folder` takes its socket and scratch files.
    pub fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.binary);
        // First, so that it reads no file of this machine.
        command.arg("--no-defaults");
        command.arg(format!("--basedir={}", self.base.display()));
        command.arg(format!("--lc-messages-dir={}", self.base.join("share/mysql").display()));
        command.arg(format!("--socket={}", folder.join("socket").display()));
        command.arg(format!("--pid-file={}", folder.join("pid").display()));
        command.arg(format!("--tmpdir={}", folder.display()));
        // Otherwise it refuses to run as root.
        command.arg(format!("--user={}", user()));
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// Copies an empty data folder to `to`. It is made once for each version of the server.
    pub fn copy_template(&self, to: &Path) {
        let lock = File::create(target().join("mariadb-template.lock")).unwrap();
        lock.lock().unwrap();
        let mut version = Command::new(&self.binary);
        if let Some(libraries) = &self.libraries {
            version.env("LD_LIBRARY_PATH", libraries);
        }
        let version = version.args(["--no-defaults", "--version"]).output().unwrap().stdout;
        let made_by = [version.as_slice(), SETTINGS.join(" ").as_bytes()].concat();
        let (template, mark) = (target().join("mariadb-template"), target().join("mariadb-template.version"));
        if std::fs::read(&mark).ok().as_ref() != Some(&made_by) {
            let _ = std::fs::remove_file(&mark);
            let _ = std::fs::remove_dir_all(&template);
            self.make_template(&template);
            std::fs::write(&mark, &made_by).unwrap();
        }
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(&template).arg(to), "copying an empty data folder");
    }

    /// What `mariadb-install-db` does, without its wish for a whole installation.
    fn make_template(&self, folder: &Path) {
        std::fs::create_dir_all(folder.join("mysql")).unwrap();
        let scratch = tempfile::TempDir::new().unwrap();
        let mut command = self.command(scratch.path());
        command.arg("--bootstrap").args(SETTINGS).arg(format!("--datadir={}", folder.display()));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let share = self.base.join("share/mysql");
        std::thread::spawn(move || {
            stdin.write_all(b"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\n").unwrap();
            for file in ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"] {
                stdin.write_all(&std::fs::read(share.join(file)).unwrap()).unwrap();
            }
        });
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "making an empty data folder failed:\n{log}");
    }
}

fn user() -> String {
    let id = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim().to_owned()
}
