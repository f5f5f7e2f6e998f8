//! Upload sessions: files that arrive in several requests.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use holdfast_metadata_store::{Actor, KnownBlock, SessionFailure, SessionState, WriteFailure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, Content};
use super::body::{drain_body, put_tail, receive};
use super::error::{ApiFailure, session as session_error, write};
use super::metadata::{newest, untagged};
use super::upload::{Arrived, CommitInfo, commit};
use crate::app::App;

/// Largest file: 2^41 - 2^22 bytes, as in API v2.
const MAX_FILE_BYTES: u64 = (1 << 41) - (1 << 22);

#[derive(Deserialize)]
pub(super) struct StartArg {
    #[serde(default)]
    close: bool,
    #[serde(default)]
    session_type: Option<Value>,
    #[serde(default)]
    content_hash: Option<String>,
}

#[derive(Deserialize)]
struct SessionCursor {
    session_id: String,
    offset: u64,
}

#[derive(Deserialize)]
pub(super) struct AppendArg {
    cursor: SessionCursor,
    #[serde(default)]
    close: bool,
    #[serde(default)]
    content_hash: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct FinishArg {
    cursor: SessionCursor,
    commit: CommitInfo,
    #[serde(default)]
    content_hash: Option<String>,
}

/// Reads a body onto the end of a session.
async fn extend(
    app: &Arc<App>,
    actor: &Actor,
    mut state: SessionState,
    body: Body,
    content_hash: Option<&str>,
) -> Result<(SessionState, Vec<KnownBlock>), ApiFailure> {
    let head = std::mem::take(&mut state.tail);
    let received = receive(app, actor, body, head, content_hash).await.map_err(|failure| {
        failure.told(|| ApiFailure::Unavailable("the cell has no room for more blocks now".to_owned()))
    })?;
    state.size += received.size;
    state.blocks.extend(received.blocks);
    state.tail = received.tail;
    Ok((state, received.proven))
}

pub(super) async fn start(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    content: Content<StartArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let Content { arg, body, .. } = content;
    let kind = arg.session_type.as_ref().and_then(|kind| kind.as_str().or_else(|| kind[".tag"].as_str()));
    if kind.is_some_and(|kind| kind != "sequential") {
        drain_body(body).await;
        return Err(ApiFailure::BadInput("session_type: only sequential sessions are supported".to_owned()));
    }
    let begun = app.store.start_session(actor.clone()).await?;
    let (mut state, proven) = extend(&app, &actor, begun, body, arg.content_hash.as_deref()).await?;
    state.closed = arg.close;
    let id = hex::encode(state.id);
    if state.size > 0 || state.closed {
        let kept = app.store.extend_session(actor, state, 0, proven).await?;
        kept.map_err(|failure| ApiFailure::Internal(format!("a session that was just made: {failure:?}")))?;
    }
    Ok(Answer(json!({ "session_id": id })))
}

/// The session, if it can take more from this offset.
async fn open(
    app: &App,
    actor: &Actor,
    cursor: &SessionCursor,
) -> Result<Result<SessionState, SessionFailure>, ApiFailure> {
    let mut id = [0; 16];
    if hex::decode_to_slice(&cursor.session_id, &mut id).is_err() {
        return Ok(Err(SessionFailure::NotFound));
    }
    Ok(app.store.session(actor.clone(), id, cursor.offset).await?)
}

pub(super) async fn append(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    content: Content<AppendArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let Content { arg, body, .. } = content;
    let opened = open(&app, &actor, &arg.cursor).await?;
    let state = match opened {
        Ok(state) if state.closed => Err(SessionFailure::Closed),
        other => other,
    };
    let state = match state {
        Ok(state) => state,
        Err(failure) => {
            drain_body(body).await;
            return Err(ApiFailure::Route(session_error(failure)));
        }
    };
    let from = state.size;
    let (mut state, proven) = extend(&app, &actor, state, body, arg.content_hash.as_deref()).await?;
    if state.size > MAX_FILE_BYTES {
        return Err(ApiFailure::tag("too_large"));
    }
    state.closed = arg.close;
    let kept = app.store.extend_session(actor, state, from, proven).await?;
    kept.map_err(|failure| ApiFailure::Route(session_error(failure)))?;
    Ok(Answer(Value::Null))
}

pub(super) async fn finish(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    content: Content<FinishArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let Content { arg, body, .. } = content;
    let lookup_failed = |failure| ApiFailure::nested("lookup_failed", session_error(failure));
    let understood = arg.commit.understand(|reason| ApiFailure::nested("path", reason));
    let opened = match (understood, open(&app, &actor, &arg.cursor).await?) {
        (Ok(understood), Ok(state)) => Ok((understood, state)),
        (Err(failure), _) => Err(failure),
        (_, Err(failure)) => Err(lookup_failed(failure)),
    };
    let (understood, state) = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            drain_body(body).await;
            return Err(failure);
        }
    };
    let (closed, from) = (state.closed, state.size);
    let (mut state, mut proven) = extend(&app, &actor, state, body, arg.content_hash.as_deref()).await?;
    if closed && state.size > from {
        return Err(lookup_failed(SessionFailure::Closed));
    }
    if state.size > MAX_FILE_BYTES {
        return Err(ApiFailure::nested("lookup_failed", json!({ ".tag": "too_large" })));
    }
    let tail = std::mem::take(&mut state.tail);
    let full = || ApiFailure::nested("path", write(WriteFailure::InsufficientSpace));
    let tail = put_tail(&app, &actor, tail).await.map_err(|failure| failure.told(full))?;
    let last = tail.map(|(last, known)| {
        proven.push(known);
        last
    });
    let arrived = Arrived { blocks: state.block_refs(last), proven, session: Some(state.id) };
    let written = commit(&app, actor, understood, arrived).await?;
    let entry = written.map_err(|failure| ApiFailure::nested("path", write(failure)))?;
    Ok(Answer(untagged(newest(&entry))))
}
