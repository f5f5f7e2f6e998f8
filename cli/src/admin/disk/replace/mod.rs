//! `admin disk replace`: the whole way from a disk in use to a new one in its place.
//!
//! Nothing is written down of how far it has come: what the catalog, the node and the bay say tells that ([`steps`]). So it can end
//! at any moment, be run again from another machine, and goes on; `--status` only looks.

mod facts;
mod steps;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::DiskId;
use holdfast_node_client::{LocateOrder, PlaceAsk, code};
use holdfast_volume_manager_client::{DiskDetail, Order};
use serde_json::json;

use self::facts::{Facts, Known, Level};
use self::steps::Step;
use crate::admin::cell::{Cell, CellTarget};
use crate::admin::names;
use crate::outcome::{told, usage};
use crate::show;

/// The state of a disk that takes no more writes.
const READ_ONLY: &str = "read_only";

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct ReplaceDisk {
    /// Id of the disk, the beginning of it, or NODE:PATH
    pub disk: String,
    /// Only say how far it is and what it waits for
    #[arg(long, conflicts_with = "yes")]
    pub status: bool,
    /// Begin without asking
    #[arg(long)]
    pub yes: bool,
    /// Begin no rebalance: the new disk keeps what repair and new data bring to it
    #[arg(long)]
    pub no_rebalance: bool,
    #[command(flatten)]
    pub target: CellTarget,
}

pub async fn run(cell: Cell, options: ReplaceDisk) -> anyhow::Result<()> {
    let old = named(&cell, &options.disk).await?;
    if options.status {
        return status(&cell, old).await;
    }
    let facts = facts::gather(&cell, old).await?;
    let step = steps::next(&facts);
    if let Step::Refused(why) = &step {
        bail!("disk {old} is not replaced: {why}");
    }
    if step == Step::Drain && facts.old.state != READ_ONLY {
        // Refused here, with the numbers, where it is not safe; otherwise what moves is told before anything does.
        let plan = cell.volume_manager().order_disk(old, "drain", &Order::default()).await?;
        plan.plan.iter().chain(&plan.warnings).for_each(|said| eprintln!("drain: {}", show::name(said)));
    }
    if !options.yes {
        confirm(&facts, &step)?;
    }
    let rebalance = if options.no_rebalance { Rebalance::Not } else { Rebalance::ToBegin };
    Walk { cell: &cell, old, told: String::new(), draining: false, rebalance, light: None }.go().await
}

/// The disk that is meant; a place that several disks were at, one after the other, does not tell which.
async fn named(cell: &Cell, text: &str) -> anyhow::Result<DiskId> {
    let inventory = cell.volume_manager().inventory().await?;
    let disk = names::disk(&inventory, text)?;
    let same: Vec<String> = inventory
        .disks
        .iter()
        .filter(|other| (&other.node, &other.path) == (&disk.node, &disk.path))
        .map(|other| format!("{} ({})", other.disk, other.state))
        .collect();
    if text.contains('/') && same.len() > 1 {
        return Err(usage(format!(
            "several disks were at {text}: {}; say by its id which is to be replaced",
            same.join(", ")
        )));
    }
    Ok(disk.disk)
}

async fn status(cell: &Cell, old: DiskId) -> anyhow::Result<()> {
    let known = facts::known(cell, old).await?;
    let place = match facts::look(&cell.ask(&known.old.address), &known.old).await {
        Ok(place) => place,
        // What the volume manager knows is told all the same.
        Err(error) if is_away(&error) => return status_without_node(cell, &known, &told(&error)),
        Err(error) => return Err(error),
    };
    let facts = facts::of_place(cell, known, place).await?;
    let step = steps::next(&facts);
    let document = json!({
        "disk": old, "node": facts.old.node, "path": facts.old.path, "step": step.name(), "waits_for": step.waits_for(&facts),
        "volumes_left": facts.held.total, "lacking": facts.lacking, "new_disk": facts.new.as_ref().map(|new| new.disk), "short": facts.level.short, "place": facts.place,
        "node_error": null,
    });
    cell.answer(&document, || format!("{}: {}\n", step.name(), show::name(&step.waits_for(&facts))))
}

