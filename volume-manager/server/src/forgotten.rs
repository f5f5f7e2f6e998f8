//! Disks that an operator took off the inventory while the catalog knew no volume.
//!
//! A disk that was registered before and is unknown to a catalog without volumes is a sign of a lost catalog. One that was forgotten
//! is unknown because it was: in a cell that is just being set up it may well come back. From the first volume on nothing needs to be
//! remembered, so this stays small.

use std::collections::HashSet;
use std::sync::Arc;

use holdfast_libs_types::DiskId;
use holdfast_volume_manager_catalog::CatalogError;

use crate::manager::Manager;

/// Under which they stand in the settings, each with its id.
const PREFIX: &str = "forgotten/";

/// Notes one, if that matters.
pub(crate) async fn note(manager: &Arc<Manager>, disk: DiskId) -> Result<(), CatalogError> {
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    if !table.volumes().await?.is_empty() {
        return Ok(());
    }
    let since_ms = manager.now_ms().to_string();
    manager.to_the_end(async move { table.set_setting(term, &key(disk), Some(&since_ms)).await }).await
}

/// All of them.
pub(crate) async fn all(manager: &Manager) -> Result<HashSet<DiskId>, CatalogError> {
    let settings = manager.catalog.table.settings().await?;
    Ok(settings.keys().filter_map(|key| key.strip_prefix(PREFIX)?.parse().ok()).collect())
}

/// It is on the inventory again. One that stays here though it is back does no harm.
pub(crate) async fn is_back(manager: &Manager, disk: DiskId) -> Result<(), CatalogError> {
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    manager.to_the_end(async move { table.set_setting(term, &key(disk), None).await }).await
}

fn key(disk: DiskId) -> String {
    format!("{PREFIX}{disk}")
}
