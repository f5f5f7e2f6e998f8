//! Where the replicas of a volume are, as the replication table says, remembered for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_libs_types::VolumeId;
use holdfast_volume_manager_catalog::CatalogError;
use holdfast_volume_manager_client::Replica;
use tokio::time::Instant;

use crate::index::Index;

/// Repair changes the list; a reader that finds nothing where the list says so looks again at once.
const MEMORY: Duration = Duration::from_secs(5);

/// Volumes remembered at once.
const MAX_VOLUMES: usize = 65_536;

/// The replicas of one volume.
pub(crate) type Replicas = Arc<[Replica]>;

/// The memory.
#[derive(Debug)]
pub(crate) struct Locations {
    index: Index,
    seen: Mutex<HashMap<VolumeId, (Replicas, Instant)>>,
}

impl Locations {
    pub(crate) fn new(index: Index) -> Self {
        Self { index, seen: Mutex::default() }
    }

    /// The replicas of `volume`; empty when the table does not know it. With `fresh` the memory is not asked.
    pub(crate) async fn of(&self, volume: VolumeId, fresh: bool) -> Result<Replicas, CatalogError> {
        if !fresh {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((replicas, when)) = seen.get(&volume)
                && when.elapsed() < MEMORY
            {
                return Ok(replicas.clone());
            }
        }
        let replicas: Replicas = self.index.locations(volume).await?.into();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_VOLUMES {
            seen.clear();
        }
        seen.insert(volume, (replicas.clone(), Instant::now()));
        Ok(replicas)
    }
}
