//! Fuzzing of every parser of disk and wire bytes: no panic, no abort, no hang, no unbounded allocation.
//!
//! Inputs are mutated from valid ones, and checksums and signatures are made right again after most mutations, so
//! that what stands behind them is reached. There is no instrumentation of the compiler: it would need nightly, or a
//! second build of everything. What guides the search is the parser's own answer: an input whose answer is of a kind
//! that was not seen before (another error, another magnitude of allocation) joins the inputs that are mutated.
//!
//! Each target runs in a process of its own that notes every input before it is tried; so an abort, a stack that
//! overflows or a hang leaves its input behind as well as a panic does.

#![allow(clippy::unwrap_used)]

pub mod allocations;
pub mod driver;
pub mod mutate;
pub mod supervisor;
pub mod targets;
