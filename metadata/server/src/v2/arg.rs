//! A call's argument: the body of an RPC, or the `Dropbox-API-Arg` header (or `arg` parameter) beside a body of bytes.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use holdfast_libs_transport::auth::bearer;
use holdfast_metadata_store::Actor;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::{ApiFailure, JSON};
use crate::app::App;

const MAX_ARG_BYTES: usize = 1024 * 1024;

/// The account and device that call. 401 without a token that counts.
pub(super) struct Caller(pub Actor);

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiFailure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiFailure> {
        let Some(token) = bearer(&parts.headers) else { return Err(ApiFailure::Unauthorized) };
        app.store.authenticate(token).await?.map(Self).ok_or(ApiFailure::Unauthorized)
    }
}

/// The argument of an RPC.
pub(super) struct Rpc<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Rpc<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiFailure> {
        let function = function(request.uri().path());
        let body = to_bytes(request.into_body(), MAX_ARG_BYTES)
            .await
            .map_err(|error| bad(&function, "request body", &error.to_string()))?;
        serde_json::from_slice(&body).map(Self).map_err(|error| bad(&function, "request body", &error.to_string()))
    }
}

/// An RPC without an argument: the body is empty or `null`.
pub(super) struct NoArg;

impl FromRequest<Arc<App>> for NoArg {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiFailure> {
        let function = function(request.uri().path());
        let body = to_bytes(request.into_body(), 64).await;
        match body.as_deref().map(<[u8]>::trim_ascii) {
            Ok(b"" | b"null") => Ok(Self),
            _ => Err(bad(&function, "request body", "expected null, as the function takes no argument")),
        }
    }
}

/// An argument in the header, and the body.
pub(super) struct Content<T> {
    pub arg: T,
    pub parts: Parts,
    pub body: Body,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Content<T> {
    type Rejection = ApiFailure;

    async fn from_request(request: Request, _: &Arc<App>) -> Result<Self, ApiFailure> {
        let (parts, body) = request.into_parts();
        let function = function(parts.uri.path());
        let text = match parts.headers.get("dropbox-api-arg") {
            Some(header) => header.as_bytes().to_vec(),
            None => query(&parts, "arg").ok_or_else(|| {
                let message = "must provide HTTP header \"Dropbox-API-Arg\" or URL parameter \"arg\"";
                bad(&function, "argument", message)
            })?,
        };
        let arg = serde_json::from_slice(&text)
            .map_err(|error| bad(&function, "HTTP header \"Dropbox-API-Arg\"", &error.to_string()))?;
        Ok(Self { arg, parts, body })
    }
}

fn query(parts: &Parts, name: &str) -> Option<Vec<u8>> {
    let pairs = parts.uri.query()?.split('&');
    let value = pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1;
    Some(percent_decode_str(&value.replace('+', " ")).collect())
}

fn function(path: &str) -> String {
    path.trim_start_matches("/2/").to_owned()
}

fn bad(function: &str, place: &str, message: &str) -> ApiFailure {
    ApiFailure::BadInput(format!("Error in call to API function \"{function}\": {place}: {message}"))
}

/// A successful answer.
pub(super) struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => {
                let mut response = Response::new(Body::from(text));
                response.headers_mut().insert(CONTENT_TYPE, JSON);
                response
            }
            Err(error) => ApiFailure::Internal(error.to_string()).into_response(),
        }
    }
}

/// JSON that can stand in a header: everything beyond printable ASCII as `\uXXXX`.
pub(super) fn header_json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        if matches!(character, ' '..='~') {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::header_json;

    #[test]
    fn header_json_is_ascii_and_reads_back() {
        let value = json!({ "name": "naïve \u{1f600}\u{7f}\n\"" });
        let text = header_json(&value);
        assert_eq!(text, r#"{"name":"na\u00efve \ud83d\ude00\u007f\n\""}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
