//! A search for what must not stand in anything that is published.
//!
//! A [`Needle`] is something secret in every spelling in which it could slip into bytes: text and bytes as
//! they are, in hexadecimal digits of either case, and in base 64 of either alphabet at each of the three
//! places at which they can begin; numbers as decimal text and as floats of either byte order.
//!
//! # Not found
//! What is shorter than [`MIN_BYTES`] in a spelling: bytes that say nothing would hold it by chance. A megabyte of
//! hashes has any given five bytes once in a million scans. And whatever is compressed, encrypted, or spelt in
//! another way.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::{BTreeSet, HashMap};

/// The shortest spelling that is looked for.
pub const MIN_BYTES: usize = 5;

/// Something that must not be found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Needle {
    label: String,
    spellings: BTreeSet<Vec<u8>>,
}

impl Needle {
    /// A text, such as an identifier or a code.
    pub fn text(text: &str) -> Self {
        let mut needle = Self::bytes(text, text.as_bytes());
        needle.spell(text.to_uppercase().into_bytes());
        needle.spell(text.to_lowercase().into_bytes());
        needle.spell(text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        needle
    }

    /// Bytes, such as a pseudonym; the label says which in a finding.
    pub fn bytes(label: &str, bytes: &[u8]) -> Self {
        let mut needle = Self { label: label.to_owned(), spellings: BTreeSet::new() };
        needle.spell(bytes.to_vec());
        needle.spell(bytes.iter().rev().copied().collect());
        needle.spell(hex::encode(bytes).into_bytes());
        needle.spell(hex::encode_upper(bytes).into_bytes());
        for at in 0..3 {
            // Characters that depend on what stands before or behind are left out.
            let shifted = [&vec![0; at][..], bytes].concat();
            let (begin, end) = ((at * 8).div_ceil(6), shifted.len() * 8 / 6);
            for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
                let text = engine.encode(&shifted).into_bytes();
                needle.spell(text.get(begin..end).unwrap_or_default().to_vec());
            }
        }
        needle
    }

    /// A number, such as a reading.
    pub fn number(value: f64) -> Self {
        let text = value.to_string();
        let mut needle = Self { label: text.clone(), spellings: BTreeSet::new() };
        needle.spell(text.clone().into_bytes());
        // Where it stands in JSON it is recognised when it is short.
        needle.spell(format!(":{text},").into_bytes());
        needle.spell(format!(":{text},\"").into_bytes());
        needle.spell(format!(":{text}}}").into_bytes());
        needle.spell(value.to_le_bytes().to_vec());
        needle.spell(value.to_be_bytes().to_vec());
        needle
    }

    /// What it is.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The spellings that are looked for.
    pub fn spellings(&self) -> impl Iterator<Item = &[u8]> {
        self.spellings.iter().map(Vec::as_slice)
    }

    fn spell(&mut self, bytes: Vec<u8>) {
        if bytes.len() >= MIN_BYTES {
            self.spellings.insert(bytes);
        }
    }
}

/// A needle that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Which of the needles.
    pub needle: usize,
    /// Where it begins in the bytes.
    pub at: usize,
}

/// Needles, ready to be looked for in much.
pub struct Scan<'a> {
    by_beginning: HashMap<[u8; MIN_BYTES], Vec<(usize, &'a [u8])>>,
}

impl<'a> Scan<'a> {
    /// Looks for these.
    pub fn new(needles: &'a [Needle]) -> Self {
        let mut by_beginning: HashMap<_, Vec<(usize, &[u8])>> = HashMap::new();
        for (number, needle) in needles.iter().enumerate() {
            for spelling in needle.spellings() {
                if let Some(beginning) = spelling.first_chunk() {
                    by_beginning.entry(*beginning).or_default().push((number, spelling));
                }
            }
        }
        Self { by_beginning }
    }

    /// All findings in `bytes`.
    pub fn find(&self, bytes: &[u8]) -> Vec<Finding> {
        let mut found = Vec::new();
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            let Some(beginning) = rest.first_chunk::<MIN_BYTES>() else { break };
            for (needle, spelling) in self.by_beginning.get(beginning).into_iter().flatten() {
                if rest.starts_with(spelling) {
                    found.push(Finding { needle: *needle, at });
                }
            }
        }
        found
    }
}

/// All findings of `needles` in `bytes`. For many pieces of bytes, keep a [`Scan`].
pub fn scan(bytes: &[u8], needles: &[Needle]) -> Vec<Finding> {
    Scan::new(needles).find(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_identity::base64;

    fn found(bytes: &[u8], needle: Needle) -> bool {
        !scan(bytes, &[needle]).is_empty()
    }

    #[test]
    fn every_spelling_is_found_wherever_it_stands() {
        let secret = [0x9a, 0x01, 0xfe, 0x33, 0x70, 0x5c, 0x88, 0x02, 0xb7, 0x19, 0xde, 0xad];
        let needle = Needle::bytes("subject", &secret);
        for before in 0..7 {
            for behind in 0..4 {
                let plain = [&vec![0xaa; before][..], &secret, &vec![0x55; behind]].concat();
                for spelt in [
                    plain.clone(),
                    hex::encode(&plain).into_bytes(),
                    hex::encode_upper(&plain).into_bytes(),
                    base64::encode(&plain).into_bytes(),
                    URL_SAFE_NO_PAD.encode(&plain).into_bytes(),
                ] {
                    assert!(found(&spelt, needle.clone()), "{before} before, {behind} behind");
                }
                let mut other = plain;
                other[before + 5] ^= 1;
                assert!(!found(&other, needle.clone()));
                assert!(!found(base64::encode(&other).as_bytes(), needle.clone()));
            }
        }
        assert!(found(b"{\"code\":\"8867-4\"}", Needle::text("8867-4")));
        assert!(found(b"MDC_PULS_RATE", Needle::text("mdc_puls_rate")));
    }

    #[test]
    fn numbers_are_found_in_text_and_as_floats() {
        for value in [71.25, 36.6, 97.0, -0.5] {
            let text = format!("{{\"mean\":{value},\"n\":1}}");
            assert!(found(text.as_bytes(), Needle::number(value)), "{value}");
            assert!(found(&[&[1, 2][..], &value.to_le_bytes()].concat(), Needle::number(value)));
            assert!(found(&[&[1][..], &value.to_be_bytes()].concat(), Needle::number(value)));
        }
        assert!(!found(b"{\"mean\":71.24,\"n\":1}", Needle::number(71.25)));
    }

    #[test]
    fn what_is_too_short_to_mean_anything_is_not_looked_for() {
        assert_eq!(Needle::bytes("b", &[1, 2]).spellings().count(), 0);
        assert!(Needle::text("8867-4").spellings().all(|spelling| spelling.len() >= MIN_BYTES));
    }
}
