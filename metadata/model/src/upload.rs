//! API v2's `upload`: names without regard to case, write modes, autorename.

use crate::decide::{Decided, checked, copy_spot, first_free, revivals};
use crate::decision::{Decision, Revival, Spot};
use crate::{
    Act, Content, Editor, EntryId, EntryState, Kind, Refusal, Rev, VersionVector, View, autorename, check_name, key,
};

/// What an upload may overwrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadMode {
    /// Nothing.
    Add,
    /// Whatever file is there.
    Overwrite,
    /// The file, if it is still at this revision. `None`: a revision that does not exist.
    Update(Option<Rev>),
}

/// How an upload behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOptions {
    /// What it may overwrite.
    pub mode: UploadMode,
    /// Take another name instead of failing.
    pub autorename: bool,
    /// Equal content is a conflict too.
    pub strict_conflict: bool,
    /// The caller gave a modification time, so a put of equal content still changes something.
    pub explicit_mtime: bool,
}

/// What the upload of `content` to a name does. `Ok(Err(Ok(entry)))` is a conflict with that entry; folders above are
/// live already.
///
/// # Errors
/// As `decide`.
pub fn decide_upload<V: View>(
    view: &V,
    editor: &Editor,
    parent: EntryId,
    name: &str,
    mut content: Content,
    options: &UploadOptions,
) -> Result<Result<Decision, UploadConflict>, V::Error> {
    let vector = VersionVector::new().raised(editor.device, editor.counter);
    let key = key(name);
    let there = view.live_by_key(parent, &key)?.into_iter().find(|entry| crate::key(&entry.name) == key);
    let Some(there) = there else {
        let spot = Spot { parent, name: name.to_owned(), exact_name: None };
        let act = match view.deleted_by_key(parent, &key)?.filter(|entry| !entry.is_folder()) {
            Some(past) => {
                let vector = vector.joined(&past.revision.vector);
                Act::Revise { entry: past.id, content, vector, revived_at: Some(spot) }
            }
            None => Act::Create { spot, content, vector },
        };
        return Ok(Ok(Decision::applied(act)));
    };
    let current = &there.revision;
    if !there.is_folder() {
        let same = content.same_content(&current.content);
        let base = match &options.mode {
            UploadMode::Overwrite => Some(current.vector.clone()),
            UploadMode::Add => None,
            UploadMode::Update(rev) => base_vector(view, *rev, &there)?,
        };
        match base {
            Some(_) if same && !options.explicit_mtime => return Ok(Ok(Decision::keep(there.id))),
            Some(base) => {
                content.executable = content.kind == Kind::File && current.content.executable;
                let vector = base.joined(&vector);
                let act = Act::Revise { entry: there.id, content, vector, revived_at: None };
                return Ok(Ok(Decision::applied(act)));
            }
            None if same && !options.strict_conflict => return Ok(Ok(Decision::keep(there.id))),
            None => {}
        }
    }
    if !options.autorename {
        return Ok(Err(UploadConflict(Box::new(there))));
    }
    let spot = match options.mode {
        UploadMode::Update(_) => copy_spot(view, parent, name, editor)?,
        UploadMode::Add | UploadMode::Overwrite => {
            let name = first_free(view, parent, |attempt| autorename(name, attempt))?;
            Spot { parent, name, exact_name: None }
        }
    };
    Ok(Ok(Decision::applied(Act::Create { spot, content, vector })))
}

/// The entry that stands where an upload wanted to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadConflict(pub Box<EntryState>);

/// The vector of `rev` if an edit that started from it may overwrite the entry as it is.
fn base_vector<V: View>(view: &V, rev: Option<Rev>, there: &EntryState) -> Result<Option<VersionVector>, V::Error> {
    let Some(rev) = rev else { return Ok(None) };
    let base = view.revision(rev)?.filter(|base| base.entry == there.id);
    Ok(base.map(|base| base.vector).filter(|vector| vector.covers(&there.revision.vector)))
}

/// Makes sure that a folder lives, reviving what is above it.
///
/// # Errors
/// As `decide`.
pub fn decide_live_folder<V: View>(view: &V, folder: EntryId) -> Result<Result<Vec<Revival>, Refusal>, V::Error> {
    revivals(view, None, folder)
}

/// A folder at a free name.
///
/// # Errors
/// As `decide`.
pub fn decide_new_folder<V: View>(view: &V, editor: &Editor, parent: EntryId, name: &str) -> Decided<V> {
    checked!(check_name(name));
    let vector = VersionVector::new().raised(editor.device, editor.counter);
    let spot = Spot { parent, name: name.to_owned(), exact_name: None };
    let past = view.deleted_by_key(parent, &key(name))?.filter(EntryState::is_folder);
    let content = Content::folder();
    let act = match past {
        Some(past) => {
            let vector = vector.joined(&past.revision.vector);
            Act::Revise { entry: past.id, content, vector, revived_at: Some(spot) }
        }
        None => Act::Create { spot, content, vector },
    };
    Ok(Ok(Decision::applied(act)))
}
