//! A folder on a Linux disk.
//!
//! Every path is resolved with `openat2` beneath the root's descriptor (`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//! RESOLVE_NO_MAGICLINKS`), down to the folder; the last name is used with the `*at` calls that do not follow links.
//! Where `openat2` is refused (old kernels, some containers) the path is walked name by name with `O_NOFOLLOW`.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use holdfast_metadata_client::Timestamp;
use holdfast_sync_client_planner::{Inode, NodeKind, Stat};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, readlinkat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fsync, symlinkat, syncfs, unlinkat};

use crate::error::EngineError;
use crate::files::{FileSystem, Listing, RootIdentity, Seen, Temporary};

/// The folder in the root for temporary files, where the state lies on another file system.
pub(crate) const TEMPORARY_FOLDER: &str = ".holdfast-temporary";

/// Longest piece of a path handed to one system call (PATH_MAX is 4,096).
const MAX_PIECE_BYTES: usize = 3000;

/// More folders than this are made durable with one `syncfs`.
const MAX_FOLDER_SYNCS: usize = 8;

const FOLDER: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A folder on a Linux disk and its place for temporary files.
#[derive(Debug)]
pub struct DiskFiles {
    path: PathBuf,
    root: OwnedFd,
    device: u64,
    temporary: OwnedFd,
    next: AtomicU64,
    has_openat2: AtomicBool,
}

fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let whole = before.as_secs() as i64;
            match before.subsec_nanos() {
                0 => Timestamp { secs: -whole, nanos: 0 },
                nanos => Timestamp { secs: -whole - 1, nanos: 1_000_000_000 - nanos },
            }
        }
    }
}

fn time_spec(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.secs, i64::from(time.nanos))
}

fn inode(metadata: &Metadata) -> Inode {
    Inode { number: metadata.ino(), birth: metadata.created().ok().map(timestamp) }
}

fn stat_of(metadata: &Metadata, kind: NodeKind, target: Option<String>) -> Stat {
    let is_file = kind == NodeKind::File;
    Stat {
        kind,
        inode: inode(metadata),
        size: if is_file { metadata.size() } else { 0 },
        mtime: Timestamp { secs: metadata.mtime(), nanos: metadata.mtime_nsec() as u32 },
        ctime: Timestamp { secs: metadata.ctime(), nanos: metadata.ctime_nsec() as u32 },
        executable: is_file && metadata.mode() & 0o100 != 0,
        target,
    }
}

/// Who a folder is.
pub(crate) fn identity(metadata: &Metadata) -> RootIdentity {
    RootIdentity(inode(metadata))
}

/// The mode with the executable bit set for all who may read, or cleared.
fn with_executable(mode: u32, executable: bool) -> u32 {
    if executable { mode | 0o100 | ((mode & 0o444) >> 2) } else { mode & !0o111 }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn proc_path(folder: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name)
}

