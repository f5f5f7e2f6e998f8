//! A bound on the bytes of blocks in memory: who wants more than is left waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_libs_transport::ApiError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::answers::unavailable;

/// Who has waited so long is told to come back later.
const WAIT: Duration = Duration::from_secs(30);

/// A number of bytes that may be in memory at once.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    places: Arc<Semaphore>,
    total: u32,
}

/// Bytes taken from a [`Budget`] until dropped.
#[derive(Debug)]
pub(crate) struct Held(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl Budget {
    /// A budget of `bytes`, but of no less than `least`, so that the largest request can be served at all.
    pub(crate) fn new(bytes: usize, least: usize) -> Self {
        let total = u32::try_from(bytes.max(least)).unwrap_or(u32::MAX);
        Self { places: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for `bytes`.
    ///
    /// # Errors
    /// `unavailable` after a while.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Held, ApiError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        let waiting = Arc::clone(&self.places).acquire_many_owned(permits);
        match tokio::time::timeout(WAIT, waiting).await {
            Ok(Ok(permit)) => Ok(Held(permit)),
            _ => Err(unavailable("too many bytes are in flight; come back later")),
        }
    }
}

/// Bytes that give their part of the budget back once nobody needs them any more.
pub(crate) struct HeldBytes {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HeldBytes {
    /// `bytes`, holding `held` until the last reference to them is gone.
    pub(crate) fn tie(bytes: Bytes, held: Held) -> Bytes {
        Bytes::from_owner(Self { bytes, _held: held })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Budget, HeldBytes};

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_more_than_is_left_waits_until_it_comes_back() {
        let budget = Budget::new(10, 0);
        let first = budget.take(8).await.unwrap();
        assert_eq!(budget.take(3).await.unwrap_err().code, "unavailable");
        let bytes = HeldBytes::tie(Bytes::from_static(b"12345678"), first);
        let part = bytes.slice(2..3);
        drop(bytes);
        assert!(budget.take(3).await.is_err(), "a part still needs the whole");
        drop(part);
        assert!(budget.take(10).await.is_ok());
        assert!(budget.take(1 << 40).await.is_ok(), "never more than all of it");
    }
}
