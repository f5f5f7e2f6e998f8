//! The volume manager's protocol and the client that speaks it. See `docs/protocols.md`, "Volume manager".

mod client;
mod messages;
mod operate;
mod reading;

pub use client::VolumeManagerClient;
pub use messages::{
    Background, CellStatus, DiskPace, DiskReport, DiskRow, DurabilityAnswer, DurabilityAsk, DurabilityInput, Heartbeat,
    HeartbeatAnswer, LeaseRequest, LeasedVolume, NodeRow, Register, RegisterAnswer, RegisteredDisk, RenewRequest,
    RepairCopy, RepairDisk, RepairOrder, RepairPause, RepairRisk, RepairStatus, RepairWait, Replica, SealAsk,
    SealState, UnusableDisk, VolumeCounts, VolumeRow, Work, code,
};
pub use operate::{DiskShare, DrainRow, MoveGroup, Order, OrderPlan, RebalanceAnswer, RebalanceRow};
pub use reading::{
    Capacity, DiskDetail, Inventory, MAX_PAGE_VOLUMES, ReplicaDetail, VolumeDetail, VolumePage, VolumeQuery,
    WorkSummary,
};
