//! The whole cell in one thread, under seeded time, network and disks: the real daemons with their real protocols, and
//! everything around them simulated. A seed decides everything, so that a failing one replays exactly.
//!
//! - `cell`: which daemons there are, and what each stands on
//! - `process`, `network`, `catalog`, `disks`: what stands around them, each with its fault model
//! - `chaos`: what goes wrong, and when
//! - `clients`: who writes and reads, and what was acknowledged
//! - `verdict`: what must hold at the end
//! - `trace`: what happened, as one number
//! - `run`, `sweep`: one seed, and many
//!
//! What is not from the seed: keys and nonces, and so the ciphertext and the digests of volumes. Nothing depends on them but
//! bytes that are compared with themselves.

mod catalog;
mod cell;
mod chaos;
mod clients;
mod disks;
mod network;
mod process;
mod run;
pub mod sweep;
mod trace;
mod verdict;

pub use network::{Arrived, Tamper};
pub use run::{Failure, Options, SpoilCatalog, Summary, run};
