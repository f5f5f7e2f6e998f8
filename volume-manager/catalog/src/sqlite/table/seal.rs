//! The table's part in the seal protocol: steps a, e and f of `docs/protocols.md`.

use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};

use super::{TableFile, known, write_replicas};
use crate::number::int;
use crate::rules::Next;
use crate::table::{LengthCommitted, Term};
use crate::{CatalogError, rules};

impl TableFile {
    pub fn begin_seal(
        &self,
        term: Term,
        volume: VolumeId,
        from_epoch: WriteEpoch,
        reason: &str,
    ) -> Result<WriteEpoch, CatalogError> {
        self.write(term, |tx| match rules::begin_seal(&known(tx, volume)?, from_epoch)? {
            Next::Stands(epoch) => Ok(epoch),
            Next::Write(epoch) => {
                tx.prepare_cached(
                    "UPDATE volumes SET state = 'sealing', epoch = ?2, seal_reason = ?3 WHERE volume = ?1",
                )?
                .execute((volume.as_bytes(), int("write epoch", epoch.0)?, reason))?;
                Ok(epoch)
            }
        })
    }

    pub fn commit_length(
        &self,
        term: Term,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
    ) -> Result<LengthCommitted, CatalogError> {
        let number = int("length", length)?;
        self.write(term, |tx| match rules::commit_length(&known(tx, volume)?, epoch, length)? {
            Next::Stands(length) => Ok(length),
            Next::Write(length) => {
                tx.prepare_cached("UPDATE volumes SET length = ?2 WHERE volume = ?1 AND length IS NULL")?
                    .execute((volume.as_bytes(), number))?;
                Ok(length)
            }
        })
    }

    pub fn commit_seal(
        &self,
        term: Term,
        volume: VolumeId,
        digest: [u8; 32],
        replicas: &[DiskId],
    ) -> Result<(), CatalogError> {
        self.write(term, |tx| {
            if !rules::commit_seal(&known(tx, volume)?, &digest, replicas)? {
                return Ok(());
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
