//! Paths: the empty one is the root, others start with `/`, or with `id:` or `rev:`.

use holdfast_metadata_model::{EntryId, NameError, check_name};
use holdfast_metadata_store::PathRef;
use serde_json::{Value, json};

use super::error::ApiFailure;

/// A path that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathError {
    /// 400: not of the form that the function takes.
    Pattern(String),
    /// 409: of that form, but with a name that cannot be.
    Malformed(String),
    /// 409: an id that no entry can have.
    NotFound,
}

/// What a function takes besides `/…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// The root as the empty path, and ids.
    Folders,
    /// Ids and revisions.
    Reading,
    /// Ids.
    Ids,
    /// Nothing else.
    Plain,
}

pub(super) fn parse(path: &str, takes: Takes) -> Result<PathRef, PathError> {
    if path.is_empty() && takes == Takes::Folders {
        return Ok(PathRef::Under(EntryId::ROOT, Vec::new()));
    }
    if let Some(names) = path.strip_prefix('/') {
        if names.is_empty() {
            let hint = if takes == Takes::Folders {
                "Specify the root folder as an empty string rather than as \"/\"."
            } else {
                "The root folder is unsupported."
            };
            return Err(PathError::Pattern(format!("path: {hint}")));
        }
        return Ok(PathRef::Under(EntryId::ROOT, split(names)?));
    }
    if let Some(rest) = path.strip_prefix("id:").filter(|_| takes != Takes::Plain) {
        let (id, names) = match rest.split_once('/') {
            Some((id, names)) => (id, split(names)?),
            None => (rest, Vec::new()),
        };
        return match entry_id(id) {
            Some(id) => Ok(PathRef::Under(id, names)),
            None => Err(PathError::NotFound),
        };
    }
    if let Some(rest) = path.strip_prefix("rev:").filter(|_| takes == Takes::Reading) {
        return rest.parse().map(PathRef::Rev).map_err(|error| PathError::Pattern(format!("path: {error}")));
    }
    let shown: String = path.chars().take(80).collect();
    Err(PathError::Pattern(format!("path: '{shown}' did not match pattern '(/(.|[\\r\\n])*)|(id:.*)'")))
}

fn split(names: &str) -> Result<Vec<String>, PathError> {
    let names: Vec<_> = names.split('/').map(str::to_owned).collect();
    for name in &names {
        check_name(name).map_err(|error: NameError| PathError::Malformed(format!("{name:.40}: {error}")))?;
    }
    Ok(names)
}

/// The text of an entry's id.
pub(super) fn id_text(id: EntryId) -> String {
    format!("id:{:022x}", id.0)
}

fn entry_id(text: &str) -> Option<EntryId> {
    let number = if text.len() == 22 { u64::from_str_radix(text, 16).ok()? } else { return None };
    (number != 0 && i64::try_from(number).is_ok()).then_some(EntryId(number))
}

impl PathError {
    /// As the route tells it, its lookup or write union under `tag`.
    pub fn told(self, tag: &str) -> ApiFailure {
        match self {
            Self::Pattern(message) => ApiFailure::BadInput(message),
            other => ApiFailure::nested(tag, other.union()),
        }
    }

    /// The union's value; a write has no word for "not found".
    pub fn union(&self) -> Value {
        match self {
            Self::NotFound => json!({ ".tag": "not_found" }),
            Self::Pattern(message) | Self::Malformed(message) => {
                json!({ ".tag": "malformed_path", "malformed_path": message })
            }
        }
    }

    /// As [`Self::told`], for unions of failed writes.
    pub fn told_write(self, tag: &str) -> ApiFailure {
        let path = match self {
            Self::NotFound => Self::Malformed("no such id".to_owned()),
            other => other,
        };
        path.told(tag)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_metadata_model::{EntryId, Rev};
    use holdfast_metadata_store::PathRef;

    use super::{PathError, Takes, id_text, parse};

    #[test]
    fn the_forms_of_paths() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let under = |id, path: &[&str]| Ok(PathRef::Under(EntryId(id), names(path)));
        assert_eq!(parse("", Takes::Folders), under(0, &[]));
        assert_eq!(parse("/a/ö b", Takes::Plain), under(0, &["a", "ö b"]));
        let id = id_text(EntryId(31));
        assert!(id.len() > 20);
        assert_eq!(parse(&id, Takes::Ids), under(31, &[]));
        assert_eq!(parse(&format!("{id}/x"), Takes::Ids), under(31, &["x"]));
        assert_eq!(parse("rev:00000000f", Takes::Reading), Ok(PathRef::Rev(Rev(15))));
        assert_eq!(parse("id:zz", Takes::Ids), Err(PathError::NotFound));
    }

    #[test]
    fn impossible_paths_are_told_apart() {
        let pattern = |path, takes| matches!(parse(path, takes), Err(PathError::Pattern(_)));
        assert!(pattern("a", Takes::Folders) && pattern("", Takes::Reading) && pattern("/", Takes::Folders));
        assert!(pattern("rev:00000000f", Takes::Ids) && pattern("id:1", Takes::Plain));
        for bad in ["/a/../b", "/./a", "//a", "/a/", "/nul\0", &format!("/{}", "x".repeat(300))] {
            assert!(matches!(parse(bad, Takes::Plain), Err(PathError::Malformed(_))), "{bad}");
        }
    }
}
