//! Base 64 as C2SP uses it (RFC 4648, section 4), canonical: one text for given bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text of these bytes.
pub fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The bytes of this text; `None` unless it is exactly what [`encode`] gives.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    // The engine refuses missing or superfluous padding and stray bits behind the last byte.
    STANDARD.decode(text).ok()
}

/// As [`decode`], for exactly `N` bytes.
pub fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_text_is_read() {
        assert_eq!(decode("QQ=="), Some(vec![b'A']));
        for text in ["QR==", "QQ=", "QQ", "QQ==\n", " QQ==", "QQ-=", "====", "QQ==QQ=="] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode_array::<2>("QQ=="), None);
    }
}
