//! One volume: what its extents say, its seal if it has none, its index rows, its row in the table; in this order.
//!
//! The length of a volume that was never sealed is decided here without a row in the table that holds it. It needs none: as
//! soon as one replica is sealed, that replica tells the length to whoever comes next, and before that nothing is cut.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast_libs_transport::CallError;
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
use holdfast_node_client::{FenceRequest, SealRequest, Tail, code};
use holdfast_volume_manager_catalog::{CatalogError, FoundVolume, Volume};
use holdfast_volume_manager_planner::{
    COPIES, FoundExtent, LengthDecision, Recovery, SealDecision, Vote, decide_length, decide_seal, highest_epoch,
    recover,
};

use super::records;
use crate::inventory::Snapshot;
use crate::manager::{Manager, within};
use crate::seal::SEAL_LIMIT;

const FENCE_LIMIT: Duration = Duration::from_secs(30);

/// What became of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is in the catalog, with all its rows.
    TakenIn {
        /// The catalog had it so before.
        was_known: bool,
        /// It had no length before.
        sealed: bool,
        /// Records that went into the index now.
        records: u64,
        /// Fewer replicas were found than it should have.
        is_short: bool,
    },
    /// It cannot be taken in; why.
    Not(String),
    /// A node did not answer: it must be looked at again.
    Later(String),
}

/// What is agreed on a volume.
struct Agreed {
    length: u64,
    digest: [u8; 32],
    epoch: WriteEpoch,
    holders: Vec<DiskId>,
}

pub(super) async fn take_in(
    manager: &Manager,
    snapshot: &Snapshot,
    id: VolumeId,
    extents: &[FoundExtent],
    known: Option<&Volume>,
) -> (VolumeId, Result<Ended, CatalogError>) {
    (id, look(manager, snapshot, id, extents, known).await)
}

async fn look(
    manager: &Manager,
    snapshot: &Snapshot,
    id: VolumeId,
    extents: &[FoundExtent],
    known: Option<&Volume>,
) -> Result<Ended, CatalogError> {
    let stands = known.and_then(|known| Some((known.length?, known.digest?)));
    let epoch = highest_epoch(extents).max(known.map_or(WriteEpoch(0), |known| known.epoch));
    let (agreed, sealed) = match recover(extents, stands, COPIES) {
        Recovery::TakeIn { length, digest, holders, damaged } => {
            if damaged {
                tracing::error!(volume = %id, "every replica of this volume is damaged; what can be read of it is kept");
            }
            (Agreed { length, digest, epoch, holders }, false)
        }
        Recovery::Seal { voters, others } => match seal(manager, snapshot, id, epoch.next(), &voters, &others).await? {
            Ok(agreed) => (agreed, true),
            Err(ended) => return Ok(ended),
        },
        Recovery::Nothing(why) => return Ok(Ended::Not(why)),
    };
    let records = match records::insert(manager, snapshot, id, agreed.epoch, &agreed.holders).await? {
        Ok(records) => records,
        Err(ended) => return Ok(ended),
    };
    let was_known = known.is_some_and(|known| known.replicas == agreed.holders);
    let is_short = agreed.holders.len() < COPIES;
    let volume_bytes = |disk: &DiskId| snapshot.disk(*disk).map(|view| view.disk.info.volume_bytes);
    let found = FoundVolume {
        volume: id,
        epoch: agreed.epoch,
        capacity: agreed.holders.iter().filter_map(volume_bytes).min().unwrap_or(0).max(agreed.length),
        length: agreed.length,
        digest: agreed.digest,
        replicas: agreed.holders,
    };
    manager.catalog.table.take_in(manager.term, &found).await?;
    Ok(Ended::TakenIn { was_known, sealed, records, is_short })
}

