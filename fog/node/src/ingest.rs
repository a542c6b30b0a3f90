//! From the link into the dataflow, and the end of every epoch.
//!
//! [`Gate`] is what the link's server calls: it decides where an edge resumes and takes its batches.
//! Everything then passes one bounded channel ([`QUEUED_INBOUND`]) to one thread ([`run`]) that decodes,
//! feeds the dataflow, and ends the epochs; so what belongs to an epoch is one thread's decision. When
//! the dataflow is full that thread blocks, then the channel fills, then `batch` waits, and the edge's
//! credit runs out: an edge is slowed, never dropped.
//!
//! A lane's entries are trusted to be an edge's own (the link has checked the certificate), not to be
//! well-formed: what cannot be decoded is counted, logged without its content, and passed over. The edge
//! cannot mend it by sending it again.

use crate::consortium::Held;
use crate::consortium::roll::Roll;
use crate::edges::Signed;
use crate::history::Counting;
use crate::stats::Tally;
use crate::store::{Position, Store};
use haar_dataflow::item::{Items, Lane};
use haar_dataflow::runtime::Feed;
use haar_ledger::VerifierKey;
use haar_ledger::governance::DeviceTally;
use haar_link::{Ack, AckSender, Batch, Fog, Hello, Refusal, RefusalReason, SessionId, Welcome};
use haar_schema::{DeviceId, EdgeId, Entry, Mark};
use haar_telemetry::{Counter, Gauge, Metrics, names, trace};
use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Batches that wait for the ingest thread.
pub(crate) const QUEUED_INBOUND: usize = 64;

/// What the link hands to the ingest thread.
pub(crate) enum Inbound {
    Open { lane: Lane, edge: EdgeId, position: Position, base: Vec<Mark>, resume_from: u64 },
    Batch { lane: Lane, batch: Batch },
    Close { lane: Lane },
}

/// The end of an epoch, for whoever commits it.
pub(crate) struct EpochEnd {
    pub(crate) epoch: u64,
    pub(crate) ended: Instant,
    pub(crate) lanes: Vec<LaneEnd>,
    pub(crate) closed: Vec<Lane>,
    /// How devices did whose readings were not committed before.
    pub(crate) devices: BTreeMap<DeviceId, DeviceTally>,
}

/// Where a lane stands at the end of an epoch.
#[derive(Clone)]
pub(crate) struct LaneEnd {
    pub(crate) lane: Lane,
    pub(crate) edge: EdgeId,
    /// Where it stood when it was opened.
    pub(crate) opened: Position,
    pub(crate) through: u64,
    /// Of the lane's last batch in the epoch.
    pub(crate) traceparent: Option<String>,
    /// Where in the epoch the lane's batches were first signed by a key, or by none.
    pub(crate) signed: Vec<Signed>,
}

/// A lane, and what ingest alone knows of it.
struct Fed {
    end: LaneEnd,
    counting: Counting,
    /// Whose key signed the last batch; nothing before the first.
    key: Option<Option<Arc<VerifierKey>>>,
}

/// What the link calls.
pub(crate) struct Gate {
    store: Arc<Store>,
    inbound: mpsc::Sender<Inbound>,
    credit: u32,
    roll: Roll,
    edges: Mutex<Edges>,
    connected: Gauge<f64>,
    refused: Counter<u64>,
    /// What edges keep until the consortium log has it; none where they may forget what is committed.
    held: Option<Mutex<Held>>,
}

#[derive(Default)]
struct Edges {
    lanes: BTreeMap<EdgeId, OpenLane>,
    next_lane: u32,
    connected: usize,
}

struct OpenLane {
    lane: Lane,
    incarnation: [u8; 16],
    accepted_through: u64,
    /// As last told to the edge.
    committed: Position,
    session: Option<(SessionId, AckSender)>,
}

impl Gate {
    pub(crate) fn new(
        store: Arc<Store>,
        inbound: mpsc::Sender<Inbound>,
        credit: u32,
        roll: Roll,
        held: Option<Held>,
        metrics: &Metrics,
    ) -> Self {
        Self {
            store,
            inbound,
            credit,
            roll,
            held: held.map(Mutex::new),
            edges: Mutex::default(),
            connected: metrics.gauge(&names::FOG_EDGES),
            refused: metrics.counter(&names::FOG_SESSIONS_REFUSED),
        }
    }

