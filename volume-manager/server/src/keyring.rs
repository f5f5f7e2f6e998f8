//! Hands the wrapped keyring to every node, for the key areas of its disks.

use std::sync::Arc;
use std::time::Duration;

use holdfast_node_client::KeyringBody;
use holdfast_volume_manager_catalog::CatalogError;

use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::manager::{Manager, within};

const LIMIT: Duration = Duration::from_secs(10);

/// Starts to give the keyring to each node that is up and does not have this generation of it.
pub(crate) async fn start(manager: &Arc<Manager>, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let (generation, keys) = manager.catalog.index.keys().await?;
    if keys.is_empty() {
        return Ok(());
    }
    let lacks = |name: &_, has: &_| manager.progress().keyrings.get(name) != Some(has);
    for view in snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up) {
        let (name, has) = (view.node.node.clone(), (view.node.instance, generation));
        if !lacks(&name, &has) || !manager.progress().pushing.insert(name.clone()) {
            continue;
        }
        let keys = keys.iter().map(|(id, wrapped)| (id.to_string(), hex::encode(wrapped))).collect();
        let body = KeyringBody { generation, keys };
        let (address, manager) = (view.node.address.clone(), Arc::clone(manager));
        manager.tasks.clone().spawn(async move {
            let taken = within(LIMIT, &address, manager.node(&address).put_keyring(&body)).await;
            let mut progress = manager.progress();
            progress.pushing.remove(&name);
            match taken {
                Ok(_) => {
                    progress.keyrings.insert(name, has);
                }
                Err(error) => tracing::debug!(node = %name, %error, "keyring not taken yet"),
            }
        });
    }
    Ok(())
}
