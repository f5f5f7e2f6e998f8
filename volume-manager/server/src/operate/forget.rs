//! Whether disks can go off the inventory, and how they do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use holdfast_libs_transport::ApiError;
use holdfast_volume_manager_catalog::Volume;

use super::{Case, count, on_disk};
use crate::error::answer;
use crate::intents::DiskIntent;
use crate::inventory::DiskView;
use crate::liveness::{Standing, in_words};
use crate::manager::Manager;
use crate::{forgotten, room};

/// Whether a disk is there, or may be soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum There {
    Gone,
    MayReturn(Until),
    InService,
}

/// When it does not count as one that may return any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Lost,
    Online,
    MoreIsHeard,
}

fn there(view: &DiskView) -> There {
    match &view.standing {
        Standing::Lost(_) | Standing::Failed(_) => There::Gone,
        Standing::Suspect(_) | Standing::Down(_) if view.leaving => There::Gone,
        Standing::Suspect(away) | Standing::Down(away) => There::MayReturn(match (away.lost_in, view.offline) {
            (Some(_), _) => Until::Lost,
            (None, Some(_)) => Until::Online,
            (None, None) => Until::MoreIsHeard,
        }),
        Standing::Healthy | Standing::ReadOnly(_) => There::InService,
    }
}

/// Disks that the same keeps on the inventory: they are told in one sentence, each named once.
#[derive(Debug, Default)]
struct Kept {
    disks: BTreeSet<String>,
    /// That name them.
    volumes: u64,
    /// Why one of them is away.
    away: Option<String>,
    lost_in: Duration,
}

/// Looks at whether these disks of one node can go off the inventory.
pub(super) fn forget(case: &mut Case, volumes: &[Volume], views: &[&DiskView]) {
    let mut kept: BTreeMap<(bool, There), Kept> = BTreeMap::new();
    for view in views {
        let info = &view.disk.info;
        let held = on_disk(volumes, info.disk).count() as u64;
        let group = kept.entry((held > 0, there(view))).or_default();
        group.disks.insert(format!("{} ({})", info.disk, info.path));
        group.volumes += held;
        if let Some(away) = view.standing.away() {
            group.away.get_or_insert_with(|| away.reason.clone());
            group.lost_in = group.lost_in.max(away.lost_in.unwrap_or_default());
        }
    }
    case.number("replicas", kept.values().map(|group| group.volumes).sum());
    let waits = |(what, _): &(&(bool, There), &Kept)| what.1 == There::MayReturn(Until::Lost);
    if let Some(most) = kept.iter().filter(waits).map(|(_, group)| group.lost_in).max() {
        case.number("lost_in_s", most.as_secs());
    }
    for ((holds, there), group) in kept {
        if holds || there != There::Gone {
            case.refuse(sentence(there, &group));
        }
    }
    let Some(node) = views.first().map(|view| &view.disk.info.node) else { return };
    let ids: BTreeSet<String> = views.iter().map(|view| view.disk.info.disk.to_string()).collect();
    let (disks, go) = named(ids);
    case.say(format!("{disks} of node {node} {go} off the inventory"));
    case.say(
        "what comes back is taken in as new: what it holds of volumes that are whole without it goes into its trash",
    );
}

/// `disk A`, or `7 disks (A, B, C, D, 3 more)`; and the word for their going.
fn named(names: BTreeSet<String>) -> (String, &'static str) {
    match names.len() {
        1 => (format!("disk {}", room::named(names)), "goes"),
        number => (format!("{number} disks ({})", room::named(names)), "go"),
    }
}

/// Why they stay.
fn sentence(there: There, group: &Kept) -> String {
    let is_one = group.disks.len() == 1;
    let word = |one: &'static str, several: &'static str| if is_one { one } else { several };
    let (it, object, its) = (word("it", "they"), word("it", "them"), word("its", "their"));
    let mut why = Vec::new();
    if group.volumes > 0 {
        let name = if group.volumes == 1 { "names" } else { "name" };
        let volumes = count(group.volumes, "volume");
        why.push(format!("{volumes} still {name} {object}: drain {object} first, or wait for {its} repair"));
    }
    match there {
        There::Gone => {}
        There::MayReturn(until) => {
            let when = match until {
                Until::Lost => {
                    let (counts, stays) = (word("counts", "count"), word("stays", "stay"));
                    let left = in_words(group.lost_in);
                    format!("{it} {counts} as lost in {left} if {it} {stays} away: try again then")
                }
                Until::Online => format!("bring {object} online first"),
                Until::MoreIsHeard => "try again when more of the cell is heard".to_owned(),
            };
            let (was, away) = (word("was", "were"), group.away.as_deref().unwrap_or("away"));
            why.push(format!("{it} may come back at any moment ({away}), and {was} not drained; {when}"));
        }
        There::InService => why
            .push(format!("{it} {} in service, and would register again: take {object} out first", word("is", "are"))),
    }
    format!("{}: {}", named(group.disks.clone()).0, why.join("; "))
}

/// Takes a disk off the inventory, and what was asked for it first: nothing of that holds should it come back.
pub(super) async fn for_good(manager: &Arc<Manager>, view: &DiskView, volumes: &[Volume]) -> Result<(), ApiError> {
    let disk = view.disk.info.disk;
    manager.set_disk_intent(disk, DiskIntent::default()).await.map_err(|error| answer(&error))?;
    if volumes.is_empty() {
        forgotten::note(manager, &view.disk).await.map_err(|error| answer(&error))?;
    }
    let (table, term) = (Arc::clone(&manager.catalog.table), manager.term);
    let forgotten = manager.to_the_end(async move { table.forget_disk(term, disk).await }).await;
    forgotten.map_err(|error| answer(&error))?;
    manager.liveness().forget_disk(disk);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Kept, There, Until, sentence};

    #[test]
    fn disks_that_the_same_keeps_are_one_sentence_that_names_each_once_and_not_all_of_many() {
        let disks = |number: usize| (0..number).map(|number| format!("d{number} (/dev/{number})")).collect();
        let kept = |number, volumes| Kept {
            disks: disks(number),
            volumes,
            away: Some("its node is silent".to_owned()),
            lost_in: Duration::from_secs(9),
        };
        let one = sentence(There::MayReturn(Until::Lost), &kept(1, 1));
        assert_eq!(
            one,
            "disk d0 (/dev/0): 1 volume still names it: drain it first, or wait for its repair; it may come back at any moment (its \
             node is silent), and was not drained; it counts as lost in 9 s if it stays away: try again then"
        );
        let many = sentence(There::MayReturn(Until::Lost), &kept(40, 7));
        assert!(
            many.starts_with("40 disks (d0 (/dev/0), ") && many.contains("36 more): 7 volumes still name them"),
            "{many}"
        );
        assert!(many.contains("they count as lost in 9 s if they stay away") && many.len() < 400, "{many}");
        let there = sentence(There::InService, &kept(2, 0));
        let expected =
            "2 disks (d0 (/dev/0), d1 (/dev/1)): they are in service, and would register again: take them out first";
        assert_eq!(there, expected);
    }
}
