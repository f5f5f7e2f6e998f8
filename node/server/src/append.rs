//! Appends: the body goes from the socket into one aligned buffer, which the disk then owns.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::{MAX_BATCH_BYTES, VolumeId, WriteEpoch};
use holdfast_node_client::{Tail, code};
use holdfast_node_engine::AlignedBuf;
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Node;
use crate::disks::OpenDisk;
use crate::pace::Kind;
use crate::refusal::refusal;
use crate::routes::{bad_query, disk_and_volume};

/// A body that takes longer to arrive is given up, so that a stalled caller does not hold its buffer.
const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The query of an append.
#[derive(Debug, Deserialize)]
pub(crate) struct At {
    epoch: u64,
    offset: u64,
}

/// `PUT /v1/disks/D/volumes/V/append?epoch=&offset=`
pub(crate) async fn append(
    State(node): State<Arc<Node>>,
    path: Path<(String, String)>,
    at: Result<Query<At>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Json<Tail>, ApiError> {
    let length = content_length(&request);
    let body = request.into_body();
    let refused = match begin(&node, path, at, length) {
        Ok(Begun { disk, volume, at, buffer, _permits }) => {
            let batch = receive(body, buffer).await?;
            let bytes = batch.len();
            let append = disk.engine().append(volume, WriteEpoch(at.epoch), at.offset, batch);
            return Ok(Json(Tail { tail: disk.answer_foreground(Kind::Append, bytes, append).await? }));
        }
        Err(refused) => refused,
    };
    // The answer to a body that was not read may be lost with the connection; the caller should see it.
    if length.is_some_and(|length| length <= MAX_BATCH_BYTES) {
        discard(body).await;
    }
    Err(refused)
}

/// An append that may begin to receive its body.
struct Begun {
    disk: Arc<OpenDisk>,
    volume: VolumeId,
    at: At,
    buffer: AlignedBuf,
    /// Of the disk's share, and of the node's.
    _permits: [OwnedSemaphorePermit; 2],
}

/// Everything that can be decided before the body is read.
fn begin(
    node: &Node,
    path: Path<(String, String)>,
    at: Result<Query<At>, axum::extract::rejection::QueryRejection>,
    length: Option<usize>,
) -> Result<Begun, ApiError> {
    let (disk, volume) = disk_and_volume(node, &path)?;
    disk.admit()?;
    let Query(at) = at.map_err(|error| bad_query(&error))?;
    let length = length.ok_or_else(|| ApiError::bad_request("an append needs a Content-Length"))?;
    if length > MAX_BATCH_BYTES {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            code::INVALID_BATCH,
            format!("the batch has {length} bytes; a node takes at most {MAX_BATCH_BYTES}"),
        ));
    }
    let take = |of: &Arc<Semaphore>, who: &str| {
        let permits = u32::try_from(length).unwrap_or(u32::MAX);
        Arc::clone(of).try_acquire_many_owned(permits).map_err(|_| {
            let message = format!("{who} receives as many appends as it may");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::BUSY, message)
        })
    };
    let permits = [take(&disk.append_bytes, "the disk")?, take(&node.append_bytes, "the node")?];
    let buffer = disk.engine().buffer(length).map_err(|error| refusal(&error))?;
    Ok(Begun { disk, volume, at, buffer, _permits: permits })
}

fn content_length(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn receive(mut body: Body, mut buffer: AlignedBuf) -> Result<AlignedBuf, ApiError> {
    let fill = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::incomplete(format!("the body broke off: {error}")))?;
            if let Some(bytes) = frame.data_ref() {
                buffer.extend_from_slice(bytes).map_err(|error| ApiError::bad_request(error.to_string()))?;
            }
        }
        Ok(buffer)
    };
    tokio::time::timeout(BODY_DEADLINE, fill).await.unwrap_or_else(|_| {
        Err(ApiError::incomplete(format!("the body did not arrive within {} s", BODY_DEADLINE.as_secs())))
    })
}

/// Reads a body to its end without keeping it.
async fn discard(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // A caller that stalls here loses the answer, and nothing else.
    let _ = tokio::time::timeout(BODY_DEADLINE, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use holdfast_node_engine::AlignedBuf;

    use super::receive;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_or_stops_is_incomplete_and_not_a_wrong_request() {
        let begin = || stream::once(async { Ok(Bytes::from_static(b"ab")) });
        let broken = Body::from_stream(begin().chain(stream::once(async { Err(std::io::Error::other("gone")) })));
        let stopped = Body::from_stream(begin().chain(stream::pending()));
        for body in [broken, stopped] {
            let refused = receive(body, AlignedBuf::with_capacity(4096)).await.unwrap_err();
            assert_eq!((refused.status.as_u16(), refused.code.as_str()), (408, "incomplete"), "{refused}");
        }
    }
}
