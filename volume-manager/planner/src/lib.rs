//! The volume manager's decisions: where a volume goes, what is repaired and from where, at which length and digest it is
//! sealed. Values in, values out: no I/O, no clock, no randomness, so that a simulator can drive them and the same question
//! always gets the same answer.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod absence;
mod capacity;
mod durability;
mod health;
mod inventory;
mod placement;
mod rebalance;
mod rebuild;
mod rendezvous;
mod repair;
mod seal;
mod spread;

pub use absence::{AbsenceLimits, Absences, CutOff, NodeSilence, Patience, absences};
pub use capacity::volumes_that_fit;
pub use durability::{Durability, DurabilityError, DurabilityInputs, durability};
pub use health::{HealthCounts, can_lose, health_counts};
pub use inventory::{Inventory, InventoryDisk};
pub use placement::{
    COPIES, Distinct, PlacementError, choose_disks, choose_move_disk, choose_repair_disk, choose_restore_disk,
};
pub use rebalance::{Barred, DiskFill, Move, MoveReason, RebalancePlan, RebalancePolicy, plan_rebalance};
pub use rebuild::{Found, FoundExtent, Recovery, highest_epoch, recover};
pub use repair::{RepairAction, RepairPlan, VolumeReplicas, plan_repairs};
pub use seal::{DigestAnswer, LengthDecision, SealDecision, Vote, decide_length, decide_seal};
pub use spread::Spread;
