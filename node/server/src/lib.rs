//! node/server
