//! Reasons of the status that concern the whole cell, or many volumes at once.

use std::collections::BTreeMap;

use holdfast_libs_types::VolumeId;
use holdfast_volume_manager_client::{RebuildState, Work};

use crate::manager::Manager;
use crate::operate::count;

/// Most volumes that a reason names.
const MOST_NAMED: usize = 3;

/// What the catalog does not know, if anything shows that.
pub(crate) fn not_whole(manager: &Manager) -> Option<String> {
    if let Some(why) = &manager.lost {
        let rebuild = manager.rebuild.status();
        let next = match rebuild.state {
            RebuildState::Running => format!(
                "that is under way, {} of {} are looked at; `holdfast admin catalog rebuild --status` tells how far it is",
                rebuild.volumes_done,
                count(rebuild.volumes, "volume")
            ),
            _ => "when all nodes are up, run `holdfast admin catalog rebuild`".to_owned(),
        };
        return Some(format!(
            "the catalog is not whole ({why}); nothing is leased or ordered until it is rebuilt: {next}"
        ));
    }
    let progress = manager.progress();
    let (disks, extents) = (progress.strangers.len() as u64, progress.strangers.values().sum::<u64>());
    (extents > 0).then(|| {
        let (extents, disks) = (count(extents, "extent"), count(disks, "disk"));
        format!(
            "the catalog does not know the volumes of {extents} on {disks}: blocks in them cannot be read; \
             `holdfast admin catalog rebuild` takes them in"
        )
    })
}

/// Work that waits, told once for all volumes that wait for the same.
pub(crate) fn waiting(manager: &Manager) -> Vec<String> {
    let progress = manager.progress();
    let waits = |work: &Work| work.detail.strip_prefix("waits: ").map(str::to_owned);
    let claimed = progress.work.values().filter_map(|work| Some((work.kind.as_str(), waits(work)?, work.volume)));
    let blocked = progress.blocked.iter().filter(|(volume, _)| !progress.work.contains_key(volume));
    let blocked = blocked.map(|(volume, why)| ("repair", why.clone(), *volume));
    let mut groups: BTreeMap<(&str, String), (u64, Vec<VolumeId>)> = BTreeMap::new();
    for (kind, why, volume) in claimed.chain(blocked) {
        let (number, named) = groups.entry((kind, why)).or_default();
        *number += 1;
        if named.len() < MOST_NAMED {
            named.push(volume);
        }
    }
    groups.iter().map(|((kind, why), (number, named))| waits_of(kind, why, *number, named)).collect()
}

/// `volume V: repair waits: WHY`; of several, the first few by their ids.
fn waits_of(kind: &str, why: &str, number: u64, named: &[VolumeId]) -> String {
    let ids: Vec<String> = named.iter().map(ToString::to_string).collect();
    let more = match number - named.len() as u64 {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    match number {
        1 => format!("volume {}: {kind} waits: {why}", ids.join(", ")),
        _ => format!("{}: {kind} waits: {why} ({}{more})", count(number, "volume"), ids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::VolumeId;

    use super::waits_of;

    #[test]
    fn volumes_that_wait_for_the_same_are_counted_and_the_first_of_them_named() {
        let [a, b, c] = [1, 2, 3].map(|id| VolumeId([id; 16]));
        assert_eq!(waits_of("repair", "no disk", 1, &[a]), format!("volume {a}: repair waits: no disk"));
        assert_eq!(waits_of("seal", "a disk", 2, &[a, b]), format!("2 volumes: seal waits: a disk ({a}, {b})"));
        let many = waits_of("repair", "no disk", 1004, &[a, b, c]);
        assert_eq!(many, format!("1004 volumes: repair waits: no disk ({a}, {b}, {c} and 1001 more)"));
    }
}
