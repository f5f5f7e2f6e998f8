//! How many disks the cell's volumes can still lose.

/// How many more replicas a volume can lose and still be read: 0, 1 or 2.
pub fn can_lose(live_replicas: usize) -> u8 {
    match live_replicas {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    }
}

/// Volumes by what they can lose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HealthCounts {
    /// All volumes.
    pub total: u64,
    /// At place n: volumes that can lose n more replicas and no more.
    pub can_lose: [u64; 3],
    /// Volumes without a live replica; they are counted in `can_lose[0]` too.
    pub unreadable: u64,
}

impl HealthCounts {
    /// Counts one more volume, by its number of live replicas.
    pub fn note(&mut self, live_replicas: usize) {
        self.total += 1;
        self.can_lose[usize::from(can_lose(live_replicas))] += 1;
        self.unreadable += u64::from(live_replicas == 0);
    }
}

/// Counts volumes, each given by its number of live replicas.
pub fn health_counts(live_replicas: impl IntoIterator<Item = usize>) -> HealthCounts {
    let mut counts = HealthCounts::default();
    live_replicas.into_iter().for_each(|live| counts.note(live));
    counts
}
