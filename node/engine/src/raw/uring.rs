//! io_uring: one ring per disk, used by the disk's thread alone (SINGLE_ISSUER, DEFER_TASKRUN), with the disk as
//! registered file and the pool's arena as registered buffer.
//!
//! Every buffer the kernel may touch stands in `flying` until its completion was seen; dropping the ring waits for
//! that, and if it cannot, leaks them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, Fixed, FsyncFlags, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};

use crate::buffer::BufferPool;
use crate::mailbox::Wake;
use crate::raw::aside::Aside;
use crate::raw::file::{DiskFile, PUNCH};
use crate::raw::threads::Job;
use crate::raw::{Done, RawDisk, Wait, Work};

/// `user_data` of the read of the event counter that wakes the thread.
const WAKE_ID: u64 = u64::MAX;
/// Asks the kernel to run completions even when none is waited for (DEFER_TASKRUN runs them only then).
const ENTER_GETEVENTS: u32 = 1;

/// Operations under way from which on completions are gathered: every wake of this thread and of those it answers
/// costs more than a completion does.
const GATHER_FROM: usize = 16;
/// Of what is under way, the share (one in so many) that is waited for then, ...
const GATHER_SHARE: usize = 4;
/// ... and for how long at most.
const GATHER_TIME: Duration = Duration::from_micros(100);

pub(crate) struct UringDisk {
    ring: IoUring,
    file: Arc<DiskFile>,
    disk_bytes: u64,
    pool: BufferPool,
    arena_registered: bool,
    depth: usize,
    waiting: VecDeque<(u64, u64, Work)>,
    /// Given to the kernel; the index is the `user_data`.
    flying: Vec<Option<(u64, Work)>>,
    vacant: Vec<usize>,
    /// Done without the kernel.
    settled: Vec<Done>,
    /// Done elsewhere: what the ring cannot do.
    aside: Aside,
    event: Arc<OwnedFd>,
    event_value: Box<u64>,
    event_armed: bool,
}

