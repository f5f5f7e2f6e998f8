//! Hands the wrapped keyring to every node, for the key areas of its disks.
//!
//! A frontend's data key is in the catalog before the frontend asks for a volume to write with it. The nodes of that volume have the
//! keyring before the lease is answered: so no block is acknowledged whose key only the catalog has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::DiskId;
use holdfast_node_client::KeyringBody;
use holdfast_volume_manager_catalog::{CatalogError, WrappedKeys};
use holdfast_volume_manager_client::Replica;

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
        let body = body(generation, &keys);
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

/// Sees to it that the nodes of these replicas have the keyring as it is now. Answers the disks whose node did not take it.
pub(crate) async fn ensure(manager: &Manager, replicas: &[Replica]) -> Result<Vec<(DiskId, CallError)>, CatalogError> {
    let (generation, keys) = manager.catalog.index.keys().await?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let body = body(generation, &keys);
    let pushes = replicas.iter().map(|replica| async {
        let instance = manager.liveness().node(&replica.node).map(|heard| heard.instance);
        let has = instance.map(|instance| (instance, generation));
        if has.is_some() && manager.progress().keyrings.get(&replica.node).copied() == has {
            return Ok(());
        }
        let taken = within(LIMIT, &replica.address, manager.node(&replica.address).put_keyring(&body)).await;
        taken.map_err(|error| (replica.disk, error))?;
        if let Some(has) = has {
            manager.progress().keyrings.insert(replica.node.clone(), has);
        }
        Ok(())
    });
    Ok(join_all(pushes).await.into_iter().filter_map(Result::err).collect())
}

fn body(generation: u64, keys: &WrappedKeys) -> KeyringBody {
    KeyringBody { generation, keys: keys.iter().map(|(id, wrapped)| (id.to_string(), hex::encode(wrapped))).collect() }
}
