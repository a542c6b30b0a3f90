//! Who and what: edges, devices, pseudonymous subjects.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The longest [`EdgeId`] or [`DeviceId`], in bytes.
pub const MAX_ID_BYTES: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Empty.
    #[error("an identifier may not be empty")]
    Empty,
    /// Over [`MAX_ID_BYTES`].
    #[error("an identifier has at most {MAX_ID_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A character outside `A-Z a-z 0-9 . _ : -`.
    #[error("an identifier has only letters, digits and . _ : -; byte {0} is something else")]
    Character(usize),
}

fn checked(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    match text.bytes().position(|b| !(b.is_ascii_alphanumeric() || b"._:-".contains(&b))) {
        Some(at) => Err(IdError::Character(at)),
        None => Ok(text.into()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                checked(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                checked(&text).map(Self)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

identifier! {
    /// An edge box, as named in its client certificate and in every window it feeds.
    EdgeId
}

identifier! {
    /// A device as its edge knows it: connector-independent, stable over reconnects.
    DeviceId
}

/// A patient, as a keyed pseudonym: the first 16 bytes of HMAC-SHA-256 (RFC 2104) of the hospital's
/// identifier under the edge's pseudonym key. Uniformly distributed, so its first half routes.
///
/// Made by `haar-normalize`; nothing behind the edge can turn it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject([u64; 2]);

impl Subject {
    /// From the 16 bytes of the pseudonym.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let whole = u128::from_be_bytes(bytes);
        Self([(whole >> 64) as u64, whole as u64])
    }

    /// The 16 bytes of the pseudonym.
    pub const fn to_bytes(self) -> [u8; 16] {
        (((self.0[0] as u128) << 64) | self.0[1] as u128).to_be_bytes()
    }

    /// Eight bytes that spread subjects evenly over workers.
    pub const fn route(self) -> u64 {
        self.0[0]
    }

    /// 32 hexadecimal digits. Not for logs, metrics or spans.
    pub fn to_hex(self) -> String {
        hex::encode(self.to_bytes())
    }

    /// Reads what [`Subject::to_hex`] wrote; `None` if it is not 32 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self::from_bytes(bytes))
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(redacted)")
    }
}

/// Hexadecimal where people read it, 16 bytes where machines do.
impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.to_hex())
        } else {
            self.to_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_hex(&text)
                .ok_or_else(|| serde::de::Error::custom("a subject is 32 hexadecimal digits"))
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self::from_bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_bounded_and_plain() {
        assert_eq!("edge-3.ward:b_1".parse::<EdgeId>().unwrap().as_str(), "edge-3.ward:b_1");
        assert_eq!("".parse::<EdgeId>(), Err(IdError::Empty));
        assert_eq!("bed 4".parse::<DeviceId>(), Err(IdError::Character(3)));
        assert_eq!("x".repeat(65).parse::<DeviceId>(), Err(IdError::TooLong(65)));
    }

    #[test]
    fn a_subject_is_not_printed_by_accident() {
        let subject = Subject::from_bytes(*b"0123456789abcdef");
        assert!(!format!("{subject:?}").contains(&subject.to_hex()));
        assert_eq!(Subject::from_hex(&subject.to_hex()), Some(subject));
    }
}
