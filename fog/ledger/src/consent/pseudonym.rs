//! Names that tell nothing: of patients' keys in the log, of patients in studies.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::Zeroizing;

const STUDY_DOMAIN: &[u8] = b"haar-study-pseudonym-v1";
const STUDY_KEY_DOMAIN: &[u8] = b"haar-study-key-v1";
const PATIENT_DOMAIN: &[u8] = b"haar-patient-key-v1";

/// The name of a patient's key: `patient/` and the first half of SHA-256 over `haar-patient-key-v1`
/// and the pseudonym under which the site keeps the patient, in hexadecimal.
///
/// That pseudonym is itself keyed and random to look at, so the name cannot be found by guessing. Who
/// knows the pseudonym can tell which key is the patient's.
pub fn patient_key_name(subject: &str) -> String {
    let hash = Sha256::new().chain_update(PATIENT_DOMAIN).chain_update(subject).finalize();
    format!("patient/{}", hex::encode(&hash[..16]))
}

/// The key of one study's pseudonyms. It stays with the site; who has two studies' pseudonyms and
/// neither key cannot tell who is in both.
pub struct StudyKey(Zeroizing<[u8; 32]>);

impl StudyKey {
    /// From 32 fresh and uniformly random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// The key of one study, from what a site keeps for all of them: HMAC-SHA-256 (RFC 2104) under that secret over
    /// `haar-study-key-v1` and the study's number.
    pub fn derive(secret: &[u8; 32], study: &str) -> Self {
        Self(Zeroizing::new(hmac(secret, STUDY_KEY_DOMAIN, study)))
    }

    /// The patient's name in this study: the first half of HMAC-SHA-256 (RFC 2104) over
    /// `haar-study-pseudonym-v1` and the subject, in hexadecimal.
    pub fn pseudonym(&self, subject: &str) -> String {
        hex::encode(&hmac(&self.0, STUDY_DOMAIN, subject)[..16])
    }
}

fn hmac(key: &[u8; 32], domain: &[u8], text: &str) -> [u8; 32] {
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    mac.update(domain);
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

impl fmt::Debug for StudyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StudyKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pseudonyms_are_as_documented_and_differ_by_study() {
        // Computed with Python: hmac.new(bytes([7])*32, b"haar-study-pseudonym-v1" + b"s-1",
        // "sha256").hexdigest()[:32] and hashlib.sha256(b"haar-patient-key-v1" + b"s-1").
        let one = StudyKey::new([7; 32]);
        assert_eq!(one.pseudonym("s-1"), "3830c20284e04e9fd90fc9ffe5f48fe6");
        assert_eq!(patient_key_name("s-1"), "patient/e2a99681019e8a992d7f73f1bf24ead0");
        assert_ne!(one.pseudonym("s-1"), one.pseudonym("s-2"));
        assert_ne!(one.pseudonym("s-1"), StudyKey::new([8; 32]).pseudonym("s-1"));
        // hmac.new(bytes([7])*32, b"haar-study-key-v1" + b"asthma-3", "sha256").hexdigest()
        let derived = StudyKey::derive(&[7; 32], "asthma-3");
        assert_eq!(
            hex::encode(&derived.0[..]),
            "fd4d73f1d2492602cca8d437e7b4e107913b58ee42e13dd64db157cfed52b0d9"
        );
        assert!(!format!("{one:?}").contains('7'));
    }
}
