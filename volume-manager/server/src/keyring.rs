//! Hands the wrapped keyring to every node, for the key areas of its disks.
//!
//! A frontend's data key is in the catalog before the frontend asks for a volume to write with it. The nodes of that volume have the
//! keyring before the lease is answered: so no block is acknowledged whose key only the catalog has.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, NodeId};
use holdfast_node_client::KeyringBody;
use holdfast_volume_manager_catalog::{CatalogError, WrappedKeys};
use holdfast_volume_manager_client::Replica;
use tokio::time::Instant;

use crate::inventory::Snapshot;
use crate::liveness::NodeStanding;
use crate::manager::{Manager, within};

const LIMIT: Duration = Duration::from_secs(10);

/// What a node was given. Another registration may be about other disks, and asks for it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Given {
    registered: Instant,
    generation: u64,
}

/// Starts to give the keyring to each node that is up and does not have this generation of it.
pub(crate) async fn start(manager: &Arc<Manager>, snapshot: &Snapshot) -> Result<(), CatalogError> {
    let up = snapshot.nodes.iter().filter(|view| view.standing == NodeStanding::Up);
    let lacking = |generation| up.clone().filter(move |view| !has(manager, &view.node.node, generation));
    if lacking(manager.catalog.index.keyring_generation().await?).next().is_none() {
        return Ok(());
    }
    let (generation, keys) = manager.catalog.index.keys().await?;
    for view in lacking(generation) {
        let Some(given) = given(manager, &view.node.node, generation) else { continue };
        let name = view.node.node.clone();
        if !manager.progress().pushing.insert(name.clone()) {
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
                    progress.keyrings.insert(name, given);
                }
                Err(error) => tracing::debug!(node = %name, %error, "keyring not taken yet"),
            }
        });
    }
    Ok(())
}

/// Sees to it that the nodes of these replicas have the keyring as it is now. Answers the disks whose node did not take it.
pub(crate) async fn ensure(manager: &Manager, replicas: &[Replica]) -> Result<Vec<(DiskId, CallError)>, CatalogError> {
    let generation = manager.catalog.index.keyring_generation().await?;
    if replicas.iter().all(|replica| has(manager, &replica.node, generation)) {
        return Ok(Vec::new());
    }
    let (generation, keys) = manager.catalog.index.keys().await?;
    let body = body(generation, &keys);
    let pushes = replicas.iter().map(|replica| async {
        if has(manager, &replica.node, generation) {
            return Ok(());
        }
        let given = given(manager, &replica.node, generation);
        let taken = within(LIMIT, &replica.address, manager.node(&replica.address).put_keyring(&body)).await;
        taken.map_err(|error| (replica.disk, error))?;
        if let Some(given) = given {
            manager.progress().keyrings.insert(replica.node.clone(), given);
        }
        Ok(())
    });
    Ok(join_all(pushes).await.into_iter().filter_map(Result::err).collect())
}

/// What a node has once it takes this generation with the disks that it has now.
fn given(manager: &Manager, node: &NodeId, generation: u64) -> Option<Given> {
    let registered = manager.liveness().node(node)?.registered;
    Some(Given { registered, generation })
}

/// Whether a node's disks have this generation. Nobody lacks a keyring without keys.
fn has(manager: &Manager, node: &NodeId, generation: u64) -> bool {
    let known = manager.progress().keyrings.get(node).copied();
    generation == 0 || known.is_some() && known == given(manager, node, generation)
}

fn body(generation: u64, keys: &WrappedKeys) -> KeyringBody {
    KeyringBody { generation, keys: keys.iter().map(|(id, wrapped)| (id.to_string(), hex::encode(wrapped))).collect() }
}
