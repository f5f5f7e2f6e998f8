//! The frontend daemon: moves blocks between clients and nodes. Stateless but for leases and cache.
//!
//! - `routes`, `puts`, `gets`, `receive`: signed URLs and bodies
//! - `store`, `in_flight`, `writer`: the way of a block into the cell
//! - `reader`, `locations`, `cache`: the way of a block out of the cell
//! - `index`: the catalog
//! - `keyring`: encryption at rest
//!
//! Invariants:
//! - A put is answered only after its block is durable on all replicas and has an index row.
//! - Bytes sent for (volume, epoch, offset) never change.
//! - Bytes that were not compared with the block's SHA-256 are never answered.
//! - A data key is durable in the catalog before it seals anything.
//! - The bytes of blocks in memory are bounded, in both directions.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(
    clippy::manual_async_fn,
    reason = "a public `async fn` is compiled, with all that it calls, into the crate's own tests, which call none: a minute"
)]

mod answers;
mod budget;
mod cache;
mod config;
mod counters;
mod cpu;
mod error;
mod gets;
mod in_flight;
mod index;
mod keyring;
mod locations;
mod puts;
mod reader;
mod receive;
mod routes;
mod store;
mod suspects;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use holdfast_frontend_client::{MAX_LIST_BLOCKS, MAX_LIST_BYTES};
use holdfast_libs_crypto::{MasterKey, key_from_hex};
use holdfast_libs_presign::SigningKeys;
use holdfast_libs_surroundings::Surroundings;
use holdfast_libs_transport::{HttpClient, Listener, Role, ServiceTokens, TlsListener};
use holdfast_libs_types::InstanceId;
use holdfast_volume_manager_catalog::CatalogStore;
use holdfast_volume_manager_client::VolumeManagerClient;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use config::{CacheConfig, Config, LimitsConfig, WriterConfig};
pub use error::ServerError;

use crate::budget::Budget;
use crate::cache::Cache;
use crate::counters::Counters;
use crate::in_flight::InFlight;
use crate::index::Index;
use crate::keyring::Keyring;
use crate::locations::Locations;
use crate::reader::Reader;
use crate::store::Store;
use crate::suspects::Suspects;
use crate::writer::{Leases, Queue, Writers};

/// The largest request, with its frames; both budgets hold at least one.
const LARGEST_BYTES: usize = MAX_LIST_BYTES + MAX_LIST_BLOCKS * holdfast_frontend_client::frames::FRAME_HEADER_BYTES;

/// What every call sees.
pub(crate) struct Frontend {
    config: Config,
    instance: InstanceId,
    signing_keys: SigningKeys,
    store: Store,
    reader: Reader,
    leases: Arc<Leases>,
    cache: Arc<Cache>,
    put_budget: Budget,
    get_budget: Budget,
    counters: Arc<Counters>,
    surroundings: Surroundings,
}

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

/// Runs the daemon until `shutdown` is cancelled, the last request has ended and the open volumes are given back.
///
/// # Errors
/// When it cannot start: see [`ServerError`].
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
        let catalog = config.catalog.store(&config.catalog_dir);
        let parts = Parts {
            listener: Box::new(TlsListener { listener, tls: config.tls.server()? }),
            http: HttpClient::new(&config.tls.client()?, None),
            catalog: catalog.map_err(|error| ServerError::Catalog(error.to_string()))?,
            surroundings: Surroundings::default(),
        };
        run_with(parts, config, shutdown).await
    }
}

/// As [`run`], upon whatever `parts` are (`listen`, `tls`, `catalog_dir` and `catalog` of the configuration are not looked at).
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
        let secret = key_from_hex(&config.cell_secret).map_err(|_| ServerError::Secret("cell_secret"))?;
        config.volume_manager.check().map_err(ServerError::VolumeManager)?;
        let master = key_from_hex(&config.master_key).map_err(|_| ServerError::Secret("master_key"))?;
        let master = MasterKey::new(&master).map_err(|_| ServerError::Secret("master_key"))?;
        let signing_keys = SigningKeys::parse(&config.signing_keys)?;
        let tokens = ServiceTokens::new(&secret);
        let http = http.with_token(Some(&tokens.token(Role::Frontend)));
        let instance = InstanceId(surroundings.ids.draw().map_err(|_| ServerError::Random)?);
        let index =
            Index::open(&catalog, config.cell).await.map_err(|error| ServerError::Catalog(error.to_string()))?;
        let keyring = Arc::new(Keyring::new(master, index.clone()));
        keyring.load().await.map_err(|error| ServerError::MasterKey(error.to_string()))?;

        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::default());
        let volume_manager = VolumeManagerClient::new(http.clone(), config.volume_manager.clone());
        let leases = Arc::new(Leases::new(instance, volume_manager, counters.clone()));
        let writers = Writers::start(&config.writer, &http, &index, &queue, &leases, &counters);
        let cache = Arc::new(Cache::new(config.cache.bytes));
        let reader = Reader {
            index: index.clone(),
            locations: Locations::new(index.clone()),
            http,
            keyring: keyring.clone(),
            cache: cache.clone(),
            suspects: Suspects::new(reader::LAST_FOR),
            counters: counters.clone(),
            hedge: Duration::from_millis(config.hedge_ms.max(1)),
        };
        let store = Store { index, keyring, queue, counters: counters.clone(), in_flight: InFlight::default() };
        let frontend = Arc::new(Frontend {
            put_budget: Budget::new(config.limits.put_bytes, LARGEST_BYTES),
            get_budget: Budget::new(config.limits.get_bytes, LARGEST_BYTES),
            config,
            instance,
            signing_keys,
            store,
            reader,
            leases,
            cache,
            counters,
            surroundings,
        });
        tracing::info!(%instance, address = frontend.config.address, "frontend serves");
        listener.serve(routes::router(frontend, &tokens), shutdown).await;
        writers.close().await;
        Ok(())
    }
}
