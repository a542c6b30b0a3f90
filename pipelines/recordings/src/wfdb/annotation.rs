//! Annotation files in the MIT format: annot(5) of the WFDB Applications Guide.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest annotation file that is read: some ten million beats.
pub const MAX_ANNOTATION_BYTES: u64 = 32 << 20;

/// Symbols by annotation code (annot(5), "Annotation codes"). Codes that the table leaves open are
/// [`char::REPLACEMENT_CHARACTER`].
const SYMBOLS: &[u8; 42] = b" NLRaVFJASEj/Q~?|?sT*D\"=pB^t+u?![]en@xf()r";

/// Codes without a meaning of their own, which stand as `?` in [`SYMBOLS`]. 30 is the true `?`.
const OPEN_CODES: [u16; 2] = [15, 17];

/// Symbols of annotations that mark a heart beat.
const BEATS: &str = "NLRBAaJSVrFejnE/fQ?";

/// A label at a point of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// When, in samples from the record's start.
    pub sample: u64,
    /// What, as a letter: `N` a normal beat, `V` a ventricular one, `+` a change of rhythm, …
    pub symbol: char,
    /// Subtype; its meaning depends on the symbol.
    pub subtype: i8,
    /// The signal it belongs to.
    pub channel: u8,
    /// A number that the annotator gave it.
    pub number: i8,
    /// Text, such as the name of the rhythm; a final NUL is dropped.
    pub aux: Option<String>,
}

/// Why annotations could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// The file cannot be read.
    #[error(
        "cannot read annotations {path}: {source}; they lie beside the record, such as 100.atr"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Larger than [`MAX_ANNOTATION_BYTES`].
    #[error("{path} is larger than {MAX_ANNOTATION_BYTES} bytes, which no annotation file is")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The end mark is missing.
    #[error("{path} is cut short at byte {at}, after {annotations} annotations; fetch it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes read.
        at: usize,
        /// Annotations before.
        annotations: usize,
    },
    /// A pseudo-annotation at an impossible place, or a time before the record's start.
    #[error(
        "{path} is no MIT annotation file, or is damaged: nonsense at byte {at}; fetch it again"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        at: usize,
    },
}

impl Annotation {
    /// Whether it marks a heart beat (and not a rhythm, a noise or a flutter wave).
    pub fn is_beat(&self) -> bool {
        BEATS.contains(self.symbol)
    }
}

/// Reads an annotation file whole, in the order of its entries, which is that of time.
pub fn read_annotations(path: impl AsRef<Path>) -> Result<Vec<Annotation>, AnnotationError> {
    let path = path.as_ref();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ANNOTATION_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| AnnotationError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_ANNOTATION_BYTES {
        return Err(AnnotationError::TooLarge { path: path.to_owned() });
    }
    decode(&bytes).map_err(|problem| match problem {
        Problem::Truncated { at, annotations } => {
            AnnotationError::Truncated { path: path.to_owned(), at, annotations }
        }
        Problem::Malformed { at } => AnnotationError::Malformed { path: path.to_owned(), at },
    })
}

/// Codes above the annotation types (annot(5), "pseudo-annotations").
const SKIP: u16 = 59;
const NUM: u16 = 60;
const SUB: u16 = 61;
const CHN: u16 = 62;
const AUX: u16 = 63;

#[derive(Debug, PartialEq)]
enum Problem {
    Truncated { at: usize, annotations: usize },
    Malformed { at: usize },
}

