//! Why the daemon cannot start or go on, and how catalog errors are answered.

use std::path::PathBuf;
use std::time::Duration;

use holdfast_libs_transport::ApiError;
use holdfast_libs_transport::tls::TlsError;
use holdfast_volume_manager_catalog::{CatalogError, Term};
use holdfast_volume_manager_client::code;
use http::StatusCode;

/// Why the daemon cannot start, or did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {listen}: {source}; check `listen`")]
    Listen {
        /// The configured address.
        listen: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The secret is no secret.
    #[error("`cell_secret` must be 64 hex digits (32 bytes)")]
    CellSecret,
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The data folder cannot be made.
    #[error("{path}: cannot be made: {source}; check `data_dir`")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Another volume manager was started on this catalog.
    #[error(
        "another volume manager leads this cell since (term {current}, this one had {given}); start it again to stand by"
    )]
    Deposed {
        /// This one's term.
        given: Term,
        /// The term in the catalog.
        current: Term,
    },
    /// The lease could not be renewed.
    #[error("the leader's lease could not be renewed for {ttl:?}: {why}; start it again when the catalog answers")]
    LeaseLost {
        /// How long a lease runs.
        ttl: Duration,
        /// What became of the last try.
        why: String,
    },
    /// The loop that seals and repairs ended when it should not.
    #[error("the volume manager's worker ended: {0}; this is a bug, start it again")]
    Worker(String),
}

/// A catalog error as an answer to a caller.
pub(crate) fn answer(error: &CatalogError) -> ApiError {
    let message = error.to_string();
    match error {
        CatalogError::StaleTerm { .. } => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::NOT_LEADER, message),
        CatalogError::UnknownVolume(_) => ApiError::new(StatusCode::NOT_FOUND, code::UNKNOWN_VOLUME, message),
        CatalogError::WrongState { .. } | CatalogError::WrongEpoch { .. } => {
            ApiError::new(StatusCode::CONFLICT, "wrong_state", message)
        }
        CatalogError::DiskInUse { .. } | CatalogError::NodeInUse { .. } => {
            ApiError::new(StatusCode::CONFLICT, code::UNSAFE, message)
        }
        CatalogError::TooLarge { .. } => ApiError::bad_request(message),
        CatalogError::Busy => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message),
        _ => {
            tracing::error!(%error, "catalog");
            ApiError::internal(message)
        }
    }
}
