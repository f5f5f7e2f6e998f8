//! Who uses a device now: mounts, swap, arrays and volumes above it, loop devices, other processes.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::device::{Device, Kind, Roots, text};
use super::obstacle::{Grip, Obstacle};

/// A device or one of its partitions.
struct Part {
    number: String,
    path: PathBuf,
    sysfs: PathBuf,
}

/// Everything in the system's tables that speaks against erasing `device`.
pub fn obstacles(roots: &Roots, device: &Device) -> Vec<Obstacle> {
    let parts = parts(roots, device);
    let mut found = shape(device, &parts);
    found.extend(mounts(roots, device, &parts));
    found.extend(swaps(roots, device, &parts));
    found.extend(holders(roots, &parts));
    found.extend(loops(roots, device, &parts));
    found
}

/// The device itself first, then its partitions as the kernel knows them.
fn parts(roots: &Roots, device: &Device) -> Vec<Part> {
    let (Some(sysfs), Some(number)) = (&device.sysfs, &device.number) else { return Vec::new() };
    let mut parts = vec![Part { number: number.clone(), path: device.path.clone(), sysfs: sysfs.clone() }];
    for folder in folders(sysfs) {
        if let (true, Some(number), Some(name)) =
            (folder.join("partition").exists(), text(&folder.join("dev")), folder.file_name())
        {
            parts.push(Part { number, path: roots.dev.join(name), sysfs: folder.clone() });
        }
    }
    parts
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

/// What the device is, before asking what is on it.
fn shape(device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    if let Some(number) = device.attribute("partition") {
        let disk = device.sysfs.as_ref().and_then(|sysfs| sysfs.parent()?.file_name()).unwrap_or_default();
        found.push(Obstacle::new(
            Grip::Firm,
            "partition",
            format!("it is partition {number} of a disk"),
            format!("Holdfast takes whole disks: format /dev/{}", disk.to_string_lossy()),
        ));
    }
    if device.attribute("ro").is_some_and(|ro| ro != "0") {
        found.push(Obstacle::new(
            Grip::Firm,
            "read-only",
            "it is read-only",
            "look for a write protection; `blockdev --setrw` lifts one that was set by software",
        ));
    }
    if let Some(model) = device.attribute("queue/zoned").filter(|model| model != "none") {
        found.push(Obstacle::new(
            Grip::Firm,
            "zoned",
            format!("it is a zoned device ({model}: SMR or ZNS)"),
            "this version formats conventional devices only; use another disk for now",
        ));
    }
    if parts.len() > 1 {
        let names: Vec<_> = parts[1..].iter().map(|part| part.path.display().to_string()).collect();
        found.push(Obstacle::new(
            Grip::Erasable,
            "partitions",
            format!("it has partitions: {}", names.join(", ")),
            "if nobody needs what is in them, they can be erased",
        ));
    }
    found
}

/// `/proc/self/mountinfo`: by device number, and by source for file systems of many devices (btrfs), which have a
/// number of their own.
fn mounts(roots: &Roots, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let table = fs::read_to_string(roots.proc.join("self/mountinfo")).unwrap_or_default();
    let mut found: Vec<Obstacle> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let (Some(number), Some(point)) = (left.get(2), left.get(4)) else { continue };
        let source = right.split(' ').nth(1).map(unescape).unwrap_or_default();
        let is_source = |path: &Path| same(&source, path);
        let part = parts.iter().find(|part| part.number == *number || is_source(&part.path));
        let path = match part {
            Some(part) => &part.path,
            None if device.kind == Kind::File && is_source(&device.path) => &device.path,
            None => continue,
        };
        let point = unescape(point);
        let text = format!("{} is mounted on {}", path.display(), point.display());
        let remedy = format!("if it may go, `umount {}` first, and take it out of /etc/fstab", point.display());
        if !found.iter().any(|known| known.what == text) {
            found.push(Obstacle::new(Grip::Firm, "mounted", text, remedy));
        }
    }
    found
}

fn swaps(roots: &Roots, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let table = fs::read_to_string(roots.proc.join("swaps")).unwrap_or_default();
    let names = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescape);
    names
        .filter(|name| same(name, &device.path) || parts.iter().any(|part| same(name, &part.path)))
        .map(|name| {
            let name = name.display();
            let remedy = format!("if it may go, `swapoff {name}` first, and take it out of /etc/fstab");
            Obstacle::new(Grip::Firm, "swap", format!("{name} is in use as swap"), remedy)
        })
        .collect()
}

/// Devices built on top: LVM, LUKS, multipath (all device mapper), md arrays, bcache.
fn holders(roots: &Roots, parts: &[Part]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for part in parts {
        for holder in folders(&part.sysfs.join("holders")) {
            let name = holder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mapped = text(&roots.sys.join("block").join(&name).join("dm/name"));
            let (what, remedy) = match mapped {
                Some(mapped) => (
                    format!("{name} ({mapped}, device mapper: LVM, LUKS or multipath)"),
                    format!(
                        "if it may go, `dmsetup remove {mapped}` (LVM: vgchange -an) first; a multipath disk is formatted as /dev/mapper/{mapped}"
                    ),
                ),
                None if name.starts_with("md") => {
                    (format!("the RAID {name}"), format!("if it may go, `mdadm --stop /dev/{name}` first"))
                }
                None => (name.clone(), format!("release it from /dev/{name} first")),
            };
            found.push(Obstacle::new(Grip::Firm, "held", format!("{} is held by {what}", part.path.display()), remedy));
        }
    }
    found
}

