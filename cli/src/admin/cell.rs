//! Which cell an operator's command speaks to, and with what right.
//!
//! `--dev DIR` or `--config FILE`; where neither is given, the environment (`HOLDFAST_DEV`, `HOLDFAST_ADMIN_CONFIG`), then
//! `holdfast/admin.toml` in the user's configuration folder, then `/etc/holdfast/admin.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use holdfast_libs_transport::{HttpClient, config, tls};
use holdfast_node_client::NodeClient;
use holdfast_volume_manager_client::{VolumeManagerClient, VolumeManagers};
use serde::Deserialize;

use crate::outcome::usage;
use crate::{profile, show};

/// Where an operator's configuration is when nothing else names one.
const SYSTEM_CONFIG: &str = "/etc/holdfast/admin.toml";

/// A node that is asked what it knows answers within this, or is shown as one that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shown below the help of `holdfast admin`.
pub const HOW_TO_NAME_A_CELL: &str = "\
The cell is named by --dev DIR or --config FILE; else by HOLDFAST_DEV or HOLDFAST_ADMIN_CONFIG; else by
~/.config/holdfast/admin.toml or /etc/holdfast/admin.toml. Such a file holds

  volume_manager = \"https://HOST:PORT\"      # or a list of them: the one that leads is found
  ca = \"/etc/holdfast/ca.pem\"
  token_file = \"/etc/holdfast/admin-token\"  # of the role admin

Exit codes: 0 done, 1 failed, 2 usage, 3 unreachable.";

/// The cell that an operator's command speaks to, and how it answers.
#[derive(Args, Clone, Default)]
pub struct CellTarget {
    /// Speak to the cell that `holdfast dev --data DIR` runs [env: HOLDFAST_DEV]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub dev: Option<PathBuf>,
    /// Speak to the cell that this file names, see `holdfast admin --help` [env: HOLDFAST_ADMIN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// The options of a [`CellTarget`], where scripts may name them before the command. Help shows them where they belong.
#[derive(Args, Clone, Default)]
pub struct BeforeCommand {
    #[arg(long, value_name = "DIR", hide = true, conflicts_with = "config")]
    pub dev: Option<PathBuf>,
    #[arg(long, value_name = "FILE", hide = true)]
    pub config: Option<PathBuf>,
    #[arg(long, hide = true)]
    pub json: bool,
}

impl BeforeCommand {
    /// `target` with what was said before the command.
    pub fn or(&self, target: &CellTarget) -> CellTarget {
        let json = self.json || target.json;
        if self.dev.is_some() || self.config.is_some() {
            CellTarget { dev: self.dev.clone(), config: self.config.clone(), json }
        } else {
            CellTarget { json, ..target.clone() }
        }
    }
}

/// The operator's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdminConfig {
    volume_manager: VolumeManagers,
    ca: PathBuf,
    /// Also as `token_file`.
    token: String,
}

/// A cell, with an operator's right to speak to its daemons.
pub struct Cell {
    http: HttpClient,
    volume_manager: VolumeManagerClient,
    json: bool,
}

impl Cell {
    /// The cell that `target` names.
    ///
    /// # Errors
    /// Usage when nothing names a cell; what is wrong with what names it.
    pub fn open(target: &CellTarget) -> anyhow::Result<Self> {
        let config = Self::config(target)?;
        let token = config.token.trim();
        if token.is_empty() {
            bail!("the operator's token is empty");
        }
        let http = HttpClient::new(&tls::client_config(&config.ca)?, Some(token));
        let volume_manager = VolumeManagerClient::new(http.clone(), config.volume_manager);
        Ok(Self { volume_manager, http, json: target.json })
    }

    fn config(target: &CellTarget) -> anyhow::Result<AdminConfig> {
        if let Some(folder) = &target.dev {
            return of_dev(folder);
        }
        if let Some(file) = &target.config {
            return read(file);
        }
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match (named("HOLDFAST_DEV"), named("HOLDFAST_ADMIN_CONFIG")) {
            (Some(_), Some(_)) => {
                Err(usage("HOLDFAST_DEV and HOLDFAST_ADMIN_CONFIG both name a cell; say which with --dev or --config"))
            }
            (Some(folder), None) => of_dev(&folder),
            (None, Some(file)) => read(&file),
            (None, None) => {
                let own = profile::folder().ok().map(|folder| folder.join("admin.toml"));
                let files = own.into_iter().chain([PathBuf::from(SYSTEM_CONFIG)]);
                match files.into_iter().find(|file| file.exists()) {
                    Some(file) => read(&file),
                    None => Err(usage("name the cell: --dev DIR or --config FILE (see `holdfast admin --help`)")),
                }
            }
        }
    }

    /// Its volume managers; the one that leads answers.
    pub fn volume_manager(&self) -> &VolumeManagerClient {
        &self.volume_manager
    }

    /// One of its nodes.
    pub fn node(&self, address: &str) -> NodeClient {
        NodeClient::new(self.http.clone(), address)
    }

    /// One of its nodes, asked what it knows itself: one that hangs must not hold up what the catalog knows of it.
    pub fn ask(&self, address: &str) -> NodeClient {
        self.node(address).within(PATIENCE)
    }

    /// Whether the answer is one JSON document.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Prints the answer of a command: `document` under `--json`, else the text.
    ///
    /// # Errors
    /// When stdout takes nothing.
    pub fn answer(&self, document: &impl serde::Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { show::line(&serde_json::to_string_pretty(document)?) } else { show::text(&text()) }
    }
}

fn of_dev(folder: &Path) -> anyhow::Result<AdminConfig> {
    let dev = profile::dev_json(folder)?;
    Ok(AdminConfig {
        volume_manager: profile::text(&dev, "volume_manager")?.into(),
        ca: profile::text(&dev, "ca_cert")?.into(),
        token: profile::text(&dev, "admin_token")?,
    })
}

fn read(file: &Path) -> anyhow::Result<AdminConfig> {
    let config: AdminConfig = config::load(file, &["token"])?;
    if let Err(wrong) = config.volume_manager.check() {
        bail!("{}: `volume_manager`: {wrong}", file.display());
    }
    Ok(config)
}
