//! Switches the locate light of a bay, so that somebody in front of a hundred disks pulls the right one.
//!
//! The kernel's enclosure class can light an empty bay too, or one whose disk no longer answers; `ledctl` needs the disk.

use std::path::Path;
use std::time::Duration;

use crate::error::HardwareError;
use crate::inventory::{Machine, SlotName};
use crate::matching::{Placement, is_expander};
use crate::profile::{Bay, Led, Media, Profile};
use crate::runner::Runner;

/// How long `ledctl` may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Switches the light of `bay` and says by which way that was done.
///
/// # Errors
/// [`HardwareError::Light`]: no such bay, no light, or neither way worked.
pub fn locate(
    profile: &Profile,
    machine: &Machine,
    runner: &dyn Runner,
    bay: &str,
    on: bool,
) -> Result<String, HardwareError> {
    let failed = |detail: String| HardwareError::Light { bay: bay.to_owned(), detail };
    let Some(wanted) = profile.bay(bay) else {
        let nearest = crate::load::nearest(bay, profile.bays.iter().map(|bay| bay.name.as_str())).unwrap_or_default();
        return Err(failed(format!("profile {} has no such bay (did you mean `{nearest}`?)", profile.name)));
    };
    let disk = Placement::new(profile, machine).disk(profile, machine, bay);
    let mut obstacle = match profile.led {
        Led::None => return Err(failed(format!("profile {} says that the chassis has no lights", profile.name))),
        Led::Ledctl => None,
        Led::Enclosure => match slot(wanted, machine, disk.and_then(|disk| disk.slot.clone())) {
            Ok(slot) => match switch(machine, &slot, on) {
                Ok(()) => return Ok(format!("slot {} of enclosure {}", slot.slot, slot.enclosure)),
                Err(error) => Some(error),
            },
            Err(error) => Some(error),
        },
    };
    let Some(disk) = disk else {
        let why = obstacle.take().map(|why| format!("{why}; and ")).unwrap_or_default();
        return Err(failed(format!("{why}there is no disk in it, and ledctl lights only bays with a disk")));
    };
    let before = obstacle.map(|why| format!("{why}; ")).unwrap_or_default();
    let argument = format!("{}=/dev/{}", if on { "locate" } else { "locate_off" }, disk.name);
    let output = runner
        .run("ledctl", &[&argument], DEADLINE)
        .map_err(|error| failed(format!("{before}{error} (package ledmon)")))?;
    if output.code != Some(0) {
        return Err(failed(format!("{before}ledctl: {}", output.stderr.trim())));
    }
    Ok(format!("ledctl {argument}"))
}

/// The bay in which the disk at `path` is. One whose disk is gone is found when `path` tells the place, as names in
/// `/dev/disk/by-path` do.
pub fn bay_at<'a>(profile: &'a Profile, machine: &Machine, path: &Path) -> Option<&'a Bay> {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(disk) = path.canonicalize().ok().and_then(|real| name(&real)) {
        let placement = Placement::new(profile, machine);
        let holds = |bay: &&Bay| placement.disk(profile, machine, &bay.name).is_some_and(|found| found.name == disk);
        if let Some(bay) = profile.bays.iter().find(holds) {
            return Some(bay);
        }
    }
    let (place, expanders) = (name(path)?, machine.expanders());
    let expander = place.split_once("-phy").map(|(expander, _)| expander);
    profile.bays.iter().filter(|bay| bay.media != Media::File).find(|bay| {
        bay.path.matches(&place) && bay.expander.is_none_or(|number| is_expander(number, expander, &expanders))
    })
}

/// The slot of a bay: that of the disk in it, or the one that the profile names.
fn slot(bay: &Bay, machine: &Machine, of_disk: Option<SlotName>) -> Result<SlotName, String> {
    if let Some(slot) = of_disk {
        return Ok(slot);
    }
    let Some(name) = &bay.slot else {
        return Err("no enclosure has its disk, and the profile names no slot for it".to_owned());
    };
    let expanders = machine.expanders();
    let found: Vec<SlotName> = machine
        .enclosures
        .iter()
        .filter(|enclosure| {
            bay.expander.is_none_or(|number| is_expander(number, enclosure.expander.as_deref(), &expanders))
        })
        // Written profiles name the expander in the path; the enclosure must then hang on that one.
        .filter(|enclosure| {
            bay.path.as_str().split_once("-phy").is_none_or(|(start, _)| {
                start.contains('*') || !start.contains("-sas-exp") || enclosure.expander.as_deref() == Some(start)
            })
        })
        .flat_map(|enclosure| {
            let slots = enclosure.slots.iter().filter(|slot| slot.is_called(name));
            slots.map(|slot| SlotName { enclosure: enclosure.name.clone(), slot: slot.name.clone() })
        })
        .collect();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!("no enclosure has a slot `{name}`")),
        many => Err(format!("{} enclosures have a slot `{name}`; give the bay an `expander`", many.len())),
    }
}

fn switch(machine: &Machine, slot: &SlotName, on: bool) -> Result<(), String> {
    let path = machine.tree.at(format!("sys/class/enclosure/{}/{}/locate", slot.enclosure, slot.slot));
    let value = if on { "1" } else { "0" };
    // Not created when absent: sysfs has the file, or the slot has no light.
    let written = std::fs::File::options().write(true).truncate(true).open(&path);
    written
        .and_then(|mut file| std::io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|error| format!("{}: {error}", path.display()))
}
