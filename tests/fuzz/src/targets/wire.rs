//! What daemons send each other: JSON messages, frames of blocks, signed URLs, receipts, keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use holdfast_frontend_client::{FrontendStatus, ListReceipts, PutAnswer, frames};
use holdfast_libs_crypto::{MasterKey, WrappedKey};
use holdfast_libs_presign::{Grant, Method, Receipt, SigningKeys, Subject};
use holdfast_libs_types::{AccountId, BlockHash, CellId, KeyId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{of_bytes, of_text};
use crate::driver::{Outcome, Target};

/// Reads `bytes` as each of the types; `Ok` when one takes them.
#[macro_export]
macro_rules! reads_as {
    ($bytes:expr, $($type:ty),+ $(,)?) => {{
        let mut outcome = Err(String::new());
        $(
            match $crate::targets::wire::message::<$type>($bytes) {
                Ok(()) => outcome = Ok(()),
                Err(error) => if outcome.is_err() { outcome = Err(error) },
            }
        )+
        outcome
    }};
}

/// What was read is written and read again: the same text.
pub fn message<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Outcome {
    let value: T = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = serde_json::to_string(&value).map_err(|error| format!("cannot be written: {error}"))?;
    let again: T = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).ok(), Some(text), "what was read is written the same again");
    Ok(())
}

const ID: &str = "0123456789abcdef0123456789abcdef";
const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) fn targets() -> Vec<Target> {
    vec![
        of_text("node-messages", node_samples(), node),
        of_text("volume-manager-messages", volume_manager_samples(), volume_manager),
        of_text("frontend-messages", frontend_samples(), frontend),
        Target { most_bytes: 256 << 10, ..of_bytes("frames", frames_samples(), read_frames) },
        Target { repair: Box::new(sign_url), ..of_text("signed-url", signed_urls(), url) },
        Target { repair: Box::new(sign_receipt), ..of_text("receipt", receipts(), receipt) },
        of_text("signing-keys", vec![format!("7:{}\n8:{}\n", "ab".repeat(32), "cd".repeat(32))], |text| {
            SigningKeys::parse(text).map(drop).map_err(|error| error.to_string())
        }),
        of_bytes("wrapped-key", wrapped_keys(), unwrap_key),
    ]
}

fn node(text: &str) -> Outcome {
    use holdfast_node_client as node;
    reads_as!(
        text.as_bytes(),
        node::CreateExtent,
        node::FenceRequest,
        node::Tail,
        node::SealRequest,
        node::Sealed,
        node::CopyRequest,
        node::NodeStatus,
        Vec<node::ExtentInfo>,
        Vec<node::RecordInfo>,
        node::ScrubStatus,
        node::ScrubOrder,
        node::Health,
        node::TrashRequest,
        node::RestoreRequest,
        node::TrashStatus,
        node::KeyringBody,
    )
}

