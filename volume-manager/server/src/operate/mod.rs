//! Orders of an operator: what each would do, whether it is safe, and the wish in the catalog once it is to be done.
//!
//! Each order is answered with its plan, in sentences and numbers, and done only when it says `apply`. One that is not safe is
//! refused with the reasons and the numbers, whether it says so or not. Nothing moves here: what is asked for is written to the
//! catalog, and `moves`, `repair` and the seals act on that.

mod disks;
mod drain;
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
}

fn unknown(code: &'static str, what: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, code, format!("there is no {what} in the inventory; see `admin status`"))
}
