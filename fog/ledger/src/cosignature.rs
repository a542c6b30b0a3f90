//! Cosignatures: a witness's statement that a checkpoint follows from the ones it saw before.
//!
//! # Format
//! C2SP tlog-cosignature v1 with Ed25519 (type 0x04). The line is
//! `— <name> <base64 of key id u32, time u64, signature [u8; 64]>`, big-endian; the signature (RFC 8032) is over
//! `cosignature/v1\ntime <decimal seconds>\n` and the checkpoint's text. Keys are written as those of notes,
//! with the type byte 4 in front of key or seed.
//!
//! # Not said
//! That anything in the log is true, or that the log shows the same to others; only that this cosigner
//! never agreed to two histories.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use haar_identity::base64;
use haar_identity::{
    IdentityError, MAX_KEY_BYTES, is_origin, parse_typed_secret, read_key_file, write_key_file,
};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

/// Signature type of C2SP tlog-cosignature v1 with Ed25519.
const TYPE: u8 = 4;
/// Key id, time and signature.
const LINE_BYTES: usize = 4 + 8 + 64;

/// Who cosigns: a name and a signing key. The key must be used for nothing else.
pub struct Cosigner {
    key: SigningKey,
    vkey: CosignerKey,
}

impl Cosigner {
    /// A new cosigner. `seed` must be fresh and uniformly random; it is the secret.
    ///
    /// # Errors
    /// [`IdentityError::Origin`] if the name cannot be a key's name.
    pub fn generate(name: &str, mut seed: [u8; 32]) -> Result<Self, IdentityError> {
        if !is_origin(name) {
            return Err(IdentityError::Origin);
        }
        let key = SigningKey::from_bytes(&seed);
        seed.zeroize();
        let vkey = CosignerKey::new(name, key.verifying_key());
        Ok(Self { key, vkey })
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, holds no cosigning key, or others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let text = read_key_file(path)?;
        let malformed = || IdentityError::Malformed(path.to_owned());
        let (name, seed) = parse_typed_secret(&text, TYPE).ok_or_else(malformed)?;
        let cosigner = Self::generate(name, *seed)?;
        // The id in the file must be the key's own; a file that was edited is not used.
        if cosigner.secret().as_str() == text.as_str() { Ok(cosigner) } else { Err(malformed()) }
    }

    /// Writes the key to a new file that only its owner may read, and syncs it.
    ///
    /// # Errors
    /// If the file exists already or cannot be written.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        write_key_file(path, &self.secret())
    }

    /// The public half.
    pub fn vkey(&self) -> &CosignerKey {
        &self.vkey
    }

    /// The cosignature line, with its line feed, over a checkpoint's text (the note without signatures,
    /// ending in a line feed) at `now_s`, POSIX seconds.
    pub fn cosign(&self, checkpoint_text: &str, now_s: u64) -> String {
        let signature = self.key.sign(message(checkpoint_text, now_s).as_bytes());
        let mut bytes = [0; LINE_BYTES];
        bytes[..4].copy_from_slice(&self.vkey.id.to_be_bytes());
        bytes[4..12].copy_from_slice(&now_s.to_be_bytes());
        bytes[12..].copy_from_slice(&signature.to_bytes());
        format!("— {} {}\n", self.vkey.name(), base64::encode(&bytes))
    }

    fn secret(&self) -> Zeroizing<String> {
        let mut typed = Zeroizing::new([TYPE; 33]);
        typed[1..].copy_from_slice(self.key.as_bytes());
        let encoded = Zeroizing::new(base64::encode(&typed[..]));
        let CosignerKey { id, .. } = self.vkey;
        Zeroizing::new(format!("PRIVATE+KEY+{}+{id:08x}+{}", self.vkey.name(), encoded.as_str()))
    }
}

impl fmt::Debug for Cosigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cosigner({})", self.vkey)
    }
}

/// The public key of a cosigner, with its name.
#[derive(Clone)]
pub struct CosignerKey {
    text: String,
    name_bytes: usize,
    id: u32,
    key: VerifyingKey,
}

/// The text is not a cosigner's key in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a cosigner's key; one is <name>+<8 hexadecimal digits>+<base64 of type 4 and an Ed25519 key>, \
     as `haar-ledger key --cosigner` prints it"
)]
pub struct CosignerKeyError;

/// A line of this cosigner does not fit the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cosignature of {name} does not fit the checkpoint: one of them was altered")]
pub struct CosignatureError {
    /// The cosigner's name.
    pub name: String,
}

