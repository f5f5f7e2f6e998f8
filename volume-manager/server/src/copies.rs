//! Copies of the catalog, made and put back on the volume manager's own machine, by its configuration.

use std::path::Path;

use holdfast_libs_surroundings::WallClock;
use holdfast_volume_manager_catalog::{CatalogError, Kind, copies};

pub use holdfast_volume_manager_catalog::copies::{Backup, Restored};

use crate::{Config, ServerError};

const MYSQL: &str = "the catalog is in MySQL, whose own tools copy it: `mariadb-backup` or `mysqldump --single-transaction`, the \
                     index's databases first, then the table's. After they were put back, with every daemon stopped, start the \
                     volume manager and run `holdfast admin catalog rebuild`";

/// Copies the catalog into the new folder `into`, also while daemons use it.
///
/// # Errors
/// `Catalog`: see [`copies::back_up`]; `BadConfig` for a catalog in MySQL.
pub fn back_up(config: &Config, into: &Path) -> Result<Backup, ServerError> {
    sqlite(config)?;
    Ok(copies::back_up(&config.data_dir, config.cell, into, WallClock::system().unix_ms())?)
}

/// Puts a copy back, while no daemon runs; what stands there is moved aside with `replace`, and refused otherwise.
///
/// # Errors
/// `Catalog`: see [`copies::restore`]; `BadConfig` for a catalog in MySQL.
pub fn restore(config: &Config, from: &Path, replace: bool) -> Result<Restored, ServerError> {
    sqlite(config)?;
    Ok(copies::restore(from, &config.data_dir, config.cell, replace, WallClock::system().unix_ms())?)
}

fn sqlite(config: &Config) -> Result<(), CatalogError> {
    match config.catalog.kind {
        Kind::Sqlite => Ok(()),
        Kind::Mysql => Err(CatalogError::BadConfig(MYSQL.to_owned())),
    }
}
