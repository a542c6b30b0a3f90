//! Names, keys and hashes as they stand in the objects of entries: each with one text, checked once.

use haar_identity::VerifierKey;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::str::FromStr;

/// The longest name of a member or a group.
const MAX_NAME_BYTES: usize = 64;

/// The longest address.
const MAX_URL_BYTES: usize = 255;

/// The type byte of an Ed25519 cosigner key (C2SP tlog-cosignature).
const COSIGNER_TYPE: u8 = 4;

/// A text is not what its place in an entry wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Not the name of a member or a group.
    #[error(
        "a member's or group's name has 1 to {MAX_NAME_BYTES} characters of a-z, 0-9, '.' and '-', \
         such as hospital-a.example, and is not 'none'"
    )]
    Name,
    /// Not an address.
    #[error(
        "an address begins with https:// (http:// for this machine only), has at most \
         {MAX_URL_BYTES} printable ASCII characters and does not end in '/'"
    )]
    Url,
    /// Not lower-case hexadecimal of the right length.
    #[error("not lower-case hexadecimal of the right length")]
    Hex,
    /// Not a verifier key of type 1.
    #[error("not a verifier key of Ed25519 (type 1) in its one form")]
    StatementKey,
    /// Not a verifier key of type 4.
    #[error("not a cosigner's verifier key of Ed25519 (type 4) in its one form")]
    CosignerKey,
}

/// Makes a text type that is read through `$check` only.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:path, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                if $check(text) { Ok(Self(text.to_owned())) } else { Err($error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text!(
    /// A member's name; its statement key bears it too.
    MemberName, is_name, NameError::Name
);
text!(
    /// The name of a group in a quorum.
    GroupName, is_name, NameError::Name
);
text!(
    /// Where somebody is reached, without a slash at the end.
    Url, is_url, NameError::Url
);
text!(
    /// A cosigner's verifier key (type 4), as text. Its form and its id have been checked.
    CosignerText, is_cosigner, NameError::CosignerKey
);

impl CosignerText {
    /// The bare public key in base 64: two texts with one key under two names are one cosigner.
    pub(crate) fn key(&self) -> &str {
        self.0.splitn(3, '+').nth(2).unwrap_or_default()
    }
}

/// `N` bytes as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A SHA-256.
pub type Digest = Hex<32>;

impl Digest {
    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NameError::Hex)?;
        if hex::encode(bytes) == text { Ok(Self(bytes)) } else { Err(NameError::Hex) }
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(value: Hex<N>) -> Self {
        hex::encode(value.0)
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key with which somebody signs entries: a verifier key of type 1.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatementKey(VerifierKey);

impl StatementKey {
    /// The key.
    pub fn vkey(&self) -> &VerifierKey {
        &self.0
    }

    /// The name it bears.
    pub fn name(&self) -> &str {
        self.0.origin()
    }

    /// The bare public key in base 64.
    pub(crate) fn key(&self) -> &str {
        self.0.as_str().splitn(3, '+').nth(2).unwrap_or_default()
    }
}

impl From<&VerifierKey> for StatementKey {
    fn from(key: &VerifierKey) -> Self {
        Self(key.clone())
    }
}

impl TryFrom<String> for StatementKey {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|_| NameError::StatementKey)
    }
}

impl From<StatementKey> for String {
    fn from(value: StatementKey) -> Self {
        value.0.as_str().to_owned()
    }
}

impl fmt::Display for StatementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StatementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'-';
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain) && text != "none"
}

fn is_url(text: &str) -> bool {
    let here = ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|start| {
        text.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let host = text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    (host || here)
        && text.len() <= MAX_URL_BYTES
        && text.bytes().all(|c| c.is_ascii_graphic())
        && !text.ends_with('/')
}

/// C2SP signed-note: the key's id is the first four bytes of SHA-256 over name, newline, type and key.
fn is_cosigner(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(3, '+').collect();
    let [name, id, key] = parts[..] else { return false };
    let Some(typed) = haar_identity::base64::decode_array::<33>(key) else { return false };
    let hash = sha2::Sha256::new().chain_update(name).chain_update("\n").chain_update(typed);
    typed[0] == COSIGNER_TYPE
        && ed25519_dalek::VerifyingKey::from_bytes(&typed[1..].try_into().unwrap_or_default())
            .is_ok()
        && name.len() <= haar_identity::MAX_ORIGIN_BYTES
        && signed_note::is_key_name_valid(name)
        && id == hex::encode(&hash.finalize()[..4])
}

/// A cosigner's key in tests, where no cosigner is needed.
#[cfg(test)]
pub(crate) fn cosigner(name: &str, seed: [u8; 32]) -> CosignerText {
    let mut typed = vec![COSIGNER_TYPE];
    typed.extend(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().as_bytes());
    let hash = sha2::Sha256::new().chain_update(name).chain_update("\n").chain_update(&typed);
    let id = hex::encode(&hash.finalize()[..4]);
    format!("{name}+{id}+{}", haar_identity::base64::encode(&typed)).parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["a", "hospital-a.example", "0"] {
            assert!(good.parse::<MemberName>().is_ok(), "{good}");
        }
        for bad in ["", "none", "A", "a b", "a/b", "a+b", "ä", &"x".repeat(65)] {
            assert_eq!(bad.parse::<MemberName>(), Err(NameError::Name), "{bad}");
        }
    }

    #[test]
    fn addresses_are_https_or_here() {
        for good in ["https://log.example", "https://log.example:8443/a", "http://127.0.0.1:1"] {
            assert!(good.parse::<Url>().is_ok(), "{good}");
        }
        for bad in [
            "https://",
            "http://log.example",
            "http://localhost.evil.example",
            "https://a b",
            "https://log.example/",
            "ftp://log.example",
        ] {
            assert_eq!(bad.parse::<Url>(), Err(NameError::Url), "{bad}");
        }
    }

    #[test]
    fn keys_have_one_form_each_by_type() {
        let text = cosigner("w.example/1", [7; 32]);
        for byte in 0..text.as_str().len() {
            let mut bytes = text.as_str().as_bytes().to_vec();
            bytes[byte] ^= 1;
            if let Ok(flipped) = String::from_utf8(bytes) {
                assert!(flipped.parse::<CosignerText>().is_err(), "{flipped}");
            }
        }
        let statement = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert!(StatementKey::try_from(statement.to_owned()).is_ok());
        assert!(statement.parse::<CosignerText>().is_err());
        assert!(StatementKey::try_from(text.to_string()).is_err());
        assert!("AB".parse::<Hex<1>>().is_err());
        assert_eq!("ab".parse::<Hex<1>>(), Ok(Hex([0xab])));
    }
}
