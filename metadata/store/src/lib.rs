//! metadata/store
