//! Proof that an account delivered a block.
//!
//! Text form: base64url without padding of
//! account (16) | block hash (32) | plain length u32 | expiry u64, Unix seconds | key number u32 | HMAC-SHA256 (32),
//! integers big-endian; the tag is over `"holdfast receipt v1\0"` and everything before it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdfast_libs_types::{AccountId, BlockHash};

use crate::SigningKeys;

const DOMAIN: &[u8] = b"holdfast receipt v1\0";
const BODY_BYTES: usize = 16 + 32 + 4 + 8 + 4;

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Who delivered the block.
    pub account: AccountId,
    /// The block.
    pub hash: BlockHash,
    /// Its length in bytes.
    pub length: u32,
    /// Until when the receipt counts, Unix seconds.
    pub expires: u64,
}

/// Why a receipt does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not a receipt at all, or signed by nobody we know.
    #[error("this is not a receipt of this cell")]
    Invalid,
    /// It has expired.
    #[error("the receipt expired at {0} (Unix seconds); upload the block again")]
    Expired(u64),
    /// It names another account.
    #[error("the receipt belongs to another account")]
    Account,
}

impl Receipt {
    /// Signs the receipt and writes it as text.
    pub fn sign(&self, keys: &SigningKeys) -> String {
        let (number, tag) = keys.sign(|number| [DOMAIN, &self.body(number)].concat());
        URL_SAFE_NO_PAD.encode([self.body(number).as_slice(), &tag].concat())
    }

    /// Reads a receipt of `account` that has not expired at `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`ReceiptError`].
    pub fn verify(text: &str, keys: &SigningKeys, account: AccountId, now: u64) -> Result<Self, ReceiptError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ReceiptError::Invalid)?;
        if bytes.len() != BODY_BYTES + 32 {
            return Err(ReceiptError::Invalid);
        }
        let (body, tag) = bytes.split_at(BODY_BYTES);
        let number = u32::from_be_bytes(array(&body[60..]));
        if keys.verify(number, &[DOMAIN, body].concat(), tag) != Some(true) {
            return Err(ReceiptError::Invalid);
        }
        let receipt = Self {
            account: AccountId(array(&body[..16])),
            hash: BlockHash(array(&body[16..48])),
            length: u32::from_be_bytes(array(&body[48..52])),
            expires: u64::from_be_bytes(array(&body[52..60])),
        };
        if receipt.account != account {
            return Err(ReceiptError::Account);
        }
        if receipt.expires < now {
            return Err(ReceiptError::Expired(receipt.expires));
        }
        Ok(receipt)
    }

    fn body(&self, number: u32) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(self.account.as_bytes());
        body[16..48].copy_from_slice(self.hash.as_bytes());
        body[48..52].copy_from_slice(&self.length.to_be_bytes());
        body[52..60].copy_from_slice(&self.expires.to_be_bytes());
        body[60..].copy_from_slice(&number.to_be_bytes());
        body
    }
}

/// Copies a slice whose length the caller has fixed.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use holdfast_libs_types::{AccountId, BlockHash};

    use super::{Receipt, ReceiptError};
    use crate::SigningKeys;

    fn keys() -> SigningKeys {
        SigningKeys::parse(&format!("7:{}", "ab".repeat(32))).unwrap()
    }

    const RECEIPT: Receipt =
        Receipt { account: AccountId([1; 16]), hash: BlockHash([2; 32]), length: 3, expires: 1000 };

    #[test]
    fn golden_bytes_of_a_receipt_body() {
        let golden = format!("{}{}0000000300000000000003e800000007", "01".repeat(16), "02".repeat(32));
        assert_eq!(hex::encode(RECEIPT.body(7)), golden);
    }

    #[test]
    fn a_receipt_counts_for_its_account_until_it_expires() {
        let text = RECEIPT.sign(&keys());
        assert_eq!(Receipt::verify(&text, &keys(), RECEIPT.account, 1000), Ok(RECEIPT));
        assert_eq!(Receipt::verify(&text, &keys(), RECEIPT.account, 1001), Err(ReceiptError::Expired(1000)));
        assert_eq!(Receipt::verify(&text, &keys(), AccountId([9; 16]), 1000), Err(ReceiptError::Account));
    }

    #[test]
    fn an_altered_receipt_is_refused() {
        let text = RECEIPT.sign(&keys());
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
            let bad = String::from_utf8(bad).unwrap();
            assert!(Receipt::verify(&bad, &keys(), RECEIPT.account, 1000).is_err(), "byte {at}");
        }
    }
}
