//! Messages about the places of disks: what stands there, its light, and taking a new disk into use.

use holdfast_libs_types::DiskId;
use serde::{Deserialize, Serialize};

/// Names the place of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceAsk {
    /// Device or file, as the node reports it.
    pub path: String,
}

/// What stands at the place of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occupant {
    /// A disk that is in use.
    Disk,
    /// Something that is no disk yet: blank, or of somebody else.
    Unformatted,
    /// Something that cannot be used.
    Unusable,
    /// Nothing.
    Empty,
}

/// The place of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As it was asked for.
    pub path: String,
    /// What stands there now.
    pub occupant: Occupant,
    /// The disk in use there.
    pub disk: Option<DiskId>,
    /// Why what stands there is not in use, or that nothing does.
    pub reason: Option<String>,
    /// The bay, by the hardware profile.
    pub bay: Option<String>,
    /// Why it has no light that could be switched; none when it has one.
    pub no_light: Option<String>,
}

/// Switches the light of a disk's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocateOrder {
    /// Device or file, as the node reports it.
    pub path: String,
    /// On, or off.
    pub on: bool,
}

/// A light that was switched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The bay, by the hardware profile.
    pub bay: String,
    /// By which way.
    pub way: String,
}

/// A blank device or file that was made a disk and is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Its new id.
    pub disk: DiskId,
    /// Where it is.
    pub path: String,
    /// Its slots.
    pub slots: u64,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Its serial, where it has one.
    pub serial: Option<String>,
}
