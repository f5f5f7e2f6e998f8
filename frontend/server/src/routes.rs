//! The table of calls, and the check of signed URLs.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_frontend_client::FrontendStatus;
use holdfast_libs_presign::{Grant, Method, Subject};
use holdfast_libs_telemetry::METRICS_CONTENT_TYPE;
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::{ApiError, Role, ServiceTokens};
use holdfast_libs_types::BlockHash;
use http::{StatusCode, Uri};

use crate::answers::url_refused;
use crate::{Frontend, gets, puts};

/// All calls of the frontend.
pub(crate) fn router(frontend: Arc<Frontend>, tokens: &ServiceTokens) -> Router {
    let guarded = |routes: Router<Arc<Frontend>>, accepted: &'static [Role]| {
        routes.route_layer(from_fn_with_state(Guard { tokens: tokens.clone(), accepted }, require_role))
    };
    let status_call = Router::new().route("/v1/status", get(status));
    let metrics_call = Router::new().route("/metrics", get(metrics));
    Router::new()
        .route("/v1/blocks/{hash}", get(gets::block).put(puts::block))
        .route("/v1/block-lists/{digest}/put", post(puts::list))
        .route("/v1/block-lists/{digest}/get", post(gets::list))
        .merge(guarded(status_call, &[Role::Admin, Role::Metadata]))
        .merge(guarded(metrics_call, &Role::ALL))
        .route("/healthz", get(|| async { "ok" }))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not_found", "the frontend has no such call") })
        .with_state(frontend)
}

/// `GET /v1/status`
async fn status(State(frontend): State<Arc<Frontend>>) -> Json<FrontendStatus> {
    Json(FrontendStatus {
        cell: frontend.config.cell,
        instance: frontend.instance,
        open_volumes: frontend.leases.open_volumes(),
        counters: frontend.counters.values(),
    })
}

/// `GET /metrics`
async fn metrics(State(frontend): State<Arc<Frontend>>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_CONTENT_TYPE)], frontend.counters.metrics())
}

/// What the signed URL of a request grants; `subject` makes the subject from the name in the path.
pub(crate) fn grant(
    frontend: &Frontend,
    method: Method,
    subject: fn(BlockHash) -> Subject,
    name: &str,
    uri: &Uri,
) -> Result<(BlockHash, Grant), ApiError> {
    let name: BlockHash = name.parse().map_err(|error| ApiError::bad_request(format!("{error}")))?;
    let query = uri.query().unwrap_or_default();
    Grant::verify(
        &frontend.signing_keys,
        frontend.config.cell,
        method,
        subject(name),
        query,
        frontend.surroundings.clock.unix_s(),
    )
    .map(|grant| (name, grant))
    .map_err(|error| url_refused(&error))
}
