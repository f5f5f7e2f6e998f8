//! The daemon's configuration file.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::config::{ConfigError, load};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_types::CellId;
use serde::Deserialize;

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
    /// Its cell.
    pub cell: CellId,
    /// Where others reach it, `https://HOST:PORT`.
    pub address: String,
    /// The cell's secret, 64 hex digits.
    pub cell_secret: String,
    /// Where the volume manager is, `https://HOST:PORT`.
    pub volume_manager: String,
    /// Bytes of a slot, one size in the cell. Used when a disk is formatted.
    pub slot_bytes: u64,
    /// When set, a disk file that does not exist is made with this many bytes and formatted. For development.
    #[serde(default)]
    pub create_size_bytes: Option<u64>,
    /// Certificate, key and CA.
    pub tls: TlsFiles,
    /// The disks.
    pub disks: Vec<DiskPath>,
}

/// One `[[disks]]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskPath {
    /// A block device, or a file.
    pub path: PathBuf,
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, &["cell_secret"])
    }
}
