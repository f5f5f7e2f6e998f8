//! What stands in the databases, and how it is made and recognized.
//!
//! Every database has a table `meta` that says what it is: schema version, cell, `index` or `table`, and how many shards the
//! index has; an index database also which shard it is. The shards split the hashes evenly by their first 16 bits, in order. Their number
//! is settled when the catalog is made: with another one, rows would be looked for where they are not.

use holdfast_libs_types::CellId;

use super::database::{Database, Session, column, retry, text, values};
use crate::CatalogError;

/// Who makes the schema holds this lock, so that two at once do not.
const MAKING: &str = "holdfast_schema";

/// The largest statement is an insert of 256 rows.
const LEAST_PACKET_BYTES: u64 = 1 << 20;

/// A table with its columns. Ids are random bytes, so they cluster nowhere; they are BINARY, which compares bytes. Names
/// are VARBINARY for the same reason: a text collation takes a trailing blank for nothing.
const INDEX: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS fences (
        small INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
        volume BINARY(16) NOT NULL UNIQUE,
        epoch BIGINT NOT NULL,
        closed TINYINT NOT NULL,
        highest_end BIGINT NOT NULL
    ) ENGINE = InnoDB",
    // InnoDB keeps the row in the tree of the primary key: the hash is there once. `small` numbers the volume in this
    // shard. `touched` is in days since 1970.
    "CREATE TABLE IF NOT EXISTS blocks (
        hash BINARY(32) NOT NULL PRIMARY KEY,
        small INT UNSIGNED NOT NULL,
        start BIGINT NOT NULL,
        length INT UNSIGNED NOT NULL,
        plain_len INT UNSIGNED NOT NULL,
        touched SMALLINT UNSIGNED NOT NULL
    ) ENGINE = InnoDB",
    // Used in shard 0 only.
    "CREATE TABLE IF NOT EXISTS wrapped_keys (
        id BINARY(16) NOT NULL PRIMARY KEY,
        wrapped VARBINARY(1024) NOT NULL,
        generation BIGINT NOT NULL UNIQUE
    ) ENGINE = InnoDB",
];

const TABLE: [&str; 7] = [
    "CREATE TABLE IF NOT EXISTS leader (
        one TINYINT NOT NULL PRIMARY KEY,
        term BIGINT NOT NULL,
        generation BIGINT NOT NULL,
        holder VARBINARY(255),
        address VARBINARY(1024),
        expires_ms BIGINT
    ) ENGINE = InnoDB",
    "INSERT IGNORE INTO leader (one, term, generation) VALUES (1, 0, 1)",
    "CREATE TABLE IF NOT EXISTS volumes (
        volume BINARY(16) NOT NULL PRIMARY KEY,
        state VARBINARY(16) NOT NULL,
        epoch BIGINT NOT NULL,
        capacity BIGINT NOT NULL,
        length BIGINT,
        digest BINARY(32),
        holder BINARY(16),
        lease_expires_ms BIGINT,
        seal_reason BLOB,
        KEY volumes_by_state (state)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS nodes (
        node VARBINARY(255) NOT NULL PRIMARY KEY,
        zone VARBINARY(255) NOT NULL,
        rack VARBINARY(255) NOT NULL,
        address BLOB NOT NULL,
        instance BINARY(16) NOT NULL,
        last_seen_ms BIGINT NOT NULL
    ) ENGINE = InnoDB",
    // Nonces are 64 random bits, stored as the signed number with the same bits.
    "CREATE TABLE IF NOT EXISTS disks (
        disk BINARY(16) NOT NULL PRIMARY KEY,
        node VARBINARY(255) NOT NULL,
        path BLOB NOT NULL,
        incarnation BIGINT NOT NULL,
        nonce BIGINT NOT NULL,
        state BLOB NOT NULL,
        reason BLOB,
        slot_bytes BIGINT NOT NULL,
        volume_bytes BIGINT NOT NULL,
        slots BIGINT NOT NULL,
        free_slots BIGINT NOT NULL,
        FOREIGN KEY (node) REFERENCES nodes (node)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS replicas (
        volume BINARY(16) NOT NULL,
        place SMALLINT UNSIGNED NOT NULL,
        disk BINARY(16) NOT NULL,
        PRIMARY KEY (volume, place),
        UNIQUE (disk, volume),
        FOREIGN KEY (volume) REFERENCES volumes (volume),
        FOREIGN KEY (disk) REFERENCES disks (disk)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS settings (
        name VARBINARY(255) NOT NULL PRIMARY KEY,
        value BLOB NOT NULL
    ) ENGINE = InnoDB",
];

