//! What workers are given and what they report.

use std::collections::HashMap;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::BlockHash;
use holdfast_metadata_client::{Changes, CommitAnswer, EntryId};
use holdfast_sync_client_planner::{Content, Operation, Stat};

use crate::files::Temporary;

/// A file to hash and deliver.
#[derive(Debug, Clone)]
pub(crate) struct UploadJob {
    pub(crate) operation: Operation,
    pub(crate) path: String,
    pub(crate) size: u64,
    /// Blocks that need not be delivered: the server's revision has them.
    pub(crate) known: Vec<BlockHash>,
}

/// A file whose blocks are delivered.
#[derive(Debug, Clone)]
pub(crate) struct Uploaded {
    pub(crate) content: Content,
    pub(crate) stat: Stat,
    pub(crate) racy: bool,
    pub(crate) receipts: Vec<(BlockHash, String)>,
}

/// Why a file was not uploaded or fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It changed meanwhile: look again.
    Changed,
    /// The network or the server, for now.
    Later(String),
    /// Something a person has to see.
    Stays(String),
}

/// A file or link to fetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchJob {
    pub(crate) operation: Operation,
    pub(crate) entry: EntryId,
    pub(crate) rev: String,
    pub(crate) content: Content,
    /// The file that it replaces, whose other mode bits are kept.
    pub(crate) like: Option<String>,
    /// Where blocks are on this disk, perhaps.
    pub(crate) here: HashMap<BlockHash, (String, u64)>,
}

/// A file or link that is complete and durable, but not in place.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    pub(crate) job: FetchJob,
    pub(crate) result: Result<Temporary, Fault>,
}

/// What happened elsewhere.
#[derive(Debug)]
pub(crate) enum Event {
    Uploaded(Vec<(UploadJob, Result<Uploaded, Fault>)>),
    /// Receipts of blocks of a file that is not complete yet.
    Receipts(Vec<(BlockHash, String)>),
    Committed(Result<CommitAnswer, CallError>),
    Fetched(Vec<Fetched>),
    /// A plain pull.
    Pulled {
        from: Option<String>,
        result: Result<Changes, CallError>,
    },
    /// A long poll.
    Polled {
        from: Option<String>,
        result: Result<Changes, CallError>,
    },
}

/// Whether a call may work when it is repeated.
pub(crate) fn fault_of(error: &CallError) -> Fault {
    match error.code() {
        Some(holdfast_frontend_client::code::CELL_FULL) => Fault::Later(format!("no room on the server: {error}")),
        _ => Fault::Later(error.to_string()),
    }
}
