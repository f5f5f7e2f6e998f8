//! `/v1`: what sync clients and the user's commands use. The messages are those of `metadata/client`.

mod blocks;
mod changes;
mod commit;
mod users;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use axum::routing::{get, post};
use holdfast_libs_transport::ApiError;
use http::StatusCode;
use serde::de::DeserializeOwned;

use crate::app::App;

/// Largest request document: a commit of a thousand files with half a million blocks.
const MAX_DOCUMENT_BYTES: usize = 64 * 1024 * 1024;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/login", post(users::login))
        .route("/v1/me", get(users::me))
        .route("/v1/admin/users", post(users::create))
        .route("/v1/blocks/upload", post(blocks::upload))
        .route("/v1/blocks/download", post(blocks::download))
        .route("/v1/commit", post(commit::commit))
        .route("/v1/changes", post(changes::changes))
}

/// A JSON document in the request's body, whatever its content type.
struct Document<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Document<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = to_bytes(request.into_body(), MAX_DOCUMENT_BYTES).await.map_err(|_| {
            let message = "the document is longer than 64 MiB, or did not arrive whole; send smaller batches";
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        })?;
        serde_json::from_slice(&body)
            .map(Self)
            .map_err(|error| ApiError::bad_request(format!("the document is not understood: {error}")))
    }
}
