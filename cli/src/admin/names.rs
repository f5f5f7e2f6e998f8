//! What an operator types for a zone, a node, a disk or a volume: its id or name, the beginning of it as long as that fits
//! only one, or where a disk is (`NODE:PATH`).

use anyhow::{Context as _, anyhow};
use holdfast_volume_manager_client::{DiskDetail, Inventory, NodeRow, VolumeDetail, VolumeQuery};

use super::cell::Cell;
use crate::outcome::usage;
use crate::show;

/// Most candidates named when a text fits several.
const MOST_NAMED: usize = 10;

/// Shortest beginning of an id that is shown.
const SHORTEST: usize = 8;

/// The one of `candidates` that `text` names exactly, or begins.
///
/// # Errors
/// When it names none; usage when it is empty, or fits several, with those.
fn one<'a, T>(
    what: &str,
    text: &str,
    candidates: impl Iterator<Item = &'a T>,
    name: impl Fn(&T) -> String,
    told: impl Fn(&T) -> String,
) -> anyhow::Result<&'a T> {
    if text.is_empty() {
        return Err(usage(format!("`` names no {what}: write its name, or the beginning of it")));
    }
    let mut found = Vec::new();
    for candidate in candidates {
        let name = name(candidate);
        if name == text {
            return Ok(candidate);
        }
        if name.starts_with(text) {
            found.push(candidate);
        }
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(anyhow!("the cell has no {what} `{}`; `holdfast admin {what} ls` lists them", show::name(text))),
        several => {
            let named: Vec<String> = several.iter().take(MOST_NAMED).map(|candidate| told(candidate)).collect();
            let more = several.len().saturating_sub(MOST_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Err(usage(format!("`{text}` fits several: {}{more}; write more of it", named.join(", "))))
        }
    }
}

/// A disk, by its id, the beginning of it, `NODE:PATH`, or a path that only one node has.
///
/// # Errors
/// See [`one`].
pub fn disk<'a>(inventory: &'a Inventory, text: &str) -> anyhow::Result<&'a DiskDetail> {
    let told = |disk: &DiskDetail| format!("{} ({}:{})", disk.disk, disk.node, disk.path);
    let disks = inventory.disks.iter();
    if let Some((_, path)) = text.split_once(':').filter(|(_, path)| path.starts_with('/')) {
        // Of several that were there one after the other, the one that is in service.
        let there = |disk: &&DiskDetail| text == format!("{}:{}", disk.node, disk.path);
        let mut found: Vec<&DiskDetail> = disks.filter(there).collect();
        if found.iter().any(|disk| disk.in_service) {
            found.retain(|disk| disk.in_service);
        }
        return match found.as_slice() {
            [one] => Ok(one),
            [] => Err(anyhow!(
                "no node has reported a disk at {path} under the name `{text}`; see `holdfast admin disk ls`"
            )),
            several => {
                let named: Vec<String> = several.iter().map(|disk| told(disk)).collect();
                Err(usage(format!("{text} was the place of several: {}; name one by its id", named.join(", "))))
            }
        };
    }
    if text.starts_with('/') {
        return one("disk", text, disks.filter(|disk| disk.path == text), |disk| disk.path.clone() + "#", told);
    }
    if !is_beginning(text) {
        let text = show::name(text);
        return Err(usage(format!(
            "`{text}` names no disk: write 1 to 32 hex digits of its id, NODE:PATH or its path"
        )));
    }
    one("disk", &text.to_ascii_lowercase(), disks, |disk| disk.disk.to_string(), told)
}

/// Whether an id may begin so.
fn is_beginning(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A node, by its name or the beginning of it.
///
/// # Errors
/// See [`one`].
pub fn node<'a>(inventory: &'a Inventory, text: &str) -> anyhow::Result<&'a NodeRow> {
    one("node", text, inventory.nodes.iter(), |node| node.node.0.clone(), |node| node.node.0.clone())
}

