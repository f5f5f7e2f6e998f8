//! Downloads: blocks from the frontend, checked, cut to the range asked for, a few ahead of the reader.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use holdfast_libs_presign::Method;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::AccountId;
use holdfast_metadata_model::{BlockRef, Kind};
use holdfast_metadata_store::{KnownBlock, LookupFailure};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;

use super::arg::{Caller, Content, header_json};
use super::error::{ApiFailure, lookup};
use super::metadata::{document, untagged};
use super::path::{Takes, parse};
use crate::app::App;

/// Blocks fetched ahead of the reader, the one being read included.
const AHEAD: usize = 2;

#[derive(Deserialize)]
pub(super) struct DownloadArg {
    path: String,
    #[serde(default)]
    rev: Option<String>,
}

pub(super) async fn download(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    content: Content<DownloadArg>,
) -> Result<Response, ApiFailure> {
    let Content { arg, parts, .. } = content;
    // The field `rev` is API v2's older way to say `rev:` as the path.
    let path = match &arg.rev {
        Some(rev) => format!("rev:{rev}"),
        None => arg.path.clone(),
    };
    let path = parse(&path, Takes::Reading).map_err(|error| error.told("path"))?;
    let account = actor.account;
    let found = app.store.at(actor, path, false).await?;
    let found = found.map_err(|failure| ApiFailure::nested("path", lookup(failure)))?;
    let file = &found.revision.content;
    match file.kind {
        Kind::File => {}
        Kind::Folder => return Err(ApiFailure::nested("path", lookup(LookupFailure::NotFile))),
        Kind::Symlink => return Err(ApiFailure::tag("unsupported_file")),
    }
    let range = match range(&parts.headers, file.size) {
        Ok(range) => range,
        Err(()) => return Ok(not_satisfiable(file.size)),
    };
    let (start, end) = range.unwrap_or((0, file.size));
    let result = header_json(&untagged(document(&found.entry, &found.revision)));
    let body = body(&app, account, &file.blocks, start, end).await?;
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(end - start));
    let mut text = |name: http::HeaderName, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    text(ETAG, format!("W/\"{}\"", found.revision.rev));
    text(http::HeaderName::from_static("dropbox-api-result"), result);
    if range.is_some() {
        text(CONTENT_RANGE, format!("bytes {start}-{}/{}", end - 1, file.size));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// The bytes asked for, from (included) and to (excluded); none for the whole file. One range only: more of them, or a
/// header that is no range of bytes, are answered with the whole, as RFC 9110 allows.
fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(text) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Ok(None);
    };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if first > last => return Ok(None),
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, size),
        (Err(_), Ok(count)) if first.trim().is_empty() => (size.saturating_sub(count), size),
        _ => return Ok(None),
    };
    if start < end { Ok(Some((start, end))) } else { Err(()) }
}

fn not_satisfiable(size: u64) -> Response {
    let mut response = Response::new(Body::from("the range lies outside the file\n"));
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    response
}

/// A block and which of its bytes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slice {
    block: BlockRef,
    from: usize,
    to: usize,
}

fn slices(blocks: &[BlockRef], start: u64, end: u64) -> Vec<Slice> {
    let mut at = 0;
    let mut slices = Vec::new();
    for block in blocks {
        let next = at + u64::from(block.length);
        let (from, to) = (start.max(at), end.min(next));
        if from < to {
            // Both lie within one block.
            slices.push(Slice { block: *block, from: (from - at) as usize, to: (to - at) as usize });
        }
        at = next;
    }
    slices
}

/// The body; its first block is fetched before the answer begins, so that a file that cannot be read is an error.
async fn body(
    app: &Arc<App>,
    account: AccountId,
    blocks: &[BlockRef],
    start: u64,
    end: u64,
) -> Result<Body, ApiFailure> {
    let mut pieces = Box::pin(pieces(Arc::clone(app), account, slices(blocks, start, end)));
    let Ok(place) = Arc::clone(&app.download_places).acquire_owned().await else {
        return Err(ApiFailure::Unavailable("the server stops".to_owned()));
    };
    let Some(first) = pieces.next().await else { return Ok(Body::empty()) };
    let first = first?;
    let body = stream::once(async { Ok(first) }).chain(pieces).inspect(move |_| {
        // The place is given back when the body has been read, or dropped.
        let _ = &place;
    });
    Ok(Body::from_stream(body))
}

fn pieces(
    app: Arc<App>,
    account: AccountId,
    slices: Vec<Slice>,
) -> impl Stream<Item = Result<Bytes, CallError>> + Send {
    let fetch = move |slice: Slice| {
        let app = Arc::clone(&app);
        async move {
            let known = KnownBlock { hash: slice.block.hash, length: slice.block.length };
            let url = app.signer.block(Method::Get, account, known);
            let block = app.signer.client.get(&url, &known.hash).await?;
            if block.len() != known.length as usize {
                let detail = format!("block {} has {} bytes, not {}", known.hash, block.len(), known.length);
                return Err(CallError::Malformed { url, detail });
            }
            app.metrics.bytes_out.inc_by((slice.to - slice.from) as u64);
            Ok(block.slice(slice.from..slice.to))
        }
    };
    stream::iter(slices).map(fetch).buffered(AHEAD)
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::BlockHash;
    use holdfast_metadata_model::BlockRef;
    use http::{HeaderMap, HeaderValue};

    use super::{range, slices};

    #[test]
    fn ranges_of_bytes() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("range", HeaderValue::from_str(text).unwrap());
            range(&headers, 100)
        };
        assert_eq!(asked("bytes=0-9"), Ok(Some((0, 10))));
        assert_eq!(asked("bytes=90-"), Ok(Some((90, 100))));
        assert_eq!(asked("bytes=-10"), Ok(Some((90, 100))));
        assert_eq!(asked("bytes=-1000"), Ok(Some((0, 100))));
        assert_eq!(asked("bytes=50-1000"), Ok(Some((50, 100))));
        assert_eq!(asked("bytes=100-"), Err(()));
        assert_eq!(asked("bytes=-0"), Err(()));
        for whole in ["bytes=9-1", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b", "bytes=-"] {
            assert_eq!(asked(whole), Ok(None), "{whole}");
        }
    }

    #[test]
    fn only_the_blocks_of_a_range_are_fetched() {
        let blocks: Vec<_> =
            (0..4).map(|n| BlockRef { hash: BlockHash([n; 32]), length: if n == 3 { 5 } else { 10 } }).collect();
        let cut = |start, end| {
            slices(&blocks, start, end).iter().map(|s| (s.block.hash.0[0], s.from, s.to)).collect::<Vec<_>>()
        };
        assert_eq!(cut(0, 35), [(0, 0, 10), (1, 0, 10), (2, 0, 10), (3, 0, 5)]);
        assert_eq!(cut(15, 31), [(1, 5, 10), (2, 0, 10), (3, 0, 1)]);
        assert_eq!(cut(20, 21), [(2, 0, 1)]);
        assert_eq!(cut(0, 0), []);
    }
}
