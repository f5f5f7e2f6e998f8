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
pub(crate) enum Verdict {
    /// The same again; it was no fault of the disk.
    Retry,
    /// This operation failed. A failed write means that the extent takes no more.
    Extent,
    /// The disk takes no more writes.
    DiskReadOnly,
    /// The disk is gone.
    DiskFailed,
}

/// Attempts in all for what may pass.
const MAX_ATTEMPTS: u32 = 4;

/// Failed writes after which a disk is not written any more: one bad spot is an extent's trouble, many are the
/// disk's.
const MAX_WRITE_ERRORS: u64 = 8;

/// Decides over `error`, which came at the `attempt`th try (from 1) of an I/O, on a disk on which
/// `earlier_write_errors` writes had failed for good before.
pub(crate) fn classify_io_error(
    error: &io::Error,
    direction: Direction,
    attempt: u32,
    earlier_write_errors: u64,
) -> Verdict {
    let worn_out = || match direction {
        Direction::Write if earlier_write_errors + 1 >= MAX_WRITE_ERRORS => Verdict::DiskReadOnly,
        _ => Verdict::Extent,
    };
    match error.raw_os_error() {
        // Nothing was wrong with the disk. A short transfer comes as WriteZero or UnexpectedEof without a number.
        Some(libc::EINTR | libc::EAGAIN | libc::ENOMEM) if attempt < MAX_ATTEMPTS => Verdict::Retry,
        None if attempt < MAX_ATTEMPTS
            && matches!(error.kind(), io::ErrorKind::WriteZero | io::ErrorKind::UnexpectedEof) =>
        {
            Verdict::Retry
        }
        Some(libc::EROFS | libc::EPERM | libc::EACCES) => Verdict::DiskReadOnly,
        Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM | libc::ESHUTDOWN | libc::EBADF | libc::ESTALE) => {
            Verdict::DiskFailed
        }
        // The file system ran full under a file: the disk itself is sound.
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => Verdict::Extent,
        // EIO and everything unknown. No retry: the drive has tried long enough, and a write that is retried after
        // an error may be acknowledged over a page that was lost.
        _ => worn_out(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{Direction, Verdict, classify_io_error};

    fn verdict(code: i32, attempt: u32, earlier: u64) -> Verdict {
        classify_io_error(&io::Error::from_raw_os_error(code), Direction::Write, attempt, earlier)
    }

    #[test]
    fn what_may_pass_is_tried_again_but_not_for_ever() {
        assert_eq!(verdict(libc::EAGAIN, 1, 0), Verdict::Retry);
        assert_eq!(verdict(libc::EAGAIN, 4, 0), Verdict::Extent);
        let short = io::Error::new(io::ErrorKind::WriteZero, "short");
        assert_eq!(classify_io_error(&short, Direction::Write, 1, 0), Verdict::Retry);
    }

    #[test]
    fn one_bad_spot_costs_an_extent_and_many_the_disk() {
        assert_eq!(verdict(libc::EIO, 1, 0), Verdict::Extent);
        assert_eq!(verdict(libc::EIO, 1, 7), Verdict::DiskReadOnly);
        let read = io::Error::from_raw_os_error(libc::EIO);
        assert_eq!(classify_io_error(&read, Direction::Read, 1, 100), Verdict::Extent);
    }

    #[test]
    fn a_disk_that_is_gone_or_write_protected_is_said_to_be() {
        assert_eq!(verdict(libc::ENODEV, 1, 0), Verdict::DiskFailed);
        assert_eq!(verdict(libc::EROFS, 1, 0), Verdict::DiskReadOnly);
        assert_eq!(verdict(libc::ENOSPC, 1, 100), Verdict::Extent);
    }
}
