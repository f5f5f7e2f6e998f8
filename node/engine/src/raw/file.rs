//! A disk's file or block device: opened once, locked against other processes, O_DIRECT where the file system can.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::buffer::AlignedBuf;
use crate::raw::zones::{self, Condition, Zone, ZoneLimits};

/// How long a file that is in use is waited for: the kernel lets go of the rings of a killed process, and of the
/// files they hold, only after the process is gone, so that its successor can come too early.
const IN_USE_WAIT: Duration = Duration::from_secs(2);
/// How often it is tried in that time.
const IN_USE_PAUSE: Duration = Duration::from_millis(20);

/// Why the file could not be had.
#[derive(Debug)]
pub(crate) enum FileError {
    /// Another process (or this one) has it.
    InUse,
    Io {
        what: &'static str,
        source: io::Error,
    },
}

/// Makes a hole and keeps the length; on a device, a discard that leaves zeros.
pub(crate) const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;

/// Whether the device with this number (or the disk that it is a partition of) knows discards. One that does not may
/// still be able to write zeros by itself, which takes a spinning disk seconds for a slot and is of no use.
fn knows_discard(device: u64) -> bool {
    queues(device).iter().any(|queue| {
        let most = std::fs::read_to_string(queue.join("discard_max_bytes"));
        most.is_ok_and(|most| most.trim().parse::<u64>().is_ok_and(|most| most > 0))
    })
}

/// Where the kernel shows the attributes of a device's queue: its own, or that of the disk that it is a partition of.
fn queues(device: u64) -> [PathBuf; 2] {
    let device = PathBuf::from(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)));
    ["queue", "../queue"].map(|queue| device.join(queue))
}

/// Zones that one report asks for.
const REPORT_ZONES: usize = 4096;

/// The zones of a host-managed device.
#[derive(Debug)]
pub(crate) struct DiskZones {
    pub(crate) limits: ZoneLimits,
    pub(crate) zones: Vec<Zone>,
}

#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Flock<File>,
    path: PathBuf,
    device: u64,
    inode: u64,
    pub(crate) is_block_device: bool,
    pub(crate) o_direct: bool,
    /// Whether space can be given back: files can, devices that know discards.
    pub(crate) can_deallocate: bool,
}

