//! The parsers of API v2's arguments, for `tests/fuzz`. No part of the API of this crate.

use super::path::{Takes, parse};
use super::upload::CommitInfo;
use super::{download, list, longpoll, metadata, mutate, revisions, session, upload};
use crate::seal::Sealer;

/// Reads `bytes` as the argument of every function; the paths, times and revisions in it, too.
///
/// # Errors
/// Why it is the argument of none.
pub fn argument(bytes: &[u8]) -> Result<(), String> {
    fn reads<T: serde::de::DeserializeOwned>(bytes: &[u8], taken: &mut u32, refused: &mut String) -> Option<T> {
        serde_json::from_slice(bytes).inspect(|_| *taken += 1).map_err(|error| *refused = error.to_string()).ok()
    }
    let (mut taken, mut refused) = (0, String::new());
    reads::<download::DownloadArg>(bytes, &mut taken, &mut refused);
    reads::<list::ListFolderArg>(bytes, &mut taken, &mut refused);
    reads::<list::CursorArg>(bytes, &mut taken, &mut refused);
    reads::<longpoll::LongpollArg>(bytes, &mut taken, &mut refused);
    reads::<metadata::GetMetadataArg>(bytes, &mut taken, &mut refused);
    reads::<mutate::CreateFolderArg>(bytes, &mut taken, &mut refused);
    reads::<mutate::DeleteArg>(bytes, &mut taken, &mut refused);
    reads::<mutate::RelocationArg>(bytes, &mut taken, &mut refused);
    reads::<revisions::ListRevisionsArg>(bytes, &mut taken, &mut refused);
    reads::<revisions::RestoreArg>(bytes, &mut taken, &mut refused);
    reads::<session::StartArg>(bytes, &mut taken, &mut refused);
    reads::<session::AppendArg>(bytes, &mut taken, &mut refused);
    reads::<session::FinishArg>(bytes, &mut taken, &mut refused);
    reads::<upload::UploadArg>(bytes, &mut taken, &mut refused);
    if let Some(commit) = reads::<CommitInfo>(bytes, &mut taken, &mut refused) {
        // Whether it is understood or refused, it does not panic.
        let _ = commit.understand(super::error::ApiFailure::Route);
    }
    if taken > 0 { Ok(()) } else { Err(refused) }
}

/// Reads a text as a path of every form, as a time, and as a revision.
///
/// # Errors
/// Why it is none of them.
pub fn text(text: &str) -> Result<(), String> {
    let paths = [Takes::Folders, Takes::Reading, Takes::Ids, Takes::Plain].map(|takes| parse(text, takes));
    let time = metadata::parse_time(text).map(|time| metadata::time_text(time.secs));
    let rev = mutate::parse_rev("rev", text);
    let taken = paths.iter().any(Result::is_ok) || time.is_some() || rev.is_ok();
    match paths.into_iter().find_map(Result::err) {
        Some(error) if !taken => Err(format!("{error:?}")),
        _ => Ok(()),
    }
}

/// Opens a sealed cursor.
///
/// # Errors
/// When it is none.
pub fn cursor(text: &str, key: &[u8; 32]) -> Result<(), String> {
    let sealer = Sealer::new(key);
    let Some(cursor) = sealer.open(text) else { return Err("no cursor".to_owned()) };
    assert_eq!(sealer.open(&sealer.seal(&cursor)).as_ref(), Some(&cursor), "a cursor opens as what was sealed");
    Ok(())
}
