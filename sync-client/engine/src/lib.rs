//! sync-client/engine
