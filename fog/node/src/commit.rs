//! The commitment of epochs: one thread, one transaction an epoch.
//!
//! For each epoch that the ingest thread has ended and every worker has finished:
//! 1. Windows that an earlier run committed already are dropped: those fired by a mark at or before
//!    what their lane had committed, and, should one slip through, those whose inputs are the same.
//! 2. Records, window facts and lane positions go to the database in one durable transaction.
//! 3. Only then are edges told.
//!
//! An epoch that cannot be committed stops the node: whether it is on disk is not known, and the next
//! start finds out and has the edges replay. Nothing that was not committed has been acknowledged.

use crate::alarms::Warden;
use crate::consortium::view::SharedView;
use crate::courses::Courses;
use crate::devices::FaultCounter;
use crate::erasure::eraser::Eraser;
use crate::ingest::{EpochEnd, Gate, LaneEnd};
use crate::models::{Decided, Monitor, Taken};
use crate::notify::Roster;
use crate::parameters::Registrar;
use crate::sepsis::Charts;
use crate::stats::{RecentFlag, Tally};
use crate::store::{
    CommitError, Epoch, Known, Notice, Position, Store, StoreEraseError, keyholder,
};
use haar_dataflow::conclude::Concluded;
use haar_dataflow::deployment::Said;
use haar_dataflow::item::Lane;
use haar_dataflow::runtime::WorkerEpoch;
use haar_ledger::{Held, LEAF_BYTES, LeafKind, Record};
use haar_schema::{EdgeId, FlaggedEvent, Subject, Timestamp, WindowId};
use haar_telemetry::{Counter, Gauge, Histogram, KeyValue, Metrics, names, trace};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Why commitment ended before the node was told to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitterError {
    /// An epoch was not committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It is not known whether patients were erased.
    #[error(transparent)]
    Erase(#[from] StoreEraseError),
    /// A worker stopped before its epoch was complete.
    #[error("the dataflow stopped in the middle of an epoch; see its panic in the log")]
    Dataflow,
    /// The system gives no randomness for the keys of leaves.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// What a [`Committer`] works with.
pub(crate) struct Work {
    pub(crate) store: Arc<Store>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tally: Arc<Tally>,
    /// Dataflow workers.
    pub(crate) workers: usize,
    /// Ids of the pipelines, by number.
    pub(crate) pipelines: Vec<String>,
    pub(crate) monitor: Monitor,
    pub(crate) warden: Warden,
    pub(crate) roster: Roster,
    pub(crate) registrar: Registrar,
    pub(crate) eraser: Eraser,
    /// With what patients have granted; none where nobody reads.
    pub(crate) view: Option<SharedView>,
    pub(crate) courses: Courses,
    pub(crate) charts: Charts,
    pub(crate) decided: Decided,
}

pub(crate) struct Committer {
    store: Arc<Store>,
    gate: Arc<Gate>,
    tally: Arc<Tally>,
    workers: usize,
    /// Ids of the pipelines, by number.
    pipelines: Vec<String>,
    monitor: Monitor,
    warden: Warden,
    roster: Roster,
    registrar: Registrar,
    eraser: Eraser,
    view: Option<SharedView>,
    courses: Courses,
    charts: Charts,
    decided: Decided,
    instruments: Instruments,
    lanes: BTreeMap<Lane, LaneProgress>,
    early: BTreeMap<u64, Vec<WorkerEpoch>>,
}

struct LaneProgress {
    edge: EdgeId,
    position: Position,
    /// By worker and pipeline: from where it would need a replay.
    holds: BTreeMap<(usize, usize), u64>,
}

struct Instruments {
    epochs: Counter<u64>,
    windows: Counter<u64>,
    corrections: Counter<u64>,
    flags: Counter<u64>,
    faults: FaultCounter,
    late: Counter<u64>,
    left_out: Counter<u64>,
    commit: Histogram<f64>,
    epoch: Histogram<f64>,
    ingest_to_flag: Histogram<f64>,
    leaves: Gauge<f64>,
    log_bytes: Counter<u64>,
}

/// What is to be committed of an epoch, and what to say of it afterwards.
#[derive(Default)]
struct Draft {
    epoch: Epoch,
    /// The windows that are new, without what became records.
    concluded: Vec<Concluded>,
    /// Where in `epoch.records` each flagged event is.
    flagged: Vec<(usize, FlaggedEvent, i64)>,
    windows: BTreeMap<String, u64>,
    corrections: BTreeMap<String, u64>,
    replayed: u64,
}

impl Committer {
    pub(crate) fn new(work: Work, metrics: &Metrics) -> Self {
        let instruments = Instruments {
            epochs: metrics.counter(&names::FOG_EPOCHS),
            windows: metrics.counter(&names::FOG_WINDOWS),
            corrections: metrics.counter(&names::FOG_CORRECTIONS),
            flags: metrics.counter(&names::FOG_FLAGS),
            faults: FaultCounter::new(metrics),
            late: metrics.counter(&names::FOG_LATE),
            left_out: metrics.counter(&names::FOG_LEFT_OUT),
            commit: metrics.histogram(&names::FOG_COMMIT_SECONDS),
            epoch: metrics.histogram(&names::FOG_EPOCH_SECONDS),
            ingest_to_flag: metrics.histogram(&names::FOG_INGEST_TO_FLAG_SECONDS),
            leaves: metrics.gauge(&names::FOG_LEAVES),
            log_bytes: metrics.counter(&names::FOG_LOG_BYTES),
        };
        let Work {
            store,
            gate,
            tally,
            workers,
            pipelines,
            monitor,
            warden,
            roster,
            registrar,
            eraser,
            view,
            courses,
            charts,
            decided,
        } = work;
        let (lanes, early) = Default::default();
        Self {
            store,
            gate,
            tally,
            workers,
            pipelines,
            monitor,
            warden,
            roster,
            registrar,
            eraser,
            view,
            courses,
            charts,
            decided,
            instruments,
            lanes,
            early,
        }
    }

    /// Commits until the ingest thread has ended its last epoch.
    pub(crate) fn run(
        mut self,
        ends: &Receiver<EpochEnd>,
        results: &Receiver<WorkerEpoch>,
    ) -> Result<(), CommitterError> {
        for end in ends {
            let finished = self.gather(end.epoch, results)?;
            self.commit(&end, finished)?;
        }
        Ok(())
    }

    /// What every worker came to in `epoch`. Workers run ahead of each other by a few epochs.
    fn gather(
        &mut self,
        epoch: u64,
        results: &Receiver<WorkerEpoch>,
    ) -> Result<Vec<WorkerEpoch>, CommitterError> {
        while self.early.get(&epoch).map_or(0, Vec::len) < self.workers {
            let result = results.recv().map_err(|_| CommitterError::Dataflow)?;
            self.early.entry(result.epoch).or_default().push(result);
        }
        let mut finished = self.early.remove(&epoch).unwrap_or_default();
        finished.sort_by_key(|result| result.worker);
        Ok(finished)
    }

    fn commit(&mut self, end: &EpochEnd, finished: Vec<WorkerEpoch>) -> Result<(), CommitterError> {
        self.erase()?;
        self.note_lanes(end, &finished);
        self.note_counts(&finished);
        let (mut windows, mut episodes, mut rollups) = (Vec::new(), Vec::new(), Vec::new());
        for result in finished {
            windows.extend(result.windows);
            episodes.extend(result.episodes);
            rollups.extend(result.rollups);
        }
        self.tally.lock().revise(episodes, rollups);
        let mut draft = self.draft(windows)?;
        draft.epoch.at = now();
        draft.epoch.devices.clone_from(&end.devices);
        for lane in &end.lanes {
            self.vouch(lane, &mut draft)?;
        }
        for mut taken in self.decided.take(draft.epoch.at) {
            self.monitor.expect(std::mem::take(&mut taken.expected));
            draft.decide(taken)?;
        }
        let taken = self.registrar.take(draft.epoch.at);
        let mut notes = Vec::new();
        for own in taken {
            let name = Sha256::digest(&own.note).into();
            let at = draft.record(
                LeafKind::PatientParameters,
                Some(own.subject),
                name,
                own.note.clone(),
            )? as u64;
            draft.epoch.parameters.push((own.subject, own.version, at));
            notes.push((at, own));
        }
        let steps = self.warden.step(draft.epoch.at, &draft.concluded);
        let first_step = draft.epoch.records.len();
        for transition in &steps.transitions {
            let name = transition.alarm.to_bytes();
            let at = draft.record(
                LeafKind::AlarmTransition,
                transition.subject,
                name,
                transition.to_json(),
            )?;
            draft.epoch.notices.extend(self.roster.targets(transition).map(|target| Notice {
                record: at as u64,
                priority: transition.priority,
                target: target.to_owned(),
            }));
        }
        draft.epoch.alarms = self.warden.take_rows();
        draft.epoch.courses = self.courses.take_changes();
        draft.epoch.charts = self.charts.take_changes();
        for lane in &end.lanes {
            if let Some(progress) = self.lanes.get(&lane.lane) {
                let position = progress.at(lane, self.workers * self.pipelines.len());
                if position != progress.position {
                    draft.epoch.positions.push((progress.edge.clone(), position));
                }
            }
        }
        let epoch = &draft.epoch;
        if epoch.positions.is_empty() && epoch.records.is_empty() && epoch.alarms.is_empty() {
            self.warden.committed(steps, 0);
            return Ok(());
        }
        let begun = Instant::now();
        let appended = self.store.commit(&draft.epoch)?;
        self.instruments.commit.record(begun.elapsed().as_secs_f64(), &[]);
        self.instruments.epoch.record(end.ended.elapsed().as_secs_f64(), &[]);
        for lane in &end.lanes {
            if let Some(progress) = self.lanes.get_mut(&lane.lane) {
                let position = progress.at(lane, self.workers * self.pipelines.len());
                progress.position = position;
            }
        }
        self.gate.acknowledge(&draft.epoch.positions, appended.checkpoint.size());
        self.warden.committed(steps, appended.first_index + first_step as u64);
        for (at, own) in notes {
            own.committed(appended.first_index + at);
        }
        if !draft.epoch.notices.is_empty() {
            self.roster.news.notify_waiters();
        }
        trace_commit(&end.lanes, appended.first_index, draft.epoch.records.len());
        self.report(&draft, appended.first_index, appended.checkpoint.note().len());
        Ok(())
    }

    /// Follows orders to erase patients; what is in memory of them goes too.
    fn erase(&mut self) -> Result<(), CommitterError> {
        let Self { eraser, view, warden, courses, charts, registrar, tally, .. } = self;
        let at = now();
        eraser.follow(at, |subject| {
            warden.forget(subject);
            courses.forget(subject);
            charts.forget(subject);
            registrar.forget(subject);
            if let Some(view) = view {
                view.forget(subject);
            }
            tally.lock().forget(subject, at);
        })?;
        Ok(())
    }

    /// Says whose key signs a lane from here on, if it was another before.
    fn vouch(&self, lane: &LaneEnd, draft: &mut Draft) -> Result<(), CommitterError> {
        let (edge, incarnation) = (&lane.edge, lane.opened.incarnation);
        // All but the last were over before the epoch was; each has its leaf.
        for signed in &lane.signed {
            let last = draft.epoch.signed.iter().rev().find(|(of, _, _)| of == edge);
            let is_news = match last {
                Some(_) => true,
                None => signed
                    .is_news(self.store.database(), edge, &incarnation)
                    .map_err(CommitError::from)?,
            };
            if is_news {
                let (name, body) = signed.record(edge, &incarnation);
                draft.record(LeafKind::EdgeKey, None, name, body)?;
                draft.epoch.signed.push((edge.clone(), incarnation, signed.clone()));
            }
        }
        Ok(())
    }

    fn note_lanes(&mut self, end: &EpochEnd, finished: &[WorkerEpoch]) {
        for lane in &end.closed {
            self.lanes.remove(lane);
        }
        for lane in &end.lanes {
            let progress = self.lanes.entry(lane.lane).or_insert_with(|| LaneProgress {
                edge: lane.edge.clone(),
                position: lane.opened,
                holds: BTreeMap::new(),
            });
            for result in finished {
                for (pipeline, holds) in &result.holds {
                    // A lane that is not in a report has no open window there.
                    let hold = holds.get(&lane.lane).copied().unwrap_or(lane.through + 1);
                    progress.holds.insert((result.worker, *pipeline), hold);
                }
            }
        }
    }

    fn note_counts(&mut self, finished: &[WorkerEpoch]) {
        for result in finished {
            self.monitor.note(&result.scored);
        }
        let mut tally = self.tally.lock();
        for result in finished {
            if result.unscored > 0 {
                tracing::error!(
                    beats = result.unscored,
                    "the model refused beats; their windows have no beat classes"
                );
            }
            if result.unjudged > 0 {
                tracing::error!(
                    series = result.unjudged,
                    "the model of device faults failed; windows have none of its features"
                );
            }
            for (pipeline, counts) in &result.counts {
                let id = &self.pipelines[*pipeline];
                let limited = counts.dropped_ahead + counts.dropped_excess;
                if counts.dropped_late > 0 {
                    let label = KeyValue::new(names::label::PIPELINE, id.clone());
                    self.instruments.late.add(counts.dropped_late, &[label]);
                    *tally.stats.dropped_late.entry(id.clone()).or_default() += counts.dropped_late;
                }
                if limited > 0 {
                    tracing::warn!(
                        pipeline = id,
                        readings = limited,
                        "readings over a limit were dropped"
                    );
                    *tally.stats.dropped_limit.entry(id.clone()).or_default() += limited;
                }
            }
        }
    }

    /// What of these windows is new, as records.
    fn draft(&mut self, mut windows: Vec<Concluded>) -> Result<Draft, CommitterError> {
        windows.sort_by(|a, b| {
            let order = |w: &Concluded| (w.lane, w.seq, w.digest.revision);
            order(a).cmp(&order(b)).then_with(|| a.digest.key.cmp(&b.digest.key))
        });
        let ids: Vec<WindowId> = windows.iter().map(|window| window.digest.id).collect();
        let stored = self.store.known(&ids).map_err(CommitError::from)?;
        let mut known: BTreeMap<WindowId, Known> =
            ids.iter().zip(stored).filter_map(|(id, known)| Some((*id, known?))).collect();
        let mut draft = Draft::default();
        let (models, mut said) = (self.decided.deployments().now(), Said::default());
        for mut window in windows {
            let replayed = self
                .lanes
                .get(&window.lane)
                .is_none_or(|progress| window.seq <= progress.position.durable_through);
            let digest = &window.digest;
            if self.eraser.leaves_out(digest.key.subject, digest.key.start_us) {
                self.instruments.left_out.add(1, &[]);
                continue;
            }
            let mut inputs = [0; 32];
            // Made by `InputsDigest`, so it is 64 hexadecimal digits.
            let _ = hex::decode_to_slice(&digest.inputs.sha256, &mut inputs);
            let new = Known { revision: digest.revision, inputs };
            let stale = known
                .get(&digest.id)
                .is_some_and(|known| known.inputs == new.inputs || known.revision >= new.revision);
            if replayed || stale {
                draft.replayed += 1;
                continue;
            }
            known.insert(digest.id, new);
            draft.epoch.windows.push((digest.id, digest.key.subject, new));
            self.courses.judge(&mut window, &models.personal, &mut said);
            self.charts.judge(&mut window, &models.sepsis, &mut said);
            draft.add(window)?;
        }
        self.monitor.note(&said.into_scored());
        Ok(draft)
    }

    fn report(&self, draft: &Draft, first_index: u64, checkpoint_bytes: usize) {
        let records = &draft.epoch.records;
        let now_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        let recorded: usize = records.iter().map(|held| held.record.body.len()).sum();
        let leaves = first_index + records.len() as u64;
        self.instruments.epochs.add(1, &[]);
        self.instruments.log_bytes.add(recorded as u64, &[]);
        self.instruments.leaves.record(leaves as f64, &[]);
        let mut tally = self.tally.lock();
        let stats = &mut tally.stats;
        stats.leaves = leaves;
        stats.replayed_windows += draft.replayed;
        stats.bytes_recorded += recorded as u64;
        if !records.is_empty() {
            stats.bytes_committed += (records.len() * LEAF_BYTES + checkpoint_bytes) as u64;
        }
        for (pipeline, count) in &draft.windows {
            let label = KeyValue::new(names::label::PIPELINE, pipeline.clone());
            self.instruments.windows.add(*count, &[label]);
            *stats.windows.entry(pipeline.clone()).or_default() += count;
        }
        for (pipeline, count) in &draft.corrections {
            let label = KeyValue::new(names::label::PIPELINE, pipeline.clone());
            self.instruments.corrections.add(*count, &[label]);
            stats.corrections += count;
        }
        for (at, event, ingested_us) in &draft.flagged {
            let latency_ms = (now_us.saturating_sub(*ingested_us) / 1_000).max(0) as u64;
            self.instruments.ingest_to_flag.record(latency_ms as f64 / 1e3, &[]);
            let labels = [
                KeyValue::new(names::label::FLAG, event.flag.clone()),
                KeyValue::new(names::label::PRIORITY, event.priority.as_str()),
            ];
            self.instruments.flags.add(1, &labels);
            self.instruments.faults.note(event);
            tally.flag(RecentFlag {
                flag: event.flag.clone(),
                priority: event.priority,
                subject: event.key.subject,
                leaf_index: first_index + *at as u64,
                latency_ms,
            });
        }
    }
}

impl LaneProgress {
    /// The lane's position once the epoch is committed.
    fn at(&self, end: &LaneEnd, reporters: usize) -> Position {
        let hold = if self.holds.len() == reporters { self.holds.values().min() } else { None };
        Position {
            incarnation: self.position.incarnation,
            // In a replay the lane is fed what was committed long ago: a position never goes back.
            durable_through: self.position.durable_through.max(end.through),
            keep_from: self.position.keep_from.max(hold.copied().unwrap_or(0)),
        }
    }
}

impl Draft {
    fn add(&mut self, window: Concluded) -> Result<(), CommitterError> {
        let digest = &window.digest;
        let name = digest.id.to_bytes();
        let pipeline = digest.key.pipeline.clone();
        let kind = if digest.revision == 0 {
            *self.windows.entry(pipeline).or_default() += 1;
            LeafKind::WindowDigest
        } else {
            *self.corrections.entry(pipeline).or_default() += 1;
            LeafKind::Correction
        };
        let subject = Some(digest.key.subject);
        self.record(kind, subject, name, digest.to_json())?;
        for event in &window.flagged {
            let at = self.record(LeafKind::FlaggedEvent, subject, name, event.to_json())?;
            self.flagged.push((at, event.clone(), window.ingested_us));
        }
        self.concluded.push(window);
        Ok(())
    }

    /// A decision about a model, under the SHA-256 of its note.
    fn decide(&mut self, taken: Taken) -> Result<(), CommitterError> {
        let Taken { number, from_us, note, .. } = taken;
        let name = Sha256::digest(&note).into();
        let at = self.record(LeafKind::ModelStatement, None, name, note)?;
        self.epoch.decisions.push((number, from_us, at as u64));
        Ok(())
    }

    /// Adds a record; `subject` is whom it is about.
    fn record(
        &mut self,
        kind: LeafKind,
        subject: Option<Subject>,
        name: [u8; 32],
        body: Vec<u8>,
    ) -> Result<usize, CommitterError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(CommitterError::Random)?;
        let record = Record { kind, name, key, body };
        self.epoch.records.push(Held { keyholder: subject.map(keyholder), record });
        Ok(self.epoch.records.len() - 1)
    }
}

/// The time by this machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_micros(since.map_or(0, |since| since.as_micros() as i64))
}

/// One span an edge, so that each edge's trace runs through from its batch to the leaves.
fn trace_commit(lanes: &[LaneEnd], first_leaf: u64, leaves: usize) {
    for lane in lanes {
        if let Some(parent) = &lane.traceparent {
            let span = tracing::info_span!(names::span::FOG_COMMIT, first_leaf, leaves);
            trace::set_parent(&span, parent);
            let _entered = span.enter();
        }
    }
}
