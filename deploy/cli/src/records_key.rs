//! The key under which a log's records are sealed, for commands that read a log.

use crate::failure::Failure;
use haar_fog::RECORDS_KEY_FILE;
use haar_ledger::RecordsKey;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the records key is.
#[derive(clap::Args)]
pub struct RecordsKeyArgs {
    /// The records key; without it records.key beside the database, if it is there.
    #[arg(long, value_name = "FILE")]
    records_key: Option<PathBuf>,
}

impl RecordsKeyArgs {
    /// The key; `None` if none was given and none lies beside the database.
    pub fn load(&self, database: &Path) -> Result<Option<Arc<RecordsKey>>, Failure> {
        let path = match &self.records_key {
            Some(path) => path.clone(),
            None => {
                let beside = database.with_file_name(RECORDS_KEY_FILE);
                if !beside.exists() {
                    return Ok(None);
                }
                beside
            }
        };
        Ok(Some(Arc::new(RecordsKey::load(&path)?)))
    }
}
