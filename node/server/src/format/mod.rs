//! What speaks against making a disk of a device or file: who uses it, and what stands on it. Looked at by
//! `holdfast admin disk format` on the machine itself, and by the node before it adopts a blank device.
//!
//! The device is held exclusively from the last look until it is a disk.

mod contents;
mod device;
mod obstacle;
mod uses;

use std::path::Path;

use holdfast_hw_profiles::tree::Tree;
use holdfast_node_engine::{Candidate, FormatError, FormatOptions, FoundDisk};

pub use device::{Device, Kind};
pub use obstacle::{Grip, Obstacle};

/// A device that was looked at.
#[derive(Debug)]
pub struct Look {
    /// The device, held, unless something in use forbids to open it.
    pub candidate: Option<Candidate>,
    /// All that speaks against it.
    pub obstacles: Vec<Obstacle>,
    /// How many extents stand on it.
    pub extents: u32,
}

/// Looks at a device and at what stands on it. Changes nothing.
///
/// # Errors
/// What cannot be read cannot be judged.
pub fn look(tree: &Tree, device: &Device, options: FormatOptions) -> Result<Look, FormatError> {
    let mut obstacles = uses::obstacles(tree, device);
    if obstacles.iter().any(|obstacle| obstacle.grip == Grip::Firm) {
        return Ok(Look { candidate: None, obstacles, extents: 0 });
    }
    let cell = options.cell;
    let candidate = match Candidate::open(&device.path, options) {
        Ok(candidate) => candidate,
        Err(error) => {
            obstacles.push(unopened(tree, &device.path, error)?);
            return Ok(Look { candidate: None, obstacles, extents: 0 });
        }
    };
    let survey = candidate.survey()?;
    obstacles.extend(contents::obstacles(&survey, cell));
    obstacles.extend(contents::from_blkid(&device.path, &obstacles));
    let extents = match survey.holdfast {
        Some(FoundDisk::Readable { extents, .. }) => extents,
        _ => 0,
    };
    Ok(Look { candidate: Some(candidate), obstacles, extents })
}

fn unopened(tree: &Tree, path: &Path, error: FormatError) -> Result<Obstacle, FormatError> {
    let (code, what, remedy) = match error {
        FormatError::InUse { .. } => {
            let holder = uses::lock_holder(tree, path).unwrap_or_else(|| "another process".to_owned());
            ("in-use", format!("it is in use by {holder}"), "stop that first; a node lets go of a disk when it stops")
        }
        FormatError::TooSmall { have, need, slot_bytes, .. } => (
            "too-small",
            format!("it has {have} bytes, and one slot of {slot_bytes} bytes needs {need}"),
            "take a larger one, or a cell with smaller slots",
        ),
        FormatError::NoConventional { have, need, .. } => (
            "no-conventional-zones",
            format!("it is a zoned disk with {have} bytes in conventional zones at its front, and {need} are needed"),
            "take one with conventional zones (SMR disks have them); one with sequential zones only cannot be used yet",
        ),
        other => return Err(other),
    };
    Ok(Obstacle::new(Grip::Firm, code, what, remedy))
}
