//! What disks and enclosures a machine has, read from sysfs.
//!
//! A disk is known by its serial number or WWN and by the place it hangs at (its name in `/dev/disk/by-path`); the kernel's
//! name (`sda`) is only how it is reached while this lasts.

mod by_path;
mod disk;
mod enclosure;
mod usage;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

pub use self::disk::{Disk, DiskZones, Zoned};
pub use self::enclosure::{Enclosure, Slot, SlotName};
use self::usage::Usage;
use crate::error::HardwareError;
use crate::signature;
use crate::tree::Tree;

/// How long one disk may take to show its first and last bytes.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Names of block devices that are no hardware.
const VIRTUAL: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd", "zd"];

/// What to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Loop, RAM, device-mapper and the like, too.
    pub virtual_disks: bool,
    /// Leave out the look at the disks' own bytes, which needs the right to read them.
    pub skip_signatures: bool,
}

/// What the firmware says about the machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Dmi {
    /// Maker of the system.
    pub sys_vendor: Option<String>,
    /// Maker of the chassis.
    pub chassis_vendor: Option<String>,
    /// Product.
    pub product_name: Option<String>,
}

/// A machine's storage hardware at one moment.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where it was read from.
    pub tree: Tree,
    /// Who made it.
    pub dmi: Dmi,
    /// Its disks, in the order of their places.
    pub disks: Vec<Disk>,
    /// Its enclosures.
    pub enclosures: Vec<Enclosure>,
}

impl Machine {
    /// Reads the machine whose `/sys`, `/proc` and `/dev` are under `root`: `/` for this one.
    ///
    /// # Errors
    /// When there is no `sys` under `root`. What a single disk does not tell is left out.
    pub fn read(root: &Path, options: ReadOptions) -> Result<Self, HardwareError> {
        let failed = |source| HardwareError::Io { path: root.to_owned(), what: "cannot be read", source };
        let tree = Tree::open(root).map_err(failed)?;
        if !tree.exists("sys") {
            return Err(failed(std::io::Error::other("there is no `sys` in it; is /sys mounted?")));
        }
        let enclosures = enclosure::all(&tree);
        let usage = Usage::read(&tree);
        let mut disks: Vec<Disk> = tree
            .names("sys/block")
            .iter()
            .filter(|name| options.virtual_disks || !is_virtual(name))
            .filter_map(|name| disk::read(&tree, name, &usage, &enclosures))
            .collect();
        if !options.skip_signatures {
            look_at_bytes(&tree, &mut disks);
        }
        disks.sort_by_cached_key(|disk| crate::pattern::natural(&disk.place()));
        let dmi = |name: &str| tree.text(format!("sys/class/dmi/id/{name}"));
        let dmi = Dmi {
            sys_vendor: dmi("sys_vendor"),
            chassis_vendor: dmi("chassis_vendor"),
            product_name: dmi("product_name"),
        };
        Ok(Self { tree, dmi, disks, enclosures })
    }

    /// The SAS expanders that hold disks, in the order by which profiles count them.
    pub fn expanders(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.disks.iter().filter_map(|disk| disk.expander.as_deref()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

/// What sysfs says of the one disk `name`, who uses it and what its bytes say left out; `None` when it is not there.
pub fn disk(tree: &Tree, name: &str) -> Option<Disk> {
    disk::read(tree, name, &Usage::default(), &[])
}

/// Whether `name` is of those that are no hardware: loop, RAM, device mapper and the like.
pub(crate) fn is_virtual(name: &str) -> bool {
    VIRTUAL.iter().any(|kind| is_numbered(name, kind))
}

/// Whether `name` is `kind` and a number: `md0` is a `md`, `mdraid` is not.
fn is_numbered(name: &str, kind: &str) -> bool {
    name.strip_prefix(kind).is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Looks for signatures on disks that nothing is known to use, on all at once, so that sick ones cost one deadline.
fn look_at_bytes(tree: &Tree, disks: &mut [Disk]) {
    std::thread::scope(|scope| {
        for disk in disks.iter_mut().filter(|disk| !disk.is_in_use() && disk.size_bytes > 0) {
            scope.spawn(|| match signature::look_within(&tree.at(format!("dev/{}", disk.name)), LOOK_DEADLINE) {
                Ok(found) => disk.signature = found.map(str::to_owned),
                Err(error) => disk.signature_unread = Some(error.to_string()),
            });
        }
    });
}
