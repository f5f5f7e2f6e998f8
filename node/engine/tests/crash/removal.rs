//! Operations that remove extents: the trash, the way back, and the erase. And copies that are given up.

use std::time::Duration;

use holdfast_libs_types::VolumeId;
use holdfast_node_engine::{Disk, EngineError, TrashOrder};

use crate::model::{Known, Volume};
use crate::operations::observe;
use crate::simulation::{Running, Simulation};

impl Simulation {
    /// Orders an extent into the trash.
    pub fn trash(&mut self, disk: Disk) -> Option<Running> {
        let whole = |volume: &Volume| !volume.is_copy || volume.sealed.is_some();
        let id = self.pick(|v| whole(v) && v.exists == Known::Yes && !v.moving && v.trashed == Known::No)?;
        let order: [u8; 16] = self.ops.bytes();
        let term = self.model.highest_term();
        let volume = self.model.volumes.get_mut(&id)?;
        (volume.moving, volume.trashed) = (true, Known::Maybe);
        volume.orders.push(order);
        Some(Box::pin(async move {
            let result = order_trash(&disk, id, term, order).await;
            observe(move |model, summary| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                volume.moving = false;
                match result {
                    Ok(()) => {
                        (volume.trashed, volume.writer) = (Known::Yes, false);
                        volume.term_known = volume.term_known.max(term);
                        summary.trashed += 1;
                    }
                    Err(EngineError::WrongOrder { .. } | EngineError::WrongState { .. }) => {
                        return Err(format!("order to trash {id}: {result:?}, model {volume:?}"));
                    }
                    Err(_) => (volume.writer, volume.trash_failed) = (false, true),
                }
                Ok(())
            })
        }))
    }

    /// Takes an extent out of it again.
    pub fn restore(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| volume.trashed != Known::No && !volume.moving)?;
        let term = self.model.highest_term();
        let volume = self.model.volumes.get_mut(&id)?;
        (volume.moving, volume.trashed) = (true, Known::Maybe);
        Some(Box::pin(async move {
            let result = async {
                let info = disk.extent(id).await?;
                disk.restore(id, info.slot, info.slot_generation, term).await
            };
            let result = result.await;
            observe(move |model, summary| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                volume.moving = false;
                match result {
                    Ok(()) => {
                        // An order whose write failed may still come to light.
                        volume.trashed = if volume.trash_failed { Known::Maybe } else { Known::No };
                        // Out of reach of an erase that looked for trash before.
                        volume.exists = Known::Yes;
                        summary.restored += 1;
                    }
                    Err(EngineError::UnknownVolume { .. }) if volume.exists == Known::Yes => {
                        return Err(format!("restore: {id} is gone, model {volume:?}"));
                    }
                    Err(_) => {}
                }
                Ok(())
            })
        }))
    }

    /// Erases the trash, all of it or (by its age) none.
    pub fn erase(&mut self, disk: Disk) -> Running {
        let retention = Duration::from_secs(if self.ops.chance(700) { 0 } else { 3600 });
        if retention.is_zero() {
            let trash = self.model.volumes.values_mut().filter(|volume| volume.trashed != Known::No);
            trash.for_each(|volume| volume.exists = Known::Maybe);
        }
        Box::pin(async move {
            let result = disk.erase_expired(retention).await;
            observe(move |model, summary| {
                for erased in result.unwrap_or_default() {
                    let known = model.volumes.get(&erased.volume);
                    let ordered = known.is_some_and(|volume| {
                        volume.trashed != Known::No && volume.orders.contains(&erased.order) && retention.is_zero()
                    });
                    if !ordered {
                        return Err(format!("erased {erased:?} with retention {retention:?}, model {known:?}"));
                    }
                    model.volumes.remove(&erased.volume);
                    summary.erased += 1;
                }
                Ok(())
            })
        })
    }

    /// Gives a copy up; its slot can be taken again.
    pub fn abort_copy(&mut self, disk: Disk) -> Option<Running> {
        let idle = |volume: &Volume| volume.is_copy && volume.sealed.is_none() && volume.copying == 0;
        let id = self.pick(|volume| idle(volume) && !volume.moving)?;
        let volume = self.model.volumes.get_mut(&id)?;
        (volume.moving, volume.exists) = (true, Known::Maybe);
        Some(Box::pin(async move {
            let result = disk.abort_copy(id).await;
            observe(move |model, _| {
                match result {
                    Ok(()) => drop(model.volumes.remove(&id)),
                    // Of a copy that was never finished; one whose end was not answered may be sealed.
                    Err(EngineError::WrongState { .. })
                        if model.volumes.get(&id).is_some_and(|volume| volume.seals_asked.is_empty()) =>
                    {
                        return Err(format!("copy {id} could not be given up"));
                    }
                    Err(_) => {
                        if let Some(volume) = model.volumes.get_mut(&id) {
                            volume.moving = false;
                        }
                    }
                }
                Ok(())
            })
        }))
    }
}

/// As the volume manager does it: by what the node lists.
async fn order_trash(disk: &Disk, volume: VolumeId, term: u64, order: [u8; 16]) -> Result<(), EngineError> {
    let info = disk.extent(volume).await?;
    let (slot, slot_generation) = (info.slot, info.slot_generation);
    disk.trash(TrashOrder { volume, slot, slot_generation, term, order }).await
}
