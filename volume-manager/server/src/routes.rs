//! The calls, each behind the roles that may make it.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::routing::{get, post};
use axum::{Json, Router};
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::{ApiError, Role, ServiceTokens};
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::manager::Manager;
use crate::{durability, leases, listing, metrics, operate, rebuild, registration, repair, status};

/// Largest message, bytes: a node with a thousand disks.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// A JSON body; one that is not right is answered in the shape of all errors.
pub(crate) struct Message<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Message<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(message)) => Ok(Self(message)),
            Err(JsonRejection::BytesRejection(error)) => Err(ApiError::unread(&error)),
            Err(error) => Err(ApiError::new(error.status(), "bad_request", error.body_text())),
        }
    }
}

pub(crate) fn router(manager: &Arc<Manager>, tokens: &ServiceTokens) -> Router {
    let guarded = |routes: Router<Arc<Manager>>, accepted: &'static [Role]| {
        routes.route_layer(from_fn_with_state(Guard { tokens: tokens.clone(), accepted }, require_role))
    };
    let nodes = Router::new()
        .route("/v1/register", post(registration::register))
        .route("/v1/heartbeat", post(registration::heartbeat));
    let frontends = Router::new()
        .route("/v1/leases", post(leases::lease))
        .route("/v1/leases/renew", post(leases::renew))
        .route("/v1/seal", post(leases::seal));
    let readers = Router::new().route("/v1/volumes/{volume}", get(status::volume));
    let operators = Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/volumes", get(status::volumes))
        .route("/v1/volumes/find", post(listing::find))
        .route("/v1/inventory", get(listing::inventory))
        .route("/v1/repair", get(repair::status::get).post(repair::operator::order))
        .route("/v1/catalog/rebuild", get(rebuild::status).post(rebuild::begin))
        .route("/v1/durability", post(durability::on_paper));
    let orders = Router::new()
        .route("/v1/disks/{disk}/{order}", post(operate::order_disk))
        .route("/v1/nodes/{node}/{order}", post(operate::order_node))
        .route("/v1/rebalance", get(operate::rebalance))
        .route("/v1/rebalance/{order}", post(operate::order_rebalance));
    // To a catalog that does not know the volumes every disk looks empty.
    let whole = |routes: Router<Arc<Manager>>| match manager.lost {
        None => routes,
        Some(_) => routes.route_layer(from_fn(async |_: Request, _: Next| leases::lost())),
    };
    let everyone = Router::new().route("/metrics", get(metrics::metrics));
    Router::new()
        .merge(guarded(nodes, &[Role::Node]))
        .merge(guarded(whole(frontends), &[Role::Frontend]))
        .merge(guarded(readers, &[Role::Frontend, Role::Admin]))
        .merge(guarded(operators, &[Role::Admin]))
        .merge(guarded(whole(orders), &[Role::Admin]))
        .merge(guarded(everyone, &Role::ALL))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(|| async { "ok" }))
        .fallback(|| async { ApiError::new(StatusCode::NOT_FOUND, "not_found", "the volume manager has no such call") })
        .layer(DefaultBodyLimit::max(MAX_MESSAGE_BYTES))
        .with_state(Arc::clone(manager))
}
