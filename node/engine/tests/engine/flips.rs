//! Single flipped bits, anywhere in what is live on a disk: each is reported by the mount, a read or the scrub, with disk,
//! slot or area, and offset; none is served; and what was not hit reads well.
//!
//! Live is every byte that something would be believed from: both superblocks, both copies of the keys, both checkpoints of
//! the extent table, the blocks of both logs, both header pages of every slot, batches below the tail or length, footers.
//! All of it stands under checksums, padding included. Of the trash, headers are live; data and footer are when it is
//! restored.
//!
//! Not live, and not flipped: the rest of an area behind what is written there, pages behind the end of a log, an unfinished
//! copy's data (it is read back whole before it counts), and a slot's bytes behind tail or footer.
//!
//! A read that serves is `read_record`. `read` shows bytes as they stand, for copies, which are compared with the digest
//! where they arrive.
//!
//! `HOLDFAST_SEED=n` takes other bits, `HOLDFAST_FLIPS=count` more.

mod image;
mod journal;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use holdfast_libs_sim::disk::SimDisk;
use holdfast_libs_sim::streams::Streams;
use holdfast_node_engine::simulated::{SharedSimDisk, SimulatedDisk};
use holdfast_node_engine::{EngineError, ExtentInfo, ExtentState, Finding, Place};

use crate::support::{Appended, drive, mounted, volume};
use image::{Area, Image, Region, TRASHED};
use journal::Journal;

/// How a flip came to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Mount,
    Read,
    Scrub,
}

struct Flip<'a> {
    image: &'a Image,
    region: &'a Region,
    /// Where on the disk.
    at: u64,
    /// Under a mounted engine; otherwise it is there when the disk is mounted.
    hot: bool,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn every_flipped_bit_is_reported_with_its_place_and_none_is_served() {
    let (seed, flips) = (number("HOLDFAST_SEED", 1), number("HOLDFAST_FLIPS", 1000));
    let image = Image::new();
    let mut counts: BTreeMap<(Area, bool), (u32, BTreeMap<Way, u32>)> = BTreeMap::new();
    for n in 0..flips {
        let mut rng = Streams::new(seed).stream(&format!("flip {n}"));
        let area = Area::ALL[n as usize % Area::ALL.len()];
        let regions: Vec<&Region> = image.regions.iter().filter(|region| region.area == area).collect();
        assert!(!regions.is_empty(), "nothing of {area:?} is live");
        let region = regions[rng.index(regions.len())];
        let at = rng.within(region.on_disk.clone());
        let (bit, hot) = (rng.below(8) as u8, rng.chance(500));
        let flip = Flip { image: &image, region, at, hot };
        let ways = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| flip.run(bit))).unwrap_or_else(|panic| {
            eprintln!("seed {seed}, flip {n}: bit {bit} at {at}, hot: {hot}, {region:?}");
            std::panic::resume_unwind(panic)
        });
        let (hits, by_way) = counts.entry((area, hot)).or_default();
        *hits += 1;
        ways.into_iter().for_each(|way| *by_way.entry(way).or_default() += 1);
    }
    println!(
        "{flips} flips, seed {seed}, reported by\n{:<34}{:>6}{:>8}{:>8}{:>8}",
        "", "flips", "mount", "read", "scrub"
    );
    for ((area, hot), (hits, ways)) in &counts {
        let count = |way| ways.get(&way).copied().unwrap_or(0);
        let when = if *hot { "while mounted" } else { "before the mount" };
        let name = format!("{area:?}, {when}");
        let [mount, read, scrub] = [Way::Mount, Way::Read, Way::Scrub].map(count);
        println!("{name:<34}{hits:>6}{mount:>8}{read:>8}{scrub:>8}");
    }
    for area in Area::ALL {
        for hot in [false, true] {
            let hits = counts.get(&(area, hot)).map_or(0, |(hits, _)| u64::from(*hits));
            assert!(hits >= flips / Area::ALL.len() as u64 / 4, "{area:?} was hit {hits} times, hot: {hot}");
        }
    }
}

