//! The daemon's configuration file. `docs/configuration.md` explains every key.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::config::{ConfigError, load};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_types::CellId;
use holdfast_volume_manager_catalog::CatalogConfig;
use holdfast_volume_manager_client::VolumeManagers;
use serde::Deserialize;

/// `holdfast frontend --config FILE`. Every key can also be set as `HOLDFAST__SECTION__KEY`; `cell_secret`,
/// `signing_keys`, `master_key` and the catalog's `password` also as `KEY_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, `HOST:PORT`.
    pub listen: String,
    /// Where clients reach it, `https://HOST:PORT`; signed URLs start with it.
    pub address: String,
    /// The cell whose blocks it serves.
    pub cell: CellId,
    /// The cell's secret, 64 hex digits.
    pub cell_secret: String,
    /// The keys of URLs and receipts: `NUMBER:64 hex digits`, one a line; the first signs.
    pub signing_keys: String,
    /// The key that wraps data keys, 64 hex digits.
    pub master_key: String,
    /// The folder of the catalog's databases.
    pub catalog_dir: PathBuf,
    /// Where the catalog is, when not in `catalog_dir`.
    #[serde(default)]
    pub catalog: CatalogConfig,
    /// Where the volume managers are: one `https://HOST:PORT`, or a list of them.
    pub volume_manager: VolumeManagers,
    /// A replica that has not answered after so many milliseconds gets company by a second one.
    #[serde(default = "default_hedge_ms")]
    pub hedge_ms: u64,
    /// Certificate, key and CA.
    pub tls: TlsFiles,
    /// The cache of plaintext blocks.
    #[serde(default)]
    pub cache: CacheConfig,
    /// How blocks are written.
    #[serde(default)]
    pub writer: WriterConfig,
    /// Bounds on memory.
    #[serde(default)]
    pub limits: LimitsConfig,
}

/// The `[cache]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Most bytes of blocks it holds; 0 turns it off.
    pub bytes: usize,
}

/// The `[writer]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriterConfig {
    /// Volumes written to at once.
    pub open_volumes: usize,
    /// Bytes after which a batch is sent even though more blocks wait.
    pub max_batch_bytes: usize,
    /// A replica that has not stored a batch by then ends the volume, milliseconds.
    pub append_deadline_ms: u64,
    /// For tests only: ends the process, as a crash would, after so many batches are on the disks and before the last
    /// of them has index rows. 0 means never.
    pub fault_after_append: u64,
}

/// The `[limits]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of blocks being put at once; further puts wait. The memory taken is up to three times that.
    pub put_bytes: usize,
    /// Bytes of blocks being read at once; further gets wait.
    pub get_bytes: usize,
}

fn default_hedge_ms() -> u64 {
    100
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { bytes: 256 << 20 }
    }
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { open_volumes: 2, max_batch_bytes: 16 << 20, append_deadline_ms: 10_000, fault_after_append: 0 }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { put_bytes: 64 << 20, get_bytes: 64 << 20 }
    }
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, &["cell_secret", "signing_keys", "master_key", "password"])
    }
}
