//! metadata/model
