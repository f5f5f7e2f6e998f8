//! The node daemon: one per server. It serves the extents of its disks over HTTPS, registers with the volume manager
//! and reports its disks. It knows extents, never files; who may call what stands in `docs/protocols.md`, "Node".
//!
//! - `routes` and `extents`: the calls, each behind the roles that may make it
//! - `append`: a body from the socket into an aligned buffer, once
//! - `copy`: pulls a sealed replica from other nodes
//! - `pace`: how much background work the foreground of a disk bears
//! - `disks`: the disks of this moment; they come and go
//! - `scrub`: reads everything on every disk, at a pace that others do not feel
//! - `trash`, `eraser`: removal by order, and its end after the retention
//! - `upkeep`, `places`: the operator's calls about disks and where they are
//! - [`format`]: what speaks against making a disk of a device
//! - `registration`: incarnations and heartbeats
//! - `machine`, `smart`: kernel settings of disks, and what disks say of their own health
//! - `memory`: how the node's buffers are divided over its disks
//! - `health`, `metrics`: what an operator and their monitoring look at

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::manual_async_fn,
    reason = "a public `async fn` is compiled, with all that it calls, into the crate's own tests, which call none: a minute"
)]

mod append;
mod config;
mod copy;
mod disks;
mod eraser;
mod error;
mod extents;
pub mod format;
mod health;
mod keyring;
mod machine;
mod memory;
mod metrics;
mod pace;
mod places;
mod refusal;
mod registration;
mod routes;
mod scrub;
mod smart;
mod trash;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use holdfast_libs_surroundings::Surroundings;
use holdfast_libs_transport::{HttpClient, Listener, Role, ServiceTokens, TlsListener};
use holdfast_libs_types::{InstanceId, NodeId};
use holdfast_volume_manager_client::VolumeManagerClient;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use config::{Config, DiskPath, Memory, ScrubConfig, SmartConfig, TrashConfig};
pub use disks::Bays;
pub use error::ServerError;
pub use machine::Machine;

use crate::copy::Copies;
use crate::disks::{Disks, Watcher};

/// What every call sees.
pub(crate) struct Node {
    name: NodeId,
    config: Config,
    disks: Arc<Disks>,
    /// Whoever looks for disks holds it.
    watcher: tokio::sync::Mutex<Watcher>,
    /// Bytes of appends that are received or written, over all disks. Each disk has a share of its own besides.
    append_bytes: Arc<Semaphore>,
    copies: Copies,
    /// The volume manager took the last registration or heartbeat.
    registered: AtomicBool,
    /// The highest leader's term that any order or heartbeat named.
    term: AtomicU64,
}

/// What the daemon stands on.
pub struct Parts {
    /// What it is reached by.
    pub listener: Box<dyn Listener>,
    /// What carries its calls; the token is its own matter.
    pub http: HttpClient,
    /// Where its disks stand.
    pub machine: Machine,
    /// The time of day, and new ids.
    pub surroundings: Surroundings,
}

/// Runs the daemon until `shutdown` is cancelled and the last request has ended.
///
/// # Errors
/// When it cannot start: see [`ServerError`]. Disks that fail later are reported, never an error here.
pub fn run(config: Config, shutdown: CancellationToken) -> impl Future<Output = Result<(), ServerError>> {
    async move {
        let listener = TcpListener::bind(&config.listen)
            .await
            .map_err(|source| ServerError::Listen { listen: config.listen.clone(), source })?;
        run_on(listener, config, shutdown).await
    }
}

/// As [`run`], on a socket that listens already (`config.listen` is not looked at).
///
/// # Errors
/// See [`run`].
pub fn run_on(
    listener: TcpListener,
    config: Config,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), ServerError>> {
    async move { run_on_machine(listener, Machine::this(), config, shutdown).await }
}

/// As [`run_on`], with the devices of `machine`.
///
/// # Errors
/// See [`run`].
pub fn run_on_machine(
    listener: TcpListener,
    machine: Machine,
    config: Config,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), ServerError>> {
    async move {
        config.check()?;
        let parts = Parts {
            listener: Box::new(TlsListener { listener, tls: config.tls.server()? }),
            http: HttpClient::new(&config.tls.client()?, None),
            machine,
            surroundings: Surroundings::default(),
        };
        run_with(parts, config, shutdown).await
    }
}

/// As [`run`], upon whatever `parts` are (`listen` and `tls` of the configuration are not looked at).
///
/// # Errors
/// See [`run`].
pub fn run_with(
    parts: Parts,
    config: Config,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), ServerError>> {
    async move {
        let Parts { listener, http, machine, surroundings } = parts;
        config.check()?;
        let secret = holdfast_libs_crypto::key_from_hex(&config.cell_secret).map_err(|_| ServerError::CellSecret)?;
        let tokens = ServiceTokens::new(&secret);
        let http = http.with_token(Some(&tokens.token(Role::Node)));
        let instance = InstanceId(surroundings.ids.draw().map_err(|_| ServerError::Random)?);
        let watcher = Watcher::start(&config, machine).await?;
        watcher.disks().policy.use_clock(surroundings.clock);
        let volume_manager = VolumeManagerClient::new(http.clone(), config.volume_manager.clone());
        let node = Arc::new(Node {
            name: NodeId(config.node.clone()),
            disks: watcher.disks(),
            watcher: tokio::sync::Mutex::new(watcher),
            append_bytes: Arc::new(Semaphore::new(config.memory.append_bytes)),
            copies: Copies::new(http),
            registered: AtomicBool::new(false),
            term: AtomicU64::new(0),
            config,
        });
        tracing::info!(node = %node.name, zone = node.config.zone, address = node.config.address, "node serves");
        let registered =
            tokio::spawn(registration::keep_registered(node.clone(), instance, volume_manager, shutdown.clone()));
        let watching = tokio::spawn(upkeep::watch(node.clone(), shutdown.clone()));
        listener.serve(routes::router(node.clone(), &tokens), shutdown).await;
        // They end by themselves on shutdown; a panic in one has been printed.
        let _ = registered.await;
        let _ = watching.await;
        node.disks.close_all().await;
        Ok(())
    }
}
