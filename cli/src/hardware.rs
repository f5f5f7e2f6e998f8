//! `holdfast node probe` and `locate`: this machine's disks against the hardware profiles.

use std::path::Path;

use holdfast_hw_profiles::inventory::{Machine, ReadOptions};
use holdfast_hw_profiles::matching::{self, Findings, Reason, Report};
use holdfast_hw_profiles::profile::Profile;
use holdfast_hw_profiles::runner::{Runner, SystemRunner};
use holdfast_hw_profiles::{HardwareError, light, shipped, size, write};
use serde_json::json;

use crate::arguments::{LocateOptions, NodeCommand, ProbeOptions, ProfileChoice, Switch};
use crate::outcome::usage;
use crate::show;

/// Carries out a command of `holdfast node`.
pub fn run(command: NodeCommand) -> anyhow::Result<()> {
    match command {
        NodeCommand::Probe(options) => probe(&options),
        NodeCommand::Locate(options) => locate(&options),
    }
}

/// The profile that was asked for, or the one that fits best.
fn chosen(choice: &ProfileChoice, machine: &Machine) -> anyhow::Result<Option<Profile>> {
    let folder = choice.profiles.as_deref();
    if let Some(name) = &choice.profile {
        return match shipped::named(name, folder) {
            Err(error @ (HardwareError::UnknownProfile { .. } | HardwareError::Io { .. })) => {
                Err(usage(error.to_string()))
            }
            other => Ok(Some(other?)),
        };
    }
    let profiles = shipped::all(folder)?;
    Ok(matching::best(&profiles, machine).map(|(profile, _)| profile.clone()))
}

fn probe(options: &ProbeOptions) -> anyhow::Result<()> {
    if let Some(path) = options.write.as_deref().filter(|path| path.exists()) {
        return Err(usage(format!("{} exists; --write overwrites nothing, name another file", path.display())));
    }
    let read = ReadOptions { virtual_disks: options.virtual_disks, skip_signatures: false };
    let machine = Machine::read(&options.root, read)?;
    let written = options.write.as_deref().map(|path| write::to_file(path, &machine)).transpose();
    // A report is of use most of all when nothing could be written.
    let profile = match &written {
        Ok(Some(profile)) => Some(profile.clone()),
        _ => chosen(&options.choice, &machine)?,
    };
    let runner: Option<&dyn Runner> = if options.root == Path::new("/") { Some(&SystemRunner) } else { None };
    let findings = profile.as_ref().map(|profile| Findings::gather(profile, &machine, runner)).unwrap_or_default();
    let report = matching::judge(profile.as_ref(), &machine, &findings);
    if options.json {
        show::line(&document(&report, &machine).to_string())?;
    } else {
        show::text(&page(&report, &machine))?;
    }
    if let Some(profile) = written? {
        eprintln!("wrote {}", profile.file);
    }
    if report.profile.is_none() {
        anyhow::bail!("no profile fits this machine; make one with --write FILE, or see docs/hardware.md");
    }
    if report.accepted == 0 {
        anyhow::bail!("no disk is accepted");
    }
    Ok(())
}

/// The report with what it was made from, for programs.
fn document(report: &Report, machine: &Machine) -> serde_json::Value {
    let devices: Vec<String> =
        report.disks.iter().map(|verdict| matching::device_path(&machine.tree, &verdict.disk)).collect();
    let mut document = json!(report);
    document["machine"] = json!(machine.dmi);
    if let Some(disks) = document["disks"].as_array_mut() {
        for (disk, device) in disks.iter_mut().zip(devices) {
            disk["device"] = json!(device);
        }
    }
    document
}

