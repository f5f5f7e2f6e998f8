//! Who uses a device now: mounts, swap, arrays and volumes above it, loop devices, other processes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_hw_profiles::tree::{Tree, unescaped};
use nix::sys::stat::{major, minor};

use super::device::{Device, Kind, text};
use super::obstacle::{Grip, Obstacle};

/// A device or one of its partitions.
struct Part {
    number: String,
    path: PathBuf,
    sysfs: PathBuf,
}

/// Everything in the system's tables that speaks against erasing `device`.
pub fn obstacles(tree: &Tree, device: &Device) -> Vec<Obstacle> {
    let parts = parts(tree, device);
    let mut found = shape(device, &parts);
    found.extend(mounts(tree, device, &parts));
    found.extend(swaps(tree, device, &parts));
    found.extend(holders(tree, &parts));
    found.extend(loops(tree, device, &parts));
    found
}

/// The device itself first, then its partitions as the kernel knows them.
fn parts(tree: &Tree, device: &Device) -> Vec<Part> {
    let (Some(sysfs), Some(number)) = (&device.sysfs, &device.number) else { return Vec::new() };
    let mut parts = vec![Part { number: number.clone(), path: device.path.clone(), sysfs: sysfs.clone() }];
    for folder in folders(sysfs) {
        if let (true, Some(number), Some(name)) =
            (folder.join("partition").exists(), text(&folder.join("dev")), folder.file_name())
        {
            parts.push(Part { number, path: tree.at("dev").join(name), sysfs: folder.clone() });
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
fn mounts(tree: &Tree, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let table = fs::read_to_string(tree.at("proc/self/mountinfo")).unwrap_or_default();
    let mut found: Vec<Obstacle> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<&str> = left.split(' ').collect();
        let (Some(number), Some(point)) = (left.get(2), left.get(4)) else { continue };
        let source = right.split(' ').nth(1).map(unescaped).unwrap_or_default();
        let is_source = |path: &Path| same(&source, path);
        let part = parts.iter().find(|part| part.number == *number || is_source(&part.path));
        let path = match part {
            Some(part) => &part.path,
            None if device.kind == Kind::File && is_source(&device.path) => &device.path,
            None => continue,
        };
        let point = unescaped(point);
        let text = format!("{} is mounted on {}", path.display(), point.display());
        let remedy = format!("if it may go, `umount {}` first, and take it out of /etc/fstab", point.display());
        if !found.iter().any(|known| known.what == text) {
            found.push(Obstacle::new(Grip::Firm, "mounted", text, remedy));
        }
    }
    found
}

fn swaps(tree: &Tree, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let table = fs::read_to_string(tree.at("proc/swaps")).unwrap_or_default();
    let names = table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescaped);
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
fn holders(tree: &Tree, parts: &[Part]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for part in parts {
        for holder in folders(&part.sysfs.join("holders")) {
            let name = holder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mapped = text(&tree.at("sys/block").join(&name).join("dm/name"));
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
fn loops(tree: &Tree, device: &Device, parts: &[Part]) -> Vec<Obstacle> {
    let mut found = Vec::new();
    for entry in folders(&tree.at("sys/block")) {
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
pub fn lock_holder(tree: &Tree, path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino());
    let locks = fs::read_to_string(tree.at("proc/locks")).ok()?;
    let line = locks.lines().find(|line| line.contains("FLOCK") && line.split_whitespace().any(|f| f == wanted))?;
    let pid = line.split_whitespace().nth(4)?;
    let name = text(&tree.at("proc").join(pid).join("comm")).unwrap_or_default();
    Some(format!("process {pid} ({name})"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::obstacles;
    use holdfast_hw_profiles::tree::Tree;

    use crate::format::device::Device;

    /// A machine with one disk, sdb (8:16), that has a partition sdb1 (8:17).
    fn machine(root: &Path, files: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let tree = Tree::open(root).unwrap();
        let all = [("sys/dev/block/8:16/ro", "0"), ("dev/sdb", ""), ("dev/sdb1", "")];
        for (path, text) in all.iter().chain(files) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let device = Device::block(&tree, Path::new("/dev/sdb"), root.join("dev/sdb"), "8:16");
        obstacles(&tree, &device).into_iter().map(|found| (found.code, found.to_string())).collect()
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
    fn a_read_only_device_and_a_partition_are_refused() {
        only(&[("sys/dev/block/8:16/ro", "1\n")], "read-only", &["read-only", "blockdev --setrw"]);
        only(&[("sys/dev/block/8:16/partition", "2\n")], "partition", &["partition 2", "whole disks"]);
    }
}
