//! Folder trees: odd ones to make, and the comparison of two.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// What two trees must agree on, entry by entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A file: digest, executable by its owner, modification time.
    File([u8; 32], bool, i64, i64),
    /// A link: target and modification time.
    Link(PathBuf, i64, i64),
}

/// Reads a whole tree.
///
/// # Errors
/// When something in it cannot be read.
pub fn read(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Entry>> {
    let mut entries = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let relative = folder.join(entry?.file_name());
            let path = root.join(&relative);
            let metadata = fs::symlink_metadata(&path)?;
            let found = if metadata.is_dir() {
                open.push(relative.clone());
                Entry::Folder
            } else if metadata.is_symlink() {
                Entry::Link(fs::read_link(&path)?, metadata.mtime(), metadata.mtime_nsec())
            } else {
                let executable = metadata.permissions().mode() & 0o100 != 0;
                Entry::File(digest(&path)?, executable, metadata.mtime(), metadata.mtime_nsec())
            };
            entries.insert(relative, found);
        }
    }
    Ok(entries)
}

fn digest(path: &Path) -> anyhow::Result<[u8; 32]> {
    let mut file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().into());
        }
        hash.update(&buffer[..read]);
    }
}

/// The first differences between two trees, in words; empty when they agree.
///
/// # Errors
/// When one cannot be read.
pub fn differences(left: &Path, right: &Path) -> anyhow::Result<Vec<String>> {
    let (left, right) = (read(left)?, read(right)?);
    let mut found = Vec::new();
    for (path, entry) in &left {
        match right.get(path) {
            None => found.push(format!("only left: {path:?}")),
            Some(other) if other != entry => found.push(format!("{path:?}: {entry:?} against {other:?}")),
            Some(_) => {}
        }
    }
    found.extend(right.keys().filter(|path| !left.contains_key(*path)).map(|path| format!("only right: {path:?}")));
    found.truncate(20);
    Ok(found)
}

/// Sets the modification time of a file or link.
///
/// # Errors
/// When it cannot be set.
pub fn set_mtime(path: &Path, secs: i64, nanos: i64) -> anyhow::Result<()> {
    let time = TimeSpec::new(secs, nanos);
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

/// Writes `files` random files of up to `max_bytes` in folders of 50; answers their bytes in all.
///
/// # Errors
/// When one cannot be written.
pub fn make_many(root: &Path, files: usize, max_bytes: usize, seed: u64) -> anyhow::Result<u64> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut total = 0;
    for index in 0..files {
        let folder = root.join(format!("part-{:03}", index / 50));
        if index % 50 == 0 {
            fs::create_dir_all(&folder)?;
        }
        let mut content = vec![0; random.next_u32() as usize % max_bytes.max(1)];
        random.fill_bytes(&mut content);
        total += content.len() as u64;
        fs::write(folder.join(format!("file-{index}.bin")), content)?;
    }
    Ok(total)
}

/// Makes a tree of everything that sync clients get wrong.
///
/// # Errors
/// When an entry cannot be made.
pub fn make_odd(root: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(root.join("empty folder/inner"))?;
    fs::create_dir_all(root.join("folder"))?;
    fs::write(root.join("folder/plain"), "content")?;
    fs::write(root.join("empty file"), "")?;
    fs::write(root.join("a name with\na newline"), "newline")?;
    fs::write(root.join("x".repeat(255)), "long name")?;
    fs::write(root.join("e\u{301}t\u{e9} (NFD)"), "decomposed")?;
    fs::write(root.join("u\u{308}ber"), "NFD twin")?;
    fs::write(root.join("\u{fc}ber"), "NFC twin")?;
    for name in ["twin.JPG", "twin.jpg", "Twin.jpg"] {
        fs::write(root.join(name), format!("case twin {name}"))?;
    }
    fs::create_dir(root.join("Folder"))?;
    fs::write(root.join("Folder/in the twin folder"), "inside")?;
    fs::write(root.join("Ma\u{df}e"), "sharp s")?;
    fs::write(root.join("Masse"), "no sharp s")?;
    fs::write(root.join("trailing dot."), "dot")?;
    fs::write(root.join(" leading space"), "space")?;
    fs::write(root.join("-rf"), "dash")?;
    fs::write(root.join("back\\slash"), "backslash")?;
    fs::write(root.join("script.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(root.join("script.sh"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("read only"), "0444")?;
    fs::write(root.join("before 1970"), "old")?;
    set_mtime(&root.join("before 1970"), -86_400 * 365, 123_456_789)?;
    fs::write(root.join("nanoseconds"), "precise")?;
    set_mtime(&root.join("nanoseconds"), 1_600_000_000, 987_654_321)?;
    symlink("nowhere at all", root.join("dangling link"))?;
    symlink("/etc/hostname", root.join("absolute link"))?;
    symlink("folder", root.join("folder link"))?;
    symlink("../outside", root.join("folder/upward link"))?;
    symlink("folder/plain", root.join("file link"))?;
    set_mtime(&root.join("file link"), -5, 5)?;
    fs::set_permissions(root.join("read only"), fs::Permissions::from_mode(0o444))?;
    Ok(())
}

/// Makes what must stay local: a name that is no UTF-8, and a fifo.
///
/// # Errors
/// When it cannot be made.
pub fn make_unsyncable(root: &Path) -> anyhow::Result<()> {
    fs::write(root.join(OsString::from_vec(b"not utf-8 \xff".to_vec())), "local")?;
    nix::unistd::mkfifo(&root.join("a fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    Ok(())
}
