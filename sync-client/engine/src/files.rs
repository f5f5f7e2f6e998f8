//! The disk, behind a trait. Paths are below the root, names joined by `/`; the root itself is the empty path.

use std::fs::File;
use std::io;

use holdfast_metadata_client::Timestamp;
use holdfast_sync_client_planner::{Inode, Stat};

/// Who the root folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootIdentity(pub Inode);

/// What a stat says, and why the file stays local if it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The stat.
    pub stat: Stat,
    /// For `NodeKind::Other`: why it is not synced. For a folder: why what is in it is not looked at.
    pub stays_local: Option<String>,
}

/// What is in a folder.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// What has a name that can be synced.
    pub entries: Vec<(String, Seen)>,
    /// Names that cannot, made readable.
    pub unnameable: Vec<String>,
}

/// A file or link that is complete but not in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temporary {
    /// Its name among temporary files.
    pub name: String,
}

/// What the engine needs of a disk. Every operation stays beneath the root and follows no link; none blocks for long,
/// but `sync_all` and what reads or writes a whole file.
pub trait FileSystem: Send + Sync {
    /// Who stands at the configured path now, and whether it is still the folder that was opened.
    ///
    /// # Errors
    /// When nothing stands there.
    fn root_identity(&self) -> io::Result<RootIdentity>;

    /// A path of a folder for the watcher, valid while the answer lives.
    ///
    /// # Errors
    /// When it is no folder.
    fn watchable(&self, folder: &str) -> io::Result<std::os::fd::OwnedFd>;

    /// The stat of a place; none when nothing stands there.
    ///
    /// # Errors
    /// What the disk says.
    fn stat(&self, path: &str) -> io::Result<Option<Seen>>;

    /// What is in a folder.
    ///
    /// # Errors
    /// What the disk says.
    fn list(&self, folder: &str) -> io::Result<Listing>;

    /// Opens a file for reading, never a link, fifo or device.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, path: &str) -> io::Result<File>;

    /// The stat of an open file.
    ///
    /// # Errors
    /// What the disk says.
    fn stat_open(&self, file: &File) -> io::Result<Stat>;

    /// A new temporary file for writing.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self) -> io::Result<(Temporary, File)>;

    /// A new temporary link.
    ///
    /// # Errors
    /// What the disk says.
    fn create_link(&self, target: &str, mtime: Timestamp) -> io::Result<Temporary>;

    /// Sets modification time and the executable bit of a temporary file; `like` is the file whose other mode bits are
    /// kept.
    ///
    /// # Errors
    /// What the disk says.
    fn finish(&self, file: &File, mtime: Timestamp, executable: bool, like: Option<&str>) -> io::Result<()>;

    /// The stat of a temporary file.
    ///
    /// # Errors
    /// What the disk says.
    fn stat_temporary(&self, temporary: &Temporary) -> io::Result<Stat>;

    /// Puts a temporary file at a place. With `replace` over the file that stands there; else the place must be free.
    ///
    /// # Errors
    /// `AlreadyExists` when the place is not free; what the disk says.
    fn place(&self, temporary: &Temporary, path: &str, replace: bool) -> io::Result<Stat>;

    /// Removes a temporary file that is not needed.
    fn discard(&self, temporary: &Temporary);

    /// Removes all temporary files.
    ///
    /// # Errors
    /// What the disk says.
    fn discard_all(&self) -> io::Result<()>;

    /// Makes a folder.
    ///
    /// # Errors
    /// `AlreadyExists`; what the disk says.
    fn make_folder(&self, path: &str) -> io::Result<Stat>;

    /// Renames to a free place.
    ///
    /// # Errors
    /// `AlreadyExists`; what the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<Stat>;

    /// Removes a file or link.
    ///
    /// # Errors
    /// What the disk says.
    fn remove_file(&self, path: &str) -> io::Result<()>;

    /// Removes an empty folder.
    ///
    /// # Errors
    /// What the disk says.
    fn remove_folder(&self, path: &str) -> io::Result<()>;

    /// Sets modification time and executable bit of a file in its place.
    ///
    /// # Errors
    /// What the disk says.
    fn set_attributes(&self, path: &str, mtime: Timestamp, executable: bool) -> io::Result<Stat>;

    /// Makes the entries of these folders durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_folders(&self, folders: &[String]) -> io::Result<()>;

    /// Makes all written files durable.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_all(&self) -> io::Result<()>;
}
