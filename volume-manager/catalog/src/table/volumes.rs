//! The first half of a volume's life: made, opened, leased; and the replicas of its second half.

use holdfast_libs_types::{DiskId, InstanceId, VolumeId};

use super::{NewVolume, ReplicationTable, Term, VolumeState, known, reader, write_replicas};
use crate::CatalogError;
use crate::database::int;

impl ReplicationTable {
    /// Writes down a volume that is about to be made, in state `creating`.
    ///
    /// # Errors
    /// `StaleTerm`; `VolumeExists` when the id is taken by anything but this very volume in state `creating`; `UnknownDisk`,
    /// `BadReplicas`.
    pub fn create_volume(&self, term: Term, new: &NewVolume) -> Result<(), CatalogError> {
        let epoch = int("write epoch", new.epoch.0)?;
        let capacity = int("capacity", new.capacity)?;
        let expires = int("the lease's end", new.lease_expires_ms)?;
        self.write(term, |tx| {
            if let Some(found) = reader::volume(tx, new.volume)? {
                let same = found.state == VolumeState::Creating
                    && found.epoch == new.epoch
                    && found.holder == Some(new.holder)
                    && found.capacity == new.capacity
                    && found.replicas == new.disks;
                return if same { Ok(()) } else { Err(CatalogError::VolumeExists(new.volume)) };
            }
            tx.prepare_cached(
                "INSERT INTO volumes (volume, state, epoch, capacity, holder, lease_expires_ms)
                 VALUES (?1, 'creating', ?2, ?3, ?4, ?5)",
            )?
            .execute((new.volume.as_bytes(), epoch, capacity, new.holder.as_bytes(), expires))?;
            write_replicas(tx, new.volume, &new.disks)
        })
    }

    /// `creating` -> `open`.
    ///
    /// # Errors
    /// `StaleTerm`, `UnknownVolume`, `WrongState`.
    pub fn open_volume(&self, term: Term, volume: VolumeId) -> Result<(), CatalogError> {
        self.write(term, |tx| match known(tx, volume)?.state {
            VolumeState::Open => Ok(()),
            VolumeState::Creating => {
                tx.prepare_cached("UPDATE volumes SET state = 'open' WHERE volume = ?1")?
                    .execute([volume.as_bytes()])?;
                Ok(())
            }
            state => Err(CatalogError::WrongState { volume, state, wanted: "creating" }),
        })
    }

    /// `creating` -> `failed`: it could not be made. A volume that a writer may have is sealed instead.
    ///
    /// # Errors
    /// `StaleTerm`, `UnknownVolume`, `WrongState`.
    pub fn fail_volume(&self, term: Term, volume: VolumeId, reason: &str) -> Result<(), CatalogError> {
        self.write(term, |tx| match known(tx, volume)?.state {
            VolumeState::Failed => Ok(()),
            VolumeState::Creating => {
                tx.prepare_cached(
                    "UPDATE volumes SET state = 'failed', seal_reason = ?2, holder = NULL, lease_expires_ms = NULL
                     WHERE volume = ?1",
                )?
                .execute((volume.as_bytes(), reason))?;
                Ok(())
            }
            state => Err(CatalogError::WrongState { volume, state, wanted: "creating" }),
        })
    }

    /// Moves the end of the leases that `holder` has on these volumes to `expires_ms` (never to an earlier time). Answers
    /// those that were kept: the open ones of this holder. A lease that ran out is kept too, as long as no seal has begun.
    ///
    /// # Errors
    /// `StaleTerm`, `TooLarge`.
    pub fn renew_leases(
        &self,
        term: Term,
        holder: InstanceId,
        volumes: &[VolumeId],
        expires_ms: u64,
    ) -> Result<Vec<VolumeId>, CatalogError> {
        let expires = int("the lease's end", expires_ms)?;
        self.write(term, |tx| {
            let mut renew = tx.prepare_cached(
                "UPDATE volumes SET lease_expires_ms = max(lease_expires_ms, ?3)
                 WHERE volume = ?1 AND state = 'open' AND holder = ?2",
            )?;
            let mut kept = Vec::with_capacity(volumes.len());
            for volume in volumes {
                if renew.execute((volume.as_bytes(), holder.as_bytes(), expires))? == 1 {
                    kept.push(*volume);
                }
            }
            Ok(kept)
        })
    }

    /// Replaces the replicas of a sealed volume by compare-and-set.
    ///
    /// # Errors
    /// `ReplicasChanged` when the list is neither `expected_old` nor already `new`; `WrongState` before it is sealed;
    /// `StaleTerm`, `UnknownVolume`, `UnknownDisk`, `BadReplicas`.
    pub fn set_replicas(
        &self,
        term: Term,
        volume: VolumeId,
        expected_old: &[DiskId],
        new: &[DiskId],
    ) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            let found = known(tx, volume)?;
            if found.state != VolumeState::Sealed {
                return Err(CatalogError::WrongState { volume, state: found.state, wanted: "sealed" });
            }
            if found.replicas == new {
                return Ok(());
            }
            if found.replicas != expected_old {
                return Err(CatalogError::ReplicasChanged { volume, found: found.replicas });
            }
            write_replicas(tx, volume, new)
        })
    }
}
