//! The seal protocol of one volume. Each step can be repeated, by this volume manager or by the next: the table says
//! which one comes next.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, VolumeId};
use holdfast_node_client::{FenceRequest, SealRequest, code};
use holdfast_volume_manager_catalog::{CatalogError, Volume, VolumeState};
use holdfast_volume_manager_planner::{LengthDecision, SealDecision, Vote, decide_length, decide_seal};
use tokio::time::Instant;

use crate::inventory::Snapshot;
use crate::manager::{Manager, within};

/// A fence is one small write.
const FENCE_LIMIT: Duration = Duration::from_secs(5);

/// A seal reads the volume back.
pub(crate) const SEAL_LIMIT: Duration = Duration::from_secs(120);

/// Between attempts at replicas that do not answer.
const RETRY: Duration = Duration::from_millis(200);

/// Why a seal waits that was cut short.
const STOPPING: &str = "the volume manager is stopping";

/// How far a seal came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// To its end.
    Done,
    /// It must wait; why.
    Waits(String),
}

/// Carries a volume that is `sealing` to `sealed`.
pub(crate) async fn seal(manager: &Arc<Manager>, id: VolumeId) -> Result<Sealed, CatalogError> {
    let Some(volume) = manager.catalog.table.volume(id).await? else {
        return Err(CatalogError::UnknownVolume(id));
    };
    if volume.state == VolumeState::Sealed {
        return Ok(Sealed::Done);
    }
    // Step b.
    let floor = manager.catalog.index.close_fence(id, volume.epoch).await?;
    let length = match volume.length {
        Some(length) => length,
        None => match agree_on_length(manager, &volume, floor).await? {
            Ok(length) => length,
            Err(why) => return Ok(Sealed::Waits(why)),
        },
    };
    commit_digest(manager, &volume, length).await
}

/// Steps c, d and e.
async fn agree_on_length(manager: &Manager, volume: &Volume, floor: u64) -> Result<Result<u64, String>, CatalogError> {
    manager.note(volume.volume, "seal", "fencing the replicas");
    let Some(votes) = ask(manager, volume, |snapshot, disk| fence(manager, volume, snapshot, disk)).await? else {
        return Ok(Err(STOPPING.to_owned()));
    };
    match decide_length(&votes, floor) {
        LengthDecision::Wait { why } => Ok(Err(why)),
        LengthDecision::Length { length, .. } => {
            let table = &manager.catalog.table;
            let committed = table.commit_length(manager.term, volume.volume, volume.epoch, length).await?;
            Ok(Ok(committed.0))
        }
    }
}

async fn fence(manager: &Manager, volume: &Volume, snapshot: Arc<Snapshot>, disk: DiskId) -> Answer<Vote> {
    let lacking = |damaged| Vote { disk, tail: None, damaged };
    let Some(view) = snapshot.disk(disk).filter(|view| view.standing.holds_replicas()) else {
        return Answer::Final(lacking(false));
    };
    let request = FenceRequest { disk, volume: volume.volume, epoch: volume.epoch, term: manager.term.0 };
    match within(FENCE_LIMIT, &view.address, manager.node(&view.address).fence(&request)).await {
        Ok(tail) => Answer::Final(Vote { disk, tail: Some(tail.tail), damaged: false }),
        Err(CallError::Api(error)) if error.code == code::DAMAGED => {
            Answer::Final(Vote { disk, tail: Some(0), damaged: true })
        }
        Err(CallError::Api(error)) if error.code == code::UNKNOWN_VOLUME => Answer::Final(lacking(false)),
        Err(error) => {
            tracing::debug!(volume = %volume.volume, %disk, %error, "no fence yet");
            Answer::Later(lacking(false))
        }
    }
}

/// Step f.
async fn commit_digest(manager: &Manager, volume: &Volume, length: u64) -> Result<Sealed, CatalogError> {
    manager.note(volume.volume, "seal", format!("verifying replicas at {length} bytes"));
    let asked = ask(manager, volume, |snapshot, disk| digest(manager, volume, length, snapshot, disk)).await?;
    let Some(answers) = asked else { return Ok(Sealed::Waits(STOPPING.to_owned())) };
    match decide_seal(&answers) {
        SealDecision::Wait { why } => Ok(Sealed::Waits(why)),
        SealDecision::Digest { digest, holders, dropped } => {
            for (disk, why) in dropped {
                tracing::warn!(volume = %volume.volume, %disk, why, "replica dropped at the seal");
            }
            manager.catalog.table.commit_seal(manager.term, volume.volume, digest, &holders).await?;
            note_left_out(manager, volume, &holders).await?;
            manager.metrics.seals.inc();
            tracing::info!(volume = %volume.volume, length, reason = volume.seal_reason, "volume sealed");
            Ok(Sealed::Done)
        }
    }
}

