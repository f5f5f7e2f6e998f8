//! The handle that servers hold: one per disk, cheap to clone, usable from any runtime.
//!
//! Checks that cost CPU (checksums of batches and records) run in the caller's task, on either side of the trip to
//! the disk's thread, so that the thread stays free to keep the disk busy.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_libs_types::record::CheckedRecord;
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};

use crate::buffer::{AlignedBuf, BufferPool};
use crate::deadline::Patience;
use crate::engine::{AppendBatch, Engine};
use crate::error::{EngineError, FormatError, OpenError};
use crate::findings::ScrubStep;
use crate::footer::RecordRow;
use crate::mailbox::Lane;
use crate::shared::{Life, Shared};
use crate::status::{DiskStatus, Erased, ExtentInfo, FormatOptions, Incarnation, Named, OpenOptions, TrashOrder};

/// Writes an empty disk to `path`, a block device or a file (created if `size_bytes` is given), and returns its id.
/// Space is not taken until it is used, slot by slot.
///
/// # Errors
/// A Holdfast disk already there, a file too small for one slot, a slot size out of bounds, or I/O.
pub fn format(path: &Path, options: &FormatOptions) -> Result<DiskId, FormatError> {
    crate::format::format_path(path, options)
}

/// An open disk: a handle to the disk's own OS thread. The thread ends when the last handle is dropped.
///
/// That last drop waits until the thread has let go of the disk, for at most ten seconds; if a disk may hang, drop it
/// off the async runtime.
///
/// Every method that does I/O answers `Busy` at once when the disk's bounded queue is full, `Stalled` at once when
/// the disk hangs, and `Stalled` when its answer takes too long; none of them blocks. Dropping a returned future
/// abandons the answer, not the operation.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    _life: Arc<Life>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("id", &self.shared.id).field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Disk {
    /// Opens the disk at `path` and mounts it (reads the extent table, scans open extents for their tails). Blocks until
    /// that is done, or the disk was silent for the operation deadline: call it off the async runtime.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        crate::thread::open(path, options)
    }

    pub(crate) fn new(shared: Arc<Shared>, life: Life) -> Self {
        Self { shared, _life: Arc::new(life) }
    }

    /// Drops what was sent and not taken, and refuses what is sent from now on.
    pub(crate) fn abandon(&self) {
        self.shared.mailbox.abandon();
    }

    /// Whether this is the only handle.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self._life) == 1
    }

    /// The disk's id.
    pub fn id(&self) -> DiskId {
        self.shared.id
    }

    /// State, space and counters. Does no I/O.
    pub fn status(&self) -> DiskStatus {
        self.shared.status()
    }

    /// Bytes of data that one extent of this disk can hold.
    pub fn volume_capacity_bytes(&self) -> u64 {
        self.shared.geometry.volume_capacity_bytes()
    }

    /// Most bytes that its key area holds.
    pub fn key_area_bytes(&self) -> u64 {
        self.shared.geometry.key_area_bytes()
    }

    /// The pool this disk's buffers come from.
    pub fn buffers(&self) -> &BufferPool {
        &self.shared.pool
    }

    /// A buffer for a body of up to `capacity` bytes, to be filled with `extend_from_slice`.
    ///
    /// # Errors
    /// `Busy` when the disk's buffers are in use.
    pub fn buffer(&self, capacity: usize) -> Result<AlignedBuf, EngineError> {
        self.shared.buffer(capacity)
    }

    /// Creates an open, empty extent for `volume` and takes its slot's space. Idempotent for the same epoch while it
    /// is empty and untouched since.
    ///
    /// # Errors
    /// `AlreadyExists`, `NoSpace`, `ReadOnly`, `Busy`, …
    pub async fn create_extent(&self, volume: VolumeId, epoch: WriteEpoch) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.create_extent(volume, epoch).await }).await
    }

    /// Appends `batch`, whose header must name `volume`, `epoch` and `offset`; durable when it answers. Returns the
    /// tail after the batch, bytes. A repeat of bytes that stand already is acknowledged with the end of the repeat.
    ///
    /// # Errors
    /// `InvalidBatch`, `Fenced`, `NotTail`, `ConflictingRepeat`, `VolumeFull`, `NoAppends`, `UnknownVolume`, …
    pub async fn append(
        &self,
        volume: VolumeId,
        epoch: WriteEpoch,
        offset: u64,
        batch: AlignedBuf,
    ) -> Result<u64, EngineError> {
        let batch = AppendBatch::check(volume, epoch, offset, batch)?;
        self.call(Lane::Data, move |engine| async move { engine.append(batch).await }).await
    }

    /// Any bytes below the volume's end on this disk, as they stand, unchecked: for copies and comparisons.
    ///
    /// # Errors
    /// `UnknownVolume`, `OutOfRange`, `WrongState` (copying), `Damaged` (the disk cannot read them), …
    pub async fn read(&self, volume: VolumeId, offset: u64, len: u32) -> Result<Bytes, EngineError> {
        let answer = self.call(Lane::Data, move |engine| async move { engine.read(volume, offset, len).await }).await?;
        Ok(answer.bytes)
    }

    /// The same of what a slot holds of the volume, also in the trash beside an extent that stands.
    ///
    /// # Errors
    /// As [`Disk::read`]; `WrongOrder` when the slot holds nothing of the volume.
    pub async fn read_slot(&self, volume: VolumeId, slot: u32, offset: u64, len: u32) -> Result<Bytes, EngineError> {
        let read = move |engine: Rc<Engine>| async move { engine.read_slot(volume, slot, offset, len).await };
        Ok(self.call(Lane::Data, read).await?.bytes)
    }

    /// Exactly one record, header and payload, both checksums and its place compared. Where they do not match, and neither
    /// do the page checksums of a sealed extent, the extent is marked as damaged before the answer.
    ///
    /// # Errors
    /// `Damaged` when it is not the record of that place and length; `Trashed`; otherwise as [`Disk::read`].
    pub async fn read_record(&self, volume: VolumeId, offset: u64, len: u32) -> Result<Bytes, EngineError> {
        let answer =
            self.call(Lane::Data, move |engine| async move { engine.read_live(volume, offset, len).await }).await?;
        let detail = match CheckedRecord::decode(&answer.bytes, volume, offset) {
            Ok(record) if record.header.record_len() == answer.bytes.len() => return Ok(answer.bytes),
            Ok(record) => format!("the record is {} bytes long, not {len}", record.header.record_len()),
            Err(error) => error.to_string(),
        };
        self.shared.counters.damaged();
        let slot = answer.slot;
        drop(answer);
        // What it finds is marked; the answer here is the same.
        let _ = self
            .call(Lane::Data, move |engine| async move {
                engine.look_again(slot, volume, offset, len.into()).await;
                Ok(())
            })
            .await;
        Err(EngineError::Damaged { disk: self.shared.id, slot, volume, offset, detail })
    }

    /// Durably refuses appends of any epoch below `epoch`, waits for the append in flight, and answers the tail.
    /// `term` is the leader's; a lower one than seen before is refused. The epoch only rises; equal is idempotent.
    ///
    /// # Errors
    /// `Fenced` (the epoch is lower than the current one), `StaleTerm`, `UnknownVolume`, …
    pub async fn fence(&self, volume: VolumeId, epoch: WriteEpoch, term: u64) -> Result<u64, EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.fence(volume, epoch, term).await }).await
    }

    /// Ends the volume at `length`: re-reads and checks every batch below it, cuts the rest, and durably records
    /// state, length and the SHA-256 of `[0, length)`, which it returns. Idempotent for the same length.
    ///
    /// # Errors
    /// `TooShort`, `NotABoundary`, `Damaged`, `SealedOtherwise`, `Fenced`, `StaleTerm`, …
    pub async fn seal(
        &self,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
        term: u64,
    ) -> Result<[u8; 32], EngineError> {
        self.call_long(move |engine| async move { engine.seal(volume, epoch, length, term).await }).await
    }

    /// Takes a slot for a copy of a sealed volume; a copy begun before starts over. What the trash holds of the volume stays
    /// there. Where the volume has an extent that stands, `instead_of` must name it, and it must be no sound replica: it serves on
    /// until [`Disk::finish_copy`].
    ///
    /// # Errors
    /// `AlreadyExists` (what stands was not named, or is a sound replica), `WrongOrder` (another extent stands than was named),
    /// `NoSpace`, …
    pub async fn begin_copy(
        &self,
        volume: VolumeId,
        epoch: WriteEpoch,
        length: u64,
        digest: [u8; 32],
        instead_of: Option<TrashOrder>,
    ) -> Result<(), EngineError> {
        let sealed = (epoch, length, digest);
        self.call(Lane::Control, move |engine| async move { engine.begin_copy(volume, sealed, instead_of).await }).await
    }

    /// Writes the next part of a copy; `offset` is where the one before ended, and it and the length are whole pages. `part` is
    /// taken when the disk admits it: after `Busy` it is still there, to be sent again.
    ///
    /// # Errors
    /// `NotTail` (it is not the next part), `NoAppends` (a part failed, or the disk was mounted anew: begin again),
    /// `WrongState`, `OutOfRange`, `InvalidArgument`, …
    pub async fn copy_write(
        &self,
        volume: VolumeId,
        offset: u64,
        part: &mut Option<AlignedBuf>,
    ) -> Result<(), EngineError> {
        let permit = self.shared.admit(Lane::Data)?;
        let part = part.take().ok_or_else(|| EngineError::InvalidArgument("there is no part to write".to_owned()))?;
        let write = move |engine: Rc<Engine>| async move { engine.copy_write(volume, offset, part).await };
        self.shared.call(permit, Patience::Deadline, write).await
    }

    /// Goes on reading a copy back that is written to its end, for about `max_bytes`, and answers how many bytes are left.
    /// [`Disk::finish_copy`] reads only what is left then: so that others have the disk in between.
    ///
    /// # Errors
    /// `TooShort` (parts are missing), `WrongState`, `Damaged` (it cannot be read), …
    pub async fn read_back_copy(&self, volume: VolumeId, max_bytes: u64) -> Result<u64, EngineError> {
        self.call_long(move |engine| async move { engine.read_back_copy(volume, max_bytes).await }).await
    }

    /// Reads the whole copy back from the disk, compares its SHA-256, and only then durably makes it sealed.
    /// Idempotent once sealed.
    ///
    /// # Errors
    /// `CopyMismatch` (it stays a copy: begin again or abort), `TooShort` (parts are missing), `WrongState`; where an extent
    /// stands as [`Disk::begin_copy`], `StaleTerm`, …
    pub async fn finish_copy(&self, volume: VolumeId, instead_of: Option<TrashOrder>) -> Result<(), EngineError> {
        self.call_long(move |engine| async move { engine.finish_copy(volume, instead_of).await }).await
    }

    /// Gives up a copy and frees its slot.
    ///
    /// # Errors
    /// `WrongState` (not copying), `UnknownVolume`, …
    pub async fn abort_copy(&self, volume: VolumeId) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.abort_copy(volume).await }).await
    }

    /// The records of a sealed extent in the order of the volume, from its footer; none for an extent that holds no
    /// records.
    ///
    /// # Errors
    /// `WrongState` (not sealed), `Damaged` (its footer is), `UnknownVolume`, …
    pub async fn records(&self, volume: VolumeId) -> Result<Vec<RecordRow>, EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.records(volume).await }).await
    }

    /// Goes on with the scrub for about `max_bytes` of reads (an open extent, and a footer, are read in one piece). Bad
    /// copies of metadata are written again; extents with damaged data are shown as damaged from then on.
    ///
    /// # Errors
    /// `Failed`, `Busy`, `Stopped`. Damage is no error but a finding.
    pub async fn scrub_step(&self, max_bytes: u64) -> Result<ScrubStep, EngineError> {
        self.call_long(move |engine| async move { engine.scrub_step(max_bytes).await }).await
    }

    /// Puts an extent into the trash: from then on it serves no records and takes no appends, and once
    /// [`Disk::erase_expired`] finds it old enough it is gone. Durable when it answers. Idempotent for the same order.
    /// That every copy or byte that is needed stands elsewhere, whoever gives the order has made sure of.
    ///
    /// # Errors
    /// `WrongOrder` when the slot, its generation, or the order that it is in the trash by differ, `StaleTerm`,
    /// `UnknownVolume`, `WrongState` (an unfinished copy: abort that), `ReadOnly`, …
    pub async fn trash(&self, order: TrashOrder) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.trash(order).await }).await
    }

    /// Takes an extent out of the trash again, back to the state that it had. Does nothing when it is not there. An
    /// open extent takes no more appends.
    ///
    /// # Errors
    /// `WrongOrder` when the slot or its generation differ, `StaleTerm`, `UnknownVolume` (erased already), `AlreadyExists` (another
    /// extent of the volume stands, or is being copied), …
    pub async fn restore(
        &self,
        volume: VolumeId,
        slot: u32,
        slot_generation: u32,
        term: u64,
    ) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.restore(volume, slot, slot_generation, term).await })
            .await
    }

    /// Reads on, for `max_bytes`, through an extent of the trash that was sealed; answers how many bytes are left. It is not
    /// erased until it is out, or [`Disk::forget_read_back`] is called, or the disk is opened again.
    ///
    /// # Errors
    /// `WrongState` (not in the trash, or it was not sealed), `WrongOrder` (another extent stands there), `Damaged`,
    /// `UnknownVolume` (erased already), `ReadOnly`, …
    pub async fn read_back_trashed(&self, named: Named, max_bytes: u64) -> Result<u64, EngineError> {
        self.call_long(move |engine| async move { engine.read_back_trashed(named, max_bytes).await }).await
    }

    /// Forgets how far an extent of the trash was read back: it is not to come out for now.
    ///
    /// # Errors
    /// `WrongState` (not in the trash, or it was not sealed), `Damaged`, `UnknownVolume`, …
    pub async fn forget_read_back(&self, named: Named) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.forget_read_back(named).await }).await
    }

    /// Takes an extent that was sealed out of the trash, once what [`Disk::read_back_trashed`] read, and whatever is left to
    /// be read, comes to its digest. One that has another is marked as damaged and stays.
    ///
    /// # Errors
    /// As [`Disk::read_back_trashed`]; `StaleTerm`; `AlreadyExists` (another extent of the volume stands, or is being copied).
    pub async fn restore_read_back(&self, named: Named, term: u64) -> Result<(), EngineError> {
        self.call_long(move |engine| async move { engine.restore_read_back(named, term).await }).await
    }

    /// Erases what is in the trash for `retention` or longer, by the disk's uptime: frees its slots, durably, and gives
    /// their space back. A bounded number each time: call it until it answers nothing.
    ///
    /// # Errors
    /// `ReadOnly`, `EraseRefused`, `Io`, … when nothing could be erased.
    pub async fn erase_expired(&self, retention: Duration) -> Result<Vec<Erased>, EngineError> {
        self.call_long(move |engine| async move { engine.erase_expired(retention).await }).await
    }

    /// Every extent on the disk, by slot.
    ///
    /// # Errors
    /// `Busy`, `Stopped`.
    pub async fn extents(&self) -> Result<Vec<ExtentInfo>, EngineError> {
        self.call(Lane::Control, move |engine| async move { Ok(engine.extents()) }).await
    }

    /// All there is of one volume, by slot: what stands, a copy under way, and what the trash holds.
    ///
    /// # Errors
    /// `Busy`, `Stopped`.
    pub async fn extents_of(&self, volume: VolumeId) -> Result<Vec<ExtentInfo>, EngineError> {
        self.call(Lane::Control, move |engine| async move { Ok(engine.extents_of(volume)) }).await
    }

    /// The extent of one volume: what stands, else a copy under way, else what the trash holds.
    ///
    /// # Errors
    /// `UnknownVolume`, `Busy`, `Stopped`.
    pub async fn extent(&self, volume: VolumeId) -> Result<ExtentInfo, EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.extent(volume) }).await
    }

    /// What was last written to the key area; `None` if nothing ever was.
    ///
    /// # Errors
    /// `Io` when neither copy is readable and valid.
    pub async fn read_key_area(&self) -> Result<Option<Vec<u8>>, EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.read_key_area().await }).await
    }

    /// Durably replaces the contents of the key area, in both copies, one after the other.
    ///
    /// # Errors
    /// `InvalidArgument` when `bytes` do not fit, `ReadOnly`, …
    pub async fn write_key_area(&self, bytes: Vec<u8>) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.write_key_area(bytes).await }).await
    }

    /// The next incarnation, durably recorded as proposed before it answers. A proposal that was never confirmed is
    /// answered again, unchanged. The catalog accepts it when `previous_nonce` is the nonce it knows for the disk
    /// and the number is the next one, or when it is the very incarnation it accepted last; anything else is a
    /// clone, a snapshot or an old disk put back, and must be made read-only.
    ///
    /// # Errors
    /// `ReadOnly`, `Failed`, …
    pub async fn propose_incarnation(&self) -> Result<Incarnation, EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.propose_incarnation().await }).await
    }

    /// Durably records that the catalog accepted the proposal. Idempotent.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such proposal.
    pub async fn confirm_incarnation(&self, proposal: Incarnation) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.confirm_incarnation(proposal).await }).await
    }

    /// Takes the disk out of writing, until it is opened anew. Operations already admitted finish.
    pub fn set_read_only(&self, reason: &str) {
        self.shared.set_read_only(reason);
    }

    /// Cheap check that the disk is still the one that was opened: the path names the same file of at least the
    /// same size, and the superblock read from the disk is the one this process wrote or read last. A disk that is
    /// not goes to `Failed`.
    ///
    /// # Errors
    /// `Failed` with what was found, `Busy`.
    pub async fn check_present(&self) -> Result<(), EngineError> {
        self.call(Lane::Control, move |engine| async move { engine.check_present().await }).await
    }

    pub(crate) async fn call<T, F, Fut>(&self, lane: Lane, operation: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Engine>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        self.shared.call(self.shared.admit(lane)?, Patience::Deadline, operation).await
    }

    /// For operations that move a whole extent.
    async fn call_long<T, F, Fut>(&self, operation: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(Rc<Engine>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, EngineError>> + 'static,
    {
        self.shared.call(self.shared.admit(Lane::Control)?, Patience::Progress, operation).await
    }
}
