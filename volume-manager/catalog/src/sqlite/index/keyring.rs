//! Wrapped data keys. The master key that opens them is never here.

use holdfast_libs_types::KeyId;
use rusqlite::{OptionalExtension, Transaction};

use crate::CatalogError;
use crate::index::WrappedKeys;
use crate::number::uint;
use crate::sqlite::database::Database;

fn newest(tx: &Transaction<'_>) -> rusqlite::Result<i64> {
    tx.query_row("SELECT coalesce(max(generation), 0) FROM keys", [], |row| row.get(0))
}

pub(super) fn generation(db: &Database) -> Result<u64, CatalogError> {
    uint("the keyring's generation", db.read(|tx| Ok(newest(tx)?))?)
}

pub(super) fn put(db: &Database, key: &KeyId, wrapped: &[u8]) -> Result<u64, CatalogError> {
    let generation = db.write(|tx| {
        let newest = newest(tx)?;
        let found: Option<Vec<u8>> =
            tx.query_row("SELECT wrapped FROM keys WHERE id = ?1", [key.as_bytes()], |row| row.get(0)).optional()?;
        match found {
            Some(bytes) if bytes == wrapped => Ok(newest),
            Some(_) => Err(CatalogError::KeyTaken(*key)),
            None => {
                let add = "INSERT INTO keys (id, wrapped, generation) VALUES (?1, ?2, ?3)";
                tx.execute(add, (key.as_bytes(), wrapped, newest + 1))?;
                Ok(newest + 1)
            }
        }
    })?;
    uint("the keyring's generation", generation)
}

pub(super) fn all(db: &Database) -> Result<(u64, WrappedKeys), CatalogError> {
    db.read(|tx| {
        let mut statement = tx.prepare_cached("SELECT generation, id, wrapped FROM keys ORDER BY generation")?;
        let mut rows = statement.query([])?;
        let (mut generation, mut keys) = (0, Vec::new());
        while let Some(row) = rows.next()? {
            generation = row.get(0)?;
            keys.push((KeyId(row.get(1)?), row.get(2)?));
        }
        Ok((uint("the keyring's generation", generation)?, keys))
    })
}
