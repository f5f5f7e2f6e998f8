//! Why the daemon does not start.

use holdfast_libs_presign::KeysError;
use holdfast_libs_transport::tls::TlsError;

/// A reason to end the process. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A secret is not 32 bytes in hex.
    #[error("`{0}` must be 64 hex digits")]
    Secret(&'static str),
    /// The addresses of the volume managers cannot be right.
    #[error("`volume_manager`: {0}")]
    VolumeManager(String),
    /// The signing keys cannot be read.
    #[error("`signing_keys`: {0}")]
    SigningKeys(#[from] KeysError),
    /// Certificate, key or CA cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The configured address.
        listen: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// The catalog cannot be opened.
    #[error("catalog: {0}; are `catalog_dir` and `[catalog]` those of the volume manager?")]
    Catalog(String),
    /// The keyring of the cell does not open.
    #[error("{0}; is `master_key` that of the cell?")]
    MasterKey(String),
}
