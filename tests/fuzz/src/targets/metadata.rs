//! The metadata tier: messages of `/v1`, arguments of API v2, cursors, versions, lists of blocks, names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_libs_crypto::MacKey;
use holdfast_libs_types::{AccountId, DeviceId};
use holdfast_metadata_model::{
    Content, Cursor, EntryId, NamespaceId, Position, Rev, Scope, VersionVector, autorename, case_conflict_name,
    check_name, conflict_copy_name, key, lowercase,
};
use holdfast_metadata_server::fuzz;

use super::{of_bytes, of_text};
use crate::driver::{Outcome, Target};
use crate::reads_as;

const SEAL_KEY: [u8; 32] = [6; 32];

pub fn targets() -> Vec<Target> {
    let sealed = cursors().iter().map(|bytes| seal(bytes)).collect();
    vec![
        of_text("metadata-messages", message_samples(), messages),
        of_text("api-v2-arguments", argument_samples(), |text| fuzz::argument(text.as_bytes())),
        of_text("api-v2-texts", text_samples(), fuzz::text),
        of_bytes("cursor", cursors(), cursor),
        Target {
            repair: Box::new(seal_again),
            ..of_text("sealed-cursor", sealed, |text| fuzz::cursor(text, &SEAL_KEY))
        },
        of_bytes("version-vector", version_vectors(), version_vector),
        of_bytes("block-list", vec![vec![7; 36 * 3], Vec::new()], block_list),
        Target { most_bytes: 2048, ..of_text("names", name_samples(), names) },
        of_text("revision", vec![Rev(1).to_string(), Rev(u64::MAX).to_string()], revision),
    ]
}

fn messages(text: &str) -> Outcome {
    use holdfast_metadata_client as metadata;
    reads_as!(
        text.as_bytes(),
        metadata::CommitRequest,
        metadata::CommitAnswer,
        metadata::ChangesRequest,
        metadata::Changes,
        metadata::UploadPlan,
        metadata::DownloadPlan,
        metadata::Login,
        metadata::LoginAnswer,
        metadata::Me,
        metadata::CreateUser,
    )
}

