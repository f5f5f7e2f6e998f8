//! What a commit's item does. See the table in `docs/protocols.md`, "Commit".

use holdfast_libs_types::DeviceId;

use crate::decision::{Act, Answer, Base, Decision, Displacement, Editor, Location, Revival, Spot, Wish};
use crate::{
    Content, EntryId, EntryState, Kind, Refusal, Revision, Timestamp, VersionVector, View, case_conflict_name,
    check_name, conflict_copy_name, key, path_ids,
};

/// A decision, or why there is none, or why reading failed.
pub type Decided<V> = Result<Result<Decision, Refusal>, <V as View>::Error>;

macro_rules! refuse {
    ($kind:ident, $($message:tt)*) => { return Ok(Err(Refusal::$kind(format!($($message)*)))) };
}

/// Gives back the value, or answers the refusal.
macro_rules! checked {
    ($value:expr) => {
        match $value {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal.into())),
        }
    };
}
pub(crate) use checked;

/// What `wish` does to the namespace.
///
/// # Errors
/// The inner error is the refusal; the outer one says that reading failed.
pub fn decide<V: View>(view: &V, editor: &Editor, wish: Wish) -> Decided<V> {
    match wish {
        Wish::Put { at, base, content } => decide_put(view, editor, at, base, content),
        Wish::MakeFolder { parent, name } => decide_make_folder(view, editor, parent, &name),
        Wish::Move { entry, parent, name } => decide_move(view, editor, entry, parent, &name),
        Wish::Delete { entry, known_sequence } => decide_delete(view, editor, entry, known_sequence),
    }
}

/// A file or link is written.
///
/// # Errors
/// See [`decide`].
pub fn decide_put<V: View>(view: &V, editor: &Editor, at: Location, base: Base, content: Content) -> Decided<V> {
    let base = match base {
        None => None,
        Some(rev) => match view.revision(rev)? {
            Some(revision) => Some(revision),
            None => refuse!(InvalidItem, "base {rev}: no such revision in this namespace"),
        },
    };
    let vector = base.as_ref().map(|base| base.vector.clone()).unwrap_or_default();
    let vector = vector.raised(editor.device, editor.counter);
    let (entry, name) = match (at, &base) {
        (Location::Entry(id), base) => {
            if let Some(base) = base.as_ref().filter(|base| base.entry != id) {
                refuse!(InvalidItem, "base {} is a revision of entry {}, not of {}", base.rev, base.entry.0, id.0);
            }
            (view.entry(id)?, None)
        }
        // The device edited what the revision belongs to, wherever that was moved meanwhile.
        (Location::Name { name, .. }, Some(base)) => {
            checked!(check_name(&name));
            (view.entry(base.entry)?, Some(name))
        }
        (Location::Name { parent, name }, None) => {
            checked!(check_name(&name));
            match checked!(find(view, parent, &name, Sort::FileOrLink)?) {
                Found::Entry(entry) => (Some(*entry), Some(name)),
                Found::Nothing => return create(view, parent, &name, content, vector),
            }
        }
    };
    let Some(entry) = entry else { refuse!(NotFound, "no such entry in this namespace") };
    if entry.is_folder() {
        if let (Some(name), None) = (name, &base) {
            return conflict_copy(view, editor, &entry, &name, content);
        }
        refuse!(InvalidItem, "entry {} is a folder; a file cannot be written onto it", entry.id.0);
    }
    put_onto(view, editor, entry, name, content, vector, base)
}

/// A put onto an entry that is there or was.
fn put_onto<V: View>(
    view: &V,
    editor: &Editor,
    entry: EntryState,
    name: Option<String>,
    content: Content,
    vector: VersionVector,
    base: Option<Revision>,
) -> Decided<V> {
    let current = &entry.revision;
    if entry.deleted {
        return revive_with(view, editor, &entry, name.as_deref(), content, vector);
    }
    // What counts is what the edit started from: an edit from a revision that the device itself has replaced since (its
    // state was restored) is concurrent too.
    if base.as_ref().is_some_and(|base| base.vector.covers(&current.vector)) {
        if content == current.content {
            return Ok(Ok(Decision::keep(entry.id)));
        }
        return Ok(Ok(Decision::applied(Act::Revise { entry: entry.id, content, vector, revived_at: None })));
    }
    if content.same_content(&current.content) {
        let content = merged_attributes(&current.content, content, base.map(|base| base.content).as_ref());
        let vector = vector.joined(&current.vector);
        let act = Act::Revise { entry: entry.id, content, vector, revived_at: None };
        return Ok(Ok(Decision::new(act, Answer::Merged)));
    }
    let name = name.unwrap_or_else(|| entry.exact_name().to_owned());
    conflict_copy(view, editor, &entry, &name, content)
}

/// Equal bytes, edited on two sides: a changed executable bit wins over an unchanged one, the later time stays.
fn merged_attributes(current: &Content, theirs: Content, base: Option<&Content>) -> Content {
    let executable = match base {
        Some(base) if theirs.executable == base.executable => current.executable,
        Some(_) => theirs.executable,
        None => current.executable || theirs.executable,
    };
    let mtime: Option<Timestamp> = current.mtime.max(theirs.mtime);
    Content { executable, mtime, ..theirs }
}

