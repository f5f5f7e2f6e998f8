//! Names of `/dev/disk/by-path`, rebuilt from where a disk stands in sysfs.
//!
//! The rules are those of udev's `path_id`: the chain of PCI devices, then one part for the transport. They are rebuilt
//! because a container, an initramfs or a recorded tree may have no udev.

use std::path::{Path, PathBuf};

use crate::tree::{Tree, parts};

/// Where a disk hangs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Name in `/dev/disk/by-path`; `None` for transports whose names change or are not known here (USB, virtual disks).
    pub name: Option<String>,
    /// The SAS expander: PCI address of its adapter and SAS address.
    pub expander: Option<String>,
}

/// The place of the block device that is really at `real` below the tree's root.
pub(super) fn place(tree: &Tree, real: &Path) -> Place {
    let own = parts(real);
    if own.contains(&"nvme-subsystem") {
        return multipath_nvme(tree, real, &own);
    }
    if own.iter().any(|part| is_numbered(part, "usb")) {
        return Place::default();
    }
    let pci = pci_chain(&own);
    if pci.is_empty() {
        return Place::default();
    }
    if let Some(index) = own.iter().position(|part| part.starts_with("end_device-")) {
        return sas(tree, &own, index, &pci);
    }
    let transport = if let Some(index) = own.iter().position(|part| is_numbered(part, "ata")) {
        ata(tree, &own, index)
    } else if own.contains(&"nvme") {
        tree.text(real.join("nsid")).map(|nsid| format!("-nvme-{nsid}"))
    } else if own.iter().any(|part| is_numbered(part, "virtio")) && !own.iter().any(|part| is_numbered(part, "host")) {
        Some(String::new())
    } else {
        scsi(tree, &own)
    };
    Place { name: transport.map(|transport| format!("{pci}{transport}")), expander: None }
}

fn is_numbered(part: &str, kind: &str) -> bool {
    super::is_numbered(part, kind)
}

