//! What an operator asked for: disks that are offline, disks and nodes that are drained, nodes that are cordoned, a rebalance.
//! It stands in the catalog's settings, so that it outlives the leader that took it.

use std::collections::{BTreeMap, HashMap};

use holdfast_libs_types::{DiskId, NodeId};
use holdfast_volume_manager_catalog::CatalogError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::manager::Manager;

/// Key of the rebalance under way.
const REBALANCE: &str = "rebalance";

/// A disk is about to be pulled or serviced: nothing new goes there, and its volumes are not repaired meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offline {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// When the disk counts again as it is, Unix milliseconds; `None`: when it is brought online.
    pub until_ms: Option<u64>,
}

impl Offline {
    /// Whether it still holds.
    pub fn holds(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

/// What stands on a disk or node is to go elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drain {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// Replicas that were there then.
    pub replicas: u64,
    /// Volumes may stand over fewer zones after it.
    #[serde(default)]
    pub less_spread: bool,
}

impl Drain {
    /// The same order given once more. What was accepted before stays so until the drain ends: whoever repeats the order, as
    /// `admin disk replace` does, need not know of it.
    pub fn again(self, before: Option<Self>) -> Self {
        let less_spread = self.less_spread || before.is_some_and(|before| before.less_spread);
        Self { less_spread, ..before.unwrap_or(self) }
    }
}

/// What was asked for a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DiskIntent {
    pub offline: Option<Offline>,
    pub drain: Option<Drain>,
}

/// What was asked for a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeIntent {
    /// Since when nothing new goes there, Unix milliseconds.
    pub cordoned_ms: Option<u64>,
    pub drain: Option<Drain>,
}

/// Disks are brought to their shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rebalance {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// Moves that were planned then.
    pub moves: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Intents {
    pub disks: HashMap<DiskId, DiskIntent>,
    pub nodes: HashMap<NodeId, NodeIntent>,
    pub rebalance: Option<Rebalance>,
    /// Settings that cannot be read, and why; told in the status.
    pub unreadable: Vec<String>,
}

impl Intents {
    /// Reads them; settings of others are left alone.
    pub fn read(settings: &BTreeMap<String, String>) -> Self {
        let mut intents = Self::default();
        for (key, value) in settings {
            let read = match key.split_once('/') {
                Some(("disk", id)) => id.parse().map_err(|_| "no disk's id".to_owned()).and_then(|disk| {
                    intents.disks.insert(disk, parse(value)?);
                    Ok(())
                }),
                Some(("node", name)) => parse(value).map(|intent| {
                    intents.nodes.insert(NodeId(name.to_owned()), intent);
                }),
                _ if key == REBALANCE => parse(value).map(|rebalance| intents.rebalance = Some(rebalance)),
                _ => Ok(()),
            };
            if let Err(why) = read {
                intents
                    .unreadable
                    .push(format!("the setting {key:?} in the catalog cannot be read, and is not heeded: {why}"));
            }
        }
        intents
    }

    /// Of a disk; nothing when nothing was asked.
    pub fn disk(&self, disk: DiskId) -> DiskIntent {
        self.disks.get(&disk).copied().unwrap_or_default()
    }

    /// Of a node; nothing when nothing was asked.
    pub fn node(&self, node: &NodeId) -> NodeIntent {
        self.nodes.get(node).copied().unwrap_or_default()
    }
}

fn parse<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| error.to_string())
}

impl Manager {
    /// Writes what is asked of a disk.
    pub async fn set_disk_intent(&self, disk: DiskId, intent: DiskIntent) -> Result<(), CatalogError> {
        let asked = (intent != DiskIntent::default()).then_some(intent);
        self.write_intent(format!("disk/{disk}"), asked.as_ref()).await
    }

    /// Writes what is asked of a node.
    pub async fn set_node_intent(&self, node: &NodeId, intent: NodeIntent) -> Result<(), CatalogError> {
        let asked = (intent != NodeIntent::default()).then_some(intent);
        self.write_intent(format!("node/{node}"), asked.as_ref()).await
    }

    /// Writes that a rebalance is under way, or not.
    pub async fn set_rebalance(&self, rebalance: Option<Rebalance>) -> Result<(), CatalogError> {
        self.write_intent(REBALANCE.to_owned(), rebalance.as_ref()).await
    }

    async fn write_intent<T: Serialize>(&self, key: String, intent: Option<&T>) -> Result<(), CatalogError> {
        let value = intent.map(serde_json::to_string).transpose();
        let value =
            value.map_err(|error| CatalogError::Damaged(format!("the setting {key:?} cannot be written: {error}")))?;
        let (table, term) = (self.catalog.table.clone(), self.term);
        self.to_the_end(async move { table.set_setting(term, &key, value.as_deref()).await }).await?;
        self.progress().stale = true;
        self.wake.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{DiskId, NodeId};

    use super::{DiskIntent, Drain, Intents, Offline};

    #[test]
    fn a_drain_that_is_ordered_again_keeps_what_it_began_with_and_what_was_accepted() {
        let drain = |since_ms, less_spread| Drain { since_ms, replicas: since_ms, less_spread };
        for (before, again) in [(false, false), (false, true), (true, false), (true, true)] {
            assert_eq!(drain(7, again).again(Some(drain(5, before))), drain(5, before || again));
        }
        assert_eq!(drain(7, false).again(None), drain(7, false));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_is_heeded() {
        let disk = DiskId([7; 16]);
        let settings = [
            (format!("disk/{disk}"), r#"{"offline": {"since_ms": 5, "until_ms": 9}}"#.to_owned()),
            ("disk/none".to_owned(), "{}".to_owned()),
            ("node/a/b".to_owned(), r#"{"cordoned_ms": 3, "later": true}"#.to_owned()),
            ("rebalance".to_owned(), "soon".to_owned()),
            ("repair".to_owned(), "another's".to_owned()),
        ];
        let intents = Intents::read(&settings.into_iter().collect());
        let offline = Offline { since_ms: 5, until_ms: Some(9) };
        assert_eq!(intents.disk(disk), DiskIntent { offline: Some(offline), drain: None });
        assert!(offline.holds(8) && !offline.holds(9));
        assert_eq!(intents.node(&NodeId("a/b".to_owned())).cordoned_ms, Some(3));
        assert_eq!((intents.rebalance, intents.unreadable.len()), (None, 2));
    }
}