/// A deleted entry lives again with new content, and so do the folders above it.
pub(crate) fn revive_with<V: View>(
    view: &V,
    editor: &Editor,
    entry: &EntryState,
    name: Option<&str>,
    content: Content,
    vector: VersionVector,
) -> Decided<V> {
    let revive = checked!(revivals(view, Some(editor), entry.parent)?);
    let name = name.unwrap_or_else(|| entry.exact_name());
    let spot = free_spot(view, entry.parent, name, editor)?;
    let vector = vector.joined(&entry.revision.vector);
    let act = Act::Revise { entry: entry.id, content, vector, revived_at: Some(spot) };
    Ok(Ok(Decision { revive, displace: None, act, answer: Answer::Applied }))
}

/// A new entry at a name that no live entry has exactly.
fn create<V: View>(view: &V, parent: EntryId, name: &str, content: Content, vector: VersionVector) -> Decided<V> {
    let revive = checked!(revivals(view, None, parent)?);
    let spot = twin_spot(view, parent, name)?;
    Ok(Ok(Decision { revive, displace: None, act: Act::Create { spot, content, vector }, answer: Answer::Applied }))
}

fn conflict_copy<V: View>(view: &V, editor: &Editor, stands: &EntryState, name: &str, content: Content) -> Decided<V> {
    let spot = copy_spot(view, stands.parent, name, editor)?;
    let vector = VersionVector::new().raised(editor.device, editor.counter);
    Ok(Ok(Decision::new(Act::Create { spot, content, vector }, Answer::ConflictCopy(stands.id))))
}

/// A folder is made; one that is there is taken as it is, a file there gives way.
///
/// # Errors
/// See [`decide`].
pub fn decide_make_folder<V: View>(view: &V, editor: &Editor, parent: EntryId, name: &str) -> Decided<V> {
    checked!(check_name(name));
    let vector = VersionVector::new().raised(editor.device, editor.counter);
    let there = match checked!(find(view, parent, name, Sort::Folder)?) {
        Found::Nothing => return create(view, parent, name, Content::folder(), vector),
        Found::Entry(there) => there,
    };
    if there.deleted {
        return revive_with(view, editor, &there, Some(name), Content::folder(), vector);
    }
    if there.is_folder() {
        return Ok(Ok(Decision::keep(there.id)));
    }
    let displaced = copy_spot(view, parent, there.exact_name(), editor)?;
    let spot = Spot { parent, name: there.name.clone(), exact_name: there.exact_name.clone() };
    let act = Act::Create { spot, content: Content::folder(), vector };
    let displace = Some(Displacement { entry: there.id, spot: displaced });
    Ok(Ok(Decision { revive: Vec::new(), displace, act, answer: Answer::Applied }))
}

/// An entry gets another place; the later of two moves wins.
///
/// # Errors
/// See [`decide`].
pub fn decide_move<V: View>(view: &V, editor: &Editor, id: EntryId, parent: EntryId, name: &str) -> Decided<V> {
    checked!(check_name(name));
    if id == EntryId::ROOT {
        refuse!(InvalidItem, "the root folder cannot be moved");
    }
    let Some(entry) = view.entry(id)?.filter(|entry| !entry.deleted) else {
        refuse!(NotFound, "entry {} is not there to be moved", id.0)
    };
    let revive = checked!(revivals(view, Some(editor), parent)?);
    if path_ids(view, parent)?.iter().any(|above| above.id == id) {
        return Ok(Err(Refusal::Cycle));
    }
    if entry.parent == parent && entry.exact_name() == name {
        return Ok(Ok(Decision::keep(id)));
    }
    let others: Vec<_> = view.live_by_key(parent, &key(name))?.into_iter().filter(|other| other.id != id).collect();
    let spot = if others.iter().any(|other| other.exact_name() == name) {
        copy_spot(view, parent, name, editor)?
    } else if others.iter().any(|other| key(&other.name) == key(name)) {
        twin_spot(view, parent, name)?
    } else {
        Spot { parent, name: name.to_owned(), exact_name: None }
    };
    Ok(Ok(Decision { revive, displace: None, act: Act::Move { entry: id, spot }, answer: Answer::Applied }))
}

