//! Health of disks by `smartctl --json`: ATA, SCSI and NVMe brought to the same six figures.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::profile::SmartLimits;
use crate::runner::{RunError, Runner};

/// How long smartctl may take for one disk.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Disks that are asked at a time.
const PARALLEL: usize = 8;

/// What a disk says of its own health. `None`: it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Its own overall verdict.
    pub passed: Option<bool>,
    /// See [`SmartLimits::reallocated_sectors`].
    pub reallocated_sectors: Option<u64>,
    /// See [`SmartLimits::pending_sectors`].
    pub pending_sectors: Option<u64>,
    /// See [`SmartLimits::uncorrectable_sectors`].
    pub uncorrectable_sectors: Option<u64>,
    /// See [`SmartLimits::media_errors`].
    pub media_errors: Option<u64>,
    /// See [`SmartLimits::percentage_used`].
    pub percentage_used: Option<u64>,
    /// See [`SmartLimits::temperature_celsius`].
    pub temperature_celsius: Option<u64>,
    /// NVMe critical warnings, a bit each (NVMe Base Specification, SMART / Health Information); 0 is good.
    pub critical_warning: Option<u64>,
}

/// Why there are no figures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmartError {
    /// smartctl did not run to its end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It ran, but could not speak with the disk.
    #[error("smartctl: {0}")]
    Refused(String),
}

/// Asks the disk at `device`, a path in `/dev`.
///
/// # Errors
/// See [`SmartError`].
pub fn ask(runner: &dyn Runner, device: &str) -> Result<Health, SmartError> {
    let output = runner.run("smartctl", &["--json", "--xall", device], DEADLINE)?;
    let said = |text: &str| {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        line.map_or_else(|| format!("exit code {:?} and no output", output.code), str::to_owned)
    };
    let Ok(document) = serde_json::from_str::<Value>(&output.stdout) else {
        let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
        return Err(SmartError::Refused(said(text)));
    };
    // Exit code, see smartctl(8): bit 0 is a wrong command line, bit 1 a device that did not open or identify itself.
    // Higher bits come with figures.
    if output.code.is_none_or(|code| code & 0b11 != 0) {
        let messages = document.pointer("/smartctl/messages").and_then(Value::as_array);
        let message = messages.and_then(|messages| messages.first()?.get("string")?.as_str());
        return Err(SmartError::Refused(message.map_or_else(|| said(&output.stderr), str::to_owned)));
    }
    Ok(read(&document))
}

/// Asks many disks, a few at a time; the answers by kernel name.
pub fn ask_all(runner: &dyn Runner, names: &[String]) -> BTreeMap<String, Result<Health, SmartError>> {
    let waiting = Mutex::new(names.iter());
    let answers = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(names.len()) {
            scope.spawn(|| {
                loop {
                    let Ok(Some(name)) = waiting.lock().map(|mut waiting| waiting.next()) else { return };
                    let answer = ask(runner, &format!("/dev/{name}"));
                    if let Ok(mut answers) = answers.lock() {
                        answers.insert(name.clone(), answer);
                    }
                }
            });
        }
    });
    answers.into_inner().unwrap_or_default()
}

/// The figures in a document of smartctl 7.0 or later.
fn read(document: &Value) -> Health {
    let number = |pointer: &str| document.pointer(pointer).and_then(Value::as_u64);
    let attributes = document.pointer("/ata_smart_attributes/table").and_then(Value::as_array);
    let attribute = |id: u64| {
        let found = attributes?.iter().find(|row| row.get("id").and_then(Value::as_u64) == Some(id))?;
        found.pointer("/raw/value")?.as_u64()
    };
    Health {
        passed: document.pointer("/smart_status/passed").and_then(Value::as_bool),
        reallocated_sectors: attribute(5).or_else(|| number("/scsi_grown_defect_list")),
        pending_sectors: attribute(197).or_else(|| number("/scsi_pending_defects/count")),
        // Solid-state disks often have 187, uncorrectable errors reported to the host, instead of 198.
        uncorrectable_sectors: attribute(198).or_else(|| attribute(187)).or_else(|| scsi_uncorrected(document)),
        media_errors: number("/nvme_smart_health_information_log/media_errors"),
        percentage_used: number("/nvme_smart_health_information_log/percentage_used")
            .or_else(|| number("/scsi_percentage_used_endurance_indicator"))
            .or_else(|| number("/endurance_used/current_percent"))
            .or_else(|| ata_statistic(document, "Percentage Used Endurance Indicator")),
        temperature_celsius: number("/temperature/current"),
        critical_warning: number("/nvme_smart_health_information_log/critical_warning"),
    }
}

/// Errors of reads, writes and verifies that the disk could not correct.
fn scsi_uncorrected(document: &Value) -> Option<u64> {
    let log = document.get("scsi_error_counter_log")?;
    let counts = ["read", "write", "verify"]
        .into_iter()
        .filter_map(|kind| log.get(kind)?.get("total_uncorrected_errors")?.as_u64());
    Some(counts.fold(0, u64::saturating_add))
}

fn ata_statistic(document: &Value, name: &str) -> Option<u64> {
    let pages = document.pointer("/ata_device_statistics/pages")?.as_array()?;
    let mut rows = pages.iter().filter_map(|page| page.get("table")?.as_array()).flatten();
    rows.find(|row| row.get("name").and_then(Value::as_str) == Some(name))?.get("value")?.as_u64()
}

impl Health {
    /// What is worse than `limits` allow, each with both numbers.
    pub fn breaches(&self, limits: &SmartLimits) -> Vec<String> {
        let mut breaches = Vec::new();
        if self.passed == Some(false) {
            breaches.push("the disk itself reports that it is failing (SMART status)".to_owned());
        }
        if let Some(bits) = self.critical_warning.filter(|bits| *bits != 0) {
            breaches.push(format!("NVMe critical warning 0x{bits:02x}"));
        }
        let figures = [
            ("reallocated sectors", self.reallocated_sectors, limits.reallocated_sectors),
            ("pending sectors", self.pending_sectors, limits.pending_sectors),
            ("uncorrectable sectors", self.uncorrectable_sectors, limits.uncorrectable_sectors),
            ("media errors", self.media_errors, limits.media_errors),
            ("percent of endurance used", self.percentage_used, limits.percentage_used),
            ("degrees Celsius", self.temperature_celsius, limits.temperature_celsius),
        ];
        for (what, value, limit) in figures {
            if let (Some(value), Some(limit)) = (value, limit)
                && value > limit
            {
                breaches.push(format!("{value} {what}, the limit is {limit}"));
            }
        }
        breaches
    }
}
