//! Attempts are everybody's news: evidence is kept, told to all members, and put into the log.
//!
//! # Format
//! Table `evidence.kept`: place u64, from 1 → the evidence's text; `evidence.seen`: its id → place; `evidence.told`: a
//! member's name, or nothing for the log → the place up to which it was told.
//!
//! Evidence is checked before it is kept: it shows by its own bytes what it says, or a member of the log said it and signed. So it does
//! not matter who told it, and telling it again changes nothing. Each member tells each other one, in order, until it has
//! answered ([`telling`]), also across restarts; sites ask for it (`GET /v1/evidence`).
//!
//! # Limits
//! [`MAX_KEPT`] pieces are kept. What is refused beyond that is counted and logged, without its content.

mod telling;

pub(crate) use telling::{Target, Telling};

use super::instruments::Instruments;
use super::operator::SharedState;
use crate::entry::Entry;
use crate::evidence::{Evidence, EvidenceError, EvidenceKind};
use haar_identity::{Identity, VerifierKey};
use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use std::sync::{Arc, PoisonError};
use tokio::sync::Notify;

/// The most pieces of evidence that one server keeps.
pub const MAX_KEPT: u64 = 100_000;
/// Pieces in one page of an answer.
const PAGE: usize = 64;

const KEPT: TableDefinition<u64, &str> = TableDefinition::new("evidence.kept");
const SEEN: TableDefinition<[u8; 32], u64> = TableDefinition::new("evidence.seen");
const TOLD: TableDefinition<&str, u64> = TableDefinition::new("evidence.told");

/// Where evidence is handed in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gossip {
    db: Arc<Database>,
    log: VerifierKey,
    /// Who the members are, by the log; to know who speaks.
    state: SharedState,
    /// With whose key this member speaks.
    identity: Option<Arc<Identity>>,
    /// There is something to tell.
    news: Arc<Notify>,
    instruments: Instruments,
}

/// Why evidence is not on disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotKept {
    /// About a log that this server has nothing to do with.
    #[error("the evidence is about another log than this server's")]
    OtherLog,
    /// It rests on somebody's word who is no member.
    #[error("what the evidence rests on is not said by a member of the log")]
    Stranger,
    /// Who the members are is not known here (yet).
    #[error("this server does not know (yet) who the members of the log are")]
    MembersUnknown,
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

impl Gossip {
    /// Evidence in `db` about `log`.
    pub(crate) fn open(
        db: Arc<Database>,
        log: VerifierKey,
        state: SharedState,
        identity: Option<Arc<Identity>>,
        instruments: Instruments,
    ) -> Result<Self, redb::Error> {
        let tx = db.begin_write()?;
        tx.open_table(KEPT)?;
        tx.open_table(SEEN)?;
        tx.open_table(TOLD)?;
        tx.commit()?;
        Ok(Self { db, log, state, identity, news: Arc::default(), instruments })
    }

    /// Keeps what is new and about this log, and has it told. When it returns without error, the evidence is
    /// on disk, now or from before.
    pub(crate) async fn take(&self, evidence: Evidence) -> Result<(), NotKept> {
        if evidence.log() != self.log.as_str() {
            return Err(NotKept::OtherLog);
        }
        self.check_speaker(&evidence)?;
        let kind = evidence.kind();
        // It writes to disk: not on a thread that serves others.
        let own = self.clone();
        let kept = tokio::task::spawn_blocking(move || own.keep(&evidence)).await;
        if kept.map_err(|_| NotKept::Stopping)?? {
            tracing::error!(%kind, "evidence of an attempt; all members are told");
            self.instruments.evidence(kind);
            self.news.notify_one();
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
        if let Some(by) = self.voice(kind) {
            self.made(Evidence::of_entry(&self.log, kind, entry, reason, by)).await;
        }
    }

    /// Two checkpoints of which one does not follow from the other.
    pub(crate) async fn contradiction(&self, earlier: &str, later: &str) {
        let by = self.identity.as_deref();
        self.made(Evidence::of_checkpoints(&self.log, earlier, later, by)).await;
    }

    /// A checkpoint with a signature line that does not fit, of the log or of a witness (`key`).
    pub(crate) async fn bad_signature(&self, note: &str, key: &str) {
        if let Some(by) = self.voice(EvidenceKind::BadSignature) {
            self.made(Evidence::of_bad_signature(&self.log, note, key, by)).await;
        }
    }

    /// No quorum has vouched for anything newer than `note` since `since_s`.
    pub(crate) async fn stale(&self, note: &str, since_s: u64) {
        if let Some(by) = self.voice(EvidenceKind::Stale) {
            self.made(Evidence::of_stale(&self.log, note, since_s, by)).await;
        }
    }

    /// With whose key this server says what it has seen.
    fn voice(&self, kind: EvidenceKind) -> Option<&Identity> {
        if self.identity.is_none() {
            tracing::error!(
                %kind,
                "an attempt; nobody is told, for [member] has no key to say so with"
            );
        }
        self.identity.as_deref()
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

    /// What rests on a word must be a member's.
    fn check_speaker(&self, evidence: &Evidence) -> Result<(), NotKept> {
        if evidence.is_proof() {
            return Ok(());
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match evidence.is_vouched_by(state.as_ref().ok_or(NotKept::MembersUnknown)?) {
            true => Ok(()),
            false => Err(NotKept::Stranger),
        }
    }

    /// Whether it is new; in any case it is on disk.
    fn keep(&self, evidence: &Evidence) -> Result<bool, NotKept> {
        // The same is said again and again, by a stale log at each look: that is not worth a transaction.
        if self.has(evidence.id())? {
            return Ok(false);
        }
        let tx = self.db.begin_write().map_err(redb::Error::from)?;
        if let Some(not_new) = put(&tx, evidence)? {
            return not_new;
        }
        tx.commit().map_err(redb::Error::from)?;
        Ok(true)
    }

    fn has(&self, id: [u8; 32]) -> Result<bool, redb::Error> {
        Ok(self.db.begin_read()?.open_table(SEEN)?.get(id)?.is_some())
    }

    /// The next piece that a target has not been told, and its place.
    fn untold(&self, target: &str) -> Result<Option<(u64, String)>, redb::Error> {
        let read = self.db.begin_read()?;
        let told = read.open_table(TOLD)?.get(target)?.map_or(0, |place| place.value());
        let kept = read.open_table(KEPT)?;
        let next = kept.range(told.saturating_add(1)..)?.next().transpose()?;
        Ok(next.map(|(place, text)| (place.value(), text.value().to_owned())))
    }

    /// The target has been told up to this place. On disk.
    fn told(&self, target: &str, place: u64) -> Result<(), redb::Error> {
        let tx = self.db.begin_write()?;
        tx.open_table(TOLD)?.insert(target, place)?;
        tx.commit()?;
        Ok(())
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
