//! The way of the site log to the consortium log.
//!
//! [`Envoy`] is one task beside the commits. It puts before the members
//! - the site's checkpoint, every `every_ms` if the log has grown: from then on the site cannot show two
//!   histories, and all sites' logs have one order. It says with it how the devices did whose keys the members
//!   know ([`crate::history`]);
//! - each leaf of a kind in [`PUT_FORWARD`], and each decision on access that was a break-glass, as a commitment of its own, so that a proof of one flagged event
//!   needs nothing else of the site;
//! - each alarm that an item was kept wrongly, as an excursion on the item's chain of custody ([`super::items`]).
//!
//! and takes from the members' servers the evidence of attempts, which becomes leaves of the site log.
//! The site log goes on without any of it: offline means that this is behind, never that readings wait.
//!
//! # Levels
//! *Sequenced* is what the log's operator says. *Witnessed* is what was checked here: the entry with the site's
//! checkpoint is in a tree that a quorum of the pinned policy has cosigned. What edges may forget waits for
//! the level in the configuration ([`super::Held`]).
//!
//! # Format
//! Table `fog.consortium`, text → u64: `next`, the first leaf that is not put forward; `sequenced`, `witnessed`,
//! the sizes of the site log that have reached that level; `told`, see [`crate::history`]; `evidence <url>`, the place in that server's evidence; `log`, the first
//! eight bytes of the SHA-256 of the consortium log's verifier key. Where that changes, because the members have gone on under another operator,
//! everything that was not witnessed is put forward again, before the new log; what it has from the old one it says.
//!
//! Losing a row means doing it again: entries are made deterministically, and the log knows them by their
//! bytes.

use super::Pinned;
use super::items::Items;
use super::roll::Roll;
use super::view::SharedView;
use crate::config::{ConsortiumConfig, KeepUntil};
use crate::history;
use crate::ingest::Gate;
use crate::stats::Tally;
use crate::store::Store;
use haar_ledger::client::{Client, FetchError, Level, SiteAt, SubmitError};
use haar_ledger::consent::Emergency;
use haar_ledger::consortium::included;
use haar_ledger::evidence::Evidence;
use haar_ledger::governance::{CommitmentBody, Hex, SiteCheckpointBody};
use haar_ledger::{
    Entry, EntryError, EntryKind, LEAF_BYTES, LeafKind, PlainProof, Policy, ReadError, Record,
    Snapshot,
};
use haar_telemetry::{Counter, Gauge, KeyValue, Metrics, Outage, names};
use redb::{ReadableDatabase, ReadableTable as _, TableDefinition, WriteTransaction};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const TABLE: TableDefinition<&str, u64> = TableDefinition::new("fog.consortium");
const NEXT: &str = "next";
const SEQUENCED: &str = "sequenced";
const WITNESSED: &str = "witnessed";
const LOG: &str = "log";
const EVIDENCE: &str = "evidence ";

/// The kinds of leaves that are put before the members one by one. Digests are covered by the site's
/// checkpoints.
pub const PUT_FORWARD: [LeafKind; 4] = [
    LeafKind::FlaggedEvent,
    LeafKind::ModelStatement,
    LeafKind::ConsentGrant,
    LeafKind::ConsentRevocation,
];

/// Leaves that are looked at in one round.
const LOOKED_AT: u64 = 4_096;
/// Commitments under way at once.
const UNDER_WAY: usize = 32;
/// Site checkpoints that are sequenced and not yet known to be witnessed.
const MAX_WAITING: usize = 64;
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait after the log has refused something. A refusal becomes evidence and so a leaf of this
/// site's log: without a pause the two would feed each other.
const AFTER_REFUSAL: Duration = Duration::from_secs(30);

/// Makes the table.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(TABLE)?;
    Ok(())
}

/// A site checkpoint on its way.
struct Waiting {
    size: u64,
    index: u64,
    entry: Entry,
}

