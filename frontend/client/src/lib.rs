//! The frontend's protocol and the client that moves blocks with it. See `docs/protocols.md`, "Frontend".

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
pub mod frames;

pub use client::{FrontendClient, FrontendStatus, ListReceipts, PutAnswer, status};

/// Most blocks in one list.
pub const MAX_LIST_BLOCKS: usize = 1024;

/// Most plaintext bytes in one list (16 MiB).
pub const MAX_LIST_BYTES: usize = 16 * 1024 * 1024;

/// Error codes of the frontend, each with its HTTP status.
pub mod code {
    /// 403: a parameter of the URL is missing or malformed.
    pub const URL_MALFORMED: &str = "url_malformed";
    /// 403: the URL's time is over.
    pub const URL_EXPIRED: &str = "url_expired";
    /// 403: the URL was altered or is not of this cell.
    pub const URL_SIGNATURE: &str = "url_signature";
    /// 400: the body is not what its name says.
    pub const HASH_MISMATCH: &str = "hash_mismatch";
    /// 413: longer than a block, a list or the URL allows.
    pub const TOO_LARGE: &str = "too_large";
    /// 404: no such block.
    pub const NOT_FOUND: &str = "not_found";
    /// 502: the block is known, but no replica gave right bytes.
    pub const UNREADABLE: &str = "unreadable";
    /// 507: the cell has no room for another volume.
    pub const CELL_FULL: &str = "cell_full";
    /// 503: not now; repeat later.
    pub const UNAVAILABLE: &str = "unavailable";
}
