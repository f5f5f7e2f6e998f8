//! What others leave on a disk: partition tables, file systems, members of arrays and pools, told by their magics.
//!
//! The list only gives a name to what stands there. A disk is blank when its first and last [`EDGE_BYTES`] are zero,
//! and every magic below lies within them; so what is not in the list is refused as well, without a name.

#![cfg_attr(test, allow(clippy::unwrap_used))]

/// Bytes at either end of a disk that must be zero, or have an owner who agreed to lose them.
pub const EDGE_BYTES: u64 = 2 << 20;

/// A magic found on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it is, for people: "ext4 (or ext2, ext3)", "partition table (GPT)".
    pub name: &'static str,
    /// Where it stands, bytes from the start of the disk.
    pub at: u64,
}

/// Magics at a fixed place from the start: name, offset, bytes. Offsets and bytes are those of util-linux's libblkid
/// (`libblkid/src/superblocks`, `libblkid/src/partitions`) and, for bluestore, of Ceph's `bluestore_types.h`.
const AT_START: [(&str, usize, &[u8]); 43] = [
    ("partition table (GPT)", 512, b"EFI PART"),
    ("partition table (GPT)", 4096, b"EFI PART"),
    ("partition table (Mac)", 512, b"PM\0\0"),
    ("file system ext2, ext3 or ext4", 1080, &[0x53, 0xef]),
    ("file system XFS", 0, b"XFSB"),
    ("file system btrfs", 65_600, b"_BHRfS_M"),
    ("file system f2fs", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    ("file system bcachefs", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9]),
    ("file system NTFS", 3, b"NTFS    "),
    ("file system exFAT", 3, b"EXFAT   "),
    ("file system FAT", 54, b"FAT12   "),
    ("file system FAT", 54, b"FAT16   "),
    ("file system FAT", 82, b"FAT32   "),
    ("file system HFS+", 1024, b"H+\0\x04"),
    ("file system APFS", 32, b"NXSB"),
    ("file system ReFS", 3, b"ReFS\0\0\0\0"),
    ("file system JFS", 32_768, b"JFS1"),
    ("file system reiserfs", 65_588, b"ReIsEr"),
    ("file system nilfs2", 1030, &[0x34, 0x34]),
    ("file system GFS2", 65_536, &[0x01, 0x16, 0x19, 0x70]),
    ("file system OCFS2", 8192, b"OCFSV2"),
    ("file system squashfs", 0, b"hsqs"),
    ("file system erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("file system ISO 9660", 32_769, b"CD001"),
    ("file system VMFS", 1 << 20, &[0x0d, 0xd0, 0x01, 0xc0]),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("swap space", 4086, b"SWAP-SPACE"),
    ("swap space (hibernated system)", 4086, b"S1SUSPEND"),
    ("swap space", 16_374, b"SWAPSPACE2"),
    ("swap space", 65_526, b"SWAPSPACE2"),
    ("LVM physical volume", 536, b"LVM2 001"),
    ("LVM physical volume", 24, b"LVM2 001"),
    ("LVM physical volume", 1048, b"LVM2 001"),
    ("LVM physical volume", 1560, b"LVM2 001"),
    ("encrypted volume (LUKS)", 0, b"LUKS\xba\xbe"),
    ("encrypted volume (LUKS, second header)", 16_384, b"SKUL\xba\xbe"),
    ("member of a Linux RAID (md 1.1)", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("member of a Linux RAID (md 1.2)", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("bcache device", 4120, &[0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca]),
    ("Ceph OSD (bluestore)", 0, b"bluestore block device"),
    ("Ceph OSD journal", 0, b"ceph fsid "),
    ("Oracle ASM disk", 32, b"ORCLDISK"),
    ("VDO volume", 0, b"dmvdo001"),
];

/// Magics at a fixed distance from the end: name, distance, bytes.
const AT_END: [(&str, u64, &[u8]); 4] = [
    ("partition table (GPT, its backup)", 512, b"EFI PART"),
    ("partition table (GPT, its backup)", 4096, b"EFI PART"),
    ("member of a firmware RAID (DDF)", 512, &[0xde, 0x11, 0xde, 0x11]),
    ("member of a firmware RAID (Intel)", 1024, b"Intel Raid ISM Cfg Sig. "),
];

const MD_MAGIC: u32 = 0xa92b_4efc;
const ZFS_UBERBLOCK: u64 = 0x00ba_b10c;

/// The two ends of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Edges<'a> {
    /// Bytes from its start.
    pub head: &'a [u8],
    /// Bytes up to its end.
    pub tail: &'a [u8],
    /// All of its bytes.
    pub size: u64,
}

impl Edges<'_> {
    /// `len` bytes at `at`, if they lie within one of the ends.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        let within = |edge: &'_ [u8], start: u64| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            (from.checked_add(len)? <= edge.len()).then_some(from)
        };
        if let Some(from) = within(self.head, 0) {
            return self.head.get(from..from + len);
        }
        let from = within(self.tail, self.size.checked_sub(self.tail.len() as u64)?)?;
        self.tail.get(from..from + len)
    }

    fn has(&self, at: u64, magic: &[u8]) -> bool {
        self.get(at, magic.len()) == Some(magic)
    }

    /// The first byte of either end that is not zero.
    pub fn first_data(&self) -> Option<u64> {
        let of = |edge: &[u8], start: u64| edge.iter().position(|byte| *byte != 0).map(|at| start + at as u64);
        of(self.head, 0).or_else(|| of(self.tail, self.size.saturating_sub(self.tail.len() as u64)))
    }

    /// Every known magic, each name once, where it stands first.
    pub fn signatures(&self) -> Vec<Signature> {
        let mut found: Vec<Signature> = Vec::new();
        let mut add = |name, at| {
            if !found.iter().any(|known| known.name == name) {
                found.push(Signature { name, at });
            }
        };
        for (name, at, magic) in AT_START {
            if self.has(at as u64, magic) {
                add(name, at as u64);
            }
        }
        for (name, distance, magic) in AT_END {
            if let Some(at) = self.size.checked_sub(distance).filter(|at| self.has(*at, magic)) {
                add(name, at);
            }
        }
        self.md_at_the_end(&mut add);
        self.zfs(&mut add);
        let protective = found.iter().any(|known| known.name.contains("GPT") || known.name.contains("FAT"));
        if !protective && self.boot_sector_has_partitions() {
            found.push(Signature { name: "partition table (MBR)", at: 510 });
        }
        found
    }

    /// An MBR: its mark, and at least one entry with a type and a length.
    fn boot_sector_has_partitions(&self) -> bool {
        self.has(510, &[0x55, 0xaa])
            && (0..4).any(|n| {
                self.get(446 + 16 * n, 16).is_some_and(|entry| entry[4] != 0 && entry[12..16].iter().any(|b| *b != 0))
            })
    }

    /// md 1.0 stands 8 KiB before the end, on 4 KiB; 0.90 in the last whole 64 KiB.
    fn md_at_the_end(&self, add: &mut impl FnMut(&'static str, u64)) {
        if let Some(at) = (self.size & !511).checked_sub(8192).map(|at| at & !4095)
            && self.has(at, &MD_MAGIC.to_le_bytes())
        {
            add("member of a Linux RAID (md 1.0)", at);
        }
        if let Some(at) = (self.size & !65_535).checked_sub(65_536)
            && (self.has(at, &MD_MAGIC.to_le_bytes()) || self.has(at, &MD_MAGIC.to_be_bytes()))
        {
            add("member of a Linux RAID (md 0.90)", at);
        }
    }

    /// A ZFS label is 256 KiB, two at each end; the second half of it is an array of uberblocks, at least 1 KiB each.
    fn zfs(&self, add: &mut impl FnMut(&'static str, u64)) {
        const LABEL: u64 = 256 << 10;
        let end = self.size - self.size % LABEL;
        for label in [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)].into_iter().flatten() {
            for at in (label + LABEL / 2..label + LABEL).step_by(1024) {
                if self.has(at, &ZFS_UBERBLOCK.to_le_bytes()) || self.has(at, &ZFS_UBERBLOCK.to_be_bytes()) {
                    return add("member of a ZFS pool", at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AT_END, AT_START, EDGE_BYTES, Edges, MD_MAGIC, ZFS_UBERBLOCK};

    const SIZE: u64 = 100 << 20;

    fn names(put: &[(u64, &[u8])]) -> Vec<&'static str> {
        let edge = EDGE_BYTES as usize;
        let (mut head, mut tail) = (vec![0; edge], vec![0; edge]);
        for (at, bytes) in put {
            let (edge, from) = if *at < EDGE_BYTES { (&mut head, *at) } else { (&mut tail, at - (SIZE - EDGE_BYTES)) };
            edge[from as usize..from as usize + bytes.len()].copy_from_slice(bytes);
        }
        let edges = Edges { head: &head, tail: &tail, size: SIZE };
        assert_eq!(edges.first_data().is_some(), put.iter().any(|(_, bytes)| bytes.iter().any(|b| *b != 0)));
        edges.signatures().into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn each_magic_is_found_alone_at_its_place_and_lies_within_what_must_be_zero() {
        for (name, at, magic) in AT_START {
            assert!(at as u64 + (magic.len() as u64) < EDGE_BYTES);
            assert_eq!(names(&[(at as u64, magic)]), [name]);
        }
        for (name, distance, magic) in AT_END {
            assert_eq!(names(&[(SIZE - distance, magic)]), [name]);
        }
    }

    #[test]
    fn partition_tables_arrays_and_pools_are_told_apart() {
        assert!(names(&[]).is_empty());
        assert!(names(&[(510, &[0x55, 0xaa])]).is_empty(), "a boot mark without partitions has no name");
        let entry: &[u8] = &[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0];
        assert_eq!(names(&[(510, &[0x55, 0xaa]), (462, entry)]), ["partition table (MBR)"]);
        assert_eq!(
            names(&[(510, &[0x55, 0xaa]), (446, entry), (512, b"EFI PART"), (SIZE - 512, b"EFI PART")]),
            ["partition table (GPT)", "partition table (GPT, its backup)"],
            "a protective MBR is part of the GPT"
        );
        assert_eq!(names(&[(SIZE - 8192, &MD_MAGIC.to_le_bytes())]), ["member of a Linux RAID (md 1.0)"]);
        assert_eq!(names(&[(SIZE - 65_536, &MD_MAGIC.to_be_bytes())]), ["member of a Linux RAID (md 0.90)"]);
        for at in [128 << 10, (384 << 10) + 5120, SIZE - (384 << 10), SIZE - 1024] {
            assert_eq!(names(&[(at, &ZFS_UBERBLOCK.to_le_bytes())]), ["member of a ZFS pool"]);
        }
    }

    #[test]
    fn ends_shorter_than_any_magic_are_no_trouble() {
        for len in 0..700usize {
            let bytes = vec![0xff; len];
            let edges = Edges { head: &bytes, tail: &bytes, size: len as u64 };
            assert!(edges.signatures().is_empty());
            assert_eq!(edges.first_data(), (len > 0).then_some(0));
        }
    }
}
