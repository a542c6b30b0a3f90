//! From frames to acknowledged entries: the one thread that writes the spool.
//!
//! Frames from all sources come by one bounded channel. A group of them is normalised, the watermarks that it moves
//! are put before it, and all of it becomes one durable append; only then are the devices answered. A frame that
//! cannot be decoded is kept in quarantine by the same append and then answered too: sent again it would be no better.
//!
//! When the spool takes nothing (full, disk full) the group is kept and tried again. CoAP devices in it are told to
//! come back later; MQTT messages stay unacknowledged and wait here, so that nothing that was acknowledged is lost and
//! nothing is acknowledged that is not on the disk.
//!
//! # What is not guaranteed
//! A device whose frames have neither a sequence nor a time has no frame id: delivered twice by its broker, its reading
//! counts twice.

use crate::backoff::Backoff;
use crate::clock;
use crate::mqtt::Receipt;
use crate::stats::{Shared, label};
use bytes::Bytes;
use haar_normalize::{
    Connector, Frame, Normalizer, RawMessage, RejectReason, Watermarks, mark_key,
};
use haar_schema::{Entry, Mark, MarkKind, Quality, Timestamp, Value};
use haar_spool::{
    AppendError, Appended, Certainty, NewEntry, NewFrame, OpenError, Quarantined, ReadError, Spool,
};
use haar_telemetry::{Condition, names};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How often the wall clock is shown to the watermarks, which then may find a device idle.
const TICK: Duration = Duration::from_millis(250);
/// The first and the longest wait before an append that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A frame as a source hands it over.
pub(crate) struct Arrival {
    pub(crate) connector: Connector,
    /// MQTT topic, or CoAP path without the leading `/`.
    pub(crate) path: String,
    pub(crate) payload: Bytes,
    pub(crate) received: Timestamp,
    pub(crate) redelivered: bool,
    pub(crate) reply: Reply,
}

/// Whom to tell.
pub(crate) enum Reply {
    /// Acknowledges to the broker; never told of a failure, for the broker keeps the message.
    Mqtt(Receipt),
    Coap(oneshot::Sender<Outcome>),
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Durable, now or by an earlier delivery.
    Committed,
    /// In quarantine, durably.
    Quarantined(RejectReason),
    /// Not taken; send again later.
    Refused,
}

/// Why intake stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// The spool cannot be used any more.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// Its marks cannot be read.
    #[error("the marks in the spool cannot be read: {0}")]
    Marks(#[from] ReadError),
}

/// The thread's state.
pub(crate) struct Intake {
    pub(crate) spool: Arc<Spool>,
    pub(crate) normalizer: Normalizer,
    pub(crate) arrivals: mpsc::Receiver<Arrival>,
    /// Tells the uplink the next sequence after each append.
    pub(crate) appended: watch::Sender<u64>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) condition: Condition,
    pub(crate) group_frames: usize,
    pub(crate) group_wait: Duration,
    /// When it is cancelled, an append that fails is given up instead of tried again.
    pub(crate) shutdown: CancellationToken,
}

/// The watermarks as of the last entry in the spool.
pub(crate) fn restore(spool: &Spool) -> Result<Watermarks, ReadError> {
    let marks = spool.latest_marks()?;
    let marks = marks.iter().filter_map(|bytes| match Entry::decode(bytes) {
        Ok(Entry::Mark(mark)) => Some(mark),
        // The spool's own checksums hold, so this is a newer version's: its device begins anew here.
        _ => None,
    });
    Ok(Watermarks::restore(haar_normalize::DEFAULT_MAX_PAIRS, marks, clock::now()))
}

