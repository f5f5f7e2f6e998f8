//! Which files and devices the configuration means at this moment. All of it waits for the file system.

use std::collections::HashSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_hw_profiles::profile::{Media, Profile};

use crate::DiskPath;

/// Most entries of folders that one pattern looks at.
const MAX_ENTRIES: usize = 100_000;

/// What a path names, whatever the path is called: a device that was pulled and one that came under the same name differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Of a disk that is no file.
    #[cfg(test)]
    pub(crate) const NONE: Self = Self { device: 0, inode: 0 };

    /// Of a disk in a bay of a simulation.
    pub(crate) const fn of_bay(number: u64) -> Self {
        Self { device: 0, inode: number }
    }

    /// Of the file or device that `path` names, links followed.
    pub(crate) fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A path, or a pattern of paths, of disks that the node shall use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub path: PathBuf,
    /// By its very name in the configuration: it is told when it does not exist.
    pub named: bool,
}

impl Wanted {
    /// Whether it means what stands at `path`, or would if anything did.
    pub(crate) fn lets_in(&self, path: &Path) -> bool {
        let (mine, its) = (self.path.components(), path.components());
        let name = |part: std::path::Component<'_>| part.as_os_str().to_string_lossy().into_owned();
        mine.clone().count() == its.clone().count()
            && mine.zip(its).all(|(pattern, part)| matches(&name(pattern), &name(part)))
    }
}

/// What the configuration wants, and what the bays of a profile may hold.
pub(crate) fn wanted(configured: &[DiskPath], profile: Option<&Profile>) -> Vec<Wanted> {
    let configured = configured.iter().map(|disk| Wanted { path: disk.path.clone(), named: !is_pattern(&disk.path) });
    let bays = profile.into_iter().flat_map(|profile| &profile.bays).map(|bay| {
        let folder = if bay.media == Media::File { "" } else { "/dev/disk/by-path" };
        Wanted { path: Path::new(folder).join(bay.path.as_str()), named: false }
    });
    configured.chain(bays).collect()
}

/// A file or device that the configuration means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// As it is configured, or as a pattern matched it.
    pub path: PathBuf,
    /// `None` when it does not exist: only what was configured by its very name is told then.
    pub identity: Option<FileIdentity>,
}

/// All of them, in the order of the configuration; what has several names is told once.
pub(crate) fn find(wanted: &[Wanted]) -> Vec<Found> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for Wanted { path, named } in wanted {
        let named = *named;
        let paths = if is_pattern(path) { expand(path) } else { vec![path.clone()] };
        for path in paths {
            let identity = FileIdentity::of(&path).ok();
            let fresh = match identity {
                Some(identity) => seen.insert(identity),
                None => named,
            };
            let usable = named || std::fs::metadata(&path).is_ok_and(|found| is_disk(&found.file_type()));
            if fresh && usable {
                found.push(Found { path, identity });
            }
        }
    }
    found
}

fn is_disk(kind: &std::fs::FileType) -> bool {
    kind.is_file() || kind.is_block_device()
}

/// Whether a configured path stands for all that match.
pub(crate) fn is_pattern(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'))
}

/// The paths that match, sorted. Partitions (`…-part1`) match only a pattern that names `-part`.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let partitions = pattern.to_string_lossy().contains("-part");
    let mut paths = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = component.as_os_str();
        if !is_pattern(Path::new(name)) {
            paths.iter_mut().for_each(|path| path.push(name));
            continue;
        }
        let name = name.to_string_lossy();
        let mut next = Vec::new();
        for folder in &paths {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let names = entries.take(MAX_ENTRIES).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            next.extend(names.filter(|entry| matches(&name, entry)).map(|entry| folder.join(entry)));
        }
        next.sort();
        paths = next;
    }
    paths.retain(|path| partitions || !is_partition(path));
    paths
}

fn is_partition(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit_once("-part")
        .is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                // The last star takes one character more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Why a configured path may name another disk after the next start: `/dev/sdb` and the like are given in the order in
/// which disks are found.
pub(crate) fn unstable(path: &Path) -> Option<String> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?;
    let kernel_name = ["sd", "hd", "vd", "xvd", "nvme"].iter().any(|prefix| name.starts_with(prefix));
    (kernel_name && !name.contains('/')).then(|| {
        let better = stable_name(path).map_or_else(
            || "a name under /dev/disk/by-id/wwn-* or /dev/disk/by-path".to_owned(),
            |stable| stable.display().to_string(),
        );
        format!("{} may name another disk after the next start; configure {better} instead", path.display())
    })
}

/// A name of the same device that stays: by its WWN, else by its serial, else by its place.
fn stable_name(path: &Path) -> Option<PathBuf> {
    let identity = FileIdentity::of(path).ok()?;
    ["/dev/disk/by-id/wwn-*", "/dev/disk/by-id/*", "/dev/disk/by-path/*"]
        .iter()
        .flat_map(|pattern| expand(Path::new(pattern)))
        .find(|name| FileIdentity::of(name).is_ok_and(|found| found == identity))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{expand, find, matches, unstable, wanted};
    use crate::DiskPath;

    #[test]
    fn stars_and_question_marks_match_within_a_name() {
        for (pattern, name, expected) in [
            ("wwn-*", "wwn-0x5000", true),
            ("wwn-*", "ata-0x5000", false),
            ("*-lun-?", "pci-0000:03:00.0-sas-phy7-lun-0", true),
            ("*-lun-?", "pci-lun-10", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("*", "", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_finds_each_disk_once_and_no_partitions_or_folders() {
        // Its own folder within its own: a pattern goes through the outer one.
        let outer = tempfile::tempdir().unwrap();
        let at = |name: &str| outer.path().join("disks").join(name);
        std::fs::create_dir(outer.path().join("disks")).unwrap();
        for name in ["disk-b", "disk-a", "other", "disk-a-part1"] {
            std::fs::write(at(name), []).unwrap();
        }
        std::fs::create_dir(at("disk-folder")).unwrap();
        std::os::unix::fs::symlink(at("disk-a"), at("disk-z")).unwrap();
        std::os::unix::fs::symlink(at("nowhere"), at("disk-y")).unwrap();
        let configured = ["disk-*", "disk-a", "missing"].map(|name| DiskPath { path: at(name) });
        let found = find(&wanted(&configured, None));
        let told: Vec<(PathBuf, bool)> = found.into_iter().map(|f| (f.path, f.identity.is_some())).collect();
        assert_eq!(told, [(at("disk-a"), true), (at("disk-b"), true), (at("missing"), false)]);
        assert_eq!(expand(&at("disk-a-part*")), [at("disk-a-part1")]);
        assert_eq!(expand(&outer.path().join("*").join("oth?r")), [at("other")]);
    }

    #[test]
    fn names_that_the_kernel_deals_out_anew_are_told() {
        for bad in ["/dev/sdb", "/dev/nvme0n1", "/dev/vda"] {
            assert!(unstable(Path::new(bad)).is_some_and(|why| why.contains("/dev/disk/by-")), "{bad}");
        }
        for good in ["/dev/disk/by-id/wwn-0x5", "/dev/disk/by-path/*", "/srv/disks/sda", "/dev/loop3"] {
            assert_eq!(unstable(Path::new(good)), None);
        }
    }
}
