//! Raw inotify: hints that something happened at a place.
//!
//! Not the `notify` crate: it adds the watch of a new folder after it reported the folder, so what is made in between
//! goes unseen; here a folder is watched before it is listed. Events are hints, the truth is a stat. A queue that ran
//! over is one hint more: look at everything.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};

use holdfast_sync_client_planner::LocalId;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::sync::Notify;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// A name of a folder changed: made, removed, renamed, its attributes changed.
    Name { folder: LocalId, name: String },
    /// Bytes of a file changed; it may still be open for writing.
    Written { folder: LocalId, name: String },
    /// A file that was open for writing was closed.
    Closed { folder: LocalId, name: String },
    /// The folder changed in a way that takes a listing to see (names that are not UTF-8).
    Folder { folder: LocalId },
    /// The root itself was moved or removed.
    Root,
    /// Events were lost.
    Overflow,
}

/// The queue is emptied by a thread of its own, so that the kernel's does not run over while the engine is busy.
struct Queue {
    inotify: Inotify,
    stop: EventFd,
    events: Mutex<Vec<InotifyEvent>>,
    arrived: Notify,
}

impl Queue {
    /// Takes what the kernel has queued; readers keep the order by the lock.
    fn read(&self, events: &mut Vec<InotifyEvent>) {
        loop {
            match self.inotify.read_events() {
                Ok(more) => events.extend(more),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<InotifyEvent>> {
        self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn follow(&self) {
        loop {
            let mut fds = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            if fds[1].any().unwrap_or(true) {
                return;
            }
            self.read(&mut self.lock());
            self.arrived.notify_one();
        }
    }
}

/// The watcher of one root.
pub(crate) struct Watcher {
    queue: Arc<Queue>,
    thread: Option<std::thread::JoinHandle<()>>,
    folders: HashMap<WatchDescriptor, LocalId>,
    /// The kernel's limit of watches is reached: rescans have to do.
    pub(crate) is_full: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A full counter cannot be: this is its only write.
        let _ = self.queue.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const MASK: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

impl Watcher {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let queue = Arc::new(Queue { inotify, stop, events: Mutex::new(Vec::new()), arrived: Notify::new() });
        let followed = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(move || followed.follow())?;
        Ok(Self { queue, thread: Some(thread), folders: HashMap::new(), is_full: false })
    }

    /// Watches a folder; call it before listing the folder.
    pub(crate) fn add(&mut self, folder: &OwnedFd, id: LocalId) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
        match self.queue.inotify.add_watch(path.as_str(), MASK) {
            Ok(watch) => {
                self.folders.insert(watch, id);
                Ok(())
            }
            Err(Errno::ENOSPC) => {
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::warn!(
                        "no more inotify watches: raise fs.inotify.max_user_watches; until then changes are found by \
                         scans alone"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until there may be events.
    pub(crate) async fn ready(&self) {
        self.queue.arrived.notified().await;
    }

    /// All events that are queued now. `stands` tells whether a node still does.
    pub(crate) fn drain(&mut self, stands: impl Fn(LocalId) -> bool) -> Vec<Hint> {
        let mut hints = Vec::new();
        let events = {
            let mut queued = self.queue.lock();
            self.queue.read(&mut queued);
            std::mem::take(&mut *queued)
        };
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                hints.push(Hint::Overflow);
                continue;
            }
            let Some(folder) = self.folders.get(&event.wd).copied() else { continue };
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.folders.remove(&event.wd);
                continue;
            }
            if !stands(folder) {
                // It was moved out of the root; moved within, it is watched again under its new node.
                let _ = self.queue.inotify.rm_watch(event.wd);
                self.folders.remove(&event.wd);
                continue;
            }
            hints.extend(hint(folder, event.mask, event.name));
        }
        hints
    }
}

fn hint(folder: LocalId, mask: AddWatchFlags, name: Option<std::ffi::OsString>) -> Option<Hint> {
    let Some(name) = name else {
        let moved = mask.intersects(AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF);
        return (moved && folder == LocalId::ROOT).then_some(Hint::Root);
    };
    let Ok(name) = name.into_string() else { return Some(Hint::Folder { folder }) };
    Some(if mask.contains(AddWatchFlags::IN_CLOSE_WRITE) {
        Hint::Closed { folder, name }
    } else if mask.contains(AddWatchFlags::IN_MODIFY) {
        Hint::Written { folder, name }
    } else {
        Hint::Name { folder, name }
    })
}
