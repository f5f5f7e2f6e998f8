//! What a client says of itself.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The answer to `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The folder.
    pub folder: String,
    /// The client's name.
    pub name: String,
    /// `idle`, `working`, `stopped` or `asking`. Idle means: nothing is known that is not done.
    pub state: String,
    /// Why it stopped, asks, or does not get on; empty otherwise.
    pub reason: String,
    /// How many things are not settled.
    pub pending: u64,
    /// Conflict copies made of this device's edits.
    pub conflicts: u64,
    /// How many names stay local.
    pub not_synced: u64,
    /// Which, and why; at most [`MAX_ENTRIES`].
    pub not_synced_entries: Vec<NotSynced>,
    /// Bytes of blocks delivered, in total over all starts.
    pub block_bytes_sent: u64,
    /// Bytes of blocks fetched, likewise.
    pub block_bytes_received: u64,
    /// Files and links brought to agreement, likewise.
    pub files_done: u64,
    /// Entries that both sides agree on.
    pub entries: u64,
}

/// Something that stays local.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotSynced {
    /// Its path below the folder.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Most entries listed in one answer; the number counts them all.
pub(crate) const MAX_ENTRIES: usize = 1000;

/// Counters that workers raise.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) conflicts: AtomicU64,
}

impl Meters {
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
