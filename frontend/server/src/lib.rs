//! frontend/server