/// Puts the site log before the members.
pub(crate) struct Envoy {
    store: Arc<Store>,
    gate: Arc<Gate>,
    tally: Arc<Tally>,
    clients: Vec<Client>,
    informants: Vec<Client>,
    roll: Roll,
    view: SharedView,
    items_file: Option<PathBuf>,
    policy: Policy,
    origin: String,
    every: Duration,
    release_at: KeepUntil,
    waiting: VecDeque<Waiting>,
    /// The log refuses what this site signs: it is not asked again before then.
    refused_until: Option<Instant>,
    /// No node takes what is put forward.
    outage: Outage,
    /// No node proves what it has witnessed.
    unproven: Outage,
    instruments: Instruments,
}

struct Instruments {
    behind: Gauge<f64>,
    entries: Counter<u64>,
    evidence: Counter<u64>,
}

impl Envoy {
    pub(crate) fn new(
        config: &ConsortiumConfig,
        pinned: &Pinned,
        store: Arc<Store>,
        (gate, tally): (Arc<Gate>, Arc<Tally>),
        (roll, view): (Roll, SharedView),
        metrics: &Metrics,
    ) -> Result<Self, redb::Error> {
        let Pinned { policy, log, .. } = pinned;
        let origin = log.origin().to_owned();
        if begin(&store, log.as_str())? {
            tracing::info!(
                log = origin,
                "another log than before; what was not witnessed is put forward again"
            );
        }
        tally.lock().stats.witnessed = Some(levels(&store)?[2]);
        let informants = match config.evidence_from.as_slice() {
            [] => &config.urls,
            named => named,
        };
        Ok(Self {
            clients: pinned.clients(&config.urls),
            informants: pinned.clients(informants),
            store,
            gate,
            tally,
            roll,
            view,
            items_file: config.items_file.clone(),
            policy: policy.clone(),
            origin,
            every: Duration::from_millis(config.every_ms),
            release_at: config.edges_keep_until,
            waiting: VecDeque::new(),
            refused_until: None,
            outage: Outage::default(),
            unproven: Outage::default(),
            instruments: Instruments {
                behind: metrics.gauge(&names::FOG_CONSORTIUM_BEHIND),
                entries: metrics.counter(&names::FOG_CONSORTIUM_ENTRIES),
                evidence: metrics.counter(&names::FOG_CONSORTIUM_EVIDENCE),
            },
        })
    }

