//! The one place that decides what an I/O error means.

use std::io;

/// Which way the bytes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// What an I/O error says about the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The place cannot be read or written.
    Medium = 0,
    /// The disk cannot be reached.
    Transport = 1,
    /// It did not answer in time.
    Timeout = 2,
    /// Space ran out under a file.
    NoSpace = 3,
    /// It answered with bytes that do not validate.
    Checksum = 4,
    /// Anything else.
    Other = 5,
}

impl ErrorKind {
    /// How many kinds there are.
    pub(crate) const ALL: usize = 6;

    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            // What the block layer makes of a medium error, of bad protection information, and of a bad sector.
            Some(libc::EIO | libc::ENODATA | libc::EILSEQ | libc::EBADMSG) => Self::Medium,
            Some(
                libc::ENODEV
                | libc::ENXIO
                | libc::ENOMEDIUM
                | libc::ESHUTDOWN
                | libc::ENOLINK
                | libc::EREMOTEIO
                | libc::ECOMM,
            ) => Self::Transport,
            Some(libc::ETIMEDOUT | libc::ETIME) => Self::Timeout,
            Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Self::NoSpace,
            _ if error.kind() == io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Other,
        }
    }
}

/// What to do about an I/O error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The same again; it was no fault of the disk.
    Retry,
    /// This operation failed. A failed write means that the extent takes no more.
    Extent,
    /// The disk takes no more writes.
    DiskReadOnly,
    /// The disk is gone.
    DiskFailed,
}

/// What an I/O error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) action: Action,
    pub(crate) kind: ErrorKind,
    /// Why, and what an operator can do about it.
    pub(crate) reason: &'static str,
}

/// Which part of the disk an I/O was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Superblocks, extent table, its log, keys: every extent depends on them.
    Area,
    /// One slot: only its extent does.
    Slot,
}

/// An I/O that failed, and what the disk did before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure {
    pub(crate) direction: Direction,
    pub(crate) place: Place,
    /// From 1.
    pub(crate) attempt: u32,
    /// Writes that failed for good since the disk was opened.
    pub(crate) earlier_writes: u64,
    /// Those of them that were for areas.
    pub(crate) earlier_area_writes: u64,
}

/// Attempts in all for what may pass.
const MAX_ATTEMPTS: u32 = 4;

/// Failed writes after which a disk is not written any more: one bad spot is an extent's trouble, many are the
/// disk's.
const MAX_WRITE_ERRORS: u64 = 8;

/// The same for writes to areas, which come in two copies: when these fail as often as there are copies and once more,
/// nothing that is written can be relied on.
const MAX_AREA_WRITE_ERRORS: u64 = 3;

/// Decides over `error`.
pub(crate) fn judge_io_error(error: &io::Error, failure: Failure) -> Verdict {
    let kind = ErrorKind::of(error);
    let verdict = |action, reason| Verdict { action, kind, reason };
    match error.raw_os_error() {
        // Nothing was wrong with the disk. A short transfer comes as WriteZero or UnexpectedEof without a number.
        Some(libc::EINTR | libc::EAGAIN | libc::ENOMEM) if failure.attempt < MAX_ATTEMPTS => {
            return verdict(Action::Retry, "the system was interrupted or short of memory");
        }
        None if failure.attempt < MAX_ATTEMPTS
            && matches!(error.kind(), io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof) =>
        {
            return verdict(Action::Retry, "only a part was transferred");
        }
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => {
            return verdict(
                Action::DiskReadOnly,
                "the system refuses writes: see whether the device or its file system is write protected",
            );
        }
        Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN | libc::EBADF | libc::ESTALE) => {
            return verdict(Action::DiskFailed, "the device is gone: check its slot, cable and power");
        }
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            return verdict(Action::Extent, "the file system under it is full and the disk itself sound: make room");
        }
        _ => {}
    }
    // EIO and everything unknown. No retry: the drive has tried long enough, and a write that is retried after an
    // error may be acknowledged over a page that was lost.
    match failure.direction {
        Direction::Read => verdict(Action::Extent, "the drive cannot read the place; other replicas have it"),
        Direction::Write if failure.earlier_writes + 1 >= MAX_WRITE_ERRORS => verdict(
            Action::DiskReadOnly,
            "too many writes have failed: the disk is worn out or badly connected; replace it",
        ),
        Direction::Write
            if failure.place == Place::Area && failure.earlier_area_writes + 1 >= MAX_AREA_WRITE_ERRORS =>
        {
            verdict(Action::DiskReadOnly, "the areas that all extents depend on cannot be written; replace the disk")
        }
        Direction::Write => verdict(Action::Extent, "the drive cannot write the place; what is there takes no more"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Action, Direction, ErrorKind, Failure, Place, judge_io_error};

    fn failure(earlier_writes: u64) -> Failure {
        let (direction, place) = (Direction::Write, Place::Slot);
        Failure { direction, place, attempt: 1, earlier_writes, earlier_area_writes: 0 }
    }

    fn action(code: i32, failure: Failure) -> Action {
        let verdict = judge_io_error(&io::Error::from_raw_os_error(code), failure);
        assert!(!verdict.reason.is_empty());
        verdict.action
    }

    #[test]
    fn what_may_pass_is_tried_again_but_not_for_ever() {
        assert_eq!(action(libc::EAGAIN, failure(0)), Action::Retry);
        assert_eq!(action(libc::EAGAIN, Failure { attempt: 4, ..failure(0) }), Action::Extent);
        let short = io::Error::new(io::ErrorKind::WriteZero, "short");
        assert_eq!(judge_io_error(&short, failure(0)).action, Action::Retry);
    }

    #[test]
    fn one_bad_spot_costs_an_extent_and_many_the_disk() {
        assert_eq!(action(libc::EIO, failure(0)), Action::Extent);
        assert_eq!(action(libc::EIO, failure(7)), Action::DiskReadOnly);
        let read = Failure { direction: Direction::Read, ..failure(100) };
        assert_eq!(action(libc::EIO, read), Action::Extent);
    }

    #[test]
    fn areas_that_cannot_be_written_cost_the_disk_sooner() {
        let area = |earlier| Failure { place: Place::Area, earlier_area_writes: earlier, ..failure(earlier) };
        assert_eq!(action(libc::EIO, area(1)), Action::Extent);
        assert_eq!(action(libc::EIO, area(2)), Action::DiskReadOnly);
        assert_eq!(action(libc::EIO, failure(2)), Action::Extent);
    }

    #[test]
    fn a_disk_that_is_gone_or_write_protected_is_said_to_be() {
        assert_eq!(action(libc::ENODEV, failure(0)), Action::DiskFailed);
        assert_eq!(action(libc::EROFS, failure(0)), Action::DiskReadOnly);
        assert_eq!(action(libc::ENOSPC, failure(100)), Action::Extent);
    }

    #[test]
    fn every_error_has_a_kind() {
        let kind = |code| ErrorKind::of(&io::Error::from_raw_os_error(code));
        assert_eq!(
            [libc::EIO, libc::ENODEV, libc::ETIMEDOUT, libc::ENOSPC, libc::EINVAL].map(kind),
            [ErrorKind::Medium, ErrorKind::Transport, ErrorKind::Timeout, ErrorKind::NoSpace, ErrorKind::Other]
        );
    }
}
