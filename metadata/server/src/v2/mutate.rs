//! Folders made, entries deleted, moved and copied.

use std::sync::Arc;

use axum::extract::State;
use holdfast_metadata_model::{EntryId, Rev};
use holdfast_metadata_store::{PathRef, Relocation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, Rpc};
use super::error::{ApiFailure, lookup, write};
use super::metadata::{newest, untagged};
use super::path::{Takes, parse};
use crate::app::App;

#[derive(Deserialize)]
pub(super) struct CreateFolderArg {
    path: String,
    #[serde(default)]
    autorename: bool,
}

pub(super) async fn create_folder(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<CreateFolderArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let path = parse(&arg.path, Takes::Plain).map_err(|error| error.told_write("path"))?;
    let made = app.store.create_folder(actor, path, arg.autorename).await?;
    let made = made.map_err(|failure| ApiFailure::nested("path", write(failure)))?;
    Ok(Answer(json!({ "metadata": untagged(newest(&made)) })))
}

#[derive(Deserialize)]
pub(super) struct DeleteArg {
    path: String,
    #[serde(default)]
    parent_rev: Option<String>,
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<DeleteArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let path = parse(&arg.path, Takes::Ids).map_err(|error| error.told("path_lookup"))?;
    let rev = arg.parent_rev.as_deref().map(|text| parse_rev("parent_rev", text)).transpose()?;
    let gone = app.store.delete(actor, path, rev).await?.map_err(|failure| match failure {
        Relocation::From(failure) => ApiFailure::nested("path_lookup", lookup(failure)),
        Relocation::To(failure) => ApiFailure::nested("path_write", write(failure)),
        Relocation::TooManyFiles => ApiFailure::tag("too_many_files"),
        Relocation::IntoItself | Relocation::InvalidRevision => ApiFailure::tag("other"),
    })?;
    Ok(Answer(json!({ "metadata": newest(&gone) })))
}

/// A revision in an argument; 400 for a text that is none.
pub(super) fn parse_rev(field: &str, text: &str) -> Result<Rev, ApiFailure> {
    text.parse().map_err(|error| ApiFailure::BadInput(format!("{field}: {error}")))
}

#[derive(Deserialize)]
pub(super) struct RelocationArg {
    from_path: String,
    to_path: String,
    #[serde(default)]
    autorename: bool,
}

pub(super) async fn relocate_move(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<RelocationArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let (from, to) = arg.paths()?;
    let moved = app.store.relocate(actor, from, to, arg.autorename, false).await?;
    Ok(Answer(json!({ "metadata": newest(&moved.map_err(relocation)?) })))
}

pub(super) async fn relocate_copy(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<RelocationArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let (from, to) = arg.paths()?;
    let copied = app.store.relocate(actor, from, to, arg.autorename, true).await?;
    Ok(Answer(json!({ "metadata": newest(&copied.map_err(relocation)?) })))
}

impl RelocationArg {
    fn paths(&self) -> Result<(PathRef, PathRef), ApiFailure> {
        let from = parse(&self.from_path, Takes::Ids).map_err(|error| error.told("from_lookup"))?;
        let to = parse(&self.to_path, Takes::Ids).map_err(|error| error.told_write("to"))?;
        debug_assert!(!matches!(&to, PathRef::Under(EntryId::ROOT, names) if names.is_empty()));
        Ok((from, to))
    }
}

fn relocation(failure: Relocation) -> ApiFailure {
    use holdfast_metadata_store::WriteFailure::InsufficientSpace;
    match failure {
        Relocation::From(failure) => ApiFailure::nested("from_lookup", lookup(failure)),
        Relocation::To(InsufficientSpace) => ApiFailure::tag("insufficient_quota"),
        Relocation::To(failure) => ApiFailure::nested("to", write(failure)),
        Relocation::IntoItself => ApiFailure::tag("cant_move_folder_into_itself"),
        Relocation::TooManyFiles => ApiFailure::tag("too_many_files"),
        Relocation::InvalidRevision => ApiFailure::tag("other"),
    }
}
