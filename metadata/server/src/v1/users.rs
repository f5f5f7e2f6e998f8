//! Users, devices and tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use holdfast_libs_transport::{ApiError, Role};
use holdfast_metadata_client::{CreateUser, Login, LoginAnswer, Me, NamespaceId, code};
use holdfast_metadata_store::{NewUser, StoreError};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::Document;
use crate::app::{App, Device, store_error};

/// Longest user name, in bytes: it stands in the names of conflicted copies.
const MAX_USER_BYTES: usize = 64;
const MAX_PASSWORD_BYTES: usize = 1024;
const MAX_DEVICE_NAME_BYTES: usize = 256;

pub(super) async fn login(
    State(app): State<Arc<App>>,
    Document(login): Document<Login>,
) -> Result<Json<LoginAnswer>, ApiError> {
    if login.password.len() > MAX_PASSWORD_BYTES || login.device_name.len() > MAX_DEVICE_NAME_BYTES {
        return Err(ApiError::bad_request("a password has at most 1024 bytes, a device name at most 256"));
    }
    let linked =
        hashing(
            &app,
            move |app| async move { app.store.login(&login.user, &login.password, &login.device_name).await },
        )
        .await?;
    let Some(linked) = linked else {
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, code::UNAUTHORIZED, "wrong user name or password"));
    };
    Ok(Json(LoginAnswer {
        device: linked.actor.device,
        token: linked.token,
        account: linked.actor.account,
        namespace: NamespaceId(linked.actor.namespace.0),
    }))
}

pub(super) async fn me(Device(actor): Device) -> Json<Me> {
    let namespace = NamespaceId(actor.namespace.0);
    Json(Me { user: actor.user, account: actor.account, device: actor.device, namespace })
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Document(new): Document<CreateUser>,
) -> Result<Json<Value>, ApiError> {
    app.tokens.check(&headers, &[Role::Admin])?;
    let CreateUser { user, password } = new;
    let possible = holdfast_metadata_model::check_name(&user).is_ok()
        && user.len() <= MAX_USER_BYTES
        && !user.contains(char::is_control);
    if !possible {
        let message = "a user name has 1 to 64 bytes, no `/` and no control characters, and is not `.` or `..`";
        return Err(ApiError::bad_request(message));
    }
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(ApiError::bad_request("a password has 1 to 1024 bytes"));
    }
    let quota_bytes = app.quota_bytes;
    let name = user.clone();
    let account =
        hashing(&app, move |app| async move { app.store.create_user(NewUser { user, password, quota_bytes }).await })
            .await?;
    Ok(Json(json!({ "user": name, "account": account })))
}

/// Runs something that hashes a password away from the threads that serve, a few at a time.
async fn hashing<T, F, W>(app: &Arc<App>, work: W) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>>,
    W: FnOnce(Arc<App>) -> F + Send + 'static,
{
    let Ok(_place) = app.hashing.acquire().await else { return Err(ApiError::internal("the server stops")) };
    let inner = Arc::clone(app);
    let runtime = tokio::runtime::Handle::current();
    let done = tokio::task::spawn_blocking(move || runtime.block_on(work(inner))).await;
    let result = done.map_err(|error| ApiError::internal(error.to_string()))?;
    result.map_err(|error| match error {
        StoreError::UserTaken(_) => ApiError::bad_request(error.to_string()),
        error => store_error(error),
    })
}
