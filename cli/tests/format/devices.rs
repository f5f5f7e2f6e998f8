//! Block devices: loop devices, so they run as root only.

use std::process::Command;

use holdfast_node_engine::{Disk, OpenOptions};

use crate::support::{CELL, Loop, done, folder, format, must, put, refused, root, said, size, sparse, stdout};

const MIB: u64 = 1 << 20;

/// Something that must be undone however the test ends.
struct Undo<'a>(&'a str, &'a str);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.0).arg(self.1).status();
    }
}

#[test]
fn a_blank_device_is_formatted_and_in_use_while_it_is_open() {
    if !root("a_blank_device_is_formatted_and_in_use_while_it_is_open") {
        return;
    }
    let folder = folder();
    // Of no whole number of pages: as disks of 512-byte sectors are.
    let device = Loop::new(&folder, 64 * MIB + 1536);
    let output = format(&device.path, &[]);
    done(&output);
    let text = stdout(&output);
    assert!(text.contains("serial     none") && text.contains("slots of 1.0 MiB"), "{text}");
    said(&format(&device.path, &["--size", "64MiB"]), 2, &["is a device", "leave --size out"]);
    let disk = Disk::open(&device.path, OpenOptions::new(CELL.parse().unwrap())).unwrap();
    refused(&device.path, || format(&device.path, &["--force", device.name()]), &["it is in use by"]);
    drop(disk);
    refused(&device.path, || format(&device.path, &[]), &["holds no extents", &format!("--force {}", device.name())]);
    done(&format(&device.path, &["--force", device.name()]));
}

#[test]
fn a_file_system_is_refused_and_a_mounted_one_even_with_force() {
    if !root("a_file_system_is_refused_and_a_mounted_one_even_with_force") {
        return;
    }
    let folder = folder();
    let device = Loop::new(&folder, 64 * MIB);
    must("mkfs.ext4", &["-q", "-L", "photos", device.name()]);
    let point = folder.path().join("mount point");
    std::fs::create_dir(&point).unwrap();
    let point = point.to_str().unwrap();
    {
        must("mount", &[device.name(), point]);
        let _undo = Undo("umount", point);
        std::fs::write(format!("{point}/file"), b"precious").unwrap();
        nix::unistd::sync();
        let words = [device.name(), "is mounted on", point, "umount"];
        said(&format(&device.path, &[]), 1, &words);
        said(&format(&device.path, &["--force", device.name()]), 1, &words);
        assert_eq!(std::fs::read(format!("{point}/file")).unwrap(), b"precious");
    }
    refused(&device.path, || format(&device.path, &[]), &["file system ext2, ext3 or ext4", "\"photos\"", "--force"]);
    refused(&device.path, || format(&device.path, &["--force", "photos"]), &["does not name", device.name()]);
    done(&format(&device.path, &["--force", device.name()]));
    assert!(!Command::new("blkid").args(["-p", device.name()]).status().unwrap().success(), "nothing is left to find");
}

#[test]
fn swap_is_refused_and_even_with_force_while_it_is_on() {
    if !root("swap_is_refused_and_even_with_force_while_it_is_on") {
        return;
    }
    let folder = folder();
    // Swap needs a file without holes below.
    let file = folder.path().join("backing");
    std::fs::write(&file, vec![0; 16 * MIB as usize]).unwrap();
    let device = Loop::over(&file, &[]);
    must("mkswap", &[device.name()]);
    refused(&device.path, || format(&device.path, &[]), &["swap space", "--force"]);
    must("swapon", &["--priority", "0", device.name()]);
    let _undo = Undo("swapoff", device.name());
    let forced = format(&device.path, &["--force", device.name()]);
    said(&forced, 1, &["is in use as swap", "swapoff", "nothing on it was changed"]);
}

