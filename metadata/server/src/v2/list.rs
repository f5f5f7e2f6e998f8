//! Listings of folders.

use std::sync::Arc;

use axum::extract::State;
use holdfast_metadata_model::{Cursor, Scope};
use holdfast_metadata_store::{Actor, FolderPage, ListedItem, LookupFailure, Page, PageRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, Rpc};
use super::error::{ApiFailure, lookup};
use super::metadata::listed;
use super::path::{Takes, parse};
use crate::app::App;

const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 2000;

#[derive(Deserialize)]
pub(super) struct ListFolderArg {
    path: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    include_deleted: bool,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    shared_link: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct CursorArg {
    cursor: String,
}

impl ListFolderArg {
    async fn scope(&self, app: &App, actor: &Actor) -> Result<Scope, ApiFailure> {
        if self.shared_link.as_ref().is_some_and(|link| !link.is_null()) {
            return Err(ApiFailure::BadInput("shared_link: shared links are not supported".to_owned()));
        }
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 || limit > MAX_LIMIT {
            return Err(ApiFailure::BadInput(format!("limit: {limit} is not between 1 and {MAX_LIMIT}")));
        }
        let path = parse(&self.path, Takes::Folders).map_err(|error| error.told("path"))?;
        let folder = app.store.folder_at(actor.clone(), path).await?;
        let folder = folder.map_err(|failure| ApiFailure::nested("path", lookup(failure)))?;
        Ok(Scope::Folder { folder, recursive: self.recursive, include_deleted: self.include_deleted, limit })
    }
}

/// The next page, or the failure that `list_folder` and `continue` share.
pub(super) async fn page(app: &App, actor: Actor, request: PageRequest) -> Result<Page<ListedItem>, ApiFailure> {
    match app.store.list_folder(actor, request).await? {
        FolderPage::Page(page) => Ok(page),
        FolderPage::Reset => Err(ApiFailure::tag("reset")),
        FolderPage::NotFound => Err(ApiFailure::nested("path", lookup(LookupFailure::NotFound))),
    }
}

fn told(app: &App, page: &Page<ListedItem>) -> Answer<Value> {
    let entries: Vec<_> = page.items.iter().map(listed).collect();
    Answer(json!({ "entries": entries, "cursor": app.sealer.seal(&page.cursor), "has_more": page.has_more }))
}

/// A cursor of API v2, whoever it belongs to.
pub(super) fn open(app: &App, text: &str) -> Result<Cursor, ApiFailure> {
    let cursor = app.sealer.open(text).filter(|cursor| matches!(cursor.scope, Scope::Folder { .. }));
    cursor.ok_or_else(|| ApiFailure::tag("reset"))
}

pub(super) async fn list_folder(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<ListFolderArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let scope = arg.scope(&app, &actor).await?;
    let request = PageRequest::Start(actor.namespace, scope);
    Ok(told(&app, &page(&app, actor, request).await?))
}

pub(super) async fn list_continue(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<CursorArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let cursor = open(&app, &arg.cursor)?;
    if cursor.account != actor.account || cursor.namespace != actor.namespace {
        return Err(ApiFailure::tag("reset"));
    }
    Ok(told(&app, &page(&app, actor, PageRequest::Continue(cursor)).await?))
}

pub(super) async fn latest_cursor(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<ListFolderArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let scope = arg.scope(&app, &actor).await?;
    let request = PageRequest::End(actor.namespace, scope);
    let page = page(&app, actor, request).await?;
    Ok(Answer(json!({ "cursor": app.sealer.seal(&page.cursor) })))
}
