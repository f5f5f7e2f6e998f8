//! The fence rows of one shard.

use holdfast_libs_types::{VolumeId, WriteEpoch};
use mysql_async::Row;

use super::database::{Database, Transaction, column, number, values};
use crate::index::{Fence, admit};
use crate::number::int;
use crate::{CatalogError, FenceReason, Fenced};

/// A volume's fence row with the small number that its rows have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub small: u32,
    pub fence: Fence,
}

/// What [`decode`] reads.
const COLUMNS: &str = "small, epoch, closed, highest_end FROM fences WHERE volume = ?";

fn decode(mut row: Row) -> Result<Found, CatalogError> {
    let fence = Fence {
        epoch: WriteEpoch(number(&mut row, 1, "a fence's epoch")?),
        closed: column(&mut row, 2, "a fence's state")?,
        highest_end: number(&mut row, 3, "a fence's highest end")?,
    };
    Ok(Found { small: column(&mut row, 0, "a volume's small number")?, fence })
}

/// Reads a volume's row, and keeps others from changing it until the transaction ends.
pub(super) async fn lock(tx: &mut Transaction<'_>, volume: VolumeId) -> Result<Option<Found>, CatalogError> {
    let row = tx.first(&format!("SELECT {COLUMNS} FOR UPDATE"), values![volume.as_bytes()]).await?;
    row.map(decode).transpose()
}

pub(super) async fn find(database: &Database, volume: VolumeId) -> Result<Option<Fence>, CatalogError> {
    let mut session = database.session().await?;
    let row = session.first(&format!("SELECT {COLUMNS}"), values![volume.as_bytes()]).await?;
    Ok(row.map(decode).transpose()?.map(|found| found.fence))
}

pub(super) async fn create(
    database: &Database,
    volume: VolumeId,
    epoch: WriteEpoch,
) -> Result<Result<(), Fenced>, CatalogError> {
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let found = lock(&mut tx, volume).await?;
    match admit(found.map(|found| found.fence).as_ref(), volume, epoch) {
        Err(Fenced { reason: FenceReason::Missing, .. }) => {}
        other => return Ok(other),
    }
    let add = "INSERT INTO fences (volume, epoch, closed, highest_end) VALUES (?, ?, 0, 0)";
    tx.change(add, values![volume.as_bytes(), int("write epoch", epoch.0)?]).await?;
    tx.commit().await?;
    Ok(Ok(()))
}

pub(super) async fn close(database: &Database, volume: VolumeId, new_epoch: WriteEpoch) -> Result<u64, CatalogError> {
    let epoch = int("write epoch", new_epoch.0)?;
    let mut session = database.session().await?;
    let mut tx = session.begin().await?;
    let close = "INSERT INTO fences (volume, epoch, closed, highest_end) VALUES (?, ?, 1, 0)
                 ON DUPLICATE KEY UPDATE closed = 1, epoch = greatest(epoch, ?)";
    tx.change(close, values![volume.as_bytes(), epoch, epoch]).await?;
    let found = lock(&mut tx, volume).await?;
    tx.commit().await?;
    Ok(found.map_or(0, |found| found.fence.highest_end))
}
