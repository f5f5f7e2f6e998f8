//! Numbers as the databases hold them: signed, 63 bits.

use crate::CatalogError;

/// A number as a column holds it.
pub(crate) fn int(what: &'static str, value: u64) -> Result<i64, CatalogError> {
    i64::try_from(value).map_err(|_| CatalogError::TooLarge { what, value })
}

/// A number read from a column.
pub(crate) fn uint(what: &'static str, value: i64) -> Result<u64, CatalogError> {
    u64::try_from(value).map_err(|_| CatalogError::Damaged(format!("{what} is {value}")))
}
