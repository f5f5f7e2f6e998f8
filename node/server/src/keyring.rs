//! The wrapped keyring in the key area of every disk, so that the disks alone (and the master key) give the data back.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "HFKR"
//!      4     4  version (1)
//!      8     8  generation: grows with every key
//!     16     4  number of keys
//!     20        keys, each: key id (16) | length of the wrapped key u16 | wrapped key
//! ```
//! All integers are little-endian. The engine checksums the key area as a whole.
//!
//! A key that stands on a disk stays there: a catalog that was made again from other disks does not know it, and blocks that are
//! there may be readable with nothing else.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use futures_util::future::join_all;
use holdfast_libs_transport::ApiError;
use holdfast_libs_types::KeyId;
use holdfast_node_client::{KeyArea, KeyringBody, KeyringMissing, KeyringStored, code};
use holdfast_node_engine::{Disk, EngineError};
use http::StatusCode;

use crate::Node;
use crate::metrics::Operation;
use crate::routes::json as message;

const MAGIC: &[u8; 4] = b"HFKR";
const VERSION: u32 = 1;
const GENERATION_AT: usize = 8;

/// `POST /v1/keyring`. A disk that does not take it does not keep the others from it, and is named in the answer.
pub(crate) async fn put(
    State(node): State<Arc<Node>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<KeyringStored>, ApiError> {
    let keyring: KeyringBody = message(body)?;
    // What is wrong with it is told before a disk is asked.
    encode(&keyring)?;
    let disks = node.disks.open();
    let storing = disks.iter().map(|disk| {
        disk.answer(Operation::Keyring, async {
            // What stands there is read before it is written: a keyring between the two would be lost.
            let _alone = disk.keyring.lock().await;
            store(disk.engine(), &keyring).await
        })
    });
    let mut answer = KeyringStored { stored: Vec::new(), missing: Vec::new(), key_areas: Vec::new() };
    for (disk, result) in disks.iter().zip(join_all(storing).await) {
        let disk = disk.id();
        match result {
            Ok(area) => {
                answer.key_areas.push(area);
                match area.is_too_small() {
                    true => answer.missing.push(too_small(&area)),
                    false => answer.stored.push(disk),
                }
            }
            Err(error) => answer.missing.push(KeyringMissing { disk, code: error.code, reason: error.message }),
        }
    }
    Ok(Json(answer))
}

/// `GET /v1/keyring`: all keys that any disk of this node has, those of the newest keyring first.
pub(crate) async fn get(State(node): State<Arc<Node>>) -> Result<Json<KeyringBody>, ApiError> {
    let disks = node.disks.open();
    let reading = disks.iter().map(|disk| disk.answer(Operation::Keyring, disk.engine().read_key_area()));
    let (mut found, mut failure) = (Vec::new(), None);
    for (disk, read) in disks.iter().zip(join_all(reading).await) {
        match read.map(|bytes| bytes.map(|bytes| decode(&bytes))) {
            Ok(None) => {}
            Ok(Some(Ok(keyring))) => found.push(keyring),
            Ok(Some(Err(what))) => {
                tracing::error!(disk = %disk.id(), what, "the keyring on this disk is not one");
                let message = format!("disk {}: its keyring {what}", disk.id());
                failure = Some(ApiError::new(StatusCode::GONE, code::DAMAGED, message));
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(Json(union(found))),
    }
}

/// All keys of several keyrings. Of a key that stands in several, what the newest one has; of equals, the first.
fn union(mut keyrings: Vec<KeyringBody>) -> KeyringBody {
    keyrings.sort_by_key(|keyring| std::cmp::Reverse(keyring.generation));
    let generation = keyrings.first().map_or(0, |keyring| keyring.generation);
    let mut seen = HashSet::new();
    let keys = keyrings.into_iter().flat_map(|keyring| keyring.keys).filter(|(id, _)| seen.insert(id.clone()));
    KeyringBody { generation, keys: keys.collect() }
}

/// A disk whose key area is too small for the keyring.
fn too_small(area: &KeyArea) -> KeyringMissing {
    let KeyArea { keys, used_bytes, most_bytes, .. } = area;
    let reason = format!("its key area is full: {keys} keys take {used_bytes} bytes, and it holds {most_bytes}");
    KeyringMissing { disk: area.disk, code: code::KEY_AREA_FULL.to_owned(), reason }
}

/// Adds to the key area what it lacks; answers how full it is then. Nothing is written when it is too small for
/// that, nor to one that cannot be read or that another version wrote: it may have keys that no other disk has.
async fn store(disk: &Disk, keyring: &KeyringBody) -> Result<KeyArea, EngineError> {
    let foreign = |what: String| EngineError::Io {
        disk: disk.id(),
        what: "reading the keyring",
        source: std::io::Error::other(format!("it {what}")),
    };
    let there = disk.read_key_area().await?.map(|bytes| decode(&bytes)).transpose().map_err(foreign)?;
    let joined = union(there.iter().chain([keyring]).cloned().collect());
    let bytes = encode(&joined).map_err(|error| EngineError::InvalidArgument(error.message))?;
    let area = KeyArea {
        disk: disk.id(),
        keys: joined.keys.len() as u64,
        used_bytes: bytes.len() as u64,
        most_bytes: disk.key_area_bytes(),
    };
    if there.as_ref() != Some(&joined) && !area.is_too_small() {
        disk.write_key_area(bytes).await?;
    }
    Ok(area)
}

fn encode(keyring: &KeyringBody) -> Result<Vec<u8>, ApiError> {
    let bad = |what: String| ApiError::bad_request(format!("keyring: {what}"));
    let count = u32::try_from(keyring.keys.len()).map_err(|_| bad("too many keys".to_owned()))?;
    let mut bytes = Vec::with_capacity(20 + keyring.keys.len() * 80);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&keyring.generation.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    for (id, wrapped) in &keyring.keys {
        let id: KeyId = id.parse().map_err(|error| bad(format!("{error}")))?;
        let wrapped = hex::decode(wrapped).map_err(|_| bad(format!("key {id} is not hex")))?;
        let length = u16::try_from(wrapped.len()).map_err(|_| bad(format!("key {id} is too long")))?;
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&wrapped);
    }
    Ok(bytes)
}

/// Reads what [`encode`] wrote; an error says what is wrong with it.
fn decode(bytes: &[u8]) -> Result<KeyringBody, String> {
    let generation = generation_of(bytes).ok_or("has another magic or version")?;
    let short = || "is cut short".to_owned();
    let mut rest = &bytes[GENERATION_AT + 8..];
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len).ok_or_else(short)?;
        rest = left;
        Ok::<&[u8], String>(taken)
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |number, byte| (number << 8) | usize::from(*byte));
    let count = number(take(4)?);
    let mut keys = Vec::new();
    for _ in 0..count {
        let id = hex::encode(take(16)?);
        let length = number(take(2)?);
        keys.push((id, hex::encode(take(length)?)));
    }
    Ok(KeyringBody { generation, keys })
}

