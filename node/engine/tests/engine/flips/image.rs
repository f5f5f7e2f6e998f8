//! A disk with extents in every state, and where on it what is live stands.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_libs_sim::disk::{SimDisk, Snapshot};
use holdfast_libs_types::{DiskId, VolumeId, WriteEpoch};
use holdfast_node_engine::simulated::table_areas;
use holdfast_node_engine::{ExtentInfo, Place, RecordRow, TrashOrder};
use sha2::Digest;

use crate::support::{Appended, Bench, EPOCH, aligned, drive, volume};

pub const SEALED: [u8; 2] = [1, 2];
pub const OPEN: [u8; 2] = [3, 4];
pub const FENCED: u8 = 5;
pub const TRASHED: u8 = 6;
const COPYING: u8 = 7;
const NEXT: WriteEpoch = WriteEpoch(2);
const PAGE: u64 = 4096;
const SPAN: u64 = 64 * 1024;
const KEYS_AT_MOST: u64 = 8 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    SuperblockA,
    SuperblockB,
    Keys,
    CheckpointInUse,
    CheckpointBefore,
    LogInUse,
    LogBefore,
    SlotHeader,
    SealedData,
    Footer,
    OpenBatch,
    OpenLastBatch,
    FencedBatch,
    FencedLastBatch,
    TrashData,
    TrashFooter,
}

impl Area {
    pub const ALL: [Self; 16] = [
        Self::SuperblockA,
        Self::SuperblockB,
        Self::Keys,
        Self::CheckpointInUse,
        Self::CheckpointBefore,
        Self::LogInUse,
        Self::LogBefore,
        Self::SlotHeader,
        Self::SealedData,
        Self::Footer,
        Self::OpenBatch,
        Self::OpenLastBatch,
        Self::FencedBatch,
        Self::FencedLastBatch,
        Self::TrashData,
        Self::TrashFooter,
    ];

    pub fn place(self) -> Place {
        match self {
            Self::SuperblockA | Self::SuperblockB => Place::Superblock,
            Self::Keys => Place::KeyArea,
            Self::CheckpointInUse | Self::CheckpointBefore | Self::LogInUse | Self::LogBefore => Place::ExtentTable,
            Self::SlotHeader => Place::SlotHeader,
            Self::Footer | Self::TrashFooter => Place::Footer,
            _ => Place::Data,
        }
    }

    /// As the engine calls it.
    pub fn name(self) -> &'static str {
        match self.place() {
            Place::Superblock => "superblock",
            Place::KeyArea => "key area",
            _ => "extent table",
        }
    }

    /// Data of an extent: only another replica has it.
    pub fn is_data(self) -> bool {
        self.place() == Place::Data
    }

    /// Where a torn append would stand.
    pub fn is_end_of_open(self) -> bool {
        matches!(self, Self::OpenLastBatch | Self::FencedLastBatch)
    }

    pub fn is_trash(self) -> bool {
        matches!(self, Self::TrashData | Self::TrashFooter)
    }
}

/// A run of live bytes under one checksum.
#[derive(Debug)]
pub struct Region {
    pub area: Area,
    pub on_disk: Range<u64>,
    pub slot: Option<u32>,
    pub volume: Option<VolumeId>,
    /// The offset by which a report names it: in the extent, in the slot, or of an area on the disk.
    pub in_extent: u64,
}

pub struct Image {
    pub disk: DiskId,
    pub disk_bytes: u64,
    pub snapshot: Snapshot,
    pub regions: Vec<Region>,
    pub extents: Vec<ExtentInfo>,
    /// What may be read, record by record.
    pub records: Vec<Appended>,
    /// Record tables of what is sealed.
    pub rows: Vec<(VolumeId, Vec<RecordRow>)>,
    /// All bytes of what is sealed, open or fenced.
    pub contents: Vec<(VolumeId, Vec<u8>)>,
    pub keys: Vec<u8>,
    /// Where on the disk the data of a slot starts.
    pub data_starts: BTreeMap<u32, u64>,
}

