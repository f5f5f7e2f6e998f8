//! The metadata tier's database: accounts, devices, namespaces, entries, revisions and journals in SQLite.
//!
//! SQL of the metadata tier stands here and nowhere else. One thread writes; commits that wait together share one
//! transaction and one flush (each in a savepoint of its own). Reads run on a few threads, each call on one snapshot.
//! What a change does is decided by `holdfast-metadata-model`; this crate carries it out.
//!
//! An answer is given only after the transaction is durable: WAL with `synchronous=FULL`, which is read back at open.

#![cfg_attr(test, allow(clippy::unwrap_used))]

// So that what integration tests share can be used in unit tests as well.
#[cfg(test)]
extern crate self as holdfast_metadata_store;

mod accounts;
mod commit;
mod files;
mod listing;
mod mutate;
mod namespace;
mod password;
mod paths;
mod possession;
mod reader;
mod revisions;
mod rows;
mod schema;
#[cfg(test)]
mod steps;
mod uploads;
mod view;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_libs_types::{AccountId, DeviceId};
use holdfast_metadata_model::{ContentError, NamespaceId, VersionVectorError};

pub use accounts::{Linked, NewUser};
pub use commit::{BatchItem, BatchParent, BatchWish, Commit, Committed, ItemAnswer, ItemOutcome};
pub use files::{FileAt, Usage};
pub use listing::{Changed, FolderPage, ListedItem, Page, PageRequest};
pub use mutate::{Relocation, Upload};
pub use paths::{LookupFailure, PathEntry, PathRef, WriteFailure};
pub use possession::KnownBlock;
pub use revisions::RevisionList;
pub use uploads::{SessionFailure, SessionState};

/// Whose token a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The account.
    pub account: AccountId,
    /// The person's name.
    pub user: String,
    /// The device the token belongs to.
    pub device: DeviceId,
    /// The account's root namespace.
    pub namespace: NamespaceId,
}

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error("metadata database: {0}")]
    Sql(#[from] rusqlite::Error),
    /// The file cannot be made or opened.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Written by a newer Holdfast.
    #[error("the metadata database has schema {found}; this program knows up to {known}: use the newer program")]
    NewerSchema {
        /// What the file says.
        found: u32,
        /// What this program knows.
        known: u32,
    },
    /// SQLite would not take a setting that durability depends on.
    #[error("SQLite did not accept {setting}: it answers `{answer}`")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What reading it back gave.
        answer: String,
    },
    /// A row holds what is never written.
    #[error("metadata database is damaged: {0}")]
    Damaged(String),
    /// Too many writes wait.
    #[error("too many changes wait to be written; repeat in a moment")]
    Busy,
    /// The store is closing.
    #[error("the metadata database is closing")]
    Closed,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The password could not be hashed.
    #[error("the password cannot be hashed: {0}")]
    Password(String),
    /// The name is taken by somebody with another password.
    #[error("the user name `{0}` is taken")]
    UserTaken(String),
}

impl From<ContentError> for StoreError {
    fn from(error: ContentError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<VersionVectorError> for StoreError {
    fn from(error: VersionVectorError) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl From<holdfast_libs_crypto::CryptoError> for StoreError {
    fn from(_: holdfast_libs_crypto::CryptoError) -> Self {
        Self::Random
    }
}

/// Told, on the writing thread, which namespace got which sequence, after that is durable. Must not block.
pub type OnCommit = Box<dyn Fn(NamespaceId, u64) + Send>;

/// The open database. Cheap to clone; the last clone closes it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Arc<writer::Writer>,
    readers: Arc<reader::Readers>,
    server_key: [u8; 32],
}

impl Store {
    /// Opens or makes `metadata.db` in `directory`.
    ///
    /// # Errors
    /// `File`, `NewerSchema`, `Setting`, `Sql`.
    pub fn open(directory: &Path, on_commit: OnCommit) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|source| StoreError::File { path: directory.to_owned(), source })?;
        let path = directory.join("metadata.db");
        let connection = schema::open_for_writing(&path)?;
        let server_key = schema::server_key(&connection)?;
        let readers = reader::Readers::start(&path)?;
        let writer = writer::Writer::start(connection, on_commit)?;
        Ok(Self { writer: Arc::new(writer), readers: Arc::new(readers), server_key })
    }

    /// A random key made with this database: it seals cursors, so that those of another database are none here.
    pub fn server_key(&self) -> &[u8; 32] {
        &self.server_key
    }
}

/// The server's clock, Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
