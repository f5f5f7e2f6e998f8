//! A file or device that may become a disk: held from the first look at it until it is one.
//!
//! It is opened exclusively (a device that is mounted or part of an array is refused by the kernel) and locked. So
//! what the survey found is what is erased: nobody can mount or fill the device in between.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use holdfast_libs_signatures::{EDGE_BYTES, Edges, Signature};
use holdfast_libs_types::{CellId, DiskId, PAGE_BYTES};

use crate::error::FormatError;

use crate::format::{open_for_format, plan_on, write_disk};
use crate::raw::file::{DiskFile, DiskZones};
use crate::raw::zones::Condition;
use crate::slot_header::{SlotContents, SlotHeader, SlotHeaderError, SlotState};
use crate::status::FormatOptions;
use crate::superblock::{Superblock, SuperblockError};
use crate::thread::read_superblocks;

/// A file or block device, held exclusively, on which a disk may be written.
#[derive(Debug)]
pub struct Candidate {
    path: PathBuf,
    file: DiskFile,
    options: FormatOptions,
    size_bytes: u64,
    zones: Option<DiskZones>,
}

/// What stands on a candidate. Reading it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// A Holdfast disk.
    pub holdfast: Option<FoundDisk>,
    /// Magics of partition tables, file systems, arrays, pools.
    pub signatures: Vec<Signature>,
    /// The first byte that is not zero in the first or last 2 MiB; of a zoned disk also the start of the first zone that
    /// something was written to.
    pub data_at: Option<u64>,
}

/// A Holdfast disk on a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundDisk {
    /// Its superblock can be read.
    Readable {
        /// Its id.
        disk: DiskId,
        /// Its cell.
        cell: CellId,
        /// Slots in which an extent stands, in any state, or may stand (headers that cannot be believed).
        extents: u32,
        /// Slots in all.
        slots: u32,
    },
    /// It is one, but what it holds cannot be told.
    Unreadable {
        /// Why: damage, another version.
        reason: String,
    },
}

/// Whether what stands on a candidate may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// It may not: only a blank one is formatted.
    OnlyIfBlank,
    /// All of it may, and its owner has been told what it is.
    EraseAll,
}

/// A disk that was just written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formatted {
    /// Its id.
    pub disk: DiskId,
    /// Its slots.
    pub slots: u32,
    /// How they stand in the zones of a zoned one.
    pub zones: Option<FormattedZones>,
}

/// The disk zones of a disk that was just written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormattedZones {
    /// From one zone's start to the next, bytes.
    pub zone_bytes: u64,
    /// Zones of a slot.
    pub zones_per_slot: u32,
    /// Most slots that can be written to at a time; 0: any number.
    pub open_limit: u32,
}

impl Candidate {
    /// Opens and locks `path`, and makes the file when `options` have a size.
    ///
    /// # Errors
    /// `InUse`; `TooSmall`, `SlotSize` and `TooManySlots` before anything is made; I/O.
    pub fn open(path: &Path, options: FormatOptions) -> Result<Self, FormatError> {
        let file = open_for_format(path, &options)?;
        let size_bytes = file.size().map_err(|source| FormatError::io(path, "reading its size", source))?;
        let zones = file.zones().map_err(|source| FormatError::io(path, "asking for its zones", source))?;
        if options.size_bytes.is_none() || file.is_block_device {
            plan_on(path, zones.as_ref(), size_bytes, options.slot_bytes)?;
        }
        Ok(Self { path: path.to_owned(), file, options, size_bytes, zones })
    }

    /// Its size before it is formatted, bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Looks at both ends and, when a Holdfast disk stands there, at every slot's header.
    ///
    /// # Errors
    /// I/O: what cannot be read cannot be judged.
    pub fn survey(&self) -> Result<Survey, FormatError> {
        let io = |source| FormatError::io(&self.path, "looking at it", source);
        let plain = self.plain(false).map_err(io)?;
        let len = EDGE_BYTES.min(self.size_bytes);
        let (mut head, mut tail) = (vec![0; len as usize], vec![0; len as usize]);
        plain.read_exact_at(&mut head, 0).map_err(io)?;
        if self.can_read_from(self.size_bytes - len) {
            plain.read_exact_at(&mut tail, self.size_bytes - len).map_err(io)?;
        }
        let edges = Edges { head: &head, tail: &tail, size: self.size_bytes };
        let holdfast = self.holdfast().map_err(io)?;
        let data_at = edges.first_data().or_else(|| self.first_written_zone());
        Ok(Survey { holdfast, signatures: edges.signatures(), data_at })
    }

    /// Whether all from `offset` on was written, or can be read though it was not. A zoned disk may refuse to read what
    /// was not written, and nothing stands there.
    fn can_read_from(&self, offset: u64) -> bool {
        let zones = self.zones.iter().flat_map(|zones| &zones.zones);
        zones.filter(|zone| zone.start + zone.len > offset).all(|zone| zone.written == zone.len)
    }

