//! Which profile fits a machine, and which of its disks may be used.
//!
//! Everything here decides over values; [`Findings::gather`] does the reading.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;

use crate::inventory::{Disk, Enclosure, Machine, is_virtual};
use crate::pattern::{Pattern, natural};
use crate::profile::{Bay, Media, Profile, Zones};
use crate::runner::{RunError, Runner};
use crate::signature;
use crate::size::shown;
use crate::smart::{self, Health, SmartError};
use crate::tree::Tree;

/// Why a disk is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Mounted, swap, partitioned, held by another driver, or its bytes belong to somebody.
    InUse,
    /// It refuses writes.
    ReadOnly,
    /// The kernel took it out of service.
    Offline,
    /// It has no size: no medium, or sectors that Linux cannot use.
    NoMedium,
    /// It hangs in no bay of the profile.
    NoBay,
    /// Another disk is in its bay.
    BayTaken,
    /// The bay is for another kind of disk.
    WrongMedia,
    /// Its disk zones are not those of the profile.
    WrongZones,
    /// It is smaller than the profile allows.
    TooSmall,
    /// It has neither serial number nor WWN.
    NoIdentity,
    /// Another disk says it is the same.
    Duplicate,
    /// A SMART figure is past its limit.
    Smart,
}

/// A cause with its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs.
    pub cause: Cause,
    /// For people.
    pub detail: String,
}

/// What was found out about one disk.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The disk.
    #[serde(flatten)]
    pub disk: Disk,
    /// Its kind.
    pub media: Media,
    /// The bay it is in.
    pub bay: Option<String>,
    /// Whether it may be used: there is no reason against it.
    pub accepted: bool,
    /// All reasons against it.
    pub reasons: Vec<Reason>,
    /// What an operator should know though it is no reason.
    pub notes: Vec<String>,
    /// Its health, when it was asked.
    pub health: Option<Health>,
}

/// What was found out about a file that stands for a disk.
#[derive(Debug, Clone, Serialize)]
pub struct FileVerdict {
    /// Full path.
    pub path: String,
    /// Its bay.
    pub bay: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Whether it may be used.
    pub accepted: bool,
    /// Reasons against it.
    pub reasons: Vec<Reason>,
}

/// A machine judged by a profile.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the profile; `None` when none fits.
    pub profile: Option<String>,
    /// Where the profile came from.
    pub profile_file: Option<String>,
    /// The chassis by the profile.
    pub chassis: Option<String>,
    /// Every disk.
    pub disks: Vec<Verdict>,
    /// Files in bays of media `file`.
    pub files: Vec<FileVerdict>,
    /// Number of disks and files that may be used.
    pub accepted: usize,
    /// Number of disks that the profile expects.
    pub expected: u32,
    /// Bays without a disk.
    pub empty_bays: Vec<String>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// How well a profile fits; the greater the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// Disks and files of the right kind in its bays that nobody else uses: a system disk that a wide pattern takes in too
    /// does not count.
    pub free: usize,
    /// It names this chassis, rather than any.
    pub names_chassis: bool,
    /// It is the operator's own.
    pub own: bool,
    /// Bays that stay empty, fewer is better.
    empty: std::cmp::Reverse<usize>,
}

/// What judging needs beside the inventory.
#[derive(Debug, Default)]
pub struct Findings {
    /// Files in bays of media `file`: bay, path, bytes, and the signature they carry.
    files: Vec<(String, String, u64, Option<String>)>,
    /// Answers of smartctl by kernel name.
    health: BTreeMap<String, Result<Health, SmartError>>,
}

impl Findings {
    /// Looks for the files of `profile`, and asks the disks in its bays for their health when there is a `runner`;
    /// without one, as for a recorded tree, health is not judged.
    pub fn gather(profile: &Profile, machine: &Machine, runner: Option<&dyn Runner>) -> Self {
        let placement = Placement::new(profile, machine);
        let names: Vec<String> = machine
            .disks
            .iter()
            .enumerate()
            .filter(|(index, disk)| placement.bay_of.contains_key(index) && disk.size_bytes > 0)
            .map(|(_, disk)| disk.name.clone())
            .collect();
        let health = runner.map(|runner| smart::ask_all(runner, &names)).unwrap_or_default();
        Self { files: files(profile, &machine.tree), health }
    }
}

