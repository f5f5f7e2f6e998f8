//! Makes a profile from what a machine has.
//!
//! What is written loads again and matches the machine: each bay has the full by-path name of the disk in it, so nothing
//! is left to chance. Runs of bays that differ in one rising number are joined into one section.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::error::HardwareError;
use crate::inventory::{Disk, DiskZones, Machine};
use crate::load;
use crate::matching;
use crate::pattern::expand;
use crate::profile::{Media, Profile};

/// One bay to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    path: String,
    media: Media,
    slot: Option<String>,
}

/// The text of a profile called `name` for `machine`: a bay for each disk that has a place and that nobody else uses.
///
/// # Errors
/// [`HardwareError::NothingToWrite`] when there is no such disk; it says why for each.
pub fn profile(name: &str, machine: &Machine) -> Result<String, HardwareError> {
    let (disks, zones) = usable(machine)?;
    let rows: Vec<Row> = disks.iter().enumerate().map(|(index, disk)| row(index, disk, machine)).collect();
    let least = disks.iter().map(|disk| disk.size_bytes).min().unwrap_or(0);
    let has_slots = disks.iter().any(|disk| disk.slot.is_some());
    let mut text = String::new();
    let mut put = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    put("# Made by `holdfast node probe --write` from the disks that were found. Bays that were empty are not in it.");
    put(&format!("name = {}\n", quoted(name)));
    put("[chassis]");
    let product = machine.dmi.product_name.as_deref().unwrap_or("this machine");
    put(&format!("name = {}", quoted(product)));
    for (key, value) in [("vendor", &machine.dmi.sys_vendor), ("product", &machine.dmi.product_name)] {
        if let Some(value) = value {
            put(&format!("{key} = [{}]", quoted(value)));
        }
    }
    for row in joined(&rows) {
        put(&format!(
            "\n[[bays]]\nname = {}\npath = {}\nmedia = \"{}\"",
            quoted(&row.name),
            quoted(&row.path),
            row.media
        ));
        if let Some(slot) = &row.slot {
            put(&format!("slot = {}", quoted(slot)));
        }
    }
    if let Some(zones) = zones {
        put(&format!("\n[zones]\nsize = \"{}\"", zones.size_bytes));
        if let Some(limit) = zones.open_limit {
            put(&format!("open_limit = {limit}"));
        }
    }
    let rotating = disks.iter().any(|disk| disk.rotational);
    put("\n[settings]");
    put(if zones.is_some() { "scheduler = \"mq-deadline\"" } else { "scheduler = \"none\"" });
    put("readahead = \"0\"");
    put("\n[limits.latency]");
    put(if rotating { "read_ms = 500\nwrite_ms = 500" } else { "read_ms = 50\nwrite_ms = 50" });
    put("\n[limits.smart]");
    if disks.iter().any(|disk| !disk.name.starts_with("nvme")) {
        put("reallocated_sectors = 50\npending_sectors = 0\nuncorrectable_sectors = 0");
    }
    if !rotating {
        put("media_errors = 0\npercentage_used = 90");
    }
    put(if rotating { "temperature_celsius = 60" } else { "temperature_celsius = 75" });
    put(&format!("\n[led]\nmethod = \"{}\"", if has_slots { "enclosure" } else { "ledctl" }));
    put(&format!("\n[expected]\ndisks = {}\nleast_size = \"{least}\"", disks.len()));
    Ok(text)
}

