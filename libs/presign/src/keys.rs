//! The keys that sign URLs and receipts. They rotate: the first one signs, all verify.

use holdfast_libs_crypto::{MacKey, key_from_hex};

/// One or more signing keys, each named by a number.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    keys: Vec<(u32, MacKey)>,
}

/// A list of signing keys that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// No key at all.
    #[error("no signing key: write at least one line `NUMBER:64 hex digits`")]
    Empty,
    /// A line that is not `NUMBER:HEX`.
    #[error("signing key on line {line}: expected `NUMBER:64 hex digits`")]
    Line {
        /// Counted from one.
        line: usize,
    },
}

impl SigningKeys {
    /// Reads `NUMBER:HEX`, one a line; the first signs.
    ///
    /// # Errors
    /// [`KeysError`] with the line at fault.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let bad = KeysError::Line { line: index + 1 };
            let (number, hex) = line.split_once(':').ok_or_else(|| bad.clone())?;
            let number = number.trim().parse().map_err(|_| bad.clone())?;
            let secret = key_from_hex(hex).map_err(|_| bad)?;
            keys.push((number, MacKey::new(&secret)));
        }
        if keys.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self { keys })
    }

    /// Signs with the newest key; answers its number and the tag.
    pub(crate) fn sign(&self, message: impl Fn(u32) -> Vec<u8>) -> (u32, [u8; 32]) {
        let (number, key) = &self.keys[0];
        (*number, key.sign(&message(*number)))
    }

    /// `None` when there is no key of that number.
    pub(crate) fn verify(&self, number: u32, message: &[u8], tag: &[u8]) -> Option<bool> {
        let (_, key) = self.keys.iter().find(|(known, _)| *known == number)?;
        Some(key.verify(message, tag))
    }
}

#[cfg(test)]
mod tests {
    use super::SigningKeys;

    #[test]
    fn a_bad_line_is_named() {
        let text = format!("1:{}\n2:zz\n", "ab".repeat(32));
        assert!(SigningKeys::parse(&text).unwrap_err().to_string().contains("line 2"));
        assert!(SigningKeys::parse("\n").unwrap_err().to_string().contains("no signing key"));
    }
}
