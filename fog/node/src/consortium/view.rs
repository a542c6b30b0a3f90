//! What this site knows of the consortium, and since when.
//!
//! # Format
//! The log's copy is in [`super::copy_file`], tables of `haar_ledger::consortium::Tiles`; nothing of it is secret. Table
//! `fog.statements` of the fog's database, leaf u64 → u64: the site's leaves with statements of patients, and how many
//! entries of the consortium log were known when each was taken. What they say lies sealed in the
//! log's records.
//!
//! # Age
//! The time since which a quorum of the pinned policy vouches for exactly the entries that are applied here. The
//! operator has witnesses cosign again every few seconds, so it grows only if operator or network are gone.

use super::roll::Roll;
use super::{Pinned, copy_file};
use crate::config::ConsortiumConfig;
use crate::store::Store;
use haar_ledger::consent::{BundleError, Consents, Decider, SignedStatement};
use haar_ledger::consortium::{Copy as LogCopy, Lineage, Reader, Tiles, TilesError};
use haar_ledger::governance::State;
use haar_ledger::{Policy, ReadError, VerifierKey, VerifierKeyError};
use haar_schema::Subject;
use haar_telemetry::{Gauge, Metrics, Outage, names};
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const STATEMENTS: TableDefinition<u64, u64> = TableDefinition::new("fog.statements");

/// Makes the table.
pub(crate) fn create(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(STATEMENTS)?;
    Ok(())
}

/// Notes that `leaf` has a statement that was taken when `entries` of the consortium log were known.
pub(crate) fn statements(
    tx: &WriteTransaction,
    leaf: u64,
    entries: u64,
) -> Result<(), redb::Error> {
    tx.open_table(STATEMENTS)?.insert(leaf, entries)?;
    Ok(())
}

/// Why the consortium log is not followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The copy of the consortium log.
    #[error("the copy of the consortium log: {0}")]
    Copy(#[from] TilesError),
    /// Its file.
    #[error(
        "the consortium log's copy in the data directory (consortium-*.redb) does not open: {0}. Move it away: it is copied again"
    )]
    Database(#[from] redb::Error),
    /// The copy of a log before.
    #[error(
        "{path}, the copy of the log {log} that the consortium log follows: {error}. Take that file from another fog", path = .path.display()
    )]
    Predecessor {
        /// The file.
        path: PathBuf,
        /// Whose copy.
        log: String,
        /// What is wrong.
        #[source]
        error: Box<redb::DatabaseError>,
    },
    /// A key of such a log.
    #[error("consortium.predecessors: {0}")]
    PredecessorKey(#[from] VerifierKeyError),
    /// What patients have said.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The consortium's state and the patients' statements.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) state: Option<State>,
    pub(crate) consents: Consents,
    /// Of the bundle that the state names.
    pub(crate) decider: Option<Result<Decider, BundleError>>,
    /// Since when a quorum vouches for the state, in POSIX seconds.
    pub(crate) vouched_s: Option<u64>,
}

/// The view, in the hands of those who read it and those who renew it.
#[derive(Clone, Default)]
pub(crate) struct SharedView(Arc<RwLock<View>>);

impl SharedView {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The patient was erased, and with them what they had granted.
    pub(crate) fn forget(&self, subject: Subject) {
        if let Ok(subject) = subject.to_hex().parse() {
            self.write().consents.forget(&subject);
        }
    }

    /// Applies new entries; since when a quorum vouches for the view then.
    fn renew(
        &self,
        before: &Lineage,
        new: &[(u64, Vec<u8>)],
        vouched_s: Option<u64>,
        roll: &Roll,
    ) -> Option<u64> {
        let mut view = self.write();
        for (index, entry) in new {
            view.apply(before, *index, entry);
        }
        if !new.is_empty() {
            roll.renew(view.state.as_ref());
        }
        view.vouched_s = view.vouched_s.max(vouched_s);
        view.vouched_s
    }
}

impl View {
    /// How old it is; the oldest possible if nobody ever vouched for it.
    pub(crate) fn age_s(&self, now_s: u64) -> u64 {
        self.vouched_s.map_or(u64::MAX, |at| now_s.saturating_sub(at))
    }

    /// Applies an entry. One that the rules refuse changes nothing, for everybody alike.
    pub(crate) fn apply(&mut self, before: &Lineage, index: u64, entry: &[u8]) {
        let known = self.state.as_ref().map(State::policy_bundle);
        let applied = before.apply(&mut self.state, index, entry);
        if let (Err(error), None) = (applied, &self.state) {
            tracing::error!(%error, "the consortium log does not begin");
        }
        let bundle = self.state.as_ref().map(State::policy_bundle);
        if bundle != known {
            self.decider = bundle.map(Decider::new);
        }
    }
}

/// Copies the consortium log and renews the view.
pub(crate) struct Follower {
    copy: LogCopy,
    before: Lineage,
    policy: Policy,
    readers: Vec<Reader>,
    poll: Duration,
    view: SharedView,
    roll: Roll,
    outage: Outage,
    vouched: Gauge<f64>,
}

