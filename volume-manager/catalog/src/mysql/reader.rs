//! Reading the table. What belongs together is read by one statement, so that it is of one moment.

use std::collections::BTreeMap;

use holdfast_libs_types::{DiskId, InstanceId, NodeId, VolumeId, WriteEpoch};
use mysql_async::Row;

use super::database::{Database, Transaction, Values, bytes, column, maybe_bytes, maybe_number, number, text, values};
use crate::CatalogError;
use crate::rules::LeaderRow;
use crate::table::{Disk, DiskInfo, Leader, Node, ReplicaLocation, Term, Volume, VolumeLocations, VolumeState};

/// The columns that [`volumes`] reads; one row for each replica, or one without a replica.
const VOLUMES: &str =
    "SELECT v.volume, state, epoch, capacity, length, digest, holder, lease_expires_ms, seal_reason, r.disk
                       FROM volumes v LEFT JOIN replicas r ON r.volume = v.volume";

const IN_ORDER: &str = "ORDER BY v.volume, r.place";

pub(super) async fn term(database: &Database) -> Result<Term, CatalogError> {
    let mut session = database.session().await?;
    decode_term(session.first("SELECT term FROM leader WHERE one = 1", values![]).await?)
}

pub(super) fn decode_term(row: Option<Row>) -> Result<Term, CatalogError> {
    let mut row = row.ok_or_else(|| CatalogError::Damaged("the leader's row is gone".to_owned()))?;
    Ok(Term(number(&mut row, 0, "the leader's term")?))
}

/// Of the leader's row, with the database's clock.
pub(super) const LEADER: &str =
    "SELECT term, holder, address, expires_ms, CAST(unix_timestamp(now(3)) * 1000 AS SIGNED) FROM leader WHERE one = 1";

pub(super) fn decode_leader(row: Option<Row>) -> Result<LeaderRow, CatalogError> {
    let mut row = row.ok_or_else(|| CatalogError::Damaged("the leader's row is gone".to_owned()))?;
    let row = &mut row;
    Ok(LeaderRow {
        term: Term(number(row, 0, "the leader's term")?),
        holder: maybe_text(row, 1, "the leader's name")?,
        address: maybe_text(row, 2, "the leader's address")?,
        expires_ms: column(row, 3, "the end of the leader's lease")?,
        now_ms: column(row, 4, "the database's time")?,
    })
}

pub(super) async fn leader(database: &Database) -> Result<Option<Leader>, CatalogError> {
    let mut session = database.session().await?;
    Ok(decode_leader(session.first(LEADER, values![]).await?)?.leader())
}

pub(super) async fn generation(database: &Database) -> Result<u32, CatalogError> {
    let mut session = database.session().await?;
    let row = session.first("SELECT generation FROM leader WHERE one = 1", values![]).await?;
    let mut row = row.ok_or_else(|| CatalogError::Damaged("the leader's row is gone".to_owned()))?;
    column(&mut row, 0, "the catalog's generation")
}

/// One volume, kept from changing until the transaction ends.
pub(super) async fn lock(tx: &mut Transaction<'_>, id: VolumeId) -> Result<Option<Volume>, CatalogError> {
    // The row first: a join would also lock the table of replicas where it finds nothing.
    let there = tx.first("SELECT 1 FROM volumes WHERE volume = ? FOR UPDATE", values![id.as_bytes()]).await?;
    if there.is_none() {
        return Ok(None);
    }
    let sql = format!("{VOLUMES} WHERE v.volume = ? {IN_ORDER}");
    Ok(fold(tx.rows(&sql, values![id.as_bytes()]).await?)?.pop())
}

pub(super) async fn volume(database: &Database, id: VolumeId) -> Result<Option<Volume>, CatalogError> {
    Ok(volumes(database, "WHERE v.volume = ?", values![id.as_bytes()]).await?.pop())
}

pub(super) async fn volumes_in(database: &Database, states: &[VolumeState]) -> Result<Vec<Volume>, CatalogError> {
    if states.is_empty() {
        return Ok(Vec::new());
    }
    let list = vec!["?"; states.len()].join(", ");
    let names = states.iter().map(|state| mysql_async::Value::from(state.as_str())).collect();
    volumes(database, &format!("WHERE state IN ({list})"), names).await
}

pub(super) async fn volumes_after(
    database: &Database,
    after: Option<VolumeId>,
    on: Option<DiskId>,
    limit: usize,
) -> Result<Vec<Volume>, CatalogError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // Every id is above the empty one.
    let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    let (from, values) = match on {
        None => ("volumes WHERE", values![after, limit]),
        Some(disk) => ("replicas WHERE disk = ? AND", values![disk.as_bytes(), after, limit]),
    };
    let page = format!("SELECT volume FROM {from} volume > ? ORDER BY volume LIMIT ?");
    volumes(database, &format!("JOIN ({page}) page ON page.volume = v.volume"), values).await
}

/// The volumes that a condition holds for, in order of their ids.
pub(super) async fn volumes(database: &Database, filter: &str, values: Values) -> Result<Vec<Volume>, CatalogError> {
    let mut session = database.session().await?;
    fold(session.rows(&format!("{VOLUMES} {filter} {IN_ORDER}"), values).await?)
}

