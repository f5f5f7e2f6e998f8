//! The index rows of a volume, from the record table in the footer of one of its replicas.

use std::time::Duration;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::record::{FLAG_COMPRESSED, RECORD_HEADER_BYTES, RecordHeader, TAG_BYTES};
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{NodeClient, RecordInfo, code};
use holdfast_volume_manager_catalog::{CatalogError, Fenced, InsertError, NewRow, VolumeInsert};

use super::volume::Ended;
use crate::inventory::Snapshot;
use crate::manager::{Manager, within};

/// A volume has up to 65,536 records; its node reads them from one place.
const RECORDS_LIMIT: Duration = Duration::from_secs(60);

/// Rows of one transaction: others wait for it.
const CHUNK: usize = 4096;

/// Inserts the rows of a sealed volume, then closes its fence for good; answers how many rows that were. A fence that is closed
/// was closed after the last row, by a rebuild before this one or by the seal.
pub(super) async fn insert(
    manager: &Manager,
    snapshot: &Snapshot,
    id: VolumeId,
    epoch: WriteEpoch,
    holders: &[DiskId],
) -> Result<Result<u64, Ended>, CatalogError> {
    let index = &manager.catalog.index;
    let fence = index.fence(id).await?;
    if fence.is_some_and(|fence| fence.closed) {
        return Ok(Ok(0));
    }
    // The epoch of a fence that is there lets nobody in whom it did not before.
    let at = fence.map_or(epoch, |fence| fence.epoch);
    let rows = match read(manager, snapshot, id, holders).await {
        Ok(rows) => rows,
        Err(ended) => return Ok(Err(ended)),
    };
    match index.create_fence(id, at).await {
        Ok(()) => {}
        Err(InsertError::Catalog(error)) => return Err(error),
        Err(InsertError::Fenced(fenced)) => return Ok(Err(changed(&fenced))),
    }
    for rows in rows.chunks(CHUNK) {
        let end = rows.iter().map(|row| row.offset + u64::from(row.length)).max().unwrap_or(0);
        match index.insert(&VolumeInsert { volume: id, epoch: at, end, rows: rows.to_vec() }).await {
            Ok(()) => {}
            Err(InsertError::Catalog(error)) => return Err(error),
            Err(InsertError::Fenced(fenced)) => return Ok(Err(changed(&fenced))),
        }
    }
    index.close_fence(id, epoch.max(at).next()).await?;
    Ok(Ok(rows.len() as u64))
}

fn changed(fenced: &Fenced) -> Ended {
    Ended::Later(format!("its fence changed meanwhile: {fenced}"))
}

/// The rows, from the first holder whose footer is right.
async fn read(manager: &Manager, snapshot: &Snapshot, id: VolumeId, holders: &[DiskId]) -> Result<Vec<NewRow>, Ended> {
    let mut damage = Vec::new();
    let mut later = None;
    for disk in holders {
        let Some(view) = snapshot.disk(*disk) else { continue };
        let node = manager.node(&view.address);
        let rows = match within(RECORDS_LIMIT, &view.address, node.records(*disk, id)).await {
            Ok(records) => rows_of(&node, *disk, id, records).await,
            Err(error) => Err(error),
        };
        match rows {
            Ok(rows) => return Ok(rows),
            Err(CallError::Api(error)) if error.code == code::DAMAGED => {
                damage.push(format!("disk {disk}: {}", error.message));
            }
            Err(error) => later = Some(format!("disk {disk} does not tell its records: {error}")),
        }
    }
    Err(match later {
        Some(why) => Ended::Later(why),
        None => Ended::Not(format!(
            "no replica can tell its records ({}); a scrub of these disks writes a damaged footer again, then begin the rebuild \
             again",
            damage.join("; ")
        )),
    })
}

async fn rows_of(
    node: &NodeClient,
    disk: DiskId,
    volume: VolumeId,
    records: Vec<RecordInfo>,
) -> Result<Vec<NewRow>, CallError> {
    let mut rows = Vec::with_capacity(records.len());
    for RecordInfo { hash, offset, length, flags } in records {
        let payload = length.checked_sub((RECORD_HEADER_BYTES + TAG_BYTES) as u32);
        let plain_len = match payload {
            Some(plain_len) if flags & u32::from(FLAG_COMPRESSED) == 0 => plain_len,
            // How long the block is, only the record's header tells.
            _ => header(node, disk, volume, offset).await?.plain_len,
        };
        rows.push(NewRow { hash, offset, length, plain_len });
    }
    Ok(rows)
}

async fn header(node: &NodeClient, disk: DiskId, volume: VolumeId, offset: u64) -> Result<RecordHeader, CallError> {
    let bytes = node.read_bytes(disk, volume, offset, RECORD_HEADER_BYTES as u32).await?;
    RecordHeader::decode(&bytes)
        .map_err(|error| CallError::Malformed { url: node.address().to_owned(), detail: error.to_string() })
}
