//! Whole cells as processes.
//!
//! One program, since each links all that the daemons are made of.

mod catalog;
mod damaged_replicas;
mod input;
mod kills;
mod losses;
mod operator;
mod replace;
mod sync;
