//! The node's protocol and the client that speaks it. See `docs/protocols.md`, "Node".
//!
//! Used by frontends (append, read), the volume manager (everything else) and other nodes (copy).

mod client;
mod messages;
mod places;

pub use client::{MAX_READ_BYTES, NodeClient};
pub use messages::{
    CancelCopy, CopyRequest, CreateExtent, DiskState, DiskStatus, ExtentInfo, ExtentState, FenceRequest, GivesWay,
    Health, HealthState, KeyArea, KeyringBody, KeyringMissing, KeyringStored, NodeStatus, OperatorRestore, RecordInfo,
    RestoreRequest, ScrubOrder, ScrubState, ScrubStatus, SealRequest, Sealed, Source, Tail, TrashRequest, TrashStatus,
    code,
};
pub use places::{Adopted, LocateOrder, Located, Occupant, Place, PlaceAsk};
