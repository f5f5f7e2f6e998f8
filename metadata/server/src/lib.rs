//! metadata/server
