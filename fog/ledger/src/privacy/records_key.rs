//! The site's key of keys, and the file it lies in.
//!
//! # Format
//! One line in a file of mode 0600: `HAAR+RECORDS+KEY+<id>+<secret>`, where the id is the first 16 bytes
//! of SHA-256 over `haar-records-key-v1` and the secret in hexadecimal, and the secret is 32 bytes in
//! base 64.
//!
//! A data key is wrapped as nonce [u8; 24] | XChaCha20-Poly1305 of its 32 bytes | tag [u8; 16]. The nonce
//! is the beginning of HMAC-SHA-256 under the records key over `haar-wrap-v1`, what the key is of, and
//! the data key, so that no nonce serves two data keys, not even after a backup was put back.
//!
//! # Replacing it
//! The new key is written to `<file>.next` and synced, the database says in one transaction which of the
//! two is in force, then the old file is overwritten and the new one takes its name. Whatever happens
//! between, [`KeyFile::in_force`] finds the one that the database speaks of.
//!
//! # Trust
//! Whoever has this file and the database reads everything that is not erased. Put it on another disk
//! (`log.records_key_file`) if the disk may be stolen. Overwriting a file does not reach copies that a
//! journalling or copy-on-write file system, a solid state disk, or a backup has kept.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use haar_identity::base64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Length of a wrapped data key.
pub(crate) const WRAPPED_BYTES: usize = 24 + 32 + TAG_BYTES;
pub(crate) const TAG_BYTES: usize = 16;

/// The longest file.
const MAX_FILE_BYTES: u64 = 256;
const HEAD: &str = "HAAR+RECORDS+KEY+";

/// The key of one patient's records.
pub(crate) type DataKey = Zeroizing<[u8; 32]>;

/// Names a [`RecordsKey`] without telling it.
pub(crate) type RecordsKeyId = [u8; 16];

/// The key under which a site keeps the keys of its records.
pub struct RecordsKey {
    secret: Zeroizing<[u8; 32]>,
    id: RecordsKeyId,
}

/// Why there is no [`RecordsKey`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsKeyError {
    /// Not the text of a records key.
    #[error(
        "{path} holds no records key; it must be one line that begins with {HEAD}. Restore it from \
         its backup: without it no record of this log can be read",
        path = .0.display()
    )]
    Malformed(PathBuf),
    /// Others may read it.
    #[error(
        "{path} may be read by other users (mode {mode:03o}); run: chmod 600 {path}",
        path = .path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Neither file has the key that the records are sealed under.
    #[error(
        "the records of this log are sealed under another key than that in {path}; restore the \
         newest copy of that file (an erasure replaces it)",
        path = .0.display()
    )]
    Other(PathBuf),
    /// The file cannot be read or written.
    #[error("records key {path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl RecordsKey {
    /// A key from 32 bytes that must be fresh and uniformly random.
    pub fn new(secret: [u8; 32]) -> Self {
        let secret = Zeroizing::new(secret);
        let hash = Sha256::new().chain_update("haar-records-key-v1").chain_update(&secret[..]);
        let mut id = RecordsKeyId::default();
        id.copy_from_slice(&hash.finalize()[..16]);
        Self { secret, id }
    }

    /// Reads a key file, to open records of a database that no process is using.
    ///
    /// # Errors
    /// If it cannot be read, holds no key, or (on Unix) others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self, RecordsKeyError> {
        let io = |error| RecordsKeyError::Io { path: path.to_owned(), error };
        let file = fs::File::open(path).map_err(io)?;
        refuse_shared(path, &file.metadata().map_err(io)?)?;
        let mut text = Zeroizing::new(String::with_capacity(MAX_FILE_BYTES as usize));
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(io)?;
        let key = text.strip_suffix('\n').and_then(|line| {
            let (_, secret) = line.strip_prefix(HEAD)?.split_once('+')?;
            Some(Self::new(base64::decode_array(secret)?))
        });
        match key {
            // A line that was edited is not used.
            Some(key) if key.text() == text => Ok(key),
            _ => Err(RecordsKeyError::Malformed(path.to_owned())),
        }
    }

    pub(crate) fn id(&self) -> RecordsKeyId {
        self.id
    }

    /// Wraps a data key; `of` says what it is the key of.
    pub(crate) fn wrap(&self, of: &[u8], key: &DataKey) -> [u8; WRAPPED_BYTES] {
        let mut wrapped = [0; WRAPPED_BYTES];
        let (nonce, rest) = wrapped.split_at_mut(24);
        nonce.copy_from_slice(&self.nonce(of, key));
        let (sealed, tag) = rest.split_at_mut(32);
        sealed.copy_from_slice(&key[..]);
        let nonce = XNonce::clone_from_slice(nonce);
        // It refuses only messages of more than 256 GiB.
        if let Ok(made) = self.cipher().encrypt_in_place_detached(&nonce, of, sealed) {
            tag.copy_from_slice(&made);
        }
        wrapped
    }

    /// The data key in `wrapped`; `None` unless this key wrapped it as the key of `of`.
    pub(crate) fn unwrap(&self, of: &[u8], wrapped: &[u8]) -> Option<DataKey> {
        let (nonce, rest) = wrapped.split_first_chunk::<24>()?;
        let (sealed, tag) = rest.split_first_chunk::<32>()?;
        let tag: &[u8; TAG_BYTES] = tag.try_into().ok()?;
        let mut key = Zeroizing::new(*sealed);
        let cipher = self.cipher();
        cipher.decrypt_in_place_detached(nonce.into(), of, &mut key[..], tag.into()).ok()?;
        Some(key)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.secret).into())
    }

    fn nonce(&self, of: &[u8], key: &DataKey) -> [u8; 24] {
        // RFC 2104, section 2: a key shorter than the hash's block is filled up with zeros.
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(&self.secret[..]);
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        mac.update(b"haar-wrap-v1");
        mac.update(&(of.len() as u64).to_be_bytes());
        mac.update(of);
        mac.update(&key[..]);
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&mac.finalize().into_bytes()[..24]);
        nonce
    }

    fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(base64::encode(&self.secret[..]));
        Zeroizing::new(format!("{HEAD}{}+{}\n", hex::encode(self.id), secret.as_str()))
    }
}