fn message_samples() -> Vec<String> {
    let hash = "0123456789abcdef".repeat(4);
    let id = "0123456789abcdef".repeat(2);
    let entry = format!(
        r#"{{"id":1,"parent":0,"name":"a","exact_name":"A","kind":"file","rev":"000000001","sequence":3,"deleted":true,"size":4,"blocks":[{{"hash":"{hash}","length":4}}],"mtime":{{"secs":1,"nanos":2}},"executable":true,"target":"t"}}"#
    );
    vec![
        format!(
            r#"{{"namespace":1,"items":[{{"op":1,"change":{{"kind":"put_file","at":{{"name":{{"parent":{{"op":2}},"name":"a"}}}},"base":null,"size":4,"blocks":[{{"hash":"{hash}","length":4}}],"mtime":{{"secs":1,"nanos":2}},"executable":false}}}},{{"op":2,"change":{{"kind":"move","entry":3,"parent":{{"entry":0}},"name":"b"}}}},{{"op":3,"change":{{"kind":"delete","entry":3,"known_sequence":9}}}},{{"op":4,"change":{{"kind":"put_symlink","at":{{"entry":5}},"base":"000000001","target":"t","mtime":{{"secs":-1,"nanos":0}}}}}},{{"op":5,"change":{{"kind":"make_folder","parent":{{"entry":0}},"name":"c"}}}}],"receipts":["r"],"acknowledged_op":0}}"#
        ),
        format!(
            r#"{{"results":[{{"op":1,"result":"conflict_copy","entry":{entry},"copy":{entry}}},{{"op":2,"result":"refused","code":"need_blocks","message":"m","missing":["{hash}"]}}],"sequence":7}}"#
        ),
        format!(
            r#"{{"namespace":1,"cursor":"c","limit":100,"wait_ms":5,"entries":[{entry}],"sequence":7,"has_more":false,"reset":true}}"#
        ),
        format!(r#"{{"entries":[{entry}],"cursor":"c","sequence":7,"has_more":false}}"#),
        format!(
            r#"{{"single":[{{"hash":"{hash}","url":"https://a/b?c"}}],"lists":[{{"hashes":["{hash}"],"url":"u"}}],"refused":["{hash}"]}}"#
        ),
        format!(
            r#"{{"user":"u","password":"p","device_name":"d","device":1,"token":"t","account":"{id}","namespace":2}}"#
        ),
    ]
}

fn argument_samples() -> Vec<String> {
    [
        r#"{"path":"/a/b.txt","mode":{".tag":"update","update":"000000001"},"autorename":true,"client_modified":"2024-02-29T12:34:56Z","strict_conflict":true,"content_hash":"00"}"#,
        r#"{"cursor":{"session_id":"0123456789abcdef0123456789abcdef","offset":5},"commit":{"path":"/a","mode":"overwrite"},"close":true}"#,
        r#"{"path":"","recursive":true,"include_deleted":true,"limit":2000,"shared_link":null}"#,
        r#"{"cursor":"abc","timeout":30}"#,
        r#"{"from_path":"/a","to_path":"id:x","autorename":false}"#,
        r#"{"path":"rev:000000001","rev":"000000001","parent_rev":"000000001","before_rev":"000000002"}"#,
        r#"{"session_type":{".tag":"sequential"},"close":false}"#,
    ]
    .map(str::to_owned)
    .to_vec()
}

fn text_samples() -> Vec<String> {
    [
        "/a/b",
        "id:AAAAAAAAAAAAAAAAAAAAAA/x",
        "rev:000000001",
        "",
        "2024-02-29T12:34:56Z",
        "000000001",
        "/\u{e9}\u{301}/..",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn cursors() -> Vec<Vec<u8>> {
    let cursor = |scope, position| Cursor {
        account: AccountId([1; 16]),
        device: DeviceId(2),
        namespace: NamespaceId(3),
        scope,
        sequence: 4,
        hash: [5; 32],
        position,
    };
    let folder = Scope::Folder { folder: EntryId(9), recursive: true, include_deleted: true, limit: 100 };
    vec![
        cursor(Scope::Namespace, Position::Replay).encode(),
        cursor(Scope::Namespace, Position::ById { after: EntryId(7) }).encode(),
        cursor(folder, Position::ByKey { after: Some("k\u{e9}y".to_owned()) }).encode(),
        cursor(folder, Position::ByKey { after: None }).encode(),
        cursor(folder, Position::Below { folder: EntryId(1), after: EntryId(2) }).encode(),
    ]
}

fn cursor(bytes: &[u8]) -> Outcome {
    let found = Cursor::decode(bytes).map_err(|error| error.to_string())?;
    assert_eq!(Cursor::decode(&found.encode()).as_ref(), Ok(&found), "what was read encodes to the same");
    Ok(())
}

fn seal(body: &[u8]) -> String {
    let tag = MacKey::new(&SEAL_KEY).sign(&[b"holdfast cursor v1\0", body].concat());
    URL_SAFE_NO_PAD.encode([body, &tag].concat())
}

fn seal_again(bytes: &mut Vec<u8>) {
    let Ok(decoded) = URL_SAFE_NO_PAD.decode(&*bytes) else { return };
    if let Some(len) = decoded.len().checked_sub(32) {
        *bytes = seal(&decoded[..len]).into_bytes();
    }
}

fn version_vectors() -> Vec<Vec<u8>> {
    let vector = (1..5).fold(VersionVector::new(), |vector, n| vector.raised(DeviceId(n), n * 100));
    vec![vector.encode(), Vec::new()]
}

fn version_vector(bytes: &[u8]) -> Outcome {
    let vector = VersionVector::decode(bytes).map_err(|error| error.to_string())?;
    assert_eq!(vector.encode(), bytes, "what was read encodes to the same");
    assert!(vector.covers(&vector));
    Ok(())
}

fn block_list(bytes: &[u8]) -> Outcome {
    let blocks = Content::decode_blocks(bytes).map_err(|error| error.to_string())?;
    assert_eq!(blocks.len() * 36, bytes.len());
    Ok(())
}

fn name_samples() -> Vec<String> {
    [
        "a.txt",
        "Ma\u{df}e",
        "\u{130}stanbul.tar.gz",
        "e\u{301}",
        ".",
        "\u{1F600}.jpg",
        "noext",
        ".hidden",
        "\u{1100}\u{1161}",
    ]
    .map(str::to_owned)
    .into_iter()
    // As long as names may be, of letters of two, three and four bytes.
    .chain(["\u{e9}".repeat(127), "\u{d55c}".repeat(85), "\u{1F600}".repeat(63)])
    .collect()
}

fn names(text: &str) -> Outcome {
    let _ = (key(text), lowercase(text));
    check_name(text).map_err(|error| error.to_string())?;
    for attempt in [0, 1, 99, u32::MAX] {
        for made in [
            autorename(text, attempt),
            case_conflict_name(text, attempt),
            conflict_copy_name(text, "u", "2024-01-01", attempt),
        ] {
            assert!(check_name(&made).is_ok(), "a name made from a name is one: {made:?}");
        }
    }
    Ok(())
}

fn revision(text: &str) -> Outcome {
    let rev: Rev = text.parse().map_err(|error| format!("{error}"))?;
    assert_eq!(rev.to_string().parse::<Rev>().ok(), Some(rev));
    Ok(())
}
