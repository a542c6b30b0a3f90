//! Who signs a log, and whom a verifier trusts.
//!
//! # Format
//! C2SP signed-note keys, Ed25519 (type 1). The verifier key ("vkey") is
//! `<name>+<hex key id>+<base64 type and public key>`; the signing key is
//! `PRIVATE+KEY+<name>+<hex key id>+<base64 type and seed>`, one line in a file of mode 0600. The key's
//! name is the log's origin.
//!
//! # Trust
//! Whoever has the signing key can speak for the log. The file is plain text: the disk and its
//! permissions protect it, nothing else does.

use ed25519_dalek::{SigningKey, VerifyingKey};
use signed_note::{Signer, StandardSigner, StandardVerifier, Verifier};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use zeroize::{Zeroize, Zeroizing};

/// The longest origin.
pub const MAX_ORIGIN_BYTES: usize = 255;

/// The longest key file or vkey: an origin, the prefix, the id and 33 bytes in base64.
pub const MAX_KEY_BYTES: usize = MAX_ORIGIN_BYTES + 128;

/// A log's origin and signing key.
pub struct Identity {
    signer: StandardSigner,
    secret: Zeroizing<String>,
    vkey: VerifierKey,
}

/// Why there is no [`Identity`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The origin cannot be a key name.
    #[error(
        "an origin has 1 to {MAX_ORIGIN_BYTES} bytes without spaces, control characters or '+', \
         such as fog-1.hospital-a.example/site-log"
    )]
    Origin,
    /// Not the text of a signing key.
    #[error(
        "{path} holds no signing key; it must be one line that begins with PRIVATE+KEY+. \
         Restore it from its backup: a log keeps its key for life",
        path = .0.display()
    )]
    Malformed(PathBuf),
    /// Others may read the key.
    #[error(
        "{path} may be read by other users (mode {mode:03o}); run: chmod 600 {path}",
        path = .path.display()
    )]
    Permissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key file cannot be read or written.
    #[error("key file {path}: {error}", path = .path.display())]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// The text cannot be a note.
#[derive(Debug, thiserror::Error)]
#[error("not a text that can be signed: it must end in a newline and have no control characters")]
pub struct SignError;

impl Identity {
    /// The identity of a new log. `seed` must be fresh and uniformly random; it is the secret.
    ///
    /// # Errors
    /// [`IdentityError::Origin`] if the origin cannot be a key name.
    pub fn generate(origin: &str, mut seed: [u8; 32]) -> Result<Self, IdentityError> {
        if !is_origin(origin) {
            return Err(IdentityError::Origin);
        }
        let key = SigningKey::from_bytes(&seed);
        let vkey = signed_note::new_ed25519_verifier_key(origin, &key.verifying_key());
        // The id in a signing key is that of its verifier key, the part between the last pluses.
        let id = vkey[origin.len() + 1..].split('+').next().unwrap_or_default();
        let mut typed = Zeroizing::new([1; 33]);
        typed[1..].copy_from_slice(&seed);
        seed.zeroize();
        let secret = Zeroizing::new(format!(
            "PRIVATE+KEY+{origin}+{id}+{}",
            Zeroizing::new(crate::base64::encode(&typed[..])).as_str()
        ));
        Self::from_secret(secret, &vkey).ok_or(IdentityError::Origin)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, holds no key, or (on Unix) others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        let text = read_key_file(path)?;
        let line = text.as_str();
        let malformed = || IdentityError::Malformed(path.to_owned());
        let (origin, seed) = parse_secret(line).ok_or_else(malformed)?;
        let identity = Self::generate(origin, *seed)?;
        // The id in the file must be the key's own; a file that was edited is not used.
        if identity.secret.as_str() == line { Ok(identity) } else { Err(malformed()) }
    }

