//! Erases what lay in a disk's trash for the retention. The engine decides what may go; this asks it now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_node_engine::EngineError;

use crate::config::TrashConfig;
use crate::disks::OpenDisk;

/// Runs until the disk is taken out of use.
pub(crate) async fn run(disk: Arc<OpenDisk>, config: TrashConfig) {
    tokio::select! {
        () = disk.stop.cancelled() => {}
        () = forever(&disk, &config) => {}
    }
}

async fn forever(disk: &OpenDisk, config: &TrashConfig) {
    let retention = Duration::from_secs(config.retention_s);
    let period = Duration::from_millis(config.erase_every_ms.max(10));
    loop {
        tokio::time::sleep(period).await;
        loop {
            match disk.engine().erase_expired(retention).await {
                Ok(erased) if erased.is_empty() => break,
                Ok(erased) => {
                    for one in &erased {
                        let order = hex::encode(one.order);
                        tracing::info!(disk = %disk.id(), volume = %one.volume, slot = one.slot, order, "extent erased");
                    }
                    disk.erased.fetch_add(erased.len() as u64, Ordering::Relaxed);
                }
                Err(error @ EngineError::EraseRefused { .. }) => {
                    tracing::error!(disk = %disk.id(), path = %disk.path.display(), %error,
                        "an erase that nobody ordered was stopped; keep this disk for an investigation");
                    break;
                }
                // The disk is out of writing, busy or hangs; whoever finds that says so. The trash waits.
                Err(error) => {
                    tracing::debug!(disk = %disk.id(), %error, "trash is not erased now");
                    break;
                }
            }
        }
    }
}
