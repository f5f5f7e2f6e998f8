//! How daemons talk: HTTPS on every listener, a service token on every call between daemons, one error shape,
//! and configuration files read the same way everywhere.
//!
//! Nothing here knows what is said; the client crates do.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod auth;
pub mod client;
pub mod config;
pub mod error;
pub mod serve;
pub mod tls;

pub use auth::{Role, ServiceTokens};
pub use client::{CallError, Carrier, HttpClient};
pub use error::ApiError;
pub use serve::{Listener, TlsListener, serve};
