//! The one shape of an error answer between daemons:
//! `{"error": {"code": "...", "message": "...", "detail": {...}}}`.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An error as it travels between daemons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A word that callers act on; the client crate of the daemon lists its codes.
    pub code: String,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// Values that belong to the code (`{"tail": 8192}`), or null.
    pub detail: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Document {
    error: Body,
}

#[derive(Serialize, Deserialize)]
struct Body {
    code: String,
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

impl ApiError {
    /// An error without details.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into(), detail: serde_json::Value::Null }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 408: the body broke off or came late. Nothing is wrong with what was asked; it may be asked again.
    pub fn incomplete(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "incomplete", message)
    }

    /// Why a body was not read whole: it is too long, or [`Self::incomplete`].
    pub fn unread(error: &BytesRejection) -> Self {
        match error.status() {
            StatusCode::BAD_REQUEST => Self::incomplete(error.body_text()),
            status => Self::new(status, "bad_request", error.body_text()),
        }
    }

    /// 500: something that should not happen did.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Reads an error answer; a body of another shape becomes code `unknown` with its first 200 characters.
    pub fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<Document>(body) {
            Ok(Document { error }) => Self { status, code: error.code, message: error.message, detail: error.detail },
            Err(_) => {
                let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
                Self::new(status, "unknown", format!("{status}: {text}"))
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Body { code: self.code, message: self.message, detail: self.detail };
        (self.status, Json(Document { error: body })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, Bytes};
    use axum::extract::{DefaultBodyLimit, FromRequest as _, Request};
    use http::StatusCode;

    use super::ApiError;

    #[tokio::test]
    async fn a_body_that_broke_off_is_incomplete_and_one_too_long_is_not() {
        let pieces = [Ok(Bytes::from_static(b"ab")), Err(std::io::Error::other("gone"))];
        let broken = Request::new(Body::from_stream(futures_util::stream::iter(pieces)));
        let refused = ApiError::unread(&Bytes::from_request(broken, &()).await.unwrap_err());
        assert_eq!((refused.status, refused.code.as_str()), (StatusCode::REQUEST_TIMEOUT, "incomplete"));
        let mut long = Request::new(Body::from("abc"));
        DefaultBodyLimit::apply(DefaultBodyLimit::max(2), &mut long);
        let refused = ApiError::unread(&Bytes::from_request(long, &()).await.unwrap_err());
        assert_eq!((refused.status, refused.code.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "bad_request"));
    }

    #[test]
    fn an_answer_that_is_no_document_keeps_its_text() {
        let error = ApiError::from_answer(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!((error.code.as_str(), error.message.as_str()), ("unknown", "502 Bad Gateway: <html>"));
    }

    #[test]
    fn a_document_reads_back() {
        let text = br#"{"error":{"code":"not_tail","message":"m","detail":{"tail":1}}}"#;
        let error = ApiError::from_answer(StatusCode::CONFLICT, text);
        assert_eq!(error.code, "not_tail");
        assert_eq!(error.detail["tail"], 1);
    }
}
