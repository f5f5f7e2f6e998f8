//! The disk's thread.
use crate::disk::Disk;
use crate::error::OpenError;
use crate::status::OpenOptions;
use std::path::Path;
pub(crate) fn open(path: &Path, _options: OpenOptions) -> Result<Disk, OpenError> {
    Err(OpenError::AlreadyOpen { path: path.display().to_string() })
}
