//! Signed block URLs and receipts.
//!
//! Metadata signs URLs, the frontend verifies them; the frontend signs receipts, metadata verifies them. Both hold
//! the same [`SigningKeys`]. What is signed is laid out by hand and frozen by golden tests.
//!
//! A URL grants one method on one block (or one list of blocks) to one account until a moment. A receipt says that
//! an account delivered a block's bytes, so that a commit may name the block.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod keys;
mod receipt;
mod url;

pub use keys::{KeysError, SigningKeys};
pub use receipt::{Receipt, ReceiptError};
pub use url::{Grant, Method, Subject, UrlError, list_digest};
