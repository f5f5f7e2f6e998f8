//! Waits until the daemons serve, and makes the user with its devices.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use holdfast_libs_transport::{HttpClient, tls};
use holdfast_metadata_client::{CreateUser, Login, LoginAnswer, MetadataClient};
use holdfast_volume_manager_client::VolumeManagerClient;

use crate::dev::children::Children;
use crate::dev::layout::{CLIENTS, Layout};
use crate::profile::write_private;

/// How long a cell may take to come up. Nodes read every slot header; a frontend waits for the catalog.
const LIMIT: Duration = Duration::from_secs(120);

const STEP: Duration = Duration::from_millis(20);

/// The user's devices.
pub struct Accounts {
    /// The one whose token is in `dev.json`.
    pub access: LoginAnswer,
    /// One for each sync client.
    pub devices: Vec<(&'static str, LoginAnswer)>,
}

impl Accounts {
    /// Waits for all servers, then links the devices that are not linked yet.
    ///
    /// # Errors
    /// When a daemon ends or does not come up in time.
    pub async fn prepare(layout: &Layout, children: &mut Children) -> anyhow::Result<Self> {
        let ca = tls::client_config(&layout.ca())?;
        let http = HttpClient::new(&ca, Some(&layout.admin_token()?));
        servers(layout, &http, children).await?;
        let metadata = layout.url("metadata")?;
        let user = CreateUser { user: layout.user().to_owned(), password: layout.password()? };
        MetadataClient::new(http.clone(), metadata.as_str())
            .create_user(&user)
            .await
            .context("cannot make the user")?;
        let anonymous = MetadataClient::new(http.with_token(None), metadata);
        let mut devices = Vec::new();
        for client in CLIENTS {
            devices.push((client, link(layout, &anonymous, client).await?));
        }
        Ok(Self { access: link(layout, &anonymous, "dev").await?, devices })
    }
}

/// The login of a device, made once and kept in `etc/`.
async fn link(layout: &Layout, metadata: &MetadataClient, device: &str) -> anyhow::Result<LoginAnswer> {
    let kept = layout.etc(&format!("device-{device}.json"));
    if let Ok(stored) = std::fs::read(&kept) {
        return serde_json::from_slice(&stored).with_context(|| format!("{} is damaged", kept.display()));
    }
    let login = Login { user: layout.user().to_owned(), password: layout.password()?, device_name: device.to_owned() };
    let answer = metadata.login(&login).await.with_context(|| format!("cannot link the device {device}"))?;
    write_private(&kept, &serde_json::to_vec_pretty(&answer)?)?;
    Ok(answer)
}

/// Waits until every server answers and every node is registered.
async fn servers(layout: &Layout, http: &HttpClient, children: &mut Children) -> anyhow::Result<()> {
    for spec in layout.server_daemons() {
        let url = format!("{}/healthz", layout.url(&spec.name)?);
        wait(children, &spec.name, || async {
            http.get(&url, 1024, Duration::from_secs(5)).await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    let volume_manager = VolumeManagerClient::new(http.clone(), layout.url("volume-manager")?);
    let expected = layout.nodes().len();
    wait(children, "nodes", || async {
        let status = volume_manager.status().await.map_err(|error| error.to_string())?;
        let up = status.nodes.iter().filter(|node| node.state == "up").count();
        if up >= expected { Ok(()) } else { Err(format!("{up} of {expected} nodes are registered")) }
    })
    .await
}

/// Waits until every sync client answers.
///
/// # Errors
/// When one ends or does not come up in time.
pub async fn clients(layout: &Layout, accounts: &Accounts, children: &mut Children) -> anyhow::Result<()> {
    for (client, _) in &accounts.devices {
        let state = layout.path(&format!("sync/{client}"));
        wait(children, client, || async {
            let query = holdfast_sync_client_engine::query(&state, "status");
            query.await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
    }
    Ok(())
}

async fn wait<F: Future<Output = Result<(), String>>>(
    children: &mut Children,
    name: &str,
    check: impl Fn() -> F,
) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let Err(reason) = check().await else { return Ok(()) };
        if let Some(failure) = children.first_failure() {
            bail!(failure);
        }
        if started.elapsed() > LIMIT {
            bail!("{name} is not up after {} s: {reason}", LIMIT.as_secs());
        }
        tokio::time::sleep(STEP).await;
    }
}