impl CosignerKey {
    /// The cosigner's name.
    pub fn name(&self) -> &str {
        &self.text[..self.name_bytes]
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// When this cosigner cosigned the checkpoint note, in POSIX seconds; the latest if it did so more than
    /// once, `None` if it did not.
    ///
    /// # Errors
    /// If a line bears its name and key id, and is not its cosignature of this checkpoint.
    pub fn verify(&self, note: &str) -> Result<Option<u64>, CosignatureError> {
        let Some((text, lines)) = note.rsplit_once("\n\n") else { return Ok(None) };
        let text = &note[..=text.len()];
        let mut latest = None;
        for line in lines.lines() {
            if let Some(bytes) = self.own(line) {
                let time = self
                    .verify_line(text, &bytes)
                    .ok_or_else(|| CosignatureError { name: self.name().to_owned() })?;
                latest = latest.max(Some(time));
            }
        }
        Ok(latest)
    }

    fn new(name: &str, key: VerifyingKey) -> Self {
        let mut typed = [TYPE; 33];
        typed[1..].copy_from_slice(key.as_bytes());
        let id = signed_note::key_id(name, &typed);
        let text = format!("{name}+{id:08x}+{}", base64::encode(&typed));
        Self { text, name_bytes: name.len(), id, key }
    }

    /// What stands in a line of this key.
    fn own(&self, line: &str) -> Option<Vec<u8>> {
        let (name, encoded) = line.strip_prefix("— ")?.split_once(' ')?;
        if name != self.name() {
            return None;
        }
        let bytes = base64::decode(encoded)?;
        bytes.starts_with(&self.id.to_be_bytes()).then_some(bytes)
    }

    fn verify_line(&self, text: &str, bytes: &[u8]) -> Option<u64> {
        let bytes: &[u8; LINE_BYTES] = bytes.try_into().ok()?;
        let time = u64::from_be_bytes(bytes[4..12].try_into().ok()?);
        let fits =
            i64::try_from(time).is_ok() && self.fits(message(text, time).as_bytes(), &bytes[12..]);
        fits.then_some(time)
    }

    /// RFC 8032 without the leeway that it leaves: no key and no commitment of small order.
    pub(crate) fn fits(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }
}

impl FromStr for CosignerKey {
    type Err = CosignerKeyError;

    /// Accepts the canonical text only, so that no two texts are one key.
    fn from_str(text: &str) -> Result<Self, CosignerKeyError> {
        let read = || {
            let (name, rest) = text.split_once('+')?;
            let (_, encoded) = rest.split_once('+')?;
            let typed = base64::decode(encoded)?;
            let bytes: &[u8; 32] = typed.strip_prefix(&[TYPE])?.try_into().ok()?;
            let key = VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())?;
            is_origin(name).then(|| Self::new(name, key)).filter(|key| key.text == text)
        };
        if text.len() > MAX_KEY_BYTES {
            Err(CosignerKeyError)
        } else {
            read().ok_or(CosignerKeyError)
        }
    }
}

impl PartialEq for CosignerKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CosignerKey {}

impl fmt::Display for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for CosignerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is signed (tlog-cosignature, "Ed25519 signed message").
fn message(checkpoint_text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{checkpoint_text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "log.example\n7\nCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=\n";

    fn cosigner() -> Cosigner {
        Cosigner::generate("w.example/1", [6; 32]).unwrap()
    }

    #[test]
    fn a_cosignature_is_found_and_says_when() {
        let own = cosigner();
        let (one, two) = (own.cosign(TEXT, 1_700_000_000), own.cosign(TEXT, 1_700_000_009));
        let note = format!("{TEXT}\n{one}{two}");
        assert_eq!(own.vkey().verify(&note), Ok(Some(1_700_000_009)));
        let other = Cosigner::generate("w.example/1", [7; 32]).unwrap();
        assert_eq!(other.vkey().verify(&note), Ok(None));
        let altered = note.replace("\n7\n", "\n8\n");
        assert!(own.vkey().verify(&altered).is_err());
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let own = cosigner();
        let note = format!("{TEXT}\n{}", own.cosign(TEXT, 1_700_000_000));
        for byte in 0..note.len() {
            for bit in 0..8 {
                let mut flipped = note.clone().into_bytes();
                flipped[byte] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                let verified = own.vkey().verify(&flipped);
                assert!(!matches!(verified, Ok(Some(_))), "byte {byte} bit {bit}");
            }
        }
    }

    /// The example of C2SP tlog-cosignature; the key that signed it is not published.
    #[test]
    fn the_example_of_the_specification_is_read() {
        let text =
            "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let line = "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==";
        let bytes: [u8; LINE_BYTES] = base64::decode_array(line).unwrap();
        let time = u64::from_be_bytes(bytes[4..12].try_into().unwrap());
        assert_eq!(time, 1_679_315_147);
        assert_eq!(message(text, time), format!("cosignature/v1\ntime 1679315147\n{text}"));
        let mut own = Cosigner::generate("witness.example.com/w1", [6; 32]).unwrap().vkey;
        let note = format!("{text}\n— witness.example.com/w1 {line}\n");
        assert_eq!(own.verify(&note), Ok(None), "not this key's");
        own.id = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert!(own.verify(&note).is_err(), "its id, and not its signature");
    }

    #[test]
    fn times_that_no_cosignature_can_bear_are_refused() {
        let own = cosigner();
        for (time, fits) in
            [(1, true), (i64::MAX as u64, true), (1 << 63, false), (u64::MAX, false)]
        {
            let note = format!("{TEXT}\n{}", own.cosign(TEXT, time));
            assert_eq!(own.vkey().verify(&note).is_ok(), fits, "{time}");
        }
    }

    #[test]
    fn keys_round_trip_in_one_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness.key");
        let own = cosigner();
        own.save_new(&path).unwrap();
        assert_eq!(Cosigner::load(&path).unwrap().vkey(), own.vkey());
        assert_eq!(own.vkey().as_str().parse::<CosignerKey>().unwrap(), *own.vkey());
        // The key of a log is none of a cosigner.
        let log = crate::Identity::generate("w.example/1", [6; 32]).unwrap();
        assert!(log.vkey().as_str().parse::<CosignerKey>().is_err());
        assert!(!format!("{own:?}").contains("PRIVATE"));
    }
}
