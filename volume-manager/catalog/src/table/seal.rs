//! The table's part in the seal protocol: steps a, e and f of `docs/protocols.md`.

use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};

use super::{LengthCommitted, ReplicationTable, Term, VolumeState, known, write_replicas};
use crate::CatalogError;
use crate::database::int;

impl ReplicationTable {
    /// Step a: `open` -> `sealing` with the epoch raised by one. Answers the sealing epoch; a volume that is sealing or
    /// sealed already answers the one it has, and keeps its reason.
    ///
    /// # Errors
    /// `WrongEpoch` when an open volume is not at `from_epoch`, or any volume is below it; `WrongState` when it is `creating`
    /// or `failed`; `StaleTerm`, `UnknownVolume`.
    pub fn begin_seal(
        &self,
        term: Term,
        volume: VolumeId,
        from_epoch: WriteEpoch,
        reason: &str,
    ) -> Result<WriteEpoch, CatalogError> {
        self.write(term, |tx| {
            let found = known(tx, volume)?;
            let wrong_epoch = CatalogError::WrongEpoch { volume, given: from_epoch, current: found.epoch };
            match found.state {
                VolumeState::Sealing | VolumeState::Sealed if from_epoch <= found.epoch => Ok(found.epoch),
                VolumeState::Open if from_epoch == found.epoch => {
                    let epoch = found.epoch.next();
                    tx.prepare_cached(
                        "UPDATE volumes SET state = 'sealing', epoch = ?2, seal_reason = ?3 WHERE volume = ?1",
                    )?
                    .execute((volume.as_bytes(), int("write epoch", epoch.0)?, reason))?;
                    Ok(epoch)
                }
                VolumeState::Sealing | VolumeState::Sealed | VolumeState::Open => Err(wrong_epoch),
                state => Err(CatalogError::WrongState { volume, state, wanted: "open, sealing or sealed" }),
            }
        })
    }

    /// Step e: commits the length, in bytes, if none is committed yet. Answers the one that stands: it is the first, ever.
    ///
    /// # Errors
    /// `WrongEpoch` when `epoch` is not the sealing epoch; `WrongState` when the volume is not sealing or sealed;
    /// `SealConflict` when the length exceeds its capacity; `StaleTerm`, `UnknownVolume`.
    pub fn commit_length(
        &self,
        term: Term,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
    ) -> Result<LengthCommitted, CatalogError> {
        let number = int("length", length)?;
        self.write(term, |tx| {
            let found = known(tx, volume)?;
            if !matches!(found.state, VolumeState::Sealing | VolumeState::Sealed) {
                return Err(CatalogError::WrongState { volume, state: found.state, wanted: "sealing" });
            }
            if epoch != found.epoch {
                return Err(CatalogError::WrongEpoch { volume, given: epoch, current: found.epoch });
            }
            if let Some(stands) = found.length {
                return Ok(LengthCommitted(stands));
            }
            if length > found.capacity {
                let why = format!("length {length} exceeds its capacity of {} bytes", found.capacity);
                return Err(CatalogError::SealConflict { volume, why });
            }
            tx.prepare_cached("UPDATE volumes SET length = ?2 WHERE volume = ?1 AND length IS NULL")?
                .execute((volume.as_bytes(), number))?;
            Ok(LengthCommitted(length))
        })
    }

    /// Step f: commits digest and holders, `sealing` -> `sealed`. `replicas` are those of the volume's disks that verified
    /// this digest. Repeating it on a sealed volume with the same digest changes nothing, whatever its replicas are by then.
    ///
    /// # Errors
    /// `SealConflict` without a committed length or with another digest committed; `BadReplicas` when the list is empty or
    /// names a disk that is no replica; `WrongState`, `StaleTerm`, `UnknownVolume`.
    pub fn commit_seal(
        &self,
        term: Term,
        volume: VolumeId,
        digest: [u8; 32],
        replicas: &[DiskId],
    ) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            let found = known(tx, volume)?;
            let conflict = |why: &str| Err(CatalogError::SealConflict { volume, why: why.to_owned() });
            match found.state {
                VolumeState::Sealing => {}
                VolumeState::Sealed if found.digest == Some(digest) => return Ok(()),
                VolumeState::Sealed => return conflict("another digest is committed"),
                state => return Err(CatalogError::WrongState { volume, state, wanted: "sealing" }),
            }
            if found.length.is_none() {
                return conflict("no length is committed");
            }
            if let Some(disk) = replicas.iter().find(|disk| !found.replicas.contains(disk)) {
                return Err(CatalogError::BadReplicas { volume, why: format!("disk {disk} is no replica of it") });
            }
            tx.prepare_cached(
                "UPDATE volumes SET state = 'sealed', digest = ?2, holder = NULL, lease_expires_ms = NULL
                 WHERE volume = ?1",
            )?
            .execute((volume.as_bytes(), digest))?;
            write_replicas(tx, volume, replicas)
        })
    }
}