/// Steps c to f of the seal (`docs/protocols.md`). The floor is what the index knows of, if it knows anything.
async fn seal(
    manager: &Manager,
    snapshot: &Snapshot,
    id: VolumeId,
    epoch: WriteEpoch,
    voters: &[DiskId],
    others: &[DiskId],
) -> Result<Result<Agreed, Ended>, CatalogError> {
    let floor = manager.catalog.index.fence(id).await?.map_or(0, |fence| fence.highest_end);
    let fences = join_all(voters.iter().map(|disk| fence(manager, snapshot, id, epoch, *disk))).await;
    let mut votes = Vec::new();
    for vote in fences {
        match vote {
            Ok(vote) => votes.extend(vote),
            Err(why) => return Ok(Err(Ended::Later(why))),
        }
    }
    if votes.is_empty() {
        return Ok(Err(Ended::Not("none of its replicas can be fenced: their disks take no writes".to_owned())));
    }
    let length = match decide_length(&votes, floor) {
        LengthDecision::Length { length, .. } => length,
        LengthDecision::Wait { why } => return Ok(Err(Ended::Not(why))),
    };
    let disks = voters.iter().chain(others);
    let orders = disks.map(|disk| order_seal(manager, snapshot, id, epoch, length, *disk));
    let mut answers = Vec::new();
    for (disk, answer) in join_all(orders).await {
        match answer {
            Ok(answer) => answers.push((disk, answer)),
            Err(why) if voters.contains(&disk) => return Ok(Err(Ended::Later(why))),
            Err(why) => answers.push((disk, Err(why))),
        }
    }
    match decide_seal(&answers) {
        SealDecision::Digest { digest, holders, dropped } => {
            for (disk, why) in dropped {
                tracing::warn!(volume = %id, %disk, why, "replica not taken in");
            }
            Ok(Ok(Agreed { length, digest, epoch, holders }))
        }
        SealDecision::Wait { why } => Ok(Err(Ended::Not(why))),
    }
}

/// A replica's vote; `None` where it cannot be fenced, so that what it holds tells nothing. Nothing was acknowledged that the
/// others do not hold, and the floor may be that of an index that was lost: the length is the others' alone. An error may pass.
async fn fence(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: VolumeId,
    epoch: WriteEpoch,
    disk: DiskId,
) -> Result<Option<Vote>, String> {
    let request = FenceRequest { disk, volume, epoch, term: manager.term.0 };
    let Some(view) = snapshot.disk(disk) else { return Err(format!("disk {disk} is gone")) };
    match within(FENCE_LIMIT, &view.address, manager.node(&view.address).fence(&request)).await {
        Ok(Tail { tail }) => Ok(Some(Vote { disk, tail: Some(tail), damaged: false })),
        Err(CallError::Api(error)) if error.code == code::DAMAGED => {
            Ok(Some(Vote { disk, tail: Some(0), damaged: true }))
        }
        Err(CallError::Api(error)) if [code::READ_ONLY, code::UNKNOWN_VOLUME].contains(&error.code.as_str()) => {
            Ok(None)
        }
        Err(error) => Err(format!("disk {disk} was not fenced: {error}")),
    }
}

/// A replica's digest, or why it has none; an outer error may pass.
async fn order_seal(
    manager: &Manager,
    snapshot: &Snapshot,
    volume: VolumeId,
    epoch: WriteEpoch,
    length: u64,
    disk: DiskId,
) -> (DiskId, Result<Result<[u8; 32], String>, String>) {
    let request = SealRequest { disk, volume, epoch, length, term: manager.term.0 };
    let Some(view) = snapshot.disk(disk) else { return (disk, Err(format!("disk {disk} is gone"))) };
    let answer = match within(SEAL_LIMIT, &view.address, manager.node(&view.address).seal(&request)).await {
        Ok(sealed) => {
            let mut digest = [0; 32];
            let decoded = hex::decode_to_slice(&sealed.digest, &mut digest);
            Ok(decoded.map(|()| digest).map_err(|_| "the digest is no SHA-256".to_owned()))
        }
        Err(CallError::Api(error)) if is_final(&error.code) => Ok(Err(error.message)),
        Err(error) => Err(format!("disk {disk} was not sealed: {error}")),
    };
    (disk, answer)
}

/// Answers that asking again will not change.
fn is_final(answered: &str) -> bool {
    [
        code::TOO_SHORT,
        code::DAMAGED,
        code::UNKNOWN_VOLUME,
        code::UNKNOWN_DISK,
        code::READ_ONLY,
        code::NOT_A_BOUNDARY,
        code::SEALED_OTHERWISE,
    ]
    .contains(&answered)
}
