//! What may happen next to a volume or a disk: decisions about rows that were just read, which the stores carry out in the
//! same transaction. They stand here once, so that no store decides otherwise.

use std::time::Duration;

use holdfast_libs_types::{DiskId, NodeId, VolumeId, WriteEpoch};

use crate::CatalogError;
use crate::table::{Candidate, DiskInfo, FoundVolume, Leader, LengthCommitted, NewVolume, Term, Volume, VolumeState};

/// Whether something is still to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// It was written before, as this.
    Stands(T),
    /// Write this.
    Write(T),
}

/// The term is the current one.
pub(crate) fn check_term(given: Term, current: Term) -> Result<(), CatalogError> {
    if current == given { Ok(()) } else { Err(CatalogError::StaleTerm { given, current }) }
}

/// The leader's row, with the time of the database's clock when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderRow {
    pub term: Term,
    pub holder: Option<String>,
    pub address: Option<String>,
    /// Milliseconds since 1970.
    pub expires_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub now_ms: i64,
}

impl LeaderRow {
    /// Who holds the lease.
    pub fn leader(&self) -> Option<Leader> {
        let left = self.expires_ms.unwrap_or(0).saturating_sub(self.now_ms);
        Some(Leader {
            holder: self.holder.clone()?,
            address: self.address.clone().unwrap_or_default(),
            term: self.term,
            remaining: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        })
    }
}

/// Who keeps a candidate from leading; None when nobody does.
pub(crate) fn in_the_way(row: &LeaderRow, candidate: &Candidate) -> Option<Leader> {
    row.leader().filter(|leader| leader.holder != candidate.holder && !leader.remaining.is_zero())
}

/// Names and addresses fit their columns, and a name is none only when the lease is free.
pub(crate) fn check_candidate(candidate: &Candidate) -> Result<(), CatalogError> {
    let bad = |what, length, wanted| Err(CatalogError::BadCandidate { what, length, wanted });
    if !(1..=255).contains(&candidate.holder.len()) {
        return bad("a name", candidate.holder.len(), "1 to 255 bytes");
    }
    if candidate.address.len() > 1024 {
        return bad("an address", candidate.address.len(), "at most 1024 bytes");
    }
    Ok(())
}

/// A lease in milliseconds, as it is added to the database's clock.
pub(crate) fn lease_ms(ttl: Duration) -> i64 {
    // A year at most, so that no sum overflows.
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).min(366 * 86_400_000)
}

/// What stands as the reason of a volume that was taken in from the disks.
pub(crate) const FOUND: &str = "found on the disks when the catalog was rebuilt";

/// Whether to write the term; it was written before when it stands already.
pub(crate) fn raise_term(given: Term, above: Term, current: Term) -> Result<bool, CatalogError> {
    if current == above && given < above {
        return Ok(false);
    }
    check_term(given, current)?;
    Ok(above > current)
}

/// Volumes are taken in, and forgotten, only while the catalog is known not to be whole.
pub(crate) fn check_lost(mark: Option<String>) -> Result<(), CatalogError> {
    mark.map(drop).ok_or(CatalogError::NotLost)
}

/// Whether to write a volume's row; its replicas are written in any case.
pub(crate) fn take_in(known: Option<&Volume>, found: &FoundVolume) -> Result<bool, CatalogError> {
    let volume = found.volume;
    check_replicas(volume, &found.replicas)?;
    match known {
        Some(known) if known.state == VolumeState::Sealed => {
            if known.length == Some(found.length) && known.digest == Some(found.digest) {
                return Ok(known.epoch < found.epoch);
            }
            let why = format!("its disks hold {} bytes of another digest", found.length);
            Err(CatalogError::SealConflict { volume, why })
        }
        _ => Ok(true),
    }
}

/// The generation that follows.
pub(crate) fn generation_above(current: u32, above: u32) -> Result<u32, CatalogError> {
    let highest = current.max(above);
    highest.checked_add(1).ok_or(CatalogError::TooLarge { what: "generation", value: u64::from(highest) })
}

/// Whether to insert the new volume.
pub(crate) fn create(found: Option<&Volume>, new: &NewVolume) -> Result<bool, CatalogError> {
    let Some(found) = found else { return Ok(true) };
    let same = found.state == VolumeState::Creating
        && found.epoch == new.epoch
        && found.holder == Some(new.holder)
        && found.capacity == new.capacity
        && found.replicas == new.disks;
    if same { Ok(false) } else { Err(CatalogError::VolumeExists(new.volume)) }
}

/// Whether to turn it from `creating` to `to`.
pub(crate) fn leave_creating(found: &Volume, to: VolumeState) -> Result<bool, CatalogError> {
    match found.state {
        state if state == to => Ok(false),
        VolumeState::Creating => Ok(true),
        state => Err(CatalogError::WrongState { volume: found.volume, state, wanted: "creating" }),
    }
}

