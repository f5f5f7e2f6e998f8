//! `admin volume`: volumes, where they are and why they are as they are.

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use holdfast_node_client::{ExtentInfo, ExtentState};
use holdfast_volume_manager_client::{ReplicaDetail, VolumeDetail, VolumePage, VolumeQuery};
use serde::Serialize;
use serde_json::json;

use super::cell::{BeforeCommand, Cell, CellTarget};
use super::{names, on};
use crate::outcome;
use crate::show::{self, Table};

#[derive(Subcommand)]
pub enum VolumeCommand {
    /// List volumes, as they come: a cell may have millions
    Ls(VolumeFilter),
    /// One volume: its replicas and what each is worth, what it can lose, what is being done with it
    Show(NamedVolume),
}

#[derive(Args)]
pub struct VolumeFilter {
    /// Only those with a replica on this disk (its id, the beginning of it, or NODE:PATH)
    #[arg(long)]
    pub disk: Option<String>,
    /// Only those with a replica on this node
    #[arg(long)]
    pub node: Option<String>,
    /// Only those with a replica in this zone
    #[arg(long)]
    pub zone: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = ["creating", "open", "sealing", "sealed", "failed"])]
    pub state: Option<String>,
    /// Only those that could not lose two more disks
    #[arg(long)]
    pub at_risk: bool,
    /// No more than so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub target: CellTarget,
}

#[derive(Args)]
pub struct NamedVolume {
    /// Id of the volume, or the beginning of it
    pub volume: String,
    #[command(flatten)]
    pub target: CellTarget,
}

pub fn run(before: &BeforeCommand, command: VolumeCommand) -> anyhow::Result<()> {
    match command {
        VolumeCommand::Ls(filter) => on(before, &filter.target, |cell| ls(cell, &filter)),
        VolumeCommand::Show(options) => on(before, &options.target, |cell| show(cell, &options.volume)),
    }
}

async fn ls(cell: Cell, filter: &VolumeFilter) -> anyhow::Result<()> {
    let mut query = VolumeQuery { state: filter.state.clone(), at_risk: filter.at_risk, ..VolumeQuery::default() };
    if filter.disk.is_some() || filter.node.is_some() || filter.zone.is_some() {
        let inventory = cell.volume_manager().inventory().await?;
        query.disk = filter.disk.as_ref().map(|disk| names::disk(&inventory, disk)).transpose()?.map(|disk| disk.disk);
        query.node =
            filter.node.as_ref().map(|node| names::node(&inventory, node)).transpose()?.map(|node| node.node.clone());
        query.zone = filter.zone.as_ref().map(|zone| names::zone(&inventory, zone)).transpose()?;
    }
    let mut page = cell.volume_manager().find_volumes(&query).await?;
    // From here on stdout has begun: under --json the document is ended whatever comes.
    let (left, catalog_lost) = (filter.limit.unwrap_or(u64::MAX), page.catalog_lost.clone());
    let mut listing = Listing { json: cell.json(), left, first: true, catalog_lost };
    loop {
        let next = page.next;
        if !listing.page(page)? {
            return Ok(());
        }
        let Some(next) = next.filter(|_| listing.left > 0) else { return listing.end(None) };
        query.after = Some(next);
        page = match cell.volume_manager().find_volumes(&query).await {
            Ok(page) => page,
            Err(error) => {
                listing.end(Some(&error.to_string()))?;
                return Err(error.into());
            }
        };
    }
}

/// A listing that is printed while it is fetched, so that it is never in memory as a whole.
struct Listing {
    json: bool,
    /// Volumes that may still be printed.
    left: u64,
    first: bool,
    /// Why the catalog does not know all volumes.
    catalog_lost: Option<String>,
}

impl Listing {
    /// Prints a page; false when nobody reads on.
    fn page(&mut self, page: VolumePage) -> anyhow::Result<bool> {
        let shown = usize::try_from(self.left).unwrap_or(usize::MAX).min(page.volumes.len());
        self.left -= shown as u64;
        let volumes = &page.volumes[..shown];
        let mut out = String::new();
        if self.json {
            for (at, volume) in volumes.iter().enumerate() {
                out.push_str(if self.first && at == 0 { "{\"volumes\": [\n" } else { ",\n" });
                out.push_str(&serde_json::to_string(volume)?);
            }
            self.first &= volumes.is_empty();
        } else if self.first || !volumes.is_empty() {
            let text = table(volumes).to_string();
            if let Some(why) = self.catalog_lost.as_ref().filter(|_| self.first) {
                out.push_str(&format!("NOT ALL VOLUMES ARE KNOWN: {}\n\n", show::name(why)));
            }
            // One heading for all pages.
            out.push_str(if self.first { &text } else { text.split_once('\n').map_or("", |(_, rows)| rows) });
            self.first = false;
        }
        show::more(&out)
    }