/// The report for people.
fn page(report: &Report, machine: &Machine) -> String {
    let dmi = &machine.dmi;
    let names: Vec<&str> = [&dmi.sys_vendor, &dmi.product_name].into_iter().flatten().map(String::as_str).collect();
    let mut out = format!(
        "machine  {}\n",
        show::name(if names.is_empty() { "unknown (no DMI)".to_owned() } else { names.join(" ") }.as_str())
    );
    match (&report.profile, &report.chassis, &report.profile_file) {
        (Some(name), Some(chassis), Some(file)) => out.push_str(&format!("profile  {name}: {chassis} ({file})\n")),
        _ => out.push_str("profile  none fits\n"),
    }
    let heading = ["BAY", "DISK", "KIND", "SIZE", "MODEL", "SERIAL", "VERDICT"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let text = |text: &Option<String>| show::name(text.as_deref().unwrap_or("-"));
    for verdict in &report.disks {
        let disk = &verdict.disk;
        rows.push(vec![
            text(&verdict.bay),
            show::name(&format!("{} ({})", disk.place(), disk.name)),
            verdict.media.to_string(),
            size::shown(disk.size_bytes),
            text(&disk.model),
            text(&disk.serial),
            show::name(&said(verdict.accepted, &verdict.reasons, &verdict.notes)),
        ]);
    }
    for file in &report.files {
        let none = || "-".to_owned();
        let verdict = said(file.accepted, &file.reasons, &[]);
        rows.push(vec![
            file.bay.clone(),
            show::name(&file.path),
            "file".to_owned(),
            size::shown(file.size_bytes),
            none(),
            none(),
            verdict,
        ]);
    }
    out.push('\n');
    out.push_str(&show::table(&rows));
    out.push_str(&format!("\n{} of {} accepted\n", report.accepted, report.disks.len() + report.files.len()));
    for note in &report.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

fn said(accepted: bool, reasons: &[Reason], notes: &[String]) -> String {
    let details: Vec<&str> = reasons.iter().map(|reason| reason.detail.as_str()).collect();
    let verdict = if accepted { "accept".to_owned() } else { format!("reject: {}", details.join("; ")) };
    if notes.is_empty() { verdict } else { format!("{verdict} ({})", notes.join("; ")) }
}

fn locate(options: &LocateOptions) -> anyhow::Result<()> {
    let machine = Machine::read(Path::new("/"), ReadOptions { virtual_disks: false, skip_signatures: true })?;
    let Some(profile) = chosen(&options.choice, &machine)? else {
        anyhow::bail!("no profile fits this machine, so its bays have no names; name one with --profile");
    };
    let on = options.switch == Switch::On;
    let way = light::locate(&profile, &machine, &SystemRunner, &options.bay, on)?;
    show::line(&format!("bay {}: light {} ({way})", options.bay, if on { "on" } else { "off" }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use holdfast_hw_profiles::inventory::{Machine, ReadOptions};
    use holdfast_hw_profiles::matching::{Findings, judge};

    use super::{document, page};
    use crate::arguments::{Arguments, Command, NodeCommand};

    fn parsed(words: &[&str]) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(["holdfast", "node"].iter().chain(words)).map(|arguments| arguments.command)
    }

    #[test]
    fn a_node_runs_by_its_file_and_probes_without_one() {
        let Ok(Command::Node(options)) = parsed(&["--config", "n.toml"]) else { panic!("the daemon's command line") };
        assert!(options.config.is_some_and(|file| file.as_os_str() == "n.toml") && options.command.is_none());
        let Ok(Command::Node(options)) = parsed(&["probe", "--json"]) else { panic!("probe") };
        assert!(matches!(options.command, Some(NodeCommand::Probe(options)) if options.json));
        assert!(parsed(&[]).is_err() && parsed(&["--config", "n.toml", "probe"]).is_err());
    }

    #[test]
    fn a_report_names_each_disk_with_its_verdict_on_a_page_and_in_a_document() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda");
        std::fs::create_dir_all(&disk).unwrap();
        std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
        std::fs::write(disk.join("size"), "8\n").unwrap();
        std::fs::write(disk.join("serial"), "line\u{1b}feed\n").unwrap();
        let target = "../devices/pci0000:00/0000:00:02.0/virtio1/block/vda";
        std::os::unix::fs::symlink(target, root.path().join("sys/block/vda")).unwrap();
        let machine = Machine::read(root.path(), ReadOptions::default()).unwrap();
        let report = judge(None, &machine, &Findings::default());
        let page = page(&report, &machine);
        assert!(page.contains("reject: no profile fits this machine") && page.contains("0 of 1 accepted"), "{page}");
        assert!(!page.contains('\u{1b}'), "what a disk says of itself cannot steer the terminal");
        let document = document(&report, &machine);
        assert_eq!(document["disks"][0]["device"], "/dev/vda");
        assert_eq!(document["disks"][0]["reasons"][0]["cause"], "no-bay");
    }
}
