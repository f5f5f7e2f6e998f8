//! The node daemon: one per server. It serves the extents of its disks over HTTPS, registers with the volume manager
//! and reports its disks. It knows extents, never files; who may call what stands in `docs/protocols.md`, "Node".
//!
//! - `routes` and `extents`: the calls, each behind the roles that may make it
//! - `append`: a body from the socket into an aligned buffer, once
//! - `copy`: pulls a sealed replica from other nodes
//! - `disks`: the configured disks, also those that could not be opened
//! - `registration`: incarnations, heartbeats, disks that vanish

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod config;
mod copy;
mod disks;
mod error;
mod extents;
mod keyring;
mod metrics;
mod refusal;
mod registration;
mod routes;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use holdfast_libs_transport::{HttpClient, Role, ServiceTokens};
use holdfast_libs_types::{InstanceId, NodeId};
use holdfast_volume_manager_client::VolumeManagerClient;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use config::{Config, DiskPath};
pub use error::ServerError;

use crate::copy::Copies;
use crate::disks::Disks;

/// Most bytes of appends that are being received or written at once, over all disks. Beyond it appends are `busy`.
const APPEND_BYTES_IN_FLIGHT: usize = 128 << 20;

/// What every call sees.
pub(crate) struct Node {
    name: NodeId,
    config: Config,
    disks: Disks,
    append_bytes: Arc<Semaphore>,
    copies: Copies,
    /// The highest leader's term that any order or heartbeat named.
    term: AtomicU64,
}

/// Runs the daemon until `shutdown` is cancelled and the last request has ended.
///
/// # Errors
/// When it cannot start: see [`ServerError`]. Disks that fail later are reported, never an error here.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServerError> {
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| ServerError::Listen { listen: config.listen.clone(), source })?;
    run_on(listener, config, shutdown).await
}

/// As [`run`], on a socket that listens already (`config.listen` is not looked at).
///
/// # Errors
/// See [`run`].
pub async fn run_on(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), ServerError> {
    let secret = holdfast_libs_crypto::key_from_hex(&config.cell_secret).map_err(|_| ServerError::CellSecret)?;
    let tokens = ServiceTokens::new(&secret);
    let server_tls = config.tls.server()?;
    let http = HttpClient::new(&config.tls.client()?, Some(&tokens.token(Role::Node)));
    let instance = InstanceId(holdfast_libs_crypto::random().map_err(|_| ServerError::Random)?);
    let disks = Disks::open(&config).await?;
    let volume_manager = VolumeManagerClient::new(http.clone(), config.volume_manager.clone());
    let node = Arc::new(Node {
        name: NodeId(config.node.clone()),
        disks,
        append_bytes: Arc::new(Semaphore::new(APPEND_BYTES_IN_FLIGHT)),
        copies: Copies::new(http),
        term: AtomicU64::new(0),
        config,
    });
    tracing::info!(node = %node.name, zone = node.config.zone, address = node.config.address, "node serves");
    let registered =
        tokio::spawn(registration::keep_registered(node.clone(), instance, volume_manager, shutdown.clone()));
    holdfast_libs_transport::serve(listener, server_tls, routes::router(node.clone(), &tokens), shutdown).await;
    // It ends by itself on shutdown; a panic in it has been printed.
    let _ = registered.await;
    // The last handle of a disk waits for the disk's thread.
    let _ = tokio::task::spawn_blocking(move || drop(node)).await;
    Ok(())
}
