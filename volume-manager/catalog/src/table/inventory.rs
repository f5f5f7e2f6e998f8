//! Nodes and disks.

use holdfast_libs_types::{DiskId, NodeId};
use rusqlite::{OptionalExtension, Transaction};

use super::{DiskInfo, Node, Registration, ReplicationTable, Term};
use crate::CatalogError;
use crate::database::int;

impl ReplicationTable {
    /// Writes a node's row. It must come before its disks.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    pub fn upsert_node(&self, term: Term, node: &Node) -> Result<(), CatalogError> {
        let seen = int("the time a node was seen", node.last_seen_ms)?;
        self.write(term, |tx| {
            tx.prepare_cached(
                "INSERT INTO nodes (node, zone, rack, address, instance, last_seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (node) DO UPDATE SET zone = excluded.zone, rack = excluded.rack, address = excluded.address,
                 instance = excluded.instance, last_seen_ms = excluded.last_seen_ms",
            )?
            .execute((&node.node.0, &node.zone, &node.rack, &node.address, node.instance.as_bytes(), seen))?;
            Ok(())
        })
    }

    /// Writes what a node reports of a disk that it registered. Its incarnation and nonce stay as they are.
    ///
    /// # Errors
    /// `UnknownDisk` before its first registration; `DiskElsewhere` when another node registered it (so that a clone's node
    /// cannot take the disk over by a heartbeat); `StaleTerm`, `TooLarge`.
    pub fn upsert_disk(&self, term: Term, info: &DiskInfo) -> Result<(), CatalogError> {
        self.write(term, |tx| match holder(tx, info.disk)? {
            None => Err(CatalogError::UnknownDisk(info.disk)),
            Some((node, _)) if node != info.node => Err(CatalogError::DiskElsewhere { disk: info.disk, node }),
            Some(_) => write_info(tx, info),
        })
    }

    /// A disk proposes its next incarnation. It is accepted, and the disk's whole row written, when the disk is new, when
    /// it shows the nonce that was accepted last, or when it repeats the accepted proposal after a lost answer. Anything
    /// else is a copy of the disk, or an old disk put back: refused, and nothing is changed.
    ///
    /// # Errors
    /// `UnknownNode` when the node has no row; `StaleTerm`, `TooLarge`.
    pub fn register_disk_incarnation(
        &self,
        term: Term,
        info: &DiskInfo,
        previous_nonce: u64,
        incarnation: u64,
        nonce: u64,
    ) -> Result<Registration, CatalogError> {
        let number = int("incarnation", incarnation)?;
        if nonce == 0 {
            // 0 is what a disk shows that was never registered.
            return Ok(Registration::Refused("nonce 0 proposes no incarnation".to_owned()));
        }
        self.write(term, |tx| {
            let known_node = tx.query_row("SELECT 1 FROM nodes WHERE node = ?1", [&info.node.0], |_| Ok(())).optional()?;
            if known_node.is_none() {
                return Err(CatalogError::UnknownNode(info.node.clone()));
            }
            if let Some((node, stands)) = holder(tx, info.disk)?
                && stands != previous_nonce
                && stands != nonce
            {
                return Ok(Registration::Refused(format!(
                    "disk {} was registered by node {node} since this copy of it was: it is a clone, a restored snapshot, or \
                     an old disk put back",
                    info.disk
                )));
            }
            tx.prepare_cached(
                "INSERT INTO disks (disk, node, path, incarnation, nonce, state, slot_bytes, volume_bytes, slots, free_slots)
                 VALUES (?1, ?2, '', ?3, ?4, '', 0, 0, 0, 0)
                 ON CONFLICT (disk) DO UPDATE SET node = excluded.node, incarnation = excluded.incarnation,
                 nonce = excluded.nonce",
            )?
            .execute((info.disk.as_bytes(), &info.node.0, number, nonce.cast_signed()))?;
            write_info(tx, info)?;
            Ok(Registration::Accepted)
        })
    }
}

/// The node that registered a disk, and the nonce that stands.
fn holder(tx: &Transaction<'_>, disk: DiskId) -> Result<Option<(NodeId, u64)>, CatalogError> {
    let mut statement = tx.prepare_cached("SELECT node, nonce FROM disks WHERE disk = ?1")?;
    let found = statement
        .query_row([disk.as_bytes()], |row| Ok((NodeId(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned())))
        .optional()?;
    Ok(found)
}

fn write_info(tx: &Transaction<'_>, info: &DiskInfo) -> Result<(), CatalogError> {
    tx.prepare_cached(
        "UPDATE disks SET path = ?2, state = ?3, reason = ?4, slot_bytes = ?5, volume_bytes = ?6, slots = ?7,
         free_slots = ?8 WHERE disk = ?1",
    )?
    .execute((
        info.disk.as_bytes(),
        &info.path,
        &info.state,
        &info.reason,
        int("bytes of a slot", info.slot_bytes)?,
        int("bytes of a volume", info.volume_bytes)?,
        int("slots", info.slots)?,
        int("free slots", info.free_slots)?,
    ))?;
    Ok(())
}
