//! Proof files.
//!
//! # Format
//! C2SP tlog-proof (`c2sp.org/tlog-proof@v1`), file extension `.tlog-proof`, at most
//! [`MAX_PROOF_BYTES`]:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64 of the opening>
//! index <decimal>
//! <base64 of a hash, from the leaf's sibling up; at most 64 lines>
//!
//! <the checkpoint note, verbatim>
//! ```
//!
//! The *opening* is what one needs to compute the leaf. It is one JSON object with exactly these
//! fields in this order and no white space:
//!
//! | field | |
//! |---|---|
//! | `v` | 1 |
//! | `kind` | name of the [`LeafKind`] |
//! | `name` | 64 hexadecimal digits |
//! | `key` | base64 of the commitment's key |
//! | `body` | base64 of the bytes committed to |
//! | `log` | the log's verifier key, a hint: nothing authenticates it |
//!
//! Where the opening is not to be told, or was erased, `extra` holds the *bare leaf* instead: an object with
//! `v` (1), `leaf` (its 34 bytes as hexadecimal digits) and `log`.
//!
//! There is one text for one proof: whatever is not in that form is refused, so no byte can be changed
//! into another spelling of the same thing.

use crate::leaf::{LEAF_BYTES, LeafKind, MAX_BODY_BYTES};
use crate::tables::Record;
use haar_identity::VerifierKey;
use haar_identity::base64;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// The longest proof file: a body of [`MAX_BODY_BYTES`] in base64 twice over, and room for the rest.
pub const MAX_PROOF_BYTES: usize = MAX_BODY_BYTES * 2;

/// The most hashes in an inclusion proof: one for each bit of a tree's size.
const MAX_PATH: usize = 64;

const HEADER: &str = "c2sp.org/tlog-proof@v1";
const OPENING_VERSION: u8 = 1;

/// A proof as it stands in the file. That it can be read does not say that it holds: see
/// [`crate::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct ProofFile {
    pub(crate) extra: Vec<u8>,
    pub(crate) index: u64,
    pub(crate) path: Vec<[u8; 32]>,
    pub(crate) checkpoint: String,
}

/// What a proof file is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProofKind {
    /// A record of a site log: [`crate::verify`].
    Record,
    /// A leaf of a site log that is not opened: [`crate::verify_leaf`].
    Leaf,
    /// An entry of the consortium log: [`crate::verify_entry`].
    Entry,
}

/// Why a file is not a proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Over [`MAX_PROOF_BYTES`].
    #[error("a proof file has at most {MAX_PROOF_BYTES} bytes, this one {0}")]
    TooLong(usize),
    /// Another format.
    #[error("not a proof file: its first line is not {HEADER}")]
    Header,
    /// A line is not as the format wants it.
    #[error("line {line} of the proof file is malformed: expected {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// The extra line decodes but its content is no opening.
    #[error("the opening in the extra line is malformed or not in its canonical form")]
    Opening,
}

impl ProofFile {
    /// The leaf's index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What it claims to be a proof of.
    ///
    /// # Errors
    /// If it holds no opening at all.
    pub fn kind(&self) -> Result<ProofKind, ProofError> {
        let extra: BTreeMap<String, Value> =
            serde_json::from_slice(&self.extra).map_err(|_| ProofError::Opening)?;
        Ok(match (extra.contains_key("entry"), extra.contains_key("leaf")) {
            (true, _) => ProofKind::Entry,
            (_, true) => ProofKind::Leaf,
            _ => ProofKind::Record,
        })
    }

    /// The file's content.
    pub fn to_text(&self) -> String {
        write_lines(Some(&self.extra), self.index, &self.path, &self.checkpoint)
    }

    /// Reads a file's content.
    ///
    /// # Errors
    /// Unless it is exactly what [`ProofFile::to_text`] would write.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        if text.len() > MAX_PROOF_BYTES {
            return Err(ProofError::TooLong(text.len()));
        }
        let mut lines = Lines { rest: text, number: 0 };
        if lines.next() != Some(HEADER) {
            return Err(ProofError::Header);
        }
        let extra = lines.next().and_then(|line| base64::decode(line.strip_prefix("extra ")?));
        let extra = extra.ok_or_else(|| lines.expected("extra and base64"))?;
        let (index, path) = lines.index_and_path()?;
        Ok(Self { extra, index, path, checkpoint: lines.rest.to_owned() })
    }
}

