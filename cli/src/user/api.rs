//! The calls of the HTTP API (v2) that the commands need.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_libs_transport::client::Body;
use holdfast_libs_transport::{CallError, HttpClient};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};

use crate::profile::Profile;

const DEADLINE: Duration = Duration::from_secs(300);

/// Largest answer that is not a file, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A client for the API.
pub struct Api {
    http: HttpClient,
    server: String,
}

impl Api {
    /// Speaks to the profile's server.
    pub fn new(profile: &Profile) -> anyhow::Result<Self> {
        Ok(Self { http: profile.http()?, server: profile.server.clone() })
    }

    /// A call with a JSON body and a JSON answer.
    pub async fn rpc(&self, route: &str, arguments: &Value) -> anyhow::Result<Value> {
        let body = Bytes::from(serde_json::to_vec(arguments)?);
        let request = Request::post(format!("{}/2/{route}", self.server)).header("content-type", "application/json");
        let answer = self.answer(route, arguments, request.body(Full::new(body))?).await?;
        serde_json::from_slice(&answer).with_context(|| format!("{route}: the answer is not JSON"))
    }

    /// A call that sends bytes; its arguments travel in a header.
    pub async fn send(&self, route: &str, arguments: &Value, body: Bytes) -> anyhow::Result<Value> {
        let request = Request::post(format!("{}/2/{route}", self.server))
            .header("dropbox-api-arg", ascii(arguments))
            .header("content-type", "application/octet-stream");
        let answer = self.answer(route, arguments, request.body(Full::new(body))?).await?;
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer)? })
    }

    /// A call that answers bytes: the metadata and the body, which streams.
    pub async fn fetch(&self, route: &str, arguments: &Value) -> anyhow::Result<(Value, Body)> {
        let request = Request::post(format!("{}/2/{route}", self.server)).header("dropbox-api-arg", ascii(arguments));
        let response = self.http.send(request.body(Full::default())?, DEADLINE).await?;
        if !response.status().is_success() {
            bail!(failure(route, arguments, response).await?);
        }
        let metadata = result_header(response.headers()).with_context(|| format!("{route}: no metadata came along"))?;
        Ok((metadata, response.into_body()))
    }

    /// All entries of a folder.
    pub async fn list_folder(&self, path: &str, recursive: bool) -> anyhow::Result<Vec<Value>> {
        let mut answer = self.rpc("files/list_folder", &json!({ "path": path, "recursive": recursive })).await?;
        let mut entries = Vec::new();
        loop {
            if let Some(page) = answer["entries"].as_array() {
                entries.extend_from_slice(page);
            }
            if answer["has_more"] != true {
                return Ok(entries);
            }
            answer = self.rpc("files/list_folder/continue", &json!({ "cursor": answer["cursor"] })).await?;
        }
    }

    async fn answer(&self, route: &str, arguments: &Value, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
        let response = self.http.send(request, DEADLINE).await?;
        if !response.status().is_success() {
            bail!(failure(route, arguments, response).await?);
        }
        collect(route, response).await
    }
}

async fn collect(route: &str, response: Response<Body>) -> anyhow::Result<Bytes> {
    let read = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    let read = read.map_err(|error| CallError::Unreachable { url: route.to_owned(), detail: error.to_string() })?;
    Ok(read.to_bytes())
}

/// The message of an error answer: `error_summary`, or the text that came.
async fn failure(route: &str, arguments: &Value, response: Response<Body>) -> anyhow::Result<String> {
    let status = response.status();
    let path =
        arguments["path"].as_str().or(arguments["commit"]["path"].as_str()).map_or(route, |path| path).to_owned();
    let body = collect(route, response).await?;
    let summary = serde_json::from_slice::<Value>(&body).ok().and_then(|document| {
        document["error_summary"].as_str().map(|summary| summary.trim_end_matches(['/', '.']).to_owned())
    });
    Ok(match summary.as_deref() {
        Some(summary) if summary.starts_with("path/not_found") => format!("{path}: not found on the server"),
        Some(summary) if summary.starts_with("invalid_access_token") => {
            "the server does not know this token; run `holdfast login` again".to_owned()
        }
        Some(summary) => format!("{path}: refused by the server: {summary} ({route})"),
        None => format!("{route}: {status}: {}", String::from_utf8_lossy(&body)),
    })
}

fn result_header(headers: &HeaderMap) -> Option<Value> {
    serde_json::from_slice(headers.get("dropbox-api-result")?.as_bytes()).ok()
}

/// JSON with every character outside printable ASCII escaped, as a header needs it.
fn ascii(value: &Value) -> String {
    let mut out = String::new();
    for c in value.to_string().chars() {
        if c.is_ascii() && c != '\x7f' {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn header_json_is_ascii() {
        assert_eq!(super::ascii(&json!({ "path": "/ä\u{1F600}" })), r#"{"path":"/\u00e4\ud83d\ude00"}"#);
    }
}
