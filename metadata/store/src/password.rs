//! Passwords as Argon2id hashes: `argon2id$m=KIB,t=PASSES,p=LANES$SALT$HASH`, salt and hash in hex.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::StoreError;

/// OWASP's second choice for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes a password with a new salt. Takes tens of milliseconds.
pub(crate) fn hash(password: &str) -> Result<String, StoreError> {
    let salt: [u8; 16] = holdfast_libs_crypto::random()?;
    let hash = derive(password, &salt, MEMORY_KIB, PASSES, LANES)?;
    Ok(format!("argon2id$m={MEMORY_KIB},t={PASSES},p={LANES}${}${}", hex::encode(salt), hex::encode(hash)))
}

/// Whether `password` is the one that was hashed.
pub(crate) fn verify(password: &str, stored: &str) -> Result<bool, StoreError> {
    let damaged = || StoreError::Damaged("a stored password hash is not readable".to_owned());
    let parts: Vec<&str> = stored.split('$').collect();
    let [algorithm, cost, salt, hash] = parts[..] else { return Err(damaged()) };
    let costs: Vec<u32> =
        cost.split(',').filter_map(|pair| pair.split_once('=').and_then(|(_, number)| number.parse().ok())).collect();
    let [memory, passes, lanes] = costs[..] else { return Err(damaged()) };
    let (Ok(salt), Ok(hash)) = (hex::decode(salt), hex::decode(hash)) else { return Err(damaged()) };
    if algorithm != "argon2id" {
        return Err(damaged());
    }
    let derived = derive(password, &salt, memory, passes, lanes)?;
    Ok(holdfast_libs_crypto::constant_time_eq(&derived, &hash))
}

fn derive(password: &str, salt: &[u8], memory: u32, passes: u32, lanes: u32) -> Result<[u8; 32], StoreError> {
    let failed = |error: argon2::Error| StoreError::Password(error.to_string());
    let params = Params::new(memory, passes, lanes, Some(32)).map_err(failed)?;
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .map_err(failed)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{hash, verify};

    #[test]
    fn a_password_is_told_from_another_and_salted() {
        let stored = hash("correct horse").unwrap();
        assert!(verify("correct horse", &stored).unwrap());
        assert!(!verify("correct hors", &stored).unwrap());
        assert_ne!(stored, hash("correct horse").unwrap());
        assert!(verify("x", "argon2id$m=1").is_err());
    }
}
