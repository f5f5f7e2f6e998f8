//! Disk files, read as they are.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::unistd::{Whence, lseek};

/// The parts of a sparse file that were written: where each starts, and its bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn written_parts(path: &Path) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let file = std::fs::File::open(path)?;
    let mut parts = Vec::new();
    let mut at = 0;
    while let Ok(start) = lseek(&file, at, Whence::SeekData) {
        let end = lseek(&file, start, Whence::SeekHole)?;
        let mut bytes = vec![0; usize::try_from(end - start)?];
        file.read_exact_at(&mut bytes, u64::try_from(start)?)?;
        parts.push((u64::try_from(start)?, bytes));
        at = end;
    }
    Ok(parts)
}
