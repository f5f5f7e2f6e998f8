//! The `/v1` protocol of the metadata tier and the client that speaks it. See `docs/protocols.md`, "Metadata".
//!
//! Used by sync clients and the user's commands. The API that is compatible with Dropbox's v2 has its own clients.

mod client;
mod messages;

pub use client::MetadataClient;
pub use messages::{
    BlockRef, Change, Changes, ChangesRequest, CommitAnswer, CommitItem, CommitRequest, CreateUser, DownloadPlan,
    Entry, EntryId, ItemResult, Kind, Login, LoginAnswer, Me, NamespaceId, Outcome, Parent, Place, SignedBlock,
    SignedList, Timestamp, UploadPlan, code,
};
