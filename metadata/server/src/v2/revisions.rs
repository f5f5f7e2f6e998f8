//! The past of a file.

use std::sync::Arc;

use axum::extract::State;
use holdfast_metadata_store::Relocation;
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, Rpc};
use super::error::{ApiFailure, lookup, write};
use super::metadata::{document, newest, time_text, untagged};
use super::mutate::parse_rev;
use super::path::{Takes, parse};
use crate::app::App;

const DEFAULT_LIMIT: u32 = 10;
const MAX_LIMIT: u32 = 100;

#[derive(Deserialize)]
pub(super) struct ListRevisionsArg {
    path: String,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    before_rev: Option<String>,
}

pub(super) async fn list_revisions(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<ListRevisionsArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let limit = arg.limit.unwrap_or(DEFAULT_LIMIT);
    if limit == 0 || limit > MAX_LIMIT {
        return Err(ApiFailure::BadInput(format!("limit: {limit} is not between 1 and {MAX_LIMIT}")));
    }
    let path = parse(&arg.path, Takes::Ids).map_err(|error| error.told("path"))?;
    let before = arg.before_rev.as_deref().map(|text| parse_rev("before_rev", text)).transpose()?;
    let list = app.store.revisions(actor, path, before, limit).await?;
    let list = list.map_err(|failure| ApiFailure::nested("path", lookup(failure)))?;
    let entries: Vec<_> = list.revisions.iter().map(|revision| untagged(document(&list.entry, revision))).collect();
    let mut answer = json!({ "is_deleted": list.deleted_ms.is_some(), "entries": entries, "has_more": list.has_more });
    if let Some(deleted_ms) = list.deleted_ms {
        answer["server_deleted"] = time_text(deleted_ms.div_euclid(1000)).into();
    }
    Ok(Answer(answer))
}

#[derive(Deserialize)]
pub(super) struct RestoreArg {
    path: String,
    rev: String,
}

pub(super) async fn restore(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<RestoreArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let path = parse(&arg.path, Takes::Plain).map_err(|error| error.told("path_lookup"))?;
    let rev = parse_rev("rev", &arg.rev)?;
    let restored = app.store.restore(actor, path, rev).await?.map_err(|failure| match failure {
        Relocation::From(failure) => ApiFailure::nested("path_lookup", lookup(failure)),
        Relocation::To(failure) => ApiFailure::nested("path_write", write(failure)),
        Relocation::InvalidRevision => ApiFailure::tag("invalid_revision"),
        Relocation::IntoItself | Relocation::TooManyFiles => ApiFailure::tag("other"),
    })?;
    Ok(Answer(untagged(newest(&restored))))
}
