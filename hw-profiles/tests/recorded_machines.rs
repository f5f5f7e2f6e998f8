//! Profiles against recorded trees of real chassis layouts.

#![allow(clippy::unwrap_used, missing_docs)]

mod recorded;

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_hw_profiles::inventory::{Machine, ReadOptions};
use holdfast_hw_profiles::matching::{Cause, Findings, Report, best, judge};
use holdfast_hw_profiles::runner::{Output, RunError, Runner};
use holdfast_hw_profiles::{HardwareError, light, load, settings, shipped, write};
use tempfile::TempDir;

const DENSE: &str = include_str!("trees/dense-4u-102.tree");
const SMR: &str = include_str!("trees/dense-4u-102-smr.tree");
const TWELVE: &str = include_str!("trees/server-2u-12.tree");
const NVME: &str = include_str!("trees/nvme-10.tree");
const ZNS: &str = include_str!("trees/nvme-zns-4.tree");

fn read(root: &TempDir) -> Machine {
    Machine::read(root.path(), ReadOptions::default()).unwrap()
}

fn report(machine: &Machine, runner: Option<&dyn Runner>) -> Report {
    let profiles = shipped::all(None).unwrap();
    let (profile, _) = best(&profiles, machine).expect("no profile fits");
    judge(Some(profile), machine, &Findings::gather(profile, machine, runner))
}

fn reasons(report: &Report, name: &str) -> Vec<(Cause, String)> {
    let verdict = report.disks.iter().find(|verdict| verdict.disk.name == name).unwrap();
    verdict.reasons.iter().map(|reason| (reason.cause, reason.detail.clone())).collect()
}