    /// Writes the key to a new file that only its owner may read, and syncs it.
    ///
    /// # Errors
    /// If the file exists already (a log keeps its key for life) or cannot be written.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        write_key_file(path, &self.secret)
    }

    /// The origin, which is the key's name.
    pub fn origin(&self) -> &str {
        self.vkey.origin()
    }

    /// The public half, to be handed to whoever verifies.
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Signs a text, which becomes a C2SP signed-note with one signature line. For statements by people and sites;
    /// a checkpoint is signed by the log alone.
    ///
    /// # Errors
    /// If the text cannot be a note: it must end in a newline and have no control characters.
    pub fn sign(&self, text: &str) -> Result<Vec<u8>, SignError> {
        let mut note = signed_note::Note::new(text.as_bytes(), &[]).map_err(|_| SignError)?;
        note.add_sigs(&[&self.signer]).map_err(|_| SignError)?;
        Ok(note.to_bytes())
    }

    /// Signs bytes (RFC 8032). They must say what they are, so that nobody takes them for something else that this key signs.
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        let signature = self.signer.sign(bytes).ok().and_then(|bytes| bytes.try_into().ok());
        // Ed25519 signs anything, in 64 bytes; zeros verify under no key.
        signature.unwrap_or([0; 64])
    }

    /// The signer, for a C2SP signed-note.
    pub fn note_signer(&self) -> &StandardSigner {
        &self.signer
    }

    fn from_secret(secret: Zeroizing<String>, vkey: &str) -> Option<Self> {
        let signer = StandardSigner::new(&secret).ok()?;
        Some(Self { signer, secret, vkey: vkey.parse().ok()? })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.vkey)
    }
}

/// The public key of a log, with its origin.
#[derive(Clone)]
pub struct VerifierKey {
    text: String,
    origin_bytes: usize,
    verifier: StandardVerifier,
}

/// The text is not a verifier key in its canonical form.
#[derive(Debug, thiserror::Error)]
#[error(
    "not a verifier key; one is <origin>+<8 hexadecimal digits>+<base64 of an Ed25519 key>, as \
     `haar fsck` prints it"
)]
pub struct VerifierKeyError;

impl VerifierKey {
    /// The origin that the key speaks for.
    pub fn origin(&self) -> &str {
        &self.text[..self.origin_bytes]
    }

    /// Whether `signature` is this key's over `bytes` (RFC 8032).
    pub fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.verifier.verify(bytes, signature)
    }

    /// The verifier, for a C2SP signed-note.
    pub fn note_verifier(&self) -> &StandardVerifier {
        &self.verifier
    }

    /// The key as text (C2SP signed-note, "Verifier keys").
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    /// Accepts the canonical text only, so that no two texts are one key.
    fn from_str(text: &str) -> Result<Self, VerifierKeyError> {
        if text.len() > MAX_KEY_BYTES {
            return Err(VerifierKeyError);
        }
        let verifier = StandardVerifier::new(text).map_err(|_| VerifierKeyError)?;
        let origin = verifier.name();
        let id = text.get(origin.len() + 1..origin.len() + 9).ok_or(VerifierKeyError)?;
        if !is_origin(origin) || id != format!("{:08x}", verifier.key_id()) {
            return Err(VerifierKeyError);
        }
        // Under a key of small order anybody can make a signature that fits.
        let typed = crate::base64::decode(&text[origin.len() + 10..]);
        let bytes: Option<[u8; 32]> = typed.and_then(|typed| typed.get(1..)?.try_into().ok());
        let key = bytes.and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
        if key.is_none_or(|key| key.is_weak()) {
            return Err(VerifierKeyError);
        }
        Ok(Self { text: text.to_owned(), origin_bytes: origin.len(), verifier })
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for VerifierKey {}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a text can be a key's name: at most [`MAX_ORIGIN_BYTES`], as signed-note has it, without control characters.
pub fn is_origin(text: &str) -> bool {
    text.len() <= MAX_ORIGIN_BYTES
        && signed_note::is_key_name_valid(text)
        && !text.chars().any(char::is_control)
}

/// The one line of a key file, without its end.
///
/// # Errors
/// If it cannot be read, or others may read it.
pub fn read_key_file(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let io = |error| IdentityError::Io { path: path.to_owned(), error };
    let file = fs::File::open(path).map_err(io)?;
    refuse_shared(path, &file.metadata().map_err(io)?)?;
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES + 1));
    file.take(MAX_KEY_BYTES as u64 + 1).read_to_string(&mut text).map_err(io)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Writes a key file that was not there before, readable for its owner only, and syncs it.
