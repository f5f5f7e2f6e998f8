//! What stands on a device, from the engine's own look and from `blkid` where it is installed.

use std::path::Path;
use std::process::Command;

use holdfast_libs_types::CellId;
use holdfast_node_engine::{FoundDisk, Survey};

use super::obstacle::{Grip, Obstacle};

const MAYBE: &str = "if nobody needs it, it can be erased";
const LOST: &str = "no command erases what cannot be counted; if it may go, zero its first and last 2 MiB yourself";

/// What the engine's survey found.
pub fn obstacles(survey: &Survey, cell: CellId) -> Vec<Obstacle> {
    let mut found = Vec::new();
    match &survey.holdfast {
        Some(FoundDisk::Readable { disk, cell: other, extents, slots }) => {
            let whose = if *other == cell { format!("of this cell ({cell})") } else { format!("of cell {other}") };
            let holds = match extents {
                0 => "holds no extents".to_owned(),
                n => format!("HOLDS {n} EXTENTS in {slots} slots"),
            };
            let remedy = match (*other == cell, extents) {
                (_, 0) => "an empty disk can be formatted anew; it becomes another disk then".to_owned(),
                (true, n) => format!(
                    "use it as it is, or drain it first; its extents may be the last copies. To erase them in spite of \
                     that, give --erase-extents {n} as well"
                ),
                (false, n) => format!(
                    "it is data of another cell, perhaps the last copies of it. To erase them in spite of that, give \
                     --erase-extents {n} as well"
                ),
            };
            let code = if *other == cell { "holdfast-disk" } else { "other-cell" };
            found.push(Obstacle::new(
                Grip::Erasable,
                code,
                format!("it is Holdfast disk {disk} {whose} and {holds}"),
                remedy,
            ));
        }
        Some(FoundDisk::Unreadable { reason }) => found.push(Obstacle::new(
            Grip::Firm,
            "holdfast-disk",
            format!("it is a Holdfast disk whose contents cannot be told ({reason})"),
            LOST,
        )),
        None => {}
    }
    for signature in &survey.signatures {
        found.push(Obstacle::new(
            Grip::Erasable,
            if signature.name.contains("partition table") { "partition-table" } else { "signature" },
            format!("it holds a {}, told by its mark at byte {}", signature.name, signature.at),
            MAYBE,
        ));
    }
    if let (None, true, Some(at)) = (&survey.holdfast, survey.signatures.is_empty(), survey.data_at) {
        found.push(Obstacle::new(
            Grip::Erasable,
            "data",
            format!("it holds data of no known kind: byte {at} is not zero"),
            MAYBE,
        ));
    }
    found
}

/// What `blkid` knows that `known` does not say. Nothing when it is not installed: the engine's look is enough to be
/// safe.
pub fn from_blkid(path: &Path, known: &[Obstacle]) -> Vec<Obstacle> {
    let Some(facts) = run_blkid(path) else { return Vec::new() };
    of_facts(&facts, known)
}

/// The answer of `blkid -p -o export`, or of its complaint that there are several kinds of contents.
fn run_blkid(path: &Path) -> Option<Vec<(String, String)>> {
    /// blkid's exit code for contents that look like several things at once.
    const AMBIVALENT: i32 = 8;
    let program = ["/usr/sbin/blkid", "/sbin/blkid"].into_iter().find(|path| Path::new(path).exists());
    let output = Command::new(program.unwrap_or("blkid")).args(["-p", "-o", "export", "--"]).arg(path).output().ok()?;
    if output.status.code() == Some(AMBIVALENT) {
        return Some(vec![("TYPE".to_owned(), "several kinds of contents at once".to_owned())]);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn of_facts(facts: &[(String, String)], known: &[Obstacle]) -> Vec<Obstacle> {
    let get = |key: &str| facts.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let label = get("LABEL").map(|label| format!(" labelled {label:?}")).unwrap_or_default();
    let told = |code: &str, word: &str| {
        known.iter().any(|known| known.code == code && known.what.to_lowercase().contains(&word.to_lowercase()))
    };
    let mut found = Vec::new();
    if let Some(kind) = get("TYPE").filter(|kind| label.len() > 1 || !told("signature", kind)) {
        let usage = get("USAGE").map(|usage| format!(" ({usage})")).unwrap_or_default();
        let what = format!("blkid finds {kind}{usage}{label} on it");
        found.push(Obstacle::new(Grip::Erasable, "signature", what, MAYBE));
    }
    // Every boot sector looks like a partition table to blkid; told by the engine when it is one.
    if let Some(kind) = get("PTTYPE")
        && !known.iter().any(|known| known.code == "partition-table")
    {
        found.push(Obstacle::new(
            Grip::Erasable,
            "partition-table",
            format!("blkid finds a partition table ({kind}) on it"),
            MAYBE,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Grip, Obstacle, of_facts};

    fn facts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn blkid_adds_only_what_is_not_said_already() {
        let known = [Obstacle::new(Grip::Erasable, "signature", "it holds a file system ext2, ext3 or ext4", "")];
        assert!(of_facts(&facts(&[("TYPE", "ext4"), ("USAGE", "filesystem")]), &known).is_empty());
        let labelled = of_facts(&facts(&[("TYPE", "ext4"), ("LABEL", "backup 2019")]), &known);
        assert!(labelled[0].what.contains("\"backup 2019\""), "{}", labelled[0]);
        let other = of_facts(&facts(&[("TYPE", "ceph_bluestore"), ("USAGE", "other")]), &known);
        assert!(other[0].what.contains("ceph_bluestore (other)"), "{}", other[0]);
        assert_eq!(of_facts(&facts(&[("PTTYPE", "gpt")]), &[])[0].code, "partition-table");
    }
}
