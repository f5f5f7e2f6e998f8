//! The operator's commands.

use holdfast_libs_transport::{HttpClient, tls};
use holdfast_volume_manager_client::{CellStatus, VolumeManagerClient};

use crate::arguments::{AdminCommand, BeforeCommand, DiskCommand, Target};
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
        let state = match &disk.reason {
            Some(reason) => format!("{} ({reason})", disk.state),
            None => disk.state.clone(),
        };
        disks.push(row(&[
            &disk.disk.to_string(),
            &disk.node.0,
            &state,
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