/// Writes the lines of a C2SP tlog-proof.
pub(crate) fn write_lines(
    extra: Option<&[u8]>,
    index: u64,
    path: &[[u8; 32]],
    checkpoint: &str,
) -> String {
    let extra = extra.map(|extra| format!("extra {}\n", base64::encode(extra)));
    let mut text = format!("{HEADER}\n{}index {index}\n", extra.unwrap_or_default());
    for hash in path {
        text += &base64::encode(hash);
        text.push('\n');
    }
    text.push('\n');
    text += checkpoint;
    text
}

/// Reads the lines of a C2SP tlog-proof that has no extra data: index, path and checkpoint.
pub(crate) fn read_plain(text: &str) -> Result<(u64, Vec<[u8; 32]>, &str), ProofError> {
    let mut lines = Lines { rest: text, number: 0 };
    if lines.next() != Some(HEADER) {
        return Err(ProofError::Header);
    }
    let (index, path) = lines.index_and_path()?;
    Ok((index, path, lines.rest))
}

impl fmt::Debug for ProofFile {
    /// Without the opening, which is about a patient.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProofFile(leaf {}, {} hashes)", self.index, self.path.len())
    }
}

/// What opens a leaf.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    pub(crate) record: Record,
    pub(crate) log: VerifierKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpeningJson {
    v: u8,
    kind: String,
    name: String,
    key: String,
    body: String,
    log: String,
}

impl Opening {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = OpeningJson {
            v: OPENING_VERSION,
            kind: self.record.kind.as_str().to_owned(),
            name: hex::encode(self.record.name),
            key: base64::encode(&self.record.key),
            body: base64::encode(&self.record.body),
            log: self.log.to_string(),
        };
        // Strings and a number: serialising them has no failure.
        serde_json::to_vec(&json).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let opening = Self::read(bytes).ok_or(ProofError::Opening)?;
        if opening.encode() == bytes { Ok(opening) } else { Err(ProofError::Opening) }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let json: OpeningJson = serde_json::from_slice(bytes).ok()?;
        let mut name = [0; 32];
        hex::decode_to_slice(json.name, &mut name).ok()?;
        let body = base64::decode(&json.body).filter(|body| body.len() <= MAX_BODY_BYTES)?;
        let record = Record {
            kind: json.kind.parse::<LeafKind>().ok()?,
            name,
            key: base64::decode_array(&json.key)?,
            body,
        };
        (json.v == OPENING_VERSION).then_some(Self { record, log: json.log.parse().ok()? })
    }
}

/// A leaf without what it commits to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BareLeaf {
    pub(crate) leaf: [u8; LEAF_BYTES],
    pub(crate) log: VerifierKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BareLeafJson {
    v: u8,
    leaf: String,
    log: String,
}

impl BareLeaf {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let json = BareLeafJson {
            v: OPENING_VERSION,
            leaf: hex::encode(self.leaf),
            log: self.log.to_string(),
        };
        // Strings and a number: serialising them has no failure.
        serde_json::to_vec(&json).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let bare = Self::read(bytes).ok_or(ProofError::Opening)?;
        if bare.encode() == bytes { Ok(bare) } else { Err(ProofError::Opening) }
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let json: BareLeafJson = serde_json::from_slice(bytes).ok()?;
        let mut leaf = [0; LEAF_BYTES];
        hex::decode_to_slice(json.leaf, &mut leaf).ok()?;
        Some(Self { leaf, log: json.log.parse().ok()? })
    }
}

/// Lines that all end in a newline; what is behind the last one taken stays in `rest`.
struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(line)
    }

    /// The index line, the path, and the empty line behind it; the checkpoint is what is left.
    fn index_and_path(&mut self) -> Result<(u64, Vec<[u8; 32]>), ProofError> {
        let index = self.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or_else(|| self.expected("index and a decimal number"))?;
        let mut path = Vec::new();
        loop {
            match self.next() {
                Some("") => break,
                Some(line) if path.len() < MAX_PATH => {
                    let hash = base64::decode_array(line);
                    path.push(hash.ok_or_else(|| self.expected("base64 of 32 bytes"))?);
                }
                _ => return Err(self.expected("an empty line before the checkpoint")),
            }
        }
        Ok((index, path))
    }

    fn expected(&self, expected: &'static str) -> ProofError {
        ProofError::Line { line: self.number, expected }
    }
}

fn decimal(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}
