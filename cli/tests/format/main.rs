//! `holdfast admin disk format` on real files and, as root, on real loop devices: whatever is refused is left as it
//! was, byte for byte, and says why and what to do.

#![allow(clippy::unwrap_used, missing_docs)]

mod devices;
mod files;
mod support;
