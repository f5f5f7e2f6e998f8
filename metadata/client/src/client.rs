//! Calls to the metadata tier.

use std::time::Duration;

use holdfast_libs_transport::{CallError, HttpClient};
use serde::Serialize;
use serde_json::{Value, json};

use crate::messages::{
    BlockRef, Changes, ChangesRequest, CommitAnswer, CommitRequest, CreateUser, DownloadPlan, Login, LoginAnswer, Me,
    UploadPlan,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// A client for one metadata server.
#[derive(Debug, Clone)]
pub struct MetadataClient {
    http: HttpClient,
    address: String,
}

impl MetadataClient {
    /// `address` is `https://HOST:PORT`; `http` carries a device's access token (or, for [`Self::create_user`], the
    /// operator's service token; for [`Self::login`], none).
    pub fn new(http: HttpClient, address: impl Into<String>) -> Self {
        Self { http, address: address.into() }
    }

    async fn post<Q: Serialize, A: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        question: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        self.http.post_json(&format!("{}{path}", self.address), question, deadline).await
    }

    /// Links a device.
    ///
    /// # Errors
    /// `unauthorized` for a wrong name or password.
    pub async fn login(&self, login: &Login) -> Result<LoginAnswer, CallError> {
        self.post("/v1/login", login, DEADLINE).await
    }

    /// Who the token belongs to.
    ///
    /// # Errors
    /// `unauthorized`.
    pub async fn me(&self) -> Result<Me, CallError> {
        self.http.get_json(&format!("{}/v1/me", self.address), DEADLINE).await
    }

    /// Makes a user (role admin). One that exists with the same password is left as it is.
    ///
    /// # Errors
    /// `forbidden`; `bad_request` for a name that is taken.
    pub async fn create_user(&self, user: &CreateUser) -> Result<Value, CallError> {
        self.post("/v1/admin/users", user, DEADLINE).await
    }

    /// Which blocks must be delivered, and where to. At most 10,000 blocks.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn upload(&self, blocks: &[BlockRef]) -> Result<UploadPlan, CallError> {
        self.post("/v1/blocks/upload", &json!({ "blocks": blocks }), DEADLINE).await
    }

    /// Where blocks can be fetched. At most 10,000 blocks.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn download(&self, blocks: &[BlockRef]) -> Result<DownloadPlan, CallError> {
        self.post("/v1/blocks/download", &json!({ "blocks": blocks }), DEADLINE).await
    }

    /// Commits a batch. After `Unreachable` or `Timeout` it must be repeated with the same op numbers.
    ///
    /// # Errors
    /// `forbidden`, `bad_request`.
    pub async fn commit(&self, request: &CommitRequest) -> Result<CommitAnswer, CallError> {
        self.post("/v1/commit", request, DEADLINE).await
    }

    /// What changed since a cursor; waits up to `wait_ms` for something.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn changes(&self, request: &ChangesRequest) -> Result<Changes, CallError> {
        self.post("/v1/changes", request, DEADLINE + Duration::from_millis(request.wait_ms)).await
    }
}
