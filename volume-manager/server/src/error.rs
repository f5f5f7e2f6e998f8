//! Why the daemon cannot start, and how catalog errors are answered.

use std::path::PathBuf;

use holdfast_libs_transport::ApiError;
use holdfast_libs_transport::tls::TlsError;
use holdfast_volume_manager_catalog::CatalogError;
use holdfast_volume_manager_client::code;
use http::StatusCode;

/// Why the daemon cannot start.
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
        _ => {
            tracing::error!(%error, "catalog");
            ApiError::internal(message)
        }
    }
}
