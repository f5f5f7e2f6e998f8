//! Uploads in one request, and what a commit of an upload has in common.

use std::sync::Arc;

use axum::extract::State;
use holdfast_metadata_model::{BlockRef, Content as FileContent, Timestamp, UploadMode, UploadOptions};
use holdfast_metadata_store::{Actor, KnownBlock, PathEntry, PathRef, Upload, WriteFailure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arg::{Answer, Caller, Content};
use super::body::{BodyFailure, drain_body, put_tail, receive};
use super::error::{ApiFailure, write};
use super::metadata::{newest, parse_time, untagged};
use super::path::{Takes, parse};
use crate::app::{App, unix_now};

/// `CommitInfo`.
#[derive(Deserialize)]
pub(super) struct CommitInfo {
    pub path: String,
    #[serde(default)]
    mode: Option<Value>,
    #[serde(default)]
    autorename: bool,
    #[serde(default)]
    client_modified: Option<String>,
    #[serde(default)]
    strict_conflict: bool,
}

#[derive(Deserialize)]
pub(super) struct UploadArg {
    #[serde(flatten)]
    commit: CommitInfo,
    #[serde(default)]
    content_hash: Option<String>,
}

/// `CommitInfo` that was understood.
pub(super) struct Commit {
    path: PathRef,
    options: UploadOptions,
    mtime: Option<Timestamp>,
}

impl CommitInfo {
    /// `told` makes the route's error of a path that cannot be.
    pub fn understand(&self, told: impl FnOnce(Value) -> ApiFailure) -> Result<Commit, ApiFailure> {
        let path = parse(&self.path, Takes::Ids).map_err(|error| match error.told_write("path") {
            ApiFailure::Route(error) => told(error["path"].clone()),
            other => other,
        })?;
        let mtime = match &self.client_modified {
            None => None,
            Some(text) => Some(parse_time(text).ok_or_else(|| {
                ApiFailure::BadInput(format!("client_modified: {text:?} does not match '%Y-%m-%dT%H:%M:%SZ'"))
            })?),
        };
        let options = UploadOptions {
            mode: mode(self.mode.as_ref())?,
            autorename: self.autorename,
            strict_conflict: self.strict_conflict,
            explicit_mtime: mtime.is_some(),
        };
        Ok(Commit { path, options, mtime })
    }
}

/// `WriteMode`: a tag, alone or in an object.
fn mode(value: Option<&Value>) -> Result<UploadMode, ApiFailure> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(UploadMode::Add) };
    let tag = value.as_str().or_else(|| value.get(".tag").and_then(Value::as_str));
    match tag {
        Some("add") => Ok(UploadMode::Add),
        Some("overwrite") => Ok(UploadMode::Overwrite),
        Some("update") => match value.get("update").and_then(Value::as_str) {
            Some(rev) if rev.len() >= 9 && rev.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) => {
                Ok(UploadMode::Update(rev.parse().ok()))
            }
            _ => Err(ApiFailure::BadInput("mode: update: expected a rev, '[0-9a-f]{9,}'".to_owned())),
        },
        _ => Err(ApiFailure::BadInput("mode: expected 'add', 'overwrite' or 'update'".to_owned())),
    }
}

/// The blocks of a file that has arrived.
pub(super) struct Arrived {
    pub blocks: Vec<BlockRef>,
    pub proven: Vec<KnownBlock>,
    pub session: Option<[u8; 16]>,
}

/// Commits a file whose blocks are in the cell.
pub(super) async fn commit(
    app: &App,
    actor: Actor,
    commit: Commit,
    arrived: Arrived,
) -> Result<Result<PathEntry, WriteFailure>, ApiFailure> {
    let size = arrived.blocks.iter().map(|block| u64::from(block.length)).sum();
    let now = Timestamp { secs: i64::try_from(unix_now()).unwrap_or(i64::MAX), nanos: 0 };
    let content = FileContent::file(size, arrived.blocks, commit.mtime.unwrap_or(now), false)
        .map_err(|error| ApiFailure::Internal(error.to_string()))?;
    let upload = Upload {
        path: commit.path,
        content,
        options: commit.options,
        proven: arrived.proven,
        session: arrived.session,
    };
    Ok(app.store.upload(actor, upload).await?)
}

/// `UploadError.path`.
fn write_failed(reason: Value) -> ApiFailure {
    ApiFailure::Route(json!({ ".tag": "path", "reason": reason, "upload_session_id": "" }))
}

pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    content: Content<UploadArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let Content { arg, body, .. } = content;
    let understood = match arg.commit.understand(write_failed) {
        Ok(understood) => understood,
        Err(failure) => {
            drain_body(body).await;
            return Err(failure);
        }
    };
    let full = || write_failed(write(WriteFailure::InsufficientSpace));
    let told = |failure: BodyFailure| failure.told(full);
    let received = receive(&app, &actor, body, Vec::new(), arg.content_hash.as_deref()).await.map_err(told)?;
    let mut proven = received.proven;
    let tail = put_tail(&app, &actor, received.tail).await.map_err(told)?;
    let whole = holdfast_libs_types::MAX_BLOCK_BYTES as u32;
    let mut blocks: Vec<_> = received.blocks.into_iter().map(|hash| BlockRef { hash, length: whole }).collect();
    if let Some((last, known)) = tail {
        blocks.push(last);
        proven.push(known);
    }
    let arrived = Arrived { blocks, proven, session: None };
    let written = commit(&app, actor, understood, arrived).await?;
    let entry = written.map_err(|failure| write_failed(write(failure)))?;
    Ok(Answer(untagged(newest(&entry))))
}