impl UringDisk {
    /// Sets the ring up. Must be called on the thread that will use it.
    pub(crate) fn new(file: Arc<DiskFile>, disk_bytes: u64, pool: BufferPool, depth: u32) -> io::Result<Self> {
        let depth = depth.clamp(1, 4096);
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build((depth + 1).next_power_of_two())?;
        ring.submitter().register_files(&[file.fd()])?;
        let arena_registered = register_arena(&ring, &pool)?;
        // SAFETY: a plain system call; the descriptor it returns is owned by nobody else.
        let event = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self {
            ring,
            file,
            disk_bytes,
            pool,
            arena_registered,
            depth: depth as usize,
            waiting: VecDeque::new(),
            flying: (0..depth).map(|_| None).collect(),
            vacant: (0..depth as usize).rev().collect(),
            settled: Vec::new(),
            aside: Aside::default(),
            event: Arc::new(event),
            event_value: Box::new(0),
            event_armed: false,
        })
    }

    /// Whether the pool's arena is registered.
    pub(crate) fn arena_registered(&self) -> bool {
        self.arena_registered
    }

    /// The entry for an operation whose buffers stand still until it completes.
    fn entry(&self, index: usize, offset: u64, work: &mut Work) -> squeue::Entry {
        let file = Fixed(0);
        let entry = match work {
            Work::Read { buffer, len } => {
                let (pointer, len) = (buffer.as_mut_ptr(), *len as u32);
                if self.arena_registered && buffer.is_in_arena_of(&self.pool) {
                    opcode::ReadFixed::new(file, pointer, len, 0).offset(offset).build()
                } else {
                    opcode::Read::new(file, pointer, len).offset(offset).build()
                }
            }
            Work::Write { buffer } => {
                let (pointer, len) = (buffer.as_mut_ptr().cast_const(), buffer.len() as u32);
                if self.arena_registered && buffer.is_in_arena_of(&self.pool) {
                    opcode::WriteFixed::new(file, pointer, len, 0).offset(offset).rw_flags(libc::RWF_DSYNC).build()
                } else {
                    opcode::Write::new(file, pointer, len).offset(offset).rw_flags(libc::RWF_DSYNC).build()
                }
            }
            Work::Allocate { len } => opcode::Fallocate::new(file, *len).offset(offset).build(),
            Work::Deallocate { len } => opcode::Fallocate::new(file, *len).offset(offset).mode(PUNCH).build(),
            Work::Flush => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
            // Settled without the kernel's queue, see `fill_queue`.
            Work::Identify | Work::ResetZones { .. } | Work::FinishZones { .. } | Work::ReportZones { .. } => {
                opcode::Nop::new().build()
            }
        };
        entry.user_data(index as u64)
    }

    /// Gives the kernel what waits, as far as the depth allows.
    fn fill_queue(&mut self) -> io::Result<()> {
        if !self.event_armed {
            let pointer: *mut u64 = &mut *self.event_value;
            let entry = opcode::Read::new(Fd(self.event.as_raw_fd()), pointer.cast(), 8).build().user_data(WAKE_ID);
            // SAFETY: `event_value` is boxed, lives as long as the ring, and is touched by nobody else.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
            self.event_armed = true;
        }
        while !self.waiting.is_empty() {
            let Some(index) = self.vacant.pop() else { break };
            let Some((id, offset, mut work)) = self.waiting.pop_front() else { break };
            match work {
                Work::Identify => {
                    self.vacant.push(index);
                    let result = self.file.identify(self.disk_bytes).map(|()| 0);
                    self.settled.push(Done { id, result, buffer: None });
                    continue;
                }
                Work::ResetZones { .. } | Work::FinishZones { .. } | Work::ReportZones { .. } => {
                    self.vacant.push(index);
                    let wake = self.wake();
                    self.aside.start(Job { id, offset, work }, self.file.clone(), self.disk_bytes, wake);
                    continue;
                }
                Work::Allocate { .. } if self.file.is_block_device => {
                    self.vacant.push(index);
                    self.settled.push(Done { id, result: Ok(0), buffer: None });
                    continue;
                }
                Work::Deallocate { .. } if !self.file.can_deallocate => {
                    self.vacant.push(index);
                    self.settled.push(Done { id, result: Ok(0), buffer: None });
                    continue;
                }
                _ => {}
            }
            let entry = self.entry(index, offset, &mut work);
            self.flying[index] = Some((id, work));
            // SAFETY: the buffer moved into `flying` before the push; its memory does not move with it, and it is
            // taken out only when the completion was seen.
            unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Submits, and waits for a completion; with many operations under way, a little longer for more of them.
    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let flying = self.depth - self.vacant.len();
        if wait != Wait::No && flying >= GATHER_FROM {
            let time = if let Wait::For(time) = wait { time.min(GATHER_TIME) } else { GATHER_TIME };
            self.enter_for(flying / GATHER_SHARE, time)?;
            if !self.ring.completion().is_empty() {
                return Ok(());
            }
        }
        match wait {
            Wait::For(time) => self.enter_for(1, time),
            Wait::No => self.enter_until(0),
            Wait::Forever => self.enter_until(1),
        }
    }

    /// Submits, and waits for `least` completions, at most for `time`.
    fn enter_for(&mut self, least: usize, time: Duration) -> io::Result<()> {
        let time = Timespec::from(time);
        may_go_on(self.ring.submitter().submit_with_args(least, &SubmitArgs::new().timespec(&time)))
    }

    /// Submits, and waits for `least` completions.
    fn enter_until(&mut self, least: u32) -> io::Result<()> {
        let pending = {
            let mut queue = self.ring.submission();
            queue.sync();
            queue.len()
        };
        // SAFETY: no argument but numbers; the entries pushed are sound by the contract of `fill_queue`.
        may_go_on(unsafe {
            self.ring.submitter().enter::<libc::sigset_t>(pending as u32, least, ENTER_GETEVENTS, None)
        })
    }

    fn collect(&mut self, done: &mut Vec<Done>) {
        for completion in self.ring.completion() {
            if completion.user_data() == WAKE_ID {
                self.event_armed = false;
                continue;
            }
            let index = completion.user_data() as usize;
            let Some((id, work)) = self.flying.get_mut(index).and_then(Option::take) else { continue };
            self.vacant.push(index);
            done.push(finish(id, work, completion.result()));
        }
    }
}

/// The end of an entry into the kernel after which the next turn goes on.
fn may_go_on(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        // The time is up; or interrupted, or the completion queue must be emptied first.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Registers the arena; `false` when the limit on locked memory does not allow it.
fn register_arena(ring: &IoUring, pool: &BufferPool) -> io::Result<bool> {
    let Some((pointer, len)) = pool.arena() else { return Ok(false) };
    let iovec = libc::iovec { iov_base: pointer.cast(), iov_len: len };
    // SAFETY: the arena lives as long as the pool, a clone of which stands beside the ring and is dropped after it.
    match unsafe { ring.submitter().register_buffers(&[iovec]) } {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EPERM)) => {
            tracing::warn!(bytes = len, %error, "buffers cannot be registered (RLIMIT_MEMLOCK); using plain ones");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Turns a completion's number into a result, and a read's bytes into the buffer's length.
fn finish(id: u64, work: Work, result: i32) -> Done {
    let result = if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as usize) };
    match work {
        Work::Read { mut buffer, .. } => {
            if let Ok(got) = &result {
                // SAFETY: the kernel reported `got` bytes written from the start, at most as many as were asked.
                unsafe { buffer.set_len(*got) };
            }
            Done { id, result, buffer: Some(buffer) }
        }
        Work::Write { buffer } | Work::ReportZones { buffer, .. } => Done { id, result, buffer: Some(buffer) },
        Work::Allocate { .. } | Work::Deallocate { .. }
            if result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EOPNOTSUPP)) =>
        {
            Done { id, result: Ok(0), buffer: None }
        }
        Work::Allocate { .. }
        | Work::Deallocate { .. }
        | Work::ResetZones { .. }
        | Work::FinishZones { .. }
        | Work::Flush
        | Work::Identify => Done { id, result, buffer: None },
    }
}

