//! The kernel's own word for it: the block layer's trace of one device (Linux, `Documentation/trace/ftrace.rst` and
//! `include/trace/events/block.h`).
//!
//! A write is durable when its bio carries FUA: the block layer then completes it only once it is on the medium, with a
//! flush of its own where the device has no FUA. In `rwbs` that is an F behind the W.
//!
//! Where things stand on the device is looked up by their bytes, not by the engine's own arithmetic: batches by what the
//! child wrote, header pages and log blocks by their magics (`docs/on-disk-format.md`).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use holdfast_libs_types::VolumeId;

use crate::child::batch_at;
use crate::history::{Event, Step};

const SECTOR: u64 = 512;
const PAGE: usize = 4096;

/// A trace instance of its own, removed when it is dropped.
pub struct Trace(PathBuf);

/// An I/O in the trace. Times are microseconds of the monotonic clock.
struct Io {
    at_us: u64,
    flags: String,
    start: u64,
    end: u64,
}

impl Trace {
    /// Traces a device from now on. None, and says why, where the kernel's trace cannot be had.
    pub fn of(device: &Path) -> Option<Self> {
        let instance = Path::new("/sys/kernel/tracing/instances").join(format!("holdfast-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&instance) {
            println!("left out: no trace of the block layer: {}: {error}", instance.display());
            return None;
        }
        let trace = Self(instance);
        let number = fs::metadata(device).unwrap().rdev();
        let filter = format!("dev == {}", nix::sys::stat::major(number) << 20 | nix::sys::stat::minor(number));
        trace.set("trace_clock", "mono");
        trace.set("buffer_size_kb", "8192");
        for event in ["block_bio_queue", "block_rq_complete"] {
            trace.set(&format!("events/block/{event}/filter"), &filter);
            trace.set(&format!("events/block/{event}/enable"), "1");
        }
        Some(trace)
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    /// Forgets what was traced so far.
    pub fn clear(&self) {
        self.set("trace", "");
    }

    fn read(&self) -> Traced {
        let text = fs::read_to_string(self.0.join("trace")).unwrap();
        for processor in fs::read_dir(self.0.join("per_cpu")).unwrap() {
            let lost = fs::read_to_string(processor.unwrap().path().join("stats")).unwrap();
            assert!(lost.lines().any(|line| line == "overrun: 0"), "{lost}");
        }
        let mut traced = Traced::default();
        for line in text.lines() {
            if let Some((head, what)) = line.split_once(": block_bio_queue: ") {
                // A flush is traced as a write of nothing.
                traced.queued.extend(io(head, what).filter(|io| io.flags.contains('W') && io.start < io.end));
            } else if let Some((head, what)) = line.split_once(": block_rq_complete: ")
                && let Some(io) = io(head, what)
            {
                if io.flags.starts_with('F') {
                    traced.flushed.push(io.at_us);
                }
                if io.flags.contains('W') {
                    traced.written.push(io);
                }
            }
        }
        traced
    }

    /// Checks the writes since the last `clear`: each was durable, and what an acknowledged step wrote was complete, and
    /// flushed, before the acknowledgement, as far as it still stands on the device. Returns how many appends, and how
    /// many other steps, it found.
    pub fn check(&self, device: &Path, events: &[Event], seed: u64) -> [usize; 2] {
        let traced = self.read();
        for io in &traced.queued {
            assert!(io.flags.contains("WF"), "seed {seed}: sector {} was written {:?}", io.start, io.flags);
        }
        let places = Places::on(device);
        let mut begun = HashMap::new();
        let mut made = HashSet::new();
        let mut found = [0; 2];
        for event in events {
            match *event {
                Event::Begun { volume, at_us, .. } => drop(begun.insert(volume, at_us)),
                Event::Acknowledged { volume, step: Step::Append { start, end }, at_us } => {
                    let Some(place) = places.pages.get(&batch_at(volume, start)[..PAGE]) else { continue };
                    let what = format!("seed {seed}: {volume} at {start}");
                    traced.append(*place..place + (end - start) / SECTOR, at_us, &what);
                    found[0] += 1;
                }
                Event::Acknowledged { volume, step, at_us } => {
                    if step == Step::Create {
                        made.insert(volume);
                    }
                    // A volume of an earlier life may have been fenced already: nothing is written then.
                    let changes = step != Step::Fence || made.remove(&volume);
                    let Some(headers) = places.headers.get(&volume).filter(|_| changes) else { continue };
                    let what = format!("seed {seed}: {step:?} of {volume}");
                    traced.change(&places.log, headers, begun[&volume]..at_us + 1, &what);
                    found[1] += 1;
                }
                _ => {}
            }
        }
        found
    }
}

/// What the trace holds of writes.
#[derive(Default)]
struct Traced {
    queued: Vec<Io>,
    written: Vec<Io>,
    /// When the device had made durable all that was complete before.
    flushed: Vec<u64>,
}

impl Traced {
    /// When what was complete `since` was flushed.
    fn durable(&self, since: u64) -> Option<u64> {
        self.flushed.iter().copied().filter(|at| *at >= since).min()
    }

    /// All of the batch was on the medium before it was acknowledged.
    fn append(&self, sectors: Range<u64>, acknowledged: u64, what: &str) {
        let (mut at, mut last) = (sectors.start, 0);
        while at < sectors.end {
            let covers = |io: &&Io| io.start <= at && at < io.end && io.at_us <= acknowledged + 1;
            let io = self.written.iter().find(covers);
            let io = io.unwrap_or_else(|| panic!("{what}: sector {at} was not written before {acknowledged}"));
            last = last.max(io.at_us);
            at = io.end;
        }
        let flushed = self.durable(last).filter(|flushed| *flushed <= acknowledged + 1);
        assert!(flushed.is_some(), "{what}: no flush between {last} and {acknowledged}");
    }

    /// A block of the log was on the medium, then a header page was written and was on the medium, all in that time.
    fn change(&self, log: &HashSet<u64>, headers: &HashSet<u64>, time: Range<u64>, what: &str) {
        let durable = |places: &HashSet<u64>, since: u64| {
            let writes = self.written.iter().filter(|io| places.contains(&io.start) && io.at_us >= since);
            writes.filter_map(|io| self.durable(io.at_us)).min().filter(|at| *at <= time.end)
        };
        let logged = durable(log, time.start);
        let logged = logged.unwrap_or_else(|| panic!("{what}: no durable block of the log in {time:?}"));
        let is_header = |io: &&Io| headers.contains(&io.start) && (logged..=time.end).contains(&io.at_us);
        let queued = self.queued.iter().find(is_header);
        let queued = queued.unwrap_or_else(|| panic!("{what}: no header after the log's {logged} in {time:?}"));
        let header = durable(headers, queued.at_us);
        assert!(header.is_some(), "{what}: the header queued at {} was not durable in {time:?}", queued.at_us);
    }
}

/// Where things stand on a device, in sectors.
struct Places {
    /// Of every page, by its bytes.
    pages: HashMap<Vec<u8>, u64>,
    /// Of all blocks of the log.
    log: HashSet<u64>,
    /// Of both header pages of the slot that holds a volume.
    headers: HashMap<VolumeId, HashSet<u64>>,
}

impl Places {
    fn on(device: &Path) -> Self {
        let mut bytes = Vec::new();
        File::open(device).unwrap().read_to_end(&mut bytes).unwrap();
        let mut places = Self { pages: HashMap::new(), log: HashSet::new(), headers: HashMap::new() };
        let (mut slots, mut volumes) = (HashMap::<_, HashSet<u64>>::new(), Vec::new());
        for (number, page) in bytes.chunks_exact(PAGE).enumerate() {
            let sector = (number * PAGE) as u64 / SECTOR;
            places.pages.insert(page.to_vec(), sector);
            if page.starts_with(b"HFTL") {
                places.log.insert(sector);
            } else if page.starts_with(b"HFSL") {
                let slot: [u8; 4] = page[8..12].try_into().unwrap();
                slots.entry(slot).or_default().insert(sector);
                volumes.push((VolumeId(page[48..64].try_into().unwrap()), slot));
            }
        }
        places.headers = volumes.into_iter().map(|(volume, slot)| (volume, slots[&slot].clone())).collect();
        places
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// `… 12.345678` and `7,0 WFS 123 + 8 [comm]` or `7,0 WFS () 123 + 8 none,0,0 [0]`.
fn io(head: &str, what: &str) -> Option<Io> {
    let (seconds, micros) = head.rsplit(' ').next()?.split_once('.')?;
    let at_us = seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?;
    let mut words = what.split(' ').filter(|word| !word.starts_with('('));
    let flags = words.nth(1)?.to_owned();
    let start: u64 = words.next()?.parse().ok()?;
    let sectors: u64 = words.nth(1)?.parse().ok()?;
    Some(Io { at_us, flags, start, end: start + sectors })
}
