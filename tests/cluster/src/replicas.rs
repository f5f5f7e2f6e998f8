//! Volumes and their replicas, read past every frontend.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use holdfast_libs_transport::Role;
use holdfast_libs_types::{BlockHash, DiskId};
use holdfast_node_client::NodeClient;
use holdfast_volume_manager_client::{VolumeManagerClient, VolumeRow};

use crate::blocks::Blocks;
use crate::cell::Cell;

/// Bytes compared at once.
const PIECE_BYTES: u32 = 4 << 20;

/// The cell's volume manager, called as its operator.
///
/// # Errors
/// When `dev.json` names none.
pub fn volume_manager(cell: &Cell, blocks: &Blocks) -> anyhow::Result<VolumeManagerClient> {
    let address = cell.dev_json()?["volume_manager"].as_str().context("no volume manager")?.to_owned();
    Ok(VolumeManagerClient::new(blocks.service(Role::Admin), address))
}

/// Reads every replica of every sealed volume from its node; all three must be the same bytes with the digest, in three
/// zones. Answers how many replicas there are.
///
/// # Errors
/// When one cannot be read or is not so.
pub async fn compare_replicas(blocks: &Blocks, volumes: &[VolumeRow]) -> anyhow::Result<u64> {
    let mut compared = 0;
    for volume in volumes.iter().filter(|volume| volume.state == "sealed") {
        let length = volume.length.context("a sealed volume without a length")?;
        if length == 0 {
            continue;
        }
        let disks: BTreeSet<DiskId> = volume.replicas.iter().map(|replica| replica.disk).collect();
        let zones: BTreeSet<&str> = volume.replicas.iter().map(|replica| replica.zone.as_str()).collect();
        ensure!((disks.len(), zones.len()) == (3, 3), "replicas of {} are not in three zones", volume.volume);
        for replica in &volume.replicas {
            let node = NodeClient::new(blocks.service(Role::Admin), replica.address.clone());
            let mut all = Vec::new();
            while (all.len() as u64) < length {
                let ask = (length - all.len() as u64).min(u64::from(PIECE_BYTES)) as u32;
                all.extend_from_slice(&node.read_bytes(replica.disk, volume.volume, all.len() as u64, ask).await?);
            }
            let digest = BlockHash::of(&all).to_string();
            ensure!(Some(&digest) == volume.digest.as_ref(), "{} on {}", volume.volume, replica.disk);
            compared += 1;
        }
    }
    Ok(compared)
}
