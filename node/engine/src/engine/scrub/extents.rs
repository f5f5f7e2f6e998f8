//! Data and footers of extents, a piece at a time.

use holdfast_libs_types::{MAX_BATCH_BYTES, PAGE_BYTES, VolumeId};
use sha2::{Digest, Sha256};

use super::Step;
use crate::buffer::AlignedBuf;
use crate::engine::scan::{ONE_READ, Stop};
use crate::engine::{Engine, Slot};
use crate::error::EngineError;
use crate::findings::{Finding, Place};
use crate::footer::FooterShape;
use crate::geometry::CRC_SPAN_BYTES;
use crate::slot_header::{SlotHeader, SlotState};

/// Bytes of one read: whole spans of a page checksum, and small enough to let foreground reads through.
const READ_BYTES: u64 = 4 * CRC_SPAN_BYTES;

/// An extent that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    slot: u32,
    slot_generation: u32,
    /// The next byte; of an extent that is not sealed, the start of a batch.
    next: u64,
    /// Of a sealed extent: its page checksums.
    checksums: Option<Vec<u32>>,
    /// Of one that is marked: what was read so far, as long as all of it was right.
    proof: Option<Sha256>,
}

/// Where and why the batches of an extent stop being good.
struct BadBatch {
    offset: u64,
    what: String,
    /// What stands there was read, and is wrong. What cannot be read may be the next time.
    readable: bool,
}

impl Engine {
    /// What was begun of this very extent, in this very form.
    fn unfinished(&self, slot: u32, header: &SlotHeader, sealed: bool) -> Option<Reading> {
        self.scrub.borrow_mut().reading.take().filter(|reading| {
            (reading.slot, reading.slot_generation) == (slot, header.slot_generation)
                && reading.checksums.is_some() == sealed
        })
    }

    /// One piece of a sealed extent; true when it is done.
    pub(super) async fn scrub_sealed(&self, slot: u32, header: &SlotHeader, step: &mut Step) -> bool {
        let mut reading = match self.unfinished(slot, header, true) {
            Some(reading) => reading,
            None => match self.begin_sealed(slot, header, step).await {
                Some(reading) => reading,
                None => return true,
            },
        };
        while reading.next < header.length {
            if step.is_spent() {
                self.scrub.borrow_mut().reading = Some(reading);
                return false;
            }
            let len = READ_BYTES.min(header.length - reading.next);
            let read = self.scrub_read_data(slot, reading.next, len, step).await;
            if !self.is_still(slot, header) {
                return true;
            }
            let checksums = reading.checksums.as_deref().unwrap_or_default();
            let bad = bad_spans(&read, reading.next, checksums);
            reading.proof = match (reading.proof, &read) {
                (Some(proof), Ok(bytes)) if bad.is_empty() => Some(proof.chain_update(&bytes[..])),
                _ => None,
            };
            for (offset, what) in bad {
                self.found_in_data(slot, header, offset, &what, step).await;
            }
            reading.next += len;
        }
        if let Some(proof) = reading.proof {
            self.take_mark_back(slot, header, proof.finalize().into()).await;
        }
        true
    }

    /// Reads and checks the footer; `None` when the extent is no longer there, or its footer cannot be believed.
    async fn begin_sealed(&self, slot: u32, header: &SlotHeader, step: &mut Step) -> Option<Reading> {
        let shape = FooterShape::of(header.length, header.records);
        step.read(shape.len() + PAGE_BYTES as u64);
        let mut read = self.check_footer(slot, header).await;
        if read.is_err() {
            // What passes at the second try is no damage.
            read = self.check_footer(slot, header).await;
        }
        if !self.is_still(slot, header) {
            return None;
        }
        match read {
            Ok(checksums) => {
                let slot_generation = header.slot_generation;
                let is_marked = self.with_slot(slot, |at| at.live.as_ref().is_some_and(|live| live.damaged));
                let proof = is_marked.then(Sha256::new);
                Some(Reading { slot, slot_generation, next: 0, checksums: Some(checksums), proof })
            }
            Err(error) => {
                let what = match error {
                    EngineError::Damaged { detail, .. } => detail,
                    other => other.to_string(),
                };
                self.footer_is_bad(slot, header, what, step).await;
                None
            }
        }
    }

