//! Erasing patients: from a fog that is stopped (here), and from one that runs ([`eraser`], by a signed [`order`]).
//!
//! Their data keys are destroyed, which the log says in a leaf each; see `haar-ledger`. Their courses, open
//! alarms and parameters go in the same transaction; the hashes of their windows' inputs were sealed under the same keys.
//!
//! # Not erased
//! What edges have in their spools (until they may forget it; the fog leaves out what comes of it), what was sent to others, backups. In a fog
//! that runs, readings of windows that are still open and a day's episodes stay in the dataflow's memory until they are over, and are neither
//! committed nor shown; grants and revocations of the patient stay in the memory of the read API until it is started again.

use crate::store::{DATABASE_FILE, RECORDS_KEY_FILE, Store, StoreEraseError, StoreError};
use haar_ledger::{Erased, Identity, IdentityError, erasure_name};
use haar_schema::{Subject, Timestamp};
use serde::Serialize;
use std::path::PathBuf;

pub(crate) mod eraser;
pub(crate) mod order;

/// Whose data directory, and its keys.
#[derive(Clone, Debug)]
pub struct Erasure {
    /// The fog's data directory.
    pub data_dir: PathBuf,
    /// The log's signing key; `None`: `log.key` in the data directory.
    pub log_key: Option<PathBuf>,
    /// The records key; `None`: `records.key` in the data directory.
    pub records_key: Option<PathBuf>,
}

/// What is said of an erasure, as the fog answers it and `haar erase` prints it.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Receipts {
    /// One for each patient, in the order given.
    pub erased: Vec<Receipt>,
}

/// One patient was erased. The receipt is kept nowhere.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The pseudonym, in hexadecimal.
    pub subject: String,
    /// The leaf that says so.
    pub leaf: u64,
    /// The leaf's name, in hexadecimal: [`erasure_name`] of receipt and keyholder.
    pub name: String,
    /// The key with which it can be shown whose erasure the leaf is, in hexadecimal.
    pub receipt: String,
}

impl Receipts {
    fn of(subjects: &[Subject], erased: &[Erased]) -> Self {
        let receipt = |(subject, erased): (&Subject, &Erased)| Receipt {
            subject: subject.to_hex(),
            leaf: erased.leaf,
            name: hex::encode(erasure_name(&erased.receipt, &erased.keyholder)),
            receipt: hex::encode(erased.receipt),
        };
        Self { erased: subjects.iter().zip(erased).map(receipt).collect() }
    }
}

/// Why nobody was erased, or not surely.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErasureError {
    /// There is no fog's database.
    #[error("{path} is not there; give the data_dir of the fog's configuration", path = .0.display())]
    NoDatabase(PathBuf),
    /// The log's key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The database does not open; most likely the fog runs.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See there.
    #[error(transparent)]
    Erase(#[from] StoreEraseError),
}

impl Erasure {
    /// Erases these patients, all or none. `now`: the time by this machine's clock.
    ///
    /// # Errors
    /// If the fog runs, a key is missing, or one of them is unknown. What is not certain is said to be so.
    pub fn run(&self, subjects: &[Subject], now: Timestamp) -> Result<Receipts, ErasureError> {
        let database = self.data_dir.join(DATABASE_FILE);
        if !database.exists() {
            return Err(ErasureError::NoDatabase(database));
        }
        let beside =
            |file: &Option<PathBuf>, name| file.clone().unwrap_or_else(|| self.data_dir.join(name));
        let identity = Identity::load(&beside(&self.log_key, "log.key"))?;
        let records_key = beside(&self.records_key, RECORDS_KEY_FILE);
        let store = Store::open_with(&self.data_dir, identity, records_key)?;
        Ok(Receipts::of(subjects, &store.erase(subjects, now)?))
    }
}
