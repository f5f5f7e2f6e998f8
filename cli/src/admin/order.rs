//! Orders to the cell: what each would do is shown first, and done when it is told to be.

use clap::Args;
use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_client::{MoveGroup, Order, OrderPlan, RebalanceAnswer};

use super::cell::{Cell, CellTarget};
use crate::outcome::usage;
use crate::show::{self, Table};

/// What every order takes.
#[derive(Args, Clone)]
pub struct Apply {
    /// Do it; without this the plan is shown and nothing is done
    #[arg(long, visible_alias = "yes")]
    pub apply: bool,
    #[command(flatten)]
    pub target: CellTarget,
}

/// A span of time as it is typed: `90s`, `30m`, `2h`, `1d`.
///
/// # Errors
/// What would do instead.
pub fn seconds(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is no time; write for example 90s, 30m, 2h or 1d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = number.parse().map_err(|_| expected())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(expected)
}

/// Gives a disk an order, or shows what it would do.
pub async fn disk(cell: &Cell, disk: DiskId, order: &str, ask: &Order) -> anyhow::Result<()> {
    let plan = cell.volume_manager().order_disk(disk, order, ask).await?;
    cell.answer(&plan, || shown(&plan))
}

/// Gives a node an order, or shows what it would do.
pub async fn node(cell: &Cell, node: &NodeId, order: &str, ask: &Order) -> anyhow::Result<()> {
    let plan = cell.volume_manager().order_node(node, order, ask).await?;
    cell.answer(&plan, || shown(&plan))
}

/// The plan as people read it.
fn shown(plan: &OrderPlan) -> String {
    let last = match plan.applied {
        _ if plan.nothing_to_do && plan.moves.is_empty() => "nothing to do: it is so already",
        _ if plan.nothing_to_do => "it is ordered already; `holdfast admin status` tells how far it is",
        true if plan.moves.is_empty() => "done",
        true => "begun; `holdfast admin status` tells how far it is",
        false => "nothing was done yet: --apply does it",
    };
    format!("{}{last}\n", lines(plan))
}

/// Its sentences, and what moves.
fn lines(plan: &OrderPlan) -> String {
    let said = plan.plan.iter().map(|said| format!("{}\n", show::name(said)));
    let warned = plan.warnings.iter().map(|said| format!("warning: {}\n", show::name(said)));
    let mut out: String = said.chain(warned).collect();
    if !plan.moves.is_empty() {
        out.push_str(&format!("\n{}\n", moves(&plan.moves)));
    }
    out
}

fn moves(groups: &[MoveGroup]) -> Table {
    let mut table = Table::new(["FROM DISK", "TO NODE", "ZONE", "WHY", "REPLICAS", "SIZE"]);
    for group in groups {
        let (from, replicas, size) = (group.from.to_string(), group.replicas.to_string(), show::bytes(group.bytes));
        table.row([&from, &group.to.0, &group.zone, &group.reason, &replicas, &size]);
    }
    table
}

/// `admin rebalance plan|apply|status|cancel`.
pub async fn rebalance(cell: &Cell, order: &str) -> anyhow::Result<()> {
    let answer = match order {
        "plan" | "status" => cell.volume_manager().rebalance().await?,
        "apply" | "cancel" => cell.volume_manager().order_rebalance(order).await?,
        _ => return Err(usage(format!("`{order}` is none of plan, apply, status, cancel"))),
    };
    cell.answer(&answer, || match order {
        "plan" if answer.plan.nothing_to_do => planned(&answer) + "nothing to do\n",
        "plan" => planned(&answer) + "nothing was done yet: `rebalance apply` does it\n",
        "apply" => planned(&answer) + &under_way(&answer),
        "cancel" => said(&answer),
        _ => under_way(&answer),
    })
}

/// What became of an order to cancel.
fn said(answer: &RebalanceAnswer) -> String {
    answer.plan.plan.iter().map(|said| format!("{}\n", show::name(said))).collect()
}

fn planned(answer: &RebalanceAnswer) -> String {
    let mut out = lines(&answer.plan);
    let mut table = Table::new(["DISK", "NODE", "HAS", "AFTER", "SHARE"]);
    for disk in &answer.disks {
        let share = match &disk.left_out {
            Some(why) => format!("left out: {why}"),
            None => format!("{:.1}", disk.share),
        };
        let cells = [disk.disk.to_string(), disk.has.to_string(), disk.after.to_string(), share];
        table.row([&cells[0], &disk.node.0, &cells[1], &cells[2], &cells[3]]);
    }
    if !table.is_empty() {
        out.push_str(&format!("{table}\n"));
    }
    out
}

fn under_way(answer: &RebalanceAnswer) -> String {
    let Some(row) = &answer.under_way else { return "no rebalance is under way\n".to_owned() };
    let mut out = format!(
        "a rebalance of {} ({}) is under way: {} left ({}), {} at the moment\n",
        show::count(row.moves, "move"),
        show::bytes(row.bytes),
        row.left,
        show::bytes(row.left_bytes),
        row.moving
    );
    out.push_str(&match row.eta_s {
        Some(left) => format!("done in about {} at the pace of the moves so far\n", show::duration(left as f64)),
        None if row.moving == 0 && !row.waits.is_empty() => "it stands, so nothing tells when it is done\n".to_owned(),
        None => "when it is done is not known yet: nothing was moved since the volume manager began\n".to_owned(),
    });
    row.waits.iter().for_each(|why| out.push_str(&format!("waits: {}\n", show::name(why))));
    out
}

#[cfg(test)]
mod tests {
    use holdfast_volume_manager_client::OrderPlan;

    use super::{seconds, shown};

    #[test]
    fn an_order_that_changes_nothing_says_so_and_offers_nothing_to_apply() {
        let mut plan =
            OrderPlan { plan: vec!["it is neither cordoned nor drained".to_owned()], ..OrderPlan::default() };
        assert!(shown(&plan).ends_with("--apply does it\n"), "{}", shown(&plan));
        plan.nothing_to_do = true;
        for applied in [false, true] {
            plan.applied = applied;
            assert_eq!(shown(&plan), "it is neither cordoned nor drained\nnothing to do: it is so already\n");
        }
    }

    #[test]
    fn times_are_read_with_their_unit() {
        let read = ["90s", "30m", "2h", "1d"].map(|text| seconds(text).unwrap());
        assert_eq!(read, [90, 1800, 7200, 86_400]);
        for wrong in ["", "5", "0s", "h", "2 h", "-1s", "99999999999999999999d", "213503982334602d"] {
            assert!(seconds(wrong).unwrap_err().contains("30m"), "{wrong}");
        }
    }
}
