//! An HTTPS client with kept-alive connections, a deadline on every call and bounded answers.
//!
//! What carries a request is a [`Carrier`]: connections of this process, or the network of a simulation.

use std::sync::Arc;
use std::time::Duration;

/// The body of an answer.
pub use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// Largest JSON answer that is read, in bytes.
pub const MAX_JSON_BYTES: usize = 64 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a call gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The request did not reach its server, or the connection broke: the server may or may not have acted.
    #[error("{url}: cannot be reached: {detail}")]
    Unreachable {
        /// The address called.
        url: String,
        /// What the network said.
        detail: String,
    },
    /// No answer in time: the server may or may not have acted.
    #[error("{url}: no answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// The address called.
        url: String,
        /// The deadline.
        after: Duration,
    },
    /// The server refused, and says why.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The answer is not what the protocol promises.
    #[error("{url}: answer not understood: {detail}")]
    Malformed {
        /// The address called.
        url: String,
        /// What was wrong.
        detail: String,
    },
}

impl CallError {
    /// The error code, when the server gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Whether the server answered at all.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Api(_))
    }
}

/// Carries a request to the server that its address names, and the answer back.
pub trait Carrier: std::fmt::Debug + Send + Sync {
    /// Answers once the head of the answer is there; the body streams. The error says what the network said: the server may
    /// or may not have acted. Dropping the future gives the call up, and tells the server nothing.
    fn carry(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Body>, String>>;
}

/// Kept-alive connections over TLS.
#[derive(Debug)]
struct Connections(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Carrier for Connections {
    fn carry(&self, request: Request<Full<Bytes>>) -> BoxFuture<'static, Result<Response<Body>, String>> {
        let answer = self.0.request(request);
        Box::pin(async move {
            match answer.await {
                Ok(response) => Ok(response.map(Body::new)),
                Err(error) => Err(chain(&error)),
            }
        })
    }
}

/// The client. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct HttpClient {
    carrier: Arc<dyn Carrier>,
    token: Option<HeaderValue>,
}

impl HttpClient {
    /// A client with the given trust; `token` is sent as `Authorization: Bearer` with every call.
    pub fn new(tls: &Arc<ClientConfig>, token: Option<&str>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(tls))
            .https_only()
            .enable_http1()
            .wrap_connector(connector);
        let inner = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Self::over(Arc::new(Connections(inner)), token)
    }

    /// A client whose requests `carrier` carries.
    pub fn over(carrier: Arc<dyn Carrier>, token: Option<&str>) -> Self {
        Self { carrier, token: None }.with_token(token)
    }

    /// The same connections with another token.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        Self { carrier: Arc::clone(&self.carrier), token }
    }

    /// Sends a request and answers once the head of the answer is there; the body streams.
    ///
    /// # Errors
    /// `Unreachable` or `Timeout`; any HTTP status is a success here.
    pub async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        deadline: Duration,
    ) -> Result<Response<Body>, CallError> {
        if let Some(token) = &self.token {
            request.headers_mut().entry(AUTHORIZATION).or_insert_with(|| token.clone());
        }
        let url = short_url(request.uri());
        match tokio::time::timeout(deadline, self.carrier.carry(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(detail)) => Err(CallError::Unreachable { url, detail }),
            Err(_) => Err(CallError::Timeout { url, after: deadline }),
        }
    }

    /// Sends a request and reads the whole answer, at most `max_bytes` of it, all within `deadline`.
    ///
    /// # Errors
    /// A status of 400 and above becomes [`CallError::Api`].
    pub async fn call(
        &self,
        request: Request<Full<Bytes>>,
        max_bytes: usize,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let url = short_url(request.uri());
        let started = tokio::time::Instant::now();
        let response = self.send(request, deadline).await?;
        let status = response.status();
        let rest = deadline.saturating_sub(started.elapsed());
        let body = tokio::time::timeout(rest, Limited::new(response.into_body(), max_bytes).collect())
            .await
            .map_err(|_| CallError::Timeout { url: url.clone(), after: deadline })?
            .map_err(|error| CallError::Unreachable { url, detail: error.to_string() })?
            .to_bytes();
        if status.is_success() { Ok(body) } else { Err(ApiError::from_answer(status, &body).into()) }
    }

    /// POSTs a JSON document and reads a JSON answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn post_json<Q: Serialize + ?Sized, A: DeserializeOwned>(
        &self,
        url: &str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let malformed = |detail: String| CallError::Malformed { url: url.to_owned(), detail };
        let body = serde_json::to_vec(question).map_err(|error| malformed(error.to_string()))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| malformed(error.to_string()))?;
        let answer = self.call(request, MAX_JSON_BYTES, deadline).await?;
        serde_json::from_slice(&answer).map_err(|error| malformed(error.to_string()))
    }

    /// GETs a JSON document.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get_json<A: DeserializeOwned>(&self, url: &str, deadline: Duration) -> Result<A, CallError> {
        let answer = self.get(url, MAX_JSON_BYTES, deadline).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| CallError::Malformed { url: url.to_owned(), detail: error.to_string() })
    }

    /// GETs bytes, at most `max_bytes`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get(&self, url: &str, max_bytes: usize, deadline: Duration) -> Result<Bytes, CallError> {
        self.call(get(url)?, max_bytes, deadline).await
    }

    /// GETs bytes, at most `max_bytes`, and shows them to `see` as they come, in order. After an error it has seen some of them.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn get_pieces(
        &self,
        url: &str,
        max_bytes: usize,
        deadline: Duration,
        mut see: impl FnMut(&[u8]) + Send,
    ) -> Result<(), CallError> {
        let request = get(url)?;
        let url = short_url(request.uri());
        let broken = |detail: String| CallError::Unreachable { url: url.clone(), detail };
        let answer = async {
            let response = self.send(request, deadline).await?;
            let status = response.status();
            let mut body = Limited::new(response.into_body(), max_bytes);
            if !status.is_success() {
                let refusal = body.collect().await.map_err(|error| broken(error.to_string()))?;
                return Err(ApiError::from_answer(status, &refusal.to_bytes()).into());
            }
            while let Some(frame) = body.frame().await {
                if let Some(bytes) = frame.map_err(|error| broken(error.to_string()))?.data_ref() {
                    see(bytes);
                }
            }
            Ok(())
        };
        let late = |_| CallError::Timeout { url: url.clone(), after: deadline };
        tokio::time::timeout(deadline, answer).await.map_err(late)?
    }

    /// Sends `body` with `method` as `application/octet-stream`, reads at most `max_bytes` of answer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn send_bytes(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
        max_bytes: usize,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(Full::new(body))
            .map_err(|error| CallError::Malformed { url: url.to_owned(), detail: error.to_string() })?;
        self.call(request, max_bytes, deadline).await
    }
}

fn get(url: &str) -> Result<Request<Full<Bytes>>, CallError> {
    Request::builder()
        .uri(url)
        .body(Full::default())
        .map_err(|error| CallError::Malformed { url: url.to_owned(), detail: error.to_string() })
}

/// The URL without its query, which may hold a signature that belongs in no log.
fn short_url(uri: &http::Uri) -> String {
    let host = uri.authority().map_or("", http::uri::Authority::as_str);
    format!("https://{host}{}", uri.path())
}

/// An error with all its causes, outermost first.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
