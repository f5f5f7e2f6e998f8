//! What can go wrong.

use std::path::PathBuf;

/// A failure of this crate, with what it takes to put it right.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// A file or folder cannot be read or written.
    #[error("{path}: {what}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A profile is wrong.
    #[error("{file}:{line}:{column}: {detail}")]
    Invalid {
        /// The file, or `NAME.toml (shipped)`.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong and, for a misspelt word, the nearest right one.
        detail: String,
    },
    /// No profile has that name.
    #[error("no profile `{name}`{nearest}; there are {known}")]
    UnknownProfile {
        /// The name that was asked for.
        name: String,
        /// ` (did you mean ...)`, or empty.
        nearest: String,
        /// Names of all profiles.
        known: String,
    },
    /// A bay has no light that can be switched.
    #[error("bay {bay}: {detail}")]
    Light {
        /// The bay.
        bay: String,
        /// Why, and what to do.
        detail: String,
    },
    /// No profile can be made from what is here.
    #[error("{0}")]
    NothingToWrite(String),
}
