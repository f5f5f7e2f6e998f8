//! The first half of a volume's life: made, opened, leased; and the replicas of its second half.

use holdfast_libs_types::{DiskId, InstanceId, VolumeId};

use super::{TableFile, known, reader, write_replicas};
use crate::number::int;
use crate::table::{NewVolume, Term, VolumeState};
use crate::{CatalogError, rules};

impl TableFile {
    pub fn create_volume(&self, term: Term, new: &NewVolume) -> Result<(), CatalogError> {
        let epoch = int("write epoch", new.epoch.0)?;
        let capacity = int("capacity", new.capacity)?;
        let expires = int("the lease's end", new.lease_expires_ms)?;
        self.write(term, |tx| {
            if !rules::create(reader::volume(tx, new.volume)?.as_ref(), new)? {
                return Ok(());
            }
            rules::check_replicas(new.volume, &new.disks)?;
            tx.prepare_cached(
                "INSERT INTO volumes (volume, state, epoch, capacity, holder, lease_expires_ms)
                 VALUES (?1, 'creating', ?2, ?3, ?4, ?5)",
            )?
            .execute((new.volume.as_bytes(), epoch, capacity, new.holder.as_bytes(), expires))?;
            write_replicas(tx, new.volume, &new.disks)
        })
    }

    pub fn open_volume(&self, term: Term, volume: VolumeId) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            if rules::leave_creating(&known(tx, volume)?, VolumeState::Open)? {
                tx.prepare_cached("UPDATE volumes SET state = 'open' WHERE volume = ?1")?
                    .execute([volume.as_bytes()])?;
            }
            Ok(())
        })
    }

    pub fn fail_volume(&self, term: Term, volume: VolumeId, reason: &str) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            if rules::leave_creating(&known(tx, volume)?, VolumeState::Failed)? {
                tx.prepare_cached(
                    "UPDATE volumes SET state = 'failed', seal_reason = ?2, holder = NULL, lease_expires_ms = NULL
                     WHERE volume = ?1",
                )?
                .execute((volume.as_bytes(), reason))?;
            }
            Ok(())
        })
    }

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

    pub fn set_replicas(
        &self,
        term: Term,
        volume: VolumeId,
        expected_old: &[DiskId],
        new: &[DiskId],
    ) -> Result<(), CatalogError> {
        self.write(term, |tx| match rules::set_replicas(&known(tx, volume)?, expected_old, new)? {
            true => write_replicas(tx, volume, new),
            false => Ok(()),
        })
    }
}