    /// Goes to and fro until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut pace = tokio::time::interval(self.every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = self.round() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn round(&mut self) {
        if self.refused_until.is_none_or(|until| Instant::now() >= until) {
            self.refused_until = None;
            let put_forward = self.put_forward().await;
            let checkpoint = self.checkpoint().await;
            match put_forward.and(checkpoint) {
                Ok(()) if self.outage.ends() => {
                    tracing::info!("the members take what this site puts forward again");
                }
                Ok(()) => {}
                Err(RoundError::Submit(error @ SubmitError::Refused(_))) => {
                    tracing::error!(%error, "is this site's key registered in the consortium log? Asking again in half a minute");
                    self.refused_until = Some(Instant::now() + AFTER_REFUSAL);
                }
                Err(error) if self.outage.begins() => {
                    tracing::warn!(%error, "the site log is not put before the members; trying on");
                }
                Err(error) => {
                    tracing::debug!(%error, "the site log is not put before the members");
                }
            }
        }
        match self.look_for_witnesses().await {
            Ok(()) if self.unproven.ends() => {
                tracing::info!("the members prove what they have witnessed again");
            }
            Ok(()) => {}
            Err(error) if self.unproven.begins() => {
                tracing::warn!(%error, "no proof that the site's checkpoint is witnessed; asking on");
            }
            Err(error) => {
                tracing::debug!(%error, "no proof that the site's checkpoint is witnessed");
            }
        }
        for place in 0..self.informants.len() {
            if let Err(error) = self.ask_for_evidence(place).await {
                tracing::debug!(%error, "a member's server was not asked for evidence");
            }
        }
    }

    /// Puts leaves forward, in order, until the end of the log or the first that is not taken.
    async fn put_forward(&mut self) -> Result<(), RoundError> {
        loop {
            let next = self.number(NEXT)?;
            let snapshot = self.store.log().snapshot()?;
            let end = snapshot.size().min(next + LOOKED_AT);
            if next == end {
                return Ok(());
            }
            let mut entries = Vec::new();
            for index in next..end {
                let leaf = snapshot.leaf(index)?;
                let kind = LeafKind::from_byte(leaf[1]);
                let told = match kind {
                    Some(LeafKind::AccessDecision) => is_break_glass(&snapshot, index)?,
                    kind => kind.is_some_and(|kind| PUT_FORWARD.contains(&kind)),
                };
                if told {
                    entries.push(self.commitment(index, leaf)?);
                }
            }
            entries.extend(self.excursions(&snapshot, next..end)?);
            for batch in entries.chunks(UNDER_WAY) {
                let submitted = batch.iter().map(|entry| self.submit(entry, Level::Sequenced));
                let placed = futures_util::future::join_all(submitted).await;
                for (entry, placed) in batch.iter().zip(placed) {
                    match placed {
                        Ok(_) => self.count(entry.kind().as_str()),
                        // From before an answer was lost, or from the log that this one follows.
                        Err(RoundError::Submit(SubmitError::Known(_))) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            self.remember(NEXT, end)?;
        }
    }

    /// What alarms among these leaves mean for items that this site watches over.
    fn excursions(
        &self,
        snapshot: &Snapshot,
        leaves: std::ops::Range<u64>,
    ) -> Result<Vec<Entry>, RoundError> {
        let Some(path) = &self.items_file else { return Ok(Vec::new()) };
        let mut transitions = Vec::new();
        for index in leaves {
            let leaf = snapshot.leaf(index)?;
            if LeafKind::from_byte(leaf[1]) == Some(LeafKind::AlarmTransition) {
                match snapshot.record(index) {
                    Ok(record) => transitions.push((index, leaf, record.body)),
                    Err(ReadError::Erased { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if transitions.is_empty() {
            return Ok(Vec::new());
        }
        // Without the file nothing goes on: what it would have said must not be passed over.
        let items = Items::load(path)?;
        let view = self.view.read();
        let state = view.state.as_ref().ok_or(RoundError::NoView)?;
        let identity = self.store.log().identity();
        let bodies = transitions.iter().flat_map(|(index, leaf, body)| {
            items.excursions(body, (*index, *leaf), (state, identity.origin()))
        });
        bodies
            .map(|body| Ok(Entry::sign(EntryKind::Custody, &self.origin, &body, &[identity])?))
            .collect()
    }

    async fn checkpoint(&mut self) -> Result<(), RoundError> {
        let snapshot = self.store.log().snapshot()?;
        let size = snapshot.size();
        self.instruments.behind.record(size.saturating_sub(self.number(WITNESSED)?) as f64, &[]);
        let sent = self.waiting.back().map_or(self.number(WITNESSED)?, |waiting| waiting.size);
        if size <= sent || self.waiting.len() >= MAX_WAITING {
            return Ok(());
        }
        // What it has of this site it says itself: an answer may have been lost, or a backup put back.
        let known = self.known().await?;
        if let Some((client, at)) = &known
            && at.size > sent
            // At 0 is the log's first entry: that checkpoint stands in a log before it.
            && at.index > 0
        {
            let entry = client.entry(at.index).await?;
            entry.verify(self.store.log().identity().vkey())?;
            self.sequenced(at.size, at.index, entry).await?;
            return Ok(());
        }
        let known = known.map_or(0, |(_, at)| at.size);
        if known == size {
            return Ok(());
        }
        let body = SiteCheckpointBody {
            checkpoint: snapshot.checkpoint()?.note().to_owned(),
            proof: snapshot.consistency(known)?.into_iter().map(Hex).collect(),
            devices: history::untold(self.store.database(), &self.roll.devices())?,
        };
        let identity = self.store.log().identity();
        let entry = Entry::sign(EntryKind::SiteCheckpoint, &self.origin, &body, &[identity])?;
        let index = self.submit(&entry, Level::Witnessed).await?;
        self.count("site-checkpoint");
        self.sequenced(size, index, entry).await?;
        Ok(())
    }

    async fn sequenced(&mut self, size: u64, index: u64, entry: Entry) -> Result<(), RoundError> {
        let SiteCheckpointBody { devices, .. } = entry.body()?;
        if !devices.is_empty() {
            let store = Arc::clone(&self.store);
            tokio::task::spawn_blocking(move || history::told(store.database(), index, &devices))
                .await
                .map_err(|_| RoundError::Stopped)??;
        }
        self.remember(SEQUENCED, size)?;
        if self.release_at == KeepUntil::Sequenced {
            self.gate.release(size);
        }
        self.waiting.push_back(Waiting { size, index, entry });
        Ok(())
    }

    /// Checks whether the newest checkpoints that wait are witnessed. What one covers, the earlier ones do.
    async fn look_for_witnesses(&mut self) -> Result<(), RoundError> {
        for place in (0..self.waiting.len()).rev() {
            let Waiting { size, index, .. } = self.waiting[place];
            let Some(text) = self.proof(index).await? else { continue };
            let proof = PlainProof::parse(&text).map_err(|_| RoundError::Proof)?;
            let cosigned =
                self.policy.check(proof.checkpoint.as_bytes()).map_err(|_| RoundError::Proof)?;
            let entry = self.waiting[place].entry.as_bytes();
            if !included(&proof.path, cosigned.size, cosigned.root, index, entry) {
                return Err(RoundError::Proof);
            }
            self.remember(WITNESSED, size)?;
            self.tally.lock().stats.witnessed = Some(size);
            self.waiting.drain(..=place);
            if self.release_at == KeepUntil::Witnessed {
                self.gate.release(size);
            }
            return Ok(());
        }
        Ok(())
    }

    /// What the consortium log has of this site's log, and who says so.
    async fn known(&self) -> Result<Option<(Client, SiteAt)>, RoundError> {
        let origin = self.store.log().identity().origin();
        let mut last = None;
        for client in &self.clients {
            match client.site(origin).await {
                Ok(site) => return Ok(site.map(|at| (client.clone(), at))),
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(None), |error| Err(error.into()))
    }

    async fn proof(&self, index: u64) -> Result<Option<String>, RoundError> {
        let mut last = None;
        for client in &self.clients {
            match client.proof(index).await {
                Ok(text) => return Ok(Some(text)),
                Err(FetchError::Absent(_)) => last = None,
                Err(error) => last = Some(error),
            }
        }
        last.map_or(Ok(None), |error| Err(error.into()))
    }

    /// Whether it is proof, or a member's word.
    fn is_vouched(&self, evidence: &Evidence) -> Result<bool, RoundError> {
        if evidence.is_proof() {
            return Ok(true);
        }
        let view = self.view.read();
        // It is asked for again once it is known who the members are.
        Ok(evidence.is_vouched_by(view.state.as_ref().ok_or(RoundError::NoView)?))
    }

    async fn ask_for_evidence(&mut self, place: usize) -> Result<(), RoundError> {
        let client = self.informants[place].clone();
        let cursor = format!("{EVIDENCE}{}", client.url());
        let (next, found) = client.evidence(self.number(&cursor)?).await?;
        if found.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        for evidence in found {
            if evidence.log() != self.policy.logs()[0].key.as_str() {
                continue;
            }
            if !self.is_vouched(&evidence)? {
                tracing::warn!(kind = %evidence.kind(), "a server told evidence on the word of nobody who is a member");
                continue;
            }
            if self.store.log().find(&evidence.id())?.is_empty() {
                records.push(record(&evidence)?);
            }
        }
        self.instruments.evidence.add(records.len() as u64, &[]);
        for kind in &records {
            tracing::error!(kind = %kind.kind, "evidence of an attempt on the consortium log; it is in the site log");
        }
        let store = Arc::clone(&self.store);
        // It waits for the committer's transaction to end.
        tokio::task::spawn_blocking(move || store.note(&records, &cursor, next))
            .await
            .map_err(|_| RoundError::Stopped)??;
        Ok(())
    }

    fn commitment(&self, index: u64, leaf: [u8; LEAF_BYTES]) -> Result<Entry, RoundError> {
        let identity = self.store.log().identity();
        let body = CommitmentBody { site: identity.origin().to_owned(), index, leaf: Hex(leaf) };
        Ok(Entry::sign(EntryKind::Commitment, &self.origin, &body, &[identity])?)
    }

    /// Submits to the first node that takes it.
    async fn submit(&self, entry: &Entry, level: Level) -> Result<u64, RoundError> {
        let mut last = SubmitError::NotNow("no url is configured".to_owned());
        for client in &self.clients {
            match client.submit(entry, level, PATIENCE).await {
                Ok(placed) => return Ok(placed.index),
                Err(error @ (SubmitError::Refused(_) | SubmitError::Known(_))) => {
                    return Err(error.into());
                }
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    fn count(&self, kind: &'static str) {
        self.instruments.entries.add(1, &[KeyValue::new(names::label::KIND, kind)]);
    }

    fn number(&self, key: &str) -> Result<u64, redb::Error> {
        let table = self.store.database().begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.map_or(0, |row| row.value()))
    }

    fn remember(&self, key: &str, number: u64) -> Result<(), redb::Error> {
        let mut tx = self.store.database().begin_write()?;
        // The next durable commit takes it along; what is lost before that is done again.
        tx.set_durability(redb::Durability::None)?;
        set(&tx, key, number)?;
        tx.commit()?;
        Ok(())
    }
}

/// Notes which log the site is put before; whether it is another than before.
fn begin(store: &Store, log: &str) -> Result<bool, redb::Error> {
    let hash: [u8; 32] = Sha256::digest(log).into();
    let (number, _) = hash.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    let own = u64::from_be_bytes(*number);
    let tx = store.database().begin_write()?;
    let mut changed = false;
    {
        let mut table = tx.open_table(TABLE)?;
        let before = table.insert(LOG, own)?.map(|row| row.value());
        if before.is_some_and(|before| before != own) {
            changed = true;
            let witnessed = table.get(WITNESSED)?.map_or(0, |row| row.value());
            table.insert(NEXT, witnessed)?;
            table.insert(SEQUENCED, witnessed)?;
            table.insert(history::TOLD_BY, 0)?;
            // The members' servers begin anew with it; what is known already is known by its bytes.
            table.retain(|key, _| !key.starts_with(EVIDENCE))?;
        }
    }
    tx.commit()?;
    Ok(changed)
}

/// Whether a decision on access was one in an emergency. An erased one was told when it was made, or is not told.
fn is_break_glass(snapshot: &Snapshot, index: u64) -> Result<bool, ReadError> {
    match snapshot.record(index) {
        Ok(record) => Ok(Emergency::read(&record.body).is_some()),
        Err(ReadError::Erased { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a row of the table.
pub(crate) fn set(tx: &WriteTransaction, key: &str, number: u64) -> Result<(), redb::Error> {
    tx.open_table(TABLE)?.insert(key, number)?;
    Ok(())
}

/// Writes a row of the table if it has no number that is as great; whether it was written.
pub(crate) fn raise(tx: &WriteTransaction, key: &str, number: u64) -> Result<bool, redb::Error> {
    let mut table = tx.open_table(TABLE)?;
    let known = table.get(key)?.map(|row| row.value());
    let is_greater = known.is_none_or(|known| known < number);
    if is_greater {
        table.insert(key, number)?;
    }
    Ok(is_greater)
}

/// How far the site log has come: put forward, sequenced, witnessed.
pub(crate) fn levels(store: &Store) -> Result<[u64; 3], redb::Error> {
    let table = store.database().begin_read()?.open_table(TABLE)?;
    let number =
        |key| -> Result<u64, redb::Error> { Ok(table.get(key)?.map_or(0, |row| row.value())) };
    Ok([number(NEXT)?, number(SEQUENCED)?, number(WITNESSED)?])
}

/// Evidence as a leaf of the site log.
fn record(evidence: &Evidence) -> Result<Record, RoundError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(RoundError::Random)?;
    let body = evidence.to_text().into_bytes();
    Ok(Record { kind: LeafKind::Evidence, name: evidence.id(), key, body })
}

/// Why a step of a round was not done.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("the fog's database: {0}")]
    Database(#[from] redb::Error),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Commit(#[from] crate::store::CommitError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(
        "the log's proof does not hold under the pinned policy: do not trust it, and ask its members"
    )]
    Proof,
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Items(#[from] super::items::ItemsError),
    #[error("the members' log was not read here yet")]
    NoView,
    #[error("the node is stopping")]
    Stopped,
}
