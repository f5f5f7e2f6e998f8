//! What replaces disk, network and clock in simulations: everything random comes from named, seeded streams, so that
//! a run repeats exactly from its seed.
//!
//! [`streams`] has the streams, [`disk`] the crash disk, [`zones`] the rules it keeps when it is a zoned one. Depends on no
//! other crate.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod disk;
pub mod streams;
pub mod zones;
