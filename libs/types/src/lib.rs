//! The vocabulary that every part of Holdfast shares: ids, block hashes, limits, the byte layout of
//! records and batches, and how sizes and times are told to people.
//!
//! This crate does no I/O and depends on no other crate of the workspace. Encodings are laid out by hand;
//! `golden` tests freeze their bytes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod content_hash;
pub mod hash;
pub mod ids;
mod layout;
pub mod record;
pub mod told;

pub use content_hash::ContentHasher;
pub use hash::BlockHash;
pub use ids::{AccountId, CellId, DeviceId, DiskId, InstanceId, KeyId, NodeId, VolumeId, WriteEpoch};

/// Largest plaintext of one block, in bytes (4 MiB). Sync clients cut files at this size.
pub const MAX_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// The unit of every disk write, in bytes. Batches are padded to it, extents start on it.
pub const PAGE_BYTES: usize = 4096;

/// Most records one volume may hold, so that its record table has a bounded size.
pub const MAX_VOLUME_RECORDS: u32 = 65_536;

/// Largest batch a node accepts, in bytes: several full blocks, and a bound on what one append may hold in memory.
pub const MAX_BATCH_BYTES: usize = 20 * 1024 * 1024;
