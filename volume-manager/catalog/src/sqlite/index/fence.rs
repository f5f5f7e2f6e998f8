//! Fence rows: what makes the end of a volume's index rows a fact.

use holdfast_libs_types::{VolumeId, WriteEpoch};
use rusqlite::{OptionalExtension, Transaction};

use crate::index::{self, Fence};
use crate::number::{int, uint};
use crate::sqlite::database::Database;
use crate::{CatalogError, FenceReason, Fenced, InsertError};

/// The row and the volume's small number.
pub(super) fn find(tx: &Transaction<'_>, volume: VolumeId) -> Result<Option<(i64, Fence)>, CatalogError> {
    let mut statement = tx.prepare_cached("SELECT small, epoch, closed, highest_end FROM fences WHERE volume = ?1")?;
    let row = statement
        .query_row([volume.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let Some((small, epoch, closed, highest_end)) = row else { return Ok(None) };
    let epoch = WriteEpoch(uint("a fence's epoch", epoch)?);
    Ok(Some((small, Fence { epoch, closed, highest_end: uint("a fence's highest end", highest_end)? })))
}

/// The small number of a volume that `epoch` may insert into, with its highest end.
pub(super) fn admit(
    tx: &Transaction<'_>,
    volume: VolumeId,
    epoch: WriteEpoch,
) -> Result<Result<(i64, u64), Fenced>, CatalogError> {
    let found = find(tx, volume)?;
    let admitted = index::admit(found.as_ref().map(|(_, fence)| fence), volume, epoch);
    // Admitted means found.
    Ok(admitted.map(|()| found.map_or((0, 0), |(small, fence)| (small, fence.highest_end))))
}

pub(super) fn create(db: &Database, volume: VolumeId, epoch: WriteEpoch) -> Result<(), InsertError> {
    let number = int("write epoch", epoch.0)?;
    db.write(|tx| {
        match admit(tx, volume, epoch)? {
            Ok(_) => return Ok(()),
            Err(Fenced { reason: FenceReason::Missing, .. }) => {}
            Err(fenced) => return Err(fenced.into()),
        }
        tx.prepare_cached("INSERT INTO fences (volume, epoch, closed, highest_end) VALUES (?1, ?2, 0, 0)")?
            .execute((volume.as_bytes(), number))?;
        Ok(())
    })
}

pub(super) fn close(db: &Database, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
    let number = int("write epoch", new_epoch.0)?;
    db.write(|tx| {
        tx.prepare_cached(
            "INSERT INTO fences (volume, epoch, closed, highest_end) VALUES (?1, ?2, 1, 0)
             ON CONFLICT (volume) DO UPDATE SET closed = 1, epoch = max(epoch, excluded.epoch)
             WHERE closed = 0 OR epoch < excluded.epoch",
        )?
        .execute((volume.as_bytes(), number))?;
        let found = find(tx, volume)?;
        Ok(found.map_or(0, |(_, fence)| fence.highest_end))
    })
}
