//! tests/cluster
