//! `admin catalog`: copies of the catalog, and the catalog made again from the disks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Args, Subcommand};
use holdfast_volume_manager_client::{RebuildState, RebuildStatus};
use holdfast_volume_manager_server::{Config, copies};
use serde::Serialize;

use super::cell::{BeforeCommand, Cell, CellTarget};
use crate::outcome::usage;
use crate::show;

/// Between two looks at a rebuild.
const LOOK: Duration = Duration::from_millis(500);

/// A volume manager that begins another term during a rebuild answers again within this.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
pub enum CatalogCommand {
    /// Make the whole catalog again from the disks: volumes, blocks, keys
    ///
    /// For a catalog that was lost or restored, and for disks that come back with volumes that it does not know. Start all nodes
    /// first. While it runs nothing is leased, so writes stop; blocks that the catalog knows are read. Nothing is removed from
    /// any disk. When it stops before its end, run it again.
    #[command(
        after_help = "Exit codes: 0 every volume was taken in, 1 some could not be, or nodes or disks that the catalog knows were \
                            not read (the report is printed all the same), or it stopped, 2 usage, 3 unreachable."
    )]
    Rebuild(RebuildOptions),
    /// Copy the catalog into a new folder, also while the cell is in use; run it on the volume manager's machine
    Backup(BackupOptions),
    /// Put a copy back; run it on the volume manager's machine, with volume manager and frontends stopped
    ///
    /// What was written since the copy was made is not in it: start the volume manager and all nodes afterwards, and run
    /// `holdfast admin catalog rebuild`, which finds it on the disks. Until then nothing is leased.
    Restore(RestoreOptions),
}

#[derive(Args)]
pub struct RebuildOptions {
    #[command(flatten)]
    pub target: CellTarget,
    /// Only tell how far it is
    #[arg(long)]
    pub status: bool,
}

