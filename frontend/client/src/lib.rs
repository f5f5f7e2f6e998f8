//! frontend/client
