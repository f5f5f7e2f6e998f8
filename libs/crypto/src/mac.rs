//! HMAC-SHA256 (RFC 2104).

use aws_lc_rs::hmac;

/// A key for HMAC-SHA256.
#[derive(Clone)]
pub struct MacKey(hmac::Key);

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

impl MacKey {
    /// Takes the key's bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The tag over `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        out
    }

    /// Whether `tag` is the tag over `message`; takes the same time whichever byte differs.
    pub fn verify(&self, message: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&self.0, message, tag).is_ok()
    }
}

/// Compares two byte strings in a time that depends on their lengths only.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    subtle::ConstantTimeEq::ct_eq(left, right).into()
}

#[cfg(test)]
mod tests {
    use super::MacKey;

    #[test]
    fn the_tag_is_that_of_rfc_4231_test_case_2() {
        let tag = MacKey::new(b"Jefe").sign(b"what do ya want for nothing?");
        assert_eq!(hex::encode(tag), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn another_message_or_a_cut_tag_is_refused() {
        let key = MacKey::new(b"k");
        let tag = key.sign(b"m");
        assert!(key.verify(b"m", &tag));
        assert!(!key.verify(b"n", &tag));
        assert!(!key.verify(b"m", &tag[..31]));
    }
}
