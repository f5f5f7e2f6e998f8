//! One disk as sysfs describes it.

use std::path::Path;

use serde::Serialize;

use super::by_path::place;
use super::enclosure::{Enclosure, SlotName};
use super::usage::Usage;
use crate::profile::Media;
use crate::tree::Tree;

/// Sectors of sysfs have 512 bytes, whatever the disk's own have.
const SYSFS_SECTOR_BYTES: u64 = 512;

/// How a disk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zoned {
    /// Anywhere.
    No,
    /// In zones, but anywhere goes too.
    HostAware,
    /// Only in zones.
    HostManaged,
}

/// Disk-zone geometry as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DiskZones {
    /// Bytes of a zone.
    pub size_bytes: u64,
    /// Number of zones.
    pub count: Option<u64>,
    /// Most open zones; `None`: no limit, or not told.
    pub open_limit: Option<u64>,
}

/// One disk.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// The kernel's name, for example `sda`. It changes from boot to boot.
    pub name: String,
    /// Names in `/dev/disk/by-path`, the one rebuilt from sysfs first.
    pub by_path: Vec<String>,
    /// Names in `/dev/disk/by-id`.
    pub by_id: Vec<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World-wide name: `0x5000…` for SCSI, `eui.…`, `uuid.…` or `nvme.…` for NVMe.
    pub wwn: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Model; SCSI cuts it at 16 characters.
    pub model: Option<String>,
    /// Firmware.
    pub firmware: Option<String>,
    /// Size in bytes; 0 when the kernel cannot use the disk.
    pub size_bytes: u64,
    /// Whether it turns.
    pub rotational: bool,
    /// How it is written.
    pub zoned: Zoned,
    /// Geometry, for disks with zones.
    pub zones: Option<DiskZones>,
    /// Smallest addressable unit in bytes.
    pub logical_block_bytes: u64,
    /// Smallest unit it writes without reading first, in bytes.
    pub physical_block_bytes: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
    /// State of the device by the kernel, when that is not the good one (`running`, `live`).
    pub bad_state: Option<String>,
    /// What is on it by the kernel's account: `mounted at /`, `swap`, `held by dm-0`, `partition sda1`.
    pub uses: Vec<String>,
    /// What its bytes say: a partition table, a file system.
    pub signature: Option<String>,
    /// Why its bytes were not looked at.
    pub signature_unread: Option<String>,
    /// The SAS expander that it hangs on.
    pub expander: Option<String>,
    /// Its slot in the kernel's enclosure class.
    pub slot: Option<SlotName>,
    /// SCSI host, channel and target, or NVMe subsystem: units of one disk share it.
    #[serde(skip)]
    pub unit_group: Option<String>,
}

impl Disk {
    /// The kind of storage it is.
    pub fn media(&self) -> Media {
        match (self.name.starts_with("nvme"), self.zoned, self.rotational) {
            (true, Zoned::HostManaged, _) => Media::NvmeZoned,
            (true, ..) => Media::Nvme,
            (false, Zoned::HostManaged, _) => Media::HddZoned,
            (false, _, true) => Media::Hdd,
            (false, _, false) => Media::Ssd,
        }
    }

    /// Where it hangs, for ordering and for people: its first by-path name, or the kernel's name.
    pub fn place(&self) -> String {
        self.by_path.first().cloned().unwrap_or_else(|| self.name.clone())
    }

    /// Whether the kernel knows of a use.
    pub fn is_in_use(&self) -> bool {
        !self.uses.is_empty()
    }
}

