//! Which names may stand on the disk.

use holdfast_metadata_client::EntryId;

/// Names that begin so are a step of a rename under way, not a person's wish.
pub const TRANSIT_PREFIX: &str = ".holdfast-moving-";

/// Whether an entry under this name is out of the way for a moment (`PREFIX + id`, or that and `-n`).
pub(crate) fn is_transit_name(id: EntryId, name: &str) -> bool {
    let Some(rest) = name.strip_prefix(TRANSIT_PREFIX) else { return false };
    rest.split('-').next().and_then(|number| number.parse().ok()) == Some(id.0)
}

/// Longest name of a file, in bytes, on Linux and on the server.
const MAX_NAME_BYTES: usize = 255;

/// Why a name from the server is refused: it would write outside its folder, or nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// `""`.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("the name points to a folder above or to itself")]
    Dots,
    /// It holds `/` or NUL.
    #[error("the name holds a slash or a zero byte")]
    Separator,
    /// More than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    TooLong,
}

/// Whether a name can be one component of a path.
///
/// # Errors
/// See [`NameFault`].
pub fn check_name(name: &str) -> Result<(), NameFault> {
    if name.is_empty() {
        return Err(NameFault::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameFault::Dots);
    }
    if name.contains(['/', '\0']) {
        return Err(NameFault::Separator);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameFault::TooLong);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{NameFault, check_name};

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        assert_eq!(check_name(""), Err(NameFault::Empty));
        assert_eq!(check_name(".."), Err(NameFault::Dots));
        assert_eq!(check_name("."), Err(NameFault::Dots));
        assert_eq!(check_name("../x"), Err(NameFault::Separator));
        assert_eq!(check_name("a\0"), Err(NameFault::Separator));
        assert_eq!(check_name(&"é".repeat(128)), Err(NameFault::TooLong));
        assert_eq!(check_name(&"a".repeat(255)), Ok(()));
        assert_eq!(check_name("...\n"), Ok(()));
    }
}
