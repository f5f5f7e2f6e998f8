//! A table that was lost, or comes from an older copy: what is written to it while it is made whole from the disks.

use rusqlite::{OptionalExtension, Transaction};

use super::{TableFile, current_term, generation, reader, write_replicas};
use crate::number::int;
use crate::table::{FoundVolume, Term};
use crate::{CatalogError, rules};

/// The row of `meta` that says so, and why.
const MARK: &str = "lost";

pub(super) fn mark(tx: &Transaction<'_>) -> Result<Option<String>, CatalogError> {
    let mut statement = tx.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row([MARK], |row| row.get(0)).optional()?)
}

pub(crate) fn set_mark(tx: &Transaction<'_>, why: &str) -> Result<(), CatalogError> {
    let mut add = tx.prepare_cached("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING")?;
    if add.execute((MARK, why))? == 1 {
        // An older copy has nonces that no disk shows any more.
        tx.execute("UPDATE disks SET nonce = 0", [])?;
    }
    Ok(())
}

impl TableFile {
    pub fn mark_lost(&self, term: Term, why: &str) -> Result<(), CatalogError> {
        self.write(term, |tx| set_mark(tx, why))
    }

    pub fn raise_term(&self, term: Term, above: Term) -> Result<(), CatalogError> {
        let number = int("the leader's term", above.0)?;
        self.db.write(|tx| {
            if rules::raise_term(term, above, current_term(tx)?)? {
                let raise = "UPDATE leader SET term = ?1, holder = NULL, address = NULL, expires_ms = NULL";
                tx.execute(raise, [number])?;
            }
            Ok(())
        })
    }

    pub fn take_in(&self, term: Term, found: &FoundVolume) -> Result<(), CatalogError> {
        let (epoch, capacity) = (int("write epoch", found.epoch.0)?, int("capacity", found.capacity)?);
        let length = int("length", found.length)?;
        self.write(term, |tx| {
            rules::check_lost(mark(tx)?)?;
            if rules::take_in(reader::volume(tx, found.volume)?.as_ref(), found)? {
                tx.prepare_cached(
                    "INSERT INTO volumes (volume, state, epoch, capacity, length, digest, seal_reason)
                     VALUES (?1, 'sealed', ?2, ?3, ?4, ?5, ?6)
                     ON CONFLICT (volume) DO UPDATE SET state = 'sealed', epoch = excluded.epoch,
                     capacity = excluded.capacity, length = excluded.length, digest = excluded.digest, holder = NULL,
                     lease_expires_ms = NULL, seal_reason = excluded.seal_reason",
                )?
                .execute((
                    found.volume.as_bytes(),
                    epoch,
                    capacity,
                    length,
                    found.digest,
                    rules::FOUND,
                ))?;
            }
            write_replicas(tx, found.volume, &found.replicas)
        })
    }

    pub fn forget_unsealed(&self, term: Term) -> Result<u64, CatalogError> {
        self.write(term, |tx| {
            rules::check_lost(mark(tx)?)?;
            tx.execute(
                "DELETE FROM replicas WHERE volume IN (SELECT volume FROM volumes WHERE state <> 'sealed')",
                [],
            )?;
            Ok(tx.execute("DELETE FROM volumes WHERE state <> 'sealed'", [])? as u64)
        })
    }

    pub fn recovered(&self, term: Term, above: u32) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            if mark(tx)?.is_some() {
                let raised = rules::generation_above(generation(tx)?, above)?;
                tx.execute("UPDATE leader SET generation = ?1", [raised])?;
                tx.execute("DELETE FROM meta WHERE name = ?1", [MARK])?;
            }
            Ok(())
        })
    }
}
