//! The server and the frontends, behind a trait.

use std::path::Path;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_frontend_client::FrontendClient;
use holdfast_libs_transport::{CallError, HttpClient, tls};
use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{
    BlockRef, Changes, ChangesRequest, CommitAnswer, CommitRequest, DownloadPlan, Me, MetadataClient, UploadPlan,
};

use crate::error::EngineError;

/// An answer under way.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, CallError>>;

/// What the engine needs of the network. See the client crates for what the calls mean.
pub trait Network: Send + Sync {
    /// Whose token this is.
    fn me(&self) -> Answer<'_, Me>;
    /// What changed.
    fn changes(&self, request: ChangesRequest) -> Answer<'_, Changes>;
    /// Commits.
    fn commit<'a>(&'a self, request: &'a CommitRequest) -> Answer<'a, CommitAnswer>;
    /// Which blocks must be delivered, and where to.
    fn upload<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, UploadPlan>;
    /// Where blocks can be fetched.
    fn download<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, DownloadPlan>;
    /// Delivers a block; the answer is its receipt.
    fn put<'a>(&'a self, url: &'a str, block: Bytes) -> Answer<'a, String>;
    /// Delivers a list of blocks; the answer is their receipts, in order.
    fn put_list<'a>(&'a self, url: &'a str, blocks: Vec<(BlockHash, Bytes)>) -> Answer<'a, Vec<String>>;
    /// Fetches a block, its bytes compared with its name.
    fn get<'a>(&'a self, url: &'a str, hash: BlockHash) -> Answer<'a, Bytes>;
    /// Fetches a list of blocks, compared; none for one that is not readable now.
    fn get_list<'a>(&'a self, url: &'a str, hashes: &'a [BlockHash]) -> Answer<'a, Vec<Option<Bytes>>>;
}

/// The real network: HTTPS.
#[derive(Debug, Clone)]
pub struct HttpNetwork {
    metadata: MetadataClient,
    frontend: FrontendClient,
}

impl HttpNetwork {
    /// Talks to `server` with a device's token, trusting the authority in `ca`.
    ///
    /// # Errors
    /// `Tls`.
    pub fn new(server: &str, ca: &Path, token: &str) -> Result<Self, EngineError> {
        let http = HttpClient::new(&tls::client_config(ca)?, Some(token));
        let frontend = FrontendClient::new(&http);
        Ok(Self { metadata: MetadataClient::new(http, server.trim_end_matches('/')), frontend })
    }
}

impl Network for HttpNetwork {
    fn me(&self) -> Answer<'_, Me> {
        Box::pin(self.metadata.me())
    }

    fn changes(&self, request: ChangesRequest) -> Answer<'_, Changes> {
        Box::pin(async move { self.metadata.changes(&request).await })
    }

    fn commit<'a>(&'a self, request: &'a CommitRequest) -> Answer<'a, CommitAnswer> {
        Box::pin(self.metadata.commit(request))
    }

    fn upload<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, UploadPlan> {
        Box::pin(self.metadata.upload(blocks))
    }

    fn download<'a>(&'a self, blocks: &'a [BlockRef]) -> Answer<'a, DownloadPlan> {
        Box::pin(self.metadata.download(blocks))
    }

    fn put<'a>(&'a self, url: &'a str, block: Bytes) -> Answer<'a, String> {
        Box::pin(async move { Ok(self.frontend.put(url, block).await?.receipt) })
    }

    fn put_list<'a>(&'a self, url: &'a str, blocks: Vec<(BlockHash, Bytes)>) -> Answer<'a, Vec<String>> {
        Box::pin(async move { Ok(self.frontend.put_list(url, &blocks).await?.receipts) })
    }

    fn get<'a>(&'a self, url: &'a str, hash: BlockHash) -> Answer<'a, Bytes> {
        Box::pin(async move { self.frontend.get(url, &hash).await })
    }

    fn get_list<'a>(&'a self, url: &'a str, hashes: &'a [BlockHash]) -> Answer<'a, Vec<Option<Bytes>>> {
        Box::pin(self.frontend.get_list(url, hashes))
    }
}