    fn first_written_zone(&self) -> Option<u64> {
        let mut zones = self.zones.iter().flat_map(|zones| &zones.zones);
        let written = zones.find(|zone| matches!(zone.condition, Condition::Partial | Condition::Full));
        written.map(|zone| zone.start)
    }

    /// Writes the disk.
    ///
    /// # Errors
    /// `AlreadyFormatted` and `NotBlank` unless all may be erased; I/O.
    pub fn format(self, consent: Consent) -> Result<Formatted, FormatError> {
        match consent {
            Consent::OnlyIfBlank => self.survey()?.refuse(&self.path)?,
            // Formatting resets all zones of a zoned one.
            Consent::EraseAll if self.zones.is_some() => {}
            Consent::EraseAll => {
                self.erase_the_end().map_err(|source| FormatError::io(&self.path, "erasing its end", source))?;
            }
        }
        let superblock = write_disk(&self.path, &self.file, &self.options)?;
        self.file.forget_partitions();
        let zones = superblock.geometry.zones.as_ref().map(|zones| FormattedZones {
            zone_bytes: zones.zone_bytes,
            zones_per_slot: zones.zones,
            open_limit: zones.limit,
        });
        Ok(Formatted { disk: superblock.disk, slots: superblock.geometry.slots, zones })
    }

    /// The same file without O_DIRECT: the last bytes of a device need be no whole page.
    fn plain(&self, write: bool) -> io::Result<File> {
        File::options().read(true).write(write).open(format!("/proc/self/fd/{}", self.file.fd()))
    }

    /// Backup tables, labels and RAID superblocks stand at the end, where a disk that is young writes nothing: found
    /// there later they would bring back what was erased.
    fn erase_the_end(&self) -> io::Result<()> {
        let len = EDGE_BYTES.min(self.size_bytes);
        let plain = self.plain(true)?;
        plain.write_all_at(&vec![0; len as usize], self.size_bytes - len)?;
        plain.sync_all()
    }

    fn holdfast(&self) -> io::Result<Option<FoundDisk>> {
        let copies = read_superblocks(|offset| self.file.read_pages(offset, PAGE_BYTES));
        let marked = copies.iter().flatten().next().is_some()
            || copies.iter().any(|copy| {
                matches!(
                    copy,
                    Err(SuperblockError::Checksum
                        | SuperblockError::Version(_)
                        | SuperblockError::Geometry(_)
                        | SuperblockError::Counters)
                )
            });
        if !marked {
            return Ok(None);
        }
        match Superblock::newest(copies) {
            Ok((found, _)) => Ok(Some(FoundDisk::Readable {
                disk: found.disk,
                cell: found.cell,
                extents: self.count_extents(&found)?,
                slots: found.geometry.slots,
            })),
            Err((a, b)) => Ok(Some(FoundDisk::Unreadable { reason: format!("superblock A: {a}; B: {b}") })),
        }
    }

    /// From the slots' own headers, the truth of last resort: it holds for a disk that was not closed, or whose
    /// table is damaged.
    fn count_extents(&self, found: &Superblock) -> io::Result<u32> {
        let mut extents = 0;
        for slot in 0..found.geometry.slots {
            let [a, b] =
                [0, 1].map(|page| match self.file.read_pages(found.geometry.header_offset(slot, page), PAGE_BYTES) {
                    Ok(bytes) => SlotHeader::decode(&bytes, found.disk, slot),
                    Err(_) => Err(SlotHeaderError::Unreadable),
                });
            let free = matches!(SlotContents::of(a, b),
                SlotContents::Known { header, .. } if header.state == SlotState::Free);
            extents += u32::from(!free);
        }
        Ok(extents)
    }
}

impl Survey {
    /// Whether nothing stands there.
    pub fn is_blank(&self) -> bool {
        self.holdfast.is_none() && self.signatures.is_empty() && self.data_at.is_none()
    }

    /// # Errors
    /// When it is not blank, with what stands there.
    pub(crate) fn refuse(&self, path: &Path) -> Result<(), FormatError> {
        let path = path.display().to_string();
        match (&self.holdfast, self.data_at) {
            (Some(FoundDisk::Readable { disk, cell, .. }), _) => {
                Err(FormatError::AlreadyFormatted { path, disk: *disk, cell: *cell })
            }
            (Some(FoundDisk::Unreadable { reason }), _) => {
                let source = io::Error::other(format!("it holds a Holdfast disk already, with {reason}"));
                Err(FormatError::Io { path, what: "looking at it", source })
            }
            (None, Some(at)) => Err(FormatError::NotBlank { path, at }),
            (None, None) => Ok(()),
        }
    }
}
