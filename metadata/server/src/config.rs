//! The daemon's configuration. `docs/configuration.md` explains every key.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::config::{ConfigError, load};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_types::CellId;
use serde::Deserialize;

const SECRETS: &[&str] = &["cell_secret", "signing_keys"];

/// What a metadata server is told. See [`Config::load`].
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, `HOST:PORT`.
    pub listen: String,
    /// Where others reach it, `https://HOST:PORT`.
    pub address: String,
    /// The cell whose blocks it signs for.
    pub cell: CellId,
    /// 64 hex digits, the same in every daemon of the cell; or `cell_secret_file`.
    pub cell_secret: String,
    /// `NUMBER:64 hex digits`, one a line, the first signs; or `signing_keys_file`.
    pub signing_keys: String,
    /// Where `metadata.db` is.
    pub data_dir: PathBuf,
    /// The frontend that signed URLs point to, `https://HOST:PORT`.
    pub frontend: String,
    /// How many bytes of live files a new account may hold.
    #[serde(default = "default_quota")]
    pub quota_bytes: u64,
    /// Certificates.
    pub tls: TlsFiles,
}

/// 8 TiB.
const fn default_quota() -> u64 {
    8 << 40
}

impl Config {
    /// Reads a TOML file; see `libs/transport`'s `config::load` for the environment and secrets in files.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, SECRETS)
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("address", &self.address)
            .field("data_dir", &self.data_dir)
            .field("frontend", &self.frontend)
            .finish_non_exhaustive()
    }
}
