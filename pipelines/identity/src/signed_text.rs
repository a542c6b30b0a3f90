//! Texts that somebody has signed who may.

use signed_note::{Note, StandardVerifier, VerifierList};

/// What a signed note says (<https://c2sp.org/signed-note>), and on whose word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedText {
    /// The text, which ends with a line feed.
    pub text: String,
    /// Those of the keys asked about that have signed it; none: nobody who may.
    pub by: Vec<String>,
}

impl SignedText {
    /// Reads a note of at most `max_bytes`, and finds out which of these verifier keys have signed it. A key that is none has signed nothing, nor
    /// has one whose signature does not fit. `None`: not a signed note.
    pub fn open(note: &[u8], max_bytes: usize, keys: &[String]) -> Option<Self> {
        if note.len() > max_bytes {
            return None;
        }
        let note = Note::from_bytes(note).ok()?;
        let text = String::from_utf8(note.text().to_vec()).ok()?;
        let has_signed = |key: &&String| {
            let Ok(verifier) = StandardVerifier::new(key) else { return false };
            let alone = VerifierList::new(vec![Box::new(verifier)]);
            note.verify(&alone).is_ok_and(|(good, _)| !good.is_empty())
        };
        let by = keys.iter().filter(has_signed).cloned().collect();
        Some(Self { text, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    const TEXT: &str = "one line\nanother\n";

    #[test]
    fn only_who_has_signed_is_named() {
        let [one, two, three] =
            [1, 2, 3].map(|seed| Identity::generate("a.example/officer", [seed; 32]).unwrap());
        let keys = [&one, &two, &three].map(|own| own.vkey().to_string());
        let note = one.sign(TEXT).unwrap();
        let both = {
            let second = two.sign(TEXT).unwrap();
            let line = String::from_utf8(second).unwrap();
            [&note[..], line.split_once("\n\n").unwrap().1.as_bytes()].concat()
        };
        let open = |note: &[u8], keys: &[String]| SignedText::open(note, 1_000, keys).unwrap();
        assert_eq!(open(&note, &keys), SignedText { text: TEXT.into(), by: keys[..1].into() });
        assert_eq!(open(&both, &keys).by, keys[..2]);
        assert!(open(&note, &keys[1..]).by.is_empty());
        assert!(open(&note, &["no key".into()]).by.is_empty());
        // With another text the signature does not fit.
        let forged = String::from_utf8(note.clone()).unwrap().replace("one", "two");
        assert!(open(forged.as_bytes(), &keys).by.is_empty());
        assert!(SignedText::open(&note, note.len(), &keys).is_some());
        assert!(SignedText::open(&note, note.len() - 1, &keys).is_none(), "too long");
        assert!(SignedText::open(TEXT.as_bytes(), 1_000, &keys).is_none(), "not signed at all");
    }
}