fn status_without_node(cell: &Cell, known: &Known, error: &str) -> anyhow::Result<()> {
    let waits_for = steps::without_node(known);
    let document = json!({
        "disk": known.old.disk, "node": known.old.node, "path": known.old.path, "step": "wait", "waits_for": waits_for,
        "volumes_left": known.held.total, "lacking": known.lacking, "new_disk": null, "short": 0, "place": null, "node_error": error,
    });
    cell.answer(&document, || format!("wait: {}\n      {}\n", show::name(&waits_for), show::name(error)))
}

/// Says what is about to be done and asks for consent.
fn confirm(facts: &Facts, step: &Step) -> anyhow::Result<()> {
    let (old, held) = (&facts.old, &facts.held);
    eprintln!(
        "disk {} ({}:{}) is {} and has replicas of {} volumes",
        old.disk, old.node, old.path, old.state, held.total
    );
    eprintln!("first step: {}: {}", step.name(), step.waits_for(facts));
    if !std::io::stdin().is_terminal() {
        return Err(usage("nothing was begun: say --yes to begin without being asked"));
    }
    eprint!("Begin? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { bail!("nothing was begun") }
}

/// The rebalance that brings the new disk to its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rebalance {
    /// It is not wanted.
    Not,
    ToBegin,
    /// This run ordered it: once, so that an operator can end it.
    Begun,
}

/// The walk of one run of the command.
struct Walk<'a> {
    cell: &'a Cell,
    old: DiskId,
    /// What was printed last.
    told: String,
    /// The drain was ordered by this run.
    draining: bool,
    rebalance: Rebalance,
    /// What became of the light, once it was tried to be switched on.
    light: Option<String>,
}