    /// Tells edges what has been committed, in a site log of `size` leaves.
    pub(crate) fn acknowledge(&self, positions: &[(EdgeId, Position)], size: u64) {
        if let Some(mut held) = self.held() {
            held.hold(size, positions);
        }
        let mut edges = self.edges();
        for (edge, position) in positions {
            let Some(open) = edges.lanes.get_mut(edge) else { continue };
            if open.incarnation == position.incarnation {
                open.committed = *position;
                if let Some((_, acks)) = &open.session {
                    acks.send(self.ack(edge, position));
                }
            }
        }
    }

    /// The consortium log has the site log's first `size` leaves: edges may forget what led to them.
    pub(crate) fn release(&self, size: u64) {
        let released = self.held().map(|mut held| held.release(size)).unwrap_or_default();
        let edges = self.edges();
        for edge in released {
            let Some(open) = edges.lanes.get(&edge) else { continue };
            if let Some((_, acks)) = &open.session {
                acks.send(self.ack(&edge, &open.committed));
            }
        }
    }

    /// Edges with a session.
    pub(crate) fn connected(&self) -> usize {
        self.edges().connected
    }

    fn ack(&self, edge: &EdgeId, position: &Position) -> Ack {
        let keep_from = match self.held() {
            Some(held) => held.keep_from(edge, position),
            None => position.keep_from,
        };
        Ack { durable_through: position.durable_through, keep_from, credit: self.credit }
    }

    fn held(&self) -> Option<MutexGuard<'_, Held>> {
        self.held.as_ref().map(|held| held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn edges(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, reason: RefusalReason, advice: &str) -> Refusal {
        self.refused
            .add(1, &[haar_telemetry::KeyValue::new(names::label::REASON, reason_label(reason))]);
        Refusal::new(reason, advice)
    }
}

/// A stable label for a reason of refusal.
fn reason_label(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::Incarnation => "incarnation",
        RefusalReason::Replaced => "replaced",
        RefusalReason::Stopping => "stopping",
        RefusalReason::NotReady => "not_ready",
        RefusalReason::Key => "key",
        _ => "other",
    }
}

impl Fog for Gate {
    async fn open(
        &self,
        edge: &EdgeId,
        session: SessionId,
        hello: Hello,
        acks: AckSender,
    ) -> Result<Welcome, Refusal> {
        // A place in the channel first, so that nothing is decided that could not be carried out.
        let Ok(mut places) = self.inbound.reserve_many(2).await else {
            return Err(self.refuse(RefusalReason::Stopping, "the fog is stopping; connect again"));
        };
        let stored = self.store.position(edge).map_err(|_| {
            self.refuse(RefusalReason::NotReady, "the fog's database cannot be read; see its log")
        })?;
        let fresh = Position {
            incarnation: hello.incarnation,
            durable_through: 0,
            keep_from: hello.oldest_seq,
        };
        let mut edges = self.edges();
        let live = edges.lanes.get(edge).filter(|open| open.incarnation == hello.incarnation);
        let (position, accepted_through) = match live {
            Some(open) => (open.committed, open.accepted_through),
            None => {
                let position = stored
                    .filter(|position| position.incarnation == hello.incarnation)
                    .unwrap_or(fresh);
                (position, hello.oldest_seq.saturating_sub(1))
            }
        };
        if hello.next_seq <= position.durable_through.max(accepted_through) {
            return Err(self.refuse(
                RefusalReason::Incarnation,
                "this spool is behind what was committed from it (an old backup?); \
                 move it away and let the edge begin a new one",
            ));
        }
        let resume_from = (accepted_through + 1).max(hello.oldest_seq);
        let live_lane = live.map(|open| open.lane);
        let lane = live_lane.unwrap_or_else(|| {
            // Whatever the edge sent before came from a spool that is gone.
            if let (Some(old), Some(place)) = (edges.lanes.get(edge), places.next()) {
                place.send(Inbound::Close { lane: old.lane });
            }
            edges.next_lane += 1;
            let lane = Lane(edges.next_lane);
            if let Some(place) = places.next() {
                let (edge, base) = (edge.clone(), hello.base_marks);
                place.send(Inbound::Open { lane, edge, position, base, resume_from });
            }
            lane
        });
        acks.send(self.ack(edge, &position));
        edges.connected += 1;
        self.connected.record(edges.connected as f64, &[]);
        edges.lanes.insert(
            edge.clone(),
            OpenLane {
                lane,
                incarnation: hello.incarnation,
                accepted_through: resume_from - 1,
                committed: position,
                session: Some((session, acks)),
            },
        );
        Ok(Welcome { resume_from, credit: self.credit })
    }