    /// All parts of a footer; the page checksums come back.
    async fn check_footer(&self, slot: u32, header: &SlotHeader) -> Result<Vec<u32>, EngineError> {
        drop(self.read_rows(slot, header).await?);
        self.read_checksums(slot, header).await
    }

    /// What the header knows, the digest, decides: data that has it gives the footer again, and data that has not is
    /// damaged, nobody can tell where.
    async fn footer_is_bad(&self, slot: u32, header: &SlotHeader, what: String, step: &mut Step) {
        let offset = u64::from(header.footer_offset) * PAGE_BYTES as u64;
        let mut finding = Finding::in_extent(Place::Footer, slot, header.volume, offset, what);
        let built = {
            let _alone = self.scan_lock.lock().await;
            self.build_footer(slot, header.volume, header.length).await
        };
        step.read(header.length);
        let in_data = match built {
            Ok((digest, builder)) if digest == header.digest => {
                let lock = self.lock_of(slot);
                let _guard = lock.lock().await;
                if !self.is_still(slot, header) {
                    return;
                }
                let footer = builder.finish();
                let fits = footer.row_count() == header.records && self.can_rewrite_data();
                finding.repaired =
                    fits && self.shared.writable().is_ok() && self.write_footer(slot, header, &footer).await.is_ok();
                if !finding.repaired {
                    self.mark(slot, &lock, &finding.what).await;
                }
                None
            }
            Ok(_) => Some("the extent does not have its digest".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        };
        if let Some(in_data) = in_data {
            self.found_in_data(slot, header, 0, &in_data, step).await;
        }
        step.found.push(finding);
    }

    /// One piece of the batches of an extent that can still grow, below the tail it has now; true when it is done.
    pub(super) async fn scrub_batches(&self, slot: u32, header: &SlotHeader, step: &mut Step) -> bool {
        let unfinished = self.unfinished(slot, header, false);
        let mut next = unfinished.map_or(0, |reading| reading.next);
        loop {
            let (tail, damaged) =
                self.with_slot(slot, |slot| slot.live.as_ref().map_or((0, true), |live| (live.tail, live.damaged)));
            // What is known already is in the listing.
            if damaged || next >= tail || !self.is_still(slot, header) {
                return true;
            }
            if step.is_spent() {
                let slot_generation = header.slot_generation;
                self.scrub.borrow_mut().reading =
                    Some(Reading { slot, slot_generation, next, checksums: None, proof: None });
                return false;
            }
            let piece = step.left.next_multiple_of(PAGE_BYTES as u64).max(READ_BYTES);
            match self.scrub_piece(slot, next, piece, tail, step).await {
                Ok(end) => next = end,
                Err(BadBatch { offset, what, readable }) => {
                    if self.found_in_data(slot, header, offset, &what, step).await && readable {
                        self.with_slot(slot, |at| at.shorten_tail(offset));
                    }
                    return true;
                }
            }
        }
    }

    /// Walks whole batches from `next` on, as many as end within `piece` bytes, but at least one; returns where the last
    /// one ends, or the place and kind of damage.
    async fn scrub_piece(&self, slot: u32, next: u64, piece: u64, tail: u64, step: &mut Step) -> Result<u64, BadBatch> {
        let mut limit = tail.min(next.saturating_add(piece));
        loop {
            let scan = {
                let _alone = self.scan_lock.lock().await;
                self.scan_range(slot, next..limit, ONE_READ, None).await
            };
            step.read(limit.min(scan.tail + MAX_BATCH_BYTES as u64) - next);
            let bad = |what, readable| BadBatch { offset: scan.tail, what, readable };
            match scan.stop {
                Stop::Spans { end } if end > tail => return Err(bad(format!("a batch claims to end at {end}"), true)),
                // Longer than the piece; a batch has a bound.
                Stop::Spans { end } if scan.tail == next => limit = end,
                Stop::Limit | Stop::Spans { .. } => return Ok(scan.tail),
                Stop::Blank => return Err(bad("nothing stands there".to_owned(), true)),
                Stop::Bad { detail, .. } => return Err(bad(detail, true)),
                Stop::Unreadable { detail } => return Err(bad(detail, false)),
            }
        }
    }

    /// Whether the slot holds the same use of itself, in the same state.
    pub(super) fn is_still(&self, slot: u32, header: &SlotHeader) -> bool {
        self.with_slot(slot, |at| (at.slot_generation, at.state) == (header.slot_generation, header.state))
    }

    /// Reports damaged data, and marks the extent; false when it is no longer there.
    async fn found_in_data(&self, slot: u32, header: &SlotHeader, offset: u64, what: &str, step: &mut Step) -> bool {
        if !self.mark_at(slot, header, offset, what).await {
            return false;
        }
        step.found.push(Finding::in_extent(Place::Data, slot, header.volume, offset, what.to_owned()));
        true
    }

    /// Marks the extent, unless it is another one, or in another state, by now.
    pub(in crate::engine) async fn mark_at(&self, slot: u32, header: &SlotHeader, offset: u64, what: &str) -> bool {
        // An append in flight raises the tail when it ends.
        let lock = self.lock_of(slot);
        let _guard = lock.lock().await;
        if !self.is_still(slot, header) {
            return false;
        }
        self.mark(slot, &lock, &format!("damaged at {offset}: {what}")).await;
        true
    }

    /// A reader of `[offset, offset + len)` got what is no record. It may have asked for a wrong place, so only the page
    /// checksums of a sealed extent decide whether that is damage, and then it is marked. Everything else waits for the
    /// scrub.
    pub(crate) async fn look_again(&self, slot: u32, volume: VolumeId, offset: u64, len: u64) {
        let header = self.with_slot(slot, |at| at.header());
        if header.state != SlotState::Sealed || header.volume != volume || header.damaged {
            return;
        }
        let start = offset / CRC_SPAN_BYTES * CRC_SPAN_BYTES;
        // It may have been sealed meanwhile, at a length that lies before.
        let end = (offset + len).next_multiple_of(CRC_SPAN_BYTES).min(header.length);
        if end <= start {
            return;
        }
        let len = (end - start) as usize;
        let (Ok(checksums), Ok(buffer)) = (self.read_checksums(slot, &header).await, self.shared.buffer(len)) else {
            return;
        };
        let Ok(bytes) = self.read_data(slot, start, len, buffer).await else { return };
        if let Some((offset, what)) = bad_spans(&Ok(bytes), start, &checksums).first()
            && self.mark_at(slot, &header, *offset, what).await
        {
            tracing::error!(disk = %self.shared.id, %volume, slot, offset, what, "a read found damage; the extent is marked");
        }
    }
}

/// The spans of `read`, which starts at `start`, that are not what `checksums` says of them.
fn bad_spans(read: &std::io::Result<AlignedBuf>, start: u64, checksums: &[u32]) -> Vec<(u64, String)> {
    let bytes = match read {
        Ok(bytes) => bytes,
        Err(error) => return vec![(start, format!("cannot be read: {error}"))],
    };
    let first = (start / CRC_SPAN_BYTES) as usize;
    let spans = bytes.chunks(CRC_SPAN_BYTES as usize).enumerate();
    let bad = spans.filter(|(n, span)| checksums.get(first + n) != Some(&crc32fast::hash(span)));
    bad.map(|(n, _)| (start + n as u64 * CRC_SPAN_BYTES, "its page checksum does not match".to_owned())).collect()
}

impl Slot {
    /// Of an extent that is not sealed: every batch below the tail validates. What stands behind is still read.
    fn shorten_tail(&mut self, offset: u64) {
        if let (false, Some(live)) = (self.header().has_length(), self.live.as_mut()) {
            live.tail = live.tail.min(offset);
        }
    }
}
