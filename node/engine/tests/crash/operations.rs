//! The operations a seed is made of: each asks the engine, and tells the model what it answered.

use holdfast_libs_types::{VolumeId, WriteEpoch};
use holdfast_node_engine::{Disk, EngineError, ExtentState, Finding, Incarnation, Place};

use crate::model::{Batch, Known, Model, Volume};
use crate::simulation::{Observe, Running, SLOT_BYTES, Simulation, Summary, key_name};
use crate::support::{aligned, batch};

pub const EPOCH: WriteEpoch = WriteEpoch(5);

impl Simulation {
    pub fn operation(&mut self, disk: &Disk) -> Option<Running> {
        let disk = disk.clone();
        match self.ops.below(100) {
            0..12 => Some(self.create(disk)),
            12..47 => self.append(disk),
            47..58 => self.odd_append(disk),
            58..66 => self.fence(disk),
            66..72 => self.seal(disk),
            72..83 => self.read(disk),
            83..89 => self.copy(disk),
            89..91 => self.write_keys(disk),
            91..93 => self.confirm(disk),
            93 => self.abort_copy(disk),
            94..96 => self.trash(disk),
            96 => self.restore(disk),
            97 => Some(self.erase(disk)),
            _ => Some(self.scrub(disk)),
        }
    }

