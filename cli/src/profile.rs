//! Which server a command speaks to: `--dev DIR` (or HOLDFAST_DEV), else the profile that `holdfast login` saved.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use holdfast_libs_transport::{HttpClient, tls};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arguments::Target;

/// A server and a token for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Profile {
    /// Address of the API.
    pub server: String,
    /// CA certificate, PEM.
    pub ca: PathBuf,
    /// Access token.
    pub token: String,
}

impl Profile {
    /// The profile that `target` names.
    ///
    /// # Errors
    /// When there is none; the message says what to do.
    pub fn find(target: &Target) -> anyhow::Result<Self> {
        if let Some(folder) = &target.dev {
            let dev = dev_json(folder)?;
            return Ok(Self {
                server: text(&dev, "api")?,
                ca: PathBuf::from(text(&dev, "ca_cert")?),
                token: text(&dev, "access_token")?,
            });
        }
        let path = path()?;
        let stored = std::fs::read(&path).with_context(|| {
            format!("no profile at {}; run `holdfast login`, or name a dev folder with --dev DIR", path.display())
        })?;
        serde_json::from_slice(&stored).with_context(|| format!("{} is not a profile", path.display()))
    }

    /// Writes the profile where [`Self::find`] looks, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path = path()?;
        let folder = path.parent().context("the profile has no folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write_private(&path, &serde_json::to_vec_pretty(self)?)?;
        Ok(path)
    }

    /// A client with this profile's trust and token.
    ///
    /// # Errors
    /// When the CA file cannot be used.
    pub fn http(&self) -> anyhow::Result<HttpClient> {
        Ok(HttpClient::new(&tls::client_config(&self.ca)?, Some(&self.token)))
    }
}

/// The folder of this user's configuration of Holdfast.
///
/// # Errors
/// When the environment names no home.
pub fn folder() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".config"),
    };
    Ok(base.join("holdfast"))
}

fn path() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join("profile.json"))
}

/// The `dev.json` of a running `holdfast dev`.
///
/// # Errors
/// When no `dev` runs there.
pub fn dev_json(folder: &Path) -> anyhow::Result<Value> {
    let path = folder.join("dev.json");
    let stored = match std::fs::read(&path) {
        Ok(stored) => stored,
        Err(_) => bail!("{} is not there; is `holdfast dev --data {}` running?", path.display(), folder.display()),
    };
    serde_json::from_slice(&stored).with_context(|| format!("{} is not JSON", path.display()))
}

/// A text field of a JSON object.
///
/// # Errors
/// When it is missing.
pub fn text(document: &Value, key: &str) -> anyhow::Result<String> {
    Ok(document[key].as_str().with_context(|| format!("dev.json has no `{key}`"))?.to_owned())
}

/// Writes a file atomically with mode 0600.
///
/// # Errors
/// When the folder does not take it.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let temporary = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
