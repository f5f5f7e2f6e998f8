//! Real engines on real folders, against the model server.

#![allow(clippy::unwrap_used, clippy::field_reassign_with_default)]

mod cell;
mod client;
mod conflicts;
mod odd_trees;
#[path = "../../../planner/tests/reference/mod.rs"]
mod reference;
mod refusals;
mod renames;
mod restarts;
