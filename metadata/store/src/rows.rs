//! Rows as the rules know them.

use holdfast_libs_types::DeviceId;
use holdfast_metadata_model::{
    ChangeKind, Content, EntryId, EntryState, Kind, Rev, Revision, Timestamp, VersionVector,
};
use rusqlite::Row;

use crate::StoreError;

/// The columns that [`revision`] reads, of `revisions AS r`.
pub(crate) const REVISION: &str = "r.rev, r.entry, r.vector, r.kind, r.size, r.blocks, r.mtime_secs, r.mtime_nanos, \
     r.executable, r.target, r.sequence, r.device, r.at_ms";

const REVISION_COLUMNS: usize = 13;

/// `SELECT` and `FROM` of [`entry`]; conditions on `e` (entries) and `r` (its newest revision) follow.
pub(crate) fn select_entry(rest: &str) -> String {
    format!(
        "SELECT {REVISION}, e.id, e.parent, e.name, e.exact_name, e.deleted, e.sequence, e.device
         FROM entries AS e CROSS JOIN revisions AS r ON r.rev = e.revision {rest}"
    )
}

pub(crate) fn revision(row: &Row<'_>) -> Result<Revision, StoreError> {
    let vector = VersionVector::decode(row.get_ref(2)?.as_blob().map_err(rusqlite::Error::from)?)?;
    let kind: u8 = row.get(3)?;
    let kind = Kind::from_number(kind).ok_or_else(|| StoreError::Damaged(format!("revision of kind {kind}")))?;
    let blocks = Content::decode_blocks(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?)?;
    let mtime = match (row.get(6)?, row.get(7)?) {
        (Some(secs), Some(nanos)) => Some(Timestamp { secs, nanos }),
        _ => None,
    };
    let content = Content { kind, size: row.get(4)?, blocks, mtime, executable: row.get(8)?, target: row.get(9)? };
    Ok(Revision {
        rev: Rev(row.get(0)?),
        entry: EntryId(row.get(1)?),
        vector,
        content,
        sequence: row.get(10)?,
        device: DeviceId(row.get(11)?),
        at_ms: row.get(12)?,
    })
}

pub(crate) fn entry(row: &Row<'_>) -> Result<EntryState, StoreError> {
    const AT: usize = REVISION_COLUMNS;
    Ok(EntryState {
        id: EntryId(row.get(AT)?),
        parent: EntryId(row.get(AT + 1)?),
        name: row.get(AT + 2)?,
        exact_name: row.get(AT + 3)?,
        deleted: row.get(AT + 4)?,
        sequence: row.get(AT + 5)?,
        device: DeviceId(row.get(AT + 6)?),
        revision: revision(row)?,
    })
}

pub(crate) fn change_kind(number: u8) -> Result<ChangeKind, StoreError> {
    ChangeKind::from_number(number).ok_or_else(|| StoreError::Damaged(format!("journal item of kind {number}")))
}
