//! The daemon's configuration file. `docs/node.md` explains every key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_libs_transport::config::{ConfigError, load};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_types::CellId;
use holdfast_volume_manager_client::VolumeManagers;
use serde::Deserialize;

use crate::ServerError;

/// `holdfast node --config FILE`. Every key can also be set as `HOLDFAST__KEY`, the secret as `cell_secret_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, `HOST:PORT`.
    pub listen: String,
    /// The node's name, unique in its cell.
    pub node: String,
    /// The zone it stands in.
    pub zone: String,
    /// The rack within the zone: where replicas cannot stand in distinct zones, they stand in distinct racks. Without one
    /// the node counts as a rack of its own.
    #[serde(default)]
    pub rack: String,
    /// Its cell.
    pub cell: CellId,
    /// Where others reach it, `https://HOST:PORT`.
    pub address: String,
    /// The cell's secret, 64 hex digits.
    pub cell_secret: String,
    /// Where the volume managers are: one `https://HOST:PORT`, or a list of them.
    pub volume_manager: VolumeManagers,
    /// Bytes of a slot, one size in the cell. Used when a disk is formatted.
    pub slot_bytes: u64,
    /// When set, a disk file that does not exist at the start is made with this many bytes and formatted. For
    /// development.
    #[serde(default)]
    pub create_size_bytes: Option<u64>,
    /// Certificate, key and CA.
    pub tls: TlsFiles,
    /// The disks, besides those that the profile names.
    #[serde(default)]
    pub disks: Vec<DiskPath>,
    /// The hardware profile of this server: the name of one that comes with Holdfast, or the path of a file. Disks in its
    /// bays are used, and its settings applied to them.
    #[serde(default)]
    pub profile: Option<String>,
    /// How often the node looks for disks that came or went, and whether those it has still answer, milliseconds.
    #[serde(default = "watch_ms")]
    pub watch_ms: u64,
    /// The scrub.
    #[serde(default)]
    pub scrub: ScrubConfig,
    /// The trash.
    #[serde(default)]
    pub trash: TrashConfig,
    /// The disks' own view of their health.
    #[serde(default)]
    pub smart: SmartConfig,
    /// Memory for buffers.
    #[serde(default)]
    pub memory: Memory,
}

/// One `[[disks]]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPath {
    /// A block device or a file; `*` and `?` in a name stand for all that match.
    pub path: PathBuf,
}

/// The `[scrub]` section: reads everything on every disk, again and again, to find damage while there are replicas.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScrubConfig {
    /// Off: no disk is scrubbed unless an operator starts it.
    pub enabled: bool,
    /// Most bytes a second on each disk. A 20 TB disk takes about 30 days at the default.
    pub bytes_per_second: u64,
    /// A disk rests for so long after it was opened, milliseconds.
    pub start_after_ms: u64,
    /// A round begins no sooner than this after the one before began, milliseconds.
    pub round_ms: u64,
}

/// The `[trash]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrashConfig {
    /// An extent that was removed by an order is kept for so long, seconds of the disk's uptime.
    pub retention_s: u64,
    /// How often what is kept for longer is erased, milliseconds.
    pub erase_every_ms: u64,
}

/// The `[smart]` section: disks are asked through `smartctl`, where that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmartConfig {
    /// How often each disk is asked, milliseconds. 0: never.
    pub every_ms: u64,
}

/// The `[memory]` section: what all disks of the node share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// Bytes of buffers registered with the kernel (pinned), over all disks.
    pub registered_bytes: usize,
    /// Bytes of buffers in use at once, over all disks. A disk that is added later still gets what two of the largest
    /// batches need.
    pub buffer_bytes: usize,
    /// Bytes of appends that are received or written at once, over all disks.
    pub append_bytes: usize,
}

const fn watch_ms() -> u64 {
    2000
}

impl Default for ScrubConfig {
    fn default() -> Self {
        Self { enabled: true, bytes_per_second: 8_000_000, start_after_ms: 60_000, round_ms: 24 * 3600 * 1000 }
    }
}

impl Default for TrashConfig {
    fn default() -> Self {
        Self { retention_s: 24 * 3600, erase_every_ms: 10 * 60 * 1000 }
    }
}

impl Default for SmartConfig {
    fn default() -> Self {
        Self { every_ms: 3600 * 1000 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { registered_bytes: 64 << 20, buffer_bytes: 1 << 30, append_bytes: 512 << 20 }
    }
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, &["cell_secret"])
    }

    /// Whether the values can be right, as far as they alone tell.
    ///
    /// # Errors
    /// `Key`, the first that is wrong.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let wrong = |key, detail: String| Err(ServerError::Key { key, detail });
        if let Err(error) = holdfast_node_engine::check_slot_bytes(self.slot_bytes) {
            return wrong("slot_bytes", error.to_string());
        }
        for (key, url) in [("address", &VolumeManagers::from(&*self.address)), ("volume_manager", &self.volume_manager)]
        {
            if let Err(detail) = url.check() {
                return wrong(key, detail);
            }
        }
        for (key, name) in [("node", &self.node), ("zone", &self.zone)] {
            if name.trim().is_empty() {
                return wrong(key, "it must not be empty".to_owned());
            }
        }
        Ok(())
    }

    pub(crate) fn watch(&self) -> Duration {
        Duration::from_millis(self.watch_ms.max(10))
    }
}