/// A zone, by its name or the beginning of it.
///
/// # Errors
/// See [`one`].
pub fn zone(inventory: &Inventory, text: &str) -> anyhow::Result<String> {
    let mut zones: Vec<String> = inventory.nodes.iter().map(|node| node.zone.clone()).collect();
    zones.sort();
    zones.dedup();
    one("zone", text, zones.iter(), String::clone, String::clone).cloned()
}

/// A volume, by its id or the beginning of it.
///
/// # Errors
/// See [`one`].
pub async fn volume(cell: &Cell, text: &str) -> anyhow::Result<VolumeDetail> {
    if !is_beginning(text) {
        return Err(usage(format!(
            "`{}` does not begin the id of a volume: write 1 to 32 hex digits",
            show::name(text)
        )));
    }
    let query = VolumeQuery { prefix: Some(text.to_owned()), limit: MOST_NAMED + 1, ..VolumeQuery::default() };
    let page = cell.volume_manager().find_volumes(&query).await?;
    let id = |volume: &VolumeDetail| volume.volume.to_string();
    let found = one("volume", &text.to_ascii_lowercase(), page.volumes.iter(), id, id).cloned();
    match page.catalog_lost {
        Some(why) if page.volumes.is_empty() => found.context(format!("not all volumes are known: {why}")),
        _ => found,
    }
}

/// How many digits of an id tell all these disks apart.
pub fn short(inventory: &Inventory) -> usize {
    let mut ids: Vec<String> = inventory.disks.iter().map(|disk| disk.disk.to_string()).collect();
    ids.sort();
    let alike = |pair: &[String]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    ids.windows(2).map(alike).max().map_or(SHORTEST, |alike| SHORTEST.max(alike + 1))
}

#[cfg(test)]
mod tests {
    use super::{disk, node, short, zone};
    use crate::admin::examples;
    use crate::outcome::Usage;

    #[test]
    fn a_disk_is_named_by_the_beginning_of_its_id_or_by_its_place() {
        let disks = [
            ("ab1", "node-1", "/dev/sda", "healthy"),
            ("ab2", "node-1", "/dev/sdb", "healthy"),
            ("cd", "node-2", "/dev/sda", "lost"),
            ("ef", "node-2", "/dev/sda", "healthy"),
            ("12", "node-2", "/dev/sdc", "healthy"),
        ];
        let detail = |(id, node, path, state): (&str, &str, &str, &str)| {
            examples::disk(format!("{id:0<32}").parse().unwrap(), node, path, state)
        };
        let inventory = examples::inventory(Vec::new(), disks.map(detail).into());
        let found = |text: &str| disk(&inventory, text).map(|disk| disk.disk.to_string()[..3].to_owned());
        for (text, expected) in [
            ("ab1", "ab1"),
            ("AB2", "ab2"),
            ("node-1:/dev/sdb", "ab2"),
            ("/dev/sdc", "120"),
            ("node-2:/dev/sda", "ef0"),
        ] {
            assert_eq!(found(text).unwrap(), expected, "{text}");
        }
        for (text, is_usage, words) in [
            ("ab", true, "fits several: ab1"),
            ("/dev/sda", true, "node-1:/dev/sda"),
            ("99", false, "no disk `99`"),
            ("", true, "names no disk"),
            ("zz", true, "`zz` names no disk"),
            ("node-3:/dev/sda", false, "no node has reported a disk at /dev/sda"),
        ] {
            let error = found(text).unwrap_err();
            assert_eq!(error.downcast_ref::<Usage>().is_some(), is_usage, "{text}: {error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(short(&inventory), 8);
        for error in [node(&inventory, "").map(drop).unwrap_err(), zone(&inventory, "").map(drop).unwrap_err()] {
            assert!(
                error.downcast_ref::<Usage>().is_some(),
                "as with a disk, what is no name is no unknown one: {error}"
            );
        }
        assert!(node(&inventory, "n").map(drop).unwrap_err().downcast_ref::<Usage>().is_none());
    }
}
