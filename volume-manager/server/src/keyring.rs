//! Hands the wrapped keyring to every node, for the key areas of its disks.

use std::time::Duration;

use holdfast_node_client::KeyringBody;
use holdfast_volume_manager_catalog::CatalogError;

use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::manager::{Manager, within};

const LIMIT: Duration = Duration::from_secs(10);

/// Gives the keyring to each node that is up and does not have this generation of it.
pub(crate) async fn push(manager: &Manager, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let (generation, keys) = manager.catalog(|catalog, _| catalog.index.keys()).await?;
    if keys.is_empty() {
        return Ok(());
    }
    let keys = keys.iter().map(|(id, wrapped)| (id.to_string(), hex::encode(wrapped))).collect();
    let body = KeyringBody { generation, keys };
    for view in snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up) {
        let has = (view.node.instance, generation);
        if manager.progress().keyrings.get(&view.node.node) == Some(&has) {
            continue;
        }
        match within(LIMIT, manager.node(&view.node.address).put_keyring(&body)).await {
            Ok(_) => {
                manager.progress().keyrings.insert(view.node.node.clone(), has);
            }
            Err(error) => tracing::debug!(node = %view.node.node, %error, "keyring not taken yet"),
        }
    }
    Ok(())
}