impl Image {
    pub fn new() -> Self {
        let mut bench = Bench::new(1);
        let mut records = Vec::new();
        // Starts and ends of batches.
        let mut batches: BTreeMap<u8, Vec<Range<u64>>> = BTreeMap::new();
        for n in [SEALED[0], SEALED[1], OPEN[0], OPEN[1], FENCED, TRASHED] {
            bench.create(volume(n));
            let mut start = 0;
            for payloads in [&[70_000, 16, 30_000][..], &[5000], &[90_000, 3000]] {
                let (appended, end) = bench.append(volume(n), payloads);
                records.extend(appended);
                batches.entry(n).or_default().push(start..end);
                start = end;
            }
        }
        let keys = vec![0xab; 5000];
        let content = keys.clone();
        bench.run(|disk| async move { disk.write_key_area(content).await }).unwrap();
        let length = batches[&1][2].end;
        for n in [SEALED[0], SEALED[1], TRASHED] {
            bench.run(|disk| async move { disk.seal(volume(n), NEXT, length, 1).await }).unwrap();
        }
        let ExtentInfo { slot, slot_generation, .. } =
            bench.run(|disk| async move { disk.extent(volume(TRASHED)).await }).unwrap();
        let order = TrashOrder { volume: volume(TRASHED), slot, slot_generation, term: 1, order: [5; 16] };
        bench.run(|disk| async move { disk.trash(order).await }).unwrap();
        bench.run(|disk| async move { disk.fence(volume(FENCED), NEXT, 1).await }).unwrap();
        // Copies begun and given up: freed slots, and enough changes for two checkpoints with a log behind each.
        for _ in 0..12 {
            begin_copy(&mut bench, 9);
            bench.run(|disk| async move { disk.abort_copy(volume(9)).await }).unwrap();
        }
        begin_copy(&mut bench, COPYING);
        bench.run(|disk| async move { disk.propose_incarnation().await }).unwrap();
        bench.restart();
        // Both checkpoints have logs after this.
        begin_copy(&mut bench, 9);
        bench.run(|disk| async move { disk.abort_copy(volume(9)).await }).unwrap();

        let extents = bench.run(|disk| async move { disk.extents().await }).unwrap();
        records.retain(|record| record.volume != volume(TRASHED));
        let mut rows = Vec::new();
        for n in SEALED {
            rows.push((volume(n), bench.run(|disk| async move { disk.records(volume(n)).await }).unwrap()));
        }
        let mut contents = Vec::new();
        for n in [SEALED[0], SEALED[1], OPEN[0], OPEN[1], FENCED] {
            let bytes = bench.run(|disk| async move { disk.read(volume(n), 0, length as u32).await }).unwrap();
            contents.push((volume(n), bytes.to_vec()));
        }
        let data_starts = extents.iter().map(|info| (info.slot, bench.engine.data_range(info.slot).start)).collect();
        let mut image = Self {
            disk: bench.handle().id(),
            disk_bytes: bench.disk.borrow().size(),
            snapshot: bench.disk.borrow().snapshot(),
            regions: Vec::new(),
            extents,
            records,
            rows,
            contents,
            keys,
            data_starts,
        };
        image.find_areas(&bench.disk.borrow());
        image.find_headers(&bench);
        image.find_data(&bench.disk.borrow(), &batches);
        image
    }

    pub fn extent(&self, n: u8) -> &ExtentInfo {
        self.extents.iter().find(|info| info.volume == volume(n)).unwrap()
    }

    fn area(&mut self, area: Area, on_disk: Range<u64>, named: u64) {
        self.regions.push(Region { area, on_disk, slot: None, volume: None, in_extent: named });
    }