/// What a database must say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub cell: CellId,
    pub part: Part,
    /// How many shards the index has.
    pub shards: usize,
}

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Table,
    /// The shard with this number, from 0.
    Index(usize),
}

impl Part {
    fn text(self) -> String {
        match self {
            Self::Table => "the replication table".to_owned(),
            Self::Index(shard) => format!("shard {shard} of the index"),
        }
    }

    /// Newest version known. Version 1 of the table had no settings.
    fn version(self) -> i64 {
        match self {
            Self::Table => 2,
            Self::Index(_) => 1,
        }
    }

    fn statements(self) -> &'static [&'static str] {
        match self {
            Self::Table => &TABLE,
            Self::Index(_) => &INDEX,
        }
    }
}

/// What schema a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// None, or one that is half made.
    Nothing,
    /// One from which the statements, all of which leave alone what is there, make the current one.
    Older,
    Current,
}

/// Checks server and schema; with `make`, a schema that is missing or older is made.
///
/// # Errors
/// `Setting` when the server does not keep what it acknowledges, `Missing`, `NewerSchema`, `ForeignCell`, `NotCatalog`.
pub(super) async fn prepare(database: &Database, wanted: Identity, make: bool) -> Result<(), CatalogError> {
    retry(database, || async {
        let mut session = database.session().await?;
        check_settings(&mut session, database.place()).await?;
        if check_meta(&mut session, database.place(), wanted).await? == Found::Current {
            return Ok(());
        }
        if !make {
            return Err(CatalogError::Missing { place: database.place().to_owned() });
        }
        make_schema(&mut session, database.place(), wanted).await
    })
    .await
}

/// A schema is made statement by statement, each of which MySQL commits by itself. The rows of `meta` come last, together:
/// without them it is unfinished, and made again.
async fn make_schema(session: &mut Session, place: &str, wanted: Identity) -> Result<(), CatalogError> {
    // Per server, so the database's name is in it; given back when the session ends at the latest.
    let lock = "SELECT GET_LOCK(CONCAT(?, '_', DATABASE()), 10)";
    let mut got = session.first(lock, values![MAKING]).await?.ok_or(CatalogError::Busy)?;
    if column::<Option<i64>>(&mut got, 0, "a lock's answer")? != Some(1) {
        return Err(CatalogError::Busy);
    }
    let made = make_locked(session, place, wanted).await;
    session.first("SELECT RELEASE_LOCK(CONCAT(?, '_', DATABASE()))", values![MAKING]).await?;
    made
}

async fn make_locked(session: &mut Session, place: &str, wanted: Identity) -> Result<(), CatalogError> {
    let found = check_meta(session, place, wanted).await?;
    if found == Found::Current {
        return Ok(());
    }
    session
        .run(
            "CREATE TABLE IF NOT EXISTS meta (name VARBINARY(32) NOT NULL PRIMARY KEY, value VARBINARY(255) NOT NULL)
             ENGINE = InnoDB",
        )
        .await?;
    for statement in wanted.part.statements() {
        session.run(statement).await?;
    }
    let mut tx = session.begin().await?;
    let version = wanted.part.version().to_string();
    if found == Found::Older {
        tx.change("UPDATE meta SET value = ? WHERE name = 'schema_version'", values![version]).await?;
        return tx.commit().await;
    }
    let rows = [
        ("schema_version", version),
        ("cell", wanted.cell.to_string()),
        ("part", wanted.part.text()),
        ("shards", wanted.shards.to_string()),
    ];
    for (name, value) in rows {
        tx.change("INSERT INTO meta (name, value) VALUES (?, ?)", values![name, value]).await?;
    }
    tx.commit().await
}

