//! Opening one disk. All of it waits for the disk.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use holdfast_hw_profiles::profile::Settings;
use holdfast_node_engine::{Disk, FormatOptions, OpenError, OpenOptions};

use super::Cause;
use super::finding::FileIdentity;
use crate::Machine;

/// Where device nodes are: the kernel makes them, and nobody else.
const DEVICES: &str = "/dev";

/// What it takes to open a disk.
pub(crate) struct Opening {
    /// Its file or device.
    pub path: PathBuf,
    /// Bytes of a slot in this cell.
    pub slot_bytes: u64,
    /// Bytes of the file that is made when there is none.
    pub create: Option<u64>,
    /// For the engine.
    pub options: OpenOptions,
    /// Of the profile, applied once the disk is known to be one of this cell.
    pub settings: Option<Settings>,
    /// Where settings are written.
    pub machine: Machine,
}

/// The end of an attempt to open a disk.
pub(crate) struct Opened {
    /// Where it stands.
    pub path: PathBuf,
    /// The disk, or why it cannot be used.
    pub result: Result<Disk, (Cause, String)>,
    /// What stands there now.
    pub identity: Option<FileIdentity>,
}

impl Opening {
    /// Opens the disk, after making it when its file is missing and may be made.
    ///
    /// # Errors
    /// Why it cannot be used, with its path.
    pub(crate) fn run(&self) -> Result<Disk, (Cause, String)> {
        if let Some(size) = self.create {
            self.make_missing(size)?;
        }
        self.judge(Disk::open(&self.path, self.options.clone()))
    }

    /// Whether a disk that was opened, or was not, can be used.
    ///
    /// # Errors
    /// As [`Opening::run`].
    pub(crate) fn judge(&self, opened: Result<Disk, OpenError>) -> Result<Disk, (Cause, String)> {
        let disk = opened.map_err(|error| {
            let cause = match &error {
                OpenError::TooSmall { have: 0, path, .. } => {
                    let reason = format!(
                        "{path} has no bytes: an empty file, a device without a medium, or a disk with sectors that Linux cannot use"
                    );
                    return (Cause::Unusable, reason);
                }
                OpenError::WrongCell { .. } => Cause::Foreign,
                OpenError::NoSuperblock { .. } => Cause::Unformatted,
                OpenError::AlreadyOpen { .. } => Cause::InUse,
                _ => Cause::Unusable,
            };
            (cause, error.to_string())
        })?;
        let slot_bytes = disk.status().slot_bytes;
        if slot_bytes != self.slot_bytes {
            let reason = format!(
                "{}: it has slots of {slot_bytes} bytes, and `slot_bytes` of this cell is {}; all disks of a cell have \
                 slots of one size: format it anew, or correct `slot_bytes`",
                self.path.display(),
                self.slot_bytes
            );
            return Err((Cause::Unusable, reason));
        }
        if let Some(settings) = &self.settings {
            self.machine.apply(&self.path, settings);
        }
        Ok(disk)
    }

    fn make_missing(&self, size: u64) -> Result<(), (Cause, String)> {
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // There, or not to be seen; opening it tells.
            _ => return Ok(()),
        }
        may_be_made(&self.path)
            .map_err(|why| (Cause::Missing, format!("{} does not exist, and {why}", self.path.display())))?;
        let format = FormatOptions { cell: self.options.cell, slot_bytes: self.slot_bytes, size_bytes: Some(size) };
        let disk =
            holdfast_node_engine::format(&self.path, &format).map_err(|error| (Cause::Unusable, error.to_string()))?;
        tracing::info!(%disk, path = %self.path.display(), size_bytes = size, "disk file was missing and has been made");
        Ok(())
    }
}

/// Whether a file may be made at a path where nothing is. A device that is not there is never replaced by a file of its
/// name: what is written to that lies in memory, and hides the device when it comes.
fn may_be_made(path: &Path) -> Result<(), &'static str> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err("it is a link to nothing: no file is made through a link");
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that is missing, too, is told when the file is made.
    let Ok(folder) = folder.canonicalize() else { return Ok(()) };
    let device_of = |path: &Path| std::fs::metadata(path).ok().map(|found| found.dev());
    // A file system of its own below it, as /dev/shm is, holds no device nodes.
    if folder.starts_with(DEVICES) && device_of(&folder) == device_of(Path::new(DEVICES)) {
        return Err("no file is made in /dev: is the device connected, and its name right?");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::may_be_made;

    #[test]
    fn no_file_is_made_among_devices_whatever_the_way_there() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev", dir.path().join("devices")).unwrap();
        std::os::unix::fs::symlink("/dev/nothing", dir.path().join("link")).unwrap();
        for path in ["/dev/sdzz", "/dev/../dev/sdzz", "devices/sdzz", "link"] {
            assert!(may_be_made(&dir.path().join(path)).is_err(), "{path}");
        }
        assert_eq!(may_be_made(&dir.path().join("disk")), Ok(()));
        assert_eq!(may_be_made(Path::new("disk")), Ok(()));
    }
}
