//! The kernel's own word for it: the block layer's trace of one device (Linux, `Documentation/trace/ftrace.rst` and
//! `include/trace/events/block.h`).
//!
//! A write is durable when its bio carries FUA: the block layer then completes it only once it is on the medium, with a
//! flush of its own where the device has no FUA. In `rwbs` that is an F behind the W.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

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

    fn read(&self) -> (Vec<Io>, Vec<Io>) {
        let text = fs::read_to_string(self.0.join("trace")).unwrap();
        let lost = fs::read_to_string(self.0.join("per_cpu/cpu0/stats")).unwrap();
        assert!(lost.lines().any(|line| line == "overrun: 0"), "{lost}");
        let (mut queued, mut completed) = (Vec::new(), Vec::new());
        for line in text.lines() {
            if let Some((head, what)) = line.split_once(": block_bio_queue: ") {
                queued.extend(io(head, what));
            } else if let Some((head, what)) = line.split_once(": block_rq_complete: ") {
                completed.extend(io(head, what));
            }
        }
        (queued, completed)
    }

    /// Checks the writes since the last `clear`: each was durable, and the bytes of every acknowledged append that still
    /// stand on the device were complete, and flushed, before the acknowledgement. Returns how many appends it found.
    pub fn check(&self, device: &Path, events: &[Event], seed: u64) -> usize {
        let (queued, completed) = self.read();
        // A flush is traced as a write of nothing.
        for io in queued.iter().filter(|io| io.flags.contains('W') && io.start < io.end) {
            assert!(io.flags.contains("WF"), "seed {seed}: sector {} was written {:?}", io.start, io.flags);
        }
        let written: Vec<&Io> = completed.iter().filter(|io| io.flags.contains('W')).collect();
        let flushed: Vec<u64> = completed.iter().filter(|io| io.flags.starts_with('F')).map(|io| io.at_us).collect();
        let places = batches_on(device);
        let mut found = 0;
        for event in events {
            let Event::Acknowledged { volume, step: Step::Append { start, end }, at_us } = event else { continue };
            let Some(place) = places.get(&batch_at(*volume, *start)[..PAGE]) else { continue };
            let (mut at, to) = (*place, place + (end - start) / SECTOR);
            let mut last = 0;
            while at < to {
                let covers = |io: &&&Io| io.start <= at && at < io.end && io.at_us <= at_us + 1;
                let io = written.iter().find(covers).unwrap_or_else(|| {
                    panic!("seed {seed}: {volume} at {start}: sector {at} was not written before {at_us}")
                });
                last = last.max(io.at_us);
                at = io.end;
            }
            let flushed = flushed.iter().any(|flush| (last..=at_us + 1).contains(flush));
            assert!(flushed, "seed {seed}: {volume} at {start}: no flush between {last} and {at_us}");
            found += 1;
        }
        found
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

/// Where pages stand on a device: the sector of each, by its bytes.
fn batches_on(device: &Path) -> HashMap<Vec<u8>, u64> {
    let mut bytes = Vec::new();
    File::open(device).unwrap().read_to_end(&mut bytes).unwrap();
    let pages = bytes.chunks_exact(PAGE).enumerate();
    pages.map(|(number, page)| (page.to_vec(), (number * PAGE) as u64 / SECTOR)).collect()
}