/// The sealing epoch.
pub(crate) fn begin_seal(found: &Volume, from_epoch: WriteEpoch) -> Result<Next<WriteEpoch>, CatalogError> {
    let volume = found.volume;
    match found.state {
        VolumeState::Sealing | VolumeState::Sealed if from_epoch <= found.epoch => Ok(Next::Stands(found.epoch)),
        VolumeState::Open if from_epoch == found.epoch => Ok(Next::Write(found.epoch.next())),
        VolumeState::Sealing | VolumeState::Sealed | VolumeState::Open => {
            Err(CatalogError::WrongEpoch { volume, given: from_epoch, current: found.epoch })
        }
        state => Err(CatalogError::WrongState { volume, state, wanted: "open, sealing or sealed" }),
    }
}

/// The length.
pub(crate) fn commit_length(
    found: &Volume,
    epoch: WriteEpoch,
    length: u64,
) -> Result<Next<LengthCommitted>, CatalogError> {
    let volume = found.volume;
    if !matches!(found.state, VolumeState::Sealing | VolumeState::Sealed) {
        return Err(CatalogError::WrongState { volume, state: found.state, wanted: "sealing" });
    }
    if epoch != found.epoch {
        return Err(CatalogError::WrongEpoch { volume, given: epoch, current: found.epoch });
    }
    if let Some(stands) = found.length {
        return Ok(Next::Stands(LengthCommitted(stands)));
    }
    if length > found.capacity {
        let why = format!("length {length} exceeds its capacity of {} bytes", found.capacity);
        return Err(CatalogError::SealConflict { volume, why });
    }
    Ok(Next::Write(LengthCommitted(length)))
}

/// Whether to write digest and holders.
pub(crate) fn commit_seal(found: &Volume, digest: &[u8; 32], replicas: &[DiskId]) -> Result<bool, CatalogError> {
    let volume = found.volume;
    let conflict = |why: &str| Err(CatalogError::SealConflict { volume, why: why.to_owned() });
    match found.state {
        VolumeState::Sealing => {}
        VolumeState::Sealed if found.digest.as_ref() == Some(digest) => return Ok(false),
        VolumeState::Sealed => return conflict("another digest is committed"),
        state => return Err(CatalogError::WrongState { volume, state, wanted: "sealing" }),
    }
    if found.length.is_none() {
        return conflict("no length is committed");
    }
    if let Some(disk) = replicas.iter().find(|disk| !found.replicas.contains(disk)) {
        return Err(CatalogError::BadReplicas { volume, why: format!("disk {disk} is no replica of it") });
    }
    check_replicas(volume, replicas)?;
    Ok(true)
}

/// Whether to write the new list.
pub(crate) fn set_replicas(found: &Volume, expected_old: &[DiskId], new: &[DiskId]) -> Result<bool, CatalogError> {
    let volume = found.volume;
    if found.state != VolumeState::Sealed {
        return Err(CatalogError::WrongState { volume, state: found.state, wanted: "sealed" });
    }
    if found.replicas == new {
        return Ok(false);
    }
    if found.replicas != expected_old {
        return Err(CatalogError::ReplicasChanged { volume, found: found.replicas.clone() });
    }
    check_replicas(volume, new)?;
    Ok(true)
}

/// A setting must fit its columns in every store.
pub(crate) fn check_setting(key: &str, value: Option<&str>) -> Result<(), CatalogError> {
    let bad = |what, length, wanted| Err(CatalogError::BadSetting { what, length, wanted });
    if !(1..=255).contains(&key.len()) {
        return bad("key", key.len(), "1 to 255");
    }
    match value {
        Some(value) if value.len() > 65_535 => bad("value", value.len(), "at most 65535"),
        _ => Ok(()),
    }
}

/// A list of replicas names at least one disk, and none twice.
pub(crate) fn check_replicas(volume: VolumeId, disks: &[DiskId]) -> Result<(), CatalogError> {
    let bad = |why: &str| Err(CatalogError::BadReplicas { volume, why: why.to_owned() });
    if disks.is_empty() {
        return bad("the list is empty");
    }
    if (1..disks.len()).any(|at| disks[..at].contains(&disks[at])) {
        return bad("a disk stands in the list twice");
    }
    Ok(())
}

/// Who registered a disk, with the nonce that stands.
pub(crate) type Registrant = Option<(NodeId, u64)>;

/// A report is taken only from the node that registered the disk.
pub(crate) fn check_report(registered: Registrant, info: &DiskInfo) -> Result<(), CatalogError> {
    match registered {
        None => Err(CatalogError::UnknownDisk(info.disk)),
        Some((node, _)) if node != info.node => Err(CatalogError::DiskElsewhere { disk: info.disk, node }),
        Some(_) => Ok(()),
    }
}

/// Why a proposed incarnation is refused; None when it is accepted.
pub(crate) fn refusal(registered: Registrant, info: &DiskInfo, previous_nonce: u64, nonce: u64) -> Option<String> {
    if nonce == 0 {
        // 0 is what a disk shows that was never registered.
        return Some("nonce 0 proposes no incarnation".to_owned());
    }
    match registered {
        // After a restore nobody knows which nonce stands: the disks went on since the copy was made.
        Some((_, 0)) => None,
        Some((node, stands)) if stands != previous_nonce && stands != nonce => Some(format!(
            "disk {} was registered by node {node} since this copy of it was: it is a clone, a restored snapshot, or an old disk \
             put back",
            info.disk
        )),
        _ => None,
    }
}
