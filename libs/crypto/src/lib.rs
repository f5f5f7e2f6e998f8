//! Encryption at rest and message authentication, on top of aws-lc-rs.
//!
//! A data key seals at most [`MAX_SEALS`] records, each with a random 96-bit nonce (NIST SP 800-38D, 8.3, bounds
//! random nonces at 2^32 for one key). Data keys are kept wrapped by the master key. Associated data names the
//! plaintext (hash, length, flags, key), never its place, so that repair and compaction copy ciphertext unread.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod data_key;
mod mac;
mod master_key;

pub use data_key::{DataKey, MAX_SEALS, SealedRecord, open};
pub use mac::{MacKey, constant_time_eq};
pub use master_key::{MasterKey, WrappedKey};

/// What can go wrong with a key or a ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    /// The ciphertext, its associated data or the key is not the right one.
    #[error("decryption failed: the bytes or the key are not the right ones")]
    Open,
    /// A key is not 32 bytes.
    #[error("a key must be 64 hex digits (32 bytes)")]
    KeyLength,
    /// The data key has sealed as many records as it may.
    #[error("the data key has sealed {MAX_SEALS} records; take a new one")]
    Exhausted,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
}

/// Fills an array with random bytes from the operating system.
///
/// # Errors
/// [`CryptoError::Random`] when the system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CryptoError::Random)?;
    Ok(bytes)
}

/// Reads a 32-byte key from its 64 hex digits; white space around them is ignored.
///
/// # Errors
/// [`CryptoError::KeyLength`].
pub fn key_from_hex(text: &str) -> Result<[u8; 32], CryptoError> {
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key).map_err(|_| CryptoError::KeyLength)?;
    Ok(key)
}