impl Intake {
    /// Runs until every source has dropped its sender and all frames are dealt with.
    ///
    /// # Errors
    /// If the spool cannot be recovered after a storage failure.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Handle) -> Result<(), IntakeError> {
        let mut watermarks = restore(&self.spool)?;
        self.condition.ready();
        let mut ticked = Instant::now();
        loop {
            let mut group = Vec::new();
            let open = runtime.block_on(self.gather(&mut group));
            let tick = (ticked.elapsed() >= TICK).then(clock::now);
            if tick.is_some() {
                ticked = Instant::now();
            }
            if !group.is_empty() || tick.is_some() {
                self.commit(group, tick, &mut watermarks)?;
            }
            if !open {
                return Ok(());
            }
        }
    }

    /// Waits for the next group, or for the next tick. `false` when the sources have gone.
    async fn gather(&mut self, group: &mut Vec<Arrival>) -> bool {
        match tokio::time::timeout(TICK, self.arrivals.recv()).await {
            Ok(Some(first)) => group.push(first),
            Ok(None) => return false,
            Err(_) => return true,
        }
        let deadline = tokio::time::Instant::now() + self.group_wait;
        while group.len() < self.group_frames {
            let room = self.group_frames - group.len();
            let more = self.arrivals.recv_many(group, room);
            match tokio::time::timeout_at(deadline, more).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        true
    }

    /// Appends a group, however often it takes, and answers its devices.
    fn commit(
        &self,
        mut group: Vec<Arrival>,
        tick: Option<Timestamp>,
        watermarks: &mut Watermarks,
    ) -> Result<(), IntakeError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let plan = Plan::new(&self.normalizer, &group, tick, watermarks);
            if plan.is_empty() {
                watermarks.commit();
                return Ok(());
            }
            let before = self.spool.next_seq();
            let started = Instant::now();
            let error = match self.spool.append(&plan.frames, &plan.quarantined) {
                Ok(appended) => {
                    self.shared.meters.append_seconds.record(started.elapsed().as_secs_f64(), &[]);
                    self.condition.ready();
                    self.shared.stalled.store(false, Relaxed);
                    watermarks.commit();
                    self.answer(group, &plan, &appended);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.stall(&error);
            match error.certainty() {
                Certainty::NotWritten => watermarks.rollback(),
                Certainty::Unknown => {}
            }
            if error.needs_recover() {
                let next = self.spool.recover()?;
                *watermarks = restore(&self.spool)?;
                if next > before {
                    // It was written after all, and as it is one transaction, all of it. Which frames were
                    // duplicates is not known any more.
                    let duplicates = vec![false; plan.frames.len()];
                    self.shared.stalled.store(false, Relaxed);
                    self.answer_written(group, &plan, &duplicates, next);
                    return Ok(());
                }
            }
            self.release_coap(&mut group);
            if self.shutdown.is_cancelled() {
                tracing::warn!(
                    frames = group.len(),
                    "stopping with frames that the spool did not take; their broker keeps them"
                );
                return Ok(());
            }
            if group.is_empty() {
                // Nobody waits for this append; the next frame tries anew.
                self.shared.stalled.store(false, Relaxed);
                return Ok(());
            }
            std::thread::sleep(backoff.next_random());
        }
    }

    fn stall(&self, error: &AppendError) {
        let reason = match error {
            AppendError::Full { .. } => "full",
            AppendError::TooLarge { .. } => "too_large",
            _ => "storage",
        };
        self.shared.meters.append_failures.add(1, &[label(names::label::REASON, reason)]);
        if !self.shared.stalled.swap(true, Relaxed) {
            tracing::error!(%error, "the spool takes nothing; devices are not acknowledged");
        }
        self.condition.not_ready(error.to_string());
    }

    /// CoAP devices are told to come back; whoever keeps its messages itself stays in the group.
    fn release_coap(&self, group: &mut Vec<Arrival>) {
        let mut kept = Vec::with_capacity(group.len());
        for arrival in group.drain(..) {
            match arrival.reply {
                Reply::Coap(reply) => {
                    // The device may have gone; then nobody waits for the answer.
                    let _ = reply.send(Outcome::Refused);
                }
                Reply::Mqtt(_) => kept.push(arrival),
            }
        }
        *group = kept;
    }

    fn answer(&self, group: Vec<Arrival>, plan: &Plan, appended: &Appended) {
        let shed = appended.shed_entries;
        if shed > 0 {
            self.shared.meters.shed.add(shed, &[]);
            tracing::warn!(entries = shed, "the spool is full: the oldest waveforms were shed");
        }
        self.answer_written(group, plan, &appended.duplicates, appended.next_seq);
    }

    fn answer_written(&self, group: Vec<Arrival>, plan: &Plan, duplicates: &[bool], next_seq: u64) {
        self.appended.send_replace(next_seq);
        let kept = self.spool.stats();
        self.shared.meters.spool_entries.record(kept.entries as f64, &[]);
        self.shared.meters.spool_bytes.record(kept.bytes as f64, &[]);
        for (arrival, fate) in group.into_iter().zip(&plan.fates) {
            let outcome = self.count(&arrival, fate, duplicates);
            match arrival.reply {
                Reply::Mqtt(receipt) => receipt.acknowledge(),
                Reply::Coap(reply) => {
                    // The device may have gone; it will send again and be a duplicate.
                    let _ = reply.send(outcome);
                }
            }
        }
    }

    fn count(&self, arrival: &Arrival, fate: &Fate, duplicates: &[bool]) -> Outcome {
        let Shared { counters, meters, .. } = &*self.shared;
        let connector = [label(names::label::CONNECTOR, arrival.connector.as_str())];
        let bytes = arrival.payload.len() as u64;
        counters.frames.fetch_add(1, Relaxed);
        counters.bytes.fetch_add(bytes, Relaxed);
        meters.frames.add(1, &connector);
        meters.bytes.add(bytes, &connector);
        match *fate {
            Fate::Quarantined(reason) => {
                counters.quarantined.fetch_add(1, Relaxed);
                meters.quarantined.add(1, &[label(names::label::REASON, reason.as_str())]);
                return Outcome::Quarantined(reason);
            }
            Fate::Frame { at, .. } if duplicates.get(at).copied().unwrap_or(false) => {
                counters.duplicates.fetch_add(1, Relaxed);
                meters.duplicates.add(1, &connector);
            }
            Fate::Frame { readings, clamped, .. } => {
                counters.readings.fetch_add(readings, Relaxed);
                meters.readings.add(readings, &connector);
                counters.clamped.fetch_add(clamped, Relaxed);
                meters.clamped.add(clamped, &[]);
            }
        }
        Outcome::Committed
    }
}