/// Files in the bays of media `file`, each in the first free bay that it fits. A `*` stands for names, not for folders.
fn files(profile: &Profile, tree: &Tree) -> Vec<(String, String, u64, Option<String>)> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut folders: HashMap<String, Vec<String>> = HashMap::new();
    for bay in profile.bays.iter().filter(|bay| bay.media == Media::File) {
        let Some((folder, _)) = bay.path.as_str().rsplit_once('/') else { continue };
        let names = folders.entry(folder.to_owned()).or_insert_with(|| {
            let mut names = tree.names(folder);
            names.sort_by_cached_key(|name| natural(name));
            names
        });
        for name in names.iter() {
            let path = format!("{folder}/{name}");
            let Ok(metadata) = std::fs::metadata(tree.at(&path)) else { continue };
            if metadata.is_file() && bay.path.matches(&path) && seen.insert(path.clone()) {
                let signature = signature::look(&tree.at(&path)).ok().flatten().map(str::to_owned);
                found.push((bay.name.clone(), path, metadata.len(), signature));
                break;
            }
        }
    }
    found
}

/// Which disk is in which bay.
#[derive(Debug, Default)]
pub struct Placement {
    /// Disk by its index in the machine -> bay by its index in the profile.
    bay_of: HashMap<usize, usize>,
    /// Disks whose bay another disk has: index of the bay and of that other disk.
    crowded: HashMap<usize, (usize, usize)>,
    /// Bay -> disk.
    disk_in: HashMap<usize, usize>,
}

impl Placement {
    /// Puts each disk into the first bay that it fits.
    pub fn new(profile: &Profile, machine: &Machine) -> Self {
        let expanders = machine.expanders();
        let mut placement = Self::default();
        for (index, disk) in machine.disks.iter().enumerate() {
            let bays = profile.bays.iter().enumerate().filter(|(_, bay)| fits(bay, disk, &expanders));
            let mut full = None;
            for (bay, _) in bays {
                if let Some(other) = placement.disk_in.get(&bay) {
                    full.get_or_insert((bay, *other));
                } else {
                    placement.disk_in.insert(bay, index);
                    placement.bay_of.insert(index, bay);
                    full = None;
                    break;
                }
            }
            if let Some(full) = full {
                placement.crowded.insert(index, full);
            }
        }
        placement
    }

    /// The disk in the bay `name` of `profile`.
    pub fn disk<'a>(&self, profile: &Profile, machine: &'a Machine, name: &str) -> Option<&'a Disk> {
        let bay = profile.bays.iter().position(|bay| bay.name == name)?;
        machine.disks.get(*self.disk_in.get(&bay)?)
    }
}

fn fits(bay: &Bay, disk: &Disk, expanders: &[&str]) -> bool {
    bay.media != Media::File
        && disk.by_path.iter().any(|path| bay.path.matches(path))
        && bay.expander.is_none_or(|number| is_expander(number, disk.expander.as_deref(), expanders))
}

/// Whether `id` is the expander that profiles call `number`.
pub(crate) fn is_expander(number: u32, id: Option<&str>, expanders: &[&str]) -> bool {
    id.is_some() && id == expanders.get(number as usize - 1).copied()
}

/// Whether nothing that the profile says of the chassis contradicts the machine.
fn chassis_matches(profile: &Profile, machine: &Machine) -> bool {
    let any = |patterns: &[Pattern], texts: &[Option<&str>]| {
        patterns.is_empty() || texts.iter().flatten().any(|text| patterns.iter().any(|pattern| pattern.matches(text)))
    };
    let dmi = &machine.dmi;
    let models: Vec<Option<&str>> = machine.enclosures.iter().map(|Enclosure { model, .. }| model.as_deref()).collect();
    any(&profile.chassis.vendor, &[dmi.sys_vendor.as_deref(), dmi.chassis_vendor.as_deref()])
        && any(&profile.chassis.product, &[dmi.product_name.as_deref()])
        && any(&profile.chassis.enclosure, &models)
}

