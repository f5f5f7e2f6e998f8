//! Why a sync client cannot run.

use std::path::PathBuf;

use holdfast_libs_transport::CallError;
use holdfast_libs_transport::tls::TlsError;

/// What ends [`crate::run`] other than a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file or folder that the client needs.
    #[error("{path}: {what}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// Another client runs on the folder or the state.
    #[error("{0}: another sync client is running here; stop it first")]
    Busy(PathBuf),
    /// The state file.
    #[error("{path}: the sync state cannot be used: {source}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The state belongs to something else, or is of a newer version.
    #[error("{path}: {detail}")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What does not fit and what to do.
        detail: String,
    },
    /// The certificate authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server refuses the device.
    #[error("the server refuses this device: {0}; link it anew with `holdfast login`")]
    Refused(#[source] Box<CallError>),
    /// The watcher.
    #[error("the folder cannot be watched: {0}")]
    Watch(#[source] std::io::Error),
}
