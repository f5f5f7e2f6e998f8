//! The metadata tier's daemon: files, people and permissions, over `/v1` and an API that is compatible with Dropbox's v2.
//!
//! It never stores file bytes: `/v1` hands out signed URLs to a frontend, and API v2's bodies stream through to one, a
//! few blocks at a time. What changes means is decided in `metadata/model` and kept by `metadata/store`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod app;
mod config;
mod metrics;
mod seal;
mod signing;
mod v1;
mod v2;
mod wake;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use holdfast_libs_presign::{KeysError, SigningKeys};
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::tls::TlsError;
use holdfast_libs_transport::{HttpClient, Role, ServiceTokens, serve};
use holdfast_metadata_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use app::App;
#[doc(hidden)]
pub use v2::fuzz;

pub use config::Config;

/// Why the daemon does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration names something impossible.
    #[error("configuration key `{key}`: {detail}")]
    Config {
        /// Which key.
        key: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The signing keys cannot be read.
    #[error("configuration key `signing_keys`: {0}")]
    SigningKeys(#[from] KeysError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Serves until `shutdown` is cancelled and requests in flight have ended.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), ServerError> {
    let secret = holdfast_libs_crypto::key_from_hex(&config.cell_secret)
        .map_err(|error| ServerError::Config { key: "cell_secret", detail: error.to_string() })?;
    if !config.frontend.starts_with("https://") {
        let detail = format!("`{}` is no https:// address", config.frontend);
        return Err(ServerError::Config { key: "frontend", detail });
    }
    let keys = SigningKeys::parse(&config.signing_keys)?;
    let server_tls = config.tls.server()?;
    let client_tls = config.tls.client()?;
    let wakes = Arc::new(wake::Wakes::default());
    let told = Arc::clone(&wakes);
    let store = Store::open(&config.data_dir, Box::new(move |namespace, sequence| told.tell(namespace, sequence)))?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|source| ServerError::Listen { address: config.listen.clone(), source })?;
    let tokens = ServiceTokens::new(&secret);
    let http = HttpClient::new(&client_tls, None);
    let app = Arc::new(App::new(&config, store, keys, tokens.clone(), wakes, &http, shutdown.clone()));
    tracing::info!(listen = %config.listen, address = %config.address, "metadata serves");
    serve(listener, server_tls, router(app, tokens), shutdown).await;
    Ok(())
}

fn router(app: Arc<App>, tokens: ServiceTokens) -> Router {
    let guard = Guard { tokens, accepted: &Role::ALL };
    let inner = Router::new().route("/metrics", get(metrics_text)).layer(from_fn_with_state(guard, require_role));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .merge(inner)
        .merge(v1::routes())
        .merge(v2::routes(&app))
        .with_state(app)
}

async fn metrics_text(State(app): State<Arc<App>>) -> impl IntoResponse {
    let headers = [(http::header::CONTENT_TYPE, holdfast_libs_telemetry::METRICS_CONTENT_TYPE)];
    (headers, app.metrics.render())
}