fn fold(rows: Vec<Row>) -> Result<Vec<Volume>, CatalogError> {
    let mut volumes: Vec<Volume> = Vec::new();
    for mut row in rows {
        let id = VolumeId(bytes(&mut row, 0, "a volume's id")?);
        let replica = maybe_bytes(&mut row, 9, "a replica's disk")?.map(DiskId);
        match volumes.last_mut() {
            Some(volume) if volume.volume == id => volume.replicas.extend(replica),
            _ => volumes.push(decode(row, id, replica)?),
        }
    }
    Ok(volumes)
}

fn decode(mut row: Row, volume: VolumeId, replica: Option<DiskId>) -> Result<Volume, CatalogError> {
    let row = &mut row;
    Ok(Volume {
        volume,
        state: VolumeState::parse(&text(row, 1, "a volume's state")?)?,
        epoch: WriteEpoch(number(row, 2, "a volume's epoch")?),
        capacity: number(row, 3, "a volume's capacity")?,
        length: maybe_number(row, 4, "a volume's length")?,
        digest: maybe_bytes(row, 5, "a volume's digest")?,
        holder: maybe_bytes(row, 6, "a lease's holder")?.map(InstanceId),
        lease_expires_ms: maybe_number(row, 7, "a lease's end")?,
        seal_reason: maybe_text(row, 8, "why a volume was sealed")?,
        replicas: replica.into_iter().collect(),
    })
}

fn maybe_text(row: &mut Row, at: usize, what: &str) -> Result<Option<String>, CatalogError> {
    let found: Option<Vec<u8>> = column(row, at, what)?;
    let decode = |bytes| String::from_utf8(bytes).map_err(|_| CatalogError::Damaged(format!("{what} is no text")));
    found.map(decode).transpose()
}

pub(super) async fn nodes(database: &Database) -> Result<Vec<Node>, CatalogError> {
    let mut session = database.session().await?;
    let sql = "SELECT node, zone, rack, address, instance, last_seen_ms FROM nodes ORDER BY node";
    let decode = |mut row: Row| {
        let row = &mut row;
        Ok(Node {
            node: NodeId(text(row, 0, "a node's name")?),
            zone: text(row, 1, "a node's zone")?,
            rack: text(row, 2, "a node's rack")?,
            address: text(row, 3, "a node's address")?,
            instance: InstanceId(bytes(row, 4, "a node's instance")?),
            last_seen_ms: number(row, 5, "the time a node was seen")?,
        })
    };
    session.rows(sql, values![]).await?.into_iter().map(decode).collect()
}

pub(super) async fn disks(database: &Database) -> Result<Vec<Disk>, CatalogError> {
    let mut session = database.session().await?;
    let sql = "SELECT disk, node, path, state, reason, slot_bytes, volume_bytes, slots, free_slots, incarnation, nonce
               FROM disks ORDER BY disk";
    let decode = |mut row: Row| {
        let row = &mut row;
        let info = DiskInfo {
            disk: DiskId(bytes(row, 0, "a disk's id")?),
            node: NodeId(text(row, 1, "a disk's node")?),
            path: text(row, 2, "a disk's path")?,
            state: text(row, 3, "a disk's state")?,
            reason: maybe_text(row, 4, "why a disk is not healthy")?,
            slot_bytes: number(row, 5, "bytes of a slot")?,
            volume_bytes: number(row, 6, "bytes of a volume")?,
            slots: number(row, 7, "slots")?,
            free_slots: number(row, 8, "free slots")?,
        };
        let incarnation = number(row, 9, "incarnation")?;
        Ok(Disk { info, incarnation, nonce: column::<i64>(row, 10, "a nonce")?.cast_unsigned() })
    };
    session.rows(sql, values![]).await?.into_iter().map(decode).collect()
}

pub(super) async fn settings(database: &Database) -> Result<BTreeMap<String, String>, CatalogError> {
    let mut session = database.session().await?;
    let decode = |mut row: Row| Ok((text(&mut row, 0, "a setting's key")?, text(&mut row, 1, "a setting")?));
    session.rows("SELECT name, value FROM settings", values![]).await?.into_iter().map(decode).collect()
}

pub(super) async fn locations(database: &Database, id: VolumeId) -> Result<Option<VolumeLocations>, CatalogError> {
    let mut session = database.session().await?;
    let sql = "SELECT v.state, epoch, length, r.disk, n.node, n.zone, n.address FROM volumes v
               LEFT JOIN replicas r ON r.volume = v.volume LEFT JOIN disks d ON d.disk = r.disk
               LEFT JOIN nodes n ON n.node = d.node WHERE v.volume = ? ORDER BY r.place";
    let mut found: Option<VolumeLocations> = None;
    for mut row in session.rows(sql, values![id.as_bytes()]).await? {
        let row = &mut row;
        let locations = match &mut found {
            Some(found) => found,
            None => found.insert(VolumeLocations {
                state: VolumeState::parse(&text(row, 0, "a volume's state")?)?,
                epoch: WriteEpoch(number(row, 1, "a volume's epoch")?),
                length: maybe_number(row, 2, "a volume's length")?,
                replicas: Vec::new(),
            }),
        };
        if let Some(disk) = maybe_bytes(row, 3, "a replica's disk")?.map(DiskId) {
            locations.replicas.push(ReplicaLocation {
                disk,
                node: NodeId(text(row, 4, "a replica's node")?),
                zone: text(row, 5, "a replica's zone")?,
                address: text(row, 6, "a replica's address")?,
            });
        }
    }
    Ok(found)
}
