//! A ledger server, asked by its URL.

use crate::failure::Failure;
use haar_ledger::client::{Client, Level, http};
use haar_ledger::{Entry, Identity};
use serde_json::Value;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait until an entry is witnessed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which server.
#[derive(Debug, clap::Args)]
pub(super) struct Server {
    /// The server's URL: the operator's, or a mirror's to look at.
    #[arg(long, value_name = "URL", env = "HAAR_LEDGER")]
    ledger: String,
    /// The only authorities that are trusted for HTTPS; default the system's.
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
}

impl Server {
    /// Does something with a client.
    pub(super) fn ask<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        question: impl FnOnce(Client) -> F,
    ) -> Result<T, Failure> {
        let client = Client::new(http(self.ca_file.as_deref())?, &self.ledger);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(question(client))
    }

    /// What stands under a path, as JSON.
    pub(super) fn json(&self, path: &str) -> Result<Value, Failure> {
        self.ask(async |client| Ok(serde_json::from_slice(&client.get(path).await?)?))
    }

    /// What stands under a path, as text.
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        self.ask(async |client| Ok(String::from_utf8(client.get(path).await?)?))
    }

    /// The log's origin.
    pub(super) fn origin(&self) -> Result<String, Failure> {
        let state = self.json("/v1/state")?;
        let origin = state["origin"].as_str();
        origin.map(str::to_owned).ok_or_else(|| Failure::new("the server names no origin"))
    }

    /// Hands in an entry and says where it is.
    pub(super) fn hand_in(&self, entry: &Entry) -> Result<(), Failure> {
        let placed =
            self.ask(async |client| Ok(client.submit(entry, Level::Witnessed, PATIENCE).await?))?;
        match placed.level {
            Level::Witnessed => println!("entry {} is witnessed by a quorum", placed.index),
            Level::Sequenced => println!(
                "entry {} is in the log; too few witnesses have cosigned it in {} s",
                placed.index,
                PATIENCE.as_secs()
            ),
        }
        println!("id {}", hex::encode(entry.id()));
        Ok(())
    }
}

/// Reads a signing key.
pub(super) fn signer(path: &Path) -> Result<Identity, Failure> {
    Ok(Identity::load(path)?)
}

/// Reads an entry from a file.
pub(super) fn read_entry(path: &Path) -> Result<Entry, Failure> {
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    Ok(Entry::parse(&bytes)?)
}
