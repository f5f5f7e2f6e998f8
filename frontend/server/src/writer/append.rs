//! One batch to all replicas of a volume.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use holdfast_libs_transport::{CallError, HttpClient};
use holdfast_libs_types::DiskId;
use holdfast_node_client::{NodeClient, code};
use holdfast_volume_manager_client::{LeasedVolume, Replica};
use tokio::time::Instant;

use crate::counters::Counters;

/// Waits between repeats to a busy node: the first, and the longest.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(5);
const BUSY_WAIT_MAX: Duration = Duration::from_millis(200);

/// A connection that broke may have been an idle one that the node had just closed: once more.
const RECONNECTS: u32 = 1;

/// Why a batch is not on all replicas.
#[derive(Debug)]
pub(crate) struct AppendFailure {
    /// The disk that is the trouble; none when the volume is (fenced, full).
    pub(crate) disk: Option<DiskId>,
    /// The volume is merely full.
    pub(crate) full: bool,
    /// What the node said.
    pub(crate) reason: String,
}

/// Sends the batch to every replica in parallel and answers once all of them have it durable. The first failure
/// ends it: the volume is lost to its writer then, whatever the others answer.
pub(crate) async fn append_to_all(
    http: &HttpClient,
    lease: &LeasedVolume,
    offset: u64,
    batch: &Bytes,
    deadline: Duration,
    counters: &Counters,
) -> Result<(), AppendFailure> {
    let until = Instant::now() + deadline;
    let append = |replica| append_to(http, lease, replica, offset, batch, until, counters);
    try_join_all(lease.replicas.iter().map(append)).await.map(drop)
}

async fn append_to(
    http: &HttpClient,
    lease: &LeasedVolume,
    replica: &Replica,
    offset: u64,
    batch: &Bytes,
    until: Instant,
    counters: &Counters,
) -> Result<(), AppendFailure> {
    let node = NodeClient::new(http.clone(), replica.address.clone());
    let mut wait = BUSY_WAIT_MIN;
    let mut reconnects = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let error = match node.append(replica.disk, lease.volume, lease.epoch, offset, batch.clone(), left).await {
            Ok(answer) if answer.tail == offset + batch.len() as u64 => return Ok(()),
            Ok(answer) => {
                let reason = format!("{}: acknowledged {} instead of the batch's end", replica.node, answer.tail);
                return Err(AppendFailure { disk: Some(replica.disk), full: false, reason });
            }
            Err(error) => error,
        };
        let repeat = match &error {
            CallError::Api(answer) => answer.code == code::BUSY,
            CallError::Unreachable { .. } => {
                reconnects += 1;
                reconnects <= RECONNECTS
            }
            CallError::Timeout { .. } | CallError::Malformed { .. } => false,
        };
        if !repeat || Instant::now() + wait >= until {
            return Err(classify(replica, &error));
        }
        counters.busy_appends.one();
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(BUSY_WAIT_MAX);
    }
}

/// Whether the disk or the volume is the trouble.
fn classify(replica: &Replica, error: &CallError) -> AppendFailure {
    let code = error.code().unwrap_or_default();
    let volume_is = matches!(
        code,
        code::FENCED | code::VOLUME_FULL | code::NOT_TAIL | code::CONFLICTING_REPEAT | code::INVALID_BATCH
    );
    AppendFailure {
        disk: (!volume_is).then_some(replica.disk),
        full: code == code::VOLUME_FULL,
        reason: format!("{}: {error}", replica.node),
    }
}