/// The generation of an encoded keyring; `None` when the bytes are none.
fn generation_of(bytes: &[u8]) -> Option<u64> {
    if bytes.get(..4)? != MAGIC || bytes.get(4..GENERATION_AT)? != VERSION.to_le_bytes() {
        return None;
    }
    let generation = bytes.get(GENERATION_AT..GENERATION_AT + 8)?;
    Some(u64::from_le_bytes(generation.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::pin::pin;
    use std::rc::Rc;
    use std::task::{Context, Poll, Waker};

    use holdfast_libs_sim::disk::SimDisk;
    use holdfast_libs_sim::streams::Streams;
    use holdfast_libs_types::CellId;
    use holdfast_node_client::KeyringBody;
    use holdfast_node_engine::simulated::{self, SharedSimDisk, SimulatedDisk};

    use super::{Disk, decode, encode, generation_of, store, union};

    /// A disk with the places of both copies of its keyring, which has one key.
    fn with_a_key() -> (SharedSimDisk, SimulatedDisk, [u64; 2]) {
        let (streams, cell) = (Streams::new(1), CellId([1; 16]));
        let media: SharedSimDisk = Rc::new(RefCell::new(SimDisk::new(256 << 20, &streams)));
        simulated::format(&media, cell, 16 << 20, &mut streams.stream("format"));
        let mut disk = SimulatedDisk::begin_mount(&media, cell, streams.stream("mount")).unwrap();
        while !disk.is_mounted() {
            disk.turn();
        }
        drive(&mut disk, async |disk| store(&disk, &keyring_of(1)).await.unwrap());
        let copies: Vec<u64> =
            (0..2048).map(|page| page * 4096).filter(|at| media.borrow().peek(*at, 4) == *b"HFKA").collect();
        (media, disk, copies.try_into().unwrap())
    }

    /// A keyring of this generation, with one key that no other generation has.
    fn keyring_of(generation: u8) -> KeyringBody {
        let keys = vec![(hex::encode([generation; 16]), "abcd".to_owned())];
        KeyringBody { generation: generation.into(), keys }
    }

    fn drive<T>(disk: &mut SimulatedDisk, work: impl AsyncFnOnce(Disk) -> T) -> T {
        let mut work = pin!(work(disk.handle().clone()));
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return done;
            }
            disk.turn();
        }
    }

    #[test]
    fn a_keyring_that_cannot_be_read_is_not_written_over() {
        let (media, mut disk, [first, second]) = with_a_key();
        // As a crash between the first two writes leaves it.
        media.borrow_mut().write_durable(second, &[0; 8192]);
        media.borrow_mut().make_unreadable(first..first + 1);
        let before = media.borrow().peek(first, 8192);
        let error = drive(&mut disk, async |disk| store(&disk, &keyring_of(2)).await.unwrap_err());
        assert!(error.to_string().contains("cannot be read"), "{error}");
        assert!(media.borrow().peek(first, 8192) == before);
    }

    #[test]
    fn a_keyring_of_another_version_is_not_written_over() {
        let (_, mut disk, _) = with_a_key();
        let of_another_version = || [&b"HFKR"[..], &[2, 0, 0, 0], &[7; 40]].concat();
        drive(&mut disk, async |disk| disk.write_key_area(of_another_version()).await.unwrap());
        let error = drive(&mut disk, async |disk| store(&disk, &keyring_of(2)).await.unwrap_err());
        assert!(error.to_string().contains("has another magic or version"), "{error}");
        assert_eq!(drive(&mut disk, async |disk| disk.read_key_area().await.unwrap()), Some(of_another_version()));
    }

    #[test]
    fn golden_bytes_of_a_keyring() {
        let keyring = KeyringBody { generation: 3, keys: vec![("11".repeat(16), "abcd".to_owned())] };
        let bytes = encode(&keyring).unwrap();
        let golden = format!("48464b5201000000030000000000000001000000{}0200abcd", "11".repeat(16));
        assert_eq!(hex::encode(&bytes), golden);
        assert_eq!(generation_of(&bytes), Some(3));
        assert_eq!(decode(&bytes), Ok(keyring));
        assert_eq!(generation_of(&bytes[..12]), None);
        assert_eq!(generation_of(b"HFKR\x02\0\0\0aaaaaaaa"), None);
    }

    #[test]
    fn a_keyring_that_is_cut_short_is_none() {
        let key = |number: u8| (hex::encode([number; 16]), "abcd".to_owned());
        let bytes = encode(&KeyringBody { generation: 3, keys: vec![key(1), key(2)] }).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        let many = [&bytes[..16], &[0xff; 4], &bytes[20..]].concat();
        assert_eq!(decode(&many).unwrap_err(), "is cut short");
    }

    #[test]
    fn the_keys_of_several_keyrings_are_joined_and_the_newest_one_decides() {
        let keyring = |generation, keys: &[(&str, &str)]| KeyringBody {
            generation,
            keys: keys.iter().map(|(id, wrapped)| ((*id).to_owned(), (*wrapped).to_owned())).collect(),
        };
        let older = keyring(1, &[("a", "1"), ("c", "3")]);
        let newer = keyring(2, &[("a", "9"), ("b", "2")]);
        assert_eq!(union(vec![older, newer]), keyring(2, &[("a", "9"), ("b", "2"), ("c", "3")]));
        assert_eq!(union(Vec::new()), keyring(0, &[]));
    }

    #[test]
    fn a_key_that_is_not_hex_is_refused_by_name() {
        let keyring = KeyringBody { generation: 3, keys: vec![("11".repeat(16), "xyz".to_owned())] };
        assert!(encode(&keyring).unwrap_err().message.contains(&"11".repeat(16)));
    }
}
