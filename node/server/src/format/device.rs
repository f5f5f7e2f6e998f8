//! Which disk a name means: serial, WWN and the names that stay, read from sysfs and udev's links.
//!
//! `/dev/sdb` is another disk after the next boot; so it is only ever the way in, never what is recorded.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_hw_profiles::inventory;
use holdfast_hw_profiles::tree::Tree;
use nix::sys::stat::{major, minor};
use serde::Serialize;

/// What a disk is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A whole block device.
    BlockDevice,
    /// A file.
    File,
}

/// A disk, or what may become one.
#[derive(Debug, Clone, Serialize)]
pub struct Device {
    /// As the operator named it.
    pub named: PathBuf,
    /// With all links resolved.
    pub path: PathBuf,
    /// The name to write into a configuration: it means the same disk after the next boot.
    pub stable_path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its model, as it says itself.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its World Wide Name.
    pub wwn: Option<String>,
    /// Where it is plugged in.
    pub by_path: Option<PathBuf>,
    /// `MAJOR:MINOR` of a block device.
    #[serde(skip)]
    pub number: Option<String>,
    /// Its folder in sysfs.
    #[serde(skip)]
    pub sysfs: Option<PathBuf>,
}

impl Device {
    /// What `named` means. A file need not exist yet, its folder must.
    ///
    /// # Errors
    /// In words: it does not exist, or is neither a file nor a block device.
    pub fn find(tree: &Tree, named: &Path) -> Result<Self, String> {
        match fs::metadata(named) {
            Ok(metadata) if metadata.file_type().is_block_device() => {
                let path = resolve(named)?;
                let rdev = metadata.rdev();
                Ok(Self::block(tree, named, path, &format!("{}:{}", major(rdev), minor(rdev))))
            }
            Ok(metadata) if metadata.is_file() => Ok(Self::file(named, resolve(named)?)),
            Ok(_) => Err(format!("{} is neither a block device nor a regular file", named.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let parent = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let folder = resolve(parent)?;
                let name = named.file_name().ok_or_else(|| format!("{} names no file", named.display()))?;
                if folder.starts_with(tree.at("dev")) {
                    return Err(format!("there is no device {}; `lsblk` lists them", named.display()));
                }
                Ok(Self::file(named, folder.join(name)))
            }
            Err(error) => Err(format!("{} cannot be looked at: {error}", named.display())),
        }
    }

    fn file(named: &Path, path: PathBuf) -> Self {
        Self {
            named: named.to_owned(),
            stable_path: path.clone(),
            path,
            kind: Kind::File,
            model: None,
            serial: None,
            wwn: None,
            by_path: None,
            number: None,
            sysfs: None,
        }
    }

    /// The block device `number` (`MAJOR:MINOR`), whose node is `path`.
    pub fn block(tree: &Tree, named: &Path, path: PathBuf, number: &str) -> Self {
        let sysfs = tree.real(format!("sys/dev/block/{number}"));
        let is_partition = sysfs.as_ref().is_some_and(|sysfs| tree.exists(sysfs.join("partition")));
        // A partition has the identity of its disk, but not its names.
        let whole = sysfs.as_deref().and_then(|sysfs| if is_partition { sysfs.parent() } else { Some(sysfs) });
        let name = whole.and_then(|whole| whole.file_name()?.to_str());
        let disk = name.and_then(|name| inventory::disk(tree, name));
        let links = |folder: &str, names: Option<&Vec<String>>| -> Vec<PathBuf> {
            let folder = Path::new("dev/disk").join(folder);
            let names = names.filter(|_| !is_partition).into_iter().flatten();
            names.map(|name| folder.join(name)).filter(|link| tree.exists(link)).map(|link| tree.at(link)).collect()
        };
        let by_id = links("by-id", disk.as_ref().map(|disk| &disk.by_id));
        Self {
            named: named.to_owned(),
            stable_path: by_id.into_iter().min_by_key(|link| rank(link)).unwrap_or_else(|| path.clone()),
            kind: Kind::BlockDevice,
            by_path: links("by-path", disk.as_ref().map(|disk| &disk.by_path)).into_iter().next(),
            model: disk.as_ref().and_then(|disk| disk.model.clone()),
            serial: disk.as_ref().and_then(|disk| disk.serial.clone()),
            wwn: disk.and_then(|disk| disk.wwn),
            number: Some(number.to_owned()),
            sysfs: sysfs.map(|sysfs| tree.at(sysfs)),
            path,
        }
    }

    /// What must be typed to erase it: the serial; the whole path of what has none.
    pub fn erase_word(&self) -> String {
        self.serial.clone().unwrap_or_else(|| self.path.display().to_string())
    }

    /// On one line, for messages.
    pub fn describe(&self) -> String {
        let mut facts = Vec::new();
        facts.extend(self.model.clone());
        facts.extend(self.serial.as_ref().map(|serial| format!("serial {serial}")));
        if self.stable_path != self.path {
            facts.push(self.stable_path.display().to_string());
        }
        let path = self.path.display();
        if facts.is_empty() { path.to_string() } else { format!("{path} ({})", facts.join(", ")) }
    }

    /// A line of text in its folder of sysfs.
    pub fn attribute(&self, name: &str) -> Option<String> {
        text(&self.sysfs.as_ref()?.join(name))
    }
}

fn resolve(path: &Path) -> Result<PathBuf, String> {
    fs::canonicalize(path).map_err(|error| format!("{} cannot be looked at: {error}", path.display()))
}

/// The trimmed text of a file, if there is any.
pub fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The stable name is by WWN or EUI where there is one, since it is printed on the disk and the same in every machine.
fn rank(link: &Path) -> usize {
    const FIRST: [&str; 6] = ["wwn-", "nvme-eui.", "nvme-uuid.", "nvme-", "ata-", "scsi-"];
    let name = link.file_name().unwrap_or_default().to_string_lossy();
    FIRST.iter().position(|prefix| name.starts_with(prefix)).unwrap_or(FIRST.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use holdfast_hw_profiles::tree::Tree;

    use super::Device;

    fn put(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_disk_has_its_serial_its_wwn_and_the_names_that_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let tree = Tree::open(&root).unwrap();
        let sdb = root.join("sys/devices/pci0000:00/host2/block/sdb");
        put(&sdb.join("device/vpd_pg80"), b"\x00\x80\x00\x0c    ZX12AB34");
        put(&sdb.join("device/wwid"), b"naa.5000c500e1234567\n");
        put(&sdb.join("device/model"), b"ST20000NM007D-3D \n");
        put(&sdb.join("sdb1/partition"), b"1\n");
        for (folder, link, target) in [
            ("sys/dev/block", "8:16", "../../devices/pci0000:00/host2/block/sdb"),
            ("sys/dev/block", "8:17", "../../devices/pci0000:00/host2/block/sdb/sdb1"),
            ("sys/block", "sdb", "../devices/pci0000:00/host2/block/sdb"),
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
            symlink(target, root.join(folder).join(link)).unwrap();
        }
        put(&root.join("dev/sdb"), b"");
        for (folder, link) in [
            ("by-id", "ata-ST20000NM007D-3D_ZX12AB34"),
            ("by-id", "wwn-0x5000c500e1234567"),
            ("by-path", "pci-0000:01:00.0-sas-exp0x500304801eb5bbff-phy7-lun-0"),
        ] {
            fs::create_dir_all(root.join("dev/disk").join(folder)).unwrap();
            symlink("../../sdb", root.join("dev/disk").join(folder).join(link)).unwrap();
        }
        let disk = Device::block(&tree, Path::new("/dev/sdb"), root.join("dev/sdb"), "8:16");
        assert_eq!(disk.serial.as_deref(), Some("ZX12AB34"));
        assert_eq!(disk.erase_word(), "ZX12AB34");
        assert_eq!(disk.wwn.as_deref(), Some("0x5000c500e1234567"));
        assert_eq!(disk.stable_path, root.join("dev/disk/by-id/wwn-0x5000c500e1234567"));
        assert!(disk.by_path.unwrap().ends_with("pci-0000:01:00.0-sas-exp0x500304801eb5bbff-phy7-lun-0"));
        assert_eq!(disk.model.as_deref(), Some("ST20000NM007D-3D"));
        let partition = Device::block(&tree, Path::new("/dev/sdb1"), root.join("dev/sdb1"), "8:17");
        assert_eq!(partition.serial.as_deref(), Some("ZX12AB34"), "a partition has the identity of its disk");
    }

    #[test]
    fn an_nvme_disk_has_its_serial_and_a_disk_without_one_is_named_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let tree = Tree::open(&root).unwrap();
        put(&root.join("sys/block/nvme0n1/device/serial"), b"S64DNX0R123456      \n");
        put(&root.join("sys/block/nvme0n1/wwid"), b"eui.0025385b11b0f0c1\n");
        put(&root.join("sys/block/loop0/size"), b"1\n");
        fs::create_dir_all(root.join("sys/dev/block")).unwrap();
        symlink("../../block/nvme0n1", root.join("sys/dev/block/259:0")).unwrap();
        symlink("../../block/loop0", root.join("sys/dev/block/7:0")).unwrap();
        let nvme = Device::block(&tree, Path::new("/dev/nvme0n1"), "/dev/nvme0n1".into(), "259:0");
        assert_eq!(
            (nvme.serial.as_deref(), nvme.wwn.as_deref()),
            (Some("S64DNX0R123456"), Some("eui.0025385b11b0f0c1"))
        );
        let bare = Device::block(&tree, Path::new("/dev/loop0"), "/dev/loop0".into(), "7:0");
        assert_eq!((bare.erase_word().as_str(), bare.describe().as_str()), ("/dev/loop0", "/dev/loop0"));
    }

    #[test]
    fn a_name_that_means_no_disk_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dev")).unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let error = Device::find(&tree, &tree.at("dev/sdzz")).unwrap_err();
        assert!(error.contains("there is no device") && error.contains("lsblk"), "{error}");
        let error = Device::find(&tree, folder.path()).unwrap_err();
        assert!(error.contains("neither a block device nor a regular file"), "{error}");
        let error = Device::find(&tree, Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.contains("/nowhere/at"), "{error}");
    }
}
