//! Wakes requests that wait for a namespace to change.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use holdfast_metadata_model::NamespaceId;
use tokio::sync::watch;

/// Who waits for what. Holds only namespaces that somebody waits for.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Mutex<HashMap<NamespaceId, watch::Sender<u64>>>);

impl Wakes {
    /// From now on no change of the namespace is missed: subscribe first, then look, then wait.
    pub fn subscribe(&self, namespace: NamespaceId) -> watch::Receiver<u64> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(namespace).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// The namespace has a new sequence.
    pub fn tell(&self, namespace: NamespaceId, sequence: u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.get(&namespace)
            && sender.send(sequence).is_err()
        {
            // Nobody waits any more.
            waiting.remove(&namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_metadata_model::NamespaceId;

    use super::Wakes;

    #[tokio::test]
    async fn a_change_after_the_subscription_is_seen_and_those_who_left_are_forgotten() {
        let wakes = Wakes::default();
        let mut waiting = wakes.subscribe(NamespaceId(1));
        wakes.tell(NamespaceId(2), 5);
        wakes.tell(NamespaceId(1), 7);
        waiting.changed().await.unwrap();
        assert_eq!(*waiting.borrow(), 7);
        drop(waiting);
        wakes.tell(NamespaceId(1), 8);
        assert!(wakes.0.lock().unwrap().is_empty());
    }
}
