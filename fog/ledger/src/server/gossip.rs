//! Attempts are everybody's news: evidence is kept, told to all members, and put into the log.
//!
//! # Format
//! Table `evidence.kept`: place u64, from 1 → the evidence's text; `evidence.seen`: its id → place.
//!
//! Evidence is checked before it is kept: it proves by its own bytes what it says. So it does not matter who
//! told it, and telling it again changes nothing. Each member tells each other one once; a member that does
//! not answer asks for what it missed (`GET /v1/evidence`).
//!
//! # Limits
//! [`MAX_KEPT`] pieces are kept, and [`QUEUED`] wait to be told. What is refused beyond that is counted and
//! logged, without its content.

use crate::client::{Client, Level};
use crate::entry::{Entry, EntryKind};
use crate::evidence::{Evidence, EvidenceError, EvidenceKind};
use crate::identity::{Identity, VerifierKey};
use crate::witness::AddCheckpointError;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The most pieces of evidence that one server keeps.
pub const MAX_KEPT: u64 = 100_000;
/// Pieces in one page of an answer.
const PAGE: usize = 64;
/// Pieces that wait to be told.
const QUEUED: usize = 1_024;
/// How long to wait for a member or the log, and how often to try.
const PATIENCE: Duration = Duration::from_secs(5);
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

const KEPT: TableDefinition<u64, &str> = TableDefinition::new("evidence.kept");
const SEEN: TableDefinition<[u8; 32], u64> = TableDefinition::new("evidence.seen");

/// Where evidence is handed in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gossip {
    db: Arc<Database>,
    log: VerifierKey,
    news: mpsc::Sender<Evidence>,
}

/// The task that tells.
pub(crate) struct Telling<M> {
    news: mpsc::Receiver<Evidence>,
    http: reqwest::Client,
    /// The URLs of the other members, and of the log.
    members: M,
    log_url: Option<String>,
    log: VerifierKey,
    identity: Option<Identity>,
}

impl Gossip {
    /// Evidence in `db`; `members` gives the URLs to tell, `log_url` takes it as an entry signed by `identity`.
    pub(crate) fn open<M: Fn() -> Vec<String>>(
        db: Arc<Database>,
        http: reqwest::Client,
        members: M,
        (log, log_url): (VerifierKey, Option<String>),
        identity: Option<Identity>,
    ) -> Result<(Self, Telling<M>), redb::Error> {
        let tx = db.begin_write()?;
        tx.open_table(KEPT)?;
        tx.open_table(SEEN)?;
        tx.commit()?;
        let (sender, news) = mpsc::channel(QUEUED);
        let telling = Telling { news, http, members, log_url, log: log.clone(), identity };
        Ok((Self { db, log, news: sender }, telling))
    }

    /// Keeps what is new and about this log, and has it told.
    pub(crate) fn take(&self, evidence: Evidence) {
        if evidence.log() != self.log.as_str() {
            return;
        }
        match self.keep(&evidence) {
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(kind = %evidence.kind(), "evidence of an attempt; all members are told");
                if self.news.try_send(evidence).is_err() {
                    tracing::warn!("evidence is kept, and told to whoever asks: the queue is full");
                }
            }
            Err(error) => tracing::error!(%error, "evidence could not be kept"),
        }
    }

    /// A page of what was kept after place `after`, and the place to ask for next.
    pub(crate) fn page(&self, after: u64) -> Result<(u64, Vec<String>), redb::Error> {
        let table = self.db.begin_read()?.open_table(KEPT)?;
        let (mut next, mut page) = (after, Vec::new());
        for row in table.range(after.saturating_add(1)..)?.take(PAGE) {
            let (place, text) = row?;
            next = place.value();
            page.push(text.value().to_owned());
        }
        Ok((next, page))
    }

    /// An entry that the log's rules refuse: who made it has attempted something.
    pub(crate) fn refused(&self, kind: EvidenceKind, entry: &Entry, reason: &str) {
        self.made(Evidence::of_entry(&self.log, kind, entry, reason));
    }

    /// A checkpoint that a witness refused: if the log signed it, the log has attempted something.
    pub(crate) fn refused_checkpoint(&self, error: &AddCheckpointError) {
        if let AddCheckpointError::Inconsistent(seen) = error {
            self.made(Evidence::of_inconsistent(&self.log, seen));
        }
    }

    /// Two checkpoints of which one does not follow from the other.
    pub(crate) fn contradiction(&self, earlier: &str, later: &str) {
        self.made(Evidence::of_checkpoints(&self.log, earlier, later));
    }

    fn made(&self, made: Result<Evidence, EvidenceError>) {
        match made {
            Ok(evidence) => self.take(evidence),
            Err(error) => tracing::error!(%error, "an attempt that shows nothing to others"),
        }
    }

    fn keep(&self, evidence: &Evidence) -> Result<bool, redb::Error> {
        let tx = self.db.begin_write()?;
        {
            let (mut kept, mut seen) = (tx.open_table(KEPT)?, tx.open_table(SEEN)?);
            if seen.get(evidence.id())?.is_some() || kept.len()? >= MAX_KEPT {
                return Ok(false);
            }
            let place = kept.last()?.map_or(0, |(place, _)| place.value()) + 1;
            kept.insert(place, evidence.to_text().as_str())?;
            seen.insert(evidence.id(), place)?;
        }
        tx.commit()?;
        Ok(true)
    }
}

impl<M: Fn() -> Vec<String>> Telling<M> {
    /// Tells until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let evidence = tokio::select! {
                evidence = self.news.recv() => evidence,
                () = shutdown.cancelled() => None,
            };
            let Some(evidence) = evidence else { return };
            let told = self.everybody().await.into_iter().map(|url| {
                let client = Client::new(self.http.clone(), &url);
                let evidence = evidence.clone();
                async move {
                    for _ in 0..TRIES {
                        match client.tell(&evidence).await {
                            Ok(()) => return,
                            Err(error) => tracing::debug!(%error, "a member was not told"),
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
            let everybody = futures_util::future::join_all(told);
            tokio::join!(everybody, self.enter(&evidence));
        }
    }

    /// Where the other members are. A server that has just started has not read it from the log yet.
    async fn everybody(&self) -> Vec<String> {
        for _ in 0..TRIES {
            let members = (self.members)();
            if !members.is_empty() {
                return members;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Vec::new()
    }

    /// Puts it into the log, signed by this member.
    async fn enter(&self, evidence: &Evidence) {
        let (Some(url), Some(identity)) = (&self.log_url, &self.identity) else { return };
        let entry = match Entry::sign(EntryKind::Evidence, self.log.origin(), evidence, &[identity])
        {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%error, "evidence is too long for an entry");
                return;
            }
        };
        let client = Client::new(self.http.clone(), url);
        for _ in 0..TRIES {
            match client.submit(&entry, Level::Sequenced, PATIENCE).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(%error, "evidence is not in the log yet"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