    async fn batch(&self, edge: &EdgeId, session: SessionId, batch: Batch) -> Result<(), Refusal> {
        let Ok(place) = self.inbound.reserve().await else {
            return Err(self.refuse(RefusalReason::Stopping, "the fog is stopping; connect again"));
        };
        if let Err(Refusal { reason, advice }) = self.roll.admits(edge, batch.key.as_deref()) {
            return Err(self.refuse(reason, &advice));
        }
        let mut edges = self.edges();
        let open = edges.lanes.get_mut(edge);
        let current = open.filter(|open| open.session.as_ref().is_some_and(|own| own.0 == session));
        let Some(open) = current else {
            return Err(self.refuse(RefusalReason::Replaced, "a newer session took over"));
        };
        open.accepted_through = batch.end_seq() - 1;
        place.send(Inbound::Batch { lane: open.lane, batch });
        Ok(())
    }

    fn closed(&self, edge: &EdgeId, session: SessionId) {
        let mut edges = self.edges();
        edges.connected = edges.connected.saturating_sub(1);
        self.connected.record(edges.connected as f64, &[]);
        if let Some(open) = edges.lanes.get_mut(edge)
            && open.session.as_ref().is_some_and(|own| own.0 == session)
        {
            open.session = None;
        }
    }
}

/// The ingest thread's state.
pub(crate) struct Ingest {
    pub(crate) feed: Feed,
    pub(crate) pane_us: i64,
    pub(crate) epoch_length: Duration,
    pub(crate) ends: SyncSender<EpochEnd>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) counters: Counters,
}

/// What the ingest thread counts.
pub(crate) struct Counters {
    batches: Counter<u64>,
    bytes: Counter<u64>,
    observations: Counter<u64>,
    replayed: Counter<u64>,
    undecodable: Counter<u64>,
}

impl Counters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            batches: metrics.counter(&names::FOG_BATCHES),
            bytes: metrics.counter(&names::FOG_BYTES),
            observations: metrics.counter(&names::FOG_OBSERVATIONS),
            replayed: metrics.counter(&names::FOG_REPLAYED),
            undecodable: metrics.counter(&names::FOG_UNDECODABLE),
        }
    }
}

