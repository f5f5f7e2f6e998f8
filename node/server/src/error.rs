//! Why the daemon does not start.

use holdfast_libs_transport::tls::TlsError;

/// A reason to end the process. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The secret is not 32 bytes in hex.
    #[error("`cell_secret` must be 64 hex digits")]
    CellSecret,
    /// A key's value cannot be right.
    #[error("`{key}`: {detail}")]
    Key {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        detail: String,
    },
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
    /// The configuration names no disk.
    #[error("the configuration names no disk: add a `[[disks]]` section with a `path`, or a `profile`")]
    NoDisks,
    /// The profile cannot be used.
    #[error("`profile`: {0}")]
    Profile(#[from] holdfast_hw_profiles::HardwareError),
    /// Not one of the configured disks can be used.
    #[error("none of the configured disks can be used: {0}")]
    NoUsableDisk(String),
}
