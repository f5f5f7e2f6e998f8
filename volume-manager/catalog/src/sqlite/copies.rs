//! Copies of a catalog in SQLite files: made while it is in use, put back while it is not.
//!
//! The two files have no transaction together, so a copy is of two moments. The index is copied first, then the table: a volume
//! is in the table before its fence row is in the index, so a copied row never points into a volume that the copied table does not
//! know. Of a volume that was open the copied index may lack rows, as it lacks everything that was written since. That stands on the disks,
//! and so a copy that is put back counts as lost until it was rebuilt from them (`docs/catalog.md`).

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use holdfast_libs_surroundings::WallClock;
use holdfast_libs_types::{CellId, told};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::index::IndexFile;
use super::table::TableFile;
use crate::table::Term;
use crate::{CatalogError, rules};

const INDEX: &str = "index.db";
const TABLE: &str = "table.db";
const MANIFEST: &str = "backup.json";

/// Version of the manifest.
const VERSION: u32 = 1;

/// Largest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;

/// What a copy says of itself; it stands in `backup.json`, written last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Version of this document.
    pub version: u32,
    /// The cell whose catalog it is.
    pub cell: CellId,
    /// When it was made, Unix milliseconds.
    pub made_ms: u64,
    /// `index.db`.
    pub index: CopiedFile,
    /// `table.db`.
    pub table: CopiedFile,
}

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in hex.
    pub sha256: String,
}

/// What became of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The copy.
    pub backup: Backup,
    /// Where the files are that stood there before.
    pub replaced: Option<PathBuf>,
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> CatalogError + '_ {
    move |source| CatalogError::File { path: path.to_owned(), source }
}

fn refused<T>(path: &Path, what: impl Into<String>) -> Result<T, CatalogError> {
    Err(CatalogError::NotCatalog { place: path.display().to_string(), what: what.into() })
}

/// Copies the catalog in `folder` into the new folder `into`, also while daemons use it.
///
/// # Errors
/// `Missing` when there is no catalog; `File` when `into` exists or cannot be written; `ForeignCell`, `NewerSchema`,
/// `NotCatalog`, `Sql`.
pub fn back_up(folder: &Path, cell: CellId, into: &Path, now_ms: u64) -> Result<Backup, CatalogError> {
    fs::create_dir(into).map_err(failed(into))?;
    let copied = copy_out(folder, cell, into, now_ms);
    if copied.is_err() {
        // Without its manifest it is no copy; nobody needs the rest.
        let _ = fs::remove_dir_all(into);
    }
    copied
}

fn copy_out(folder: &Path, cell: CellId, into: &Path, now_ms: u64) -> Result<Backup, CatalogError> {
    IndexFile::open_read_only(folder, cell, WallClock::system())?.copy_into(&into.join(INDEX))?;
    TableFile::open_read_only(folder, cell, WallClock::system())?.copy_into(&into.join(TABLE))?;
    let [index, table] = [INDEX, TABLE].map(|name| into.join(name)).map(|path| {
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
        digest(&path, &mut std::io::sink())
    });
    let backup = Backup { version: VERSION, cell, made_ms: now_ms, index: index?, table: table? };
    let manifest = into.join(MANIFEST);
    let text = serde_json::to_vec_pretty(&backup).map_err(|error| failed(&manifest)(error.into()))?;
    File::create_new(&manifest)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .map_err(failed(&manifest))?;
    flush_folder(into)?;
    Ok(backup)
}

/// Puts the copy in `from` into `folder`, marked as lost, with a term and a generation above those of the copy and of what stood
/// there. Frontends and volume manager must be stopped, and started afterwards.
///
/// # Errors
/// `Led` when a volume manager leads there; `Exists` when a catalog stands there, unless `replace` has it moved aside;
/// `NotCatalog` when the copy is not what its manifest says; `ForeignCell`, `NewerSchema`, `File`, `Sql`.
pub fn restore(from: &Path, folder: &Path, cell: CellId, replace: bool, now_ms: u64) -> Result<Restored, CatalogError> {
    let backup = manifest(from, cell)?;
    let is_new = !folder.exists();
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let there = [INDEX, TABLE].map(|name| folder.join(name)).into_iter().find(|path| path.exists());
    let (mut term, mut generation) = (Term(0), 0);
    if let Some(there) = &there {
        match stand(folder, cell) {
            Ok(stand) => (term, generation) = stand,
            Err(error @ (CatalogError::Led { .. } | CatalogError::ForeignCell { .. })) => return Err(error),
            // What cannot be read is what a copy is for. The nodes know the term, too.
            Err(_) => {}
        }
        if !replace {
            return Err(CatalogError::Exists { path: there.clone() });
        }
    }
    let made = folder.join("restoring");
    if made.exists() {
        fs::remove_dir_all(&made).map_err(failed(&made))?;
    }
    fs::create_dir(&made).map_err(failed(&made))?;
    if let Err(error) = make_ready(from, &made, &backup, term, generation) {
        // Nothing stands in its place yet, and nobody needs half a copy.
        let _ = fs::remove_dir_all(&made);
        if is_new {
            let _ = fs::remove_dir(folder);
        }
        return Err(error);
    }
    let replaced = there.map(|_| move_aside(folder, now_ms)).transpose()?;
    // The table last: without it there is no catalog yet.
    for name in [INDEX, TABLE] {
        let path = made.join(name);
        File::open(&path).and_then(|file| file.sync_all()).map_err(failed(&path))?;
        fs::rename(&path, folder.join(name)).map_err(failed(&path))?;
    }
    flush_folder(folder)?;
    fs::remove_dir_all(&made).map_err(failed(&made))?;
    Ok(Restored { backup, replaced })
}

