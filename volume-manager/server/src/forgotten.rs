//! Disks that an operator took off the inventory while the catalog knew no volume.
//!
//! A disk that was registered before and is unknown to a catalog without volumes is a sign of a lost catalog. One that was forgotten
//! is unknown because it was: in a cell that is just being set up it may well come back. It must be as it was then: nothing is on it,
//! and nobody registered it since. All else is a sign as before. From the first volume on nothing needs to be remembered, so this
//! stays small.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_libs_types::DiskId;
use holdfast_volume_manager_catalog::{CatalogError, Disk};
use holdfast_volume_manager_client::DiskReport;

use crate::manager::Manager;

/// Under which they stand in the settings, each with its id; the value is the nonce of its last registration.
const PREFIX: &str = "forgotten/";

/// Notes one that goes while there is no volume.
pub(crate) async fn note(manager: &Arc<Manager>, disk: &Disk) -> Result<(), CatalogError> {
    let (table, term, key, nonce) =
        (Arc::clone(&manager.catalog.table), manager.term, key(disk.info.disk), disk.nonce.to_string());
    manager.to_the_end(async move { table.set_setting(term, &key, Some(&nonce)).await }).await
}

/// It is on the inventory again. One that stays here though it is back does no harm.
pub(crate) async fn is_back(manager: &Manager, disk: DiskId) -> Result<(), CatalogError> {
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    manager.to_the_end(async move { table.set_setting(term, &key(disk), None).await }).await
}

fn key(disk: DiskId) -> String {
    format!("{PREFIX}{disk}")
}

/// All of them.
pub(crate) struct Forgotten(HashMap<DiskId, u64>);

impl Forgotten {
    pub async fn read(manager: &Manager) -> Result<Self, CatalogError> {
        let settings = manager.catalog.table.settings().await?;
        let one =
            |(key, nonce): (&String, &String)| Some((key.strip_prefix(PREFIX)?.parse().ok()?, nonce.parse().ok()?));
        Ok(Self(settings.iter().filter_map(one).collect()))
    }

    pub fn contains(&self, disk: DiskId) -> bool {
        self.0.contains_key(&disk)
    }

    /// Whether that the catalog does not know a disk is because it was forgotten.
    pub fn explains(&self, report: &DiskReport) -> bool {
        let is_empty = report.free_slots == report.slots;
        let is_as_then = |nonce: &u64| *nonce != 0 && [report.previous_nonce, report.nonce].contains(nonce);
        is_empty && self.0.get(&report.disk).is_some_and(is_as_then)
    }
}
