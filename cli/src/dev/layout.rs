//! What a dev folder holds, and what of it must stay the same from start to start: cell, ports, secrets, shape.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holdfast_libs_crypto::key_from_hex;
use holdfast_libs_transport::{Role, ServiceTokens};
use holdfast_libs_types::CellId;
use serde::{Deserialize, Serialize};

use crate::arguments::DevOptions;
use crate::dev::certificates;
use crate::dev::children::Spec;
use crate::outcome::usage;
use crate::profile::write_private;
use crate::show::{bytes, count};

/// Zones that the nodes are dealt over.
const ZONES: u32 = 3;

/// Bytes of a slot.
pub const SLOT_BYTES: u64 = 64 << 20;

/// The one user.
const USER: &str = "dev";

/// The synced folders.
pub const CLIENTS: [&str; 2] = ["laptop", "desktop"];

/// What a dev folder is made of, besides the synced folders.
const FOLDERS: [&str; 6] = ["etc", "log", "disks", "catalog", "metadata", "sync"];

/// What is kept in `etc/dev-state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    cell: CellId,
    nodes: u32,
    disks: u32,
    disk_size: u64,
    listen: BTreeMap<String, SocketAddr>,
}

/// How long a daemon of an earlier start may take to let go of its port.
const PORT_LIMIT: Duration = Duration::from_secs(10);

/// A folder with other things in it is somebody else's.
fn refuse_foreign(root: &Path) -> anyhow::Result<()> {
    // `dev` itself has made its lock by now; a test or a shell may have put a log there; one that was killed at its first
    // start may have left folders with nothing in them.
    let ours = |name: &std::ffi::OsStr| {
        let empty = || std::fs::read_dir(root.join(name)).is_ok_and(|mut entries| entries.next().is_none());
        name.to_string_lossy().starts_with("dev.") || FOLDERS.iter().any(|folder| name == *folder) && empty()
    };
    let foreign =
        std::fs::read_dir(root)?.filter_map(Result::ok).map(|entry| entry.file_name()).find(|name| !ours(name));
    match foreign {
        Some(name) if !root.join("etc/dev-state.json").exists() => Err(usage(format!(
            "{} is no folder of `holdfast dev` and not empty (it holds {}); choose another one with --data",
            root.display(),
            name.display()
        ))),
        _ => Ok(()),
    }
}

/// What a folder gets that had, and will have, so many nodes with so many disks each.
fn grows(had: (u32, u32), has: (u32, u32), disk_size: u64) -> Option<String> {
    let disks = |(nodes, disks): (u32, u32)| u64::from(nodes) * u64::from(disks);
    let shape = |(nodes, disks): (u32, u32)| {
        format!("{} with {} each", count(nodes.into(), "node"), count(disks.into(), "disk"))
    };
    let (from, to, new) = (shape(had), shape(has), disks(has).saturating_sub(disks(had)));
    (had != has).then(|| format!("from {from} to {to}: adds {}, empty, of {}", count(new, "disk"), bytes(disk_size)))
}

/// Waits until an address can be listened on: daemons of a `dev` that was killed a moment ago may still be dying.
fn wait_free(name: &str, listen: SocketAddr, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        match TcpListener::bind(listen) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AddrInUse && started.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => bail!("{name} cannot listen on {listen}: {error}; see which process has it with `ss -ltnp`"),
        }
    }
}

/// A dev folder.
#[derive(Debug)]
pub struct Layout {
    root: PathBuf,
    kept: Kept,
    /// What the folder gets beyond what it has, in words.
    grows: Option<String>,
}

