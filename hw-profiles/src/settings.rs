//! Applies a profile's settings to a disk through sysfs.

use std::io::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::error::HardwareError;
use crate::profile::Settings;
use crate::tree::{Tree, parts};

/// What became of one setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// File in sysfs, below the root.
    pub file: String,
    /// What was wanted.
    pub wanted: String,
    /// What stood there before.
    pub before: String,
    /// Why it is not what was wanted; `None` when it is.
    pub failed: Option<String>,
}

/// Applies `settings` to the block device at `device`, any path or link below `root` (`/` on a machine), and says what
/// became of each. A setting that already holds is not written. What fails (no such file, no right, a value that the
/// driver does not take) harms speed, not data: the disk can be used all the same.
///
/// A regular file has no settings, so nothing is applied to it.
///
/// # Errors
/// [`HardwareError::Io`] when `device` is not there, or is neither a file nor a whole disk that sysfs knows.
pub fn apply(root: &Path, device: &Path, settings: &Settings) -> Result<Vec<Applied>, HardwareError> {
    let failed = |source| HardwareError::Io { path: device.to_owned(), what: "cannot apply settings", source };
    let tree = Tree::open(root).map_err(failed)?;
    let real = tree.real(device).ok_or_else(|| failed(std::io::Error::from(std::io::ErrorKind::NotFound)))?;
    let own = parts(&real);
    let Some(name) = own.last().filter(|_| own.first() == Some(&"dev")) else { return Ok(Vec::new()) };
    let Some(block) = tree.real(format!("sys/class/block/{name}")).or_else(|| tree.real(format!("sys/block/{name}")))
    else {
        return Err(failed(std::io::Error::other(format!("sysfs knows no block device {name}"))));
    };
    if tree.exists(block.join("partition")) {
        return Err(failed(std::io::Error::other(format!("{name} is a partition, not a whole disk"))));
    }
    let mut applied = Vec::new();
    // The scheduler first: a new one sets the number of requests anew.
    if let Some(scheduler) = &settings.scheduler {
        applied.push(write(&tree, &block.join("queue/scheduler"), scheduler));
    }
    let number = |value: u64| value.to_string();
    if let Some(requests) = settings.requests {
        applied.push(write(&tree, &block.join("queue/nr_requests"), &number(requests.into())));
    }
    if let Some(bytes) = settings.readahead_bytes {
        applied.push(write(&tree, &block.join("queue/read_ahead_kb"), &number(bytes / 1024)));
    }
    // Only SCSI has a depth of its own; elsewhere the engine's own bound on operations in flight is all there is.
    let depth = block.join("device/queue_depth");
    if let Some(queue_depth) = settings.queue_depth.filter(|_| tree.exists(&depth)) {
        applied.push(write(&tree, &depth, &number(queue_depth.into())));
    }
    Ok(applied)
}

fn write(tree: &Tree, file: &Path, wanted: &str) -> Applied {
    let now = || chosen(&tree.text(file).unwrap_or_default());
    let before = now();
    let result = |failed| Applied {
        file: file.display().to_string(),
        wanted: wanted.to_owned(),
        before: before.clone(),
        failed,
    };
    if before == wanted {
        return result(None);
    }
    let written = std::fs::File::options()
        .write(true)
        .truncate(true)
        .open(tree.at(file))
        .and_then(|mut file| file.write_all(wanted.as_bytes()));
    if let Err(error) = written {
        return result(Some(error.to_string()));
    }
    let after = now();
    result((after != wanted).then(|| format!("the kernel made it {after}")))
}

/// The word in brackets of a list of choices (`none [mq-deadline] kyber`), or the whole text.
fn chosen(text: &str) -> String {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    inside.unwrap_or(text).to_owned()
}
