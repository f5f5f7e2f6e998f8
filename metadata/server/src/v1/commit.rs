//! Batches of changes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_presign::{Receipt, ReceiptError};
use holdfast_libs_transport::ApiError;
use holdfast_metadata_client::{CommitAnswer, CommitRequest, ItemResult, code};
use holdfast_metadata_store::{Actor, Commit, KnownBlock};
use http::StatusCode;

use super::{Document, wire};
use crate::app::{App, Device, store_error, unix_now};

const MAX_ITEMS: usize = 1000;

pub(super) async fn commit(
    State(app): State<Arc<App>>,
    Device(actor): Device,
    Document(request): Document<CommitRequest>,
) -> Result<Json<CommitAnswer>, ApiError> {
    own_namespace(&actor, request.namespace.0)?;
    check(&request)?;
    let proven = proven(&app, &actor, &request.receipts)?;
    app.metrics.commits.inc();
    app.metrics.items.inc_by(request.items.len() as u64);
    let items = request.items.into_iter().map(wire::item).collect();
    let commit = Commit { items, proven, acknowledged_op: request.acknowledged_op, render: wire::render };
    let committed = app.store.commit(actor, commit).await.map_err(store_error)?;
    let results: Result<Vec<ItemResult>, _> =
        committed.answers.iter().map(|answer| serde_json::from_str(answer)).collect();
    let results = results.map_err(|error| ApiError::internal(format!("a stored answer is not readable: {error}")))?;
    Ok(Json(CommitAnswer { results, sequence: committed.sequence }))
}

/// Only a person's own root namespace exists so far.
pub(super) fn own_namespace(actor: &Actor, namespace: u64) -> Result<(), ApiError> {
    if actor.namespace.0 == namespace {
        return Ok(());
    }
    let message = format!("namespace {namespace} is not one of this account");
    Err(ApiError::new(StatusCode::FORBIDDEN, code::FORBIDDEN, message))
}

fn check(request: &CommitRequest) -> Result<(), ApiError> {
    if request.items.len() > MAX_ITEMS {
        let message = format!("{} items; a commit has at most {MAX_ITEMS}", request.items.len());
        return Err(ApiError::bad_request(message));
    }
    let limit = i64::MAX as u64;
    if request.acknowledged_op > limit || request.items.iter().any(|item| item.op == 0 || item.op > limit) {
        return Err(ApiError::bad_request("op numbers go from 1 to 2^63 - 1"));
    }
    Ok(())
}

/// What the receipts prove. Those that are expired, altered or signed by a key that is no more prove nothing: their blocks
/// will be asked for. One of another account is refused, since no honest device has it.
fn proven(app: &App, actor: &Actor, receipts: &[String]) -> Result<Vec<KnownBlock>, ApiError> {
    let now = unix_now();
    let mut proven = Vec::with_capacity(receipts.len());
    for (index, text) in receipts.iter().enumerate() {
        match Receipt::verify(text, &app.keys, actor.account, now) {
            Ok(receipt) => proven.push(KnownBlock { hash: receipt.hash, length: receipt.length }),
            Err(error) => {
                app.metrics.refused_receipts.inc();
                if error == ReceiptError::Account {
                    let message = format!("receipt {index}: {error}");
                    return Err(ApiError::new(StatusCode::FORBIDDEN, code::FORBIDDEN, message));
                }
                tracing::debug!(%error, index, "a receipt does not count");
            }
        }
    }
    Ok(proven)
}