impl RawDisk for UringDisk {
    fn submit(&mut self, id: u64, offset: u64, work: Work) {
        self.waiting.push_back((id, offset, work));
    }

    fn poll(&mut self, wait: Wait, done: &mut Vec<Done>) -> io::Result<()> {
        self.fill_queue()?;
        self.enter(if self.settled.is_empty() { wait } else { Wait::No })?;
        done.append(&mut self.settled);
        self.aside.collect(done);
        self.collect(done);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.waiting.len() + self.settled.len() + self.aside.under_way() + (self.depth - self.vacant.len())
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn wake(&self) -> Wake {
        let event = self.event.clone();
        Arc::new(move || {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight initialised bytes; the descriptor is kept open by `event`. A full counter wakes as well.
            unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        })
    }
}

impl Drop for UringDisk {
    fn drop(&mut self) {
        self.waiting.clear();
        let mut done = Vec::new();
        // The event read never completes by itself and touches only `event_value`: wake it too.
        (self.wake())();
        while self.vacant.len() < self.depth || self.event_armed {
            if self.enter(Wait::Forever).is_err() {
                for (_, work) in self.flying.drain(..).flatten() {
                    std::mem::forget(work);
                }
                std::mem::forget(std::mem::take(&mut self.event_value));
                std::mem::forget(self.pool.clone());
                return;
            }
            self.collect(&mut done);
        }
        // Closing a ring lets go of what it registered some time later; the lock on the file must go now. If this
        // fails, it goes then.
        let _ = self.ring.submitter().unregister_files();
        let _ = self.ring.submitter().unregister_buffers();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use std::time::Duration;

    use super::UringDisk;
    use crate::buffer::{AlignedBuf, BufferPool};
    use crate::raw::file::DiskFile;
    use crate::raw::threads::ThreadsDisk;
    use crate::raw::{RawDisk, Wait, Work};

    #[test]
    fn a_wait_ends_by_its_time_though_nothing_completes_and_by_a_completion_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(DiskFile::open(&dir.path().join("file"), true).ok().unwrap());
        let uring = UringDisk::new(file.clone(), 0, BufferPool::new(0, 1 << 20), 4).unwrap();
        let threads = ThreadsDisk::new(&file, 0, 4).unwrap();
        let disks: [Box<dyn RawDisk>; 2] = [Box::new(uring), Box::new(threads)];
        for mut disk in disks {
            let mut done = Vec::new();
            disk.poll(Wait::For(Duration::from_millis(2)), &mut done).unwrap();
            assert!(done.is_empty());
            disk.submit(7, 0, Work::Flush);
            while done.is_empty() {
                disk.poll(Wait::For(Duration::from_secs(3600)), &mut done).unwrap();
            }
            assert_eq!(done[0].id, 7);
        }
    }

    #[test]
    fn what_the_ring_cannot_do_ends_as_well_and_gives_its_buffer_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(DiskFile::open(&dir.path().join("file"), true).ok().unwrap());
        let uring = UringDisk::new(file.clone(), 0, BufferPool::new(0, 1 << 20), 1).unwrap();
        let threads = ThreadsDisk::new(&file, 0, 1).unwrap();
        let disks: [Box<dyn RawDisk>; 2] = [Box::new(uring), Box::new(threads)];
        for mut disk in disks {
            let mut done = Vec::new();
            disk.submit(1, 0, Work::ReportZones { buffer: AlignedBuf::with_capacity(4096), len: 4096 });
            disk.submit(2, 0, Work::ResetZones { len: 4096 });
            disk.submit(3, 0, Work::FinishZones { len: 4096 });
            assert_eq!(disk.in_flight(), 3);
            while done.len() < 3 {
                disk.poll(Wait::For(Duration::from_secs(3600)), &mut done).unwrap();
            }
            assert_eq!(disk.in_flight(), 0);
            // A file has no zones.
            assert!(done.iter().all(|one| one.result.as_ref().unwrap_err().raw_os_error() == Some(libc::ENOTTY)));
            assert!(done.iter().all(|one| one.buffer.is_some() == (one.id == 1)));
        }
    }

    #[test]
    fn every_write_is_given_to_the_kernel_as_durable() {
        let dir = tempfile::tempdir().unwrap();
        let file = Arc::new(DiskFile::open(&dir.path().join("file"), true).ok().unwrap());
        let pool = BufferPool::new(1 << 16, 1 << 20);
        let disk = UringDisk::new(file, 0, pool.clone(), 4).unwrap();
        let registered = pool.take(4096).unwrap();
        assert!(registered.is_in_arena_of(&pool));
        for buffer in [registered, AlignedBuf::copy_of(&[1; 4096])] {
            let entry = disk.entry(0, 0, &mut Work::Write { buffer });
            // SAFETY: an entry is the kernel's io_uring_sqe, 64 bytes of plain data.
            let sqe: [u8; 64] = unsafe { std::mem::transmute(entry) };
            // `rw_flags` stands at byte 28 of the struct.
            let flags = i32::from_le_bytes([sqe[28], sqe[29], sqe[30], sqe[31]]);
            assert_eq!(flags, libc::RWF_DSYNC);
        }
    }
}
