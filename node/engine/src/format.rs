//! Writing an empty disk.
use crate::error::FormatError;
use crate::status::FormatOptions;
use holdfast_libs_types::DiskId;
use std::path::Path;
pub(crate) fn format_path(path: &Path, _options: &FormatOptions) -> Result<DiskId, FormatError> {
    Err(FormatError::InUse { path: path.display().to_string() })
}