impl fmt::Debug for RecordsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordsKey({})", hex::encode(self.id))
    }
}

#[cfg(unix)]
fn refuse_shared(path: &Path, metadata: &fs::Metadata) -> Result<(), RecordsKeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(RecordsKeyError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_shared(_: &Path, _: &fs::Metadata) -> Result<(), RecordsKeyError> {
    Ok(())
}

/// Where the key lies, and its successor while it is being replaced.
pub(crate) struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The key that is in force by what the database says. A replacement that was interrupted is finished.
    pub(crate) fn in_force(&self, id: RecordsKeyId) -> Result<RecordsKey, RecordsKeyError> {
        let next = self.next();
        let first = match RecordsKey::load(&self.path) {
            Ok(key) if key.id() == id => {
                self.discard_next()?;
                return Ok(key);
            }
            Ok(_) => RecordsKeyError::Other(self.path.clone()),
            Err(error) => error,
        };
        match RecordsKey::load(&next) {
            Ok(key) if key.id() == id => {
                self.adopt_next()?;
                Ok(key)
            }
            _ => Err(first),
        }
    }

    /// The key for a log that has none yet: the one that is there, or `fresh`, which is written.
    pub(crate) fn first(&self, fresh: RecordsKey) -> Result<RecordsKey, RecordsKeyError> {
        if self.path.exists() {
            return RecordsKey::load(&self.path);
        }
        write_new(&self.path, &fresh)?;
        Ok(fresh)
    }

    /// Puts a successor beside the key. One that is left over from a failed attempt was never in force.
    pub(crate) fn put_next(&self, key: &RecordsKey) -> Result<(), RecordsKeyError> {
        self.discard_next()?;
        write_new(&self.next(), key)
    }

    /// The successor takes the key's place, whose bytes are overwritten.
    pub(crate) fn adopt_next(&self) -> Result<(), RecordsKeyError> {
        overwrite(&self.path)?;
        fs::rename(self.next(), &self.path).map_err(|error| self.io(error))?;
        sync_folder(&self.path)
    }

    /// Removes a successor that did not come into force.
    pub(crate) fn discard_next(&self) -> Result<(), RecordsKeyError> {
        let next = self.next();
        if !next.exists() {
            return Ok(());
        }
        overwrite(&next)?;
        fs::remove_file(&next).map_err(|error| self.io(error))?;
        sync_folder(&self.path)
    }

    fn next(&self) -> PathBuf {
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        next.into()
    }

    fn io(&self, error: io::Error) -> RecordsKeyError {
        RecordsKeyError::Io { path: self.path.clone(), error }
    }
}

