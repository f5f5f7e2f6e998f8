//! node/engine
