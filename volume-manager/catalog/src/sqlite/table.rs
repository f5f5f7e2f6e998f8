//! `table.db`: replication table and inventory.

mod inventory;
mod reader;
pub(super) mod recovery;
mod seal;
#[cfg(test)]
mod tests;
mod volumes;

use std::path::Path;
use std::time::Duration;

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{CellId, DiskId, VolumeId};
use rusqlite::{OptionalExtension, Transaction};

pub use reader::TableFileReader;

use super::database::{Database, Schema};
use crate::number::{int, uint};
use crate::rules::LeaderRow;
use crate::table::{Candidate, Leadership, Term, Volume};
use crate::{CatalogError, rules};

pub(crate) const SCHEMA: Schema = Schema {
    file: "table.db",
    version: 4,
    // Nonces are 64 random bits, stored as the signed number with the same bits.
    create: "
        CREATE TABLE leader (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            term INTEGER NOT NULL,
            generation INTEGER NOT NULL,
            holder TEXT,
            address TEXT,
            expires_ms INTEGER
        ) STRICT;
        INSERT INTO leader (one, term, generation) VALUES (1, 0, 1);
        CREATE TABLE volumes (
            volume BLOB PRIMARY KEY NOT NULL,
            state TEXT NOT NULL,
            epoch INTEGER NOT NULL,
            capacity INTEGER NOT NULL,
            length INTEGER,
            digest BLOB,
            holder BLOB,
            lease_expires_ms INTEGER,
            seal_reason TEXT
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX volumes_by_state ON volumes (state);
        CREATE TABLE nodes (
            node TEXT PRIMARY KEY NOT NULL,
            zone TEXT NOT NULL,
            rack TEXT NOT NULL,
            address TEXT NOT NULL,
            instance BLOB NOT NULL,
            last_seen_ms INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE disks (
            disk BLOB PRIMARY KEY NOT NULL,
            node TEXT NOT NULL REFERENCES nodes (node),
            path TEXT NOT NULL,
            incarnation INTEGER NOT NULL,
            nonce INTEGER NOT NULL,
            state TEXT NOT NULL,
            reason TEXT,
            slot_bytes INTEGER NOT NULL,
            volume_bytes INTEGER NOT NULL,
            slots INTEGER NOT NULL,
            free_slots INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE replicas (
            volume BLOB NOT NULL REFERENCES volumes (volume),
            place INTEGER NOT NULL,
            disk BLOB NOT NULL REFERENCES disks (disk),
            PRIMARY KEY (volume, place),
            UNIQUE (disk, volume)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE settings (
            name TEXT PRIMARY KEY NOT NULL,
            value TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;
    ",
    migrations: &[
        // The leader's lease.
        (
            2,
            "ALTER TABLE leader ADD COLUMN holder TEXT;
             ALTER TABLE leader ADD COLUMN address TEXT;
             ALTER TABLE leader ADD COLUMN expires_ms INTEGER;",
        ),
        // What the operator asked for.
        (3, "CREATE TABLE settings (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL) STRICT, WITHOUT ROWID;"),
    ],
};

/// `table.db`: what `ReplicationTable` promises, as calls that block on the disk.
#[derive(Debug, Clone)]
pub struct TableFile {
    db: Database,
    clock: WallClock,
    reader: TableFileReader,
}

impl TableFile {
    pub fn open(dir: &Path, cell: CellId, clock: WallClock) -> Result<Self, CatalogError> {
        let db = Database::open(dir, &SCHEMA, cell)?;
        Ok(Self { reader: TableFileReader::new(db.clone(), clock.clone()), db, clock })
    }

    pub fn open_read_only(dir: &Path, cell: CellId, clock: WallClock) -> Result<TableFileReader, CatalogError> {
        Ok(TableFileReader::new(Database::open_read_only(dir, &SCHEMA, cell)?, clock))
    }

    pub fn take_leadership(&self) -> Result<Term, CatalogError> {
        self.db.write(|tx| {
            tx.execute("UPDATE leader SET term = term + 1, holder = NULL, address = NULL, expires_ms = NULL", [])?;
            current_term(tx)
        })
    }

    pub fn acquire_leadership(&self, candidate: &Candidate, ttl: Duration) -> Result<Leadership, CatalogError> {
        rules::check_candidate(candidate)?;
        self.db.write(|tx| {
            let row = leader_row(tx, &self.clock)?;
            if let Some(leader) = rules::in_the_way(&row, candidate) {
                return Ok(Leadership::Held(leader));
            }
            tx.execute(
                "UPDATE leader SET term = term + 1, holder = ?1, address = ?2, expires_ms = ?3",
                (&candidate.holder, &candidate.address, row.now_ms + rules::lease_ms(ttl)),
            )?;
            Ok(Leadership::Taken(current_term(tx)?))
        })
    }

    pub fn renew_leadership(&self, term: Term, ttl: Duration) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            let expires = leader_row(tx, &self.clock)?.now_ms + rules::lease_ms(ttl);
            tx.execute("UPDATE leader SET expires_ms = ?1", [expires])?;
            Ok(())
        })
    }

    pub fn release_leadership(&self, term: Term) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            tx.execute("UPDATE leader SET holder = NULL, address = NULL, expires_ms = NULL", [])?;
            Ok(())
        })
    }

    pub fn raise_generation(&self, term: Term) -> Result<u32, CatalogError> {
        self.write(term, |tx| {
            tx.execute("UPDATE leader SET generation = generation + 1", [])?;
            generation(tx)
        })
    }

    pub fn set_setting(&self, term: Term, key: &str, value: Option<&str>) -> Result<(), CatalogError> {
        rules::check_setting(key, value)?;
        self.write(term, |tx| {
            match value {
                Some(value) => tx
                    .prepare_cached("INSERT OR REPLACE INTO settings (name, value) VALUES (?1, ?2)")?
                    .execute((key, value))?,
                None => tx.prepare_cached("DELETE FROM settings WHERE name = ?1")?.execute([key])?,
            };
            Ok(())
        })
    }

    /// Writes what a copy that is put back begins with; `work` gets the term and the generation of the copy.
    pub(super) fn restored(
        &self,
        work: impl FnOnce(&Transaction<'_>, Term, u32) -> Result<(), CatalogError>,
    ) -> Result<(), CatalogError> {
        self.db.write(|tx| work(tx, current_term(tx)?, generation(tx)?))?;
        self.db.settle()
    }

    pub fn reader(&self) -> &TableFileReader {
        &self.reader
    }

    /// Runs `work` in a write transaction of the current leader.
    fn write<T>(
        &self,
        term: Term,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, CatalogError>,
    ) -> Result<T, CatalogError> {
        self.db.write(|tx| {
            rules::check_term(term, current_term(tx)?)?;
            work(tx)
        })
    }
}

