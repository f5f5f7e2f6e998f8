//! Metadata documents, and `get_metadata`.

use std::sync::Arc;

use axum::extract::State;
use holdfast_metadata_model::{Kind, Revision, Timestamp, content_hash, key};
use holdfast_metadata_store::{ListedItem, PathEntry};
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use super::arg::{Answer, Caller, Rpc};
use super::error::{ApiFailure, lookup};
use super::path::{Takes, id_text, parse};
use crate::app::App;

const TIME: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// The first and last second that API v2's form of a time can say.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

/// Unix seconds as `%Y-%m-%dT%H:%M:%SZ`; times that this cannot say become the nearest it can.
pub(super) fn time_text(secs: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(secs.clamp(FIRST_SECOND, LAST_SECOND));
    moment.ok().and_then(|moment| moment.format(TIME).ok()).unwrap_or_default()
}

/// Reads such a time.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let moment = PrimitiveDateTime::parse(text, TIME).ok()?.assume_utc();
    Some(Timestamp { secs: moment.unix_timestamp(), nanos: 0 })
}

fn path_lower(path: &str) -> String {
    path.split('/').map(key).collect::<Vec<_>>().join("/")
}

/// A file, link or folder at one of its revisions, with its tag.
pub(super) fn document(entry: &PathEntry, revision: &Revision) -> Value {
    let content = &revision.content;
    let tag = if content.kind == Kind::Folder { "folder" } else { "file" };
    let mut document = json!({
        ".tag": tag,
        "name": entry.state.name,
        "path_lower": path_lower(&entry.path),
        "path_display": entry.path,
        "id": id_text(entry.state.id),
    });
    if content.kind == Kind::Folder {
        return document;
    }
    let server_secs = revision.at_ms.div_euclid(1000);
    let client_secs = content.mtime.map_or(server_secs, |mtime| mtime.secs);
    document["client_modified"] = time_text(client_secs).into();
    document["server_modified"] = time_text(server_secs).into();
    document["rev"] = revision.rev.to_string().into();
    document["size"] = content.size.into();
    document["is_downloadable"] = (content.kind == Kind::File).into();
    match &content.target {
        Some(target) => document["symlink_info"] = json!({ "target": target }),
        None => document["content_hash"] = hex::encode(content_hash(&content.blocks)).into(),
    }
    document
}

/// An entry at its newest revision, with its tag.
pub(super) fn newest(entry: &PathEntry) -> Value {
    document(entry, &entry.state.revision)
}

/// A document where only one kind is possible: without its tag.
pub(super) fn untagged(mut document: Value) -> Value {
    if let Some(fields) = document.as_object_mut() {
        fields.remove(".tag");
    }
    document
}

/// Nothing is here any more.
pub(super) fn deleted(name: &str, path: &str) -> Value {
    json!({ ".tag": "deleted", "name": name, "path_lower": path_lower(path), "path_display": path })
}

pub(super) fn listed(item: &ListedItem) -> Value {
    match item {
        ListedItem::There(entry) => newest(entry),
        ListedItem::Gone { name, path } => deleted(name, path),
    }
}

#[derive(Deserialize)]
pub(super) struct GetMetadataArg {
    path: String,
    #[serde(default)]
    include_deleted: bool,
}

pub(super) async fn get_metadata(
    State(app): State<Arc<App>>,
    Caller(actor): Caller,
    Rpc(arg): Rpc<GetMetadataArg>,
) -> Result<Answer<Value>, ApiFailure> {
    let path = parse(&arg.path, Takes::Reading).map_err(|error| error.told("path"))?;
    let found = app.store.at(actor, path, arg.include_deleted).await?;
    let found = found.map_err(|failure| ApiFailure::nested("path", lookup(failure)))?;
    let state = &found.entry.state;
    if state.deleted {
        return Ok(Answer(deleted(&state.name, &found.entry.path)));
    }
    Ok(Answer(document(&found.entry, &found.revision)))
}

#[cfg(test)]
mod tests {
    use super::{parse_time, path_lower, time_text};

    #[test]
    fn times_are_whole_seconds_within_what_the_form_can_say() {
        assert_eq!(time_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59Z");
        assert_eq!(time_text(i64::MAX), "9999-12-31T23:59:59Z");
        assert_eq!(time_text(i64::MIN), "0001-01-01T00:00:00Z");
        assert_eq!(parse_time("1969-12-31T23:59:59Z").map(|time| time.secs), Some(-1));
        for bad in ["", "2020-01-01", "2020-13-01T00:00:00Z", "2020-01-01T00:00:00+01:00"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn lower_paths_are_those_of_the_keys() {
        assert_eq!(path_lower("/Maße/A\u{30a}.TXT"), "/maße/å.txt");
    }
}