/// Every entry is 16 bits, least significant byte first: code in the upper 6, a number in the lower 10.
fn decode(bytes: &[u8]) -> Result<Vec<Annotation>, Problem> {
    let mut annotations: Vec<Annotation> = Vec::new();
    let mut at = 0;
    let mut time: i64 = 0;
    // NUM and CHN hold for what follows until they are changed.
    let (mut number, mut channel) = (0_i8, 0_u8);
    loop {
        let truncated = Problem::Truncated { at: bytes.len(), annotations: annotations.len() };
        let Some(word) = word(bytes, at) else { return Err(truncated) };
        let (code, value) = (word >> 10, word & 0x3ff);
        let here = at;
        at += 2;
        let malformed = Problem::Malformed { at: here };
        match code {
            0 if value == 0 => return Ok(annotations),
            SKIP => {
                // A 32-bit interval as the PDP-11 wrote it: upper half first, each half little-endian.
                let (Some(high), Some(low)) = (self::word(bytes, at), self::word(bytes, at + 2))
                else {
                    return Err(truncated);
                };
                let interval = (u32::from(high) << 16 | u32::from(low)) as i32;
                time = time.saturating_add(i64::from(interval));
                at += 4;
            }
            NUM => {
                number = value as u8 as i8;
                annotations.last_mut().ok_or(malformed)?.number = number;
            }
            SUB => annotations.last_mut().ok_or(malformed)?.subtype = value as u8 as i8,
            CHN => {
                channel = value as u8;
                annotations.last_mut().ok_or(malformed)?.channel = channel;
            }
            AUX => {
                let length = usize::from(value);
                let Some(text) = bytes.get(at..at + length) else { return Err(truncated) };
                let text = String::from_utf8_lossy(text);
                annotations.last_mut().ok_or(malformed)?.aux =
                    Some(text.trim_end_matches('\0').to_owned());
                at += length + length % 2;
            }
            _ => {
                time = time.saturating_add(i64::from(value));
                let sample = u64::try_from(time).map_err(|_| malformed)?;
                let symbol = symbol(code);
                annotations.push(Annotation {
                    sample,
                    symbol,
                    subtype: 0,
                    channel,
                    number,
                    aux: None,
                });
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn symbol(code: u16) -> char {
    if OPEN_CODES.contains(&code) {
        return char::REPLACEMENT_CHARACTER;
    }
    SYMBOLS.get(usize::from(code)).map_or(char::REPLACEMENT_CHARACTER, |byte| char::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// annot(5) the other way round, as the WFDB library writes it.
    fn encode(annotations: &[Annotation]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (mut time, mut number, mut channel) = (0, 0, 0);
        let entry = |bytes: &mut Vec<u8>, code: u16, value: u16| {
            bytes.extend((code << 10 | value).to_le_bytes());
        };
        for annotation in annotations {
            let mut gap = annotation.sample - time;
            time = annotation.sample;
            if gap > 1023 {
                entry(&mut bytes, SKIP, 0);
                bytes.extend(((gap >> 16) as u16).to_le_bytes());
                bytes.extend((gap as u16).to_le_bytes());
                gap = 0;
            }
            let code = (1..42).find(|code| symbol(*code) == annotation.symbol).unwrap();
            entry(&mut bytes, code, gap as u16);
            if annotation.subtype != 0 {
                entry(&mut bytes, SUB, u16::from(annotation.subtype as u8));
            }
            if annotation.channel != channel {
                channel = annotation.channel;
                entry(&mut bytes, CHN, u16::from(channel));
            }
            if annotation.number != number {
                number = annotation.number;
                entry(&mut bytes, NUM, u16::from(number as u8));
            }
            if let Some(aux) = &annotation.aux {
                entry(&mut bytes, AUX, aux.len() as u16);
                bytes.extend(aux.as_bytes());
                bytes.resize(bytes.len().next_multiple_of(2), 0);
            }
        }
        entry(&mut bytes, 0, 0);
        bytes
    }

    #[test]
    fn the_symbols_of_beats_are_known() {
        let known: Vec<char> = (0..64).map(symbol).collect();
        for beat in BEATS.chars() {
            assert!(known.contains(&beat), "{beat}");
        }
        assert_eq!((symbol(1), symbol(12), symbol(13), symbol(28)), ('N', '/', 'Q', '+'));
        assert_eq!((symbol(30), symbol(31), symbol(38), symbol(41)), ('?', '!', 'f', 'r'));
        assert_eq!((symbol(15), symbol(17)), ('\u{fffd}', '\u{fffd}'));
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(decode(&[]), Err(Problem::Truncated { at: 0, annotations: 0 }));
        assert_eq!(decode(&[5, 4, 7]), Err(Problem::Truncated { at: 3, annotations: 1 }));
        // A subtype of nothing; a time before the start.
        assert_eq!(decode(&[0, 61 << 2, 0, 0]), Err(Problem::Malformed { at: 0 }));
        let back = [0, 59 << 2, 0xff, 0xff, 0, 0, 0, 4, 0, 0];
        assert_eq!(decode(&back), Err(Problem::Malformed { at: 6 }));
    }

    fn annotations() -> impl Strategy<Value = Vec<Annotation>> {
        let aux = proptest::option::of("[(A-Za-z]{1,9}");
        let one = (0u64..100_000, "[NLRaVFJASEjQ+~]", any::<i8>(), any::<u8>(), any::<i8>(), aux);
        proptest::collection::vec(one, 0..30).prop_map(|list| {
            let mut sample = 0;
            list.into_iter()
                .map(|(gap, symbol, subtype, channel, number, aux)| {
                    sample += gap;
                    let symbol = symbol.chars().next().unwrap();
                    Annotation { sample, symbol, subtype, channel, number, aux }
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(annotations in annotations()) {
            prop_assert_eq!(decode(&encode(&annotations)), Ok(annotations));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
