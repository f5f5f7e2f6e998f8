//! Memory and CPU time of the daemons, from `/proc`.

use serde_json::{Value, json};

/// One daemon's use.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Its name in `dev.json`.
    pub name: String,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// User and system time so far, seconds.
    pub cpu_s: f64,
}

/// All daemons of a `dev.json` that live.
pub fn usage(dev: &Value) -> Vec<Usage> {
    let daemons = dev["daemons"].as_array().cloned().unwrap_or_default();
    daemons
        .iter()
        .filter_map(|daemon| {
            let pid = daemon["pid"].as_u64()?;
            let name = daemon["name"].as_str()?.to_owned();
            Some(Usage { name, resident_bytes: resident(pid)?, cpu_s: cpu(pid)? })
        })
        .collect()
}

fn resident(pid: u64) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

fn cpu(pid: u64) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 of proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(ticks as f64 / per_second as f64)
}

/// Memory now, and CPU seconds since `before`.
pub fn report(before: &[Usage], after: &[Usage]) -> Value {
    after
        .iter()
        .map(|usage| {
            let earlier = before.iter().find(|earlier| earlier.name == usage.name).map_or(0.0, |earlier| earlier.cpu_s);
            json!({
                "name": usage.name,
                "resident_mib": usage.resident_bytes >> 20,
                "cpu_s": ((usage.cpu_s - earlier) * 100.0).round() / 100.0,
            })
        })
        .collect()
}
