//! What a disk's bytes say about who uses it: partition tables, file systems, volume managers, Holdfast itself.
//!
//! Only reads. The answer is a hint that keeps people from losing data, not a proof that a disk is empty.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Name of the signature of a disk that Holdfast formatted.
pub const HOLDFAST: &str = "Holdfast disk";

/// Bytes read from the start: up to the uberblocks of ZFS.
const HEAD_BYTES: usize = 256 << 10;

/// Bytes read from the end: md metadata 0.90 lies within the last 128 KiB.
const TAIL_BYTES: u64 = 128 << 10;

/// Offset, bytes, name. From the sources of the programs that write them (util-linux' libblkid lists the same).
const MAGICS: [(usize, &[u8], &str); 22] = [
    (0, b"HOLDFAST", HOLDFAST),
    (0, b"LUKS\xba\xbe", "LUKS volume"),
    (0, b"XFSB", "XFS file system"),
    (0, b"bluestore block device", "Ceph BlueStore"),
    (0x438, b"\x53\xef", "ext2/3/4 file system"),
    (0x1_0040, b"_BHRfS_M", "btrfs file system"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS file system"),
    (3, b"NTFS    ", "NTFS file system"),
    (3, b"EXFAT   ", "exFAT file system"),
    (0x36, b"FAT1", "FAT file system"),
    (0x52, b"FAT32", "FAT file system"),
    (0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", "bcache or bcachefs"),
    (0xff6, b"SWAPSPACE2", "swap space"),
    (0x8001, b"CD001", "ISO 9660 image"),
    (0, b"LABELONE", "LVM physical volume"),
    (512, b"LABELONE", "LVM physical volume"),
    (1024, b"LABELONE", "LVM physical volume"),
    (1536, b"LABELONE", "LVM physical volume"),
    (0, b"\xfc\x4e\x2b\xa9", "md RAID member"),
    (4096, b"\xfc\x4e\x2b\xa9", "md RAID member"),
    (512, b"EFI PART", "GPT partition table"),
    (4096, b"EFI PART", "GPT partition table"),
];

/// What the device or file at `path` holds, `None` when nothing is recognised.
///
/// # Errors
/// When it cannot be opened or its start cannot be read.
pub fn look(path: &Path) -> io::Result<Option<&'static str>> {
    let mut file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC).open(path)?;
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    if let Some(found) = in_head(&head) {
        return Ok(Some(found));
    }
    let size = file.seek(SeekFrom::End(0))?;
    let start = size.saturating_sub(TAIL_BYTES);
    let mut tail = Vec::new();
    // A zoned disk may refuse to read zones that are not written.
    let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.take(TAIL_BYTES).read_to_end(&mut tail));
    Ok(read.ok().and_then(|_| in_tail(&tail, start)))
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

fn in_head(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    if let Some((_, _, name)) = MAGICS.iter().find(|(offset, magic, _)| at(*offset, magic)) {
        return Some(name);
    }
    let uberblock = |index: usize| {
        let offset = (128 + index) << 10;
        at(offset, b"\x0c\xb1\xba\x00\x00\x00\x00\x00") || at(offset, b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
    };
    if (0..128).any(uberblock) {
        return Some("ZFS pool member");
    }
    // A boot sector counts as a partition table when one of its four entries has a type.
    let entry = |index: usize| head.get(446 + 16 * index + 4).is_some_and(|kind| *kind != 0);
    (at(510, b"\x55\xaa") && (0..4).any(entry)).then_some("MBR partition table")
}

fn in_tail(tail: &[u8], start: u64) -> Option<&'static str> {
    let end = start + tail.len() as u64;
    let at = |offset: u64, magic: &[u8]| {
        let from = usize::try_from(offset.checked_sub(start)?).ok()?;
        (tail.get(from..from.checked_add(magic.len())?) == Some(magic)).then_some(())
    };
    if [512, 4096].iter().any(|sector| end.checked_sub(*sector).and_then(|offset| at(offset, b"EFI PART")).is_some()) {
        return Some("GPT partition table (its backup)");
    }
    let old = (end & !0xffff).checked_sub(0x1_0000);
    let new = end.checked_sub(0x2000).map(|offset| offset & !0xfff);
    [old, new].into_iter().flatten().any(|offset| at(offset, b"\xfc\x4e\x2b\xa9").is_some()).then_some("md RAID member")
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};

    use super::{MAGICS, look};

    fn seen(offset: u64, magic: &[u8]) -> Option<&'static str> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(magic).unwrap();
        look(file.path()).unwrap()
    }

    #[test]
    fn each_signature_is_seen_where_it_belongs_and_nowhere_else() {
        assert_eq!(seen(0, b"nothing"), None);
        for (offset, magic, name) in MAGICS {
            assert_eq!(seen(offset as u64, magic), Some(name));
            assert_eq!(seen(offset as u64 + 7, magic), None, "{name} seven bytes off");
        }
        assert_eq!(seen((128 << 10) + 1024, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"), Some("ZFS pool member"));
        assert_eq!(seen((1 << 20) - 512, b"EFI PART"), Some("GPT partition table (its backup)"));
        assert_eq!(seen((1 << 20) - 0x1_0000, b"\xfc\x4e\x2b\xa9"), Some("md RAID member"));
        assert_eq!(seen((1 << 20) - 0x2000, b"\xfc\x4e\x2b\xa9"), Some("md RAID member"));
    }

    #[test]
    fn a_boot_sector_without_partitions_is_no_table() {
        assert_eq!(seen(510, b"\x55\xaa"), None);
        let mut sector = [0_u8; 66];
        sector[4] = 0x83;
        sector[64..].copy_from_slice(b"\x55\xaa");
        assert_eq!(seen(446, &sector), Some("MBR partition table"));
    }
}
