//! Between the messages of `/v1` and the types of the model.

use holdfast_metadata_client as wire;
use holdfast_metadata_model::{BlockRef, Content, ContentError, EntryId, EntryState, Kind, Refusal, Rev, Timestamp};
use holdfast_metadata_store::{BatchItem, BatchParent, BatchWish, ItemAnswer, ItemOutcome};

/// SQLite counts to here; no id that was given out is larger.
const MAX_NUMBER: u64 = i64::MAX as u64;

pub(super) fn entry(state: &EntryState) -> wire::Entry {
    let content = &state.revision.content;
    wire::Entry {
        id: wire::EntryId(state.id.0),
        parent: wire::EntryId(state.parent.0),
        name: state.name.clone(),
        exact_name: state.exact_name.clone(),
        kind: match content.kind {
            Kind::File => wire::Kind::File,
            Kind::Folder => wire::Kind::Folder,
            Kind::Symlink => wire::Kind::Symlink,
        },
        rev: state.revision.rev.to_string(),
        sequence: state.sequence,
        deleted: state.deleted,
        size: content.size,
        blocks: content.blocks.iter().map(|block| wire::BlockRef { hash: block.hash, length: block.length }).collect(),
        mtime: content.mtime.map(|time| wire::Timestamp { secs: time.secs, nanos: time.nanos }),
        executable: content.executable,
        target: content.target.clone(),
    }
}

/// The text of an item's answer.
pub(super) fn render(answer: &ItemAnswer<'_>) -> String {
    let refused =
        |code: &str, message: String, missing| wire::Outcome::Refused { code: code.to_owned(), message, missing };
    let outcome = match answer.outcome {
        ItemOutcome::Applied(state) => wire::Outcome::Applied { entry: entry(state) },
        ItemOutcome::Merged(state) => wire::Outcome::Merged { entry: entry(state) },
        ItemOutcome::ConflictCopy { stands, copy } => {
            wire::Outcome::ConflictCopy { entry: entry(stands), copy: entry(copy) }
        }
        ItemOutcome::Refused(refusal) => refused(refusal.code(), refusal.to_string(), Vec::new()),
        ItemOutcome::NeedBlocks(missing) => {
            let message = format!("{} blocks are missing: deliver them and send their receipts", missing.len());
            refused(wire::code::NEED_BLOCKS, message, missing.clone())
        }
        ItemOutcome::NoSpace { quota } => {
            let message = format!("the account's {quota} bytes are full: delete something or ask for more room");
            refused(wire::code::NO_SPACE, message, Vec::new())
        }
    };
    let result = wire::ItemResult { op: answer.op, outcome };
    serde_json::to_string(&result).unwrap_or_default()
}

pub(super) fn item(item: wire::CommitItem) -> BatchItem {
    let wish = wish(item.change).unwrap_or_else(BatchWish::Impossible);
    BatchItem { op: item.op, wish }
}

fn wish(change: wire::Change) -> Result<BatchWish, Refusal> {
    Ok(match change {
        wire::Change::PutFile { at, base, size, blocks, mtime, executable } => {
            let blocks = blocks.iter().map(|block| BlockRef { hash: block.hash, length: block.length }).collect();
            let content = Content::file(size, blocks, timestamp(mtime), executable).map_err(impossible)?;
            put(at, base, content)?
        }
        wire::Change::PutSymlink { at, base, target, mtime } => {
            put(at, base, Content::symlink(target, timestamp(mtime)).map_err(impossible)?)?
        }
        wire::Change::MakeFolder { parent: folder, name } => BatchWish::MakeFolder { parent: parent(folder)?, name },
        wire::Change::Move { entry, parent: folder, name } => {
            BatchWish::Move { entry: id(entry)?, parent: parent(folder)?, name }
        }
        wire::Change::Delete { entry, known_sequence } => {
            BatchWish::Delete { entry: id(entry)?, known_sequence: known_sequence.min(MAX_NUMBER) }
        }
    })
}

fn put(at: wire::Place, base: Option<String>, content: Content) -> Result<BatchWish, Refusal> {
    let base = base.as_deref().map(rev).transpose()?;
    Ok(match at {
        wire::Place::Entry(entry) => BatchWish::PutOnto { entry: id(entry)?, base, content },
        wire::Place::Name { parent: folder, name } => {
            BatchWish::PutNamed { parent: parent(folder)?, name, base, content }
        }
    })
}

fn rev(text: &str) -> Result<Rev, Refusal> {
    text.parse().map_err(|error| Refusal::InvalidItem(format!("base {text:?}: {error}")))
}

fn impossible(error: ContentError) -> Refusal {
    Refusal::InvalidItem(error.to_string())
}

fn timestamp(time: wire::Timestamp) -> Timestamp {
    Timestamp { secs: time.secs, nanos: time.nanos }
}

fn id(id: wire::EntryId) -> Result<EntryId, Refusal> {
    if id.0 > MAX_NUMBER {
        return Err(Refusal::NotFound(format!("no entry {} in this namespace", id.0)));
    }
    Ok(EntryId(id.0))
}

fn parent(parent: wire::Parent) -> Result<BatchParent, Refusal> {
    Ok(match parent {
        wire::Parent::Entry(entry) => BatchParent::Entry(id(entry)?),
        wire::Parent::Op(op) if op > MAX_NUMBER => return Err(Refusal::NotFound(format!("no op {op}"))),
        wire::Parent::Op(op) => BatchParent::Op(op),
    })
}
