//! What every request handler works with.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use holdfast_libs_presign::SigningKeys;
use holdfast_libs_transport::auth::bearer;
use holdfast_libs_transport::{ApiError, HttpClient, ServiceTokens};
use holdfast_metadata_client::code;
use holdfast_metadata_store::{Actor, Store, StoreError};
use http::StatusCode;
use http::request::Parts;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::metrics::Metrics;
use crate::seal::Sealer;
use crate::signing::Signer;
use crate::wake::Wakes;

/// Passwords hashed at once: each takes 19 MiB and tens of milliseconds of a core.
const HASHING: usize = 2;

/// Blocks of API v2's uploads in memory at once, of 4 MiB each: 256 MiB.
const BLOCK_PLACES: usize = 64;

/// Downloads of API v2 at once; each holds up to three blocks for its reader.
const DOWNLOAD_PLACES: usize = 64;

/// The server's parts.
pub(crate) struct App {
    pub store: Store,
    pub signer: Signer,
    pub keys: SigningKeys,
    pub tokens: ServiceTokens,
    pub wakes: Arc<Wakes>,
    pub sealer: Sealer,
    pub metrics: Metrics,
    pub hashing: Semaphore,
    /// Blocks of API v2's uploads in memory at once.
    pub block_places: Arc<Semaphore>,
    /// Downloads of API v2 at once.
    pub download_places: Arc<Semaphore>,
    pub quota_bytes: u64,
    /// Cancelled when the server stops: waiting requests answer at once.
    pub shutdown: CancellationToken,
}

impl App {
    pub fn new(
        config: &Config,
        store: Store,
        keys: SigningKeys,
        tokens: ServiceTokens,
        wakes: Arc<Wakes>,
        http: &HttpClient,
        shutdown: CancellationToken,
    ) -> Self {
        let sealer = Sealer::new(store.server_key());
        let signer = Signer::new(config, keys.clone(), http);
        Self {
            store,
            signer,
            keys,
            tokens,
            wakes,
            sealer,
            metrics: Metrics::new(),
            hashing: Semaphore::new(HASHING),
            block_places: Arc::new(Semaphore::new(BLOCK_PLACES)),
            download_places: Arc::new(Semaphore::new(DOWNLOAD_PLACES)),
            quota_bytes: config.quota_bytes,
            shutdown,
        }
    }
}

/// Unix seconds.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A failure of the database, as `/v1` tells it.
pub(crate) fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Busy | StoreError::Closed => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
        }
        error => {
            tracing::error!(%error, "a request failed in the database");
            ApiError::internal(error.to_string())
        }
    }
}

/// The device whose token the request carries; `/v1` answers 401 without one.
pub(crate) struct Device(pub Actor);

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let unauthorized = |message: &str| ApiError::new(StatusCode::UNAUTHORIZED, code::UNAUTHORIZED, message);
        let Some(token) = bearer(&parts.headers) else {
            return Err(unauthorized("no access token: send `Authorization: Bearer TOKEN`, from `holdfast login`"));
        };
        let actor = app.store.authenticate(token).await.map_err(store_error)?;
        actor.map(Self).ok_or_else(|| unauthorized("the access token is unknown or revoked: link the device anew"))
    }
}