impl Walk<'_> {
    async fn go(mut self) -> anyhow::Result<()> {
        loop {
            let facts = match facts::gather(self.cell, self.old).await {
                Ok(facts) => facts,
                // A daemon that is started anew answers again.
                Err(error) if is_away(&error) => {
                    self.tell("wait", &format!("no answer: {}; going on once there is one", told(&error)));
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let step = steps::next(&facts);
            if step != Step::Adopt {
                self.tell(step.name(), &step.waits_for(&facts));
            }
            match step {
                Step::Refused(why) => bail!("disk {} is not replaced: {why}", self.old),
                Step::Done => return self.done(&facts).await,
                Step::Level if self.rebalance == Rebalance::ToBegin => self.level().await?,
                Step::Level if self.rebalance == Rebalance::Begun && facts.rebalance.is_some() => {}
                Step::Level => return self.done(&facts).await,
                Step::Pull | Step::Insert | Step::Unfit => self.light_on(&facts).await,
                Step::Adopt => self.adopt(&facts).await?,
                // Repair takes what is on a disk without writes elsewhere by itself.
                Step::Drain if facts.old.state == READ_ONLY => {}
                Step::Drain => self.drain().await?,
                Step::Join | Step::Refill => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says what goes on, once for each change of it; stdout is for the answer.
    fn tell(&mut self, step: &str, what: &str) {
        let line = format!("{step}: {what}");
        if line != self.told {
            eprintln!("{}", show::name(&line));
            self.told = line;
        }
    }

    /// Orders the drain, once in each run: a repeat changes nothing.
    async fn drain(&mut self) -> anyhow::Result<()> {
        if !self.draining {
            let order = Order { apply: true, ..Order::default() };
            match self.cell.volume_manager().order_disk(self.old, "drain", &order).await {
                Ok(_) => self.draining = true,
                // The next look asks again.
                Err(error) if !error.is_answer() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Begins a rebalance; where one is under way already it goes on.
    async fn level(&mut self) -> anyhow::Result<()> {
        match self.cell.volume_manager().order_rebalance("apply").await {
            Ok(_) => self.rebalance = Rebalance::Begun,
            // The next look asks again.
            Err(error) if !error.is_answer() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn light_on(&mut self, facts: &Facts) {
        if self.light.is_some() {
            return;
        }
        let light = self.switch_light(&facts.old, true).await;
        eprintln!("light: {}", show::name(&light));
        self.light = Some(light);
    }

    /// Switches the light at a disk's place, and says what became of it.
    async fn switch_light(&self, at: &DiskDetail, on: bool) -> String {
        let order = LocateOrder { path: at.path.clone(), on };
        match self.cell.node(&at.address).locate(&order).await {
            Ok(located) => format!("the light of bay {} is {}", located.bay, if on { "on" } else { "off" }),
            Err(error) => told(&error.into()),
        }
    }

    /// Has the node make a disk of what stands there. What is not blank is waited out: it may be wiped, or swapped.
    async fn adopt(&mut self, facts: &Facts) -> anyhow::Result<()> {
        let ask = PlaceAsk { path: facts.old.path.clone() };
        match self.cell.node(&facts.old.address).adopt(&ask).await {
            Ok(adopted) => {
                let size = show::bytes(adopted.slots * adopted.slot_bytes);
                let serial = adopted.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
                self.tell("adopt", &format!("{} is disk {} now ({size}{serial})", adopted.path, adopted.disk));
                Ok(())
            }
            Err(CallError::Api(error)) if error.code == code::NOT_BLANK => {
                self.light_on(facts).await;
                self.tell("adopt", &format!("{error}; waits for a blank disk"));
                Ok(())
            }
            Err(CallError::Api(error)) if error.code == code::IN_USE => Ok(()),
            Err(error) if !error.is_answer() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn done(mut self, facts: &Facts) -> anyhow::Result<()> {
        let Some(new) = &facts.new else { bail!("the new disk is gone again") };
        let verified = facts::verify(self.cell, new).await?;
        self.tell("verify", &format!("{} volumes compared with their digests", verified.volumes));
        let light = self.switch_light(new, false).await;
        let order = Order { apply: true, ..Order::default() };
        let forgotten = match self.cell.volume_manager().order_disk(self.old, "forget", &order).await {
            Ok(_) => "the old disk is off the inventory".to_owned(),
            Err(error) => format!("the old disk stays in the inventory: {}", told(&error.into())),
        };
        let (holds, share) = facts.level.holds.unzip();
        let document = json!({
            "replaced": self.old, "by": new.disk, "node": new.node, "path": new.path, "short": facts.level.short,
            "holds": holds, "share": share, "warnings": facts.level.warnings,
            "verified_volumes": verified.volumes, "verified_bytes": verified.bytes, "light": light, "inventory": forgotten,
        });
        self.cell.answer(&document, || {
            let (old, node, new, volumes) = (self.old, &new.node, new.disk, verified.volumes);
            format!(
                "disk {old} of node {node} was replaced by {new}; {volumes} volumes ({}) on it have the digests they were sealed with\n\
                 {}light: {light}\n{forgotten}\n",
                show::bytes(verified.bytes),
                how_level(&facts.level)
            )
        })
    }
}

/// What the new disk holds of its share, and why it is not more.
fn how_level(level: &Level) -> String {
    let Some((holds, share)) = level.holds else { return String::new() };
    let short = match level.short {
        0 => String::new(),
        short => format!(", and a rebalance would bring {short}: `holdfast admin rebalance plan`"),
    };
    let warned: String = level.warnings.iter().map(|said| format!("warning: {}\n", show::name(said))).collect();
    format!("replicas on it: {holds}; its share is {share:.1}{short}\n{warned}")
}

/// Whether somebody did not answer, who may later.
fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref::<CallError>() {
        Some(CallError::Unreachable { .. } | CallError::Timeout { .. }) => true,
        Some(CallError::Api(error)) => error.code == holdfast_volume_manager_client::code::NOT_LEADER,
        _ => false,
    })
}
