//! The profiles that come with Holdfast, and those that the operator adds.

use std::path::Path;

use crate::error::HardwareError;
use crate::load;
use crate::profile::Profile;

/// Name and text of each shipped profile.
pub const SHIPPED: [(&str, &str); 8] = [
    ("dense-4u-102", include_str!("../chassis/dense-4u-102.toml")),
    ("dense-4u-102-smr", include_str!("../chassis/dense-4u-102-smr.toml")),
    ("server-2u-12-expander", include_str!("../chassis/server-2u-12-expander.toml")),
    ("server-2u-12-direct", include_str!("../chassis/server-2u-12-direct.toml")),
    ("server-2u-12-sata", include_str!("../chassis/server-2u-12-sata.toml")),
    ("nvme", include_str!("../chassis/nvme.toml")),
    ("nvme-zns", include_str!("../chassis/nvme-zns.toml")),
    ("dev-file", include_str!("../chassis/dev-file.toml")),
];

/// The shipped profiles, and those of `folder` (`*.toml`), which win over shipped ones of the same name.
///
/// # Errors
/// The first profile that is wrong, and two of one name in `folder`.
pub fn all(folder: Option<&Path>) -> Result<Vec<Profile>, HardwareError> {
    let mut profiles = Vec::new();
    if let Some(folder) = folder {
        let failed = |source| HardwareError::Io { path: folder.to_owned(), what: "cannot be read", source };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            }
        }
        files.sort();
        for path in files {
            let profile = load::file(&path)?;
            if let Some(other) = find(&profiles, &profile.name) {
                let detail = format!("{} is called `{}` too", other.file, profile.name);
                return Err(HardwareError::Invalid { file: profile.file, line: 1, column: 1, detail });
            }
            profiles.push(profile);
        }
    }
    for (name, text) in SHIPPED {
        if find(&profiles, name).is_none() {
            let mut profile = load::parse(text, &format!("{name}.toml (shipped)"))?;
            profile.shipped = true;
            profiles.push(profile);
        }
    }
    Ok(profiles)
}

fn find<'a>(profiles: &'a [Profile], name: &str) -> Option<&'a Profile> {
    profiles.iter().find(|profile| profile.name == name)
}

/// The profile called `name`, or, when `name` has a `/` or ends in `.toml`, the one in that file.
///
/// # Errors
/// [`HardwareError::UnknownProfile`] with the nearest name, and those of [`all`].
pub fn named(name: &str, folder: Option<&Path>) -> Result<Profile, HardwareError> {
    if name.contains('/') || name.ends_with(".toml") {
        return load::file(Path::new(name));
    }
    let profiles = all(folder)?;
    if let Some(profile) = find(&profiles, name) {
        return Ok(profile.clone());
    }
    let known: Vec<&str> = profiles.iter().map(|profile| profile.name.as_str()).collect();
    let nearest = load::nearest(name, known.iter().copied()).map(|nearest| format!(" (did you mean `{nearest}`?)"));
    let is_folder = Path::new(name).is_dir().then(|| " (it is a folder: --profiles takes that)".to_owned());
    let nearest = is_folder.or(nearest).unwrap_or_default();
    Err(HardwareError::UnknownProfile { name: name.to_owned(), nearest, known: known.join(", ") })
}