/// What one append writes, and which of it belongs to which frame.
struct Plan {
    frames: Vec<NewFrame>,
    quarantined: Vec<Quarantined>,
    /// One per arrival, in order.
    fates: Vec<Fate>,
}

enum Fate {
    Frame {
        /// Index in [`Plan::frames`].
        at: usize,
        readings: u64,
        clamped: u64,
    },
    Quarantined(RejectReason),
}

impl Plan {
    fn new(
        normalizer: &Normalizer,
        group: &[Arrival],
        tick: Option<Timestamp>,
        watermarks: &mut Watermarks,
    ) -> Self {
        let mut plan = Self {
            frames: Vec::new(),
            quarantined: Vec::new(),
            fates: Vec::with_capacity(group.len()),
        };
        for arrival in group {
            let message = RawMessage {
                connector: arrival.connector,
                path: &arrival.path,
                payload: &arrival.payload,
                received: arrival.received,
                redelivered: arrival.redelivered,
            };
            let fate = match normalizer.normalize(&message) {
                Ok(frame) => {
                    plan.marks(watermarks.observe(&frame));
                    plan.frame(&frame)
                }
                Err(rejected) => {
                    plan.quarantined.push(Quarantined {
                        received_us: arrival.received.micros(),
                        reason: rejected.to_string(),
                        path: arrival.path.clone(),
                        payload: arrival.payload.to_vec(),
                    });
                    Fate::Quarantined(rejected.reason)
                }
            };
            plan.fates.push(fate);
        }
        if let Some(now) = tick {
            plan.marks(watermarks.tick(now));
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.quarantined.is_empty()
    }

    fn marks(&mut self, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        let entries = marks.into_iter().map(|mark| {
            let (key, forget) = (mark_key(&mark), mark.kind == MarkKind::Gone);
            NewEntry::mark(key, forget, Entry::Mark(mark).encode())
        });
        self.frames.push(NewFrame { frame_id: None, entries: entries.collect() });
    }

    fn frame(&mut self, frame: &Frame) -> Fate {
        let clamped = frame.observations.iter().filter(|o| o.quality.has(Quality::CLOCK_CLAMPED));
        let fate = Fate::Frame {
            at: self.frames.len(),
            readings: frame.observations.len() as u64,
            clamped: clamped.count() as u64,
        };
        let entries = frame.observations.iter().map(|observation| {
            let bytes = Entry::Observation(observation.clone()).encode();
            match observation.value {
                Value::Quantity(_) => NewEntry::vital(bytes),
                Value::Sampled(_) => NewEntry::waveform(bytes),
            }
        });
        self.frames.push(NewFrame { frame_id: frame.frame_id, entries: entries.collect() });
        fate
    }
}