/// Writes a GPT by hand: a protective MBR, a header and one partition at both ends, with right checksums.
fn write_gpt(device: &Loop) {
    let sectors = size(&device.path) / 512;
    let mut entries = vec![0; 128 * 128];
    entries[..16].copy_from_slice(&[
        0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4,
    ]);
    entries[16..32].fill(0x11);
    entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
    entries[40..48].copy_from_slice(&65_535u64.to_le_bytes());
    let header = |mine: u64, other: u64, entries_at: u64| {
        let mut header = vec![0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x1_0000u32.to_le_bytes());
        header[12..16].copy_from_slice(&92u32.to_le_bytes());
        for (at, value) in [(24, mine), (32, other), (40, 2048), (48, sectors - 34), (72, entries_at)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[56..72].fill(0x22);
        for (at, value) in [(80, 128), (84, 128), (88, crc32fast::hash(&entries))] {
            header[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        header
    };
    let mut protective = vec![0; 66];
    protective[4] = 0xee;
    protective[8] = 1;
    protective[12..16].copy_from_slice(&(sectors as u32 - 1).to_le_bytes());
    protective[64..].copy_from_slice(&[0x55, 0xaa]);
    put(&device.path, 446, &protective);
    put(&device.path, 512, &header(1, sectors - 1, 2));
    put(&device.path, 1024, &entries);
    put(&device.path, (sectors - 33) * 512, &entries);
    put(&device.path, (sectors - 1) * 512, &header(sectors - 1, 1, sectors - 33));
}

#[test]
fn a_partition_table_is_refused_a_mounted_partition_more_so_and_a_partition_is_no_disk() {
    if !root("a_partition_table_is_refused_a_mounted_partition_more_so_and_a_partition_is_no_disk") {
        return;
    }
    let folder = folder();
    let device = Loop::new(&folder, 64 * MIB);
    write_gpt(&device);
    let words = ["partition table (GPT)", "partition table (GPT, its backup)", "--force"];
    refused(&device.path, || format(&device.path, &[]), &words);
    drop(device);
    let device = Loop::over(&folder.path().join("backing"), &["--partscan"]);
    let partition = format!("{}p1", device.name());
    if !std::path::Path::new(&partition).exists() {
        // A kernel that was built without GPT can be told.
        must("addpart", &[device.name(), "1", "2048", "63488"]);
    }
    refused(&device.path, || format(&device.path, &[]), &["it has partitions", &partition]);
    refused(
        partition.as_ref(),
        || format(partition.as_ref(), &["--force", &partition]),
        &["it is partition 1", "whole disks", &format!("format {}", device.name())],
    );
    must("mkfs.ext4", &["-q", &partition]);
    let point = folder.path().join("mounted");
    std::fs::create_dir(&point).unwrap();
    let point = point.to_str().unwrap();
    must("mount", &[&partition, point]);
    let undo = Undo("umount", point);
    let forced = format(&device.path, &["--force", device.name()]);
    said(&forced, 1, &[&format!("{partition} is mounted on"), "umount"]);
    drop(undo);
    done(&format(&device.path, &["--force", device.name()]));
    let sysfs = format!("/sys/block/{}/{}", &device.name()[5..], &partition[5..]);
    assert!(!std::path::Path::new(&sysfs).exists(), "the kernel has dropped the partition");
    let end = size(&device.path) - 512;
    let mut last = [1; 512];
    let file = std::fs::File::open(&device.path).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, end).unwrap();
    assert_eq!(last, [0; 512], "the backup of the table is erased as well");
}

#[test]
fn members_of_arrays_and_pools_are_named() {
    if !root("members_of_arrays_and_pools_are_named") {
        return;
    }
    let folder = folder();
    let device = Loop::new(&folder, 64 * MIB);
    let marks: [(u64, &[u8], &str); 6] = [
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "member of a Linux RAID (md 1.2)"),
        (64 * MIB - 8192, &[0xfc, 0x4e, 0x2b, 0xa9], "member of a Linux RAID (md 1.0)"),
        (536, b"LVM2 001", "LVM physical volume"),
        (132 << 10, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0], "member of a ZFS pool"),
        (0, b"bluestore block device\n", "Ceph OSD (bluestore)"),
        (0, b"LUKS\xba\xbe\0\x02", "encrypted volume (LUKS)"),
    ];
    for (at, mark, name) in marks {
        put(&device.path, at, mark);
        refused(&device.path, || format(&device.path, &[]), &[name, "--force"]);
        put(&device.path, at, &vec![0; mark.len()]);
    }
    done(&format(&device.path, &[]));
}

#[test]
fn a_read_only_device_and_one_below_another_are_refused() {
    if !root("a_read_only_device_and_one_below_another_are_refused") {
        return;
    }
    let folder = folder();
    let file = folder.path().canonicalize().unwrap().join("backing");
    sparse(&file, 64 * MIB);
    let device = Loop::over(&file, &["--read-only"]);
    let words = ["it is read-only", "blockdev --setrw"];
    refused(&device.path, || format(&device.path, &["--force", device.name()]), &words);
    let attached = format!("is attached to {}", device.name());
    refused(&file, || format(&file, &[]), &[&attached, &format!("format {}", device.name())]);
    // By whatever name it is called.
    let other = folder.path().canonicalize().unwrap().join("hard-link");
    std::fs::hard_link(&file, &other).unwrap();
    refused(&other, || format(&other, &["--force", &other.display().to_string()]), &[&attached]);
    drop(device);

    let below = Loop::over(&file, &[]);
    let above = Loop::over(&below.path, &[]);
    let attached = format!("{} is attached to {}", below.name(), above.name());
    refused(&below.path, || format(&below.path, &["--force", below.name()]), &[&attached, "losetup --detach"]);
    drop(above);
    done(&format(&below.path, &[]));
}

#[test]
fn a_device_too_small_for_a_slot_is_refused() {
    if !root("a_device_too_small_for_a_slot_is_refused") {
        return;
    }
    let folder = folder();
    let device = Loop::new(&folder, 4 * MIB);
    refused(&device.path, || format(&device.path, &[]), &["one slot of 1048576 bytes needs", "larger one"]);
}