/// Remembers which replicas are not on the list only because their disks are away. A disk that comes back in time costs no
/// copy then: what it holds is verified. After a restart of the volume manager it costs one.
async fn note_left_out(manager: &Manager, volume: &Volume, holders: &[DiskId]) -> Result<(), CatalogError> {
    let snapshot = manager.snapshot().await?;
    let is_away = |disk: &DiskId| snapshot.disk(*disk).is_some_and(|view| view.standing.away().is_some());
    let missing = volume.replicas.iter().copied().filter(|disk| !holders.contains(disk));
    let left_out: Vec<DiskId> = missing.filter(is_away).collect();
    if !left_out.is_empty() {
        manager.progress().left_out.insert(volume.volume, left_out);
    }
    Ok(())
}

type Digest = (DiskId, Result<[u8; 32], String>);

async fn digest(
    manager: &Manager,
    volume: &Volume,
    length: u64,
    snapshot: Arc<Snapshot>,
    disk: DiskId,
) -> Answer<Digest> {
    let Some(view) = snapshot.disk(disk).filter(|view| view.standing.holds_replicas()) else {
        return Answer::Final((disk, Err("the disk is out of service".to_owned())));
    };
    let request = SealRequest { disk, volume: volume.volume, epoch: volume.epoch, length, term: manager.term.0 };
    match within(SEAL_LIMIT, &view.address, manager.node(&view.address).seal(&request)).await {
        Ok(sealed) => {
            let mut bytes = [0; 32];
            let decoded = hex::decode_to_slice(&sealed.digest, &mut bytes);
            Answer::Final((disk, decoded.map(|()| bytes).map_err(|_| "the digest is no SHA-256".to_owned())))
        }
        Err(CallError::Api(error)) if is_final(&error.code) => Answer::Final((disk, Err(error.message))),
        Err(error) => Answer::Later((disk, Err(error.to_string()))),
    }
}

/// Answers that asking again will not change.
fn is_final(answered: &str) -> bool {
    [code::TOO_SHORT, code::DAMAGED, code::UNKNOWN_VOLUME, code::UNKNOWN_DISK].contains(&answered)
}

/// One replica's answer.
enum Answer<T> {
    /// It stands.
    Final(T),
    /// It may be better when asked again within the grace.
    Later(T),
}

/// Asks every replica, and those that did not answer again until the grace is over. `None` when the daemon stops before:
/// a replica must not be dropped because nobody waited for it.
async fn ask<T, F>(
    manager: &Manager,
    volume: &Volume,
    call: impl Fn(Arc<Snapshot>, DiskId) -> F,
) -> Result<Option<Vec<T>>, CatalogError>
where
    F: Future<Output = Answer<T>>,
{
    let until = Instant::now() + manager.config.timing.seal_grace();
    let mut answers: Vec<Option<Answer<T>>> = volume.replicas.iter().map(|_| None).collect();
    loop {
        let snapshot = Arc::new(manager.snapshot().await?);
        let open: Vec<usize> =
            (0..answers.len()).filter(|index| !matches!(answers[*index], Some(Answer::Final(_)))).collect();
        let asked = join_all(open.iter().map(|index| call(Arc::clone(&snapshot), volume.replicas[*index]))).await;
        for (index, answer) in open.into_iter().zip(asked) {
            answers[index] = Some(answer);
        }
        let waiting = answers.iter().any(|answer| !matches!(answer, Some(Answer::Final(_))));
        if !waiting || Instant::now() >= until {
            break;
        }
        if !manager.pause(RETRY).await {
            return Ok(None);
        }
    }
    let kept = answers.into_iter().flatten().map(|answer| match answer {
        Answer::Final(answer) | Answer::Later(answer) => answer,
    });
    Ok(Some(kept.collect()))
}