fn current_term(tx: &Transaction<'_>) -> Result<Term, CatalogError> {
    let term = tx.prepare_cached("SELECT term FROM leader")?.query_row([], |row| row.get(0))?;
    Ok(Term(uint("the leader's term", term)?))
}

/// The files are on this machine, so its clock is that of all who use them.
fn leader_row(tx: &Transaction<'_>, clock: &WallClock) -> Result<LeaderRow, CatalogError> {
    let now_ms = i64::try_from(clock.unix_ms()).unwrap_or(i64::MAX / 2);
    let term = current_term(tx)?;
    let mut statement = tx.prepare_cached("SELECT holder, address, expires_ms FROM leader")?;
    let row = statement.query_row([], |row| {
        Ok(LeaderRow { term, holder: row.get(0)?, address: row.get(1)?, expires_ms: row.get(2)?, now_ms })
    });
    Ok(row?)
}

fn generation(tx: &Transaction<'_>) -> Result<u32, CatalogError> {
    let generation: i64 = tx.query_row("SELECT generation FROM leader", [], |row| row.get(0))?;
    u32::try_from(generation).map_err(|_| CatalogError::Damaged(format!("the catalog's generation is {generation}")))
}

/// The volume, which must be there.
fn known(tx: &Transaction<'_>, volume: VolumeId) -> Result<Volume, CatalogError> {
    reader::volume(tx, volume)?.ok_or(CatalogError::UnknownVolume(volume))
}

/// Replaces a volume's list of replicas by one that was checked.
fn write_replicas(tx: &Transaction<'_>, volume: VolumeId, disks: &[DiskId]) -> Result<(), CatalogError> {
    tx.prepare_cached("DELETE FROM replicas WHERE volume = ?1")?.execute([volume.as_bytes()])?;
    let mut there = tx.prepare_cached("SELECT 1 FROM disks WHERE disk = ?1")?;
    let mut add = tx.prepare_cached("INSERT INTO replicas (volume, place, disk) VALUES (?1, ?2, ?3)")?;
    for (place, disk) in disks.iter().enumerate() {
        if there.query_row([disk.as_bytes()], |_| Ok(())).optional()?.is_none() {
            return Err(CatalogError::UnknownDisk(*disk));
        }
        add.execute((volume.as_bytes(), int("place", place as u64)?, disk.as_bytes()))?;
    }
    Ok(())
}