fn node_samples() -> Vec<String> {
    let disk = format!(
        r#"{{"disk":"{ID}","path":"/dev/sdb","state":"read_only","reason":"worn","slot_bytes":1073741824,"slots":100,"free_slots":5,"volume_bytes":1069547520,"io":"io_uring","direct":true,"incarnation":3}}"#
    );
    vec![
        format!(
            r#"{{"disk":"{ID}","volume":"{ID}","epoch":1,"term":2,"length":4096,"digest":"{HASH}","sources":[{{"address":"https://127.0.0.1:1","disk":"{ID}"}}]}}"#
        ),
        r#"{"tail":8192}"#.to_owned(),
        format!(r#"{{"length":8192,"digest":"{HASH}"}}"#),
        format!(r#"{{"node":"node-1","cell":"{ID}","zone":"zone-1","disks":[{disk}]}}"#),
        format!(
            r#"[{{"disk":"{ID}","volume":"{ID}","slot":1,"slot_generation":2,"state":"sealed","epoch":1,"tail":4096,"digest":"{HASH}","note":null}}]"#
        ),
        format!(r#"{{"generation":3,"keys":[["{ID}","{HASH}"]]}}"#),
        format!(r#"[{{"hash":"{HASH}","offset":64,"length":1000,"flags":0}}]"#),
        r#"{"state":"throttled","bytes_per_second":4,"rounds":5,"round_began_s_ago":6,"round_read_bytes":7,"read_bytes":8,"last_round_ended_s_ago":null,"found":9,"repaired":1}"#
            .to_owned(),
        r#"{"action":"pause","bytes_per_second":1000000}"#.to_owned(),
        r#"{"state":"degraded","reasons":["a disk hangs"]}"#.to_owned(),
        format!(r#"{{"disk":"{ID}","volume":"{ID}","slot":1,"slot_generation":2,"term":3,"order":"{ID}"}}"#),
        format!(
            r#"{{"retention_s":1,"uptime_s":2,"erase_alarms":3,"erased":4,"extents":[{{"disk":"{ID}","volume":"{ID}","slot":1,"slot_generation":2,"state":"trashed","epoch":1,"tail":4096,"digest":null,"note":"n","records":3,"trashed_at_s":4,"order":"{ID}"}}]}}"#
        ),
    ]
}

fn volume_manager(text: &str) -> Outcome {
    use holdfast_volume_manager_client as manager;
    reads_as!(
        text.as_bytes(),
        manager::Register,
        manager::RegisterAnswer,
        manager::Heartbeat,
        manager::HeartbeatAnswer,
        manager::LeaseRequest,
        Vec<manager::LeasedVolume>,
        manager::RenewRequest,
        manager::SealAsk,
        manager::SealState,
        manager::VolumeRow,
        manager::CellStatus,
    )
}

fn volume_manager_samples() -> Vec<String> {
    let disk = format!(
        r#"{{"disk":"{ID}","path":"/dev/sdb","incarnation":1,"nonce":2,"previous_nonce":3,"state":"healthy","reason":null,"slot_bytes":4,"volume_bytes":5,"slots":6,"free_slots":7}}"#
    );
    let replica = format!(r#"{{"disk":"{ID}","node":"node-1","zone":"zone-1","address":"https://127.0.0.1:1"}}"#);
    vec![
        format!(
            r#"{{"cell":"{ID}","node":"node-1","instance":"{ID}","zone":"z","address":"https://a:1","disks":[{disk}],"unusable":[{{"path":"/dev/sdc","cause":"clone","reason":"r"}}]}}"#
        ),
        format!(
            r#"{{"disks":[{{"disk":"{ID}","accepted":false,"reason":"clone","retry":true}}],"term":1,"heartbeat_ms":1000}}"#
        ),
        format!(
            r#"{{"disks":[{{"disk":"{ID}","accepted":false,"reason":"clone"}}],"term":1,"heartbeat_ms":1000,"register":true}}"#
        ),
        format!(r#"{{"frontend":"{ID}","avoid":["{ID}"],"volumes":["{ID}"]}}"#),
        format!(r#"[{{"volume":"{ID}","epoch":1,"replicas":[{replica}],"capacity":9,"lease_ms":10000}}]"#),
        format!(
            r#"{{"volume":"{ID}","epoch":1,"failed_disk":"{ID}","reason":"timeout","state":"sealed","length":4096,"digest":"{HASH}","replicas":[{replica}]}}"#
        ),
        format!(
            r#"{{"health":"ok","reasons":["x"],"cell":"{ID}","term":1,"volumes":{{"total":3,"can_lose":{{"0":1,"2":2}}}},"nodes":[{{"node":"n","zone":"z","address":"a","state":"up","last_heartbeat_ms":5}}],"disks":[{{"disk":"{ID}","node":"n","path":"p","state":"healthy","reason":null,"slots":1,"free_slots":1,"slot_bytes":1,"volumes":1}}],"work":[{{"kind":"seal","volume":"{ID}","detail":"d"}}]}}"#
        ),
    ]
}

fn frontend(text: &str) -> Outcome {
    let bytes = text.as_bytes();
    let fails = |error: serde_json::Error| error.to_string();
    let put = serde_json::from_slice::<PutAnswer>(bytes).map(drop).map_err(fails);
    let list = serde_json::from_slice::<ListReceipts>(bytes).map(drop).map_err(fails);
    let status = serde_json::from_slice::<FrontendStatus>(bytes).map(drop).map_err(fails);
    put.or(list).or(status)
}

fn frontend_samples() -> Vec<String> {
    vec![
        r#"{"receipt":"abc","deduplicated":true}"#.to_owned(),
        r#"{"receipts":["abc","def"],"deduplicated":1}"#.to_owned(),
        format!(r#"{{"cell":"{ID}","instance":"{ID}","open_volumes":["{ID}"],"puts":1,"dedup_hits":2}}"#),
    ]
}

fn frames_samples() -> Vec<Vec<u8>> {
    let mut two = BytesMut::new();
    frames::put(&mut two, &BlockHash([1; 32]), Some(b"some bytes"));
    frames::put(&mut two, &BlockHash([2; 32]), None);
    let mut many = BytesMut::new();
    (0..40).for_each(|n| frames::put(&mut many, &BlockHash([n; 32]), Some(&[n; 3])));
    vec![two.to_vec(), many.to_vec(), Vec::new()]
}

fn read_frames(bytes: &[u8]) -> Outcome {
    let found = frames::parse(Bytes::copy_from_slice(bytes), 1000).map_err(|error| error.to_string())?;
    let mut again = BytesMut::new();
    found.iter().for_each(|(hash, block)| frames::put(&mut again, hash, block.as_deref()));
    assert_eq!(again, bytes, "what was read is written the same again");
    Ok(())
}

fn keys() -> SigningKeys {
    SigningKeys::parse(&format!("7:{}", "ab".repeat(32))).unwrap()
}

fn grant() -> Grant {
    Grant {
        cell: CellId([1; 16]),
        method: Method::Put,
        subject: Subject::Block(BlockHash([2; 32])),
        account: AccountId([3; 16]),
        max_bytes: 4096,
        expires: 1000,
    }
}

fn signed_urls() -> Vec<String> {
    let most = Grant { max_bytes: u64::MAX, expires: u64::MAX, ..grant() };
    [grant(), most, Grant { max_bytes: 0, ..grant() }].map(|grant| grant.sign(&keys())).to_vec()
}

fn query(text: &str) -> &str {
    text.split_once('?').map_or(text, |(_, query)| query)
}

/// Signs what the parameters say, as far as they say something.
fn sign_url(bytes: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let value = |name: &str| query(text).split('&').filter_map(|pair| pair.split_once('=')).find(|(k, _)| *k == name);
    let parsed = (
        value("a").and_then(|(_, value)| value.parse().ok()),
        value("l").and_then(|(_, value)| value.parse().ok()),
        value("e").and_then(|(_, value)| value.parse().ok()),
    );
    if let (Some(account), Some(max_bytes), Some(expires)) = parsed {
        let signed = Grant { account, max_bytes, expires, ..grant() }.sign(&keys());
        let tag = signed.rsplit('=').next().unwrap_or_default().to_owned();
        if let Some((before, _)) = text.rsplit_once("&s=") {
            *bytes = format!("{before}&s={tag}").into_bytes();
        }
    }
}

fn url(text: &str) -> Outcome {
    let grant = grant();
    let found = Grant::verify(&keys(), grant.cell, grant.method, grant.subject, query(text), 500);
    let found = found.map_err(|error| error.to_string())?;
    let signed = found.sign(&keys());
    let again = Grant::verify(&keys(), grant.cell, grant.method, grant.subject, query(&signed), 500);
    assert_eq!(again, Ok(found), "what was granted is signed the same again");
    Ok(())
}

fn receipt_of() -> Receipt {
    Receipt { account: AccountId([1; 16]), hash: BlockHash([2; 32]), length: 3, expires: 1000 }
}

/// What is signed has its numbers at their ends too: letters of base64 are changed, which seldom makes such.
fn receipts() -> Vec<String> {
    let most = Receipt { length: u32::MAX, expires: u64::MAX, ..receipt_of() };
    [receipt_of(), most, Receipt { length: 0, ..receipt_of() }].map(|receipt| receipt.sign(&keys())).to_vec()
}

/// Signs the body that the text holds, if it holds one.
fn sign_receipt(bytes: &mut Vec<u8>) {
    let Ok(decoded) = URL_SAFE_NO_PAD.decode(&*bytes) else { return };
    let Some(body) = decoded.get(..64) else { return };
    let array = |from: usize, to: usize| body[from..to].to_vec();
    let receipt = Receipt {
        account: AccountId(array(0, 16).try_into().unwrap()),
        hash: BlockHash(array(16, 48).try_into().unwrap()),
        length: u32::from_be_bytes(array(48, 52).try_into().unwrap()),
        expires: u64::from_be_bytes(array(52, 60).try_into().unwrap()),
    };
    *bytes = receipt.sign(&keys()).into_bytes();
}

fn receipt(text: &str) -> Outcome {
    let found = Receipt::verify(text, &keys(), receipt_of().account, 500).map_err(|error| error.to_string())?;
    assert_eq!(found.sign(&keys()), text, "what counts is signed the same again");
    Ok(())
}

fn wrapped_keys() -> Vec<Vec<u8>> {
    let (_, wrapped) = MasterKey::new(&[9; 32]).unwrap().generate().unwrap();
    vec![[wrapped.id.0.as_slice(), &wrapped.bytes].concat()]
}

fn unwrap_key(bytes: &[u8]) -> Outcome {
    let (id, bytes) = bytes.split_first_chunk::<16>().ok_or("short")?;
    let master = MasterKey::new(&[9; 32]).unwrap();
    master.unwrap(&WrappedKey { id: KeyId(*id), bytes: bytes.to_vec() }).map(drop).map_err(|error| error.to_string())
}