/// Writes the profile to `path`, which must not exist yet, and reads it back.
///
/// # Errors
/// Those of [`profile`], and [`HardwareError::Io`].
pub fn to_file(path: &Path, machine: &Machine) -> Result<Profile, HardwareError> {
    let failed = |what| move |source| HardwareError::Io { path: path.to_owned(), what, source };
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let text = profile(&name, machine)?;
    let written = load::parse(&text, &path.display().to_string())?;
    if matching::fit(&written, machine).is_none() {
        return Err(HardwareError::NothingToWrite(format!("a profile of this machine would not match it:\n{text}")));
    }
    let mut file = std::fs::File::create_new(path).map_err(failed("cannot be created (nothing is overwritten)"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("cannot be written"))?;
    load::file(path)
}

/// The disks that get a bay, and the geometry of the zoned ones.
fn usable(machine: &Machine) -> Result<(Vec<&Disk>, Option<DiskZones>), HardwareError> {
    // One file holds one geometry; the first zoned disk's is taken.
    let free = |disk: &&Disk| {
        !disk.is_in_use() && disk.signature.as_deref().is_none_or(|found| found == crate::signature::HOLDFAST)
    };
    let whole = |disk: &&Disk| !disk.by_path.is_empty() && disk.size_bytes > 0;
    let mut disks: Vec<&Disk> = machine.disks.iter().filter(free).filter(whole).collect();
    let mut zones = None;
    disks.retain(|disk| {
        !disk.media().is_zoned()
            || disk.zones.is_some_and(|own| zones.get_or_insert(own).size_bytes == own.size_bytes && own.size_bytes > 0)
    });
    if disks.is_empty() {
        let mut why = "no disk here could be used, so there is nothing to write".to_owned();
        for verdict in matching::judge(None, machine, &matching::Findings::default()).disks {
            let reasons: Vec<&str> = verdict.reasons.iter().map(|reason| reason.detail.as_str()).collect();
            // Writing into a String cannot fail.
            let _ = write!(why, "\n  {}: {}", verdict.disk.name, reasons.join("; "));
        }
        return Err(HardwareError::NothingToWrite(why));
    }
    Ok((disks, zones))
}

fn row(index: usize, disk: &Disk, machine: &Machine) -> Row {
    let number = |slot: &crate::inventory::SlotName| {
        let enclosure = machine.enclosures.iter().find(|enclosure| enclosure.name == slot.enclosure)?;
        enclosure.slots.iter().find(|own| own.name == slot.slot)?.number
    };
    Row {
        name: format!("bay-{}", index + 1),
        path: disk.place(),
        media: disk.media(),
        slot: disk
            .slot
            .as_ref()
            .map(|slot| number(slot).map_or_else(|| slot.slot.clone(), |number| number.to_string())),
    }
}

/// Rows in which one number rises by one, joined by ranges.
fn joined(rows: &[Row]) -> Vec<Row> {
    let mut out = Vec::new();
    let mut start = 0;
    while start < rows.len() {
        let mut best = rows[start].clone();
        let mut end = start + 1;
        while end < rows.len() {
            let Some(longer) = join(&rows[start..=end]) else { break };
            best = longer;
            end += 1;
        }
        out.push(best);
        start = end;
    }
    out
}

/// One row that stands for all of `rows`, when there is one.
fn join(rows: &[Row]) -> Option<Row> {
    let (first, last) = (rows.first()?, rows.last()?);
    let range = |of: fn(&Row) -> Option<&str>| {
        let text = ranged(of(first)?, of(last)?)?;
        let wanted: Vec<&str> = rows.iter().filter_map(of).collect();
        (expand(&text).ok()? == wanted).then_some(text)
    };
    let slot = if rows.iter().all(|row| row.slot.is_none()) { None } else { Some(range(|row| row.slot.as_deref())?) };
    rows.iter().all(|row| row.media == first.media).then_some(())?;
    Some(Row { name: range(|row| Some(&row.name))?, path: range(|row| Some(&row.path))?, media: first.media, slot })
}

/// `first` with the one number in which `last` differs replaced by a range.
fn ranged(first: &str, last: &str) -> Option<String> {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let (a, b) = (first.as_bytes(), last.as_bytes());
    let mut start = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let mut after = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    while start > 0 && is_digit(&a[start - 1]) {
        start -= 1;
    }
    while after > 0 && is_digit(&a[a.len() - after]) {
        after -= 1;
    }
    let (from, to) = (first.get(start..a.len().checked_sub(after)?)?, last.get(start..b.len().checked_sub(after)?)?);
    Some(format!("{}{{{from}..{to}}}{}", &first[..start], &first[a.len() - after..]))
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::{Row, joined, ranged};
    use crate::profile::Media;

    #[test]
    fn runs_of_bays_become_ranges_and_gaps_end_them() {
        assert_eq!(ranged("exp0x5a-phy9-lun-0", "exp0x5a-phy10-lun-0").unwrap(), "exp0x5a-phy{9..10}-lun-0");
        assert_eq!(ranged("11", "12").unwrap(), "{11..12}");
        let row = |bay: u32, phy: u32| Row {
            name: format!("bay-{bay}"),
            path: format!("exp0x5a-phy{phy}-lun-0"),
            media: Media::Hdd,
            slot: Some(phy.to_string()),
        };
        let rows = joined(&[row(1, 9), row(2, 10), row(3, 11), row(4, 13)]);
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].name.as_str(), rows[0].slot.as_deref()), ("bay-{1..3}", Some("{9..11}")));
        assert_eq!(rows[1], row(4, 13));
    }
}
