//! The volume manager: it places volumes, seals them, and repairs what lost a replica. It is off the data path: bytes go
//! between frontends and nodes, and from node to node.
//!
//! - `liveness`: who was heard of when, and what that makes of every disk
//! - `leadership`: one leads, others stand by
//! - `registration`, `leases`, `status`, `listing`: the calls
//! - `summary`: what volumes, space and work come to
//! - `seal`: the seal protocol, steps a to f of `docs/protocols.md`, each repeatable
//! - `repair`: copies for sealed volumes that lack a replica
//! - `durability`: how long the data lasts on paper
//! - `moves`, `drains`: replicas that go elsewhere: off drained disks, apart, to emptier disks; how far that is
//! - `discard`: what may go into the trash, the one place that orders it
//! - `intents`, `operate`: what an operator asked for, and whether it is safe
//! - `rebuild`: makes a catalog whole from the disks that was lost
//! - `audit`: compares what nodes really hold with the table; readmits replicas that came back
//! - `reconcile`: the loop that starts both wherever the table says so
//!
//! What must stay true: every order to a node, and every write to the table, carries the term in which this one became the leader.
//! Nothing here remembers what the table does not: a volume manager that dies is replaced by one that reads the table.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::manual_async_fn,
    reason = "a public `async fn` is compiled, with all that it calls, into the crate's own tests, which call none: a minute"
)]

mod audit;
mod config;
pub mod copies;
mod discard;
mod drains;
mod durability;
mod error;
mod forgotten;
mod intents;
mod inventory;
mod keyring;
mod leadership;
mod leases;
mod listing;
mod liveness;
mod manager;
mod metrics;
mod moves;
mod operate;
mod reasons;
mod rebuild;
mod reconcile;
mod registration;
mod repair;
mod repair_rate;
mod room;
mod routes;
mod seal;
mod status;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_surroundings::Surroundings;
use holdfast_libs_transport::{HttpClient, Listener, Role, ServiceTokens, TlsListener};
use holdfast_volume_manager_catalog::CatalogStore;
use tokio::net::TcpListener;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

pub use config::{Config, Copies, Timing};
pub use error::ServerError;

use crate::leadership::Gate;
use crate::manager::Manager;
use crate::rebuild::Rebuild;

/// What the daemon stands on.
pub struct Parts {
    /// What it is reached by.
    pub listener: Box<dyn Listener>,
    /// What carries its calls; the token is its own matter.
    pub http: HttpClient,
    /// Where the catalog is.
    pub catalog: CatalogStore,
    /// The time of day, and new ids.
    pub surroundings: Surroundings,
}

/// Runs the daemon until `shutdown` is cancelled and the last request has ended.
///
/// # Errors
/// When it cannot start, or another volume manager takes the catalog over: see [`ServerError`].
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
    async move {
        let folder = &config.data_dir;
        std::fs::create_dir_all(folder).map_err(|source| ServerError::Folder { path: folder.clone(), source })?;
        let parts = Parts {
            listener: Box::new(TlsListener { listener, tls: config.tls.server()? }),
            http: HttpClient::new(&config.tls.client()?, None),
            catalog: config.catalog.store(folder)?,
            surroundings: Surroundings::default(),
        };
        run_with(parts, config, shutdown).await
    }
}

/// As [`run`], upon whatever `parts` are (`listen`, `tls`, `data_dir` and `catalog` of the configuration are not looked at).
///
/// # Errors
/// See [`run`].
pub fn run_with(
    parts: Parts,
    config: Config,
    shutdown: CancellationToken,
) -> impl Future<Output = Result<(), ServerError>> {
    async move {
        let Parts { listener, http, catalog, surroundings } = parts;
        let secret = holdfast_libs_crypto::key_from_hex(&config.cell_secret).map_err(|_| ServerError::CellSecret)?;
        let tokens = ServiceTokens::new(&secret);
        let http = http.with_token(Some(&tokens.token(Role::VolumeManager)));
        // Its own token, so that a leader that was replaced can end itself without ending whoever called.
        let shutdown = shutdown.child_token();
        let listen = listener.listen();
        let candidate = config.candidate(&listen);
        let catalog = catalog.open(config.cell).await?;
        let gate = Arc::new(Gate::default());
        // However this ends, the rest ends.
        let _stop = shutdown.clone().drop_guard();
        let router = gate.router(&tokens);
        let serving = tokio::spawn(listener.serve(router, shutdown.clone()));
        let ttl = config.timing.leader_ttl();
        let rebuild = Arc::new(Rebuild::default());
        let (mut led, mut ended) = (None, Ok(()));
        while let Some(term) = leadership::acquire(&gate, &catalog, &candidate, ttl, &shutdown).await? {
            led = Some(term);
            let stint = shutdown.child_token();
            let (http, surroundings, rebuild) = (http.clone(), surroundings.clone(), Arc::clone(&rebuild));
            let opened = Manager::open(config.clone(), catalog.clone(), term, http, surroundings, stint, rebuild);
            let manager = Arc::new(opened.await?);
            gate.open(routes::router(&manager, &tokens));
            manager.rebuild.term_begun();
            tracing::info!(cell = %config.cell, term = term.0, listen, "volume manager leads and listens");
            ended = lead(&manager, ttl).await;
            if !manager.begins_anew() || shutdown.is_cancelled() {
                break;
            }
            gate.close();
        }
        shutdown.cancel();
        let _ = serving.await;
        if let (Some(term), false) = (led, matches!(ended, Err(ServerError::Deposed { .. }))) {
            leadership::release(&catalog, term).await;
        }
        ended
    }
}

/// Leads until shutdown, until another leads, or until the next term is to begin. Without its worker the daemon must not go on
/// leasing volumes: however one of the two ends, the other ends.
async fn lead(manager: &Arc<Manager>, ttl: Duration) -> Result<(), ServerError> {
    let holding = tokio::spawn({
        let (manager, stop) = (Arc::clone(manager), manager.shutdown.clone().drop_guard());
        async move {
            let _stop = stop;
            leadership::hold(manager, ttl).await
        }
    });
    let working = tokio::spawn({
        let (manager, stop) = (Arc::clone(manager), manager.shutdown.clone().drop_guard());
        async move {
            let _stop = stop;
            if manager.lost.is_some() { rebuild::run(manager).await } else { reconcile::run(manager).await }
        }
    });
    let worker =
        |ended: Result<_, JoinError>| ended.unwrap_or_else(|error| Err(ServerError::Worker(error.to_string())));
    let (held, worked) = (worker(holding.await), worker(working.await));
    match (held, worked) {
        (Err(error @ ServerError::Deposed { .. }), _) | (_, Err(error @ ServerError::Deposed { .. })) => Err(error),
        (held, worked) => held.and(worked),
    }
}
