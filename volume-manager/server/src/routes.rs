//! The calls, each behind the roles that may make it.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::{Role, ServiceTokens};

use crate::manager::Manager;
use crate::{leases, metrics, registration, status};

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
    let operators = Router::new().route("/v1/status", get(status::status)).route("/v1/volumes", get(status::volumes));
    let everyone = Router::new().route("/metrics", get(metrics::metrics));
    Router::new()
        .merge(guarded(nodes, &[Role::Node]))
        .merge(guarded(frontends, &[Role::Frontend]))
        .merge(guarded(readers, &[Role::Frontend, Role::Admin]))
        .merge(guarded(operators, &[Role::Admin]))
        .merge(guarded(everyone, &Role::ALL))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(Arc::clone(manager))
}
