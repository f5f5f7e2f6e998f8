//! Cursors as text: base64url of the cursor's bytes and an HMAC-SHA256 over them, under the database's own key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_libs_crypto::MacKey;
use holdfast_metadata_model::Cursor;

const DOMAIN: &[u8] = b"holdfast cursor v1\0";
const TAG_BYTES: usize = 32;

/// Seals and opens cursors.
pub(crate) struct Sealer(MacKey);

impl Sealer {
    pub fn new(key: &[u8; 32]) -> Self {
        Self(MacKey::new(key))
    }

    pub fn seal(&self, cursor: &Cursor) -> String {
        let mut bytes = cursor.encode();
        let tag = self.0.sign(&[DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` for a text that this server's database never sealed.
    pub fn open(&self, text: &str) -> Option<Cursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        if !self.0.verify(&[DOMAIN, body].concat(), tag) {
            return None;
        }
        Cursor::decode(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{AccountId, DeviceId};
    use holdfast_metadata_model::{Cursor, NamespaceId, Position, Scope};

    use super::Sealer;

    #[test]
    fn an_altered_cursor_or_one_of_another_database_does_not_open() {
        let cursor = Cursor {
            account: AccountId([1; 16]),
            device: DeviceId(2),
            namespace: NamespaceId(3),
            scope: Scope::Namespace,
            sequence: 4,
            hash: [5; 32],
            position: Position::Replay,
        };
        let sealer = Sealer::new(&[1; 32]);
        let text = sealer.seal(&cursor);
        assert_eq!(sealer.open(&text), Some(cursor));
        assert_eq!(Sealer::new(&[2; 32]).open(&text), None);
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(&String::from_utf8(bad).unwrap()), None, "byte {at}");
        }
        assert_eq!(sealer.open(""), None);
    }
}
