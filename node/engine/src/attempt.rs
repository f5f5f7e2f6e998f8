//! Opening a disk within a deadline. A disk that hangs holds whoever touches it for as long as it pleases, in the kernel
//! where nothing can end it: so a thread of its own opens it, and the caller waits for that no longer than the deadline.
//!
//! Invariants:
//! - The deadline is one of silence: a mount that reads a long table, or rebuilds it, goes on for as long as I/O ends.
//! - At most one attempt a disk is left behind. While it hangs, the disk is not touched again: the next attempt is
//!   refused at once. When it ends after all, what it opened is closed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use crate::error::OpenError;

/// Attempts that were left behind, by the path of the disk.
static LEFT_BEHIND: Mutex<Option<HashMap<PathBuf, Weak<Progress>>>> = Mutex::new(None);

type Count = Box<dyn Fn() -> u64 + Send + Sync>;

/// What an attempt does while it is waited for.
#[derive(Default)]
pub(crate) struct Progress {
    count: OnceLock<Count>,
}

impl Progress {
    /// From now on `count` tells how many I/Os have ended.
    pub(crate) fn follow(&self, count: impl Fn() -> u64 + Send + Sync + 'static) {
        // An attempt has one mount.
        let _ = self.count.set(Box::new(count));
    }

    fn ended(&self) -> u64 {
        self.count.get().map_or(0, |count| count())
    }
}

/// Runs `open` in a thread of its own, and gives up when nothing happens for `deadline`.
///
/// # Errors
/// What `open` answers; `Hangs` when it does not, or when an earlier attempt still does not.
pub(crate) fn open_in_time<T: Send + 'static>(
    path: &Path,
    deadline: Duration,
    open: impl FnOnce(&Arc<Progress>) -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    let hangs = |detail: String| OpenError::Hangs { path: path.display().to_string(), detail };
    // Whatever name it is called by. This reads no device.
    let key = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if is_left_behind(&key) {
        return Err(hangs("an earlier attempt to open it has not ended yet".to_owned()));
    }
    let progress = Arc::new(Progress::default());
    let (answer, answered) = sync_channel(1);
    let working = progress.clone();
    let failed = |what, source| OpenError::Io { path: path.display().to_string(), what, source };
    std::thread::Builder::new()
        .name("open-disk".to_owned())
        .spawn(move || {
            let opened = open(&working);
            drop(working);
            // If nobody waits any more, this closes it.
            drop(answer.send(opened));
        })
        .map_err(|source| failed("starting a thread", source))?;
    let mut ended = 0;
    loop {
        match answered.recv_timeout(deadline) {
            Ok(opened) => return opened,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(failed("opening it", std::io::Error::other("its thread ended")));
            }
            Err(RecvTimeoutError::Timeout) if progress.ended() != ended => ended = progress.ended(),
            Err(RecvTimeoutError::Timeout) => {
                leave_behind(key, &progress);
                return Err(hangs(format!("it did not answer for {} s", deadline.as_secs_f32())));
            }
        }
    }
}

fn is_left_behind(key: &Path) -> bool {
    let mut left = LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(left) = left.as_mut() else { return false };
    left.retain(|_, attempt| attempt.strong_count() > 0);
    left.contains_key(key)
}

fn leave_behind(key: PathBuf, attempt: &Arc<Progress>) {
    let mut left = LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner);
    left.get_or_insert_default().insert(key, Arc::downgrade(attempt));
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::{is_left_behind, open_in_time};
    use crate::error::OpenError;

    const DEADLINE: Duration = Duration::from_millis(20);

    #[test]
    fn a_disk_that_hangs_is_told_and_not_touched_again_until_the_attempt_has_ended() {
        let path = Path::new("/dev/hangs-for-ever");
        let (release, held) = channel::<()>();
        let (opened_at_last, seen) = channel::<()>();
        /// Stands for a disk that is open: says when it is closed.
        struct Open(std::sync::mpsc::Sender<()>);
        impl Drop for Open {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let open = move |_: &Arc<_>| {
            let _ = held.recv();
            Ok(Open(opened_at_last))
        };
        let error = open_in_time(path, DEADLINE, open).err().unwrap().to_string();
        assert!(error.contains("/dev/hangs-for-ever") && error.contains("did not answer"), "{error}");
        for _ in 0..3 {
            let again = open_in_time(path, DEADLINE, |_| -> Result<(), OpenError> { panic!("it was touched again") });
            let error = again.unwrap_err().to_string();
            assert!(error.contains("an earlier attempt"), "{error}");
        }
        // Another disk is another matter.
        assert_eq!(open_in_time(Path::new("/dev/well"), DEADLINE, |_| Ok(7)).unwrap(), 7);
        release.send(()).unwrap();
        seen.recv().unwrap();
        // What came too late was closed; now it may be tried again.
        assert!(!is_left_behind(path));
        assert_eq!(open_in_time(path, DEADLINE, |_| Ok(8)).unwrap(), 8);
    }

    #[test]
    fn a_mount_that_takes_its_time_is_not_given_up() {
        let (go_on, more) = channel::<()>();
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let opener = std::thread::spawn(move || {
            open_in_time(Path::new("/dev/slow"), DEADLINE, move |progress| {
                let counting = counted.clone();
                // Something ends whenever it is looked at.
                progress.follow(move || counting.fetch_add(1, Ordering::Relaxed) + 1);
                more.recv().unwrap();
                Ok(())
            })
        });
        // As many deadlines pass; each looks at the count twice.
        while count.load(Ordering::Relaxed) < 10 && !opener.is_finished() {
            std::thread::yield_now();
        }
        go_on.send(()).unwrap();
        opener.join().unwrap().unwrap();
    }
}
