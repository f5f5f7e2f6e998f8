//! `admin repair`: what is to be repaired, and how much clients may feel of it.

use clap::{Args, Subcommand};
use holdfast_volume_manager_client::{RepairOrder, RepairStatus};

use super::cell::{Cell, CellTarget};
use crate::show::{self, Table};

#[derive(Subcommand)]
pub enum RepairCommand {
    /// What is to be repaired by risk, how fast it goes, what waits and why
    Status(CellTarget),
    /// Begin no more copies until `resume`; those under way come to their end
    Pause(PauseOptions),
    /// Go on after `pause`
    Resume(CellTarget),
    /// How much clients may feel of repair
    Set(SetOptions),
}

#[derive(Args)]
pub struct PauseOptions {
    #[command(flatten)]
    pub target: CellTarget,
    /// Why, for whoever looks later
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Args)]
pub struct SetOptions {
    #[command(flatten)]
    pub target: CellTarget,
    /// How much longer the foreground's 99th percentile may take, percent, at most 1000000; 0: copies only while a disk is idle,
    /// but for a hundredth of its time; or `unlimited`, or `configured` for what the volume manager's configuration says. Half of
    /// a disk's time is always there for volumes with one replica left
    #[arg(long, value_name = "PERCENT")]
    pub max_client_impact: String,
}

impl RepairCommand {
    pub fn target(&self) -> CellTarget {
        match self {
            Self::Status(target) | Self::Resume(target) => target.clone(),
            Self::Pause(options) => options.target.clone(),
            Self::Set(options) => options.target.clone(),
        }
    }
}

pub async fn run(cell: Cell, command: RepairCommand) -> anyhow::Result<()> {
    let volume_manager = cell.volume_manager();
    let order = RepairOrder { by: who(), ..RepairOrder::default() };
    let status = match command {
        RepairCommand::Status(_) => volume_manager.repair().await?,
        RepairCommand::Pause(options) => {
            let order = RepairOrder { action: Some("pause".to_owned()), reason: options.reason, ..order };
            volume_manager.order_repair(&order).await?
        }
        RepairCommand::Resume(_) => {
            volume_manager.order_repair(&RepairOrder { action: Some("resume".to_owned()), ..order }).await?
        }
        RepairCommand::Set(options) => {
            let max_client_impact = Some(options.max_client_impact);
            volume_manager.order_repair(&RepairOrder { max_client_impact, ..order }).await?
        }
    };
    cell.answer(&status, || screen(&status))
}

