//! Bodies from the socket into memory, hashed on their way.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::BlockHash;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};

use crate::answers::too_large;
use crate::budget::{Budget, Held};

/// A sender that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// No body may take longer than this, however busily it trickles.
const WHOLE: Duration = Duration::from_secs(300);

/// So much of a refused body is read, so that its sender sees the answer and not a broken connection.
const DISCARD_BYTES: usize = 32 << 20;

/// A body, its SHA-256 when that was asked for, and its part of the budget.
pub(crate) struct Received {
    /// The bytes; nothing else shares their memory.
    pub(crate) bytes: Bytes,
    /// SHA-256 of them.
    pub(crate) hash: Option<BlockHash>,
    /// To be held while the bytes are in memory.
    pub(crate) held: Held,
}

/// What is known of a body before it is read.
fn announced(request: &Request) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body of at most `limit` bytes once the budget has room for it.
///
/// # Errors
/// `too_large`, `unavailable`, or `incomplete` when the body breaks off or comes late.
pub(crate) async fn receive(
    request: Request,
    limit: usize,
    budget: &Budget,
    hashed: bool,
) -> Result<Received, ApiError> {
    let announced = announced(&request);
    let body = request.into_body();
    if announced.is_some_and(|length| length > limit) {
        discard(body).await;
        return Err(too_large(format!("the body is longer than {limit} bytes")));
    }
    let held = match budget.take(announced.unwrap_or(limit)).await {
        Ok(held) => held,
        Err(refused) => {
            discard(body).await;
            return Err(refused);
        }
    };
    let reading = read(body, announced.unwrap_or(0), limit, hashed);
    let (bytes, hash) = tokio::time::timeout(WHOLE, reading).await.map_err(|_| too_slow())??;
    Ok(Received { bytes, hash, held })
}

async fn read(
    mut body: Body,
    expected: usize,
    limit: usize,
    hashed: bool,
) -> Result<(Bytes, Option<BlockHash>), ApiError> {
    let mut hasher = hashed.then(Sha256::new);
    let mut bytes = Vec::with_capacity(expected);
    while let Some(frame) = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| too_slow())? {
        let frame = frame.map_err(|error| ApiError::incomplete(format!("the body broke off: {error}")))?;
        let Some(part) = frame.data_ref() else { continue };
        if part.len() > limit - bytes.len() {
            discard(body).await;
            return Err(too_large(format!("the body is longer than {limit} bytes")));
        }
        bytes.extend_from_slice(part);
        if let Some(hasher) = &mut hasher {
            hasher.update(part);
        }
    }
    Ok((bytes.into(), hasher.map(|hasher| BlockHash(hasher.finalize().into()))))
}

fn too_slow() -> ApiError {
    ApiError::incomplete("the body did not arrive in time")
}

/// Refuses a request whose body was not looked at.
pub(crate) async fn refuse(request: Request, error: ApiError) -> ApiError {
    discard(request.into_body()).await;
    error
}

/// Reads a body, or the first part of a long one, without keeping it.
async fn discard(mut body: Body) {
    let rest = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > DISCARD_BYTES {
                break;
            }
        }
    };
    // A sender that stalls here loses the answer, and nothing else.
    let _ = tokio::time::timeout(SILENCE, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use bytes::Bytes;
    use futures_util::{StreamExt as _, stream};
    use holdfast_libs_types::BlockHash;

    use super::receive;
    use crate::budget::Budget;

    fn request(body: &'static [u8], announce: bool) -> Request {
        let mut builder = Request::builder();
        if announce {
            builder = builder.header("content-length", body.len());
        }
        builder.body(Body::from(body)).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_hashed_and_bounded_whether_or_not_it_says_its_length() {
        let budget = Budget::new(100, 0);
        for announce in [true, false] {
            let received = receive(request(b"abc", announce), 3, &budget, true).await.unwrap();
            assert_eq!((&received.bytes[..], received.hash), (&b"abc"[..], Some(BlockHash::of(b"abc"))));
            let refused = receive(request(b"abcd", announce), 3, &budget, true).await;
            assert_eq!(refused.err().map(|error| error.code), Some("too_large".to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_off_or_stops_is_incomplete_and_not_a_wrong_request() {
        let budget = Budget::new(100, 0);
        let begin = || stream::once(async { Ok(Bytes::from_static(b"ab")) });
        let broken = Body::from_stream(begin().chain(stream::once(async { Err(std::io::Error::other("gone")) })));
        let stopped = Body::from_stream(begin().chain(stream::pending()));
        for body in [broken, stopped] {
            let refused = receive(Request::new(body), 3, &budget, true).await.err().unwrap();
            assert_eq!((refused.status.as_u16(), refused.code.as_str()), (408, "incomplete"), "{refused}");
        }
    }
}