impl DiskFiles {
    /// Opens a folder. Temporary files go to `state_dir/tmp`, or into a hidden folder of the root where a file cannot
    /// be renamed from there.
    ///
    /// # Errors
    /// `Io` when the folder is missing or no folder, or temporary files cannot be made.
    pub fn open(folder: &Path, state_dir: &Path) -> Result<Self, EngineError> {
        let failed = |path: &Path, what: &'static str| {
            let path = path.to_owned();
            move |source: io::Error| EngineError::Io { path, what, source }
        };
        let root = openat(AT_FDCWD, folder, FOLDER.difference(OFlag::O_NOFOLLOW), Mode::empty())
            .map_err(|error| failed(folder, "cannot be opened as a folder")(error.into()))?;
        let opened = File::from(root.try_clone().map_err(failed(folder, "cannot be opened"))?);
        let device = opened.metadata().map_err(failed(folder, "cannot be read"))?.dev();
        let outside = state_dir.join("tmp");
        std::fs::create_dir_all(&outside).map_err(failed(&outside, "cannot be made"))?;
        let temporary = openat(AT_FDCWD, &outside, FOLDER, Mode::empty())
            .map_err(|error| failed(&outside, "cannot be opened")(error.into()))?;
        let mut files = Self {
            path: folder.to_owned(),
            root,
            device,
            temporary,
            next: AtomicU64::new(0),
            has_openat2: AtomicBool::new(true),
        };
        if !files.can_rename_from_temporary() {
            match mkdirat(&files.root, TEMPORARY_FOLDER, Mode::S_IRWXU) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(failed(folder, "no folder for temporary files")(error.into())),
            }
            files.temporary = openat(&files.root, TEMPORARY_FOLDER, FOLDER, Mode::empty())
                .map_err(|error| failed(folder, "no folder for temporary files")(error.into()))?;
        }
        Ok(files)
    }

    /// Whether the state lies on the root's file system and mount.
    fn can_rename_from_temporary(&self) -> bool {
        let Ok((probe, _)) = self.create() else { return false };
        let to = format!("{TEMPORARY_FOLDER}-probe");
        let renamed =
            renameat2(&self.temporary, probe.name.as_str(), &self.root, to.as_str(), RenameFlags::empty()).is_ok();
        if renamed {
            // A probe that stays is ignored by scans, as its prefix is.
            let _ = unlinkat(&self.root, to.as_str(), UnlinkatFlags::NoRemoveDir);
        } else {
            self.discard(&probe);
        }
        renamed
    }

    fn open_folder(&self, path: &str) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return Ok(openat(&self.root, ".", FOLDER, Mode::empty())?);
        }
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while !rest.is_empty() {
            let cut = match rest.len() {
                length if length <= MAX_PIECE_BYTES => rest.len(),
                _ => rest.as_bytes()[..MAX_PIECE_BYTES].iter().rposition(|byte| *byte == b'/').unwrap_or(rest.len()),
            };
            let (piece, after) = rest.split_at(cut);
            at = Some(match &at {
                Some(folder) => self.step(folder, piece)?,
                None => self.step(&self.root, piece)?,
            });
            rest = after.trim_start_matches('/');
        }
        at.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn step(&self, from: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
        if self.has_openat2.load(Ordering::Relaxed) {
            let resolve =
                ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            match openat2(from, path, OpenHow::new().flags(FOLDER).resolve(resolve)) {
                Err(Errno::ENOSYS | Errno::EPERM) => self.has_openat2.store(false, Ordering::Relaxed),
                opened => return Ok(opened?),
            }
        }
        let mut at: Option<OwnedFd> = None;
        for name in path.split('/') {
            if matches!(name, "" | "." | "..") {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            at = Some(match &at {
                Some(folder) => openat(folder, name, FOLDER, Mode::empty())?,
                None => openat(from, name, FOLDER, Mode::empty())?,
            });
        }
        at.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn parent<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a str)> {
        let (folder, name) = split(path);
        if matches!(name, "" | "." | "..") || name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name"));
        }
        Ok((self.open_folder(folder)?, name))
    }

    fn seen(&self, folder: &OwnedFd, name: &OsStr, metadata: &Metadata) -> Seen {
        let kind = metadata.file_type();
        let other = |reason: &str| Seen {
            stat: stat_of(metadata, NodeKind::Other, None),
            stays_local: Some(reason.to_owned()),
        };
        if kind.is_file() {
            return Seen { stat: stat_of(metadata, NodeKind::File, None), stays_local: None };
        }
        if kind.is_dir() {
            let elsewhere = (metadata.dev() != self.device).then(|| "another file system is mounted here".to_owned());
            return Seen { stat: stat_of(metadata, NodeKind::Folder, None), stays_local: elsewhere };
        }
        if kind.is_symlink() {
            return match readlinkat(folder, name) {
                Ok(target) => match target.into_string() {
                    Ok(target) => Seen { stat: stat_of(metadata, NodeKind::Symlink, Some(target)), stays_local: None },
                    Err(_) => other("the link's target is not UTF-8"),
                },
                Err(error) => other(&format!("the link cannot be read: {}", error.desc())),
            };
        }
        use std::os::unix::fs::FileTypeExt;
        other(match () {
            () if kind.is_fifo() => "a fifo",
            () if kind.is_socket() => "a socket",
            () => "a device",
        })
    }

    fn stat_at(&self, folder: &OwnedFd, name: &str) -> io::Result<Option<Seen>> {
        match std::fs::symlink_metadata(proc_path(folder, OsStr::new(name))) {
            Ok(metadata) => Ok(Some(self.seen(folder, OsStr::new(name), &metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn must_stat_at(&self, folder: &OwnedFd, name: &str) -> io::Result<Stat> {
        let seen = self.stat_at(folder, name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(seen.stat)
    }

    fn temporary_name(&self) -> String {
        format!("{}-{}", std::process::id(), self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn names(folder: &OwnedFd) -> io::Result<std::fs::ReadDir> {
        std::fs::read_dir(Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()))
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::ELOOP as i32)
}

impl FileSystem for DiskFiles {
    fn root_identity(&self) -> io::Result<RootIdentity> {
        let metadata = std::fs::metadata(&self.path)?;
        if !metadata.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(identity(&metadata))
    }

    fn watchable(&self, folder: &str) -> io::Result<OwnedFd> {
        self.open_folder(folder)
    }

    fn stat(&self, path: &str) -> io::Result<Option<Seen>> {
        if path.is_empty() {
            let metadata = File::from(self.root.try_clone()?).metadata()?;
            return Ok(Some(Seen { stat: stat_of(&metadata, NodeKind::Folder, None), stays_local: None }));
        }
        match self.parent(path) {
            Ok((folder, name)) => self.stat_at(&folder, name),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, path: &str) -> io::Result<Listing> {
        let folder = self.open_folder(path)?;
        let mut listing = Listing::default();
        for entry in Self::names(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if path.is_empty() && name.as_bytes().starts_with(TEMPORARY_FOLDER.as_bytes()) {
                continue;
            }
            let Some(text) = name.to_str() else {
                listing.unnameable.push(name.to_string_lossy().into_owned());
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => {
                    let seen = self.seen(&folder, &name, &metadata);
                    listing.entries.push((text.to_owned(), seen));
                }
                // It went between the listing and the stat.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    fn open(&self, path: &str) -> io::Result<File> {
        let (folder, name) = self.parent(path)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&folder, name, flags, Mode::empty())?))
    }

    fn stat_open(&self, file: &File) -> io::Result<Stat> {
        let metadata = file.metadata()?;
        let kind = if metadata.is_file() { NodeKind::File } else { NodeKind::Other };
        Ok(stat_of(&metadata, kind, None))
    }

    fn create(&self) -> io::Result<(Temporary, File)> {
        let name = self.temporary_name();
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.temporary, name.as_str(), flags, Mode::from_bits_truncate(0o600))?;
        Ok((Temporary { name }, File::from(file)))
    }

    fn create_link(&self, target: &str, mtime: Timestamp) -> io::Result<Temporary> {
        let name = self.temporary_name();
        symlinkat(target, &self.temporary, name.as_str())?;
        let times = time_spec(mtime);
        utimensat(&self.temporary, name.as_str(), &TimeSpec::UTIME_OMIT, &times, UtimensatFlags::NoFollowSymlink)?;
        Ok(Temporary { name })
    }

    fn finish(&self, file: &File, mtime: Timestamp, executable: bool, like: Option<&str>) -> io::Result<()> {
        let like = like.and_then(|path| {
            let (folder, name) = self.parent(path).ok()?;
            std::fs::symlink_metadata(proc_path(&folder, OsStr::new(name))).ok()
        });
        let kept = like.filter(Metadata::is_file).map_or(0o644, |metadata| metadata.mode() & 0o777);
        fchmod(file, Mode::from_bits_truncate(with_executable(kept, executable)))?;
        futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(mtime))?;
        Ok(())
    }

    fn stat_temporary(&self, temporary: &Temporary) -> io::Result<Stat> {
        self.must_stat_at(&self.temporary, &temporary.name)
    }

    fn place(&self, temporary: &Temporary, path: &str, replace: bool) -> io::Result<Stat> {
        let (folder, name) = self.parent(path)?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
        match renameat2(&self.temporary, temporary.name.as_str(), &folder, name, flags) {
            // File systems without the flag: the place was looked at a moment ago.
            Err(Errno::EINVAL) if !replace && self.stat_at(&folder, name)?.is_none() => {
                renameat2(&self.temporary, temporary.name.as_str(), &folder, name, RenameFlags::empty())?;
            }
            renamed => renamed?,
        }
        self.must_stat_at(&folder, name)
    }

    fn discard(&self, temporary: &Temporary) {
        // A leftover is removed at the next start.
        let _ = unlinkat(&self.temporary, temporary.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }

    fn discard_all(&self) -> io::Result<()> {
        for entry in Self::names(&self.temporary)? {
            unlinkat(&self.temporary, entry?.file_name().as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(())
    }

    fn make_folder(&self, path: &str) -> io::Result<Stat> {
        let (folder, name) = self.parent(path)?;
        mkdirat(&folder, name, Mode::from_bits_truncate(0o755))?;
        self.must_stat_at(&folder, name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<Stat> {
        let (from_folder, from_name) = self.parent(from)?;
        let (to_folder, to_name) = self.parent(to)?;
        match renameat2(&from_folder, from_name, &to_folder, to_name, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL) if self.stat_at(&to_folder, to_name)?.is_none() => {
                renameat2(&from_folder, from_name, &to_folder, to_name, RenameFlags::empty())?;
            }
            renamed => renamed?,
        }
        self.must_stat_at(&to_folder, to_name)
    }

    fn remove_file(&self, path: &str) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(unlinkat(&folder, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn remove_folder(&self, path: &str) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        Ok(unlinkat(&folder, name, UnlinkatFlags::RemoveDir)?)
    }

    fn set_attributes(&self, path: &str, mtime: Timestamp, executable: bool) -> io::Result<Stat> {
        let (folder, name) = self.parent(path)?;
        let metadata = std::fs::symlink_metadata(proc_path(&folder, OsStr::new(name)))?;
        if !metadata.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let (mode, wanted) = (metadata.mode() & 0o7777, executable);
        if (mode & 0o100 != 0) != wanted {
            let mode = Mode::from_bits_truncate(with_executable(mode, wanted));
            fchmodat(&folder, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        utimensat(&folder, name, &TimeSpec::UTIME_OMIT, &time_spec(mtime), UtimensatFlags::NoFollowSymlink)?;
        self.must_stat_at(&folder, name)
    }

    fn sync_folders(&self, folders: &[String]) -> io::Result<()> {
        if folders.len() > MAX_FOLDER_SYNCS {
            return self.sync_all();
        }
        for folder in folders {
            match self.open_folder(folder) {
                Ok(folder) => fsync(folder.as_fd())?,
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(syncfs(&self.root)?)
    }
}

impl Drop for DiskFiles {
    fn drop(&mut self) {
        // The hidden folder goes when it is empty; where temporary files lie with the state there is none.
        let _ = unlinkat(&self.root, TEMPORARY_FOLDER, UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::Ordering;

    use super::DiskFiles;
    use crate::files::FileSystem;

    #[test]
    fn no_operation_follows_a_link_or_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("root/real/below")).unwrap();
        std::fs::write(at("root/real/file"), "inside").unwrap();
        std::fs::write(at("secret"), "outside").unwrap();
        symlink("real", at("root/link")).unwrap();
        symlink("../secret", at("root/out")).unwrap();
        let files = DiskFiles::open(&at("root"), &at("state")).unwrap();
        for has_openat2 in [true, false] {
            files.has_openat2.store(has_openat2, Ordering::Relaxed);
            assert!(files.open("real/file").is_ok());
            assert!(files.stat("real/file").unwrap().is_some());
            assert!(files.open("link/file").is_err());
            assert!(files.open("out").is_err());
            assert_eq!(files.stat("link/file").unwrap(), None);
            assert!(files.open("../secret").is_err());
            assert!(files.list("link/below").is_err());
            assert!(files.make_folder("link/below/new").is_err());
            assert!(files.make_folder("link/new").is_err());
            assert!(files.rename("real/file", "link/moved").is_err());
            assert!(files.remove_file("link/file").is_err());
            assert!(files.remove_file("real/../../secret").is_err());
            let (temporary, _file) = files.create().unwrap();
            assert!(files.place(&temporary, "link/placed", true).is_err());
            assert!(files.place(&temporary, "../placed", true).is_err());
            files.discard(&temporary);
        }
        assert_eq!(std::fs::read(at("root/real/file")).unwrap(), b"inside");
        assert_eq!(std::fs::read_dir(at("root/real")).unwrap().count(), 2);
        assert!(at("secret").exists() && !at("placed").exists());
    }

    #[test]
    fn a_path_longer_than_the_kernel_takes_at_once_is_walked() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let files = DiskFiles::open(&root, &dir.path().join("state")).unwrap();
        let mut path = "x".repeat(255);
        files.make_folder(&path).unwrap();
        for _ in 0..25 {
            path = format!("{path}/{}", "y".repeat(255));
            files.make_folder(&path).unwrap();
        }
        assert!(path.len() > 4096);
        assert!(files.stat(&path).unwrap().is_some());
        assert_eq!(files.list(&path).unwrap().entries.len(), 0);
    }
}
