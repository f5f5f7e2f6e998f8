//! The kernel's interface to zoned block devices: what it reports of zones, and how zones are reset and finished.
//!
//! Source: `linux/blkzoned.h` (reports, resets and finishes are ioctls of a block device; all numbers are in sectors of
//! 512 bytes) and `Documentation/ABI/stable/sysfs-block` (`queue/zoned`, `chunk_sectors`, `max_open_zones`,
//! `max_active_zones`).
//!
//! A report is decoded from the bytes that the kernel writes, so that the simulated disk can answer with the same.

use std::io;
use std::ops::Range;
use std::path::Path;

use crate::geometry::zoned::ZoneShape;

const SECTOR_BYTES: u64 = 512;
/// `struct blk_zone_report`: sector 8, number of zones 4, flags 4.
const REPORT_HEADER_BYTES: usize = 16;
/// `struct blk_zone`.
const ZONE_BYTES: usize = 64;
/// `BLK_ZONE_REP_CAPACITY`: the zones have their capacity; older kernels know only lengths.
const REPORTS_CAPACITY: u32 = 1;

const TYPE_CONVENTIONAL: u8 = 1;
const TYPE_SEQUENTIAL: u8 = 2;
/// Of host-aware disks: may be written anywhere.
const TYPE_SEQUENTIAL_PREFERRED: u8 = 3;

const PAGE: u64 = holdfast_libs_types::PAGE_BYTES as u64;

/// What a zone can do, after the conditions of ZBC, ZAC and ZNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// It has no write pointer.
    Conventional,
    Empty,
    /// Open, by itself or on demand, or closed: partly written.
    Partial,
    Full,
    ReadOnly,
    Offline,
}

/// One zone; offsets from the start of the disk, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Zone {
    pub(crate) start: u64,
    pub(crate) len: u64,
    /// Bytes that can be written.
    pub(crate) capacity: u64,
    /// Bytes that were written, from the start. Of a zone that is read-only nobody knows: all of it.
    pub(crate) written: u64,
    pub(crate) condition: Condition,
}

/// Why a report cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the report of its zones makes no sense: {0}")]
pub(crate) struct BadReport(String);

/// Bytes of a report of so many zones.
pub(crate) const fn report_bytes(zones: usize) -> usize {
    REPORT_HEADER_BYTES + zones * ZONE_BYTES
}

/// Writes the request for a report into `bytes`: zones from the one at `offset` on, as many as there is room for.
fn ask(bytes: &mut [u8], offset: u64) {
    let zones = (bytes.len().saturating_sub(REPORT_HEADER_BYTES) / ZONE_BYTES) as u32;
    bytes[..8].copy_from_slice(&(offset / SECTOR_BYTES).to_ne_bytes());
    bytes[8..12].copy_from_slice(&zones.to_ne_bytes());
    bytes[12..16].copy_from_slice(&0u32.to_ne_bytes());
}

/// The zones of a report.
///
/// # Errors
/// When it is cut short, or has what no zone can be.
pub(crate) fn decode_report(bytes: &[u8]) -> Result<Vec<Zone>, BadReport> {
    let cut = || BadReport(format!("it has {} bytes", bytes.len()));
    let count = u32_at(bytes, 8).ok_or_else(cut)? as usize;
    let with_capacity = u32_at(bytes, 12).ok_or_else(cut)? & REPORTS_CAPACITY != 0;
    let zones = bytes[REPORT_HEADER_BYTES..].chunks_exact(ZONE_BYTES).take(count);
    if zones.len() != count {
        return Err(cut());
    }
    zones.map(|zone| decode_zone(zone, with_capacity)).collect()
}

