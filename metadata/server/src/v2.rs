//! An API that is compatible with Dropbox's v2, so that its SDKs work by pointing them here: same routes, shapes and error
//! tags. Its api, content and notify hosts are all this one origin.

mod arg;
mod body;
mod download;
mod error;
pub mod fuzz;
mod list;
mod longpoll;
mod metadata;
mod mutate;
mod path;
mod revisions;
mod session;
mod upload;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::HeaderName;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use http::HeaderValue;

use crate::app::App;
use error::ApiFailure;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-dropbox-request-id");

pub(crate) fn routes(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/2/users/get_current_account", post(users::current_account))
        .route("/2/users/get_space_usage", post(users::space_usage))
        .route("/2/files/list_folder", post(list::list_folder))
        .route("/2/files/list_folder/continue", post(list::list_continue))
        .route("/2/files/list_folder/get_latest_cursor", post(list::latest_cursor))
        .route("/2/files/list_folder/longpoll", post(longpoll::longpoll))
        .route("/2/files/get_metadata", post(metadata::get_metadata))
        .route("/2/files/upload", post(upload::upload))
        .route("/2/files/upload_session/start", post(session::start))
        .route("/2/files/upload_session/append_v2", post(session::append))
        .route("/2/files/upload_session/finish", post(session::finish))
        .route("/2/files/download", get(download::download).post(download::download))
        .route("/2/files/create_folder_v2", post(mutate::create_folder))
        .route("/2/files/delete_v2", post(mutate::delete))
        .route("/2/files/move_v2", post(mutate::relocate_move))
        .route("/2/files/copy_v2", post(mutate::relocate_copy))
        .route("/2/files/list_revisions", post(revisions::list_revisions))
        .route("/2/files/restore", post(revisions::restore))
        .route("/2/{*unknown}", any(unknown))
        .layer(from_fn_with_state(Arc::clone(app), observe))
}

async fn unknown(request: Request) -> ApiFailure {
    let function = request.uri().path().trim_start_matches("/2/").to_owned();
    ApiFailure::BadInput(format!("Unknown API function: \"{function}\""))
}

/// Counts the request and gives it the id that SDKs show with errors.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    app.metrics.v2_requests.inc();
    let mut response = next.run(request).await;
    let id = hex::encode(rand::random::<[u8; 16]>());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), id);
    }
    response
}
