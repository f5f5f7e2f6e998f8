//! Reads `/sys`, `/proc` and `/dev` under a root folder: `/` on a machine, any folder for a recorded tree.
//!
//! Never follows a link out of the root, and never reads more than [`MAX_TEXT_BYTES`] of a file.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

/// Longest file that is read whole; mountinfo of a busy container host is the longest there is.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// Where everything is read from, and where settings and lights are written.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree under `root`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        Ok(Self { root: root.canonicalize()? })
    }

    /// The full path of what is at `path` below the root; a leading `/` of `path` means the root.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The bytes of a file, `None` when it cannot be read.
    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        std::fs::File::open(self.at(path)).ok()?.take(MAX_TEXT_BYTES).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// The text of a file without spaces at its ends, `None` when it cannot be read or is empty.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes(path)?)
            .trim_matches(|c: char| c.is_whitespace() || c == '\0')
            .to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The number that a file holds.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Names in a folder, sorted; none when it cannot be read.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.at(path)) else { return Vec::new() };
        let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Whether something is there.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// Where `path` really is, all links followed, relative to the root; `None` when nothing is there or it leads out.
    pub fn real(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        Some(self.at(path).canonicalize().ok()?.strip_prefix(&self.root).ok()?.to_owned())
    }

    /// Last part of where a link points, whether or not anything is there.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.at(path).read_link().ok()?.file_name()?.to_str()?.to_owned())
    }
}

/// The parts of a path as text.
pub fn parts(path: &Path) -> Vec<&str> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect()
}

/// A path as mountinfo and swaps write it: `\040` and the like back to the characters they stand for.
pub fn unescaped(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = text.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unescaped;

    #[test]
    fn escaped_paths_are_read() {
        assert_eq!(unescaped("/a\\040b\\134c\\"), Path::new("/a b\\c\\"));
        assert_eq!(unescaped("/a\\0\u{e4}"), Path::new("/a\\0\u{e4}"), "no digits");
    }
}
