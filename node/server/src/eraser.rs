//! Erases what lay in a disk's trash for the retention. The engine decides what may go; this asks it now and then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::TrashConfig;
use crate::disks::OpenDisk;

/// Runs until the disk is taken out of use.
pub(crate) async fn run(disk: Arc<OpenDisk>, config: TrashConfig) {
    tokio::select! {
        biased;
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
                // The engine has told each, and raised the alarm where one was refused.
                Ok(erased) => {
                    disk.erased.fetch_add(erased.len() as u64, Ordering::Relaxed);
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
