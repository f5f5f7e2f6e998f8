//! Which disk a name means: serial, WWN and the names that stay, read from sysfs and udev's links.
//!
//! `/dev/sdb` is another disk after the next boot; so it is only ever the way in, never what is recorded.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde::Serialize;

/// Where the system's trees are: `/` but in tests.
#[derive(Debug, Clone)]
pub struct Roots {
    pub dev: PathBuf,
    pub proc: PathBuf,
    pub sys: PathBuf,
}

impl Roots {
    pub fn system() -> Self {
        Self { dev: "/dev".into(), proc: "/proc".into(), sys: "/sys".into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    BlockDevice,
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
    pub kind: Kind,
    pub model: Option<String>,
    pub serial: Option<String>,
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
    pub fn find(roots: &Roots, named: &Path) -> Result<Self, String> {
        match fs::metadata(named) {
            Ok(metadata) if metadata.file_type().is_block_device() => {
                let path = resolve(named)?;
                let rdev = metadata.rdev();
                Ok(Self::block(roots, named, path, &format!("{}:{}", major(rdev), minor(rdev))))
            }
            Ok(metadata) if metadata.is_file() => Ok(Self::file(named, resolve(named)?)),
            Ok(_) => Err(format!("{} is neither a block device nor a regular file", named.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let parent = named.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let folder = resolve(parent)?;
                let name = named.file_name().ok_or_else(|| format!("{} names no file", named.display()))?;
                if folder.starts_with(&roots.dev) {
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
    pub fn block(roots: &Roots, named: &Path, path: PathBuf, number: &str) -> Self {
        let link = roots.sys.join("dev/block").join(number);
        let sysfs = fs::canonicalize(&link).unwrap_or(link);
        // A partition has the identity of its disk.
        let disk = if sysfs.join("partition").exists() { sysfs.parent().unwrap_or(&sysfs) } else { &sysfs };
        let first = |names: &[&str]| names.iter().find_map(|name| text(&disk.join(name)));
        let serial = first(&["serial", "device/serial"]).or_else(|| vpd_serial(&disk.join("device/vpd_pg80")));
        Self {
            named: named.to_owned(),
            stable_path: by_id(roots, &path).unwrap_or_else(|| path.clone()),
            kind: Kind::BlockDevice,
            model: first(&["device/model"]),
            serial,
            wwn: first(&["wwid", "device/wwid"]),
            by_path: links_to(&roots.dev.join("disk/by-path"), &path).into_iter().next(),
            number: Some(number.to_owned()),
            sysfs: Some(sysfs),
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

/// The serial of a SCSI or SATA disk: vital product data page 0x80, four bytes of head (the length in the last two),
/// then the text. SPC-5, section 7.7.20.
fn vpd_serial(path: &Path) -> Option<String> {
    let page = fs::read(path).ok()?;
    let len = usize::from(*page.get(2)?) << 8 | usize::from(*page.get(3)?);
    let bytes = page.get(4..4 + len).or_else(|| page.get(4..))?;
    let text = String::from_utf8_lossy(bytes).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
    (!text.is_empty()).then_some(text)
}

/// The links of `folder` that lead to `path`, sorted.
fn links_to(folder: &Path, path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut links: Vec<PathBuf> =
        entries.filter(|link| fs::canonicalize(link).is_ok_and(|target| target == path)).collect();
    links.sort();
    links
}

/// The stable name: by WWN or EUI where there is one, since it is printed on the disk and the same in every machine.
fn by_id(roots: &Roots, path: &Path) -> Option<PathBuf> {
    const FIRST: [&str; 6] = ["wwn-", "nvme-eui.", "nvme-uuid.", "nvme-", "ata-", "scsi-"];
    let rank = |link: &PathBuf| {
        let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
        FIRST.iter().position(|prefix| name.starts_with(prefix)).unwrap_or(FIRST.len())
    };
    links_to(&roots.dev.join("disk/by-id"), path).into_iter().min_by_key(rank)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::{Device, Roots};

    fn put(path: &Path, bytes: &[u8]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_disk_has_its_serial_its_wwn_and_the_names_that_stay() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let roots = Roots { dev: root.join("dev"), proc: root.join("proc"), sys: root.join("sys") };
        let sdb = roots.sys.join("devices/pci0000:00/host2/block/sdb");
        put(&sdb.join("device/vpd_pg80"), b"\x00\x80\x00\x0c    ZX12AB34");
        put(&sdb.join("device/wwid"), b"naa.5000c500e1234567\n");
        put(&sdb.join("device/model"), b"ST20000NM007D-3D \n");
        put(&sdb.join("sdb1/partition"), b"1\n");
        fs::create_dir_all(roots.sys.join("dev/block")).unwrap();
        symlink("../../devices/pci0000:00/host2/block/sdb", roots.sys.join("dev/block/8:16")).unwrap();
        symlink("../../devices/pci0000:00/host2/block/sdb/sdb1", roots.sys.join("dev/block/8:17")).unwrap();
        put(&roots.dev.join("sdb"), b"");
        for (folder, link) in [
            ("by-id", "ata-ST20000NM007D-3D_ZX12AB34"),
            ("by-id", "wwn-0x5000c500e1234567"),
            ("by-path", "pci-0000:01:00.0-sas-exp0x500304801eb5bbff-phy7-lun-0"),
        ] {
            fs::create_dir_all(roots.dev.join("disk").join(folder)).unwrap();
            symlink("../../sdb", roots.dev.join("disk").join(folder).join(link)).unwrap();
        }
        let disk = Device::block(&roots, Path::new("/dev/sdb"), roots.dev.join("sdb"), "8:16");
        assert_eq!(disk.serial.as_deref(), Some("ZX12AB34"));
        assert_eq!(disk.erase_word(), "ZX12AB34");
        assert_eq!(disk.wwn.as_deref(), Some("naa.5000c500e1234567"));
        assert_eq!(disk.stable_path, roots.dev.join("disk/by-id/wwn-0x5000c500e1234567"));
        assert!(disk.by_path.unwrap().ends_with("pci-0000:01:00.0-sas-exp0x500304801eb5bbff-phy7-lun-0"));
        assert_eq!(disk.model.as_deref(), Some("ST20000NM007D-3D"));
        let partition = Device::block(&roots, Path::new("/dev/sdb1"), roots.dev.join("sdb1"), "8:17");
        assert_eq!(partition.serial.as_deref(), Some("ZX12AB34"), "a partition has the identity of its disk");
    }

    #[test]
    fn an_nvme_disk_has_its_serial_and_a_disk_without_one_is_named_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let roots = Roots { dev: root.join("dev"), proc: root.join("proc"), sys: root.join("sys") };
        put(&roots.sys.join("dev/block/259:0/device/serial"), b"S64DNX0R123456      \n");
        put(&roots.sys.join("dev/block/259:0/wwid"), b"eui.0025385b11b0f0c1\n");
        put(&roots.sys.join("dev/block/7:0/size"), b"1\n");
        let nvme = Device::block(&roots, Path::new("/dev/nvme0n1"), "/dev/nvme0n1".into(), "259:0");
        assert_eq!(
            (nvme.serial.as_deref(), nvme.wwn.as_deref()),
            (Some("S64DNX0R123456"), Some("eui.0025385b11b0f0c1"))
        );
        let bare = Device::block(&roots, Path::new("/dev/loop0"), "/dev/loop0".into(), "7:0");
        assert_eq!((bare.erase_word().as_str(), bare.describe().as_str()), ("/dev/loop0", "/dev/loop0"));
    }

    #[test]
    fn a_name_that_means_no_disk_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { dev: folder.path().canonicalize().unwrap(), ..Roots::system() };
        let error = Device::find(&roots, &roots.dev.join("sdzz")).unwrap_err();
        assert!(error.contains("there is no device") && error.contains("lsblk"), "{error}");
        let error = Device::find(&roots, folder.path()).unwrap_err();
        assert!(error.contains("neither a block device nor a regular file"), "{error}");
        let error = Device::find(&Roots::system(), Path::new("/nowhere/at/all")).unwrap_err();
        assert!(error.contains("/nowhere/at"), "{error}");
    }
}
