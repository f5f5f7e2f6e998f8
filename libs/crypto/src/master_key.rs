//! The master key and the data keys it wraps.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use holdfast_libs_types::KeyId;

use crate::{CryptoError, DataKey};

/// Bytes of a wrapped key: nonce (12), ciphertext (32), tag (16).
const WRAPPED_BYTES: usize = 60;

/// A data key under the master key, as the catalog and the disks keep it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The data key's name.
    pub id: KeyId,
    /// Nonce, ciphertext and tag; 60 bytes.
    pub bytes: Vec<u8>,
}

/// The one key an operator keeps. Changing it rewraps data keys and rewrites no data.
pub struct MasterKey(LessSafeKey);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

impl MasterKey {
    /// Takes the key's 32 bytes.
    ///
    /// # Errors
    /// When the cipher library refuses the key.
    pub fn new(secret: &[u8; 32]) -> Result<Self, CryptoError> {
        let key = UnboundKey::new(&AES_256_GCM, secret).map_err(|_| CryptoError::KeyLength)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Makes a new data key and wraps it. It must be stored durably before it seals anything.
    ///
    /// # Errors
    /// [`CryptoError::Random`] without random bytes.
    pub fn generate(&self) -> Result<(DataKey, WrappedKey), CryptoError> {
        let id = KeyId(crate::random()?);
        let secret = crate::random::<32>()?;
        let nonce = crate::random::<12>()?;
        let mut sealed = secret.to_vec();
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(id.0), &mut sealed)
            .map_err(|_| CryptoError::Open)?;
        let bytes = [nonce.as_slice(), &sealed].concat();
        Ok((DataKey::new(id, &secret)?, WrappedKey { id, bytes }))
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`CryptoError::Open`] when it was wrapped by another master key or its bytes are damaged.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<DataKey, CryptoError> {
        if wrapped.bytes.len() != WRAPPED_BYTES {
            return Err(CryptoError::Open);
        }
        let (nonce, sealed) = wrapped.bytes.split_at(12);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| CryptoError::Open)?;
        let mut sealed = sealed.to_vec();
        let opened =
            self.0.open_in_place(nonce, Aad::from(wrapped.id.0), &mut sealed).map_err(|_| CryptoError::Open)?;
        let secret: &[u8; 32] = (&*opened).try_into().map_err(|_| CryptoError::Open)?;
        DataKey::new(wrapped.id, secret)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{BlockHash, KeyId};

    use super::MasterKey;
    use crate::open;

    #[test]
    fn an_unwrapped_key_opens_what_the_generated_one_sealed() {
        let master = MasterKey::new(&[9; 32]).unwrap();
        let (key, wrapped) = master.generate().unwrap();
        let hash = BlockHash::of(b"x");
        let sealed = key.seal(&hash, 1, 0, b"x").unwrap();
        let again = master.unwrap(&wrapped).unwrap();
        assert_eq!(open(&again, sealed.nonce, &hash, 1, 0, &sealed.payload).unwrap(), b"x");
    }

    #[test]
    fn a_key_of_another_master_or_another_name_does_not_unwrap() {
        let (_, mut wrapped) = MasterKey::new(&[9; 32]).unwrap().generate().unwrap();
        assert!(MasterKey::new(&[8; 32]).unwrap().unwrap(&wrapped).is_err());
        wrapped.id = KeyId([0; 16]);
        assert!(MasterKey::new(&[9; 32]).unwrap().unwrap(&wrapped).is_err());
    }
}