/// Whose catalog is meant, and how the command answers.
#[derive(Args)]
pub struct CatalogPlace {
    /// The cell that `holdfast dev --data DIR` runs, or ran
    #[arg(long, value_name = "DIR", conflicts_with = "volume_manager")]
    pub dev: Option<PathBuf>,
    /// The volume manager's configuration
    #[arg(long, value_name = "FILE")]
    pub volume_manager: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct BackupOptions {
    /// New folder for the copy
    #[arg(value_name = "FOLDER")]
    pub into: PathBuf,
    #[command(flatten)]
    pub place: CatalogPlace,
}

#[derive(Args)]
pub struct RestoreOptions {
    /// Folder of the copy
    #[arg(value_name = "FOLDER")]
    pub from: PathBuf,
    /// Move a catalog that stands there aside, into a folder beside it
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub place: CatalogPlace,
}

pub fn run(before: &BeforeCommand, command: CatalogCommand) -> anyhow::Result<()> {
    match command {
        CatalogCommand::Rebuild(options) => {
            super::on(before, &options.target.clone(), |cell| rebuild(cell, options.status))
        }
        CatalogCommand::Backup(options) => {
            let backup = copies::back_up(&configuration(before, &options.place)?, &options.into)?;
            let bytes = show::bytes(backup.index.bytes + backup.table.bytes);
            let text = format!("copied into {}: {bytes}\n", options.into.display());
            answer(before.json || options.place.json, &backup, &text)
        }
        CatalogCommand::Restore(options) => {
            let restored = copies::restore(&configuration(before, &options.place)?, &options.from, options.replace)?;
            let mut text = String::from(
                "restored. Start the volume manager and all nodes, then run `holdfast admin catalog rebuild`: what was \
                 written since the copy was made is on the disks\n",
            );
            if let Some(aside) = &restored.replaced {
                text.push_str(&format!("what stood there before is in {}\n", aside.display()));
            }
            answer(before.json || options.place.json, &restored, &text)
        }
    }
}

fn configuration(before: &BeforeCommand, place: &CatalogPlace) -> anyhow::Result<Config> {
    if before.config.is_some() {
        return Err(usage(
            "--config names an operator's configuration; the volume manager's goes with --volume-manager",
        ));
    }
    let named = |folder: &PathBuf| folder.join("etc/volume-manager.toml");
    let environment = || std::env::var_os("HOLDFAST_DEV").filter(|value| !value.is_empty()).map(PathBuf::from);
    let dev = place.dev.clone().or_else(|| before.dev.clone());
    let file = match (&place.volume_manager, dev) {
        (Some(file), _) => file.clone(),
        (None, Some(folder)) => named(&folder),
        (None, None) => match environment() {
            Some(folder) => named(&folder),
            None => return Err(usage("say whose catalog: --volume-manager FILE, its configuration, or --dev DIR")),
        },
    };
    Ok(Config::load(Path::new(&file))?)
}

fn answer(json: bool, document: &impl Serialize, text: &str) -> anyhow::Result<()> {
    if json { show::line(&serde_json::to_string_pretty(document)?) } else { show::text(text) }
}

async fn rebuild(cell: Cell, only_status: bool) -> anyhow::Result<()> {
    let volume_manager = cell.volume_manager();
    if only_status {
        let status = volume_manager.rebuild_status().await?;
        return cell.answer(&status, || report(&status));
    }
    let mut status = volume_manager.rebuild().await?;
    let bar = show::progress_of(0, "reading the disks");
    let mut heard = Instant::now();
    while status.state == RebuildState::Running {
        tokio::time::sleep(LOOK).await;
        match volume_manager.rebuild_status().await {
            Ok(now) => (status, heard) = (now, Instant::now()),
            Err(error) if heard.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => continue,
        }
        bar.set_length(status.volumes);
        bar.set_position(status.volumes_done);
        bar.set_message(status.detail.clone());
    }
    bar.finish_and_clear();
    cell.answer(&status, || report(&status))?;
    match (status.state, status.not_recovered_total) {
        (RebuildState::Done, 0) if status.not_reached.is_empty() => Ok(()),
        (RebuildState::Done, 0) => bail!("{}", unread(&status)),
        (RebuildState::Done, left) => {
            bail!("not recovered now: {}; what the disks hold of that stays as it is", show::count(left, "volume"))
        }
        (RebuildState::None, _) => {
            bail!("another volume manager leads now, and the rebuild has not ended: run it again")
        }
        _ => bail!("the rebuild stopped before its end, and can be run again: {}", status.detail),
    }
}

/// The whole status as text.
fn report(status: &RebuildStatus) -> String {
    let lost = status.lost.as_ref().map(|lost| ("catalog", format!("not whole: {lost}")));
    let text = |(name, value): &(&str, String)| format!("{name:<15} {value}\n");
    let state = match status.state {
        RebuildState::None => {
            let none = ("rebuild", "none was begun since this volume manager began to lead".to_owned());
            return [none].iter().chain(&lost).map(text).collect();
        }
        RebuildState::Running => "running",
        RebuildState::Done => "done",
        RebuildState::Stopped => "stopped",
    };
    let left = status.seconds_left.map(|left| format!(", about {} left", show::duration(left as f64)));
    let [disks, nodes, keys] = [(status.disks, "disk"), (status.nodes, "node"), (status.keys, "key")]
        .map(|(number, what)| show::count(number, what));
    let volumes = |number| show::count(number, "volume");
    let mut rows = vec![
        ("rebuild", format!("{state} after {}{}", show::duration(status.seconds as f64), left.unwrap_or_default())),
        ("read", format!("{disks} of {nodes}, {keys}")),
        (
            "volumes",
            format!(
                "{} of {} looked at; {} were not in the catalog as the disks have them, {} were open and are sealed",
                status.volumes_done, status.volumes, status.taken_in, status.sealed
            ),
        ),
        ("blocks", format!("{} in the index; {} records were added", status.blocks, status.records)),
        ("to be repaired", format!("{} with too few replicas", volumes(status.short_of_replicas))),
        ("not recovered", volumes(status.not_recovered_total)),
    ];
    if !status.detail.is_empty() {
        rows.insert(1, ("", status.detail.clone()));
    }
    rows.extend(lost);
    let not_reached: u64 = status.not_reached.iter().map(|unread| unread.disks.len() as u64).sum();
    if !status.not_reached.is_empty() {
        rows.push(("NOT READ", format!("{} that the catalog knows", show::count(not_reached, "disk"))));
    }
    let mut out: String = rows.iter().map(text).collect();
    for volume in &status.not_recovered {
        out.push_str(&format!("  volume {}: {}\n", volume.volume, volume.why));
    }
    for unread in &status.not_reached {
        let disks: Vec<String> = unread.disks.iter().map(ToString::to_string).collect();
        out.push_str(&format!("  node {}: {} (disks: {})\n", unread.node, show::name(&unread.why), disks.join(", ")));
    }
    out
}

/// What to do about nodes and disks that were not read.
fn unread(status: &RebuildStatus) -> String {
    let mut nodes: Vec<&str> = status.not_reached.iter().map(|unread| unread.node.0.as_str()).collect();
    nodes.dedup();
    format!(
        "the catalog is in service again, but disks of {} were not read: what only they have is not in it. Start them and run this \
         again; those that are gone for good go off the inventory with `disk forget` or `node forget`",
        nodes.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, NodeId};
    use holdfast_volume_manager_client::{NotReached, RebuildState, RebuildStatus};

    use super::{report, unread};

    #[test]
    fn nodes_that_were_not_read_are_named_with_their_disks_and_what_to_do() {
        let disk = DiskId([7; 16]);
        let away =
            NotReached { node: NodeId("node-5".to_owned()), disks: vec![disk], why: "the node is down".to_owned() };
        let status = RebuildStatus { state: RebuildState::Done, not_reached: vec![away], ..RebuildStatus::default() };
        let text = report(&status);
        assert!(text.contains("NOT READ        1 disk that the catalog knows\n"), "{text}");
        assert!(text.contains(&format!("  node node-5: the node is down (disks: {disk})\n")), "{text}");
        let said = unread(&status);
        assert!(said.contains("disks of node-5 were not read") && said.contains("run this again"), "{said}");
        let whole = RebuildStatus { state: RebuildState::Done, ..RebuildStatus::default() };
        assert!(!report(&whole).contains("NOT READ"));
    }

    #[test]
    fn where_no_rebuild_was_begun_that_is_said_and_nothing_is_counted() {
        let none = "rebuild         none was begun since this volume manager began to lead\n";
        assert_eq!(report(&RebuildStatus::default()), none);
        let lost = RebuildStatus { lost: Some("it is new".to_owned()), ..RebuildStatus::default() };
        assert_eq!(report(&lost), format!("{none}catalog         not whole: it is new\n"));
    }
}
