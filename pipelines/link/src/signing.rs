//! Signatures of batches.
//!
//! # Format
//! Ed25519 (RFC 8032) over this text, each line with its end:
//!
//! ```text
//! haar-batch/v1
//! <edge id>
//! <the spool's incarnation, 32 hexadecimal digits>
//! <first sequence> <number of entries>
//! <SHA-256 over each entry's length, u32 little-endian, and bytes; 64 hexadecimal digits>
//! ```
//!
//! # What is not said
//! When the batch was signed; entries bear their own times. The trace context is not covered.

use crate::Batch;
use haar_identity::{Identity, VerifierKey};
use haar_schema::EdgeId;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE_BYTES: usize = 64;

/// Whose batches are signed: one spool of one edge.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) edge: EdgeId,
    pub(crate) incarnation: [u8; 16],
}

impl Origin {
    /// Signs a batch, which names the key then.
    pub(crate) fn sign(&self, batch: &mut Batch, key: &Arc<Identity>) -> [u8; SIGNATURE_BYTES] {
        batch.key = Some(Arc::new(key.vkey().clone()));
        key.sign_bytes(self.text(batch).as_bytes())
    }

    /// Whether the batch is signed by `key`.
    pub(crate) fn verifies(
        &self,
        batch: &Batch,
        key: &VerifierKey,
        signature: &[u8; SIGNATURE_BYTES],
    ) -> bool {
        key.verifies(self.text(batch).as_bytes(), signature)
    }

    fn text(&self, batch: &Batch) -> String {
        let mut hash = Sha256::new();
        for entry in &batch.entries {
            // At most MAX_ENTRY_BYTES.
            hash.update((entry.len() as u32).to_le_bytes());
            hash.update(entry);
        }
        format!(
            "haar-batch/v1\n{}\n{}\n{} {}\n{}\n",
            self.edge,
            hex::encode(self.incarnation),
            batch.first_seq,
            batch.entries.len(),
            hex::encode(hash.finalize())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_the_lane_the_place_and_each_entry() {
        let key = Arc::new(Identity::generate("site.example/edge-1", [3; 32]).unwrap());
        let origin = Origin { edge: "edge-1".parse().unwrap(), incarnation: [7; 16] };
        let entries = vec![vec![1, 2].into(), vec![3].into()];
        let mut batch = Batch { first_seq: 9, entries, traceparent: None, key: None };
        let signature = origin.sign(&mut batch, &key);
        assert_eq!(batch.key.as_deref(), Some(key.vkey()));
        let verifies =
            |origin: &Origin, batch: &Batch| origin.verifies(batch, key.vkey(), &signature);
        assert!(verifies(&origin, &batch));
        assert!(!verifies(&Origin { incarnation: [8; 16], ..origin.clone() }, &batch));
        assert!(!verifies(&Origin { edge: "edge-2".parse().unwrap(), ..origin.clone() }, &batch));
        assert!(!verifies(&origin, &Batch { first_seq: 10, ..batch.clone() }));
        // The same bytes, cut elsewhere.
        let entries = vec![vec![1].into(), vec![2, 3].into()];
        assert!(!verifies(&origin, &Batch { entries, ..batch }));
    }

    /// Whoever checks one elsewhere needs these bytes.
    #[test]
    fn the_signed_text_is_as_specified() {
        let origin = Origin { edge: "edge-1".parse().unwrap(), incarnation: [7; 16] };
        let batch =
            Batch { first_seq: 9, entries: vec![vec![1, 2].into()], traceparent: None, key: None };
        expect_test::expect![[r#"
            haar-batch/v1
            edge-1
            07070707070707070707070707070707
            9 1
            81540ddc172ee212bc36b7e75f7b49cbd5feaf8686065cca7a3b0a49b7fa75c5
        "#]]
        .assert_eq(&origin.text(&batch));
    }
}
