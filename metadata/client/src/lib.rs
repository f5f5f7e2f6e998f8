//! metadata/client
