//! Orders of an operator: what each would do, whether it is safe, and the wish in the catalog once it is to be done.
//!
//! Each order is answered with its plan, in sentences and numbers, and done only when it says `apply`. One that is not safe is
//! refused with the reasons and the numbers, whether it says so or not. Nothing moves here: what is asked for is written to the
//! catalog, and `moves`, `repair` and the seals act on that.

mod disks;
mod drain;
mod forget;
mod nodes;
mod rebalance;

use std::collections::BTreeMap;

use holdfast_libs_transport::ApiError;
use holdfast_libs_types::DiskId;
use holdfast_volume_manager_catalog::Volume;
use holdfast_volume_manager_client::{OrderPlan, code};
use http::StatusCode;
use serde_json::json;

pub(crate) use disks::order_disk;
pub(crate) use holdfast_libs_types::told::count;
pub(crate) use nodes::order_node;
pub(crate) use rebalance::{order_rebalance, rebalance};

use crate::discard::is_hollow;

/// The verb that goes with so many.
pub(crate) fn is(number: u64) -> &'static str {
    if number == 1 { "is" } else { "are" }
}

/// An order that is being looked at.
#[derive(Debug, Default)]
struct Case {
    plan: OrderPlan,
    /// Why it must not be done.
    against: Vec<String>,
}

impl Case {
    fn say(&mut self, sentence: impl Into<String>) {
        self.plan.plan.push(sentence.into());
    }

    fn warn(&mut self, sentence: impl Into<String>) {
        self.plan.warnings.push(sentence.into());
    }

    fn refuse(&mut self, why: impl Into<String>) {
        self.against.push(why.into());
    }

    /// Adds what is behind the reasons against it, if anything is.
    fn explain(&mut self, why: &str) {
        self.against.extend((!why.is_empty()).then(|| why.to_owned()));
    }

    fn number(&mut self, name: &str, value: u64) {
        self.plan.numbers.insert(name.to_owned(), value);
    }

    /// The plan, or the refusal of the whole order. `what` names it: `draining disk D`.
    fn judge(self, what: &str) -> Result<OrderPlan, ApiError> {
        if self.against.is_empty() {
            return Ok(self.plan);
        }
        let detail = json!({ "reasons": self.against, "numbers": self.plan.numbers });
        let message = format!("{what} is not safe: {}", self.against.join("; "));
        Err(ApiError::new(StatusCode::CONFLICT, code::UNSAFE, message).with_detail(detail))
    }
}

/// The volumes that hold something and have a replica on the disk.
fn on_disk(volumes: &[Volume], disk: DiskId) -> impl Iterator<Item = &Volume> {
    volumes.iter().filter(move |volume| volume.replicas.contains(&disk) && !is_hollow(volume))
}

/// Most sentences of a [`Tally`] that are told.
const MOST_SAID: usize = 3;

/// Sentences said of several things, each with how many.
#[derive(Debug, Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn add(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }

    fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The sentences said of most things, and one for the others.
    fn most_said(self) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.0.into_iter().collect();
        all.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let more = all.split_off(MOST_SAID.min(all.len()));
        if !more.is_empty() {
            let things = more.iter().map(|(_, things)| things).sum();
            all.push((count(more.len() as u64, "other reason"), things));
        }
        all
    }
}

fn unknown(code: &'static str, what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, code, format!("there is no {what} in the inventory; see `admin status`"))
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn of_many_reasons_those_that_hold_for_most_are_told_and_how_many_more_there_are() {
        let mut tally = Tally::default();
        for reason in 1..=9 {
            (0..reason).for_each(|_| tally.add(format!("reason {reason}")));
        }
        let said = tally.most_said();
        let told = [("reason 9", 9), ("reason 8", 8), ("reason 7", 7), ("6 other reasons", 21)];
        assert_eq!(said, told.map(|(why, things)| (why.to_owned(), things)));
        let mut tally = Tally::default();
        tally.add("one".to_owned());
        assert_eq!(tally.most_said(), [("one".to_owned(), 1)]);
    }
}