impl Ingest {
    /// Runs until `last_batch` says that nothing more comes, or the dataflow has stopped. The last epoch
    /// is ended, so that everything taken is committed.
    pub(crate) fn run(
        self,
        mut inbound: mpsc::Receiver<Inbound>,
        last_batch: &CancellationToken,
        runtime: &tokio::runtime::Handle,
    ) {
        let mut lanes: BTreeMap<Lane, Fed> = BTreeMap::new();
        let mut closed = Vec::new();
        let mut epoch = 0;
        let mut due = Instant::now() + self.epoch_length;
        loop {
            let wait = due.saturating_duration_since(Instant::now());
            if last_batch.is_cancelled() {
                // What is queued is still received.
                inbound.close();
            }
            // The timer needs the runtime; nothing else here does.
            let next = runtime.block_on(async { tokio::time::timeout(wait, inbound.recv()).await });
            let over = matches!(next, Ok(None));
            let taken = match next {
                Ok(Some(Inbound::Open { lane, edge, position, base, resume_from })) => {
                    let end = LaneEnd {
                        lane,
                        edge,
                        opened: position,
                        through: resume_from - 1,
                        traceparent: None,
                        signed: Vec::new(),
                    };
                    let mut counting = Counting::default();
                    base.iter().for_each(|mark| counting.mark(mark));
                    let opened = self.open(&end, base);
                    lanes.insert(lane, Fed { end, counting, key: None });
                    opened
                }
                Ok(Some(Inbound::Batch { lane, batch })) => match lanes.get_mut(&lane) {
                    Some(fed) => self.batch(fed, batch),
                    None => Ok(()),
                },
                Ok(Some(Inbound::Close { lane })) => {
                    lanes.remove(&lane);
                    closed.push(lane);
                    let mut items = Items::default();
                    items.push_close(lane, self.feed.workers());
                    self.feed.send(lane, items)
                }
                Ok(None) | Err(_) => Ok(()),
            };
            if taken.is_err() {
                break;
            }
            if over || Instant::now() >= due {
                let mut devices = BTreeMap::new();
                for fed in lanes.values_mut() {
                    fed.counting.take_into(&mut devices);
                }
                let end = EpochEnd {
                    epoch,
                    ended: Instant::now(),
                    lanes: lanes.values().map(|fed| fed.end.clone()).collect(),
                    closed: std::mem::take(&mut closed),
                    devices,
                };
                for Fed { end, .. } in lanes.values_mut() {
                    end.traceparent = None;
                    end.signed.clear();
                }
                epoch += 1;
                if self.feed.end_epoch(epoch).is_err() || self.ends.send(end).is_err() || over {
                    break;
                }
                due = Instant::now() + self.epoch_length;
            }
        }
    }

    fn open(&self, end: &LaneEnd, base: Vec<Mark>) -> Result<(), haar_dataflow::runtime::Stopped> {
        let mut items = Items::default();
        items.push_open(end.lane, &end.edge, self.feed.workers());
        for mark in base {
            items.push_base(end.lane, mark);
        }
        self.feed.send(end.lane, items)
    }

    fn batch(&self, fed: &mut Fed, batch: Batch) -> Result<(), haar_dataflow::runtime::Stopped> {
        let span = tracing::info_span!(
            names::span::FOG_BATCH,
            entries = batch.entries.len(),
            bytes = batch.bytes()
        );
        if let Some(parent) = &batch.traceparent {
            trace::set_parent(&span, parent);
        }
        let _entered = span.enter();
        let Fed { end, counting, key } = fed;
        if key.as_ref() != Some(&batch.key) {
            end.signed.push(Signed { first_seq: batch.first_seq, key: batch.key.clone() });
            *key = Some(batch.key.clone());
        }
        end.traceparent = trace::traceparent(&span).or_else(|| batch.traceparent.clone());
        let mut items = Items::default();
        let (mut observations, mut undecodable) = (0, 0);
        for (seq, bytes) in (batch.first_seq..).zip(&batch.entries) {
            match Entry::decode(bytes) {
                Ok(entry) => {
                    match &entry {
                        Entry::Observation(observation) => {
                            observations += 1;
                            if seq > end.opened.durable_through {
                                counting.reading(observation);
                            }
                        }
                        Entry::Mark(mark) => counting.mark(mark),
                        Entry::Shed => {}
                    }
                    items.push(end.lane, seq, entry, self.pane_us);
                }
                Err(error) => {
                    undecodable += 1;
                    tracing::warn!(%error, seq, "an entry cannot be decoded; is the edge of another version?");
                }
            }
        }
        let last = batch.end_seq() - 1;
        let replayed = (end.opened.durable_through.min(last) + 1).saturating_sub(batch.first_seq);
        end.through = last;
        self.counters.batches.add(1, &[]);
        self.counters.bytes.add(batch.bytes() as u64, &[]);
        self.counters.observations.add(observations, &[]);
        self.counters.replayed.add(replayed, &[]);
        self.counters.undecodable.add(undecodable, &[]);
        {
            let mut tally = self.tally.lock();
            tally.stats.observations += observations;
            tally.stats.bytes_in += batch.bytes() as u64;
            tally.stats.undecodable += undecodable;
        }
        self.feed.send(end.lane, items)
    }
}
