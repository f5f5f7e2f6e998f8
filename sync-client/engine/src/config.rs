//! What a sync client is told.

use std::path::{Path, PathBuf};

use holdfast_libs_transport::config::{ConfigError, load};
use serde::Deserialize;

/// The configuration of one sync client. Every key can be set as `HOLDFAST__KEY`, the token also as `token_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The metadata server, `https://HOST:PORT`.
    pub server: String,
    /// The certificate authority to trust, a PEM file.
    pub ca: PathBuf,
    /// The device's access token.
    pub token: String,
    /// The folder to keep the same; it is made if it is missing at the first start.
    pub folder: PathBuf,
    /// Where the client keeps its state; not inside the folder.
    pub state_dir: PathBuf,
    /// What the client is called in logs and status.
    #[serde(default)]
    pub name: String,
    /// Whether to wait for the server's notifications; without them changes come by pulls alone (for tests).
    #[serde(default = "yes")]
    pub notifications: bool,
    /// How often to pull without being notified, milliseconds.
    #[serde(default = "five_minutes")]
    pub pull_interval_ms: u64,
    /// How often to scan the whole folder, milliseconds.
    #[serde(default = "ten_minutes")]
    pub rescan_interval_ms: u64,
}

fn yes() -> bool {
    true
}

fn five_minutes() -> u64 {
    5 * 60 * 1000
}

fn ten_minutes() -> u64 {
    10 * 60 * 1000
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// See [`ConfigError`]; an unknown key is one that names the nearest known one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, &["token"])
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Config;

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "server='s'\nca='c'\ntoken='t'\nfolder='f'\nstate_dirr='d'\n";
        file.write_all(text.as_bytes()).unwrap();
        let error = Config::load(file.path()).unwrap_err().to_string();
        assert!(error.contains("did you mean `state_dir`?"), "{error}");
    }
}
