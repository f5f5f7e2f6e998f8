//! pread and pwrite on a few threads: the fallback where io_uring is refused (container seccomp, old kernels).

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::mailbox::Wake;
use crate::raw::file::DiskFile;
use crate::raw::{Done, RawDisk, Wait, Work, zones};

/// Most threads of one disk.
const MAX_WORKERS: u32 = 8;

enum Event {
    Done(Done),
    Wake,
}

pub(super) struct Job {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) work: Work,
}

pub(crate) struct ThreadsDisk {
    jobs: Option<Sender<Job>>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    in_flight: usize,
    workers: Vec<JoinHandle<()>>,
}

impl ThreadsDisk {
    pub(crate) fn new(file: &Arc<DiskFile>, disk_bytes: u64, depth: u32) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (sender, events) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Vec::new();
        for n in 0..depth.clamp(1, MAX_WORKERS) {
            let (queue, sender, file) = (queue.clone(), sender.clone(), file.clone());
            let worker = std::thread::Builder::new()
                .name(format!("disk-io-{n}"))
                .spawn(move || work_loop(&queue, &sender, &file, disk_bytes))?;
            workers.push(worker);
        }
        Ok(Self { jobs: Some(jobs), events, sender, in_flight: 0, workers })
    }

    fn take(&mut self, event: Event, done: &mut Vec<Done>) {
        if let Event::Done(one) = event {
            self.in_flight -= 1;
            done.push(one);
        }
    }
}

fn work_loop(queue: &Mutex<Receiver<Job>>, events: &Sender<Event>, file: &DiskFile, disk_bytes: u64) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The disk's thread outlives its workers; a closed channel only means that nobody asks any more.
        let _ = events.send(Event::Done(run(job, file, disk_bytes)));
    }
}

/// Does it, and waits for its end.
pub(super) fn run(Job { id, offset, work }: Job, file: &DiskFile, disk_bytes: u64) -> Done {
    let (result, buffer) = match work {
        Work::Read { mut buffer, len } => {
            let result = file.pread(&mut buffer, len, offset);
            if let Ok(got) = &result {
                // SAFETY: `pread` filled `got` bytes from the start.
                unsafe { buffer.set_len(*got) };
            }
            (result, Some(buffer))
        }
        Work::Write { buffer } => (file.pwrite_durable(&buffer, offset), Some(buffer)),
        Work::Allocate { len } => (file.allocate(offset, len).map(|()| 0), None),
        Work::Deallocate { len } => (file.deallocate(offset, len).map(|()| 0), None),
        Work::ResetZones { len } => (zones::reset(file.fd(), &(offset..offset + len)).map(|()| 0), None),
        Work::FinishZones { len } => (zones::finish(file.fd(), &(offset..offset + len)).map(|()| 0), None),
        Work::ReportZones { mut buffer, len } => {
            let mut bytes = vec![0; len];
            let result = zones::report(file.fd(), offset, &mut bytes).and_then(|()| {
                buffer.clear();
                buffer.extend_from_slice(&bytes).map_err(io::Error::other)?;
                Ok(len)
            });
            (result, Some(buffer))
        }
        Work::Flush => (file.file().sync_data().map(|()| 0), None),
        Work::Identify => (file.identify(disk_bytes).map(|()| 0), None),
    };
    Done { id, result, buffer }
}

impl RawDisk for ThreadsDisk {
    fn submit(&mut self, id: u64, offset: u64, work: Work) {
        self.in_flight += 1;
        let lost = match &self.jobs {
            Some(jobs) => jobs.send(Job { id, offset, work }).is_err(),
            None => true,
        };
        if lost {
            let result = Err(io::Error::other("the disk's I/O threads have ended"));
            let _ = self.sender.send(Event::Done(Done { id, result, buffer: None }));
        }
    }

    fn poll(&mut self, wait: Wait, done: &mut Vec<Done>) -> io::Result<()> {
        // `self` holds a sender, so the channel never closes.
        let event = match wait {
            Wait::No => None,
            Wait::Forever => Some(self.events.recv().map_err(io::Error::other)?),
            Wait::For(time) => match self.events.recv_timeout(time) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(error) => return Err(io::Error::other(error)),
            },
        };
        if let Some(event) = event {
            self.take(event, done);
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event, done);
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn depth(&self) -> usize {
        self.workers.len()
    }

    fn wake(&self) -> Wake {
        let sender = Mutex::new(self.sender.clone());
        Arc::new(move || {
            let _ = sender.lock().unwrap_or_else(PoisonError::into_inner).send(Event::Wake);
        })
    }
}

impl Drop for ThreadsDisk {
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // A worker that panicked has reported itself; there is nothing left to do for it.
            let _ = worker.join();
        }
    }
}