    pub fn fresh_volume(&mut self) -> VolumeId {
        self.next_volume += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.next_volume.to_be_bytes());
        VolumeId::from_parts(1, id)
    }

    pub fn pick(&mut self, filter: impl Fn(&Volume) -> bool) -> Option<VolumeId> {
        let ids: Vec<_> = self.model.volumes.values().filter(|volume| filter(volume)).map(|volume| volume.id).collect();
        (!ids.is_empty()).then(|| ids[self.ops.index(ids.len())])
    }

    fn payloads(&mut self) -> Vec<Vec<u8>> {
        let count = 1 + self.ops.index(3);
        (0..count)
            .map(|_| {
                let most = if self.ops.chance(100) { 40_000 } else { 5000 };
                let mut payload = vec![0; self.ops.index(most)];
                self.ops.fill(&mut payload);
                payload
            })
            .collect()
    }

    fn create(&mut self, disk: Disk) -> Running {
        let id = self.fresh_volume();
        self.model.insert(Volume::new(id, EPOCH, false));
        Box::pin(async move {
            let result = disk.create_extent(id, EPOCH).await;
            observe(move |model, _| {
                match (result, model.volumes.get_mut(&id)) {
                    (Ok(()), Some(volume)) => (volume.exists, volume.writer) = (Known::Yes, true),
                    (Err(EngineError::NoSpace { .. }), _) => drop(model.volumes.remove(&id)),
                    (Err(EngineError::Io { .. } | EngineError::ReadOnly { .. } | EngineError::Busy { .. }), _) => {}
                    (result, volume) => return Err(format!("create {id}: {result:?}, model {volume:?}")),
                }
                Ok(())
            })
        })
    }

    /// The writer's next batch, or again the one it has no answer to.
    fn append(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| volume.writer && volume.exists == Known::Yes)?;
        let payloads = self.payloads();
        let volume = self.model.volumes.get_mut(&id)?;
        if volume.batches.last().is_none_or(|last| last.acknowledged) {
            let offset = volume.sent();
            let (bytes, records) = batch(id, EPOCH, offset, offset, &payloads);
            volume.batches.push(Batch { offset, bytes, records, acknowledged: false });
        }
        let ended = volume.ended();
        let sent = volume.batches.last()?.clone();
        Some(Box::pin(async move {
            let result = disk.append(id, EPOCH, sent.offset, aligned(&sent.bytes)).await;
            observe(move |model, summary| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                match result {
                    Ok(end) if end == sent.end() && !ended => {
                        let found = volume.batches.iter_mut().find(|batch| batch.offset == sent.offset);
                        found.ok_or("the model lost a batch")?.acknowledged = true;
                        summary.acknowledged_appends += 1;
                    }
                    Ok(end) => return Err(format!("append to {id} (ended: {ended}) answered {end}")),
                    Err(EngineError::Busy { .. }) => {}
                    Err(EngineError::VolumeFull { .. }) => {
                        volume.writer = false;
                        volume.batches.retain(|batch| batch.acknowledged);
                    }
                    // A repeat that could not be compared says nothing.
                    Err(EngineError::Damaged { .. }) => {}
                    Err(
                        EngineError::Fenced { .. }
                        | EngineError::NoAppends { .. }
                        | EngineError::WrongState { state: ExtentState::Trashed, .. }
                        | EngineError::Io { .. }
                        | EngineError::ReadOnly { .. },
                    ) => volume.writer = false,
                    // It waited while an order took the extent away.
                    Err(EngineError::UnknownVolume { .. }) if volume.exists != Known::Yes => volume.writer = false,
                    Err(error) => return Err(format!("append to {id} at {}: {error}", sent.offset)),
                }
                Ok(())
            })
        }))
    }

    /// What must never be acknowledged: other bytes at an old place, an old epoch, a gap. And a repeat, which may.
    fn odd_append(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| !volume.is_copy && volume.acknowledged() > 0)?;
        let payloads = self.payloads();
        let kind = self.ops.below(4);
        let volume = &self.model.volumes[&id];
        let old = volume.batches[self.ops.index(volume.batches.len())].clone();
        if !old.acknowledged {
            return None;
        }
        let ended = volume.ended();
        let (epoch, offset, bytes) = match kind {
            0 => (EPOCH, old.offset, old.bytes.clone()),
            1 => (EPOCH, old.offset, batch(id, EPOCH, old.offset, 0, &payloads).0),
            2 => (WriteEpoch(4), volume.sent(), batch(id, WriteEpoch(4), volume.sent(), 0, &payloads).0),
            _ => {
                // Where the tail cannot come while this waits for its turn.
                let offset = volume.sent() + SLOT_BYTES;
                (EPOCH, offset, batch(id, EPOCH, offset, 0, &payloads).0)
            }
        };
        let same = bytes == old.bytes && offset == old.offset;
        Some(Box::pin(async move {
            let result = disk.append(id, epoch, offset, aligned(&bytes)).await;
            observe(move |_, _| match result {
                Ok(_) if !same || ended => Err(format!("odd append {kind} to {id} at {offset} was taken")),
                Err(EngineError::ConflictingRepeat { .. }) if same => {
                    Err(format!("repeat to {id} at {offset} was called a conflict"))
                }
                _ => Ok(()),
            })
        }))
    }

    fn fence(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| !volume.is_copy && volume.exists == Known::Yes)?;
        let step = self.ops.below(3);
        let volume = self.model.volumes.get_mut(&id)?;
        let epoch = (volume.epoch_known + step).saturating_sub(1);
        let term = volume.term_known + self.ops.below(2);
        let too_low = epoch < volume.epoch_known;
        volume.epoch_asked = volume.epoch_asked.max(epoch);
        volume.fenced = volume.fenced.max(Known::Maybe);
        let acknowledged = volume.acknowledged();
        Some(Box::pin(async move {
            let result = disk.fence(id, WriteEpoch(epoch), term).await;
            let is_short = result.as_ref().is_ok_and(|tail| *tail < acknowledged);
            let excused = is_short && is_unreadable(&disk, id).await;
            observe(move |model, _| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                match result {
                    Ok(tail) => {
                        if too_low || (is_short && !excused) || tail > volume.sent() {
                            return Err(format!("fence {epoch} of {id} answered {tail}: {volume:?}"));
                        }
                        (volume.fenced, volume.writer) = (Known::Yes, false);
                        volume.epoch_known = volume.epoch_known.max(epoch);
                        volume.term_known = volume.term_known.max(term);
                        // The tail it answered is a promise too.
                        volume.batches.iter_mut().filter(|b| b.end() <= tail).for_each(|b| b.acknowledged = true);
                    }
                    Err(EngineError::UnknownVolume { .. }) if volume.exists == Known::Yes => {
                        return Err(format!("fence: {id} is unknown"));
                    }
                    Err(_) => {}
                }
                Ok(())
            })
        }))
    }

    fn seal(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| !volume.is_copy && volume.exists == Known::Yes)?;
        let volume = self.model.volumes.get_mut(&id)?;
        let boundaries = volume.boundaries();
        let length = boundaries[self.ops.index(boundaries.len())];
        let epoch = volume.epoch_asked + self.ops.below(2);
        let term = volume.term_known;
        volume.epoch_asked = epoch;
        volume.seals_asked.push(length);
        // It reads everything, and takes the mark back.
        volume.marked = volume.marked.min(Known::Maybe);
        let digest = volume.digest(length);
        Some(Box::pin(async move {
            let result = disk.seal(id, WriteEpoch(epoch), length, term).await;
            observe(move |model, summary| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                match result {
                    Ok(found) => {
                        let other = volume.sealed.is_some_and(|sealed| sealed != length);
                        if found != digest || other {
                            return Err(format!("seal of {id} at {length} answered a wrong digest or twice"));
                        }
                        summary.seals += u64::from(volume.sealed.is_none());
                        (volume.sealed, volume.writer) = (Some(length), false);
                    }
                    Err(EngineError::TooShort { .. } | EngineError::NotABoundary { .. }) => {
                        return Err(format!("seal of {id} at {length}: {:?}", result.unwrap_err()));
                    }
                    Err(_) => {}
                }
                Ok(())
            })
        }))
    }

    fn read(&mut self, disk: Disk) -> Option<Running> {
        let id = self.pick(|volume| volume.acknowledged() > 0 && (!volume.is_copy || volume.sealed.is_some()))?;
        let volume = &self.model.volumes[&id];
        let known: Vec<&Batch> = volume.batches.iter().filter(|batch| batch.acknowledged).collect();
        let chosen = known[self.ops.index(known.len())].clone();
        let (offset, len) = chosen.records[self.ops.index(chosen.records.len())];
        let maybe_trash = volume.trashed != Known::No;
        Some(Box::pin(async move {
            let result = disk.read_record(id, offset, len).await;
            observe(move |model, _| {
                let Some(volume) = model.volumes.get(&id) else { return Ok(()) };
                let from = (offset - chosen.offset) as usize;
                match result {
                    Ok(record) if record[..] == chosen.bytes[from..from + len as usize] => Ok(()),
                    Ok(_) => Err(format!("{id} at {offset}: other bytes")),
                    // Cut by a seal; or an error was injected.
                    Err(EngineError::OutOfRange { end, .. }) if volume.seals_asked.contains(&end) => Ok(()),
                    Err(EngineError::Damaged { detail, .. }) if detail.contains("cannot be read") => Ok(()),
                    Err(EngineError::Busy { .. }) => Ok(()),
                    Err(EngineError::Trashed { .. }) if maybe_trash || volume.trashed != Known::No => Ok(()),
                    Err(EngineError::UnknownVolume { .. }) if volume.exists != Known::Yes => Ok(()),
                    Err(error) => Err(format!("{id} at {offset}: {error}")),
                }
            })
        }))
    }

    /// A copy from some other disk: begun anew or gone on with, sometimes with wrong bytes.
    fn copy(&mut self, disk: Disk) -> Option<Running> {
        let unfinished = self.pick(|volume| volume.is_copy && volume.sealed.is_none() && !volume.moving);
        let id = match unfinished {
            Some(id) => id,
            None => self.begin_copy_model(),
        };
        let wrong = self.ops.chance(300);
        let volume = self.model.volumes.get_mut(&id)?;
        let length = volume.sent();
        volume.copying += 1;
        if wrong {
            volume.miscopied = true;
        } else {
            volume.seals_asked.push(length);
        }
        let (mut bytes, digest) = (volume.bytes(length), volume.digest(length));
        if wrong {
            bytes[100] ^= 1;
        }
        Some(Box::pin(async move {
            let result = copy_all(&disk, id, &bytes, digest).await;
            observe(move |model, summary| {
                let Some(volume) = model.volumes.get_mut(&id) else { return Ok(()) };
                volume.copying -= 1;
                match result {
                    Ok(()) if volume.seals_asked.is_empty() => {
                        return Err(format!("a wrong copy of {id} was sealed"));
                    }
                    Ok(()) => {
                        summary.copies += u64::from(volume.sealed.is_none());
                        (volume.exists, volume.sealed) = (Known::Yes, Some(length));
                        volume.batches.iter_mut().for_each(|batch| batch.acknowledged = true);
                    }
                    Err(EngineError::CopyMismatch { .. }) if !wrong && !volume.miscopied => {
                        return Err(format!("a right copy of {id} was refused"));
                    }
                    Err(_) => {}
                }
                Ok(())
            })
        }))
    }

    /// A piece of a scrub. Writes that failed may have torn copies of metadata; nothing else may be found.
    fn scrub(&mut self, disk: Disk) -> Running {
        let most = 1 + self.ops.below(300_000);
        let (may_mark, is_written) = (self.faults.read_errors > 0, self.faults.write_errors == 0);
        self.model.may_mark |= may_mark;
        for volume in self.model.volumes.values_mut() {
            // It may also take a mark back.
            if may_mark || volume.marked == Known::Yes {
                volume.marked = Known::Maybe;
            }
        }
        Box::pin(async move {
            let result = disk.scrub_step(most).await;
            observe(move |model, summary| {
                let Ok(step) = result else { return Ok(()) };
                summary.scrubs += 1;
                summary.scrubbed_bytes += step.read_bytes;
                let unreadable = |finding: &Finding| finding.what.contains("cannot be read");
                // Where writes fail, the mark may not have been written either.
                let data = step.found.iter().filter(|finding| finding.place == Place::Data && is_written);
                for id in data.filter_map(|finding| finding.volume) {
                    summary.marked += 1;
                    if let Some(volume) = model.volumes.get_mut(&id) {
                        volume.marked = Known::Yes;
                    }
                }
                match step.found.into_iter().find(|finding| finding.place == Place::Data && !unreadable(finding)) {
                    Some(finding) => Err(format!("a scrub found what nobody harmed: {finding:?}")),
                    None => Ok(()),
                }
            })
        })
    }

    fn begin_copy_model(&mut self) -> VolumeId {
        let id = self.fresh_volume();
        let mut volume = Volume::new(id, EPOCH, true);
        for _ in 0..1 + self.ops.below(3) {
            let offset = volume.sent();
            let (bytes, records) = batch(id, EPOCH, offset, offset, &self.payloads());
            volume.batches.push(Batch { offset, bytes, records, acknowledged: false });
        }
        self.model.insert(volume);
        id
    }

    /// One at a time, as the node does it; the content starts with a number that stands for all of it.
    fn write_keys(&mut self, disk: Disk) -> Option<Running> {
        if std::mem::replace(&mut self.model.keys_busy, true) {
            return None;
        }
        let mut content = vec![0; 8 + self.ops.index(9000)];
        self.ops.fill(&mut content);
        let name = key_name(&Some(content.clone()));
        self.model.keys.ask(name);
        Some(Box::pin(async move {
            let result = disk.write_key_area(content).await;
            observe(move |model, _| {
                model.keys_busy = false;
                if result.is_ok() { model.keys.see(&name) } else { Ok(()) }
            })
        }))
    }

    fn confirm(&mut self, disk: Disk) -> Option<Running> {
        let proposal: Incarnation = self.model.proposal?;
        self.model.incarnation.ask((proposal.incarnation, proposal.nonce));
        Some(Box::pin(async move {
            let result = disk.confirm_incarnation(proposal).await;
            observe(move |model, _| {
                if result.is_ok() {
                    model.incarnation.see(&(proposal.incarnation, proposal.nonce))?;
                }
                Ok(())
            })
        }))
    }
}

/// Boxes what the model is told.
pub fn observe(tell: impl FnOnce(&mut Model, &mut Summary) -> Result<(), String> + 'static) -> Observe {
    Box::new(tell)
}

/// Whether a scrub met a spot that could not be read: the extent counts as damaged there, and its tail ends before.
async fn is_unreadable(disk: &Disk, id: VolumeId) -> bool {
    let info = disk.extent(id).await;
    info.is_ok_and(|info| {
        info.state == ExtentState::Damaged && info.note.is_some_and(|note| note.contains("cannot be read"))
    })
}

async fn copy_all(disk: &Disk, id: VolumeId, bytes: &[u8], digest: [u8; 32]) -> Result<(), EngineError> {
    match disk.begin_copy(id, EPOCH, bytes.len() as u64, digest, None).await {
        Err(EngineError::AlreadyExists { .. }) => return disk.finish_copy(id, None).await,
        begun => begun?,
    }
    for (n, part) in bytes.chunks(8192).enumerate() {
        disk.copy_write(id, n as u64 * 8192, &mut Some(aligned(part))).await?;
    }
    disk.finish_copy(id, None).await
}