/// Exit code and document of smartctl, or why there is none.
type Answer = Result<(i32, &'static str), RunError>;

/// Answers smartctl from recorded documents by device, and writes down what ledctl is asked.
#[derive(Default)]
struct Recorded {
    answers: Vec<(&'static str, Answer)>,
    led: std::sync::Mutex<Vec<String>>,
}

impl Runner for Recorded {
    fn run(&self, program: &str, arguments: &[&str], _: Duration) -> Result<Output, RunError> {
        let output = |code, stdout: &str| Output { code: Some(code), stdout: stdout.to_owned(), stderr: String::new() };
        if program == "ledctl" {
            self.led.lock().unwrap().push(arguments.join(" "));
            return Ok(output(0, ""));
        }
        let device = arguments.last().unwrap();
        match self.answers.iter().find(|(name, _)| name == device) {
            Some((_, Ok((code, document)))) => Ok(output(*code, document)),
            Some((_, Err(error))) => Err(error.clone()),
            None => Ok(output(0, r#"{"smart_status":{"passed":true},"temperature":{"current":30}}"#)),
        }
    }
}

#[test]
fn a_dense_chassis_has_each_of_102_disks_in_its_bay() {
    let root = recorded::tree(DENSE);
    let machine = read(&root);
    let report = report(&machine, None);
    assert_eq!(report.profile.as_deref(), Some("dense-4u-102"));
    assert_eq!((report.accepted, report.empty_bays.len(), report.notes.len()), (102, 0, 0), "{:?}", report.notes);
    let disk = report.disks.iter().find(|verdict| verdict.disk.name == "sdbh").unwrap();
    assert_eq!(disk.bay.as_deref(), Some("rear-9"));
    assert_eq!(disk.disk.by_path, ["pci-0000:3b:00.0-sas-exp0x500304801eabd07f-phy8-lun-0"]);
    assert_eq!(disk.disk.by_id, ["wwn-0x5000c500a1b00080"]);
    assert_eq!((disk.disk.serial.as_deref(), disk.disk.vendor.as_deref()), (Some("ZL21008"), Some("SEAGATE")));
    assert_eq!(disk.disk.size_bytes, 18_000_207_937_536);
    let slot = disk.disk.slot.clone().unwrap();
    assert_eq!((slot.enclosure.as_str(), slot.slot.as_str()), ("0:0:103:0", "Slot08"));
    let system = reasons(&report, "sdcy");
    assert!(system.contains(&(Cause::InUse, "partition sdcy1 (mounted at /)".to_owned())), "{system:?}");
    assert!(system.iter().any(|(cause, _)| *cause == Cause::NoBay));
}

#[test]
fn empty_bays_and_foreign_disks_of_a_dense_chassis_are_told() {
    let root = recorded::tree(DENSE);
    let disk = |name: &str| root.path().join("sys/block").join(name).canonicalize().unwrap();
    std::fs::remove_file(root.path().join("sys/block/sdc")).unwrap();
    std::fs::write(disk("sda").join("size"), "7814037168\n").unwrap();
    std::fs::write(disk("sdb").join("queue/rotational"), "0\n").unwrap();
    std::fs::write(root.path().join("dev/sdd"), [&[0_u8; 0x438][..], &b"\x53\xef"[..]].concat()).unwrap();
    std::fs::write(disk("sde").join("device/state"), "offline\n").unwrap();
    std::fs::write(disk("sdf").join("size"), "0\n").unwrap();
    std::fs::write(disk("sdg").join("ro"), "1\n").unwrap();
    // Two disks of one serial number, and two ways to one disk.
    std::fs::copy(disk("sdh").join("device/vpd_pg80"), disk("sdi").join("device/vpd_pg80")).unwrap();
    for file in ["vpd_pg80", "wwid"] {
        std::fs::copy(disk("sdj").join("device").join(file), disk("sdk").join("device").join(file)).unwrap();
    }
    std::fs::remove_file(disk("sdl").join("device/vpd_pg80")).unwrap();
    std::fs::write(disk("sdl").join("device/wwid"), "t10.ATA     SOME MODEL\n").unwrap();
    let machine = read(&root);
    let report = report(&machine, None);
    assert_eq!(report.empty_bays, ["front-3"]);
    assert_eq!(report.notes, ["102 disks are expected, 101 are in their bays; empty: front-3"]);
    let one = |name: &str| {
        let all = reasons(&report, name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all[0].clone()
    };
    assert_eq!(
        one("sda"),
        (Cause::TooSmall, "4.0 TB (4000787030016 bytes), the least is 8.0 TB (8000000000000 bytes)".to_owned())
    );
    assert_eq!(one("sdb"), (Cause::WrongMedia, "it is ssd, the bay is for hdd".to_owned()));
    assert_eq!(one("sdd"), (Cause::InUse, "there is a file system ext2, ext3 or ext4 on it".to_owned()));
    assert_eq!(one("sde"), (Cause::Offline, "the kernel calls it offline".to_owned()));
    assert_eq!(one("sdf").0, Cause::NoMedium);
    assert_eq!(one("sdg").0, Cause::ReadOnly);
    assert!(one("sdh").1.contains("phy8") && one("sdi").1.contains("same serial number ZL20007"));
    assert!(reasons(&report, "sdj").is_empty(), "the first path to a disk is used");
    assert!(one("sdk").1.starts_with("another path to the disk at pci-0000:3b:00.0-sas-exp0x500304801eabcd7f-phy9"));
    assert_eq!(one("sdl").0, Cause::NoIdentity);
    assert_eq!(report.accepted, 101 - 10);
}

#[test]
fn host_managed_disks_are_told_from_conventional_ones_and_their_zones_are_compared() {
    let root = recorded::tree(SMR);
    let disk = |name: &str| root.path().join("sys/block").join(name).canonicalize().unwrap();
    std::fs::write(disk("sdb").join("queue/chunk_sectors"), "262144\n").unwrap();
    std::fs::write(disk("sdc").join("queue/max_open_zones"), "64\n").unwrap();
    let report = report(&read(&root), None);
    assert_eq!((report.profile.as_deref(), report.accepted), (Some("dense-4u-102-smr"), 100));
    assert_eq!(reasons(&report, "sdb")[0].1, "its zones have 134217728 bytes, the profile wants 268435456");
    assert_eq!(reasons(&report, "sdc")[0].1, "it keeps 64 zones open, the profile wants 128");
}

#[test]
fn a_server_of_twelve_disks_keeps_its_system_disks_out() {
    let root = recorded::tree(TWELVE);
    let machine = read(&root);
    let report = report(&machine, None);
    assert_eq!((report.profile.as_deref(), report.accepted), (Some("server-2u-12-direct"), 12));
    assert_eq!(report.disks.len(), 14, "md0 is no hardware");
    let system = reasons(&report, "sdm");
    assert_eq!(system[0], (Cause::InUse, "partition sdm1 (held by md0)".to_owned()));
    assert_eq!(system[1].1, "pci-0000:18:00.0-sas-phy12-lun-0 is no bay of server-2u-12-direct");
    let sata = report.disks.iter().find(|verdict| verdict.disk.name == "sdg").unwrap();
    assert_eq!(sata.disk.by_path, ["pci-0000:18:00.0-sas-phy6-lun-0"], "udev's link is the name that was rebuilt");
    assert_eq!(sata.disk.by_id, ["wwn-0x5000c500b0000060", "ata-ST12000NM0008-2H3101_ZHZ006"]);
}

#[test]
fn nvme_disks_are_accepted_and_the_multipath_system_disk_is_found_behind_its_subsystem() {
    let root = recorded::tree(NVME);
    let report = report(&read(&root), None);
    assert_eq!((report.profile.as_deref(), report.accepted), (Some("nvme"), 10));
    let system = report.disks.iter().find(|verdict| verdict.disk.name == "nvme0n1").unwrap();
    assert_eq!(system.disk.by_path, ["pci-0000:64:05.5-pci-10000:81:00.0-nvme-1"]);
    assert_eq!(system.reasons[0].detail, "partition nvme0n1p1 (mounted at /)");
    let first = report.disks.iter().find(|verdict| verdict.disk.name == "nvme1n1").unwrap();
    assert_eq!(first.disk.by_path, ["pci-0000:5e:00.0-nvme-1"]);
    assert_eq!(first.disk.by_id, ["nvme-eui.363447305260010025384700000001"]);
    assert_eq!(first.disk.serial.as_deref(), Some("S64GNE0R7001"));
}

#[test]
fn zoned_namespaces_have_a_profile_of_their_own() {
    let root = recorded::tree(ZNS);
    let report = report(&read(&root), None);
    assert_eq!((report.profile.as_deref(), report.accepted), (Some("nvme-zns"), 4));
}

#[test]
fn a_recorded_machine_gets_a_profile_that_fits_it_best_and_accepts_the_same_disks() {
    for (text, bays, sections) in [(DENSE, 102, 2), (SMR, 102, 2), (TWELVE, 12, 1), (NVME, 10, 3), (ZNS, 4, 3)] {
        let root = recorded::tree(text);
        let machine = read(&root);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let written = write::to_file(&path, &machine).unwrap();
        assert_eq!((written.name.as_str(), written.bays.len()), ("own", bays));
        let toml = std::fs::read_to_string(&path).unwrap();
        assert_eq!(toml.matches("[[bays]]").count(), sections, "{toml}");
        let profiles = shipped::all(Some(folder.path())).unwrap();
        let (profile, _) = best(&profiles, &machine).unwrap();
        assert_eq!(profile.name, "own", "a written profile wins over shipped ones");
        let report = judge(Some(profile), &machine, &Findings::gather(profile, &machine, None));
        assert_eq!(report.accepted, bays);
        let error = write::to_file(&path, &machine).unwrap_err().to_string();
        assert!(error.contains("nothing is overwritten") && std::fs::read_to_string(&path).unwrap() == toml, "{error}");
    }
}

#[test]
fn a_machine_without_free_disks_gets_no_profile_and_hears_why() {
    let root = recorded::tree(
        "under sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda\nsize = 536870912\ndev = 254:0\nserial = overlayblk\nqueue/rotational = 1\nunder\n\
         sys/block/vda -> ../devices/pci0000:00/0000:00:02.0/virtio1/block/vda\n\
         sys/devices/virtual/block/loop0/size = 8\nsys/block/loop0 -> ../devices/virtual/block/loop0\n\
         proc/self/mountinfo = 27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n",
    );
    let machine = read(&root);
    assert!(best(&shipped::all(None).unwrap(), &machine).is_none());
    let report = judge(None, &machine, &Findings::default());
    assert_eq!(report.disks.len(), 1, "loop devices are left out");
    assert_eq!(report.disks[0].disk.by_path, ["pci-0000:00:02.0"]);
    assert_eq!(report.disks[0].disk.by_id, ["virtio-overlayblk"]);
    assert_eq!(reasons(&report, "vda")[0].1, "mounted at /");
    let error = write::to_file(&root.path().join("x.toml"), &machine).unwrap_err();
    assert!(matches!(&error, HardwareError::NothingToWrite(text) if text.contains("vda: mounted at /")), "{error}");
    assert!(!root.path().join("x.toml").exists());
    let all = Machine::read(root.path(), ReadOptions { virtual_disks: true, skip_signatures: true }).unwrap();
    assert_eq!(all.disks.len(), 2);
}

#[test]
fn health_past_its_limits_rejects_with_both_numbers() {
    let runner = Recorded {
        answers: vec![
            ("/dev/sda", Ok((4, include_str!("smartctl/sas.json")))),
            ("/dev/sdb", Ok((2, include_str!("smartctl/refused.json")))),
            ("/dev/sdc", Err(RunError::Hung { program: "smartctl".to_owned(), seconds: 20 })),
            ("/dev/sdd", Ok((0, "no JSON: too old"))),
            ("/dev/sdg", Ok((0, include_str!("smartctl/sata.json")))),
        ],
        ..Recorded::default()
    };
    let root = recorded::tree(TWELVE);
    let judged = report(&read(&root), Some(&runner));
    let smart = |detail: &str| (Cause::Smart, detail.to_owned());
    assert_eq!(reasons(&judged, "sda"), [smart("3 uncorrectable sectors, the limit is 0")]);
    assert_eq!(
        reasons(&judged, "sdg"),
        [smart("812 reallocated sectors, the limit is 50"), smart("3 pending sectors, the limit is 0")]
    );
    let notes = |name: &str| judged.disks.iter().find(|verdict| verdict.disk.name == name).unwrap().notes.clone();
    assert_eq!(notes("sdb"), ["health not known: smartctl: Smartctl open device: /dev/sda failed: Permission denied"]);
    assert_eq!(notes("sdc"), ["health not known: smartctl did not answer within 20 s and was killed"]);
    assert_eq!(notes("sdd"), ["health not known: smartctl: no JSON: too old"]);
    assert_eq!(judged.accepted, 10);
    let sata = judged.disks.iter().find(|verdict| verdict.disk.name == "sdg").unwrap().health.unwrap();
    assert_eq!((sata.percentage_used, sata.temperature_celsius), (Some(4), Some(36)));

    let runner = Recorded {
        answers: vec![("/dev/nvme1n1", Ok((0, include_str!("smartctl/nvme.json"))))],
        ..Recorded::default()
    };
    let root = recorded::tree(NVME);
    let judged = report(&read(&root), Some(&runner));
    assert_eq!(
        reasons(&judged, "nvme1n1"),
        [
            smart("the disk itself reports that it is failing (SMART status)"),
            smart("NVMe critical warning 0x04"),
            smart("12 media errors, the limit is 0"),
            smart("103 percent of endurance used, the limit is 90"),
        ]
    );
}

#[test]
fn without_smartctl_disks_are_accepted_with_one_note() {
    struct Absent;
    impl Runner for Absent {
        fn run(&self, program: &str, _: &[&str], _: Duration) -> Result<Output, RunError> {
            Err(RunError::Absent(program.to_owned()))
        }
    }
    let root = recorded::tree(TWELVE);
    let report = report(&read(&root), Some(&Absent));
    assert_eq!(report.accepted, 12);
    assert_eq!(report.notes.len(), 1);
    assert!(report.notes[0].contains("install smartmontools"));
}

#[test]
fn the_light_of_a_bay_is_switched_by_its_enclosure_also_when_the_bay_is_empty() {
    let root = recorded::tree(DENSE);
    let light_of = |slot: &str| {
        std::fs::read_to_string(root.path().join("sys/class/enclosure").join(slot).join("locate")).unwrap()
    };
    let runner = Recorded::default();
    let profile = shipped::named("dense-4u-102", None).unwrap();
    light::locate(&profile, &read(&root), &runner, "rear-9", true).unwrap();
    assert_eq!((light_of("0:0:103:0/Slot08").as_str(), light_of("0:0:102:0/Slot08").as_str()), ("1", "0\n"));
    light::locate(&profile, &read(&root), &runner, "rear-9", false).unwrap();
    assert_eq!(light_of("0:0:103:0/Slot08"), "0");
    // The disk of front-3 is gone; a profile that names its slot still finds the light, shipped or written.
    let written = write::to_file(&root.path().join("own.toml"), &read(&root)).unwrap();
    let gone = root.path().join("sys/block/sdc");
    std::fs::remove_file(gone).unwrap();
    std::fs::remove_file(root.path().join("sys/class/enclosure/0:0:102:0/Slot02/device")).unwrap();
    light::locate(&profile, &read(&root), &runner, "front-3", true).unwrap();
    assert_eq!(light_of("0:0:102:0/Slot02"), "1");
    light::locate(&written, &read(&root), &runner, "bay-3", false).unwrap();
    assert_eq!((light_of("0:0:102:0/Slot02").as_str(), light_of("0:0:103:0/Slot02").as_str()), ("0", "0\n"));
    assert!(runner.led.lock().unwrap().is_empty());
    let error = light::locate(&profile, &read(&root), &runner, "raer-9", true).unwrap_err().to_string();
    assert!(error.contains("did you mean `rear-9`"), "{error}");
}

#[test]
fn ledctl_is_the_way_where_the_kernel_knows_no_slot() {
    let root = recorded::tree(TWELVE);
    let runner = Recorded::default();
    let profile = shipped::named("server-2u-12-direct", None).unwrap();
    light::locate(&profile, &read(&root), &runner, "front-2", true).unwrap();
    light::locate(&profile, &read(&root), &runner, "front-2", false).unwrap();
    assert_eq!(*runner.led.lock().unwrap(), ["locate=/dev/sdb", "locate_off=/dev/sdb"]);
    std::fs::remove_file(root.path().join("sys/block/sdb")).unwrap();
    let error = light::locate(&profile, &read(&root), &runner, "front-2", true).unwrap_err().to_string();
    assert!(error.contains("ledctl lights only bays with a disk"), "{error}");
    let files = shipped::named("dev-file", None).unwrap();
    assert!(
        light::locate(&files, &read(&root), &runner, "file-1", true).unwrap_err().to_string().contains("no lights")
    );
}

#[test]
fn settings_are_written_once_and_what_cannot_be_set_is_told() {
    let root = recorded::tree(TWELVE);
    let profile = shipped::named("server-2u-12-direct", None).unwrap();
    let device = Path::new("/dev/disk/by-path/pci-0000:18:00.0-sas-phy3-lun-0");
    let applied = settings::apply(root.path(), device, &profile.settings).unwrap();
    let block = root.path().join("sys/block/sdd");
    let text = |file: &str| std::fs::read_to_string(block.join(file)).unwrap();
    assert!(applied.iter().all(|one| one.failed.is_none()), "{applied:?}");
    assert_eq!((text("queue/scheduler").as_str(), text("queue/read_ahead_kb").as_str()), ("none", "0"));
    assert_eq!(applied[0].before, "mq-deadline");
    assert_eq!(text("device/queue_depth"), "32\n", "what holds already is not written");
    std::fs::remove_file(block.join("queue/scheduler")).unwrap();
    let applied = settings::apply(root.path(), device, &profile.settings).unwrap();
    assert!(applied[0].failed.as_deref().unwrap().contains("No such file"));
    assert!(settings::apply(root.path(), Path::new("/dev/sdzz"), &profile.settings).is_err());
    std::fs::write(root.path().join("disk.img"), "").unwrap();
    assert!(settings::apply(root.path(), Path::new("/disk.img"), &profile.settings).unwrap().is_empty());
}

#[test]
fn files_stand_for_disks_where_a_profile_says_so() {
    let root =
        recorded::tree("sys/block/keep = x\nsrv/d/disk-1 @ 1000000000\nsrv/d/disk-2 @ 1000\nsrv/other @ 1000000000\n");
    let text = "name = 'f'\n[chassis]\nname = 'f'\n[[bays]]\nname = 'f-{1..3}'\npath = '/srv/d/disk-{1..3}'\nmedia = 'file'\n\
                [expected]\nleast_size = '500MB'\ndisks = 3\n";
    let profile = load::parse(text, "f.toml").unwrap();
    let machine = read(&root);
    let report = judge(Some(&profile), &machine, &Findings::gather(&profile, &machine, None));
    assert_eq!((report.accepted, report.empty_bays.as_slice()), (1, &["f-3".to_owned()][..]));
    assert_eq!(report.files[1].reasons[0].cause, Cause::TooSmall);
}

#[test]
fn a_folder_without_sys_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let error = Machine::read(root.path(), ReadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("no `sys`"), "{error}");
    assert!(Machine::read(&PathBuf::from("/nowhere-of-holdfast"), ReadOptions::default()).is_err());
}
