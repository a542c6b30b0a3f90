//! Proofs of entries of the consortium log, as a server gives them.
//!
//! # Format
//! C2SP tlog-proof (`c2sp.org/tlog-proof@v1`) without the `extra` line: what the leaf is, whoever asked for the
//! proof has. At most [`MAX_PLAIN_PROOF_BYTES`].

use crate::checkpoint::MAX_COSIGNED_BYTES;
use crate::proof::{read_plain, write_lines};

/// The longest proof: 64 hashes and a checkpoint with many cosignatures.
pub const MAX_PLAIN_PROOF_BYTES: usize = MAX_COSIGNED_BYTES + 4 * 1024;

/// A proof. That it can be read does not say that it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlainProof {
    /// The entry's index.
    pub index: u64,
    /// RFC 6962 inclusion proof, from the leaf's sibling up.
    pub path: Vec<[u8; 32]>,
    /// The checkpoint's note with its cosignatures.
    pub checkpoint: String,
}

/// The text is not a proof in its one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a C2SP tlog-proof without extra data")]
pub struct MalformedProof;

impl PlainProof {
    /// The proof as text.
    pub fn to_text(&self) -> String {
        write_lines(None, self.index, &self.path, &self.checkpoint)
    }

    /// Reads a proof.
    ///
    /// # Errors
    /// Unless it is in its one form.
    pub fn parse(text: &str) -> Result<Self, MalformedProof> {
        if text.len() > MAX_PLAIN_PROOF_BYTES {
            return Err(MalformedProof);
        }
        let (index, path, checkpoint) = read_plain(text).map_err(|_| MalformedProof)?;
        Ok(Self { index, path, checkpoint: checkpoint.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_proof_has_one_text() {
        let proof =
            PlainProof { index: 7, path: vec![[1; 32], [2; 32]], checkpoint: "x\n".to_owned() };
        let text = proof.to_text();
        assert_eq!(PlainProof::parse(&text), Ok(proof));
        for other in [
            text.replace("index 7", "index 07"),
            text.replace("index 7", "index +7"),
            text.replace("\n\n", "\n \n"),
            text.replace("@v1", "@v2"),
        ] {
            assert_eq!(PlainProof::parse(&other), Err(MalformedProof), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(c2sp.org/tlog-proof@v1\nindex [0-9]{1,3}\n)?[a-zA-Z0-9+/=\n]{0,200}") {
            if let Ok(proof) = PlainProof::parse(&text) {
                prop_assert_eq!(proof.to_text(), text);
            }
        }
    }
}
