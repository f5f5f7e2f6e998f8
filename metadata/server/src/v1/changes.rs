//! What changed, and waiting for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::ApiError;
use holdfast_metadata_client::{Changes, ChangesRequest, code};
use holdfast_metadata_model::Scope;
use holdfast_metadata_store::{Changed, PageRequest};
use http::StatusCode;

use super::commit::own_namespace;
use super::{Document, wire};
use crate::app::{App, Device, store_error};

const MAX_LIMIT: u32 = 5000;
const MAX_WAIT: Duration = Duration::from_secs(60);

pub(super) async fn changes(
    State(app): State<Arc<App>>,
    Device(actor): Device,
    Document(request): Document<ChangesRequest>,
) -> Result<Json<Changes>, ApiError> {
    own_namespace(&actor, request.namespace.0)?;
    if request.limit == 0 {
        return Err(ApiError::bad_request("`limit` must be at least 1"));
    }
    let limit = request.limit.min(MAX_LIMIT);
    let mut from = match &request.cursor {
        None => PageRequest::Start(actor.namespace, Scope::Namespace),
        Some(text) => match app.sealer.open(text) {
            Some(cursor) if cursor.account != actor.account || cursor.namespace != actor.namespace => {
                let message = "the cursor belongs to another account or namespace";
                return Err(ApiError::new(StatusCode::FORBIDDEN, code::FORBIDDEN, message));
            }
            Some(cursor) if cursor.scope == Scope::Namespace => PageRequest::Continue(cursor),
            // Altered, or of a database that is no more: both mean that this journal is not the one it was.
            Some(_) | None => return Ok(Json(reset())),
        },
    };
    // Before the first look, so that no change falls between looking and waiting.
    let mut woken = app.wakes.subscribe(actor.namespace);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(request.wait_ms).min(MAX_WAIT);
    loop {
        woken.mark_unchanged();
        let page = app.store.changes(actor.clone(), from, limit).await.map_err(store_error)?;
        let Some(page) = page else { return Ok(Json(reset())) };
        let nothing = page.items.is_empty() && !page.has_more && request.cursor.is_some();
        if !nothing {
            return Ok(Json(told(&app, &page)));
        }
        app.metrics.waiting.inc();
        let more = tokio::select! {
            changed = woken.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = app.shutdown.cancelled() => false,
        };
        app.metrics.waiting.dec();
        if !more {
            return Ok(Json(told(&app, &page)));
        }
        from = PageRequest::Continue(page.cursor);
    }
}

fn told(app: &App, page: &Changed) -> Changes {
    Changes {
        entries: page.items.iter().map(wire::entry).collect(),
        cursor: app.sealer.seal(&page.cursor),
        sequence: page.cursor.sequence,
        has_more: page.has_more,
        reset: false,
    }
}

fn reset() -> Changes {
    Changes { entries: Vec::new(), cursor: String::new(), sequence: 0, has_more: false, reset: true }
}
