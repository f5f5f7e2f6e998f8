//! How far a rebuild is. It outlives the terms that it runs in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_libs_types::{NodeId, VolumeId};
use holdfast_volume_manager_client::{NotRecovered, RebuildState, RebuildStatus};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::volume::Ended;

/// Most volumes that are told one by one.
const MOST_TOLD: usize = 1000;

/// The rebuild, shared by all terms of this process.
#[derive(Debug, Default)]
pub(crate) struct Rebuild {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    status: RebuildStatus,
    asked: bool,
    /// Nodes that were up when it was asked for.
    expected: Vec<NodeId>,
    began: Option<Instant>,
    /// When the first volume was looked at.
    first: Option<Instant>,
    /// The catalog is whole; the term in which it is used so is still to begin.
    is_whole: bool,
}

impl Rebuild {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a rebuild with these nodes; false when one is under way.
    pub fn ask(&self, expected: Vec<NodeId>) -> bool {
        let mut inner = self.inner();
        if inner.status.state == RebuildState::Running {
            return false;
        }
        inner.status = RebuildStatus { state: RebuildState::Running, ..RebuildStatus::default() };
        (inner.expected, inner.began, inner.asked) = (expected, Some(Instant::now()), true);
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// The next term is to go on with it.
    pub fn ask_again(&self) {
        self.inner().asked = true;
        self.wake.notify_one();
    }

    /// Waits until it is asked for.
    pub async fn asked(&self) {
        while !std::mem::take(&mut self.inner().asked) {
            self.wake.notified().await;
        }
    }

    pub fn expected(&self) -> Vec<NodeId> {
        self.inner().expected.clone()
    }

    /// A try begins: it counts from the start.
    pub fn started(&self) {
        let mut inner = self.inner();
        inner.status = RebuildStatus { state: RebuildState::Running, ..RebuildStatus::default() };
        inner.first = None;
    }

    pub fn tell(&self, detail: impl Into<String>) {
        self.inner().status.detail = detail.into();
    }

    pub fn change(&self, change: impl FnOnce(&mut RebuildStatus)) {
        change(&mut self.inner().status);
    }

    /// A volume was looked at.
    pub fn ended(&self, volume: VolumeId, ended: Ended) {
        let mut inner = self.inner();
        inner.first.get_or_insert_with(Instant::now);
        let status = &mut inner.status;
        status.volumes_done += 1;
        match ended {
            Ended::TakenIn { was_known, sealed, records, is_short } => {
                status.taken_in += u64::from(!was_known);
                status.sealed += u64::from(sealed);
                status.records += records;
                status.short_of_replicas += u64::from(is_short);
            }
            Ended::Not(why) => {
                tracing::error!(%volume, why, "volume not recovered");
                status.not_recovered_total += 1;
                if status.not_recovered.len() < MOST_TOLD {
                    status.not_recovered.push(NotRecovered { volume, why });
                }
            }
            // It counts when it was looked at again.
            Ended::Later(_) => status.volumes_done -= 1,
        }
    }

    /// The catalog is whole. Under way until the next term has begun: this one still answers that it is lost.
    pub fn whole(&self) {
        self.inner().is_whole = true;
    }

    /// A term has begun.
    pub fn term_begun(&self) {
        if std::mem::take(&mut self.inner().is_whole) {
            self.end(RebuildState::Done, String::new());
        }
    }

    pub fn stopped(&self, why: String) {
        self.end(RebuildState::Stopped, why);
    }

    fn end(&self, state: RebuildState, detail: String) {
        let mut inner = self.inner();
        let seconds = inner.began.map_or(0, |began| began.elapsed().as_secs());
        (inner.status.state, inner.status.detail, inner.status.seconds) = (state, detail, seconds);
    }

    pub fn status(&self) -> RebuildStatus {
        let inner = self.inner();
        let mut status = inner.status.clone();
        if status.state == RebuildState::Running {
            status.seconds = inner.began.map_or(0, |began| began.elapsed().as_secs());
            let left = status.volumes.saturating_sub(status.volumes_done);
            let pace = |first: Instant| first.elapsed().as_secs_f64() / status.volumes_done.max(1) as f64;
            status.seconds_left = inner.first.map(|first| (pace(first) * left as f64) as u64);
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use holdfast_volume_manager_client::RebuildState;

    use super::Rebuild;

    #[test]
    fn a_rebuild_is_under_way_until_the_term_that_uses_what_it_made_has_begun() {
        let rebuild = Rebuild::default();
        assert!(rebuild.ask(Vec::new()));
        rebuild.started();
        rebuild.whole();
        assert_eq!(rebuild.status().state, RebuildState::Running);
        assert!(!rebuild.ask(Vec::new()), "the term that ends would not hear of it");
        rebuild.term_begun();
        assert_eq!(rebuild.status().state, RebuildState::Done);
        assert!(rebuild.ask(Vec::new()));
        rebuild.term_begun();
        assert_eq!(rebuild.status().state, RebuildState::Running, "that was the other one");
    }
}
