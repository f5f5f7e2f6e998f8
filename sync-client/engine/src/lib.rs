//! Keeps a folder the same as the server's: watches and scans the disk, asks the planner what to do, moves blocks,
//! commits, and writes what others changed.
//!
//! One task owns the three trees and decides; workers hash and move blocks. File system, network and clock stand behind
//! traits ([`FileSystem`], [`Network`], [`Clock`]). What must survive a crash is in one SQLite file ([`state`]).
//!
//! Must stay true:
//! - an effect is journaled before it is done, and taken in after it is durable;
//! - a number of a commit's item is never used twice; after a lost answer the same items are sent again;
//! - a file is committed only when two stats around its hash agree;
//! - nothing is written outside the root, through a link, or over something that changed since it was looked at;
//! - a vanished, exchanged or emptied root, or a cursor that the server does not know, stops the client with a question.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod apply;
mod clock;
mod commit;
mod config;
mod control;
mod disk;
mod download;
mod engine;
mod error;
mod fetch;
mod files;
mod hints;
mod jobs;
mod network;
mod pull;
mod question;
mod recover;
mod report;
mod scan;
mod start;
mod state;
mod state_rows;
mod status;
mod upload;
mod watch;

pub use clock::{Clock, SystemClock};
pub use config::Config;
pub use control::query;
pub use disk::DiskFiles;
pub use error::EngineError;
pub use files::{FileSystem, Listing, RootIdentity, Seen, Temporary};
pub use network::{HttpNetwork, Network};
pub use start::{Parts, run, run_with};
pub use status::{NotSynced, Status};
