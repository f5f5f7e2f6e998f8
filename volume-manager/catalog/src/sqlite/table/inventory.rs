//! Nodes and disks.

use holdfast_libs_types::{DiskId, NodeId};
use rusqlite::{OptionalExtension, Transaction};

use super::TableFile;
use crate::number::{int, uint};
use crate::rules::Registrant;
use crate::table::{DiskInfo, Node, Registration, Term};
use crate::{CatalogError, rules};

impl TableFile {
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

    pub fn upsert_disk(&self, term: Term, info: &DiskInfo) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            rules::check_report(registrant(tx, info.disk)?, info)?;
            write_info(tx, info)
        })
    }

    pub fn register_disk_incarnation(
        &self,
        term: Term,
        info: &DiskInfo,
        previous_nonce: u64,
        incarnation: u64,
        nonce: u64,
    ) -> Result<Registration, CatalogError> {
        let number = int("incarnation", incarnation)?;
        self.write(term, |tx| {
            let known_node = tx.query_row("SELECT 1 FROM nodes WHERE node = ?1", [&info.node.0], |_| Ok(())).optional()?;
            if known_node.is_none() {
                return Err(CatalogError::UnknownNode(info.node.clone()));
            }
            if let Some(why) = rules::refusal(registrant(tx, info.disk)?, info, previous_nonce, nonce) {
                return Ok(Registration::Refused(why));
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

    pub fn forget_disk(&self, term: Term, disk: DiskId) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            let count = "SELECT count(*) FROM replicas JOIN volumes USING (volume)
                         WHERE disk = ?1 AND state <> 'failed' AND (state <> 'sealed' OR length > 0)";
            let volumes = uint("volumes", tx.query_row(count, [disk.as_bytes()], |row| row.get(0))?)?;
            if volumes > 0 {
                return Err(CatalogError::DiskInUse { disk, volumes });
            }
            tx.execute("DELETE FROM replicas WHERE disk = ?1", [disk.as_bytes()])?;
            tx.execute("DELETE FROM disks WHERE disk = ?1", [disk.as_bytes()])?;
            Ok(())
        })
    }

    pub fn forget_node(&self, term: Term, node: &NodeId) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            let count = "SELECT count(*) FROM disks WHERE node = ?1";
            let disks = uint("disks", tx.query_row(count, [&node.0], |row| row.get(0))?)?;
            if disks > 0 {
                return Err(CatalogError::NodeInUse { node: node.clone(), disks });
            }
            tx.execute("DELETE FROM nodes WHERE node = ?1", [&node.0])?;
            Ok(())
        })
    }
}

fn registrant(tx: &Transaction<'_>, disk: DiskId) -> Result<Registrant, CatalogError> {
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
