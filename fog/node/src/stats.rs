//! What the node has done since it started, for views that poll it.

use haar_dataflow::rollup::{Change, Episode, Rollup};
use haar_schema::{Priority, Subject, Timestamp};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The flags that are kept for a view.
pub const RECENT_FLAGS: usize = 64;

/// The longest latency that is told apart, milliseconds.
const MAX_LATENCY_MS: u64 = 3_600_000;

/// A snapshot of what the node has done since it started.
#[derive(Clone, Debug, Default)]
pub struct FogStats {
    /// Observations that entered the dataflow, replayed ones among them.
    pub observations: u64,
    /// Bytes of entries taken from edges.
    pub bytes_in: u64,
    /// Windows committed, by pipeline.
    pub windows: BTreeMap<String, u64>,
    /// Corrections committed.
    pub corrections: u64,
    /// Flagged events committed, by flag and priority.
    pub flags: BTreeMap<(String, Priority), u64>,
    /// Readings too late for every window, by pipeline.
    pub dropped_late: BTreeMap<String, u64>,
    /// Readings that a limit dropped, by pipeline.
    pub dropped_limit: BTreeMap<String, u64>,
    /// Entries that could not be decoded.
    pub undecodable: u64,
    /// Windows computed again in a replay and not committed again.
    pub replayed_windows: u64,
    /// Bytes that go upstream: leaves and the checkpoint over them.
    pub bytes_committed: u64,
    /// Bytes of the records kept beside the leaves.
    pub bytes_recorded: u64,
    /// Leaves in the site log.
    pub leaves: u64,
    /// How many of them a quorum of the consortium has witnessed; `None` where the log stands alone.
    pub witnessed: Option<u64>,
    /// Edges connected now.
    pub edges: usize,
    /// Milliseconds from the ingest of the latest reading in a flagged window to the flag's commit.
    pub latency_p50_ms: Option<u64>,
    /// The 99th percentile of the same.
    pub latency_p99_ms: Option<u64>,
    /// The latest flags, oldest first.
    pub recent: Vec<RecentFlag>,
    /// Episodes of the last day of event time that the node has seen.
    pub episodes: usize,
}

/// A flag, for a view.
#[derive(Clone, Debug)]
pub struct RecentFlag {
    /// Its name.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// Whom it is about.
    pub subject: Subject,
    /// Its leaf in the site log.
    pub leaf_index: u64,
    /// See [`FogStats::latency_p50_ms`].
    pub latency_ms: u64,
}

/// Counts as the node works.
pub(crate) struct Tally(Mutex<Inner>);

pub(crate) struct Inner {
    pub(crate) stats: FogStats,
    recent: VecDeque<RecentFlag>,
    episodes: BTreeSet<Episode>,
    rollups: BTreeMap<(String, Timestamp), u64>,
    /// Who was erased since the node started, and when: nothing from before is shown.
    erased: BTreeMap<Subject, Timestamp>,
    latency_ms: Option<Histogram<u64>>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inner {
            stats: FogStats::default(),
            recent: VecDeque::new(),
            episodes: BTreeSet::new(),
            rollups: BTreeMap::new(),
            erased: BTreeMap::new(),
            // The bounds are constants that the histogram accepts; `None` would only lose a figure.
            latency_ms: Histogram::new_with_bounds(1, MAX_LATENCY_MS, 3).ok(),
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn snapshot(&self) -> FogStats {
        let inner = self.lock();
        let quantile = |share| {
            let histogram = inner.latency_ms.as_ref().filter(|histogram| !histogram.is_empty())?;
            Some(histogram.value_at_quantile(share))
        };
        FogStats {
            latency_p50_ms: quantile(0.5),
            latency_p99_ms: quantile(0.99),
            recent: inner.recent.iter().cloned().collect(),
            episodes: inner.episodes.len(),
            ..inner.stats.clone()
        }
    }
}

impl Tally {
    /// Episodes of the last day of event time.
    pub(crate) fn episodes(&self) -> Vec<Episode> {
        self.lock().episodes.iter().cloned().collect()
    }

    /// Patients by flag and hour.
    pub(crate) fn rollups(&self) -> Vec<Rollup> {
        let inner = self.lock();
        let rows = inner.rollups.iter();
        rows.map(|((flag, hour), patients)| Rollup {
            flag: flag.clone(),
            hour: *hour,
            patients: *patients,
        })
        .collect()
    }
}

impl Inner {
    /// Takes the changes of one epoch, of all workers: what no longer holds goes first.
    pub(crate) fn revise(&mut self, episodes: Vec<Change<Episode>>, rollups: Vec<Change<Rollup>>) {
        let (added, removed): (Vec<_>, Vec<_>) = episodes.into_iter().partition(|c| c.holds);
        for change in removed {
            self.episodes.remove(&change.fact);
        }
        let erased = &self.erased;
        let is_shown = |own: &Episode| erased.get(&own.subject).is_none_or(|at| own.start >= *at);
        let added = added.into_iter().map(|change| change.fact);
        self.episodes.extend(added.filter(is_shown));
        let (added, removed): (Vec<_>, Vec<_>) = rollups.into_iter().partition(|c| c.holds);
        for Change { fact, .. } in removed {
            self.rollups.remove(&(fact.flag, fact.hour));
        }
        for Change { fact, .. } in added {
            self.rollups.insert((fact.flag, fact.hour), fact.patients);
        }
    }

    /// The patient was erased at this time.
    pub(crate) fn forget(&mut self, subject: Subject, at: Timestamp) {
        self.erased.insert(subject, at);
        self.episodes.retain(|episode| episode.subject != subject);
        self.recent.retain(|flag| flag.subject != subject);
    }

    pub(crate) fn flag(&mut self, flag: RecentFlag) {
        if let Some(histogram) = &mut self.latency_ms {
            histogram.saturating_record(flag.latency_ms.max(1));
        }
        *self.stats.flags.entry((flag.flag.clone(), flag.priority)).or_default() += 1;
        if self.recent.len() == RECENT_FLAGS {
            self.recent.pop_front();
        }
        self.recent.push_back(flag);
    }
}
