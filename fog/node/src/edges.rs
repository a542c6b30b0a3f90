//! Which key vouches for which edge's readings.
//!
//! The link has checked the signature of each batch that bears one, and [`crate::consortium::roll`] that the key counts. Where an edge's
//! lane is first signed by a key, goes over to another, or ceases to be signed, a leaf of the site log says so: the lane's incarnation, the sequence,
//! the key. So whose word a window rests on can be told from the log, long after the key was revoked.
//!
//! # Format
//! Table `fog.edge_keys`: edge id → (incarnation \[16\], verifier key or nothing). The record's body is JSON, [`Vouched`]; its
//! name is SHA-256 of `haar-edge-key/v1`, newline and the edge's id.

use haar_ledger::VerifierKey;
use haar_schema::EdgeId;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::sync::Arc;

const EDGE_KEYS: TableDefinition<&str, ([u8; 16], &str)> = TableDefinition::new("fog.edge_keys");

/// Makes the table.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(EDGE_KEYS)?;
    Ok(())
}

/// From `first_seq` on a lane's batches are signed by a key, or by none.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) first_seq: u64,
    pub(crate) key: Option<Arc<VerifierKey>>,
}

/// What the leaf says.
#[derive(Serialize)]
pub(crate) struct Vouched<'a> {
    edge: &'a str,
    incarnation: String,
    first_seq: u64,
    key: Option<&'a str>,
}

impl Signed {
    fn key(&self) -> &str {
        self.key.as_ref().map_or("", |key| key.as_str())
    }

    /// Whether it is other than what was last written down of the edge.
    pub(crate) fn is_news(
        &self,
        db: &Database,
        edge: &EdgeId,
        incarnation: &[u8; 16],
    ) -> Result<bool, redb::Error> {
        let table = db.begin_read()?.open_table(EDGE_KEYS)?;
        Ok(match table.get(edge.as_str())? {
            Some(row) => row.value() != (*incarnation, self.key()),
            None => self.key.is_some(),
        })
    }

    /// The leaf's name and body.
    pub(crate) fn record(&self, edge: &EdgeId, incarnation: &[u8; 16]) -> ([u8; 32], Vec<u8>) {
        let name = Sha256::new().chain_update("haar-edge-key/v1\n").chain_update(edge.as_str());
        let body = Vouched {
            edge: edge.as_str(),
            incarnation: hex::encode(incarnation),
            first_seq: self.first_seq,
            key: self.key.as_ref().map(|key| key.as_str()),
        };
        // Texts and a number always have a JSON form.
        (name.finalize().into(), serde_json::to_vec(&body).unwrap_or_default())
    }

    /// Writes it down, in the transaction of the leaf.
    pub(crate) fn note(
        &self,
        tx: &WriteTransaction,
        edge: &EdgeId,
        incarnation: &[u8; 16],
    ) -> Result<(), redb::Error> {
        tx.open_table(EDGE_KEYS)?.insert(edge.as_str(), (*incarnation, self.key()))?;
        Ok(())
    }
}
