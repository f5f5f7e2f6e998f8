//! Who uses a disk by the kernel's account: mounts, swap, device-mapper and RAID on top of it.

use std::collections::HashMap;

use crate::tree::{Tree, unescaped};

/// Mounts and swap of the whole machine.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Uses by device number, `MAJOR:MINOR`, and by kernel name: btrfs and overlays mount under numbers of their own.
    uses: HashMap<String, Vec<String>>,
}

impl Usage {
    /// Reads this process's mounts and, where it may, those of the init process: a container sees only its own.
    pub fn read(tree: &Tree) -> Self {
        let mut usage = Self::default();
        for process in ["self", "1"] {
            for line in tree.text(format!("proc/{process}/mountinfo")).unwrap_or_default().lines() {
                usage.add_mount(line);
            }
        }
        for line in tree.text("proc/swaps").unwrap_or_default().lines().skip(1) {
            if let Some(name) = line.split_whitespace().next().and_then(|path| path.strip_prefix("/dev/")) {
                usage.add(name.to_owned(), "swap".to_owned());
            }
        }
        usage
    }

    /// One line of mountinfo, see proc(5): `ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS... - TYPE SOURCE OPTIONS`.
    fn add_mount(&mut self, line: &str) {
        let mut fields = line.split(' ');
        let (Some(number), Some(point)) = (fields.nth(2), fields.nth(1)) else { return };
        let place = format!("mounted at {}", unescaped(point).display());
        let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if let Some(name) = source.and_then(|source| source.strip_prefix("/dev/")) {
            self.add(name.to_owned(), place.clone());
        }
        self.add(number.to_owned(), place);
    }

    fn add(&mut self, key: String, place: String) {
        let uses = self.uses.entry(key).or_default();
        if !uses.contains(&place) {
            uses.push(place);
        }
    }

    /// Uses of the block device `name` with number `number`.
    pub fn of(&self, name: &str, number: Option<&str>) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for key in [Some(name), number].into_iter().flatten() {
            for place in self.uses.get(key).into_iter().flatten() {
                if !found.contains(place) {
                    found.push(place.clone());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    #[test]
    fn mounts_are_found_by_number_and_by_source() {
        let mut usage = Usage::default();
        usage.add_mount("27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw");
        usage.add_mount("40 27 0:45 /sub /srv/my\\040data rw - btrfs /dev/sdb1 rw");
        usage.add_mount("broken");
        assert_eq!(usage.of("other", Some("254:0")), ["mounted at /"]);
        assert_eq!(usage.of("sdb1", Some("8:17")), ["mounted at /srv/my data"]);
        assert!(usage.of("sdc", None).is_empty());
    }
}
