//! What a disk's ends say about who uses it: others, by what `admin disk format` would refuse as well, and Holdfast itself.
//!
//! Only reads.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use holdfast_libs_signatures::{EDGE_BYTES, Edges};

/// Name of the signature of a disk that Holdfast formatted.
pub const HOLDFAST: &str = "Holdfast disk";

/// What stands there and has no name that is known.
pub const UNKNOWN: &str = "run of bytes of an unknown kind";

const MAGIC: &[u8] = b"HOLDFAST";

/// What the device or file at `path` holds, `None` when nothing is recognised.
///
/// # Errors
/// When it cannot be opened or its start cannot be read.
pub fn look(path: &Path) -> io::Result<Option<&'static str>> {
    let mut file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC).open(path)?;
    let (mut head, mut tail) = (Vec::new(), Vec::new());
    (&mut file).take(EDGE_BYTES).read_to_end(&mut head)?;
    if head.starts_with(MAGIC) {
        return Ok(Some(HOLDFAST));
    }
    let size = file.seek(SeekFrom::End(0))?;
    // A zoned disk may refuse to read zones that are not written.
    let start = SeekFrom::Start(size.saturating_sub(EDGE_BYTES));
    if file.seek(start).and_then(|_| file.take(EDGE_BYTES).read_to_end(&mut tail)).is_err() {
        tail.clear();
    }
    let edges = Edges { head: &head, tail: &tail, size };
    let known = edges.signatures().first().map(|found| found.name);
    Ok(known.or_else(|| edges.first_data().map(|_| UNKNOWN)))
}

/// Like [`look`], but gives up after `deadline`: a sick disk may never answer, and its thread is left behind then.
///
/// # Errors
/// As [`look`], and `TimedOut`.
pub fn look_within(path: &Path, deadline: Duration) -> io::Result<Option<&'static str>> {
    let (send, receive) = mpsc::channel();
    let owned = path.to_owned();
    std::thread::spawn(move || send.send(look(&owned)));
    receive.recv_timeout(deadline).unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", deadline.as_secs())))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::{HOLDFAST, UNKNOWN, look};

    fn seen(offset: u64, magic: &[u8]) -> Option<&'static str> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(magic).unwrap();
        look(file.path()).unwrap()
    }

    #[test]
    fn what_stands_at_either_end_is_seen_known_or_not() {
        assert_eq!(seen(0, b""), None);
        assert_eq!(seen(0, b"HOLDFAST"), Some(HOLDFAST));
        assert_eq!(seen(0, b"XFSB"), Some("file system XFS"));
        assert_eq!(seen((8 << 20) - 512, b"EFI PART"), Some("partition table (GPT, its backup)"));
        assert_eq!(seen(0, b"nothing"), Some(UNKNOWN));
        assert_eq!(seen((8 << 20) - 1, b"x"), Some(UNKNOWN));
        assert_eq!(seen(4 << 20, b"in the middle"), None);
    }
}