    fn find_areas(&mut self, disk: &SimDisk) {
        self.area(Area::SuperblockA, 0..PAGE, 0);
        self.area(Area::SuperblockB, 1 << 20..(1 << 20) + PAGE, 1 << 20);
        let table = table_areas(self.disk_bytes, Bench::SLOT_BYTES);
        let page = |at: u64| disk.peek(at, PAGE as usize);
        let is = |at: u64, magic: &[u8]| disk.peek(at, 4) == magic;
        let number = |at: u64, field: usize| u64::from_le_bytes(page(at)[field..field + 8].try_into().unwrap());
        let generations = [0, 1].map(|copy| number(table.copies[copy].start, 8));
        let in_use = usize::from(generations[1] > generations[0]);
        assert_eq!(generations[1 - in_use] + 1, generations[in_use], "both checkpoints stand");
        let first_in_use = number(table.copies[in_use].start, 32);
        for copy in [0, 1] {
            let newest = copy == in_use;
            let area = if newest { Area::CheckpointInUse } else { Area::CheckpointBefore };
            for at in table.copies[copy].clone().step_by(PAGE as usize) {
                if is(at, b"HFTC") || is(at, b"HFTP") {
                    self.area(area, at..at + PAGE, at);
                }
            }
            let area = if newest { Area::LogInUse } else { Area::LogBefore };
            let mut blocks = 0;
            for at in table.halves[copy].clone().step_by(PAGE as usize) {
                // The log of the checkpoint before ends where that of the one in use begins.
                let live = number(at, 8) == generations[copy] && (newest || number(at, 32) < first_in_use);
                if is(at, b"HFTL") && live {
                    self.area(area, at..at + PAGE, at);
                    blocks += 1;
                }
            }
            assert!(blocks > 0, "{area:?} is empty");
        }
        let begin = table.halves.iter().map(|half| half.end).max().unwrap();
        let copies: Vec<u64> = (begin..KEYS_AT_MOST).step_by(PAGE as usize).filter(|at| is(*at, b"HFKA")).collect();
        assert_eq!(copies.len(), 2);
        for at in copies {
            self.area(Area::Keys, at..at + PAGE + self.keys.len() as u64, at);
        }
    }

    fn find_headers(&mut self, bench: &Bench) {
        let used: Vec<(u32, Option<VolumeId>)> =
            self.extents.iter().map(|info| (info.slot, Some(info.volume))).collect();
        let last = used.iter().map(|(slot, _)| *slot).max().unwrap();
        // And two that are free: one that was used, one that never was.
        for (slot, volume) in used.into_iter().chain([(last + 1, None), (last + 2, None)]) {
            let start = bench.engine.header_range(slot).start;
            for page in [0, PAGE] {
                let on_disk = start + page..start + page + PAGE;
                self.regions.push(Region {
                    area: Area::SlotHeader,
                    on_disk,
                    slot: Some(slot),
                    volume,
                    in_extent: page,
                });
            }
        }
    }

    fn data(&mut self, area: Area, n: u8, span: Range<u64>, named: u64) {
        let slot = self.extent(n).slot;
        let start = self.data_starts[&slot];
        let on_disk = start + span.start..start + span.end;
        self.regions.push(Region { area, on_disk, slot: Some(slot), volume: Some(volume(n)), in_extent: named });
    }

    fn find_data(&mut self, disk: &SimDisk, batches: &BTreeMap<u8, Vec<Range<u64>>>) {
        for (n, batches) in batches {
            let length = batches[2].end;
            let sealed = SEALED.contains(n);
            if sealed || *n == TRASHED {
                let area = if sealed { Area::SealedData } else { Area::TrashData };
                for start in (0..length).step_by(SPAN as usize) {
                    self.data(area, *n, start..length.min(start + SPAN), start);
                }
            } else {
                let is_open = OPEN.contains(n);
                let (inner, last) = match is_open {
                    true => (Area::OpenBatch, Area::OpenLastBatch),
                    false => (Area::FencedBatch, Area::FencedLastBatch),
                };
                for (index, batch) in batches.iter().enumerate() {
                    let area = if index == 2 { last } else { inner };
                    self.data(area, *n, batch.clone(), batch.start);
                }
            }
            if sealed || *n == TRASHED {
                let area = if sealed { Area::Footer } else { Area::TrashFooter };
                // Page checksums, record table and trailer: a page each.
                let end = length + 3 * PAGE;
                let trailer = self.data_starts[&self.extent(*n).slot] + end - PAGE;
                assert_eq!(disk.peek(trailer, 4), *b"HFFT");
                self.data(area, *n, length..end, length);
            }
        }
    }
}

fn begin_copy(bench: &mut Bench, n: u8) {
    let bytes = vec![7; 8192];
    let (length, digest) = (bytes.len() as u64, sha2::Sha256::digest(&bytes).into());
    let part = aligned(&bytes);
    let disk = bench.handle();
    drive(&mut bench.engine, disk.begin_copy(volume(n), EPOCH, length, digest, None)).unwrap();
    drive(&mut bench.engine, disk.copy_write(volume(n), 0, &mut Some(part))).unwrap();
}
