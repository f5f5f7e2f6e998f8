//! What an operator asks for: disks and nodes that are drained, offline, cordoned or forgotten, and rebalances.

use std::collections::BTreeMap;

use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, NodeId};
use serde::{Deserialize, Serialize};

use crate::client::VolumeManagerClient;

/// An operator's order, or the question what it would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// Carry it out; otherwise only its plan is answered.
    #[serde(default)]
    pub apply: bool,
    /// `offline`: for so many seconds, 1 to 2,592,000 (30 days); without it until it is brought online.
    #[serde(default)]
    pub for_s: Option<u64>,
    /// `drain`: volumes may stand closer together afterwards than they do now. Once accepted it holds on until the drain ends.
    #[serde(default)]
    pub less_spread: bool,
}

/// What an order does, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlan {
    /// It was carried out, or is being carried out from now on.
    pub applied: bool,
    /// It changes nothing: what it asks for is so already, or there is nothing that it could do.
    #[serde(default)]
    pub nothing_to_do: bool,
    /// What it comes to, one sentence each.
    pub plan: Vec<String>,
    /// What to know before, one sentence each.
    pub warnings: Vec<String>,
    /// The numbers behind the sentences, by name.
    pub numbers: BTreeMap<String, u64>,
    /// What moves, by where from and where to.
    pub moves: Vec<MoveGroup>,
}

/// Replicas that move from one disk to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveGroup {
    /// The disk they leave.
    pub from: DiskId,
    /// The node they go to.
    pub to: NodeId,
    /// Its zone.
    pub zone: String,
    /// `drain`, `spread` or `fill`.
    pub reason: String,
    /// How many.
    pub replicas: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A disk that is being drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRow {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Volumes that still have a replica there; at 0 it is done.
    pub left: u64,
    /// Their bytes there.
    pub left_bytes: u64,
    /// Replicas that are being copied now.
    pub moving: u64,
    /// What it waits for, one sentence each; empty while it goes on.
    pub waits: Vec<String>,
    /// The same, each with how many volumes of the disk wait for it.
    #[serde(default)]
    pub waiting: Vec<DrainWait>,
    /// When it is done at the pace so far, seconds; absent while that is not known, and while it stands.
    pub eta_s: Option<u64>,
}

/// What volumes of a disk that is being drained wait for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainWait {
    /// For what.
    pub why: String,
    /// How many at least, of those that were looked at; 0 where all do.
    pub volumes: u64,
}

/// A rebalance that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceRow {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Moves planned when it was applied.
    pub moves: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Moves left.
    pub left: u64,
    /// Their bytes.
    pub left_bytes: u64,
    /// Replicas that are being copied now.
    pub moving: u64,
    /// What it waits for; empty while it goes on.
    pub waits: Vec<String>,
    /// When it is done at the pace so far, seconds; absent while that is not known, and while it stands.
    pub eta_s: Option<u64>,
}

/// A disk before and after a rebalance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskShare {
    /// The disk.
    pub disk: DiskId,
    /// Its node.
    pub node: NodeId,
    /// Replicas on it.
    pub has: u64,
    /// Replicas on it once all moves are done.
    pub after: u64,
    /// Its share; 0 of one that is drained or left out.
    pub share: f64,
    /// Why it takes no part: nothing goes there, and what it holds stays there.
    #[serde(default)]
    pub left_out: Option<String>,
}

/// The answer about rebalances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RebalanceAnswer {
    /// The one under way.
    pub under_way: Option<RebalanceRow>,
    /// What one would do from now.
    pub plan: OrderPlan,
    /// Every disk that is not lost.
    pub disks: Vec<DiskShare>,
}

impl VolumeManagerClient {
    /// Asks for a disk to be drained, offline, online or forgotten (role admin): `order` is one of these words as a command,
    /// `drain`, `offline`, `online`, `forget`.
    ///
    /// # Errors
    /// `unsafe` with the reasons and numbers, `unknown_disk`, `bad_request`, `catalog_lost`.
    pub async fn order_disk(&self, disk: DiskId, order: &str, ask: &Order) -> Result<OrderPlan, CallError> {
        self.post(&format!("/v1/disks/{disk}/{order}"), ask).await
    }

    /// Asks for a node to be drained, cordoned or forgotten (role admin): `drain`, `cordon`, `uncordon`, `forget`.
    ///
    /// # Errors
    /// `unsafe` with the reasons and numbers, `unknown_node`, `bad_request`, `catalog_lost`.
    pub async fn order_node(&self, node: &NodeId, order: &str, ask: &Order) -> Result<OrderPlan, CallError> {
        let name = percent(&node.0);
        self.post(&format!("/v1/nodes/{name}/{order}"), ask).await
    }

    /// What a rebalance would move, and how far the one under way is (role admin).
    ///
    /// # Errors
    /// `catalog_lost`.
    pub async fn rebalance(&self) -> Result<RebalanceAnswer, CallError> {
        self.get("/v1/rebalance").await
    }

    /// Begins a rebalance, or ends it, at once (role admin): `apply` or `cancel`.
    ///
    /// # Errors
    /// `bad_request`, `catalog_lost`.
    pub async fn order_rebalance(&self, order: &str) -> Result<RebalanceAnswer, CallError> {
        self.post(&format!("/v1/rebalance/{order}"), &serde_json::json!({})).await
    }
}

/// A name as a segment of a path (RFC 3986).
fn percent(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