impl Layout {
    /// What the folder is, or will be; writes nothing.
    ///
    /// # Errors
    /// When the folder is somebody else's, the options ask for less than it was made with, or a port is taken.
    pub fn plan(root: &Path, options: &DevOptions) -> anyhow::Result<Self> {
        refuse_foreign(root)?;
        let kept = match std::fs::read(root.join("etc/dev-state.json")) {
            Ok(stored) => serde_json::from_slice(&stored)
                .with_context(|| format!("{}/etc/dev-state.json is damaged", root.display()))?,
            Err(_) => Kept {
                cell: CellId(rand::random()),
                nodes: options.nodes.unwrap_or(ZONES),
                disks: options.disks.unwrap_or(2),
                disk_size: options.disk_size.map_or(8 << 30, |size| size.0),
                listen: BTreeMap::new(),
            },
        };
        let mut layout = Self { root: root.to_owned(), kept, grows: None };
        layout.tell_missing_disks();
        layout.reshape(options)?;
        layout.choose_ports(options)?;
        Ok(layout)
    }

    /// Makes what the folder lacks.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn make(&self) -> anyhow::Result<()> {
        if let Some(grows) = &self.grows {
            eprintln!("holdfast dev: {grows}");
        }
        for folder in FOLDERS {
            let path = self.path(folder);
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("cannot make {}", path.display()))?;
        }
        let state = serde_json::to_vec_pretty(&self.kept)?;
        write_private(&self.etc("dev-state.json"), &state)?;
        self.make_secrets()?;
        certificates::ensure(self)
    }

    /// Takes over a larger shape; a smaller one is refused, since nodes and disks hold data.
    fn reshape(&mut self, options: &DevOptions) -> anyhow::Result<()> {
        let had = (self.kept.nodes, self.kept.disks);
        let grow = |kept: &mut u32, wanted: Option<u32>, what: &str| {
            let wanted = wanted.unwrap_or(*kept);
            if wanted < *kept {
                return Err(usage(format!(
                    "{} was made with {kept} {what}; it cannot be opened with {wanted}",
                    self.root.display()
                )));
            }
            *kept = wanted;
            Ok(())
        };
        grow(&mut self.kept.nodes, options.nodes, "nodes")?;
        grow(&mut self.kept.disks, options.disks, "disks a node")?;
        if let Some(size) = options.disk_size {
            if size.0 < 4 * SLOT_BYTES {
                return Err(usage("--disk-size is too small: a disk needs at least four slots of 64 MiB (256MiB)"));
            }
            if size.0 != self.kept.disk_size {
                eprintln!(
                    "holdfast dev: --disk-size holds for disks made from now on; those that are there keep their size"
                );
            }
            self.kept.disk_size = size.0;
        }
        self.grows = grows(had, (self.kept.nodes, self.kept.disks), self.kept.disk_size);
        Ok(())
    }

    /// Gives every listener a port, once.
    fn choose_ports(&mut self, options: &DevOptions) -> anyhow::Result<()> {
        let mut names: Vec<String> = ["volume-manager", "frontend", "metadata"].map(str::to_owned).to_vec();
        names.extend((1..=self.kept.nodes).map(|index| format!("node-{index}")));
        // Where nothing ran yet, nothing of it can be dying.
        let limit = if self.kept.listen.is_empty() { Duration::ZERO } else { PORT_LIMIT };
        // All listeners are held until the end, so that no port is given twice.
        let mut held = Vec::new();
        for name in names {
            if let std::collections::btree_map::Entry::Vacant(place) = self.kept.listen.entry(name) {
                let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
                place.insert(listener.local_addr()?);
                held.push(listener);
            }
        }
        if let Some(api) = options.api {
            if api.port() == 0 {
                return Err(usage("--api needs a port: the address is kept for the folder"));
            }
            self.kept.listen.insert("metadata".to_owned(), api);
        }
        drop(held);
        self.kept.listen.iter().try_for_each(|(name, listen)| wait_free(name, *listen, limit))
    }

    /// Disks that were there once and are not now: their nodes make new, empty ones.
    fn tell_missing_disks(&self) {
        if self.kept.listen.is_empty() {
            return;
        }
        for disk in self.nodes().iter().flat_map(|(_, _, disks)| disks).filter(|disk| !disk.exists()) {
            eprintln!("holdfast dev: {} is not there; an empty disk is made in its place", disk.display());
        }
    }

    fn make_secrets(&self) -> anyhow::Result<()> {
        let key = || hex::encode(rand::random::<[u8; 32]>());
        let secrets = [
            ("cell-secret", key()),
            ("master-key", key()),
            ("signing-keys", format!("1:{}", key())),
            ("password", hex::encode(rand::random::<[u8; 12]>())),
        ];
        for (name, value) in secrets {
            let path = self.etc(name);
            if !path.exists() {
                write_private(&path, format!("{value}\n").as_bytes())?;
            }
        }
        Ok(())
    }

    /// A path below the folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A path in `etc/`.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(name)
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// A synced folder.
    pub fn folder(&self, client: &str) -> PathBuf {
        self.path(client)
    }

    /// The cell.
    pub fn cell(&self) -> CellId {
        self.kept.cell
    }

    /// Bytes of a disk made from now on.
    pub fn disk_size(&self) -> u64 {
        self.kept.disk_size
    }

    /// The user's name.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The user's password.
    pub fn password(&self) -> anyhow::Result<String> {
        self.secret("password")
    }

    /// A secret of `etc/`.
    pub fn secret(&self, name: &str) -> anyhow::Result<String> {
        let path = self.etc(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// The operator's service token.
    pub fn admin_token(&self) -> anyhow::Result<String> {
        let secret = key_from_hex(&self.secret("cell-secret")?)?;
        Ok(ServiceTokens::new(&secret).token(Role::Admin))
    }

    /// Where a daemon listens.
    pub fn listen(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.kept.listen.get(name).copied().with_context(|| format!("no port for {name}"))
    }

    /// A daemon's URL.
    pub fn url(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("https://{}", self.listen(name)?))
    }

    /// The nodes: name, zone and disks.
    pub fn nodes(&self) -> Vec<(String, String, Vec<PathBuf>)> {
        (1..=self.kept.nodes)
            .map(|index| {
                let name = format!("node-{index}");
                let disks =
                    (1..=self.kept.disks).map(|disk| self.path(&format!("disks/{name}-disk-{disk}.img"))).collect();
                (name, format!("zone-{}", (index - 1) % ZONES + 1), disks)
            })
            .collect()
    }

    /// The servers, in the order in which they are started.
    pub fn server_daemons(&self) -> Vec<Spec> {
        let mut specs = vec![self.spec("volume-manager", "volume-manager")];
        for (name, zone, disks) in self.nodes() {
            let mut spec = self.spec("node", &name);
            spec.zone = Some(zone);
            spec.disks = disks;
            specs.push(spec);
        }
        specs.push(self.spec("frontend", "frontend"));
        specs.push(self.spec("metadata", "metadata"));
        specs
    }

    /// A sync client.
    pub fn sync_daemon(&self, client: &str) -> Spec {
        let mut spec = self.spec("sync", &format!("sync-{client}"));
        spec.folder = Some(self.folder(client));
        spec
    }

    fn spec(&self, role: &'static str, name: &str) -> Spec {
        Spec {
            role,
            name: name.to_owned(),
            zone: None,
            config: self.etc(&format!("{name}.toml")),
            log: self.path(&format!("log/{name}.log")),
            listen: self.kept.listen.get(name).copied(),
            disks: Vec::new(),
            folder: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::grows;

    #[test]
    fn what_a_folder_gets_beyond_what_it_had_is_told_and_nothing_where_that_is_nothing() {
        assert_eq!(grows((3, 2), (3, 2), 8 << 30), None);
        let told = grows((3, 2), (3, 3), 8 << 30).unwrap();
        assert_eq!(
            told,
            "from 3 nodes with 2 disks each to 3 nodes with 3 disks each: adds 3 disks, empty, of 8.0 GiB"
        );
        let told = grows((3, 1), (4, 1), 1 << 30).unwrap();
        assert_eq!(told, "from 3 nodes with 1 disk each to 4 nodes with 1 disk each: adds 1 disk, empty, of 1.0 GiB");
    }
}
