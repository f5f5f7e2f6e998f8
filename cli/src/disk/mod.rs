//! `holdfast admin disk format`: makes a disk of a whole block device or a file, on the storage server itself.
//!
//! Nothing is written before everything that speaks against it has been said. What is in use is never erased; what
//! merely stands there goes when the disk's serial is typed out; extents only when their number is typed as well.
//! The device is held exclusively from the last look until it is a disk.

use std::path::Path;

use anyhow::anyhow;
use holdfast_hw_profiles::tree::Tree;
use holdfast_libs_types::CellId;
use holdfast_node_engine::{Consent, FormatOptions, Formatted};
use holdfast_node_server::format::{self, Device, Grip, Kind, Look, Obstacle};
use serde_json::json;

use crate::arguments::FormatDisk;
use crate::outcome::usage;
use crate::show;

/// Bytes of a slot where nothing says otherwise.
const DEFAULT_SLOT_BYTES: u64 = 1 << 30;

/// Formats, or says why not.
///
/// # Errors
/// Usage; or everything that speaks against it.
pub fn format(options: &FormatDisk) -> anyhow::Result<()> {
    let tree = Tree::open(Path::new("/"))?;
    let (cell, slot_bytes) = cell_and_slot(options)?;
    let device = Device::find(&tree, &options.device).map_err(usage)?;
    check_size(options, &device)?;
    check_word(options, &device)?;
    let format_options = FormatOptions { cell, slot_bytes, size_bytes: options.size.map(|size| size.0) };
    let Look { candidate, obstacles, extents } = format::look(&tree, &device, format_options)?;
    let Some(candidate) = candidate.filter(|_| may_go_on(options, &obstacles, extents)) else {
        return Err(refusal(&device, &obstacles, options));
    };
    let consent = if obstacles.is_empty() { Consent::OnlyIfBlank } else { Consent::EraseAll };
    let formatted = candidate.format(consent)?;
    let size = size_of(&device.path)?;
    if options.json {
        let document = json!({
            "formatted": true, "device": device, "size_bytes": size, "disk": formatted.disk, "cell": cell,
            "slot_bytes": slot_bytes, "slots": formatted.slots,
            "zones": formatted.zones.map(|zones| json!({
                "zone_bytes": zones.zone_bytes, "zones_per_slot": zones.zones_per_slot, "open_limit": zones.open_limit,
            })),
        });
        show::line(&serde_json::to_string_pretty(&document)?)?;
    } else {
        show::text(&report(&device, &formatted, size, cell, slot_bytes))?;
    }
    Ok(())
}

fn cell_and_slot(options: &FormatDisk) -> anyhow::Result<(CellId, u64)> {
    match (&options.config, options.cell) {
        (Some(path), _) => {
            let config = holdfast_node_server::Config::load(path)?;
            Ok((config.cell, config.slot_bytes))
        }
        (None, Some(cell)) => Ok((cell, options.slot_size.map_or(DEFAULT_SLOT_BYTES, |size| size.0))),
        (None, None) => Err(usage("name the cell: --config FILE (this node's), or --cell ID")),
    }
}

fn check_size(options: &FormatDisk, device: &Device) -> anyhow::Result<()> {
    let have = std::fs::metadata(&device.path).ok().map(|metadata| metadata.len());
    let path = device.path.display();
    match (device.kind, options.size, have) {
        (Kind::BlockDevice, Some(_), _) => Err(usage(format!("{path} is a device and has its size: leave --size out"))),
        (Kind::File, None, None) => Err(usage(format!("{path} does not exist; give --size SIZE to make a file"))),
        (Kind::File, Some(size), Some(have)) if have > size.0 => Err(usage(format!(
            "{path} has {have} bytes already, more than --size {}: leave --size out to take it as it is",
            size.0
        ))),
        _ => Ok(()),
    }
}

/// A wrong word means that another disk was meant: refused even where nothing would be erased.
fn check_word(options: &FormatDisk, device: &Device) -> anyhow::Result<()> {
    let Some(typed) = &options.force else {
        return match options.erase_extents {
            Some(_) => Err(usage("--erase-extents goes with --force SERIAL")),
            None => Ok(()),
        };
    };
    if *typed == device.erase_word() {
        return Ok(());
    }
    let is = match &device.serial {
        Some(serial) => format!("its serial is {serial}"),
        None => format!("it has no serial, so its full path is to be typed: {}", device.erase_word()),
    };
    Err(anyhow!(
        "--force {typed} does not name {}: {is}. Nothing was changed. Is it the disk you mean?",
        device.describe()
    ))
}

/// The word was checked before; a firm obstacle stays.
fn may_go_on(options: &FormatDisk, obstacles: &[Obstacle], extents: u32) -> bool {
    obstacles.is_empty()
        || options.force.is_some()
            && obstacles.iter().all(|obstacle| obstacle.grip == Grip::Erasable)
            && options.erase_extents.unwrap_or(0) == extents
}

fn refusal(device: &Device, obstacles: &[Obstacle], options: &FormatDisk) -> anyhow::Error {
    if options.json {
        let document = json!({ "formatted": false, "device": device, "reasons": obstacles });
        if let Err(error) = show::line(&format!("{document:#}")) {
            return error;
        }
    }
    let mut text = format!("{} was not formatted, and nothing on it was changed:", device.describe());
    for obstacle in obstacles {
        text.push_str(&format!("\n  - {obstacle}"));
    }
    if let Some(typed) = options.erase_extents {
        text.push_str(&format!("\n--erase-extents {typed} is not the number of extents on it"));
    }
    if options.force.is_none() && obstacles.iter().all(|obstacle| obstacle.grip == Grip::Erasable) {
        let what = if device.serial.is_some() { "its serial" } else { "its path, since it has no serial" };
        text.push_str(&format!("\nTo erase what stands there, type {what}: --force {}", quoted(&device.erase_word())));
    }
    anyhow!(text)
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+@%,".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn size_of(path: &Path) -> anyhow::Result<u64> {
    let mut file = std::fs::File::open(path)?;
    Ok(std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?)
}

fn report(device: &Device, formatted: &Formatted, size: u64, cell: CellId, slot_bytes: u64) -> String {
    let absent = || "none".to_owned();
    let slots = format!("{}, {} slots of {}", show::bytes(size), formatted.slots, show::bytes(slot_bytes));
    let mut rows = vec![("formatted", device.stable_path.display().to_string())];
    if device.kind == Kind::BlockDevice {
        rows.push(("device", format!("{} for now", device.path.display())));
        rows.push(("serial", device.serial.clone().unwrap_or_else(absent)));
        rows.push(("wwn", device.wwn.clone().unwrap_or_else(absent)));
        rows.push(("by-path", device.by_path.as_ref().map_or_else(absent, |path| path.display().to_string())));
    }
    rows.push(("size", slots));
    if let Some(zones) = formatted.zones {
        let open = if zones.open_limit == 0 { "any number".to_owned() } else { zones.open_limit.to_string() };
        let (per_slot, size) = (zones.zones_per_slot, show::bytes(zones.zone_bytes));
        rows.push(("zones", format!("{per_slot} of {size} for a slot; {open} slots can be written to at a time")));
    }
    rows.push(("disk", formatted.disk.to_string()));
    rows.push(("cell", cell.to_string()));
    let mut out: String = rows.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    out.push_str(&format!(
        "\nAdd it to the node's configuration:\n\n[[disks]]\npath = {}\n",
        toml::Value::String(device.stable_path.display().to_string())
    ));
    out
}
