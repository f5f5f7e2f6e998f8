//! Reading the table, also from processes that never write it.

use std::collections::BTreeMap;

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction};

use crate::CatalogError;
use crate::number::int;
use crate::sqlite::database::Database;
use crate::table::{Disk, DiskInfo, Leader, Node, ReplicaLocation, Term, Volume, VolumeLocations, VolumeState};

/// The replication table, for reading only.
#[derive(Debug, Clone)]
pub struct TableFileReader {
    db: Database,
    clock: WallClock,
}

const VOLUME_COLUMNS: &str =
    "volume, state, epoch, capacity, length, digest, holder, lease_expires_ms, seal_reason FROM volumes";

impl TableFileReader {
    pub(super) fn new(db: Database, clock: WallClock) -> Self {
        Self { db, clock }
    }

    pub fn copy_into(&self, path: &std::path::Path) -> Result<(), CatalogError> {
        self.db.copy_into(path)
    }

    pub fn term(&self) -> Result<Term, CatalogError> {
        self.db.read(super::current_term)
    }

    pub fn leader(&self) -> Result<Option<Leader>, CatalogError> {
        self.db.read(|tx| Ok(super::leader_row(tx, &self.clock)?.leader()))
    }

    pub fn generation(&self) -> Result<u32, CatalogError> {
        self.db.read(super::generation)
    }

    pub fn lost(&self) -> Result<Option<String>, CatalogError> {
        self.db.read(super::recovery::mark)
    }

    pub fn volume(&self, id: VolumeId) -> Result<Option<Volume>, CatalogError> {
        self.db.read(|tx| volume(tx, id))
    }

    pub fn volumes(&self) -> Result<Vec<Volume>, CatalogError> {
        self.db.read(|tx| {
            let mut all = rows(tx, &format!("SELECT {VOLUME_COLUMNS} ORDER BY volume"), [])?;
            add_replicas_of_most(tx, &mut all)?;
            Ok(all)
        })
    }

