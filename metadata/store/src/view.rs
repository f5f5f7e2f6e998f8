//! A namespace as the rules read it, from one snapshot or transaction.

use holdfast_libs_types::DeviceId;
use holdfast_metadata_model::{EntryId, EntryState, NamespaceId, Rev, Revision, SubtreeNode, View};
use rusqlite::{Connection, Params};

use crate::StoreError;
use crate::rows::{self, select_entry};

/// Reads of one namespace.
#[derive(Clone, Copy)]
pub(crate) struct NamespaceView<'a> {
    pub db: &'a Connection,
    pub id: NamespaceId,
}

impl NamespaceView<'_> {
    /// The entries that a condition on `e` and `r` selects.
    pub fn select(&self, rest: &str, params: impl Params) -> Result<Vec<EntryState>, StoreError> {
        let mut statement = self.db.prepare_cached(&select_entry(rest))?;
        let mut rows = statement.query(params)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(rows::entry(row)?);
        }
        Ok(entries)
    }

    /// The live entry whose stored name has this key.
    pub fn live(&self, parent: EntryId, key: &str) -> Result<Option<EntryState>, StoreError> {
        let rest = "WHERE e.namespace = ? AND e.parent = ? AND e.key = ? AND e.deleted = 0";
        Ok(self.select(rest, (self.id.0, parent.0, key))?.pop())
    }

    /// Sequence and hash of the newest journal item.
    pub fn head(&self) -> Result<(u64, [u8; 32]), StoreError> {
        let mut statement = self.db.prepare_cached("SELECT sequence, hash FROM namespaces WHERE id = ?")?;
        Ok(statement.query_row([self.id.0], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// The hash of a journal item, or for 0 what the first one follows; `None` if there is no such item.
    pub fn hash_at(&self, sequence: u64) -> Result<Option<[u8; 32]>, StoreError> {
        let sql = if sequence == 0 {
            "SELECT genesis FROM namespaces WHERE id = ?1 AND ?2 = 0"
        } else {
            "SELECT hash FROM journal WHERE namespace = ?1 AND sequence = ?2"
        };
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query((self.id.0, sequence))?;
        Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
    }
}

impl View for NamespaceView<'_> {
    type Error = StoreError;

    fn entry(&self, id: EntryId) -> Result<Option<EntryState>, StoreError> {
        Ok(self.select("WHERE e.id = ? AND e.namespace = ?", (id.0, self.id.0))?.pop())
    }

    fn revision(&self, rev: Rev) -> Result<Option<Revision>, StoreError> {
        let sql = format!("SELECT {} FROM revisions AS r WHERE r.rev = ? AND r.namespace = ?", rows::REVISION);
        let mut statement = self.db.prepare_cached(&sql)?;
        // A number past SQLite's range names no revision.
        let Ok(number) = i64::try_from(rev.0) else { return Ok(None) };
        let mut found = statement.query((number, self.id.0))?;
        found.next()?.map(rows::revision).transpose()
    }

    fn live_by_key(&self, parent: EntryId, key: &str) -> Result<Vec<EntryState>, StoreError> {
        let mut live = Vec::from_iter(self.live(parent, key)?);
        let rest = "WHERE e.namespace = ? AND e.parent = ? AND e.exact_key = ? AND e.exact_key IS NOT NULL
                    AND e.deleted = 0";
        for twin in self.select(rest, (self.id.0, parent.0, key))? {
            if live.iter().all(|entry| entry.id != twin.id) {
                live.push(twin);
            }
        }
        Ok(live)
    }

    fn is_taken(&self, parent: EntryId, key: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM entries WHERE namespace = ? AND parent = ? AND key = ? AND deleted = 0";
        Ok(self.db.prepare_cached(sql)?.exists((self.id.0, parent.0, key))?)
    }

    fn deleted_by_key(&self, parent: EntryId, key: &str) -> Result<Option<EntryState>, StoreError> {
        let rest = "WHERE e.namespace = ? AND e.parent = ? AND e.key = ? AND e.deleted = 1
                    ORDER BY e.sequence DESC LIMIT 1";
        Ok(self.select(rest, (self.id.0, parent.0, key))?.pop())
    }

    fn live_below(&self, folder: EntryId) -> Result<Vec<SubtreeNode>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "WITH RECURSIVE below (id, depth) AS (
                 VALUES (?2, 0)
                 UNION ALL
                 SELECT e.id, depth + 1 FROM below CROSS JOIN entries AS e
                 WHERE e.namespace = ?1 AND e.parent = below.id AND e.deleted = 0
             )
             SELECT e.id, e.parent, e.sequence, e.device, r.sequence, r.device
             FROM below CROSS JOIN entries AS e ON e.id = below.id CROSS JOIN revisions AS r ON r.rev = e.revision
             WHERE below.id <> ?2 ORDER BY depth",
        )?;
        let nodes = statement.query_map((self.id.0, folder.0), |row| {
            Ok(SubtreeNode {
                id: EntryId(row.get(0)?),
                parent: EntryId(row.get(1)?),
                changed: (row.get(2)?, DeviceId(row.get(3)?)),
                revised: (row.get(4)?, DeviceId(row.get(5)?)),
            })
        })?;
        Ok(nodes.collect::<Result<_, _>>()?)
    }
}
