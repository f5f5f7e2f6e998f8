//! What a ring cannot do and what may take long (ioctls of zoned disks): each on a thread of its own. They are rare,
//! one at a time for a slot, so that no pool of threads stands idle for them.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::mailbox::Wake;
use crate::raw::Done;
use crate::raw::file::DiskFile;
use crate::raw::threads::{Job, run};

pub(super) struct Aside {
    sender: Sender<Done>,
    ended: Receiver<Done>,
    under_way: usize,
}

impl Default for Aside {
    fn default() -> Self {
        let (sender, ended) = channel();
        Self { sender, ended, under_way: 0 }
    }
}

impl Aside {
    /// Starts `job`; `wake` is called when its end can be collected.
    pub(super) fn start(&mut self, job: Job, file: Arc<DiskFile>, disk_bytes: u64, wake: Wake) {
        self.under_way += 1;
        let (id, sender) = (job.id, self.sender.clone());
        let work = move || {
            // A disk that was closed meanwhile wants no answer.
            let _ = sender.send(run(job, &file, disk_bytes));
            wake();
        };
        if let Err(error) = std::thread::Builder::new().name("disk-zones".to_owned()).spawn(work) {
            let _ = self.sender.send(Done { id, result: Err(io::Error::other(error)), buffer: None });
        }
    }

    /// Collects what has ended.
    pub(super) fn collect(&mut self, done: &mut Vec<Done>) {
        while let Ok(one) = self.ended.try_recv() {
            self.under_way -= 1;
            done.push(one);
        }
    }

    /// How many have not been collected.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }
}
