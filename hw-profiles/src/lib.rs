//! Hardware profiles: what a chassis is made of, which of a machine's disks fit it, and how they are treated.
//!
//! | module | what it does |
//! |---|---|
//! | [`load`], [`shipped`] | reads and checks profiles (TOML); those that come with Holdfast and the operator's own |
//! | [`inventory`] | the disks and enclosures of a machine, from sysfs, under any root folder |
//! | [`signature`] | partition tables, file systems and others on a disk |
//! | [`smart`] | health through `smartctl --json` |
//! | [`matching`] | which profile fits; each disk with `accept` or the reasons against it |
//! | [`mod@write`] | makes a profile from what is there |
//! | [`settings`] | scheduler, readahead and queue depth, through sysfs |
//! | [`light`] | locate lights, through the kernel's enclosure class or `ledctl` |
//!
//! It reads disks and never writes to one; it writes to sysfs only in [`settings`] and [`light`].
//!
//! # For a node
//!
//! Blocking calls, so not on an async thread. At start, when a profile is configured:
//!
//! ```no_run
//! use std::path::Path;
//! use holdfast_hw_profiles::{settings, shipped};
//! # fn main() -> Result<(), holdfast_hw_profiles::HardwareError> {
//! let profile = shipped::named("server-2u-12-direct", Some(Path::new("/etc/holdfast/hw-profiles")))?;
//! for applied in settings::apply(Path::new("/"), Path::new("/dev/disk/by-id/wwn-0x5000c500a1b2c301"), &profile.settings)? {
//!     if let Some(why) = applied.failed {
//!         eprintln!("{} could not be set to {}: {why}", applied.file, applied.wanted);
//!     }
//! }
//! // Operations in flight at a disk, and when its latency is an outlier:
//! let (depth, read_ms) = (profile.settings.queue_depth, profile.limits.read_ms);
//! # let _ = (depth, read_ms);
//! # Ok(())
//! # }
//! ```
//!
//! A disk's identity, to compare with what the superblock or the catalog says: [`inventory::Machine::read`], then
//! [`inventory::Disk`] by its `serial`, `wwn` and `by_path`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod inventory;
pub mod light;
pub mod load;
pub mod matching;
pub mod pattern;
pub mod profile;
pub mod runner;
pub mod settings;
pub mod shipped;
pub mod signature;
pub mod size;
pub mod smart;
pub mod tree;
pub mod write;

pub use crate::error::HardwareError;
pub use crate::tree::Tree;
