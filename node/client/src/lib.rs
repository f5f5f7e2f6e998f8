//! node/client
