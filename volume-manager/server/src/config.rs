//! The daemon's configuration file. `docs/configuration.md` explains every key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_libs_transport::config::{ConfigError, load};
use holdfast_libs_transport::tls::TlsFiles;
use holdfast_libs_types::CellId;
use holdfast_volume_manager_catalog::{Candidate, CatalogConfig};
use serde::Deserialize;

/// A shorter lease would run out in the middle of an ordinary pause.
const LEAST_LEADER_TTL_MS: u64 = 500;

/// `holdfast volume-manager --config FILE`. Every key can also be set as `HOLDFAST__KEY`, `cell_secret` and the
/// catalog's `password` also as `KEY_file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen, `HOST:PORT`.
    pub listen: String,
    /// Its name among the cell's volume managers; by default the machine's name and `listen`. A lease under the same name is taken for
    /// its own, from an earlier start: two that run at once must not share one.
    #[serde(default)]
    pub name: Option<String>,
    /// Where others reach it, `https://HOST:PORT`, as a standby tells them; by default the address it listens on.
    #[serde(default)]
    pub address: Option<String>,
    /// Its cell.
    pub cell: CellId,
    /// The cell's secret, 64 hex digits.
    pub cell_secret: String,
    /// The folder of the catalog's databases.
    pub data_dir: PathBuf,
    /// Where the catalog is, when not in `data_dir`.
    #[serde(default)]
    pub catalog: CatalogConfig,
    /// Certificate, key and CA.
    pub tls: TlsFiles,
    /// How long things may take.
    #[serde(default)]
    pub timing: Timing,
    /// How much is copied at once.
    #[serde(default)]
    pub copies: Copies,
}

/// The `[timing]` section, all in milliseconds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// How often nodes send heartbeats.
    pub heartbeat_ms: u64,
    /// A node that was not heard of for so long is suspect: nothing new goes there.
    pub suspect_ms: u64,
    /// A disk or node that was not heard of for so long is down: its replicas count as missing.
    pub down_ms: u64,
    /// A disk that was not reported for so long is lost: its volumes are repaired.
    pub lost_ms: u64,
    /// The same for the disks of a zone of several nodes all of which are silent.
    pub zone_lost_ms: u64,
    /// The leader's lease runs so long after its last renewal; then a standby takes over. It is renewed three times as often.
    pub leader_ttl_ms: u64,
    /// A lease lives so long after its last renewal.
    pub lease_ms: u64,
    /// A seal waits so long for replicas that do not answer, since a node that restarts is common.
    pub seal_grace_ms: u64,
    /// How often the extents of every disk are compared with the table.
    pub audit_ms: u64,
}

/// The `[copies]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Copies {
    /// Volumes copied at once, in the whole cell.
    pub max_parallel: usize,
    /// Copies at once to one disk, and as many of repairs from one.
    pub per_disk: usize,
    /// How much longer the foreground's 99th percentile may take for the sake of copies, percent. 0: copies only while a disk is
    /// idle, but for a hundredth of its time. Half of it is theirs in any case where a volume has one replica left.
    pub max_client_impact: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat_ms: 1000,
            suspect_ms: 3000,
            down_ms: 30_000,
            lost_ms: 15 * 60 * 1000,
            zone_lost_ms: 60 * 60 * 1000,
            leader_ttl_ms: 6000,
            lease_ms: 15_000,
            seal_grace_ms: 3000,
            audit_ms: 60_000,
        }
    }
}

impl Timing {
    pub(crate) fn leader_ttl(&self) -> Duration {
        Duration::from_millis(self.leader_ttl_ms.max(LEAST_LEADER_TTL_MS))
    }

    pub(crate) fn suspect(&self) -> Duration {
        Duration::from_millis(self.suspect_ms)
    }

    pub(crate) fn down(&self) -> Duration {
        Duration::from_millis(self.down_ms).clamp(self.suspect(), self.lost())
    }

    pub(crate) fn lost(&self) -> Duration {
        Duration::from_millis(self.lost_ms.max(self.suspect_ms))
    }

    pub(crate) fn zone_lost(&self) -> Duration {
        Duration::from_millis(self.zone_lost_ms).max(self.lost())
    }

    pub(crate) fn seal_grace(&self) -> Duration {
        Duration::from_millis(self.seal_grace_ms)
    }

    pub(crate) fn audit(&self) -> Duration {
        Duration::from_millis(self.audit_ms)
    }
}

impl Default for Copies {
    fn default() -> Self {
        Self { max_parallel: 32, per_disk: 4, max_client_impact: 50 }
    }
}

impl Config {
    /// As whom it wants to lead, when it listens on `listen`.
    pub(crate) fn candidate(&self, listen: &str) -> Candidate {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = || format!("{}/{}", machine.trim(), self.listen);
        Candidate {
            holder: self.name.clone().unwrap_or_else(name),
            address: self.address.clone().unwrap_or_else(|| format!("https://{listen}")),
        }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        load(path, &["cell_secret", "password"])
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn an_unknown_key_or_kind_of_the_catalog_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume-manager.toml");
        for (section, wanted) in [("tabel = 'x'", "did you mean `table`?"), ("kind = 'oracle'", "`sqlite` or `mysql`")]
        {
            let text = format!(
                "listen = 'a:1'\ncell = '{}'\ncell_secret = 'x'\ndata_dir = '/d'\n[catalog]\n{section}\n\
                 [tls]\ncertificate = 'a'\nkey = 'b'\nca = 'c'\n",
                "ab".repeat(16)
            );
            std::fs::write(&path, text).unwrap();
            let error = Config::load(&path).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