    fn end(&self, error: Option<&str>) -> anyhow::Result<()> {
        if !self.json {
            return Ok(());
        }
        let begin = if self.first { "{\"volumes\": [" } else { "" };
        let lost = format!(", \"catalog_lost\": {}", json!(self.catalog_lost));
        let error = error.map(|error| format!(", \"error\": {}", json!(error))).unwrap_or_default();
        show::line(&format!("{begin}\n]{lost}{error}}}"))
    }
}

/// What a volume can lose, in words.
fn can_lose(volume: &VolumeDetail) -> String {
    match volume.can_lose {
        None => "-".to_owned(),
        Some(_) if volume.unreadable => "UNREADABLE".to_owned(),
        Some(more) => more.to_string(),
    }
}

fn table(volumes: &[VolumeDetail]) -> Table {
    let mut table = Table::new(["VOLUME", "STATE", "CAN LOSE", "LENGTH", "ON", "NOTE"]);
    for volume in volumes {
        let on: Vec<&str> = volume.replicas.iter().map(|replica| replica.node.0.as_str()).collect();
        table.row([
            &format!("{:<32}", volume.volume),
            &format!("{:<8}", volume.state),
            &can_lose(volume),
            &format!("{:<10}", volume.length.map_or("-".to_owned(), show::bytes)),
            &on.join(", "),
            volume.work.as_deref().unwrap_or(""),
        ]);
    }
    table
}

/// What a replica's node holds of it.
#[derive(Serialize)]
struct Held<'a> {
    #[serde(flatten)]
    replica: &'a ReplicaDetail,
    extent: Option<ExtentInfo>,
    node_error: Option<String>,
}

async fn show(cell: Cell, text: &str) -> anyhow::Result<()> {
    let volume = names::volume(&cell, text).await?;
    let (cell, id) = (&cell, volume.volume);
    let asked = volume.replicas.iter().map(|replica| async move {
        match cell.ask(&replica.address).extent(replica.disk, id).await {
            Ok(extent) => Held { replica, extent: Some(extent), node_error: None },
            Err(error) => Held { replica, extent: None, node_error: Some(outcome::of_node(error)) },
        }
    });
    let held = join_all(asked).await;
    cell.answer(&json!({"volume": volume, "replicas": held}), || page(&volume, &held))
}

fn page(volume: &VolumeDetail, held: &[Held<'_>]) -> String {
    let line = |name: &str, value: &str| format!("{name:<10} {}\n", show::name(value));
    let mut out = line("volume", &volume.volume.to_string());
    out.push_str(&line("state", &format!("{}, epoch {}", volume.state, volume.epoch)));
    if let Some(reason) = &volume.reason {
        out.push_str(&line("why", reason));
    }
    let more = match volume.can_lose {
        None => "nothing: it holds nothing".to_owned(),
        Some(_) if volume.unreadable => "UNREADABLE: no replica can be read now".to_owned(),
        Some(0) => "no more disk".to_owned(),
        Some(1) => "1 more disk".to_owned(),
        Some(more) => format!("{more} more disks"),
    };
    out.push_str(&line("can lose", &more));
    if let Some(work) = &volume.work {
        out.push_str(&line("work", work));
    }
    let length = volume.length.map_or("not settled before its seal".to_owned(), |length| {
        format!("{} ({length} bytes) of {}", show::bytes(length), show::bytes(volume.capacity))
    });
    out.push_str(&line("length", &length));
    if let Some(digest) = &volume.digest {
        out.push_str(&line("digest", digest));
    }
    let mut table = Table::new(["REPLICA ON", "NODE", "ZONE", "DISK IS", "HOLDS", "PATH", "NOTE"]);
    for one in held {
        let replica = one.replica;
        table.row([
            &replica.disk.to_string(),
            &replica.node.0,
            &replica.zone,
            &replica.state,
            &holds(volume, one),
            &replica.path,
            replica.reason.as_deref().unwrap_or(""),
        ]);
    }
    out.push_str(&format!("\n{table}"));
    out
}

/// What stands on the disk, against what the volume is.
fn holds(volume: &VolumeDetail, held: &Held<'_>) -> String {
    let Some(extent) = &held.extent else {
        return format!("not known: {}", held.node_error.as_deref().unwrap_or("no answer"));
    };
    let note = extent.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    let state = json!(extent.state);
    let state = state.as_str().unwrap_or("?");
    match (extent.state, &volume.digest) {
        (ExtentState::Sealed, Some(digest)) if extent.digest.as_ref() == Some(digest) => {
            format!("sealed, same digest{note}")
        }
        (ExtentState::Sealed, Some(_)) => format!("sealed, ANOTHER digest{note}"),
        _ => format!("{state}, {}{note}", show::bytes(extent.tail)),
    }
}