/// How well `profile` fits `machine`; `None` when it is another chassis, or nothing of the right kind is in its bays.
pub fn fit(profile: &Profile, machine: &Machine) -> Option<Fit> {
    if !chassis_matches(profile, machine) {
        return None;
    }
    let placement = Placement::new(profile, machine);
    let right: Vec<&Disk> = placement
        .bay_of
        .iter()
        .map(|(disk, bay)| (&machine.disks[*disk], &profile.bays[*bay]))
        .filter(|(disk, bay)| disk.media() == bay.media && zone_difference(profile.zones, disk).is_none())
        .map(|(disk, _)| disk)
        .collect();
    let files = files(profile, &machine.tree).len();
    let in_place = right.len() + files;
    let chassis = &profile.chassis;
    (in_place > 0).then(|| Fit {
        free: right.iter().filter(|disk| !disk.is_in_use()).count() + files,
        names_chassis: !(chassis.vendor.is_empty() && chassis.product.is_empty() && chassis.enclosure.is_empty()),
        own: !profile.shipped,
        empty: std::cmp::Reverse(profile.bays.len() - in_place.min(profile.bays.len())),
    })
}

/// The profile that fits best; of equals the first by name.
pub fn best<'a>(profiles: &'a [Profile], machine: &Machine) -> Option<(&'a Profile, Fit)> {
    let mut fitting: Vec<(&Profile, Fit)> =
        profiles.iter().filter_map(|profile| Some((profile, fit(profile, machine)?))).collect();
    fitting.sort_by(|(a, fit_a), (b, fit_b)| fit_b.cmp(fit_a).then_with(|| a.name.cmp(&b.name)));
    fitting.into_iter().next()
}

/// Judges every disk. Without a profile each is told what else speaks against it.
pub fn judge(profile: Option<&Profile>, machine: &Machine, findings: &Findings) -> Report {
    let placement = profile.map(|profile| Placement::new(profile, machine)).unwrap_or_default();
    let judge = Judge { profile, machine, findings, placement: &placement };
    let disks: Vec<Verdict> = (0..machine.disks.len()).map(|index| judge.disk(index)).collect();
    let files = judge.files();
    let accepted =
        disks.iter().filter(|disk| disk.accepted).count() + files.iter().filter(|file| file.accepted).count();
    let filled: HashSet<&str> =
        disks.iter().filter_map(|disk| disk.bay.as_deref()).chain(files.iter().map(|file| file.bay.as_str())).collect();
    let bays = profile.map_or(&[][..], |profile| &profile.bays);
    let empty_bays: Vec<String> =
        bays.iter().filter(|bay| !filled.contains(bay.name.as_str())).map(|bay| bay.name.clone()).collect();
    let mut report = Report {
        profile: profile.map(|profile| profile.name.clone()),
        profile_file: profile.map(|profile| profile.file.clone()),
        chassis: profile.map(|profile| profile.chassis.name.clone()),
        accepted,
        expected: profile.map_or(0, |profile| profile.expected.disks),
        notes: judge.notes(filled.len(), &empty_bays),
        disks,
        files,
        empty_bays,
    };
    if let Some(profile) = profile.filter(|profile| !chassis_matches(profile, machine)) {
        report.notes.insert(0, format!("profile {} is for another chassis than this one", profile.name));
    }
    report
}

struct Judge<'a> {
    profile: Option<&'a Profile>,
    machine: &'a Machine,
    findings: &'a Findings,
    placement: &'a Placement,
}

