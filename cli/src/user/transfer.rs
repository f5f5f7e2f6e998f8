//! Whole files up and down.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_types::{ContentHasher, MAX_BLOCK_BYTES};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::show;
use crate::user::api::Api;

/// Bytes of one request of an upload session: whole blocks, and a bound on memory.
const CHUNK_BYTES: usize = 8 * MAX_BLOCK_BYTES;

/// Uploads `file` to `path`, replacing what is there.
pub async fn put(api: &Api, file: &Path, path: &str) -> anyhow::Result<Value> {
    let mut source = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let metadata = source.metadata()?;
    if !metadata.is_file() {
        bail!("{} is not a file", file.display());
    }
    let mut commit = json!({ "path": path, "mode": "overwrite" });
    if let Some(modified) = metadata.modified().ok().and_then(rfc3339) {
        commit["client_modified"] = modified.into();
    }
    let bar = show::progress(metadata.len(), "uploading");
    let mut hash = ContentHasher::default();
    let mut session: Option<String> = None;
    let mut offset = 0_u64;
    loop {
        let mut chunk = Vec::new();
        (&mut source).take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
        let len = chunk.len();
        let chunk = Bytes::from(chunk);
        hash.update(&chunk);
        let last = len < CHUNK_BYTES;
        let answer = match (&session, last) {
            (None, true) => api.send("files/upload", &commit, chunk).await?,
            (None, false) => api.send("files/upload_session/start", &json!({}), chunk).await?,
            (Some(id), _) => {
                let cursor = json!({ "session_id": id, "offset": offset });
                if last {
                    let arguments = json!({ "cursor": cursor, "commit": commit });
                    api.send("files/upload_session/finish", &arguments, chunk).await?
                } else {
                    api.send("files/upload_session/append_v2", &json!({ "cursor": cursor }), chunk).await?
                }
            }
        };
        offset += len as u64;
        bar.inc(len as u64);
        if last {
            bar.finish_and_clear();
            let (ours, theirs) = (hash.finish(), answer["content_hash"].as_str().unwrap_or(""));
            if ours != theirs {
                bail!("{path}: the server stored other bytes than were sent ({theirs} instead of {ours})");
            }
            return Ok(answer);
        }
        if session.is_none() {
            session = Some(answer["session_id"].as_str().context("the upload session has no id")?.to_owned());
        }
    }
}

/// Downloads `path` into `file`: to a temporary file beside it first, compared with the content hash, then renamed.
pub async fn get(api: &Api, path: &str, file: &Path) -> anyhow::Result<Value> {
    let inside;
    let file = if file.is_dir() {
        inside = file.join(path.rsplit('/').next().unwrap_or_default());
        inside.as_path()
    } else {
        file
    };
    // A link leads to what is replaced; a device or a pipe is no place for a file.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let file = target.as_path();
    if std::fs::metadata(file).is_ok_and(|metadata| !metadata.is_file()) {
        bail!("{} is not a regular file; name one to write to", file.display());
    }
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary =
        tempfile::NamedTempFile::new_in(folder).with_context(|| format!("cannot write in {}", folder.display()))?;
    let (metadata, mut body) = api.fetch("files/download", &json!({ "path": path })).await?;
    let bar = show::progress(metadata["size"].as_u64().unwrap_or(0), "downloading");
    let mut hash = ContentHasher::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.with_context(|| format!("{path}: the download broke off"))?;
        if let Ok(bytes) = frame.into_data() {
            hash.update(&bytes);
            temporary.write_all(&bytes)?;
            bar.inc(bytes.len() as u64);
        }
    }
    bar.finish_and_clear();
    let (ours, theirs) = (hash.finish(), metadata["content_hash"].as_str().unwrap_or(""));
    if ours != theirs {
        bail!("{path}: what arrived is not what the server has ({ours} instead of {theirs}); nothing was changed");
    }
    temporary.as_file().sync_all()?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(temporary.path(), mode)?;
    temporary.persist(file).with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(metadata)
}

/// `2026-01-31T12:00:00Z`, as the API writes times.
fn rfc3339(modified: std::time::SystemTime) -> Option<String> {
    let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time::OffsetDateTime::from(modified).format(format).ok()
}