///
/// # Errors
/// If it is there, or cannot be written.
pub fn write_key_file(path: &Path, line: &str) -> Result<(), IdentityError> {
    let io = |error| IdentityError::Io { path: path.to_owned(), error };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io)?;
    file.write_all(line.as_bytes()).map_err(io)?;
    file.write_all(b"\n").map_err(io)?;
    file.sync_all().map_err(io)
}

fn parse_secret(line: &str) -> Option<(&str, Zeroizing<[u8; 32]>)> {
    parse_typed_secret(line, 1)
}

/// Name and seed of a signing key of the signature type `kind`.
pub fn parse_typed_secret(line: &str, kind: u8) -> Option<(&str, Zeroizing<[u8; 32]>)> {
    let (name, rest) = line.strip_prefix("PRIVATE+KEY+")?.split_once('+')?;
    let (_, encoded) = rest.split_once('+')?;
    let typed = Zeroizing::new(crate::base64::decode(encoded)?);
    let seed = typed.strip_prefix(&[kind])?.try_into().ok()?;
    Some((name, Zeroizing::new(seed)))
}

#[cfg(unix)]
fn refuse_shared(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(IdentityError::Permissions { path: path.to_owned(), mode })
    }
}

#[cfg(not(unix))]
fn refuse_shared(_: &Path, _: &fs::Metadata) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_round_trips_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.key");
        let identity = Identity::generate("fog-1.example/site", [5; 32]).unwrap();
        identity.save_new(&path).unwrap();
        assert_eq!(Identity::load(&path).unwrap().vkey(), identity.vkey());
        assert!(matches!(identity.save_new(&path), Err(IdentityError::Io { .. })));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let error = Identity::load(&path).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn bytes_are_signed_by_their_key_alone() {
        let [one, other] = [5, 6].map(|seed| Identity::generate("a.example", [seed; 32]).unwrap());
        let signature = one.sign_bytes(b"haar test");
        assert!(one.vkey().verifies(b"haar test", &signature));
        assert!(!one.vkey().verifies(b"haar tost", &signature));
        assert!(!other.vkey().verifies(b"haar test", &signature));
        assert!(!one.vkey().verifies(b"haar test", &[0; 64]));
    }

    #[test]
    fn an_edited_key_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.key");
        let identity = Identity::generate("fog-1.example/site", [5; 32]).unwrap();
        let edited = [
            identity.secret.replace("fog-1", "fog-2"),
            identity.secret[..identity.secret.len() - 1].to_owned(),
            format!("{}\n\n", identity.secret.as_str()),
            String::new(),
        ];
        for text in edited {
            let _ = fs::remove_file(&path);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            options.open(&path).unwrap().write_all(text.as_bytes()).unwrap();
            assert!(matches!(Identity::load(&path), Err(IdentityError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn vkeys_have_one_form() {
        // The example of C2SP signed-note.
        let example = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let key: VerifierKey = example.parse().unwrap();
        assert_eq!((key.origin(), key.as_str()), ("example.com/foo", example));
        assert!(example.replace("530d903a", "530D903A").parse::<VerifierKey>().is_err());
        for byte in 0..example.len() {
            for bit in 0..8 {
                let mut bytes = example.as_bytes().to_vec();
                bytes[byte] ^= 1 << bit;
                if let Ok(text) = String::from_utf8(bytes) {
                    assert!(text.parse::<VerifierKey>().is_err(), "{text}");
                }
            }
        }
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let mut identity = [0; 33];
        (identity[0], identity[1]) = (1, 1);
        for typed in [identity, {
            let mut zero = [0; 33];
            zero[0] = 1;
            zero
        }] {
            let id = signed_note::key_id("a.example", &typed);
            let text = format!("a.example+{id:08x}+{}", crate::base64::encode(&typed));
            assert!(StandardVerifier::new(&text).is_ok(), "by the crate it is a key");
            assert!(text.parse::<VerifierKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn origins_are_plain_and_secrets_are_not_printed() {
        for origin in ["", "a b", "a+b", "a\u{1}b", "a\u{a0}b", &"x".repeat(256)] {
            assert!(matches!(Identity::generate(origin, [5; 32]), Err(IdentityError::Origin)));
        }
        let identity = Identity::generate("a.example", [5; 32]).unwrap();
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }
}
