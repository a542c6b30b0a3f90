//! Attempts are everybody's news: evidence is kept, told to all members, and put into the log.
//!
//! # Format
//! Table `evidence.kept`: place u64, from 1 → the evidence's text; `evidence.seen`: its id → place.
//!
//! Evidence is checked before it is kept: it shows by its own bytes what it says. So it does not matter who
//! told it, and telling it again changes nothing. Each member tells each other one once, [`TRIES`] times at most; whoever did
//! not answer may ask for what it missed (`GET /v1/evidence`), as sites do.
//!
//! # Limits
//! [`MAX_KEPT`] pieces are kept, and [`QUEUED`] wait to be told. What is refused beyond that is counted and
//! logged, without its content.

use crate::client::{Client, Level};
use crate::entry::{Entry, EntryKind};
use crate::evidence::{Evidence, EvidenceError, EvidenceKind};
use crate::identity::{Identity, VerifierKey};
use crate::witness::AddCheckpointError;
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most pieces of evidence that one server keeps.
pub const MAX_KEPT: u64 = 100_000;
/// Pieces in one page of an answer.
const PAGE: usize = 64;
/// Pieces that wait to be told.
const QUEUED: usize = 1_024;
/// Pieces that are being told.
const UNDER_WAY: usize = 64;
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

/// Why evidence is not on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// About a log that this server has nothing to do with.
    #[error("the evidence is about another log than this server's")]
    OtherLog,
    /// Over [`MAX_KEPT`].
    #[error(
        "this server keeps {MAX_KEPT} pieces of evidence and no more: look at them, and move its database away"
    )]
    Full,
    /// It is not known whether it was written.
    #[error("the server's database: {0}")]
    Database(#[from] redb::Error),
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

/// The task that tells.
pub(crate) struct Telling<M> {
    news: mpsc::Receiver<Evidence>,
    teller: Teller<M>,
}

/// Whom to tell, and how.
struct Teller<M> {
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
        let teller = Teller { http, members, log_url, log: log.clone(), identity };
        Ok((Self { db, log, news: sender }, Telling { news, teller }))
    }

    /// Keeps what is new and about this log, and has it told. When it returns without error, the evidence is
    /// on disk, now or from before.
    pub(crate) async fn take(&self, evidence: Evidence) -> Result<(), NotKept> {
        if evidence.log() != self.log.as_str() {
            return Err(NotKept::OtherLog);
        }
        let kind = evidence.kind();
        // It writes to disk: not on a thread that serves others.
        let (own, told) = (self.clone(), evidence.clone());
        let kept = tokio::task::spawn_blocking(move || own.keep(&evidence)).await;
        if kept.map_err(|_| NotKept::Stopping)?? {
            tracing::error!(%kind, "evidence of an attempt; all members are told");
            if self.news.try_send(told).is_err() {
                tracing::warn!("evidence is kept, and told to whoever asks: the queue is full");
            }
        }
        Ok(())
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
    pub(crate) async fn refused(&self, kind: EvidenceKind, entry: &Entry, reason: &str) {
        self.made(Evidence::of_entry(&self.log, kind, entry, reason)).await;
    }

    /// A checkpoint that a witness refused: if the log signed it, the log has attempted something.
    pub(crate) async fn refused_checkpoint(&self, error: &AddCheckpointError) {
        if let Some(seen) = error.evidence() {
            self.made(Evidence::of_inconsistent(&self.log, seen)).await;
        }
    }

    /// Two checkpoints of which one does not follow from the other.
    pub(crate) async fn contradiction(&self, earlier: &str, later: &str) {
        self.made(Evidence::of_checkpoints(&self.log, earlier, later)).await;
    }

    async fn made(&self, made: Result<Evidence, EvidenceError>) {
        match made {
            Ok(evidence) => {
                if let Err(error) = self.take(evidence).await {
                    tracing::error!(%error, "evidence of an attempt was not kept");
                }
            }
            Err(error) => tracing::error!(%error, "an attempt that shows nothing to others"),
        }
    }

    /// Whether it is new; in any case it is on disk.
    fn keep(&self, evidence: &Evidence) -> Result<bool, NotKept> {
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        if let Some(not_new) = put(&tx, evidence)? {
            return not_new;
        }
        tx.commit().map_err(redb::Error::from)?;
        Ok(true)
    }
}

/// Puts it where it is kept; if nothing was put there, why.
fn put(
    tx: &WriteTransaction,
    evidence: &Evidence,
) -> Result<Option<Result<bool, NotKept>>, redb::Error> {
    let (mut kept, mut seen) = (tx.open_table(KEPT)?, tx.open_table(SEEN)?);
    if seen.get(evidence.id())?.is_some() {
        return Ok(Some(Ok(false)));
    }
    if kept.len()? >= MAX_KEPT {
        return Ok(Some(Err(NotKept::Full)));
    }
    let place = kept.last()?.map_or(0, |(place, _)| place.value()) + 1;
    kept.insert(place, evidence.to_text().as_str())?;
    seen.insert(evidence.id(), place)?;
    Ok(None)
}

impl<M: Fn() -> Vec<String> + Send + Sync + 'static> Telling<M> {
    /// Tells until `shutdown`. One piece does not wait for another: a member that does not answer holds up
    /// nobody's news but its own.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { mut news, teller } = self;
        let teller = Arc::new(teller);
        let mut under_way = JoinSet::new();
        loop {
            let evidence = tokio::select! {
                evidence = news.recv(), if under_way.len() < UNDER_WAY => evidence,
                Some(_) = under_way.join_next() => continue,
                () = shutdown.cancelled() => None,
            };
            let Some(evidence) = evidence else { return };
            let teller = Arc::clone(&teller);
            under_way.spawn(async move { teller.tell(&evidence).await });
        }
    }
}

impl<M: Fn() -> Vec<String>> Teller<M> {
    async fn tell(&self, evidence: &Evidence) {
        let told = self.everybody().await.into_iter().map(|url| {
            let client = Client::new(self.http.clone(), &url);
            async move {
                for _ in 0..TRIES {
                    match client.tell(evidence).await {
                        Ok(()) => return,
                        Err(error) => tracing::debug!(%error, "a member was not told"),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        let everybody = futures_util::future::join_all(told);
        tokio::join!(everybody, self.enter(evidence));
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
