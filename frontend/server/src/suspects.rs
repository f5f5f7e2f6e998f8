//! Disks that have just failed this frontend, remembered for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holdfast_libs_types::DiskId;
use tokio::time::Instant;

/// Disk -> when it last failed us.
#[derive(Debug)]
pub(crate) struct Suspects {
    memory: Duration,
    seen: Mutex<BTreeMap<DiskId, Instant>>,
}

impl Suspects {
    /// Forgets a disk after `memory`.
    pub(crate) fn new(memory: Duration) -> Self {
        Self { memory, seen: Mutex::default() }
    }

    /// The disk has just failed us.
    pub(crate) fn note(&self, disk: DiskId) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(disk, Instant::now());
    }

    /// All disks that are remembered.
    pub(crate) fn all(&self) -> Vec<DiskId> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, when| when.elapsed() < self.memory);
        seen.keys().copied().collect()
    }

    /// Whether the disk is remembered.
    pub(crate) fn contains(&self, disk: DiskId) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&disk).is_some_and(|when| when.elapsed() < self.memory)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_libs_types::DiskId;

    use super::Suspects;

    #[tokio::test(start_paused = true)]
    async fn a_disk_is_forgotten_after_a_while() {
        let suspects = Suspects::new(Duration::from_secs(60));
        suspects.note(DiskId([1; 16]));
        assert!(suspects.contains(DiskId([1; 16])) && suspects.all() == [DiskId([1; 16])]);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(!suspects.contains(DiskId([1; 16])) && suspects.all().is_empty());
    }
}