/// Who runs this, as whoever looks later would ask for them: `USER@HOST`, with `sudo` the one who used it.
fn who() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let uid = nix::unistd::getuid();
    let known = || nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    let user = named("SUDO_USER").or_else(known).unwrap_or_else(|| format!("user {uid}"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    by(&user, host.trim())
}

/// As much of it as an order takes; a login and a host name are shorter.
fn by(user: &str, host: &str) -> String {
    let short = |text: &str| text.chars().take(60).collect::<String>();
    if host.is_empty() { short(user) } else { format!("{}@{}", short(user), short(host)) }
}

fn screen(status: &RepairStatus) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<14} {}\n", show::name(&value)));
    if let Some(why) = &status.catalog_lost {
        line("NOT ALL KNOWN", why.clone());
    }
    let state = match &status.paused {
        Some(pause) => {
            let reason = pause.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let by = if pause.by.is_empty() { "somebody who gave no name" } else { &pause.by };
            let ago = show::duration(pause.since_s_ago as f64);
            let since = match pause.since_ms {
                // Of an older volume manager.
                0 => String::new(),
                moment => format!(" since {},", show::moment(moment)),
            };
            format!("paused by {by}{since} {ago} ago{reason}")
        }
        None if status.to_repair.is_empty() && status.waiting.is_empty() => match status.catalog_lost {
            Some(_) => "nothing to repair of what the catalog knows".to_owned(),
            None => "nothing to repair".to_owned(),
        },
        None if status.under_way.is_empty() => {
            let volumes: u64 = status.waiting.iter().map(|wait| wait.volumes).sum();
            let lack = if volumes == 1 { "lacks a replica and waits" } else { "lack a replica and wait" };
            format!("nothing is copied now: {} {lack}, see below", show::count(volumes, "volume"))
        }
        None if status.under_way.len() == 1 => "1 copy under way".to_owned(),
        None => format!("{} copies under way", status.under_way.len()),
    };
    line("repair", state);
    line(
        "client impact",
        status.max_client_impact.map_or("unlimited".to_owned(), |percent| format!("at most {percent} %")),
    );
    for (risk, found) in &status.to_repair {
        let what = if risk == "unreadable" { risk.clone() } else { format!("can lose {risk}") };
        line(&what, format!("{}, {} to copy", show::count(found.volumes, "volume"), show::bytes(found.bytes)));
    }
    // Of the copies made of late: it tells nothing of what stands.
    if let Some(rate) = status.bytes_per_s.filter(|_| !status.under_way.is_empty()) {
        let but = if status.waiting.is_empty() { "" } else { ", but for what waits for more than its turn" };
        let eta = status.eta_s.map(|eta| format!(", done in {} at that rate{but}", show::duration(eta as f64)));
        let eta = eta.unwrap_or_default();
        line("rate", format!("{}/s{eta}", show::bytes(rate)));
    }
    for warning in &status.warnings {
        line("WARNING", warning.clone());
    }
    let mut waiting = Table::new(["WAITS FOR", "VOLUMES", "BYTES"]);
    for wait in &status.waiting {
        waiting.row([&wait.why, &wait.volumes.to_string(), &show::bytes(wait.bytes)]);
    }
    let mut copies = Table::new(["COPY OF", "FROM", "TO", "BYTES", "FOR"]);
    for copy in &status.under_way {
        let [volume, from, to] = [copy.volume.to_string(), copy.from.to_string(), copy.to.to_string()];
        copies.row([&volume, &from, &to, &show::bytes(copy.bytes), &format!("{} s", copy.for_s)]);
    }
    let ms = |us: Option<u64>| us.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0));
    let mut disks = Table::new(["DISK", "NODE", "P99 NOW", "USUAL P99", "COPIES BORNE"]);
    for row in status.disks.iter().filter(|row| row.pace.recent_p99_us.is_some()) {
        let level = format!("{:.2}", f64::from(row.pace.level_percent) / 100.0);
        let [now, usual] = [ms(row.pace.recent_p99_us), ms(row.pace.usual_p99_us)];
        disks.row([&row.disk.to_string(), &row.node.0, &now, &usual, &level]);
    }
    for table in [waiting, copies, disks] {
        if !table.is_empty() {
            out.push_str(&format!("\n{table}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use holdfast_volume_manager_client::{RepairPause, RepairRisk, RepairStatus, RepairWait};

    use super::{by, screen};

    #[test]
    fn the_screen_says_what_is_at_risk_what_waits_for_what_and_who_paused_it() {
        let risk = RepairRisk { volumes: 3, bytes: 3 << 30 };
        let pause = RepairPause {
            by: by("ann", "desk"),
            reason: Some("racks".to_owned()),
            since_s_ago: 65,
            since_ms: 1_800_000_000_000,
        };
        let status = RepairStatus {
            catalog_lost: None,
            paused: Some(pause),
            max_client_impact: None,
            to_repair: BTreeMap::from([("0".to_owned(), risk)]),
            bytes_left: 3 << 30,
            bytes_per_s: Some(100 << 20),
            eta_s: None,
            under_way: Vec::new(),
            waiting: vec![RepairWait { why: "repair is paused".to_owned(), volumes: 3, bytes: 3 << 30 }],
            disks: Vec::new(),
            warnings: vec!["3 volumes have one replica left".to_owned()],
        };
        let text = screen(&status);
        for line in [
            "repair         paused by ann@desk since 2027-01-15T08:00:00Z, 1 min 5 s ago: racks\n",
            "client impact  unlimited\n",
            "can lose 0     3 volumes, 3.0 GiB to copy\n",
            "WARNING        3 volumes have one replica left\n",
            "repair is paused  3        3.0 GiB\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
        assert!(!text.contains("100.0 MiB/s"), "nothing is copied now: {text}");
    }

    #[test]
    fn volumes_that_wait_for_a_disk_are_told_though_nothing_is_to_be_copied_yet() {
        let wait = |why: &str, volumes| RepairWait { why: why.to_owned(), volumes, bytes: 1 << 30 };
        let mut status = RepairStatus {
            catalog_lost: None,
            paused: None,
            max_client_impact: Some(50),
            to_repair: BTreeMap::new(),
            bytes_left: 0,
            bytes_per_s: None,
            eta_s: None,
            under_way: Vec::new(),
            waiting: vec![wait("disk a, which may come back", 4), wait("disk b, which is offline", 3)],
            disks: Vec::new(),
            warnings: Vec::new(),
        };
        let text = screen(&status);
        assert!(
            text.contains("nothing is copied now: 7 volumes lack a replica and wait") && text.contains("disk b, which")
        );
        status.waiting.clear();
        assert!(screen(&status).contains("nothing to repair\n"));
        status.catalog_lost = Some("the catalog is not whole (it is new)".to_owned());
        let text = screen(&status);
        assert!(text.starts_with("NOT ALL KNOWN  the catalog is not whole (it is new)\n"), "{text}");
        assert!(text.contains("nothing to repair of what the catalog knows\n"), "{text}");
    }
}