fn write_new(path: &Path, key: &RecordsKey) -> Result<(), RecordsKeyError> {
    let io = |error| RecordsKeyError::Io { path: path.to_owned(), error };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io)?;
    file.write_all(key.text().as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    sync_folder(path)
}

/// Writes zeros over a file's bytes, in place.
fn overwrite(path: &Path) -> Result<(), RecordsKeyError> {
    let io = |error| RecordsKeyError::Io { path: path.to_owned(), error };
    let mut file = match fs::OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    let bytes = file.metadata().map_err(io)?.len().min(MAX_FILE_BYTES);
    file.write_all(&vec![0; bytes as usize]).map_err(io)?;
    file.sync_all().map_err(io)
}

fn sync_folder(path: &Path) -> Result<(), RecordsKeyError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let io = |error| RecordsKeyError::Io { path: folder.to_owned(), error };
    fs::File::open(folder).map_err(io)?.sync_all().map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_documented_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.key");
        let file = KeyFile::new(path.clone());
        let key = file.first(RecordsKey::new([3; 32])).unwrap();
        // The id: (printf haar-records-key-v1; 32 bytes of 3) | sha256sum, the first 32 digits.
        expect_test::expect![[r#"
            HAAR+RECORDS+KEY+2ca7f234670c1556553a468e928e3429+AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=
        "#]]
        .assert_eq(&fs::read_to_string(&path).unwrap());
        assert_eq!(RecordsKey::load(&path).unwrap().id(), key.id());
        assert_eq!(file.first(RecordsKey::new([4; 32])).unwrap().id(), key.id());
        let text = fs::read_to_string(&path).unwrap();
        for (at, byte) in text.bytes().enumerate() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] = byte ^ 1;
            fs::write(&path, flipped).unwrap();
            assert!(RecordsKey::load(&path).is_err(), "byte {at}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.key");
        KeyFile::new(path.clone()).first(RecordsKey::new([3; 32])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = RecordsKey::load(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    /// A crash before or after the database's commit, and in the middle of taking the place.
    #[test]
    fn a_replacement_ends_as_the_database_says() {
        let (old, new) = ([1; 32], [2; 32]);
        for committed in [false, true] {
            for overwritten in [false, committed] {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("records.key");
                let file = KeyFile::new(path.clone());
                file.first(RecordsKey::new(old)).unwrap();
                file.put_next(&RecordsKey::new(new)).unwrap();
                if overwritten {
                    overwrite(&path).unwrap();
                }
                let id = RecordsKey::new(if committed { new } else { old }).id();
                assert_eq!(file.in_force(id).unwrap().id(), id);
                assert_eq!(RecordsKey::load(&path).unwrap().id(), id);
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
                let other = file.in_force(RecordsKey::new([9; 32]).id()).unwrap_err();
                assert!(matches!(other, RecordsKeyError::Other(_)), "{other}");
            }
        }
    }

    #[test]
    fn a_wrapped_key_opens_as_what_it_is_only() {
        let records_key = RecordsKey::new([1; 32]);
        let wrapped = records_key.wrap(b"slot 1", &DataKey::new([7; 32]));
        assert_eq!(*records_key.unwrap(b"slot 1", &wrapped).unwrap(), [7; 32]);
        assert!(records_key.unwrap(b"slot 2", &wrapped).is_none());
        assert!(RecordsKey::new([2; 32]).unwrap(b"slot 1", &wrapped).is_none());
        for byte in 0..WRAPPED_BYTES {
            let mut flipped = wrapped;
            flipped[byte] ^= 1;
            assert!(records_key.unwrap(b"slot 1", &flipped).is_none(), "byte {byte}");
        }
        assert!(records_key.unwrap(b"slot 1", &wrapped[..71]).is_none());
    }
}
