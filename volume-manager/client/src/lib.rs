//! The volume manager's protocol and the client that speaks it. See `docs/protocols.md`, "Volume manager".

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod leader;
mod messages;
mod operate;
mod reading;
mod rebuild;

pub use client::VolumeManagerClient;
pub use leader::VolumeManagers;
pub use messages::{
    Background, CellStatus, DiskPace, DiskReport, DiskRow, DurabilityAnswer, DurabilityAsk, DurabilityInput, Heartbeat,
    HeartbeatAnswer, LeaseRequest, LeasedVolume, NodeRow, Register, RegisterAnswer, RegisteredDisk, RenewRequest,
    RepairCopy, RepairDisk, RepairOrder, RepairPause, RepairRisk, RepairStatus, RepairWait, Replica, SealAsk,
    SealState, UnusableDisk, VolumeCounts, VolumeRow, Work, code,
};
pub use operate::{DiskShare, DrainRow, DrainWait, MoveGroup, Order, OrderPlan, RebalanceAnswer, RebalanceRow};
pub use reading::{
    Capacity, DiskDetail, Inventory, MAX_PAGE_VOLUMES, ReplicaDetail, VolumeDetail, VolumePage, VolumeQuery,
    WorkSummary,
};
pub use rebuild::{NotReached, NotRecovered, RebuildState, RebuildStatus};