/// With native multipath a namespace stands under its subsystem; its place is that of the controller of the same number.
fn multipath_nvme(tree: &Tree, real: &Path, own: &[&str]) -> Place {
    let number = own.last().and_then(|name| name.strip_prefix("nvme"));
    let digits = number.map(|number| number.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
    let controller = digits.and_then(|digits| tree.real(format!("sys/class/nvme/nvme{digits}")));
    let pci = controller.map(|path| pci_chain(&parts(&path))).filter(|pci| !pci.is_empty());
    let nsid = tree.text(real.join("nsid"));
    Place { name: pci.zip(nsid).map(|(pci, nsid)| format!("{pci}-nvme-{nsid}")), expander: None }
}

/// The last device of each run of PCI devices: bridges are left out, a volume management device (VMD) is not.
pub(super) fn pci_chain(own: &[&str]) -> String {
    let mut chain: Vec<&str> = Vec::new();
    for (index, part) in own.iter().enumerate() {
        if is_pci_address(part) && !own.get(index + 1).is_some_and(|next| is_pci_address(next)) {
            chain.push(part);
        }
    }
    chain.iter().map(|address| format!("pci-{address}")).collect::<Vec<_>>().join("-")
}

/// `0000:3b:00.0`; domains of VMDs have five digits.
fn is_pci_address(part: &str) -> bool {
    let hex = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut fields = part.split(':');
    let (Some(domain), Some(bus), Some(slot), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    hex(domain, 4)
        && hex(bus, 2)
        && slot.split_once('.').is_some_and(|(device, function)| hex(device, 2) && hex(function, 1))
}

/// The folder of part `index`.
fn folder(own: &[&str], index: usize) -> PathBuf {
    own[..=index].iter().collect()
}

/// The expander above a SAS device whose `port-` is at `port`, with its SAS address.
fn expander_address(tree: &Tree, own: &[&str], port: usize) -> Option<String> {
    let index = port.checked_sub(1)?;
    let name = own.get(index).filter(|name| name.starts_with("expander-"))?;
    tree.text(folder(own, index).join("sas_device").join(name).join("sas_address"))
}

/// PCI address of the adapter and SAS address of the expander that a device hangs on: its identity among expanders.
pub(super) fn expander_of(tree: &Tree, real: &Path) -> Option<String> {
    let own = parts(real);
    let index = own.iter().position(|part| part.starts_with("end_device-"))?;
    let address = expander_address(tree, &own, index.checked_sub(1)?)?;
    Some(format!("{}-sas-exp{address}", pci_chain(&own)))
}

fn sas(tree: &Tree, own: &[&str], index: usize, pci: &str) -> Place {
    let name = || {
        let device = folder(own, index).join("sas_device").join(own[index]);
        let port = index.checked_sub(1)?;
        let phys = tree.number(folder(own, port).join("sas_port").join(own[port]).join("num_phys"))?;
        let lun = lun(own)?;
        if phys > 1 {
            let address = tree.text(device.join("sas_address"))?;
            return Some(format!("{pci}-sas-{address}-{lun}"));
        }
        let phy = tree.number(device.join("phy_identifier"))?;
        Some(match expander_address(tree, own, port) {
            Some(address) => format!("{pci}-sas-exp{address}-phy{phy}-{lun}"),
            None => format!("{pci}-sas-phy{phy}-{lun}"),
        })
    };
    Place { name: name(), expander: expander_of(tree, &folder(own, own.len() - 1)) }
}

/// Host, channel, target and unit of the SCSI device in a path.
fn address(own: &[&str]) -> Option<[u64; 4]> {
    own.iter().rev().find_map(|part| {
        let numbers: Vec<u64> = part.split(':').map_while(|number| number.parse().ok()).collect();
        if part.split(':').count() == 4 { numbers.try_into().ok() } else { None }
    })
}

fn lun(own: &[&str]) -> Option<String> {
    let [.., lun] = address(own)?;
    Some(if lun < 256 {
        format!("lun-{lun}")
    } else {
        format!("lun-0x{:04x}{:04x}00000000", lun & 0xffff, (lun >> 16) & 0xffff)
    })
}

fn ata(tree: &Tree, own: &[&str], index: usize) -> Option<String> {
    let port = tree.text(folder(own, index).join("ata_port").join(own[index]).join("port_no"))?;
    let [_, channel, target, _] = address(own)?;
    // Behind a port multiplier the channel counts, otherwise the target.
    Some(if channel != 0 { format!("-ata-{port}.{channel}.0") } else { format!("-ata-{port}.{target}") })
}

/// Other SCSI hosts, counted from the first one of their adapter.
fn scsi(tree: &Tree, own: &[&str]) -> Option<String> {
    let index = own.iter().position(|part| is_numbered(part, "host"))?;
    let [host, channel, target, lun] = address(own)?;
    let hosts = tree.names(folder(own, index.checked_sub(1)?));
    let first = hosts.iter().filter_map(|name| name.strip_prefix("host")?.parse::<u64>().ok()).min()?;
    Some(format!("-scsi-{}:{channel}:{target}:{lun}", host.checked_sub(first)?))
}

#[cfg(test)]
mod tests {
    use super::{address, is_pci_address, lun, pci_chain};

    #[test]
    fn bridges_are_left_out_and_volume_management_devices_are_not() {
        let own = ["sys", "devices", "pci0000:5d", "0000:5d:00.0", "0000:5e:00.0", "nvme", "nvme0", "nvme0n1"];
        assert_eq!(pci_chain(&own), "pci-0000:5e:00.0");
        let own = ["pci0000:64", "0000:64:05.5", "pci10000:80", "10000:80:02.0", "10000:81:00.0", "nvme"];
        assert_eq!(pci_chain(&own), "pci-0000:64:05.5-pci-10000:81:00.0");
        for other in ["0:0:12:0", "pci0000:5d", "0000:5e:00", "port-0:0:12", "0000:5e:00.0.1:2"] {
            assert!(!is_pci_address(other), "{other}");
        }
    }

    #[test]
    fn large_logical_units_are_written_in_their_long_form() {
        assert_eq!(lun(&["host0", "0:0:12:3", "block", "sda"]).unwrap(), "lun-3");
        assert_eq!(lun(&["0:0:12:49409"]).unwrap(), "lun-0xc101000000000000");
        assert_eq!(address(&["target0:0:12"]), None);
    }
}
