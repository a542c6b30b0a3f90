//! From a hospital's patient identifier to a pseudonymous subject.

use haar_schema::Subject;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The shortest pseudonym key: the length of HMAC-SHA-256's output (RFC 2104, section 3).
pub const MIN_KEY_BYTES: usize = 32;

/// The edge's secret. Wiped from memory when dropped; has no `Debug`.
pub struct PseudonymKey(Zeroizing<Vec<u8>>);

/// Why bytes are not a [`PseudonymKey`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PseudonymKeyError {
    /// Under [`MIN_KEY_BYTES`].
    #[error(
        "a pseudonym key has at least {MIN_KEY_BYTES} bytes, this one has {0}; make one with `head -c 32 /dev/urandom`"
    )]
    TooShort(usize),
}

impl PseudonymKey {
    /// Takes the key's bytes.
    ///
    /// # Errors
    /// [`PseudonymKeyError::TooShort`].
    pub fn new(bytes: Vec<u8>) -> Result<Self, PseudonymKeyError> {
        let bytes = Zeroizing::new(bytes);
        if bytes.len() < MIN_KEY_BYTES {
            return Err(PseudonymKeyError::TooShort(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The first 16 bytes of HMAC-SHA-256 (RFC 2104) of the identifier under this key.
    pub fn subject(&self, patient: &str) -> Subject {
        // HMAC takes keys of every length, so there is no error to come; `map` keeps it total.
        let digest = Hmac::<Sha256>::new_from_slice(&self.0)
            .map(|mac| mac.chain_update(patient).finalize().into_bytes())
            .unwrap_or_default();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Subject::from_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_the_head_of_the_hmac() {
        // RFC 4231, test case 6: a key of 131 bytes 0xaa.
        let key = PseudonymKey::new(vec![0xaa; 131]).unwrap();
        let subject = key.subject("Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(subject.to_hex(), "60e431591ee0b67f0d8a26aacbf5b77f");
    }

    #[test]
    fn a_short_key_is_refused() {
        assert!(PseudonymKey::new(vec![1; MIN_KEY_BYTES - 1]).is_err());
    }
}