/// An entry goes, with all below it that the device knew of.
///
/// # Errors
/// See [`decide`].
pub fn decide_delete<V: View>(view: &V, editor: &Editor, id: EntryId, known: u64) -> Decided<V> {
    if id == EntryId::ROOT {
        refuse!(InvalidItem, "the root folder cannot be deleted");
    }
    let Some(entry) = view.entry(id)? else { refuse!(NotFound, "no entry {} in this namespace", id.0) };
    if entry.deleted {
        return Ok(Ok(Decision::new(Act::Keep(id), Answer::Applied)));
    }
    // A device knows its own changes, whether or not it has heard of them since.
    let unknown = |(sequence, device): (u64, DeviceId)| sequence > known && device != editor.device;
    let top_changed =
        unknown((entry.sequence, entry.device)) || unknown((entry.revision.sequence, entry.revision.device));
    if top_changed {
        return Ok(Ok(Decision::new(Act::Keep(id), Answer::Applied)));
    }
    let below = if entry.kind() == Kind::Folder { view.live_below(id)? } else { Vec::new() };
    // What changed survives with all below it (it may have been moved here, unseen by the device) and all above.
    let mut survives = std::collections::HashSet::new();
    for node in &below {
        if unknown(node.changed) || unknown(node.revised) || survives.contains(&node.parent) {
            survives.insert(node.id);
        }
    }
    for node in below.iter().rev() {
        if survives.contains(&node.id) {
            survives.insert(node.parent);
        }
    }
    let mut gone: Vec<_> = below.iter().rev().map(|node| node.id).filter(|id| !survives.contains(id)).collect();
    if !survives.contains(&id) {
        gone.push(id);
    }
    Ok(Ok(Decision::applied(Act::Delete { entry: id, gone })))
}

/// Which deleted entries a put may bring back: a folder never becomes a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    FileOrLink,
    Folder,
}

enum Found {
    /// The entry a name means: the live one with exactly this name, or (with nothing live there) the deleted one that
    /// stood there last.
    Entry(Box<EntryState>),
    /// No such.
    Nothing,
}

/// What an exact name in a folder means.
fn find<V: View>(view: &V, parent: EntryId, name: &str, sort: Sort) -> Result<Result<Found, Refusal>, V::Error> {
    if parent != EntryId::ROOT {
        match view.entry(parent)? {
            Some(folder) if folder.is_folder() => {}
            Some(_) => refuse!(InvalidItem, "entry {} is not a folder; nothing can be put into it", parent.0),
            None => refuse!(NotFound, "no folder {} in this namespace", parent.0),
        }
    }
    let key = key(name);
    let live = view.live_by_key(parent, &key)?;
    let twin = !live.is_empty();
    if let Some(entry) = live.into_iter().find(|entry| entry.exact_name() == name) {
        return Ok(Ok(Found::Entry(Box::new(entry))));
    }
    if !twin
        && let Some(entry) = view.deleted_by_key(parent, &key)?
        && entry.is_folder() == (sort == Sort::Folder)
    {
        return Ok(Ok(Found::Entry(Box::new(entry))));
    }
    Ok(Ok(Found::Nothing))
}

/// The deleted folders from `folder` up, the topmost first, each with a free place.
pub(crate) fn revivals<V: View>(
    view: &V,
    editor: Option<&Editor>,
    folder: EntryId,
) -> Result<Result<Vec<Revival>, Refusal>, V::Error> {
    let path = path_ids(view, folder)?;
    if folder != EntryId::ROOT && path.is_empty() {
        refuse!(NotFound, "no folder {} in this namespace", folder.0);
    }
    let mut revive = Vec::new();
    for (index, entry) in path.iter().enumerate().rev() {
        if index == 0 && !entry.is_folder() {
            refuse!(InvalidItem, "entry {} is not a folder; nothing can be put into it", entry.id.0);
        }
        if entry.deleted {
            let spot = match editor {
                Some(editor) => free_spot(view, entry.parent, entry.exact_name(), editor)?,
                None => twin_spot(view, entry.parent, entry.exact_name())?,
            };
            revive.push(Revival { folder: entry.id, spot });
        }
    }
    Ok(Ok(revive))
}

/// The name as wished, a case twin's name if only the case is taken, a copy's name if it is taken exactly.
fn free_spot<V: View>(view: &V, parent: EntryId, name: &str, editor: &Editor) -> Result<Spot, V::Error> {
    let live = view.live_by_key(parent, &key(name))?;
    if live.iter().any(|entry| entry.exact_name() == name) {
        return copy_spot(view, parent, name, editor);
    }
    twin_spot(view, parent, name)
}

/// The name as wished, or stored as `name (case conflict)` when its key is taken.
fn twin_spot<V: View>(view: &V, parent: EntryId, name: &str) -> Result<Spot, V::Error> {
    if !view.is_taken(parent, &key(name))? {
        return Ok(Spot { parent, name: name.to_owned(), exact_name: None });
    }
    let stored = first_free(view, parent, |attempt| case_conflict_name(name, attempt))?;
    Ok(Spot { parent, name: stored, exact_name: Some(name.to_owned()) })
}

/// The first free name of a conflicted copy.
pub(crate) fn copy_spot<V: View>(view: &V, parent: EntryId, name: &str, editor: &Editor) -> Result<Spot, V::Error> {
    let name = first_free(view, parent, |attempt| conflict_copy_name(name, &editor.user, &editor.date, attempt))?;
    Ok(Spot { parent, name, exact_name: None })
}

/// The first of a row of names whose key is free, counted from attempt 1.
pub(crate) fn first_free<V: View>(view: &V, parent: EntryId, name: impl Fn(u32) -> String) -> Result<String, V::Error> {
    let mut attempt = 1;
    loop {
        let candidate = name(attempt);
        if !view.is_taken(parent, &key(&candidate))? {
            return Ok(candidate);
        }
        attempt += 1;
    }
}