/// Puts a copy into the folder `made`, as the next leader is to find it.
fn make_ready(from: &Path, made: &Path, backup: &Backup, term: Term, generation: u32) -> Result<(), CatalogError> {
    copy_in(from, made, INDEX, &backup.index)?;
    copy_in(from, made, TABLE, &backup.table)?;
    IndexFile::open(made, backup.cell, WallClock::system())?.settle()?;
    let why = format!("restored from a copy made at {}", told::moment(backup.made_ms));
    TableFile::open(made, backup.cell, WallClock::system())?.begin_restored(term, generation, &why)
}

fn manifest(from: &Path, cell: CellId) -> Result<Backup, CatalogError> {
    let path = from.join(MANIFEST);
    let file = File::open(&path).map_err(failed(&path))?;
    let mut text = Vec::new();
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut text).map_err(failed(&path))?;
    let backup: Backup = match serde_json::from_slice(&text) {
        Ok(backup) => backup,
        Err(error) => return refused(&path, format!("is not the manifest of a copy: {error}")),
    };
    if backup.version != VERSION {
        return refused(&path, format!("is of version {}, and this program knows {VERSION}", backup.version));
    }
    if backup.cell != cell {
        let place = path.display().to_string();
        return Err(CatalogError::ForeignCell { place, found: backup.cell, wanted: cell });
    }
    Ok(backup)
}

/// Term and generation of the catalog that stands in `folder`; fails when somebody leads there.
fn stand(folder: &Path, cell: CellId) -> Result<(Term, u32), CatalogError> {
    let table = TableFile::open_read_only(folder, cell, WallClock::system())?;
    match table.leader()? {
        Some(leader) if !leader.remaining.is_zero() => {
            Err(CatalogError::Led { holder: leader.holder, address: leader.address, remaining: leader.remaining })
        }
        _ => Ok((table.term()?, table.generation()?)),
    }
}

fn copy_in(from: &Path, into: &Path, name: &str, wanted: &CopiedFile) -> Result<(), CatalogError> {
    let (source, target) = (from.join(name), into.join(name));
    let mut file = File::create_new(&target).map_err(failed(&target))?;
    let found = digest(&source, &mut file)?;
    file.sync_all().map_err(failed(&target))?;
    if found != *wanted {
        return refused(&source, "is not what its manifest says: the copy was changed, or is damaged");
    }
    Ok(())
}

/// Reads a file to its end, writing it on.
fn digest(path: &Path, into: &mut dyn std::io::Write) -> Result<CopiedFile, CatalogError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let (mut sha, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut piece).map_err(failed(path))?;
        if read == 0 {
            return Ok(CopiedFile { bytes, sha256: hex::encode(sha.finalize()) });
        }
        sha.update(&piece[..read]);
        bytes += read as u64;
        into.write_all(&piece[..read]).map_err(failed(path))?;
    }
}

/// Moves what stands in `folder` of a catalog into a folder beside it.
fn move_aside(folder: &Path, now_ms: u64) -> Result<PathBuf, CatalogError> {
    let aside = folder.join(format!("replaced-{now_ms}"));
    fs::create_dir(&aside).map_err(failed(&aside))?;
    // The logs before the files they belong to: a file without its log is older, a log without its file is nothing.
    for name in ["", "-wal", "-shm"].iter().flat_map(|end| [TABLE, INDEX].map(|name| format!("{name}{end}"))) {
        let path = folder.join(&name);
        match fs::rename(&path, aside.join(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path)(error)),
        }
    }
    Ok(aside)
}

fn flush_folder(folder: &Path) -> Result<(), CatalogError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}

impl TableFile {
    /// Makes of a copy what the next leader may begin with.
    fn begin_restored(&self, term: Term, generation: u32, why: &str) -> Result<(), CatalogError> {
        self.restored(|tx, own_term, own_generation| {
            super::table::recovery::set_mark(tx, why)?;
            let raised = rules::generation_above(own_generation, generation)?;
            let term = crate::number::int("the leader's term", own_term.max(term).0 + 1)?;
            tx.execute(
                "UPDATE leader SET term = ?1, generation = ?2, holder = NULL, address = NULL, expires_ms = NULL",
                (term, raised),
            )?;
            Ok(())
        })
    }
}
