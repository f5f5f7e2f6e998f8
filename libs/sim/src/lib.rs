//! libs/sim
