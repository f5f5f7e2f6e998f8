//! Enclosures and their slots: the kernel's enclosure class (SES).

use std::path::PathBuf;

use serde::Serialize;

use super::by_path::expander_of;
use crate::tree::Tree;

/// An enclosure with a controller that tells slots and switches lights.
#[derive(Debug, Clone)]
pub struct Enclosure {
    /// Its name in `/sys/class/enclosure`, a SCSI address.
    pub name: String,
    /// Its model in the SCSI inquiry.
    pub model: Option<String>,
    /// The SAS expander that it belongs to.
    pub expander: Option<String>,
    /// Its slots, in the order of their numbers.
    pub slots: Vec<Slot>,
}

/// A slot of an enclosure.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Its name, for example `Slot 01`: a folder in that of the enclosure.
    pub name: String,
    /// Its number.
    pub number: Option<u64>,
    /// The SCSI device in it, below the tree's root.
    pub(super) device: Option<PathBuf>,
}

/// Enclosure and slot by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotName {
    /// Name of the enclosure.
    pub enclosure: String,
    /// Name of the slot.
    pub slot: String,
}

impl Slot {
    /// Whether a profile's `slot` means this one: by name or by number.
    pub fn is_called(&self, text: &str) -> bool {
        self.name == text || (self.number.is_some() && self.number == text.parse().ok())
    }
}

/// All enclosures.
pub(super) fn all(tree: &Tree) -> Vec<Enclosure> {
    let folder = PathBuf::from("sys/class/enclosure");
    let read = |name: String| {
        let folder = folder.join(&name);
        let mut slots: Vec<Slot> = tree
            .names(&folder)
            .into_iter()
            // Slots are the folders that have a state; `power` and the links `device` and `subsystem` have none.
            .filter(|slot| tree.exists(folder.join(slot).join("status")))
            .map(|slot| Slot {
                number: tree.number(folder.join(&slot).join("slot")),
                device: tree.real(folder.join(&slot).join("device")),
                name: slot,
            })
            .collect();
        slots.sort_by_cached_key(|slot| (slot.number, crate::pattern::natural(&slot.name)));
        let device = tree.real(folder.join("device"));
        Enclosure {
            model: tree.text(folder.join("device/model")),
            expander: device.and_then(|device| expander_of(tree, &device)),
            name,
            slots,
        }
    };
    tree.names(&folder).into_iter().map(read).collect()
}
