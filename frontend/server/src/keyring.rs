//! Data keys: the one of this start, which seals, and all earlier ones, which only open.
//!
//! A key is durable in the catalog, wrapped by the master key, before it seals anything: otherwise a crash could
//! leave records behind that nobody can open.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use holdfast_libs_crypto::{CryptoError, DataKey, MasterKey, SealedRecord};
use holdfast_libs_types::{BlockHash, KeyId};
use holdfast_volume_manager_catalog::CatalogError;

use crate::index::Index;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The catalog cannot be read or written.
    #[error("keyring: {0}")]
    Index(#[from] CatalogError),
    /// The cipher library refuses, or there are no random bytes.
    #[error("keyring: {0}")]
    Crypto(#[from] CryptoError),
}

/// The keys.
#[derive(Debug)]
pub(crate) struct Keyring {
    master: MasterKey,
    index: Index,
    known: RwLock<HashMap<KeyId, Arc<DataKey>>>,
    /// Made at the first put.
    own: tokio::sync::Mutex<Option<Arc<DataKey>>>,
}

impl Keyring {
    pub(crate) fn new(master: MasterKey, index: Index) -> Self {
        Self { master, index, known: RwLock::default(), own: tokio::sync::Mutex::new(None) }
    }

    /// The key that seals. Makes and stores it when there is none yet.
    pub(crate) async fn sealing(&self) -> Result<Arc<DataKey>, KeyError> {
        let mut own = self.own.lock().await;
        if let Some(key) = &*own {
            return Ok(key.clone());
        }
        let (key, wrapped) = self.master.generate()?;
        self.index.put_key(&wrapped).await?;
        let key = Arc::new(key);
        tracing::info!(key = %key.id(), "new data key");
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(key.id(), key.clone());
        *own = Some(key.clone());
        Ok(key)
    }

    /// Takes an exhausted key out of use; the next call of `sealing` makes another.
    pub(crate) async fn retire(&self, key: KeyId) {
        let mut own = self.own.lock().await;
        if own.as_ref().is_some_and(|own| own.id() == key) {
            *own = None;
        }
    }

    /// The key of that id; reads the catalog when it is a new one. `None` when the cell has no such key.
    pub(crate) async fn opening(&self, id: KeyId) -> Result<Option<Arc<DataKey>>, KeyError> {
        if let Some(key) = self.find(id) {
            return Ok(Some(key));
        }
        self.load().await?;
        Ok(self.find(id))
    }

    fn find(&self, id: KeyId) -> Option<Arc<DataKey>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Reads all keys of the catalog.
    ///
    /// # Errors
    /// Also when a key does not unwrap: then the master key is not that of the cell.
    pub(crate) async fn load(&self) -> Result<(), KeyError> {
        for wrapped in self.index.keys().await? {
            if self.find(wrapped.id).is_some() {
                continue;
            }
            let key = Arc::new(self.master.unwrap(&wrapped)?);
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(wrapped.id, key);
        }
        Ok(())
    }
}

/// Seals a block; `None` when the key has sealed as many as it may.
pub(crate) fn seal(key: &DataKey, hash: &BlockHash, block: &[u8]) -> Result<Option<SealedRecord>, CryptoError> {
    match key.seal(hash, block.len() as u32, 0, block) {
        Ok(sealed) => Ok(Some(sealed)),
        Err(CryptoError::Exhausted) => Ok(None),
        Err(error) => Err(error),
    }
}