impl Judge<'_> {
    fn disk(&self, index: usize) -> Verdict {
        let disk = &self.machine.disks[index];
        let bay = self.profile.and_then(|profile| profile.bays.get(*self.placement.bay_of.get(&index)?));
        let mut reasons = condition(disk);
        reasons.extend(self.place(index, bay));
        reasons.extend(self.identity(index));
        let mut notes = Vec::new();
        if disk.signature.as_deref() == Some(signature::HOLDFAST) {
            notes.push("Holdfast formatted it already".to_owned());
        }
        if let Some(why) = &disk.signature_unread {
            notes.push(format!("could not look for a file system: {why}"));
        }
        let mut health = None;
        match self.findings.health.get(&disk.name) {
            Some(Ok(figures)) => {
                health = Some(*figures);
                let limits = self.profile.map(|profile| profile.limits.smart).unwrap_or_default();
                let reason = |detail| Reason { cause: Cause::Smart, detail };
                reasons.extend(figures.breaches(&limits).into_iter().map(reason));
            }
            Some(Err(SmartError::Run(RunError::Absent(_)))) | None => {}
            Some(Err(error)) => notes.push(format!("health not known: {error}")),
        }
        Verdict {
            disk: disk.clone(),
            media: disk.media(),
            bay: bay.map(|bay| bay.name.clone()),
            accepted: reasons.is_empty(),
            reasons,
            notes,
            health,
        }
    }

    /// Whether it is in a bay, and what belongs there.
    fn place(&self, index: usize, bay: Option<&Bay>) -> Vec<Reason> {
        let disk = &self.machine.disks[index];
        let reason = |cause, detail: String| Reason { cause, detail };
        let Some(profile) = self.profile else {
            return vec![reason(Cause::NoBay, "no profile fits this machine".to_owned())];
        };
        let Some(bay) = bay else {
            return vec![match self.placement.crowded.get(&index) {
                Some((bay, other)) => {
                    let other = &self.machine.disks[*other];
                    let bay = &profile.bays[*bay].name;
                    reason(
                        Cause::BayTaken,
                        format!("bay {bay} holds {} already; write its path in full", other.place()),
                    )
                }
                None if disk.by_path.is_empty() => reason(Cause::NoBay, "it has no by-path name".to_owned()),
                None => reason(Cause::NoBay, format!("{} is no bay of {}", disk.place(), profile.name)),
            }];
        };
        let mut reasons = Vec::new();
        if disk.media() != bay.media {
            reasons.push(reason(Cause::WrongMedia, format!("it is {}, the bay is for {}", disk.media(), bay.media)));
        } else if let Some(difference) = zone_difference(profile.zones, disk) {
            reasons.push(reason(Cause::WrongZones, difference));
        }
        let least = profile.expected.least_size_bytes;
        if disk.size_bytes > 0 && disk.size_bytes < least {
            let detail = format!(
                "{} ({} bytes), the least is {} ({least} bytes)",
                shown(disk.size_bytes),
                disk.size_bytes,
                shown(least)
            );
            reasons.push(reason(Cause::TooSmall, detail));
        }
        reasons
    }

    /// Whether it can be told from every other disk.
    fn identity(&self, index: usize) -> Option<Reason> {
        let disk = &self.machine.disks[index];
        let reason = |cause, detail: String| Some(Reason { cause, detail });
        if disk.serial.is_none() && disk.wwn.is_none() {
            return reason(Cause::NoIdentity, "it has neither serial number nor WWN".to_owned());
        }
        for (other_index, other) in self.machine.disks.iter().enumerate().filter(|(other, _)| *other != index) {
            let both = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
            if both(&disk.wwn, &other.wwn) && disk.serial == other.serial {
                // Two ways to one disk: the one that is in a bay, or else comes first, is used.
                let rank = |index: usize| (!self.placement.bay_of.contains_key(&index), index);
                if rank(other_index) < rank(index) {
                    let detail = format!(
                        "another path to the disk at {} (WWN {})",
                        other.place(),
                        disk.wwn.as_deref().unwrap_or_default()
                    );
                    return reason(Cause::Duplicate, detail);
                }
            } else if both(&disk.wwn, &other.wwn) {
                return reason(Cause::Duplicate, format!("{} has the same WWN", other.place()));
            } else if both(&disk.serial, &other.serial) && disk.unit_group != other.unit_group {
                let serial = disk.serial.as_deref().unwrap_or_default();
                return reason(Cause::Duplicate, format!("{} has the same serial number {serial}", other.place()));
            }
        }
        None
    }

    fn files(&self) -> Vec<FileVerdict> {
        let least = self.profile.map_or(0, |profile| profile.expected.least_size_bytes);
        let verdict = |(bay, path, size_bytes, signature): &(String, String, u64, Option<String>)| {
            let mut reasons = Vec::new();
            if *size_bytes < least {
                let detail = format!("{size_bytes} bytes, the least is {least}");
                reasons.push(Reason { cause: Cause::TooSmall, detail });
            }
            if let Some(signature) = signature.as_deref().filter(|signature| *signature != signature::HOLDFAST) {
                reasons.push(Reason { cause: Cause::InUse, detail: signature.to_owned() });
            }
            FileVerdict {
                path: path.clone(),
                bay: bay.clone(),
                size_bytes: *size_bytes,
                accepted: reasons.is_empty(),
                reasons,
            }
        };
        self.findings.files.iter().map(verdict).collect()
    }

    fn notes(&self, filled: usize, empty: &[String]) -> Vec<String> {
        let mut notes = Vec::new();
        let expected = self.profile.map_or(0, |profile| profile.expected.disks as usize);
        if filled < expected {
            notes.push(format!("{expected} disks are expected, {filled} are in their bays; empty: {}", listed(empty)));
        }
        let absent = |answer: &Result<Health, SmartError>| matches!(answer, Err(SmartError::Run(RunError::Absent(_))));
        if self.findings.health.values().any(absent) {
            notes.push("smartctl is not installed, so SMART limits were not checked; install smartmontools".to_owned());
        }
        notes
    }
}

fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let more = names.len().saturating_sub(SHOWN);
    let list = names[..names.len() - more].join(", ");
    if more > 0 { format!("{list} and {more} more") } else { list }
}

/// What speaks against a disk wherever it is.
fn condition(disk: &Disk) -> Vec<Reason> {
    let mut reasons: Vec<Reason> =
        disk.uses.iter().map(|used| Reason { cause: Cause::InUse, detail: used.clone() }).collect();
    if let Some(found) = disk.signature.as_deref().filter(|found| *found != signature::HOLDFAST) {
        reasons.push(Reason { cause: Cause::InUse, detail: format!("there is a {found} on it") });
    }
    if disk.read_only {
        reasons.push(Reason { cause: Cause::ReadOnly, detail: "it is read-only".to_owned() });
    }
    if let Some(state) = &disk.bad_state {
        reasons.push(Reason { cause: Cause::Offline, detail: format!("the kernel calls it {state}") });
    }
    if disk.size_bytes == 0 {
        let detail = if is_virtual(&disk.name) {
            "its size is 0: nothing is attached to it"
        } else {
            "its size is 0: no medium, or sectors that Linux cannot use (520 bytes; reformat it with sg_format)"
        };
        reasons.push(Reason { cause: Cause::NoMedium, detail: detail.to_owned() });
    }
    reasons
}

/// How a zoned disk's geometry differs from what is wanted.
fn zone_difference(wanted: Option<Zones>, disk: &Disk) -> Option<String> {
    let (wanted, zones) = (wanted?, disk.zones?);
    if !disk.media().is_zoned() {
        return None;
    }
    if zones.size_bytes != wanted.size_bytes {
        return Some(format!("its zones have {} bytes, the profile wants {}", zones.size_bytes, wanted.size_bytes));
    }
    let limit = wanted.open_limit.map(u64::from);
    match (limit, zones.open_limit) {
        (Some(limit), Some(own)) if own < limit => {
            Some(format!("it keeps {own} zones open, the profile wants {limit}"))
        }
        _ => None,
    }
}

/// The path in `/dev` by which an operator should name a disk: by its place, and never by `sdX` when there is another.
pub fn device_path(tree: &Tree, disk: &Disk) -> String {
    let linked = |kind: &str, names: &[String]| {
        let path = |name: &String| format!("/dev/disk/{kind}/{name}");
        names.iter().map(path).find(|path| std::fs::symlink_metadata(tree.at(Path::new(path))).is_ok())
    };
    linked("by-id", &disk.by_id)
        .or_else(|| linked("by-path", &disk.by_path))
        .unwrap_or_else(|| format!("/dev/{}", disk.name))
}