/// Reads `sys/block/NAME`; `None` when it vanished, or is one path of a multipath NVMe namespace.
pub(super) fn read(tree: &Tree, name: &str, usage: &Usage, enclosures: &[Enclosure]) -> Option<Disk> {
    let real = tree.real(format!("sys/block/{name}"))?;
    if tree.number(real.join("hidden")) == Some(1) {
        return None;
    }
    let queue = |key: &str| tree.number(real.join("queue").join(key));
    let device = |key: &str| tree.text(real.join("device").join(key));
    let zoned = match tree.text(real.join("queue/zoned")).as_deref() {
        Some("host-managed") => Zoned::HostManaged,
        Some("host-aware") => Zoned::HostAware,
        _ => Zoned::No,
    };
    let zones = (zoned != Zoned::No).then(|| DiskZones {
        size_bytes: queue("chunk_sectors").unwrap_or(0) * SYSFS_SECTOR_BYTES,
        count: queue("nr_zones"),
        open_limit: queue("max_open_zones").filter(|limit| *limit > 0),
    });
    let serial = serial(tree, &real);
    let wwn = wwn(tree, &real);
    let place = place(tree, &real);
    Some(Disk {
        by_path: with_links(tree, "by-path", name, place.name.into_iter().collect()),
        by_id: with_links(tree, "by-id", name, id_names(name, serial.as_deref(), wwn.as_deref())),
        vendor: device("vendor").filter(|vendor| !vendor.starts_with("0x")),
        model: device("model"),
        firmware: device("rev").or_else(|| device("firmware_rev")),
        size_bytes: tree.number(real.join("size")).unwrap_or(0).saturating_mul(SYSFS_SECTOR_BYTES),
        rotational: queue("rotational") == Some(1),
        zoned,
        zones,
        logical_block_bytes: queue("logical_block_size").unwrap_or(SYSFS_SECTOR_BYTES),
        physical_block_bytes: queue("physical_block_size").unwrap_or(SYSFS_SECTOR_BYTES),
        read_only: tree.number(real.join("ro")) == Some(1),
        bad_state: device("state").filter(|state| state != "running" && state != "live"),
        uses: uses(tree, &real, name, usage),
        signature: None,
        signature_unread: None,
        expander: place.expander,
        slot: slot(&real, enclosures),
        unit_group: unit_group(tree, &real),
        name: name.to_owned(),
        serial,
        wwn,
    })
}

fn serial(tree: &Tree, real: &Path) -> Option<String> {
    for file in ["device/serial", "serial"] {
        if let Some(serial) = tree.text(real.join(file)) {
            return Some(serial);
        }
    }
    // SCSI vital product data, page 0x80: four bytes of head with the length in the last two, then the serial number.
    let page = tree.bytes(real.join("device/vpd_pg80"))?;
    let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
    let text = String::from_utf8_lossy(page.get(4..4 + length)?).trim_matches(['\0', ' ']).to_owned();
    (!text.is_empty()).then_some(text)
}

fn wwn(tree: &Tree, real: &Path) -> Option<String> {
    let text = tree.text(real.join("wwid")).or_else(|| tree.text(real.join("device/wwid")))?;
    if let Some(number) = text.strip_prefix("naa.") {
        return Some(format!("0x{number}"));
    }
    // `t10.` holds maker, model and serial once more, and is no world-wide name.
    ["eui.", "uuid.", "nvme."].iter().any(|kind| text.starts_with(kind)).then_some(text)
}

fn id_names(name: &str, serial: Option<&str>, wwn: Option<&str>) -> Vec<String> {
    match (wwn, serial) {
        (Some(wwn), _) if name.starts_with("nvme") => vec![format!("nvme-{wwn}")],
        (Some(wwn), _) => vec![format!("wwn-{wwn}")],
        (None, Some(serial)) if name.starts_with("vd") => vec![format!("virtio-{serial}")],
        _ => Vec::new(),
    }
}

/// `names`, then what udev linked to the disk in `dev/disk/KIND`.
fn with_links(tree: &Tree, kind: &str, name: &str, mut names: Vec<String>) -> Vec<String> {
    let folder = Path::new("dev/disk").join(kind);
    for link in tree.names(&folder) {
        if tree.link_name(folder.join(&link)).as_deref() == Some(name) && !names.contains(&link) {
            names.push(link);
        }
    }
    names
}

fn uses(tree: &Tree, real: &Path, name: &str, usage: &Usage) -> Vec<String> {
    let mut uses = usage.of(name, tree.text(real.join("dev")).as_deref());
    let held = |folder: &Path| tree.names(folder.join("holders")).into_iter().map(|holder| format!("held by {holder}"));
    uses.extend(held(real));
    for part in tree.names(real).into_iter().filter(|part| tree.exists(real.join(part).join("partition"))) {
        let folder = real.join(&part);
        let mut details = usage.of(&part, tree.text(folder.join("dev")).as_deref());
        details.extend(held(&folder));
        let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
        uses.push(format!("partition {part}{details}"));
    }
    uses
}

fn slot(real: &Path, enclosures: &[Enclosure]) -> Option<SlotName> {
    enclosures.iter().find_map(|enclosure| {
        let holds =
            |device: &Option<std::path::PathBuf>| device.as_ref().is_some_and(|device| real.starts_with(device));
        let slot = enclosure.slots.iter().find(|slot| holds(&slot.device))?;
        Some(SlotName { enclosure: enclosure.name.clone(), slot: slot.name.clone() })
    })
}

/// The folder that holds all units of one disk: the SCSI target, or the NVMe controller.
fn unit_group(tree: &Tree, real: &Path) -> Option<String> {
    let device = tree.real(real.join("device"))?;
    let is_controller = device.file_name()?.to_str()?.starts_with("nvme");
    let group = if is_controller { device.as_path() } else { device.parent()? };
    group.to_str().map(str::to_owned)
}
