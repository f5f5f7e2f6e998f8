//! The engine from outside, on simulated disks and on files: one program, since each that links the engine costs CI seconds.
//! What changes its whole process (`fallbacks`, `capacity`), and what is run alone (`crash`, `kill`, `mutations`), stands apart.
#![allow(clippy::unwrap_used)]

mod beside;
mod damage;
mod flips;
mod footers;
mod limits;
mod real_files;
mod scrub;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod table;
mod trash;
mod zoned;
mod zoned_device;
