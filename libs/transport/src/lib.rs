//! libs/transport
