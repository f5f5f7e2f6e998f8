//! A MariaDB server for the tests, unpacked from Debian's packages into `target/mariadb`: no service is started, and nothing
//! is installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// The server, its messages and system tables, and the libraries that a small installation may lack.
const PACKAGES: [&str; 9] = [
    "mariadb-server",
    "mariadb-server-core",
    "mariadb-common",
    "libaio1",
    "libnuma1",
    "libpcre2-8-0",
    "libssl3",
    "libsystemd0",
    "liburing2",
];

const HOW: &str = "install the Debian package mariadb-server by hand, or see that apt-get reaches a mirror";

/// Unpacks the server unless there is one already.
///
/// # Errors
/// When the packages cannot be had.
pub fn ensure(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("target/mariadb");
    if Path::new("/usr/sbin/mariadbd").is_file() || folder.join("usr/sbin/mariadbd").is_file() {
        return Ok(());
    }
    eprintln!("==> unpacking a MariaDB server into {}", folder.display());
    let packages = root.join("target/mariadb-packages");
    std::fs::create_dir_all(&packages)?;
    if download(&packages).is_err() {
        // Lists of packages that are missing or old.
        let updated = Command::new("apt-get").args(["-q", "update"]).status();
        if !updated.is_ok_and(|status| status.success()) {
            bail!("the tests need a MariaDB server, and `apt-get update` failed (it may need root); {HOW}");
        }
        download(&packages).with_context(|| format!("the tests need a MariaDB server; {HOW}"))?;
    }
    // Under another name until it is whole.
    let partial = root.join("target/mariadb.partial");
    let _ = std::fs::remove_dir_all(&partial);
    for entry in std::fs::read_dir(&packages)? {
        let file = entry?.path();
        let status = Command::new("dpkg").arg("-x").arg(&file).arg(&partial).status().context("dpkg")?;
        if !status.success() {
            bail!("dpkg -x {} failed", file.display());
        }
    }
    let mut version = Command::new(partial.join("usr/sbin/mariadbd"));
    version.args(["--no-defaults", "--version"]);
    let (at, arch) = (partial.display(), std::env::consts::ARCH);
    version.env("LD_LIBRARY_PATH", format!("{at}/usr/lib/{arch}-linux-gnu:{at}/lib/{arch}-linux-gnu"));
    if !version.output().is_ok_and(|output| output.status.success()) {
        bail!("the mariadbd of Debian's packages does not run here; {HOW}");
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(&partial, &folder)?;
    std::fs::remove_dir_all(&packages)?;
    Ok(())
}

fn download(folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("apt-get");
    // As this user: the one that apt switches to has no right to write here, which it warns of at length.
    command.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(PACKAGES).current_dir(folder);
    crate::suites::run("download mariadb-server", &mut command)
}