impl Follower {
    /// Begins with what is on disk.
    pub(crate) fn open(
        config: &ConsortiumConfig,
        pinned: &Pinned,
        data_dir: &Path,
        store: &Store,
        roll: Roll,
        metrics: &Metrics,
    ) -> Result<Self, ViewError> {
        let Pinned { policy, log, .. } = pinned;
        let before = lineage(&config.predecessors, data_dir)?;
        let path = data_dir.join(copy_file(log));
        let db = redb::Database::create(path).map_err(redb::Error::from)?;
        let tiles = Tiles::open(Arc::new(db), log.clone())?;
        let readers = pinned.clients(&config.urls).into_iter().map(Reader::new).collect();
        let poll = Duration::from_millis(config.poll_ms);
        let mut view = View::default();
        let mut first = 0;
        loop {
            let entries = tiles.entries(first)?;
            if entries.is_empty() {
                break;
            }
            for (index, entry) in (first..).zip(&entries) {
                view.apply(&before, index, entry);
            }
            first += entries.len() as u64;
        }
        restore(&mut view, store)?;
        roll.renew(view.state.as_ref());
        let view = SharedView(Arc::new(RwLock::new(view)));
        let vouched = metrics.gauge(&names::FOG_CONSORTIUM_VOUCHED);
        let copy = LogCopy::open(tiles)?;
        let policy = policy.clone();
        let outage = Outage::default();
        Ok(Self { copy, before, policy, readers, poll, view, roll, outage, vouched })
    }

    pub(crate) fn view(&self) -> SharedView {
        self.view.clone()
    }

    /// Follows until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut pace = tokio::time::interval(self.poll);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = shutdown.cancelled() => return,
            }
            tokio::select! {
                () = self.look() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Asks one node after the other until one has what a quorum vouches for.
    async fn look(&mut self) {
        for reader in &self.readers {
            let note = match reader.client().checkpoint().await {
                Ok(note) => note,
                Err(error) => {
                    tracing::debug!(%error, "a node of the consortium log does not answer");
                    continue;
                }
            };
            let cosigned = match self.policy.check(&note) {
                Ok(cosigned) => cosigned,
                Err(error) => {
                    tracing::error!(%error, "the consortium log publishes what does not count");
                    continue;
                }
            };
            let new = match self.copy.advance(reader, &note).await {
                Ok(new) => new,
                Err(error) => {
                    tracing::error!(%error, "the consortium log was not copied");
                    continue;
                }
            };
            // A checkpoint of fewer entries vouches for another view than this one.
            let is_whole = cosigned.size == self.copy.size();
            let vouched_s = self.policy.vouched_s(&cosigned).filter(|_| is_whole);
            let (view, before, roll) = (self.view.clone(), self.before.clone(), self.roll.clone());
            // Who reads holds the view for as long as records are looked for: not on a thread that serves others.
            let renewed =
                tokio::task::spawn_blocking(move || view.renew(&before, &new, vouched_s, &roll));
            if let Ok(Some(vouched_s)) = renewed.await {
                self.vouched.record(vouched_s as f64, &[]);
            }
            if self.outage.ends() {
                tracing::info!("the consortium log has what counts again");
            }
            return;
        }
        if self.outage.begins() {
            tracing::warn!("no node of the consortium log has what counts; the view grows old");
        }
    }
}

/// Takes up again what patients have said, in the order in which it was taken.
fn restore(view: &mut View, store: &Store) -> Result<(), ViewError> {
    let Some(state) = &view.state else { return Ok(()) };
    let site = store.log().identity().origin();
    let table = store.database().begin_read().map_err(redb::Error::from)?;
    let table = table.open_table(STATEMENTS).map_err(redb::Error::from)?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (leaf, entries) = row.map_err(redb::Error::from)?;
        let leaf = leaf.value();
        let record = match store.log().record(leaf) {
            Ok(record) => record,
            // An erased patient has said nothing any more.
            Err(ReadError::Erased { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let opened = SignedStatement::open_at(&record.body, site, state, entries.value());
        if let Err(error) = opened.and_then(|signed| view.consents.add(&signed)) {
            tracing::error!(leaf, %error, "a patient's statement cannot be taken up again");
        }
    }
    Ok(())
}

/// The copies of the logs before.
fn lineage(keys: &[String], data_dir: &Path) -> Result<Lineage, ViewError> {
    let mut logs = Vec::new();
    for key in keys {
        let log: VerifierKey = key.parse()?;
        let path = data_dir.join(copy_file(&log));
        let db = redb::Database::open(&path).map_err(|error| ViewError::Predecessor {
            path,
            log: log.origin().to_owned(),
            error: Box::new(error),
        })?;
        logs.push(Tiles::open(Arc::new(db), log)?);
    }
    Ok(Lineage::new(logs))
}