fn decode_zone(bytes: &[u8], with_capacity: bool) -> Result<Zone, BadReport> {
    let at = |n: usize| u64_at(bytes, n).and_then(|sectors| sectors.checked_mul(SECTOR_BYTES));
    let (Some(start), Some(len), pointer, Some(reported)) = (at(0), at(8), at(16), at(32)) else {
        return Err(BadReport("a number is out of range".to_owned()));
    };
    let capacity = if with_capacity { reported } else { len };
    let wrong = |what: String| BadReport(format!("the zone at {start} {what}"));
    if len == 0 || capacity > len || start.checked_add(len).is_none() {
        return Err(wrong(format!("is {len} bytes long, with room for {capacity}")));
    }
    let condition = match (bytes[24], bytes[25]) {
        (_, 0xd) => Condition::ReadOnly,
        (_, 0xf) => Condition::Offline,
        (TYPE_CONVENTIONAL | TYPE_SEQUENTIAL_PREFERRED, _) => Condition::Conventional,
        (TYPE_SEQUENTIAL, 0x1) => Condition::Empty,
        (TYPE_SEQUENTIAL, 0x2..=0x4) => Condition::Partial,
        (TYPE_SEQUENTIAL, 0xe) => Condition::Full,
        (kind, condition) => return Err(wrong(format!("has type {kind} and condition {condition}"))),
    };
    let written = match condition {
        Condition::Empty | Condition::Offline => 0,
        Condition::Full | Condition::ReadOnly | Condition::Conventional => capacity,
        Condition::Partial => pointer
            .and_then(|pointer| pointer.checked_sub(start))
            .filter(|written| *written <= capacity)
            .ok_or_else(|| wrong("has its write pointer outside of itself".to_owned()))?,
    };
    Ok(Zone { start, len, capacity, written, condition })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// A report as the kernel writes it.
pub(crate) fn encode_report(zones: &[Zone]) -> Vec<u8> {
    let mut bytes = vec![0; report_bytes(zones.len())];
    ask(&mut bytes, zones.first().map_or(0, |zone| zone.start));
    bytes[12..16].copy_from_slice(&REPORTS_CAPACITY.to_ne_bytes());
    for (zone, out) in zones.iter().zip(bytes[REPORT_HEADER_BYTES..].chunks_exact_mut(ZONE_BYTES)) {
        let (kind, condition) = match zone.condition {
            Condition::Conventional => (TYPE_CONVENTIONAL, 0x0),
            Condition::Empty => (TYPE_SEQUENTIAL, 0x1),
            Condition::Partial => (TYPE_SEQUENTIAL, 0x2),
            Condition::Full => (TYPE_SEQUENTIAL, 0xe),
            Condition::ReadOnly => (TYPE_SEQUENTIAL, 0xd),
            Condition::Offline => (TYPE_SEQUENTIAL, 0xf),
        };
        for (at, number) in [(0, zone.start), (8, zone.len), (16, zone.start + zone.written), (32, zone.capacity)] {
            out[at..at + 8].copy_from_slice(&(number / SECTOR_BYTES).to_ne_bytes());
        }
        (out[24], out[25]) = (kind, condition);
    }
    bytes
}

/// `struct blk_zone_range`.
#[repr(C)]
struct ZoneRange {
    sector: u64,
    sectors: u64,
}

const WRITES: u64 = 1;
const READS: u64 = 2;

/// The number of an ioctl of block devices: direction, size of the argument, 0x12, `number`.
const fn request(direction: u64, number: u64, bytes: usize) -> libc::Ioctl {
    (direction << 30 | (bytes as u64) << 16 | 0x12 << 8 | number) as libc::Ioctl
}

const BLKREPORTZONE: libc::Ioctl = request(READS | WRITES, 130, REPORT_HEADER_BYTES);
const BLKRESETZONE: libc::Ioctl = request(WRITES, 131, size_of::<ZoneRange>());
const BLKFINISHZONE: libc::Ioctl = request(WRITES, 136, size_of::<ZoneRange>());

/// Fills `bytes` with a report of the zones from `offset` on, as many as there is room for.
///
/// # Errors
/// ENOTTY and the like from what is no zoned device, and what the device answers.
pub(crate) fn report(fd: i32, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    if bytes.len() < REPORT_HEADER_BYTES {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    ask(bytes, offset);
    // SAFETY: the kernel writes the header and at most as many zones as it asks for, which have room in `bytes`.
    let result = unsafe { libc::ioctl(fd, BLKREPORTZONE, bytes.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Empties the whole zones of a range.
///
/// # Errors
/// What the device answers.
pub(crate) fn reset(fd: i32, range: &Range<u64>) -> io::Result<()> {
    change(fd, BLKRESETZONE, range)
}

/// Makes the whole zones of a range full.
///
/// # Errors
/// What the device answers.
pub(crate) fn finish(fd: i32, range: &Range<u64>) -> io::Result<()> {
    change(fd, BLKFINISHZONE, range)
}

fn change(fd: i32, request: libc::Ioctl, range: &Range<u64>) -> io::Result<()> {
    let argument = ZoneRange { sector: range.start / SECTOR_BYTES, sectors: (range.end - range.start) / SECTOR_BYTES };
    // SAFETY: the kernel only reads the argument, which lives through the call.
    let result = unsafe { libc::ioctl(fd, request, &argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What sysfs tells of a host-managed device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZoneLimits {
    /// From one zone's start to the next, bytes.
    pub(crate) zone_bytes: u64,
    /// Most zones that may be partly written at a time; 0: any number.
    pub(crate) limit: u32,
}

/// Reads the queue's attributes of a device (`/sys/dev/block/MAJOR:MINOR/queue`); `None` of one that may be written
/// anywhere.
///
/// # Errors
/// When a host-managed device does not tell the size of its zones.
pub(crate) fn limits(queue: &Path) -> io::Result<Option<ZoneLimits>> {
    let text = |name: &str| std::fs::read_to_string(queue.join(name)).unwrap_or_default();
    if text("zoned").trim() != "host-managed" {
        return Ok(None);
    }
    let number = |name: &str| text(name).trim().parse::<u64>().unwrap_or(0);
    let zone_bytes = number("chunk_sectors") * SECTOR_BYTES;
    if zone_bytes == 0 {
        let file = queue.join("chunk_sectors");
        return Err(io::Error::other(format!("{} does not tell the size of its zones", file.display())));
    }
    let limits = [number("max_open_zones"), number("max_active_zones")];
    let limit = limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0);
    Ok(Some(ZoneLimits { zone_bytes, limit: u32::try_from(limit).unwrap_or(0) }))
}

/// The shape of a disk with these zones, all of it; the text says why slots cannot stand on it.
pub(crate) fn shape(zones: &[Zone], limits: ZoneLimits) -> Result<ZoneShape, String> {
    let zone_bytes = limits.zone_bytes;
    let is_conventional = |zone: &&Zone| zone.condition == Condition::Conventional && zone.len == zone_bytes;
    let conventional = zones.iter().take_while(is_conventional).count();
    // The last zone of a disk may be shorter.
    let is_sequential = |zone: &&Zone| zone.condition != Condition::Conventional && zone.len == zone_bytes;
    let sequential: Vec<&Zone> = zones[conventional..].iter().take_while(is_sequential).collect();
    // One that is offline need not tell.
    let mut told = sequential.iter().filter(|zone| zone.condition != Condition::Offline);
    let capacity_bytes = told.clone().next().map_or(0, |zone| zone.capacity);
    let other = told.find(|zone| zone.capacity != capacity_bytes || zone.capacity % PAGE != 0);
    if let Some(other) = other {
        let (start, capacity) = (other.start, other.capacity);
        return Err(format!(
            "its zones have room for {capacity_bytes} bytes, but the one at {start} for {capacity}: they must all have the same, in whole pages of {PAGE}"
        ));
    }
    let count = |zones: usize| u32::try_from(zones).map_err(|_| "it has too many zones".to_owned());
    Ok(ZoneShape {
        zone_bytes,
        capacity_bytes,
        conventional: count(conventional)?,
        sequential: count(sequential.len())?,
        limit: limits.limit,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        BLKFINISHZONE, BLKREPORTZONE, BLKRESETZONE, Condition, Zone, ZoneLimits, ask, decode_report, encode_report,
        limits, report_bytes, shape,
    };
    use crate::geometry::zoned::ZoneShape;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_requests_have_the_numbers_of_the_kernels_header() {
        // As a C program prints them on x86-64 and arm64.
        assert_eq!((BLKREPORTZONE, BLKRESETZONE, BLKFINISHZONE), (0xc010_1282, 0x4010_1283, 0x4010_1288));
        let mut bytes = vec![0xff; report_bytes(3)];
        ask(&mut bytes, 256 * MIB);
        assert_eq!(bytes[..16], [0, 0, 8, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// A report of four zones of 256 MiB, the third of which has 16 KiB in it.
    fn fixture() -> Vec<u8> {
        let zone = |start: u8, wp: [u8; 4], kind: u8, condition: u8| {
            let mut zone = [0; 64];
            zone[2] = start;
            zone[10] = 0x08;
            zone[16..20].copy_from_slice(&wp);
            (zone[24], zone[25]) = (kind, condition);
            zone[33..35].copy_from_slice(&[0xe0, 0x07]);
            zone
        };
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0];
        bytes.extend(zone(0x00, [0; 4], 1, 0x0));
        bytes.extend(zone(0x08, [0, 0, 8, 0], 2, 0x1));
        bytes.extend(zone(0x10, [0x20, 0, 0x10, 0], 2, 0x4));
        // Full: the kernel puts the pointer behind the zone.
        bytes.extend(zone(0x18, [0, 0, 0x20, 0], 2, 0xe));
        bytes
    }

    #[test]
    fn a_report_of_the_kernel_is_read_in_bytes() {
        let (len, capacity) = (256 * MIB, 0x07_e000 * 512);
        let zone = |n: u64, written, condition| Zone { start: n * len, len, capacity, written, condition };
        let zones = decode_report(&fixture()).unwrap();
        assert_eq!(
            zones,
            [
                zone(0, capacity, Condition::Conventional),
                zone(1, 0, Condition::Empty),
                zone(2, 16_384, Condition::Partial),
                zone(3, capacity, Condition::Full),
            ]
        );
        assert_eq!(decode_report(&encode_report(&zones)), Ok(zones));
    }

    #[test]
    fn zones_of_a_kernel_that_knows_no_capacity_can_be_written_to_their_end() {
        let mut bytes = fixture();
        bytes[12] = 0;
        assert!(decode_report(&bytes).unwrap().iter().all(|zone| zone.capacity == 256 * MIB));
    }

    #[test]
    fn a_report_that_makes_no_sense_is_refused() {
        let refused = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = fixture();
            change(&mut bytes);
            decode_report(&bytes).unwrap_err().to_string()
        };
        assert!(refused(&|bytes| bytes.truncate(200)).contains("200 bytes"));
        assert!(refused(&|bytes| bytes.truncate(9)).contains("9 bytes"));
        assert!(refused(&|bytes| bytes[8] = 5).contains("bytes"));
        assert!(refused(&|bytes| bytes[16 + 64 + 25] = 0x7).contains("type 2 and condition 7"));
        assert!(refused(&|bytes| bytes[16 + 64 + 24] = 9).contains("type 9"));
        assert!(refused(&|bytes| bytes[16 + 10] = 0).contains("0 bytes long"));
        assert!(refused(&|bytes| bytes[16 + 128 + 18] = 0x0f).contains("write pointer"));
        assert!(refused(&|bytes| bytes[16 + 7] = 0xff).contains("out of range"));
    }

    #[test]
    fn sick_zones_have_no_pointer_that_is_believed() {
        let mut bytes = fixture();
        bytes[16 + 128 + 25] = 0xd;
        bytes[16 + 64 + 25] = 0xf;
        let zones = decode_report(&bytes).unwrap();
        assert_eq!((zones[1].condition, zones[1].written), (Condition::Offline, 0));
        assert_eq!((zones[2].condition, zones[2].written), (Condition::ReadOnly, zones[2].capacity));
    }

    #[test]
    fn the_kernels_attributes_tell_a_host_managed_device_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(limits(directory.path()).unwrap(), None);
        put("zoned", "none\n");
        assert_eq!(limits(directory.path()).unwrap(), None);
        put("zoned", "host-managed\n");
        assert!(limits(directory.path()).unwrap_err().to_string().contains("chunk_sectors"));
        put("chunk_sectors", "524288\n");
        put("max_open_zones", "128\n");
        put("max_active_zones", "0\n");
        assert_eq!(limits(directory.path()).unwrap(), Some(ZoneLimits { zone_bytes: 256 * MIB, limit: 128 }));
        put("max_active_zones", "14\n");
        assert_eq!(limits(directory.path()).unwrap(), Some(ZoneLimits { zone_bytes: 256 * MIB, limit: 14 }));
    }

    #[test]
    fn slots_stand_in_the_sequential_zones_right_behind_the_conventional_ones() {
        let len = 256 * MIB;
        let zone = |n: u64, condition| Zone { start: n * len, len, capacity: len, written: 0, condition };
        let mut zones: Vec<Zone> = (0..2).map(|n| zone(n, Condition::Conventional)).collect();
        zones.extend((2..7).map(|n| zone(n, if n == 4 { Condition::Offline } else { Condition::Empty })));
        zones.push(zone(7, Condition::Conventional));
        zones.push(zone(8, Condition::Empty));
        let limits = ZoneLimits { zone_bytes: len, limit: 128 };
        let found = shape(&zones, limits).unwrap();
        let expected = ZoneShape { zone_bytes: len, capacity_bytes: len, conventional: 2, sequential: 5, limit: 128 };
        assert_eq!(found, expected);
        zones.truncate(7);
        zones[6].len = MIB;
        assert_eq!(shape(&zones, limits).unwrap().sequential, 4, "a short last zone is left out");
        zones[3].capacity = len - 4096;
        assert!(shape(&zones, limits).unwrap_err().contains("must all have the same"));
    }
}