/// Loop devices whose backing file (or device) it is: the kernel does not lock that.
fn loops(roots: &Roots, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for entry in folders(&roots.sys.join("block")) {
        let Some(backing) = text(&entry.join("loop/backing_file")) else { continue };
        let backing = PathBuf::from(backing);
        if same(&backing, &device.path) || parts.iter().any(|part| same(&backing, &part.path)) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Obstacle::new(
                Grip::Firm,
                "held",
                format!("{} is attached to /dev/{name}", backing.display()),
                format!("format /dev/{name}, or `losetup --detach /dev/{name}` first"),
            ));
        }
    }
    found
}

/// Whether two paths name one file or device: a file has many names (hard links, bind mounts), a device many nodes.
fn same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        let device = metadata.file_type().is_block_device();
        Some(if device { (true, 0, metadata.rdev()) } else { (false, metadata.dev(), metadata.ino()) })
    };
    one == other || identity(one).is_some_and(|found| identity(other) == Some(found))
}

/// The process that holds the lock of the file or device node, from `/proc/locks`.
pub fn lock_holder(roots: &Roots, path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;

    let wanted = format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino());
    let locks = fs::read_to_string(roots.proc.join("locks")).ok()?;
    let line = locks.lines().find(|line| line.contains("FLOCK") && line.split_whitespace().any(|f| f == wanted))?;
    let pid = line.split_whitespace().nth(4)?;
    let name = text(&roots.proc.join(pid).join("comm")).unwrap_or_default();
    Some(format!("process {pid} ({name})"))
}

/// The kernel writes a space in a path as `\040`.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{obstacles, unescape};
    use crate::disk::device::{Device, Roots};

    /// A machine with one disk, sdb (8:16), that has a partition sdb1 (8:17).
    fn machine(root: &Path, files: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let roots = Roots { dev: root.join("dev"), proc: root.join("proc"), sys: root.join("sys") };
        let all = [("sys/dev/block/8:16/ro", "0"), ("dev/sdb", ""), ("dev/sdb1", "")];
        for (path, text) in all.iter().chain(files) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let device = Device::block(&roots, Path::new("/dev/sdb"), roots.dev.join("sdb"), "8:16");
        obstacles(&roots, &device).into_iter().map(|found| (found.code, found.to_string())).collect()
    }

    fn only(files: &[(&str, &str)], code: &str, words: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let found = machine(&folder.path().canonicalize().unwrap(), files);
        let text = found.iter().find(|found| found.0 == code).unwrap_or_else(|| panic!("{code}: {found:?}")).1.clone();
        for word in words {
            assert!(text.contains(word), "{word}: {text}");
        }
    }

    const PARTITION: [(&str, &str); 2] =
        [("sys/dev/block/8:16/sdb1/partition", "1"), ("sys/dev/block/8:16/sdb1/dev", "8:17\n")];

    #[test]
    fn a_free_disk_has_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(machine(&folder.path().canonicalize().unwrap(), &[]), []);
    }

    #[test]
    fn a_mounted_partition_is_found_by_its_number() {
        let mountinfo =
            "22 27 0:21 / /proc rw - proc proc rw\n40 1 8:17 / /srv/my\\040data rw shared:1 - xfs /dev/elsewhere rw\n";
        let files = [PARTITION[0], PARTITION[1], ("proc/self/mountinfo", mountinfo)];
        only(&files, "mounted", &["sdb1 is mounted on /srv/my data", "umount /srv/my data"]);
        only(&files, "partitions", &["it has partitions", "sdb1"]);
    }

    #[test]
    fn arrays_and_volumes_above_it_are_named() {
        only(&[("sys/dev/block/8:16/holders/md127", "")], "held", &["the RAID md127", "mdadm --stop /dev/md127"]);
        let files = [
            PARTITION[0],
            PARTITION[1],
            ("sys/dev/block/8:16/sdb1/holders/dm-3", ""),
            ("sys/block/dm-3/dm/name", "vg0-root\n"),
        ];
        only(&files, "held", &["sdb1 is held by dm-3 (vg0-root", "LVM"]);
    }

    #[test]
    fn a_read_only_and_a_zoned_device_and_a_partition_are_refused() {
        only(&[("sys/dev/block/8:16/ro", "1\n")], "read-only", &["read-only", "blockdev --setrw"]);
        only(&[("sys/dev/block/8:16/queue/zoned", "host-managed\n")], "zoned", &["host-managed", "conventional"]);
        only(&[("sys/dev/block/8:16/partition", "2\n")], "partition", &["partition 2", "whole disks"]);
    }

    #[test]
    fn escaped_paths_are_read() {
        assert_eq!(unescape("/a\\040b\\134c\\"), Path::new("/a b\\c\\"));
    }
}
