//! What a profile says: a chassis, its bays, the disks that belong into them, and how they are treated.

use std::collections::HashMap;

use serde::Serialize;

use crate::pattern::Pattern;

/// Kind of storage that a bay holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Media {
    /// A conventional hard disk.
    Hdd,
    /// A host-managed SMR hard disk.
    HddZoned,
    /// A SATA or SAS solid-state disk.
    Ssd,
    /// An NVMe namespace.
    Nvme,
    /// An NVMe zoned namespace (ZNS).
    NvmeZoned,
    /// A file, for development.
    File,
}

impl Media {
    /// All kinds, in the order of the manual.
    pub const ALL: [Self; 6] = [Self::Hdd, Self::HddZoned, Self::Ssd, Self::Nvme, Self::NvmeZoned, Self::File];

    /// As profiles write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hdd => "hdd",
            Self::HddZoned => "hdd-zoned",
            Self::Ssd => "ssd",
            Self::Nvme => "nvme",
            Self::NvmeZoned => "nvme-zoned",
            Self::File => "file",
        }
    }

    /// Whether it is written zone by zone.
    pub fn is_zoned(self) -> bool {
        matches!(self, Self::HddZoned | Self::NvmeZoned)
    }
}

impl std::fmt::Display for Media {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A checked profile.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name, unique among the profiles that are loaded.
    pub name: String,
    /// The file it was read from, or `NAME.toml (shipped)`.
    pub file: String,
    /// Whether it came with Holdfast rather than from the operator.
    pub shipped: bool,
    /// The chassis.
    pub chassis: Chassis,
    /// The bays, ranges written out, in the order of the file. Names are unique.
    pub bays: Vec<Bay>,
    /// Disk-zone geometry; there exactly when a bay holds zoned media.
    pub zones: Option<Zones>,
    /// Settings of the kernel for each disk.
    pub settings: Settings,
    /// Limits past which a disk is not used.
    pub limits: Limits,
    /// How lights are switched.
    pub led: Led,
    /// What should be there.
    pub expected: Expected,
}

impl Profile {
    /// The bay of that name.
    pub fn bay(&self, name: &str) -> Option<&Bay> {
        self.bays.iter().find(|bay| bay.name == name)
    }

    /// Bays by media kind.
    pub fn media(&self) -> HashMap<Media, usize> {
        let mut counts = HashMap::new();
        for bay in &self.bays {
            *counts.entry(bay.media).or_default() += 1;
        }
        counts
    }
}

/// How a chassis is recognised. An empty list matches any machine.
#[derive(Debug, Clone, Default)]
pub struct Chassis {
    /// For people.
    pub name: String,
    /// DMI `sys_vendor` or `chassis_vendor`: one of these.
    pub vendor: Vec<Pattern>,
    /// DMI `product_name`: one of these.
    pub product: Vec<Pattern>,
    /// Model in the SCSI inquiry of an enclosure (a JBOD has no DMI): one of these.
    pub enclosure: Vec<Pattern>,
}

/// One place for a disk.
#[derive(Debug, Clone)]
pub struct Bay {
    /// As people call it.
    pub name: String,
    /// Name in `/dev/disk/by-path` of the disk in it; for media `file` the full path of the file.
    pub path: Pattern,
    /// What belongs into it.
    pub media: Media,
    /// Number of the SAS expander that it hangs on, counted from 1 over the expanders that hold disks, ordered by PCI
    /// address of their adapter and SAS address. `None`: any.
    pub expander: Option<u32>,
    /// Name or number of its slot in the kernel's enclosure class; lets its light be switched while it is empty.
    pub slot: Option<String>,
}

/// Disk-zone geometry that zoned disks must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Zones {
    /// Bytes of a zone.
    pub size_bytes: u64,
    /// Conventional zones at the start of the disk. `None`: not checked (sysfs does not tell).
    pub conventional: Option<u32>,
    /// Most zones that may be open at a time. `None`: what the disk says.
    pub open_limit: Option<u32>,
}

/// Settings that [`crate::settings::apply`] writes. `None`: the kernel's choice stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Operations in flight at a disk.
    pub queue_depth: Option<u32>,
    /// I/O scheduler: `none`, `mq-deadline`, `kyber` or `bfq`.
    pub scheduler: Option<String>,
    /// Bytes the kernel reads ahead, whole KiB. Holdfast reads past the page cache, so it matters to others only.
    pub readahead_bytes: Option<u64>,
    /// Requests that the block layer queues (`nr_requests`).
    pub requests: Option<u32>,
}

/// Limits past which a disk is not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// A read that takes longer is an outlier, in milliseconds.
    pub read_ms: Option<u32>,
    /// A write that takes longer is an outlier, in milliseconds.
    pub write_ms: Option<u32>,
    /// SMART.
    pub smart: SmartLimits,
}

/// The highest values that are still good. `None`: not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SmartLimits {
    /// Sectors that the disk replaced (ATA attribute 5, SCSI grown defects).
    pub reallocated_sectors: Option<u64>,
    /// Sectors that it could not read and waits to replace (ATA 197, SCSI pending defects).
    pub pending_sectors: Option<u64>,
    /// Sectors that are lost (ATA 198, SCSI uncorrected errors of reads, writes and verifies).
    pub uncorrectable_sectors: Option<u64>,
    /// NVMe media and data integrity errors.
    pub media_errors: Option<u64>,
    /// Percent of the rated endurance that is used up; may pass 100.
    pub percentage_used: Option<u64>,
    /// Degrees Celsius.
    pub temperature_celsius: Option<u64>,
}

/// How the locate light of a bay is switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Led {
    /// Through the kernel's enclosure class; `ledctl` where that has no slot for the bay.
    Enclosure,
    /// Through the program `ledctl`.
    Ledctl,
    /// The chassis has none.
    None,
}

/// What should be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Disks in all; fewer is reported with the empty bays.
    pub disks: u32,
    /// Least bytes of each.
    pub least_size_bytes: u64,
}