impl DiskFile {
    /// Opens and locks; `create` makes a missing file. Waits a little for a file that is in use.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, FileError> {
        let deadline = Instant::now() + IN_USE_WAIT;
        loop {
            match Self::try_open(path, create) {
                Err(FileError::InUse) if Instant::now() < deadline => std::thread::sleep(IN_USE_PAUSE),
                result => return result,
            }
        }
    }

    fn try_open(path: &Path, create: bool) -> Result<Self, FileError> {
        let io = |what| move |source| FileError::Io { what, source };
        // A device that is mounted, or part of an array, is refused with EBUSY. (Files know O_EXCL only with O_CREAT.)
        let is_device = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        let exclusive = if is_device { libc::O_EXCL } else { 0 };
        let open = |flags: i32| {
            std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(create && !is_device)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags | exclusive)
                .open(path)
        };
        let (file, o_direct) = match open(libc::O_DIRECT) {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                tracing::warn!(path = %path.display(), "this file system refuses O_DIRECT; I/O goes through the page cache");
                (open(0).map_err(io("opening it"))?, false)
            }
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(FileError::InUse),
            Err(error) => return Err(io("opening it")(error)),
        };
        let metadata = file.metadata().map_err(io("reading its metadata"))?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io("opening it")(io::Error::other("neither a regular file nor a block device")));
        }
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => FileError::InUse,
            other => io("locking it")(other.into()),
        })?;
        Ok(Self {
            file,
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            is_block_device: kind.is_block_device(),
            o_direct,
            can_deallocate: kind.is_file() || knows_discard(metadata.rdev()),
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Size in bytes, of a file or a device.
    pub(crate) fn size(&self) -> io::Result<u64> {
        if self.is_block_device {
            // A device has no length in its metadata; its end can be sought.
            return io::Seek::seek(&mut self.file(), io::SeekFrom::End(0));
        }
        Ok(self.file.metadata()?.len())
    }

    /// Reads `len` bytes (whole pages) at `offset`, blocking. Short at the end of the file.
    pub(crate) fn read_pages(&self, offset: u64, len: usize) -> io::Result<AlignedBuf> {
        let mut buffer = AlignedBuf::with_capacity(len);
        let got = self.pread(&mut buffer, len, offset)?;
        // SAFETY: `pread` filled `got` bytes from the start.
        unsafe { buffer.set_len(got) };
        Ok(buffer)
    }

    /// One pread into the front of `buffer`; returns bytes read. The caller sets the length.
    pub(crate) fn pread(&self, buffer: &mut AlignedBuf, len: usize, offset: u64) -> io::Result<usize> {
        let len = len.min(buffer.capacity());
        // SAFETY: the buffer has room for `len` bytes and is borrowed exclusively for the call.
        let got = unsafe { libc::pread(self.fd(), buffer.as_mut_ptr().cast(), len, offset as libc::off_t) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// One durable write of the filled part of `buffer`; returns bytes written.
    pub(crate) fn pwrite_durable(&self, buffer: &AlignedBuf, offset: u64) -> io::Result<usize> {
        let iov = libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() };
        // SAFETY: the vector names initialised memory that lives through the call; the kernel only reads it.
        let put = unsafe { libc::pwritev2(self.fd(), &iov, 1, offset as libc::off_t, libc::RWF_DSYNC) };
        usize::try_from(put).map_err(|_| io::Error::last_os_error())
    }

    /// Writes all of `buffer` durably, blocking.
    pub(crate) fn write_pages(&self, buffer: &AlignedBuf, offset: u64) -> io::Result<()> {
        match self.pwrite_durable(buffer, offset)? {
            n if n == buffer.len() => Ok(()),
            n => Err(io::Error::new(io::ErrorKind::WriteZero, format!("wrote {n} of {} bytes", buffer.len()))),
        }
    }

    /// Takes space; a device has it already, and a file system that cannot promise it is left to fail later.
    pub(crate) fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.is_block_device {
            return Ok(());
        }
        // SAFETY: no memory is involved.
        let result = unsafe { libc::fallocate(self.fd(), 0, offset as libc::off_t, len as libc::off_t) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(()) } else { Err(error) }
    }

    /// Gives space back; what cannot be given back is left as it is.
    pub(crate) fn deallocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if !self.can_deallocate {
            return Ok(());
        }
        // SAFETY: no memory is involved.
        let result = unsafe { libc::fallocate(self.fd(), PUNCH, offset as libc::off_t, len as libc::off_t) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(()) } else { Err(error) }
    }

    /// Whether the path still names this file, at `bytes` or more.
    pub(crate) fn identify(&self, bytes: u64) -> io::Result<()> {
        let at_path = std::fs::metadata(&self.path)
            .map_err(|error| io::Error::other(format!("{} cannot be looked up: {error}", self.path.display())))?;
        if (at_path.dev(), at_path.ino()) != (self.device, self.inode) {
            return Err(io::Error::other(format!("{} names another file now", self.path.display())));
        }
        let size = self.size()?;
        if size < bytes {
            return Err(io::Error::other(format!("it has {size} bytes now, should have {bytes}")));
        }
        Ok(())
    }

    /// Lets the kernel look for a partition table anew, so that it drops the partitions of one that was erased. It
    /// may refuse, and devices without partitions do; their nodes then stay until the device is seen anew.
    pub(crate) fn forget_partitions(&self) {
        const BLKRRPART: libc::Ioctl = 0x125f;
        if self.is_block_device {
            // SAFETY: the request takes no argument and touches no memory of ours.
            unsafe { libc::ioctl(self.fd(), BLKRRPART) };
        }
    }

    /// The zones of a host-managed device; `None` of whatever can be written anywhere.
    pub(crate) fn zones(&self) -> io::Result<Option<DiskZones>> {
        if !self.is_block_device {
            return Ok(None);
        }
        let device = self.file.metadata()?.rdev();
        let Some(queue) = queues(device).into_iter().find(|queue| queue.exists()) else { return Ok(None) };
        let Some(limits) = zones::limits(&queue)? else { return Ok(None) };
        let size = self.size()?;
        let mut found: Vec<Zone> = Vec::new();
        let mut end = 0;
        while end < size {
            let mut bytes = vec![0; zones::report_bytes(REPORT_ZONES)];
            zones::report(self.fd(), end, &mut bytes)?;
            let some = zones::decode_report(&bytes).map_err(io::Error::other)?;
            let next = some.last().map_or(0, |zone| zone.start + zone.len);
            if next <= end {
                return Err(io::Error::other(format!("it reports no zones from byte {end} on")));
            }
            found.extend(some);
            end = next;
        }
        Ok(Some(DiskZones { limits, zones: found }))
    }

    /// Empties every sequential zone that holds anything.
    pub(crate) fn reset_zones(&self, zones: &[Zone]) -> io::Result<()> {
        let holds = |zone: &&Zone| matches!(zone.condition, Condition::Partial | Condition::Full);
        for zone in zones.iter().filter(holds) {
            zones::reset(self.fd(), &(zone.start..zone.start + zone.len))?;
        }
        Ok(())
    }

    /// Sets the length of a regular file.
    pub(crate) fn grow(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    /// The device's or file system's logical block size, bytes; what O_DIRECT must be aligned to at least.
    pub(crate) fn logical_block_bytes(&self) -> u32 {
        // A direct read of 512 bytes works only where blocks are that small.
        let mut probe = AlignedBuf::with_capacity(512);
        if self.pread(&mut probe, 512, 512).is_ok() { 512 } else { 4096 }
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
