//! Errors as API v2 tells them: 409 with a tagged union, 400 as plain text, 401 as JSON.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use holdfast_libs_transport::{ApiError, CallError};
use holdfast_metadata_store::{LookupFailure, SessionFailure, StoreError, WriteFailure};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Exactly this, without a charset: the official SDKs compare the whole header.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiFailure {
    /// 400: the caller's mistake.
    BadInput(String),
    /// 401.
    Unauthorized,
    /// 409: the route's own error union.
    Route(Value),
    /// 429 or 503: later.
    Unavailable(String),
    /// 500.
    Internal(String),
}

impl ApiFailure {
    /// A route error of one tag without a value.
    pub fn tag(tag: &str) -> Self {
        Self::Route(json!({ ".tag": tag }))
    }

    /// A route error whose tag holds another union.
    pub fn nested(tag: &str, inner: Value) -> Self {
        Self::Route(json!({ ".tag": tag, tag: inner }))
    }
}

impl From<StoreError> for ApiFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy | StoreError::Closed => Self::Unavailable(error.to_string()),
            error => {
                tracing::error!(%error, "a request failed in the database");
                Self::Internal(error.to_string())
            }
        }
    }
}

/// The frontend's failures; `cell_full` is told by the route.
impl From<CallError> for ApiFailure {
    fn from(error: CallError) -> Self {
        tracing::warn!(%error, "the frontend did not move a block");
        match error {
            CallError::Api(ApiError { status, message, .. }) if status == StatusCode::BAD_GATEWAY => {
                Self::Internal(format!("a block of the file cannot be read now: {message}"))
            }
            error => Self::Unavailable(format!("blocks cannot be moved now: {error}")),
        }
    }
}

/// The tags from the outside in, as `error_summary` shows them.
fn summary(error: &Value) -> String {
    let mut summary = String::new();
    let mut at = error;
    while let Some(tag) = at.get(".tag").and_then(Value::as_str) {
        summary.push_str(tag);
        summary.push('/');
        at = match at.get(tag) {
            Some(inner) => inner,
            // `upload` tells the reason beside the session's id.
            None => match at.get("reason") {
                Some(reason) => reason,
                None => break,
            },
        };
    }
    summary.push_str("..");
    summary
}

impl IntoResponse for ApiFailure {
    fn into_response(self) -> Response {
        let (status, kind, text) = match self {
            Self::BadInput(message) => (StatusCode::BAD_REQUEST, TEXT, message),
            Self::Unauthorized => {
                let error = json!({ ".tag": "invalid_access_token" });
                let document = json!({ "error_summary": summary(&error), "error": error });
                (StatusCode::UNAUTHORIZED, JSON, document.to_string())
            }
            Self::Route(error) => {
                let document = json!({ "error_summary": summary(&error), "error": error });
                (StatusCode::CONFLICT, JSON, document.to_string())
            }
            Self::Unavailable(message) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, message),
            Self::Internal(message) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, message),
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

/// A lookup that failed, as its union.
pub(crate) fn lookup(failure: LookupFailure) -> Value {
    let tag = match failure {
        LookupFailure::NotFound => "not_found",
        LookupFailure::NotFile => "not_file",
        LookupFailure::NotFolder => "not_folder",
    };
    json!({ ".tag": tag })
}

/// A write that failed, as its union.
pub(crate) fn write(failure: WriteFailure) -> Value {
    let conflict = |tag: &str| json!({ ".tag": "conflict", "conflict": { ".tag": tag } });
    match failure {
        WriteFailure::ConflictFile => conflict("file"),
        WriteFailure::ConflictFolder => conflict("folder"),
        WriteFailure::ConflictFileAncestor => conflict("file_ancestor"),
        WriteFailure::InsufficientSpace => json!({ ".tag": "insufficient_space" }),
        WriteFailure::Malformed => json!({ ".tag": "malformed_path" }),
    }
}

/// A session that takes nothing, as its union.
pub(crate) fn session(failure: SessionFailure) -> Value {
    match failure {
        SessionFailure::NotFound => json!({ ".tag": "not_found" }),
        SessionFailure::Closed => json!({ ".tag": "closed" }),
        SessionFailure::IncorrectOffset { correct } => {
            json!({ ".tag": "incorrect_offset", "correct_offset": correct })
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_metadata_store::{LookupFailure, SessionFailure, WriteFailure};
    use serde_json::json;

    use super::{lookup, session, summary, write};

    #[test]
    fn summaries_show_the_tags_from_the_outside_in() {
        let path = |inner| json!({ ".tag": "path", "path": inner });
        assert_eq!(summary(&path(lookup(LookupFailure::NotFound))), "path/not_found/..");
        assert_eq!(summary(&path(write(WriteFailure::ConflictFolder))), "path/conflict/folder/..");
        let upload = json!({ ".tag": "path", "reason": write(WriteFailure::ConflictFile), "upload_session_id": "x" });
        assert_eq!(summary(&upload), "path/conflict/file/..");
        assert_eq!(summary(&session(SessionFailure::IncorrectOffset { correct: 3 })), "incorrect_offset/..");
    }
}
