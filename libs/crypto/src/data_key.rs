//! The key of one frontend process start, and the records it seals.

use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use holdfast_libs_types::{BlockHash, KeyId};

use crate::CryptoError;

/// Records one data key may seal.
pub const MAX_SEALS: u32 = 1 << 31;

const TAG_BYTES: usize = 16;
const AAD_BYTES: usize = 32 + 4 + 1 + 16;

/// A block sealed under a data key.
#[derive(Debug)]
pub struct SealedRecord {
    /// The nonce it was sealed with.
    pub nonce: [u8; 12],
    /// Ciphertext and 16 bytes of tag.
    pub payload: Vec<u8>,
}

/// A data key, ready to seal and open.
pub struct DataKey {
    id: KeyId,
    key: LessSafeKey,
    seals: AtomicU32,
}

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKey({})", self.id)
    }
}

impl DataKey {
    /// Takes the key's 32 bytes.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] never happens for 32 bytes; the cipher library may still refuse.
    pub fn new(id: KeyId, secret: &[u8; 32]) -> Result<Self, CryptoError> {
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| CryptoError::KeyLength)?;
        Ok(Self { id, key: LessSafeKey::new(key), seals: AtomicU32::new(0) })
    }

    /// The key's name in the keyring.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts one block. `content` is its bytes, possibly compressed (then `flags` says so).
    ///
    /// # Errors
    /// [`CryptoError::Exhausted`] after [`MAX_SEALS`] records, [`CryptoError::Random`] without random bytes.
    pub fn seal(
        &self,
        hash: &BlockHash,
        plain_len: u32,
        flags: u8,
        content: &[u8],
    ) -> Result<SealedRecord, CryptoError> {
        if self.seals.fetch_add(1, Ordering::Relaxed) >= MAX_SEALS {
            self.seals.store(MAX_SEALS, Ordering::Relaxed);
            return Err(CryptoError::Exhausted);
        }
        let nonce = crate::random::<12>()?;
        let mut payload = Vec::with_capacity(content.len() + TAG_BYTES);
        payload.extend_from_slice(content);
        let aad = Aad::from(associated_data(hash, plain_len, flags, self.id));
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut payload)
            .map_err(|_| CryptoError::Open)?;
        Ok(SealedRecord { nonce, payload })
    }
}

/// Decrypts a record's payload.
///
/// # Errors
/// [`CryptoError::Open`] when anything is not what was sealed.
pub fn open(
    key: &DataKey,
    nonce: [u8; 12],
    hash: &BlockHash,
    plain_len: u32,
    flags: u8,
    payload: &[u8],
) -> Result<Vec<u8>, CryptoError> {
    let mut content = payload.to_vec();
    let aad = Aad::from(associated_data(hash, plain_len, flags, key.id));
    let len = key
        .key
        .open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut content)
        .map_err(|_| CryptoError::Open)?
        .len();
    content.truncate(len);
    Ok(content)
}

/// hash (32) | plain length, u32 little-endian (4) | flags (1) | key id (16).
fn associated_data(hash: &BlockHash, plain_len: u32, flags: u8, key: KeyId) -> [u8; AAD_BYTES] {
    let mut aad = [0; AAD_BYTES];
    aad[..32].copy_from_slice(hash.as_bytes());
    aad[32..36].copy_from_slice(&plain_len.to_le_bytes());
    aad[36] = flags;
    aad[37..].copy_from_slice(key.as_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{BlockHash, KeyId};

    use super::{DataKey, associated_data, open};

    #[test]
    fn golden_bytes_of_the_associated_data() {
        let aad = associated_data(&BlockHash([1; 32]), 0x0102_0304, 5, KeyId([6; 16]));
        assert_eq!(hex::encode(aad), format!("{}0403020105{}", "01".repeat(32), "06".repeat(16)));
    }

    #[test]
    fn a_sealed_block_opens_only_with_everything_unchanged() {
        let key = DataKey::new(KeyId([1; 16]), &[2; 32]).unwrap();
        let hash = BlockHash::of(b"plaintext");
        let sealed = key.seal(&hash, 9, 0, b"plaintext").unwrap();
        assert!(!sealed.payload.windows(9).any(|window| window == b"plaintext"));
        assert_eq!(open(&key, sealed.nonce, &hash, 9, 0, &sealed.payload).unwrap(), b"plaintext");
        assert!(open(&key, sealed.nonce, &hash, 8, 0, &sealed.payload).is_err());
        assert!(open(&key, sealed.nonce, &hash, 9, 1, &sealed.payload).is_err());
        assert!(open(&key, sealed.nonce, &BlockHash::of(b"x"), 9, 0, &sealed.payload).is_err());
        let other = DataKey::new(KeyId([1; 16]), &[3; 32]).unwrap();
        assert!(open(&other, sealed.nonce, &hash, 9, 0, &sealed.payload).is_err());
    }
}