impl Flip<'_> {
    /// Flips the bit, looks for it, and says what reported it.
    fn run(&self, bit: u8) -> Vec<Way> {
        let disk: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(self.image.disk_bytes, &Streams::new(1))));
        disk.borrow_mut().put_back(&self.image.snapshot);
        let journal = Journal::default();
        let _told = journal.listen();
        let mut engine;
        if self.hot {
            engine = mounted(&disk);
            assert_eq!(journal.take(), Vec::<String>::new(), "nothing is wrong yet");
            disk.borrow_mut().flip_bit(self.at, bit);
        } else {
            disk.borrow_mut().flip_bit(self.at, bit);
            engine = mounted(&disk);
        }
        let mut ways = Vec::new();
        let told = journal.take();
        ways.extend(self.is_told(&told).then_some(Way::Mount));
        if !self.hot && self.region.area.is_end_of_open() {
            assert!(told.iter().any(|line| line.contains("torn or damaged") && self.is_named_by(line)), "{told:?}");
        }
        ways.extend(self.read_all(&mut engine, !self.hot).then_some(Way::Read));
        ways.extend(self.scrub(&mut engine).then_some(Way::Scrub));
        if self.region.area.is_trash() {
            let trashed = self.image.extent(TRASHED);
            let (slot, generation) = (trashed.slot, trashed.slot_generation);
            let disk = engine.handle().clone();
            drive(&mut engine, disk.restore(volume(TRASHED), slot, generation, 1)).unwrap();
            assert_eq!(ways, [], "nobody looked at it");
            ways.extend(self.scrub(&mut engine).then_some(Way::Scrub));
        }
        drop(engine);
        self.comes_back(&disk);
        // A read may never come. What a mount told, it has mended, or shows as damaged.
        assert!(ways.iter().any(|way| *way != Way::Read), "found by {ways:?}; the mount told {told:?}");
        ways
    }

    /// What is not hit reads well, and of what is hit nothing is served; whether a read said so, and where. `mounted_after` the flip, a last
    /// batch may have gone.
    fn read_all(&self, engine: &mut SimulatedDisk, mounted_after: bool) -> bool {
        let disk = engine.handle().clone();
        let mut said = false;
        for record in &self.image.records {
            let len = record.bytes.len() as u32;
            match drive(engine, disk.read_record(record.volume, record.offset, len)) {
                Ok(bytes) => assert_eq!(bytes[..], record.bytes[..], "served {} of {}", record.offset, record.volume),
                Err(EngineError::Damaged { disk, slot, volume, offset, .. }) if self.hits(record) => {
                    assert_eq!((disk, Some(slot)), (self.image.disk, self.region.slot));
                    assert_eq!((volume, offset), (record.volume, record.offset));
                    said = true;
                }
                // Nobody knows whether its batch was ever acknowledged.
                Err(EngineError::OutOfRange { end, .. }) if mounted_after && self.region.area.is_end_of_open() => {
                    assert_eq!((self.region.volume, end), (Some(record.volume), self.region.in_extent));
                }
                Err(error) => panic!("{} of {}: {error}", record.offset, record.volume),
            }
        }
        for (volume, rows) in &self.image.rows {
            match drive(engine, disk.records(*volume)) {
                Ok(found) => assert_eq!(found, *rows),
                Err(EngineError::Damaged { disk, slot, offset, .. }) if self.region.area == Area::Footer => {
                    assert_eq!((disk, Some(slot)), (self.image.disk, self.region.slot));
                    assert!(self.covers(Place::Footer, offset));
                    said = true;
                }
                Err(error) => panic!("record table of {volume}: {error}"),
            }
        }
        for (volume, bytes) in self.image.contents.iter().filter(|(volume, _)| self.region.volume != Some(*volume)) {
            let read = drive(engine, disk.read(*volume, 0, bytes.len() as u32)).unwrap();
            assert!(read[..] == bytes[..], "{volume} reads otherwise");
        }
        assert_eq!(drive(engine, disk.read_key_area()).unwrap().as_ref(), Some(&self.image.keys));
        said
    }

    /// Rounds to their ends; whether the first found the flip. It finds nothing else, and what it mended the next does not
    /// find.
    fn scrub(&self, engine: &mut SimulatedDisk) -> bool {
        let first = round(engine);
        for finding in &first {
            assert!(self.is_named_in(finding), "accuses the wrong place: {finding:?}");
        }
        let second = round(engine);
        for finding in &second {
            assert!(finding.place == Place::Data && self.is_named_in(finding), "found again: {finding:?}");
        }
        !first.is_empty()
    }

    /// The next mount sees what the intact disk holds, but for the extent whose data was hit.
    fn comes_back(&self, disk: &SharedSimDisk) {
        let mut engine = mounted(disk);
        let handle = engine.handle().clone();
        let extents = drive(&mut engine, handle.extents()).unwrap();
        assert_eq!(extents.len(), self.image.extents.len());
        for (now, before) in extents.iter().zip(&self.image.extents) {
            let facts = |info: &ExtentInfo| (info.volume, info.slot, info.state, info.length, info.digest, info.term);
            if self.region.area == Area::TrashFooter && self.region.volume == Some(now.volume) {
                assert_eq!(now.state, ExtentState::Sealed);
            } else if self.region.area.is_data() && self.region.volume == Some(now.volume) {
                assert!(now.state == ExtentState::Damaged || self.region.area.is_end_of_open(), "{now:?}");
                assert!(now.note.is_some(), "{now:?}");
            } else {
                assert_eq!(facts(now), facts(before));
            }
        }
        let found = round(&mut engine);
        let is_known = |finding: &Finding| self.region.area.is_data() && self.is_named_in(finding);
        assert!(found.iter().all(is_known), "{found:?}");
        self.read_all(&mut engine, true);
    }

    /// Whether the flip is in the bytes of this record.
    fn hits(&self, record: &Appended) -> bool {
        let Some(slot) = self.region.slot.filter(|_| self.region.volume == Some(record.volume)) else { return false };
        let start = self.image.data_starts[&slot] + record.offset;
        (start..start + record.bytes.len() as u64).contains(&self.at)
    }

    fn is_told(&self, lines: &[String]) -> bool {
        lines.iter().any(|line| self.is_named_by(line))
    }

    /// Whether a line of the log names the disk, the slot or area, and the offset.
    fn is_named_by(&self, line: &str) -> bool {
        let has = |text: String| line.contains(&text);
        let place = match self.region.slot {
            Some(slot) => has(format!("slot={slot} ")) && offsets(line).any(|offset| offset == self.region.in_extent),
            None => has(self.region.area.name().to_owned()) && has(format!("offset={} ", self.region.in_extent)),
        };
        has(format!("disk={} ", self.image.disk)) && place
    }

    fn is_named_in(&self, finding: &Finding) -> bool {
        finding.slot == self.region.slot && self.covers(finding.place, finding.offset)
    }

    /// Whether that place is where the flip is: the piece that has one checksum.
    fn covers(&self, place: Place, offset: u64) -> bool {
        place == self.region.area.place() && offset == self.region.in_extent
    }
}

/// The numbers that follow an "at".
fn offsets(line: &str) -> impl Iterator<Item = u64> {
    line.split("at ").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

fn round(engine: &mut SimulatedDisk) -> Vec<Finding> {
    let disk = engine.handle().clone();
    let mut found = Vec::new();
    loop {
        let step = drive(engine, disk.scrub_step(1 << 20)).unwrap();
        found.extend(step.found);
        if step.finished_round {
            return found;
        }
    }
}
