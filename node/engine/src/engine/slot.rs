//! A slot in memory: small, for a disk has tens of thousands of them and a node a hundred disks. What only an extent that can still change needs is boxed apart.

use std::rc::Rc;

use holdfast_libs_types::{VolumeId, WriteEpoch};

use super::footer::ReadBack;
use crate::error::ExtentState;
use crate::reactor::{Io, TaskLock};
use crate::slot_header::{SlotHeader, SlotState};
use crate::status::{ExtentInfo, Shown};
use crate::table::entry::Entry;

/// Both header pages are damaged, or another slot claims the same volume: kept out of use, never erased.
const LOST: u8 = 1;
/// The extent holds no records.
const NO_RECORDS: u8 = 2;
/// A change was decided that the header pages may not say.
const BEHIND: u8 = 4;
/// A scrub found damage in it, and the table says so.
const DAMAGED: u8 = 8;
/// It is on its way out of the trash: nothing else may come to stand in its place meanwhile.
const LEAVES_TRASH: u8 = 16;

/// What is shown of damage that was found before the mount.
const FOUND_EARLIER: &str = "a scrub before the mount found damage in it";

/// One slot. Its header's fields, packed; `header` puts them together again.
pub(super) struct Slot {
    pub(super) volume: VolumeId,
    digest: [u8; 32],
    /// Generation of the header.
    pub(super) generation: u64,
    pub(super) epoch: WriteEpoch,
    pub(super) append_epoch: WriteEpoch,
    pub(super) term: u64,
    /// Of what is sealed or copying, bytes.
    pub(super) length: u64,
    pub(super) slot_generation: u32,
    records: u32,
    footer_offset: u32,
    pub(super) state: SlotState,
    /// The header page (0 or 1) that holds the newest header.
    pub(super) page: u8,
    flags: u8,
    /// Of every extent but those that are sealed and quiet.
    pub(super) live: Option<Box<Live>>,
}

/// What an extent is to its volume. The order is that in which they answer for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// It serves, or did until a fence.
    Standing,
    /// A slot that is being taken, or an unfinished copy: it serves nothing yet.
    Coming,
    /// Given up by an order.
    Trash,
}

/// What an extent that can still change needs in memory.
pub(super) struct Live {
    pub(super) lock: Rc<TaskLock>,
    /// End of the batches known to be durable and valid, bytes.
    pub(super) tail: u64,
    /// Records in them.
    pub(super) records: u64,
    /// End of what may be read: the tail, or beyond damage the end of the last batch seen, bytes.
    pub(super) readable_end: u64,
    /// Why appends (or parts of a copy) are refused; `None` takes them.
    pub(super) no_appends: Option<String>,
    /// How far a copy, or what is to come out of the trash, was read back.
    pub(super) read_back: Option<Box<ReadBack>>,
    /// Something is wrong below or behind the tail: known from the table, or found since the mount.
    pub(super) damaged: bool,
    pub(super) note: Option<String>,
    pub(super) trash: Option<Trash>,
}

/// How an extent went to trash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trash {
    /// Disk uptime, seconds.
    pub(super) at: u64,
    pub(super) order: [u8; 16],
    pub(super) state_before: SlotState,
}

impl Live {
    pub(super) fn empty(io: &Rc<Io>) -> Self {
        Self {
            lock: TaskLock::new(io),
            tail: 0,
            records: 0,
            readable_end: 0,
            no_appends: None,
            read_back: None,
            damaged: false,
            note: None,
            trash: None,
        }
    }
}

impl Slot {
    /// A slot with `header`, whose home is `page`; `live` of an extent that needs it is made, and empty.
    pub(super) fn new(header: &SlotHeader, page: u8, io: &Rc<Io>) -> Self {
        let mut slot = Self {
            volume: header.volume,
            digest: header.digest,
            generation: 0,
            epoch: header.epoch,
            append_epoch: header.append_epoch,
            term: 0,
            length: 0,
            slot_generation: 0,
            records: 0,
            footer_offset: 0,
            state: SlotState::Free,
            page: 0,
            flags: 0,
            live: None,
        };
        slot.set_header(header, page, io);
        if !matches!(header.state, SlotState::Free | SlotState::Sealed) && slot.live.is_none() {
            slot.live = Some(Box::new(Live::empty(io)));
        }
        slot
    }

    /// The slot that the table describes.
    pub(super) fn of_entry(entry: &Entry, io: &Rc<Io>) -> Self {
        let mut slot = Self::new(&entry.header, entry.page, io);
        slot.set_flag(BEHIND, entry.behind);
        slot.set_flag(LOST, entry.lost);
        slot
    }

    /// What the table says of it.
    pub(super) fn entry(&self) -> Entry {
        Entry { header: self.header(), page: self.page, behind: self.is_behind(), lost: self.is_lost() }
    }

