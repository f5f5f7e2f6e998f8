//! Waiting for a change. Carries no token: the cursor is the credential, and dies with its device's token.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use holdfast_metadata_store::PageRequest;
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Rpc};
use super::error::ApiFailure;
use super::list::{open, page};
use crate::app::App;

const DEFAULT_SECONDS: u64 = 30;
const MAX_SECONDS: u64 = 480;

#[derive(Deserialize)]
pub(super) struct LongpollArg {
    cursor: String,
    #[serde(default)]
    timeout: Option<u64>,
}

pub(super) async fn longpoll(
    State(app): State<Arc<App>>,
    Rpc(arg): Rpc<LongpollArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let seconds = arg.timeout.unwrap_or(DEFAULT_SECONDS);
    if !(DEFAULT_SECONDS..=MAX_SECONDS).contains(&seconds) {
        let message = format!("timeout: {seconds} is not between {DEFAULT_SECONDS} and {MAX_SECONDS}");
        return Err(ApiFailure::BadInput(message));
    }
    let mut cursor = open(&app, &arg.cursor)?;
    let device = app.store.device(cursor.device).await?;
    let Some(actor) = device.filter(|actor| actor.account == cursor.account && actor.namespace == cursor.namespace)
    else {
        return Err(ApiFailure::tag("reset"));
    };
    let mut woken = app.wakes.subscribe(actor.namespace);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        woken.mark_unchanged();
        // A change elsewhere in the namespace is none of this listing's, so look before saying so.
        let page = match page(&app, actor.clone(), PageRequest::Continue(cursor)).await {
            Ok(page) => page,
            // The folder is gone: that is a change, and `continue` will say which.
            Err(ApiFailure::Route(error)) if error[".tag"] == "path" => return Ok(answer(true)),
            Err(failure) => return Err(failure),
        };
        if !page.items.is_empty() || page.has_more {
            return Ok(answer(true));
        }
        cursor = page.cursor;
        app.metrics.waiting.inc();
        let more = tokio::select! {
            changed = woken.changed() => changed.is_ok(),
            () = tokio::time::sleep_until(deadline) => false,
            () = app.shutdown.cancelled() => false,
        };
        app.metrics.waiting.dec();
        if !more {
            return Ok(answer(false));
        }
    }
}

fn answer(changes: bool) -> Answer<Value> {
    Answer(json!({ "changes": changes }))
}
