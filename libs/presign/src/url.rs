//! URLs that grant one method on one block, or on one list of blocks.
//!
//! The query holds `a` account, `l` length limit in bytes, `e` expiry in Unix seconds, `k` key number and `s` tag in
//! hex. The tag is HMAC-SHA256 over
//! `"holdfast url v1\0"` | cell (16) | method u8 | subject kind u8 | subject digest (32) | account (16) |
//! length limit u64 | expiry u64 | key number u32, integers big-endian.
//!
//! A list of blocks is named by [`list_digest`], so that one short URL covers hundreds of small blocks.

use std::str::FromStr;

use holdfast_libs_types::{AccountId, BlockHash, CellId};

use crate::SigningKeys;

const DOMAIN: &[u8] = b"holdfast url v1\0";

/// What a URL lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Write.
    Put,
}

/// What a URL is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One block.
    Block(BlockHash),
    /// A list of blocks, by [`list_digest`].
    List(BlockHash),
}

/// What a signed URL says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// The cell that holds the blocks.
    pub cell: CellId,
    /// What may be done.
    pub method: Method,
    /// To which blocks.
    pub subject: Subject,
    /// By whom.
    pub account: AccountId,
    /// Most plaintext bytes that may pass.
    pub max_bytes: u64,
    /// Until when, Unix seconds.
    pub expires: u64,
}

/// Why a URL grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A parameter is missing or unreadable.
    #[error("the URL's parameter `{0}` is missing or malformed; ask for a new URL")]
    Malformed(&'static str),
    /// The time is over.
    #[error("the URL expired at {0} (Unix seconds); ask for a new one")]
    Expired(u64),
    /// Altered, or signed by a key that is not known here.
    #[error("the URL's signature does not match; it was altered or comes from another cell")]
    Signature,
}

impl Grant {
    /// Path and query of the signed URL, to stand behind the frontend's address.
    pub fn sign(&self, keys: &SigningKeys) -> String {
        let (number, tag) = keys.sign(|number| self.message(number));
        let path = match self.subject {
            Subject::Block(hash) => format!("/v1/blocks/{hash}"),
            Subject::List(digest) => match self.method {
                Method::Get => format!("/v1/block-lists/{digest}/get"),
                Method::Put => format!("/v1/block-lists/{digest}/put"),
            },
        };
        format!("{path}?a={}&l={}&e={}&k={number}&s={}", self.account, self.max_bytes, self.expires, hex::encode(tag))
    }

    /// Checks a request for `method` on `subject` whose query string is `query`, at `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn verify(
        keys: &SigningKeys,
        cell: CellId,
        method: Method,
        subject: Subject,
        query: &str,
        now: u64,
    ) -> Result<Self, UrlError> {
        let grant = Self {
            cell,
            method,
            subject,
            account: parameter(query, "a")?,
            max_bytes: parameter(query, "l")?,
            expires: parameter(query, "e")?,
        };
        let number: u32 = parameter(query, "k")?;
        let tag: String = parameter(query, "s")?;
        let tag = hex::decode(tag).map_err(|_| UrlError::Malformed("s"))?;
        if keys.verify(number, &grant.message(number), &tag) != Some(true) {
            return Err(UrlError::Signature);
        }
        if grant.expires < now {
            return Err(UrlError::Expired(grant.expires));
        }
        Ok(grant)
    }

    fn message(&self, number: u32) -> Vec<u8> {
        let (kind, digest) = match &self.subject {
            Subject::Block(hash) => (1, hash),
            Subject::List(digest) => (2, digest),
        };
        let method = match self.method {
            Method::Get => 1,
            Method::Put => 2,
        };
        let mut message = Vec::with_capacity(128);
        message.extend_from_slice(DOMAIN);
        message.extend_from_slice(self.cell.as_bytes());
        message.extend_from_slice(&[method, kind]);
        message.extend_from_slice(digest.as_bytes());
        message.extend_from_slice(self.account.as_bytes());
        message.extend_from_slice(&self.max_bytes.to_be_bytes());
        message.extend_from_slice(&self.expires.to_be_bytes());
        message.extend_from_slice(&number.to_be_bytes());
        message
    }
}

fn parameter<T: FromStr>(query: &str, name: &'static str) -> Result<T, UrlError> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.parse().ok())
        .ok_or(UrlError::Malformed(name))
}

/// Names a list of blocks: SHA-256 over their hashes in order.
pub fn list_digest<'a>(hashes: impl IntoIterator<Item = &'a BlockHash>) -> BlockHash {
    let mut all = Vec::new();
    for hash in hashes {
        all.extend_from_slice(hash.as_bytes());
    }
    BlockHash::of(&all)
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{AccountId, BlockHash, CellId};

    use super::{Grant, Method, Subject, UrlError};
    use crate::SigningKeys;

    const GRANT: Grant = Grant {
        cell: CellId([1; 16]),
        method: Method::Put,
        subject: Subject::Block(BlockHash([2; 32])),
        account: AccountId([3; 16]),
        max_bytes: 4096,
        expires: 1000,
    };

    fn keys() -> SigningKeys {
        SigningKeys::parse(&format!("7:{}", "ab".repeat(32))).unwrap()
    }

    fn check(query: &str, now: u64) -> Result<Grant, UrlError> {
        Grant::verify(&keys(), GRANT.cell, GRANT.method, GRANT.subject, query, now)
    }

    #[test]
    fn golden_bytes_of_what_is_signed() {
        let golden = format!(
            "{}{}0201{}{}000000000000100000000000000003e800000007",
            hex::encode("holdfast url v1\0"),
            "01".repeat(16),
            "02".repeat(32),
            "03".repeat(16)
        );
        assert_eq!(hex::encode(GRANT.message(7)), golden);
    }

    #[test]
    fn a_signed_url_grants_what_it_says_until_it_expires() {
        let url = GRANT.sign(&keys());
        let (path, query) = url.split_once('?').unwrap();
        assert_eq!(path, format!("/v1/blocks/{}", "02".repeat(32)));
        assert_eq!(check(query, 1000), Ok(GRANT));
        assert_eq!(check(query, 1001), Err(UrlError::Expired(1000)));
    }

    #[test]
    fn an_altered_url_grants_nothing() {
        let url = GRANT.sign(&keys());
        let (_, query) = url.split_once('?').unwrap();
        let longer = query.replace("l=4096", "l=4097");
        assert_eq!(check(&longer, 1000), Err(UrlError::Signature));
        let later = query.replace("e=1000", "e=2000");
        assert_eq!(check(&later, 1000), Err(UrlError::Signature));
        let other = Subject::Block(BlockHash([9; 32]));
        assert!(Grant::verify(&keys(), GRANT.cell, GRANT.method, other, query, 0).is_err());
        assert!(Grant::verify(&keys(), GRANT.cell, Method::Get, GRANT.subject, query, 0).is_err());
        assert_eq!(check("a=1", 0), Err(UrlError::Malformed("a")));
    }
}
