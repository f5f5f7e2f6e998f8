//! The operator's commands.

use holdfast_libs_transport::{HttpClient, tls};
use holdfast_volume_manager_client::{CellStatus, DurabilityAnswer, DurabilityAsk, VolumeManagerClient};

use crate::arguments::{AdminCommand, BeforeCommand, DiskCommand, DurabilityOptions, Target};
use crate::outcome::usage;
use crate::{disk, profile, show};

/// Runs an operator's command.
pub fn run(before: BeforeCommand, command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status(mut target) => {
            target.dev = before.dev.or(target.dev);
            target.json |= before.json;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(status(&target))
        }
        AdminCommand::Durability(mut options) => {
            options.target.dev = before.dev.or(options.target.dev);
            options.target.json |= before.json;
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(durability(&options))
        }
        AdminCommand::Disk { .. } if before.dev.is_some() => {
            Err(usage("--dev names a cell; a disk is formatted on its own machine, without one"))
        }
        AdminCommand::Disk { command: DiskCommand::Format(mut options) } => {
            options.json |= before.json;
            disk::format(&options)
        }
    }
}

fn volume_manager(target: &Target) -> anyhow::Result<VolumeManagerClient> {
    let Some(folder) = &target.dev else {
        return Err(usage("name the cell: --dev DIR, or set HOLDFAST_DEV"));
    };
    let dev = profile::dev_json(folder)?;
    let ca = tls::client_config(profile::text(&dev, "ca_cert")?.as_ref())?;
    let http = HttpClient::new(&ca, Some(&profile::text(&dev, "admin_token")?));
    Ok(VolumeManagerClient::new(http, profile::text(&dev, "volume_manager")?))
}

async fn status(target: &Target) -> anyhow::Result<()> {
    let status = volume_manager(target)?.status().await?;
    if target.json {
        show::line(&serde_json::to_string_pretty(&status)?)?;
    } else {
        show::text(&screen(&status))?;
    }
    Ok(())
}

async fn durability(options: &DurabilityOptions) -> anyhow::Result<()> {
    let ask = DurabilityAsk {
        yearly_failures: options.yearly_failures,
        unreadable_bits: options.unreadable_bits,
        repair_bytes_s: options.repair_rate.map(|rate| rate.0 as f64),
        full: options.full,
    };
    let answer = volume_manager(&options.target)?.durability(&ask).await?;
    if options.target.json { show::line(&serde_json::to_string_pretty(&answer)?) } else { show::text(&paper(&answer)) }
}

/// The model's answer, then what it was computed from.
fn paper(answer: &DurabilityAnswer) -> String {
    let rows = [
        ("first loss of a volume", format!("after {} years on average", number(answer.mean_years_to_loss))),
        ("any loss within a year", format!("chance {}", number(answer.yearly_loss))),
        ("a volume's year", format!("{:.1} nines", answer.nines)),
        ("repair of a disk", format!("{} h, its detection included", number(answer.repair_s / 3600.0))),
        (
            "two disks at once",
            format!(
                "{} volumes shared, down to one replica for {} h",
                number(answer.shared_by_two),
                number(answer.urgent_repair_s / 3600.0)
            ),
        ),
        ("a third disk then", format!("has a last replica with chance {}", number(answer.third_disk_matters))),
        ("a last replica", format!("cannot be read with chance {}", number(answer.last_replica_unreadable))),
    ];
    let mut out: String = rows.iter().map(|(name, value)| format!("{name:<23} {value}\n")).collect();
    let mut inputs = vec![row(&["INPUT", "VALUE", "UNIT", "FROM"])];
    for input in &answer.inputs {
        inputs.push(row(&[&input.name, &number(input.value), &input.unit, &input.source]));
    }
    out.push('\n');
    out.push_str(&show::table(&inputs));
    out
}

/// Three digits, whatever the size.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// The whole status on one screen.
fn screen(status: &CellStatus) -> String {
    let mut out = format!("health   {}\n", status.health);
    for reason in &status.reasons {
        out.push_str(&format!("         {reason}\n"));
    }
    let can_lose = |n: &str| status.volumes.can_lose.get(n).copied().unwrap_or(0);
    out.push_str(&format!(
        "volumes  {} in all; can lose 2 more disks: {}, 1: {}, none: {}\n\n",
        status.volumes.total,
        can_lose("2"),
        can_lose("1"),
        can_lose("0"),
    ));
    let mut nodes = vec![row(&["NODE", "ZONE", "STATE", "ADDRESS"])];
    nodes.extend(status.nodes.iter().map(|node| row(&[&node.node.0, &node.zone, &node.state, &node.address])));
    out.push_str(&show::table(&nodes));
    let mut disks = vec![row(&["DISK", "NODE", "STATE", "FREE", "SIZE", "VOLUMES", "PATH"])];
    for disk in &status.disks {
        disks.push(row(&[
            &disk.disk.to_string(),
            &disk.node.0,
            &disk.state,
            &show::bytes(disk.free_slots * disk.slot_bytes),
            &show::bytes(disk.slots * disk.slot_bytes),
            &disk.volumes.to_string(),
            &disk.path,
        ]));
    }
    out.push('\n');
    out.push_str(&show::table(&disks));
    let mut unusable = vec![row(&["NOT IN USE", "NODE", "WHY"])];
    for node in &status.nodes {
        unusable.extend(node.unusable.iter().map(|disk| row(&[&disk.path, &node.node.0, &disk.reason])));
    }
    if unusable.len() > 1 {
        out.push('\n');
        out.push_str(&show::table(&unusable));
    }
    if !status.work.is_empty() {
        let mut work = vec![row(&["WORK", "VOLUME", "DETAIL"])];
        work.extend(status.work.iter().map(|work| row(&[&work.kind, &work.volume.to_string(), &work.detail])));
        out.push('\n');
        out.push_str(&show::table(&work));
    }
    out
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_of_any_size_have_about_three_digits() {
        let shown = [0.0, 4.2e-9, 0.02, 3.06, 900.0, 16e12].map(number);
        assert_eq!(shown, ["0", "4.20e-9", "0.020", "3.1", "900", "1.60e13"]);
    }
}