    pub fn volumes_after(
        &self,
        after: Option<VolumeId>,
        on: Option<DiskId>,
        limit: usize,
    ) -> Result<Vec<Volume>, CatalogError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // Every id is above the empty one.
        let after = after.as_ref().map_or(&[][..], |id| id.as_bytes());
        let page = "ORDER BY volume LIMIT ?2";
        self.db.read(|tx| match on {
            None => many(tx, &format!("SELECT {VOLUME_COLUMNS} WHERE volume > ?1 {page}"), (after, limit)),
            Some(disk) => {
                let sql = format!(
                    "SELECT {VOLUME_COLUMNS} JOIN replicas USING (volume) WHERE disk = ?3 AND volume > ?1 {page}"
                );
                many(tx, &sql, (after, limit, disk.as_bytes()))
            }
        })
    }

    pub fn volumes_in(&self, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
        self.db.read(|tx| {
            let mut found = Vec::new();
            for state in VolumeState::ALL.into_iter().filter(|state| states.contains(state)) {
                found.extend(rows(tx, &format!("SELECT {VOLUME_COLUMNS} WHERE state = '{state}'"), [])?);
            }
            found.sort_by_key(|volume| volume.volume);
            match states.contains(&VolumeState::Sealed) {
                true => add_replicas_of_most(tx, &mut found)?,
                false => add_replicas(tx, &mut found)?,
            }
            Ok(found)
        })
    }

    pub fn expired_leases(&self, now_ms: u64) -> Result<Vec<Volume>, CatalogError> {
        let now = int("the time", now_ms)?;
        let sql = format!(
            "SELECT {VOLUME_COLUMNS} WHERE state IN ('creating', 'open') AND lease_expires_ms <= ?1
             ORDER BY volume"
        );
        self.db.read(|tx| many(tx, &sql, [now]))
    }

    pub fn nodes(&self) -> Result<Vec<Node>, CatalogError> {
        self.db.read(|tx| {
            let mut statement =
                tx.prepare_cached("SELECT node, zone, rack, address, instance, last_seen_ms FROM nodes ORDER BY node")?;
            let rows = statement.query_map([], |row| {
                Ok(Node {
                    node: NodeId(row.get(0)?),
                    zone: row.get(1)?,
                    rack: row.get(2)?,
                    address: row.get(3)?,
                    instance: InstanceId(row.get(4)?),
                    last_seen_ms: number(row, 5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    pub fn disks(&self) -> Result<Vec<Disk>, CatalogError> {
        self.db.read(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT disk, node, path, state, reason, slot_bytes, volume_bytes, slots, free_slots, incarnation, nonce
                 FROM disks ORDER BY disk",
            )?;
            let rows = statement.query_map([], disk)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    pub fn settings(&self) -> Result<BTreeMap<String, String>, CatalogError> {
        self.db.read(|tx| {
            let mut statement = tx.prepare_cached("SELECT name, value FROM settings")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    pub fn locations(&self, id: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
        self.db.read(|tx| {
            let found = tx
                .prepare_cached("SELECT state, epoch, length FROM volumes WHERE volume = ?1")?
                .query_row([id.as_bytes()], |row| Ok((state(row, 0)?, number(row, 1)?, maybe_number(row, 2)?)))
                .optional()?;
            let Some((state, epoch, length)) = found else { return Ok(None) };
            let mut statement = tx.prepare_cached(
                "SELECT disk, node, zone, address FROM replicas JOIN disks USING (disk) JOIN nodes USING (node)
                 WHERE volume = ?1 ORDER BY place",
            )?;
            let rows = statement.query_map([id.as_bytes()], |row| {
                Ok(ReplicaLocation {
                    disk: DiskId(row.get(0)?),
                    node: NodeId(row.get(1)?),
                    zone: row.get(2)?,
                    address: row.get(3)?,
                })
            })?;
            let replicas = rows.collect::<Result<_, _>>()?;
            Ok(Some(VolumeLocations { state, epoch: WriteEpoch(epoch), length, replicas }))
        })
    }
}

pub(super) fn volume(tx: &Transaction<'_>, id: VolumeId) -> Result<Option<Volume>, CatalogError> {
    Ok(many(tx, &format!("SELECT {VOLUME_COLUMNS} WHERE volume = ?1"), [id.as_bytes()])?.pop())
}

/// The volumes that a query on [`VOLUME_COLUMNS`] finds, each with its replicas.
fn many(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Volume>, CatalogError> {
    let mut volumes = rows(tx, sql, params)?;
    add_replicas(tx, &mut volumes)?;
    Ok(volumes)
}

/// Volumes without their replicas.
fn rows(tx: &Transaction<'_>, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Volume>, CatalogError> {
    Ok(tx.prepare_cached(sql)?.query_map(params, row)?.collect::<Result<_, _>>()?)
}

/// Looks each volume's replicas up.
fn add_replicas(tx: &Transaction<'_>, volumes: &mut [Volume]) -> Result<(), CatalogError> {
    let mut replicas = tx.prepare_cached("SELECT disk FROM replicas WHERE volume = ?1 ORDER BY place")?;
    for volume in volumes {
        let disks = replicas.query_map([volume.volume.as_bytes()], |row| Ok(DiskId(row.get(0)?)))?;
        volume.replicas = disks.collect::<Result<_, _>>()?;
    }
    Ok(())
}

/// The same for most volumes of the table, in the order of their ids: goes once through all replicas beside them.
fn add_replicas_of_most(tx: &Transaction<'_>, volumes: &mut [Volume]) -> Result<(), CatalogError> {
    let mut replicas = tx.prepare_cached("SELECT volume, disk FROM replicas ORDER BY volume, place")?;
    let mut replicas = replicas.query([])?;
    let mut volumes = volumes.iter_mut().peekable();
    while let Some(row) = replicas.next()? {
        let id = VolumeId(row.get(0)?);
        while volumes.next_if(|volume| volume.volume < id).is_some() {}
        let Some(volume) = volumes.peek_mut().filter(|volume| volume.volume == id) else { continue };
        volume.replicas.push(DiskId(row.get(1)?));
    }
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<Volume> {
    Ok(Volume {
        volume: VolumeId(row.get(0)?),
        state: state(row, 1)?,
        epoch: WriteEpoch(number(row, 2)?),
        capacity: number(row, 3)?,
        length: maybe_number(row, 4)?,
        digest: row.get(5)?,
        holder: row.get::<_, Option<[u8; 16]>>(6)?.map(InstanceId),
        lease_expires_ms: maybe_number(row, 7)?,
        seal_reason: row.get(8)?,
        replicas: Vec::new(),
    })
}

fn disk(row: &Row<'_>) -> rusqlite::Result<Disk> {
    let info = DiskInfo {
        disk: DiskId(row.get(0)?),
        node: NodeId(row.get(1)?),
        path: row.get(2)?,
        state: row.get(3)?,
        reason: row.get(4)?,
        slot_bytes: number(row, 5)?,
        volume_bytes: number(row, 6)?,
        slots: number(row, 7)?,
        free_slots: number(row, 8)?,
    };
    Ok(Disk { info, incarnation: number(row, 9)?, nonce: row.get::<_, i64>(10)?.cast_unsigned() })
}

fn state(row: &Row<'_>, column: usize) -> rusqlite::Result<VolumeState> {
    let text: String = row.get(column)?;
    VolumeState::parse(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn maybe_number(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    match row.get::<_, Option<i64>>(column)? {
        None => Ok(None),
        Some(_) => number(row, column).map(Some),
    }
}