    /// The header as it stands on the disk.
    pub(super) fn header(&self) -> SlotHeader {
        let trash = self.live.as_ref().and_then(|live| live.trash);
        SlotHeader {
            state: self.state,
            no_records: self.flags & NO_RECORDS != 0,
            damaged: self.flags & DAMAGED != 0,
            state_before: trash.map_or(SlotState::Free, |trash| trash.state_before),
            records: self.records,
            generation: self.generation,
            slot_generation: self.slot_generation,
            footer_offset: self.footer_offset,
            // A slot that is being taken, or let go, has the volume for the index only.
            volume: if self.state == SlotState::Free { VolumeId([0; 16]) } else { self.volume },
            epoch: self.epoch,
            append_epoch: self.append_epoch,
            term: self.term,
            length: self.length,
            digest: self.digest,
            trashed_at: trash.map_or(0, |trash| trash.at),
            order: trash.map_or([0; 16], |trash| trash.order),
        }
    }

    /// Takes over `header`, which stands on `page`. Trash gets a `live` of its own, in which the order stands, and what is
    /// damaged one that says so; nothing else makes or drops one.
    pub(super) fn set_header(&mut self, header: &SlotHeader, page: u8, io: &Rc<Io>) {
        self.volume = header.volume;
        self.digest = header.digest;
        self.generation = header.generation;
        self.epoch = header.epoch;
        self.append_epoch = header.append_epoch;
        self.term = header.term;
        self.length = header.length;
        self.slot_generation = header.slot_generation;
        self.records = header.records;
        self.footer_offset = header.footer_offset;
        self.state = header.state;
        self.page = page;
        self.set_flag(NO_RECORDS, header.no_records);
        self.set_flag(DAMAGED, header.damaged);
        let trash = (header.state == SlotState::Trashed).then_some(Trash {
            at: header.trashed_at,
            order: header.order,
            state_before: header.state_before,
        });
        if (trash.is_some() || header.damaged) && self.live.is_none() {
            let whole = if header.has_length() { header.length } else { 0 };
            self.live = Some(Box::new(Live { tail: whole, readable_end: whole, ..Live::empty(io) }));
        }
        if let Some(live) = self.live.as_mut() {
            live.trash = trash;
            if header.damaged {
                live.damaged = true;
                live.note.get_or_insert_with(|| FOUND_EARLIER.to_owned());
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.flags & LOST != 0
    }

    pub(super) fn set_lost(&mut self, lost: bool) {
        self.set_flag(LOST, lost);
    }

    /// What it is to its volume.
    pub(super) fn role(&self) -> Role {
        match self.state {
            SlotState::Open | SlotState::Fenced | SlotState::Sealed => Role::Standing,
            SlotState::Trashed if self.flags & LEAVES_TRASH == 0 => Role::Trash,
            SlotState::Trashed | SlotState::Copying | SlotState::Free => Role::Coming,
        }
    }

    pub(super) fn set_leaves_trash(&mut self, leaves: bool) {
        self.set_flag(LEAVES_TRASH, leaves);
    }

    /// Whether it is being read back.
    pub(super) fn is_read_back(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.read_back.is_some())
    }

    /// Whether the headers must be written before anything else is done with it.
    pub(super) fn is_behind(&self) -> bool {
        self.flags & BEHIND != 0
    }

    pub(super) fn set_behind(&mut self, behind: bool) {
        self.set_flag(BEHIND, behind);
    }

    fn set_flag(&mut self, flag: u8, on: bool) {
        self.flags = if on { self.flags | flag } else { self.flags & !flag };
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.damaged)
    }

    /// The state as it is shown.
    pub(super) fn state(&self) -> ExtentState {
        match self.state {
            SlotState::Sealed | SlotState::Open | SlotState::Fenced if self.is_damaged() => ExtentState::Damaged,
            SlotState::Sealed => ExtentState::Sealed,
            // Free is never asked, unless while the slot is being taken.
            SlotState::Copying | SlotState::Free => ExtentState::Copying,
            SlotState::Trashed => ExtentState::Trashed,
            SlotState::Open => ExtentState::Open,
            SlotState::Fenced => ExtentState::Fenced,
        }
    }

    /// What the status counts it as.
    pub(super) fn shown(&self) -> Shown {
        match (self.is_lost(), self.state) {
            (true, _) => Shown::Lost,
            (_, SlotState::Free) => Shown::Free,
            _ => Shown::Holds(self.state()),
        }
    }

    pub(super) fn info(&self, slot: u32) -> ExtentInfo {
        let header = self.header();
        let live = self.live.as_deref();
        let has_length = header.has_length();
        let trash = live.and_then(|live| live.trash);
        ExtentInfo {
            volume: self.volume,
            slot,
            slot_generation: self.slot_generation,
            state: self.state(),
            epoch: self.epoch,
            term: self.term,
            length: if has_length { self.length } else { live.map_or(0, |live| live.tail) },
            digest: has_length.then_some(self.digest),
            takes_appends: self.state() == ExtentState::Open && live.is_some_and(|live| live.no_appends.is_none()),
            records: match (has_length, live) {
                (true, _) => (self.footer_offset > 0).then_some(self.records),
                (false, live) => live.and_then(|live| u32::try_from(live.records).ok()),
            },
            trashed_at_s: trash.map(|trash| trash.at),
            order: trash.map(|trash| trash.order),
            note: live.and_then(|live| live.note.clone()),
        }
    }
}
