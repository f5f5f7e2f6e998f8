//! Becoming the leader, staying it, and what is answered meanwhile.
//!
//! A volume manager leads while its lease in the catalog runs. Another one stands by: it answers every call with `not_leader`
//! and the leader's address, and tries again and again. What keeps two that both believe to lead from harm is not the lease but the
//! term, which every write to the table and every order to a node carries (`catalog::ReplicationTable`).
//!
//! A process that was stopped for longer than its lease, as a machine is that sleeps, goes on if nobody took over: its first
//! try to renew tells. One that cannot renew for the length of a lease, try by try, ends itself.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::get;
use holdfast_libs_transport::auth::{Guard, require_role};
use holdfast_libs_transport::{ApiError, Role, ServiceTokens};
use holdfast_volume_manager_catalog::{Candidate, Catalog, CatalogError, Leader, Leadership, Term};
use holdfast_volume_manager_client::code;
use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::error::ServerError;
use crate::manager::Manager;

/// How often a standby looks whether the lease was given up.
const STANDBY_POLL: Duration = Duration::from_millis(500);

/// How long the lease may take to be given up at the end.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// Lets calls through once this volume manager leads.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    leading: RwLock<Option<Router>>,
    leader: Mutex<Option<Leader>>,
}

impl Gate {
    /// What is served from the start: the standby's few answers, then everything that `open` was given.
    pub fn router(self: &Arc<Self>, tokens: &ServiceTokens) -> Router {
        let guard = Guard { tokens: tokens.clone(), accepted: &Role::ALL };
        let calls = Router::new()
            .fallback(not_leader)
            .layer(from_fn_with_state(guard, require_role))
            .with_state(Arc::clone(self));
        let standby = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "standby") }))
            .fallback_service(calls);
        let gate = Arc::clone(self);
        Router::new().fallback(async move |request: Request| -> Response {
            let leading = gate.leading.read().unwrap_or_else(PoisonError::into_inner).clone();
            let router = leading.unwrap_or_else(|| standby.clone());
            router.oneshot(request).await.unwrap_or_else(|never| match never {})
        })
    }

    /// From now on `router` answers.
    pub fn open(&self, router: Router) {
        *self.leading.write().unwrap_or_else(PoisonError::into_inner) = Some(router);
    }

    /// From now on it answers as a standby again.
    pub fn close(&self) {
        *self.leading.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn note(&self, leader: Leader) {
        let mut known = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.term != leader.term) {
            tracing::info!(leader = leader.holder, address = leader.address, term = leader.term.0, "standing by");
        }
        *known = Some(leader);
    }
}

async fn not_leader(State(gate): State<Arc<Gate>>) -> ApiError {
    let known = gate.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let error = |message| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::NOT_LEADER, message);
    match known {
        Some(Leader { holder, address, .. }) => {
            let message = format!("this volume manager stands by; {holder} leads, at {address}");
            error(message).with_detail(json!({ "leader": address }))
        }
        None => error("this volume manager does not lead yet".to_owned()),
    }
}

/// Waits until the leadership is taken; None when the daemon is to stop before.
///
/// # Errors
/// Those of the catalog, unless another was seen to lead: then it stands by whatever becomes of the catalog.
pub(crate) async fn acquire(
    gate: &Gate,
    catalog: &Catalog,
    candidate: &Candidate,
    ttl: Duration,
    shutdown: &CancellationToken,
) -> Result<Option<Term>, CatalogError> {
    let mut stands_by = false;
    loop {
        let acquired = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            acquired = catalog.table.acquire_leadership(candidate, ttl) => acquired,
        };
        let wait = match acquired {
            Ok(Leadership::Taken(term)) => return Ok(Some(term)),
            Ok(Leadership::Held(leader)) => {
                stands_by = true;
                let remaining = leader.remaining;
                gate.note(leader);
                // Not before the lease is over by the database's clock, which counts milliseconds.
                (remaining + Duration::from_millis(2)).min(STANDBY_POLL)
            }
            Err(error) if stands_by => {
                tracing::warn!(%error, "the catalog does not say who leads");
                STANDBY_POLL
            }
            Err(error) => return Err(error),
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Renews the lease until shutdown.
///
/// # Errors
/// `Deposed` when another leads; `LeaseLost` when no try got through for the length of a lease.
pub(crate) async fn hold(manager: Arc<Manager>, ttl: Duration) -> Result<(), ServerError> {
    let mut renewed = Instant::now();
    let mut wait = ttl / 3;
    while manager.pause(wait).await {
        let begun = Instant::now();
        let renewal = manager.catalog.table.renew_leadership(manager.term, ttl);
        let why = match tokio::time::timeout(ttl / 3, renewal).await {
            Ok(Ok(())) => {
                (renewed, wait) = (begun, ttl / 3);
                continue;
            }
            Ok(Err(CatalogError::StaleTerm { given, current })) => return Err(ServerError::Deposed { given, current }),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the catalog does not answer".to_owned(),
        };
        if renewed.elapsed() >= ttl {
            return Err(ServerError::LeaseLost { ttl, why });
        }
        tracing::warn!(why, "the lease was not renewed; trying again");
        wait = ttl / 20;
    }
    Ok(())
}

/// Gives the lease up, so that a standby takes over at once.
pub(crate) async fn release(catalog: &Catalog, term: Term) {
    match tokio::time::timeout(RELEASE_LIMIT, catalog.table.release_leadership(term)).await {
        Ok(Ok(())) => tracing::info!("leadership given up"),
        Ok(Err(error)) => tracing::warn!(%error, "the lease was not given up, and runs out by itself"),
        Err(_) => tracing::warn!("the lease was not given up in time, and runs out by itself"),
    }
}