/// Whether the schema is there; fails when it is another one.
async fn check_meta(session: &mut Session, place: &str, wanted: Identity) -> Result<Found, CatalogError> {
    let list = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
    let rows = session.rows(list, values![]).await?;
    let tables = rows.into_iter().map(|mut row| text(&mut row, 0, "a table's name")).collect::<Result<Vec<_>, _>>()?;
    if tables.is_empty() {
        return Ok(Found::Nothing);
    }
    let not = |what: String| CatalogError::NotCatalog { place: place.to_owned(), what };
    if !tables.iter().any(|table| table == "meta") {
        return Err(not("is the database of another program".to_owned()));
    }
    let mut said = std::collections::HashMap::new();
    for mut row in session.rows("SELECT name, value FROM meta", values![]).await? {
        said.insert(text(&mut row, 0, "a name in meta")?, text(&mut row, 1, "a value in meta")?);
    }
    if said.is_empty() {
        return Ok(Found::Nothing);
    }
    recognize(place, &said, wanted)
}

/// Compares what a database says of itself with what it must be.
fn recognize(
    place: &str,
    said: &std::collections::HashMap<String, String>,
    wanted: Identity,
) -> Result<Found, CatalogError> {
    let not = |what: String| CatalogError::NotCatalog { place: place.to_owned(), what };
    let get = |name: &str| said.get(name).ok_or_else(|| not(format!("`meta` names no {name}")));
    let version: i64 = get("schema_version")?
        .parse()
        .map_err(|_| not("`meta` holds a schema version that is no number".to_owned()))?;
    let known = wanted.part.version();
    if version > known {
        return Err(CatalogError::NewerSchema { place: place.to_owned(), found: version, known });
    }
    if version < 1 {
        return Err(not(format!("schema version {version} is older than {known} and unknown here")));
    }
    let cell: CellId = get("cell")?.parse().map_err(|_| not("`meta` holds a cell that is no id".to_owned()))?;
    if cell != wanted.cell {
        return Err(CatalogError::ForeignCell { place: place.to_owned(), found: cell, wanted: wanted.cell });
    }
    let shards = get("shards")?;
    if *shards != wanted.shards.to_string() {
        return Err(not(format!(
            "was made for an index of {shards} databases, {} are configured; list all of them in their order, the number stays what \
             it was",
            wanted.shards
        )));
    }
    let part = get("part")?;
    if *part != wanted.part.text() {
        return Err(not(format!(
            "is {part}, but stands where {} should; list the databases in their order",
            wanted.part.text()
        )));
    }
    Ok(if version < known { Found::Older } else { Found::Current })
}

/// Refuses a server that may forget what it acknowledged.
async fn check_settings(session: &mut Session, place: &str) -> Result<(), CatalogError> {
    let names = "innodb_flush_log_at_trx_commit, log_bin, sync_binlog, innodb_doublewrite, default_storage_engine, \
                 max_allowed_packet";
    let list = names.split(", ").map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({list})");
    let mut found = std::collections::HashMap::new();
    for mut row in session.rows(&sql, values![]).await? {
        found.insert(text(&mut row, 0, "a setting's name")?, text(&mut row, 1, "a setting")?);
    }
    judge_settings(place, &found)
}

fn judge_settings(place: &str, found: &std::collections::HashMap<String, String>) -> Result<(), CatalogError> {
    let get = |name: &str| found.get(name).map_or("unknown", String::as_str);
    let wrong = |name: &'static str, wanted: &'static str| {
        Err(CatalogError::Setting { place: place.to_owned(), name, wanted, found: get(name).to_owned() })
    };
    let on = |name: &str| ["ON", "1", "YES"].contains(&get(name).to_ascii_uppercase().as_str());
    if get("innodb_flush_log_at_trx_commit") != "1" {
        return wrong("innodb_flush_log_at_trx_commit", "1");
    }
    if get("log_bin") != "OFF" && get("sync_binlog") != "1" {
        return wrong("sync_binlog", "1, since log_bin is on");
    }
    if !on("innodb_doublewrite") {
        return wrong("innodb_doublewrite", "ON");
    }
    if !get("default_storage_engine").eq_ignore_ascii_case("innodb") {
        return wrong("default_storage_engine", "InnoDB");
    }
    if get("max_allowed_packet").parse::<u64>().unwrap_or(0) < LEAST_PACKET_BYTES {
        return wrong("max_allowed_packet", "at least 1048576");
    }
    Ok(())
}
