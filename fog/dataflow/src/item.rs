//! What travels into the dataflow: the entries of a lane, decoded and addressed.

use haar_schema::{
    EdgeId, Entry, Fingerprint, Mark, MarkKind, Observation, SampleRate, SampledData, SignalId,
    SignalSet, Subject, Timestamp, Value,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Numbers a lane (one incarnation of one edge's spool) within a running fog. Given anew after a
/// restart; never written down.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Lane(pub u32);

/// One entry of a lane. Items of one lane reach an operator in sequence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Item<P> {
    /// Its lane.
    pub lane: Lane,
    /// Its sequence number in the lane.
    pub seq: u64,
    /// What it is.
    pub body: Body<P>,
}

/// What an [`Item`] is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body<P> {
    /// A reading, or the part of one that falls into one pane.
    Reading(Reading<P>),
    /// A watermark for one device on one subject.
    Mark(SourceMark),
    /// The last mark of a device on a subject from before the first entry of the lane that is sent.
    /// Comes after [`Body::Open`] and before all entries, in any order.
    Base(SourceMark),
    /// The lane begins. Sent to every worker, before anything else of the lane.
    Open {
        /// The worker it is for.
        worker: u64,
        /// The edge whose lane it is.
        edge: EdgeId,
    },
    /// The lane is over (its edge came back with a new spool): forget its state, fire nothing.
    /// Sent to every worker.
    Close {
        /// The worker it is for.
        worker: u64,
    },
}

/// A reading as a window takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reading<P> {
    /// Whom it is about.
    pub subject: Subject,
    /// Event time, microseconds.
    pub at_us: i64,
    /// When the edge received it, microseconds; for latencies, never for results.
    pub ingested_us: i64,
    /// What the device said, as a hash.
    pub fingerprint: Fingerprint,
    /// What it is of.
    pub signal: SignalId,
    /// What was measured.
    pub payload: P,
}

/// A watermark as a window takes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceMark {
    /// Whom it is about.
    pub subject: Subject,
    /// The first eight bytes of SHA-256 of the device's identifier.
    pub device: u64,
    /// The signals the device sends.
    pub signals: SignalSet,
    /// What is promised.
    pub kind: MarkKind,
}

impl From<Mark> for SourceMark {
    fn from(mark: Mark) -> Self {
        Self {
            subject: mark.subject,
            device: device_number(mark.device.as_str()),
            signals: mark.signals,
            kind: mark.kind,
        }
    }
}

/// A run of samples within one pane; the samples themselves are shared with the frame's other parts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// The frame.
    pub data: Arc<SampledData>,
    /// Time of the frame's first sample, microseconds.
    pub start_us: i64,
    /// First sample of this part.
    pub from: u32,
    /// One behind the last sample of this part.
    pub to: u32,
    /// Whether its samples may enter a feature.
    pub usable: bool,
}

impl Segment {
    /// Sampling rate.
    pub fn rate(&self) -> SampleRate {
        self.data.rate()
    }

    /// The part's samples with their times in microseconds, in the signal's unit; NaN where the
    /// device had none (`i16::MIN` on the wire) or the frame is unusable.
    pub fn samples(&self) -> impl Iterator<Item = (i64, f32)> + '_ {
        let start = Timestamp::from_micros(self.start_us);
        (self.from..self.to).map(move |index| {
            let raw = self.data.samples()[index as usize];
            let value = if raw == i16::MIN || !self.usable {
                f32::NAN
            } else {
                self.data.origin() + self.data.factor() * f32::from(raw)
            };
            (self.data.rate().sample_time(start, u64::from(index)).micros(), value)
        })
    }
}

impl<P> Item<P> {
    /// Where the item goes: everything about one subject to one worker.
    #[inline]
    pub fn route(&self) -> u64 {
        match &self.body {
            Body::Reading(reading) => reading.subject.route(),
            Body::Mark(mark) | Body::Base(mark) => mark.subject.route(),
            Body::Open { worker, .. } | Body::Close { worker } => *worker,
        }
    }
}

/// Entries of lanes, sorted into what the two kinds of window take.
#[derive(Default, Debug)]
pub struct Items {
    /// Quantities and marks.
    pub scalars: Vec<Item<f64>>,
    /// Runs of samples and marks.
    pub waveforms: Vec<Item<Segment>>,
}

impl Items {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.scalars.is_empty() && self.waveforms.is_empty()
    }

    /// Adds the entry with number `seq` of `lane`. Runs of samples are cut where a pane of
    /// `pane_us` ends, so that each part falls into one pane of every pipeline.
    pub fn push(&mut self, lane: Lane, seq: u64, entry: Entry, pane_us: i64) {
        match entry {
            Entry::Observation(observation) => {
                self.push_observation(lane, seq, observation, pane_us)
            }
            Entry::Mark(mark) => {
                let mark = SourceMark::from(mark);
                self.scalars.push(Item { lane, seq, body: Body::Mark(mark.clone()) });
                self.waveforms.push(Item { lane, seq, body: Body::Mark(mark) });
            }
            Entry::Shed => {}
        }
    }

    fn push_observation(&mut self, lane: Lane, seq: u64, observation: Observation, pane_us: i64) {
        let fingerprint = observation.fingerprint();
        let usable = observation.quality.usable();
        let (subject, signal) = (observation.subject, observation.signal);
        let start_us = observation.effective.micros();
        let ingested_us = observation.ingested.micros();
        match observation.value {
            Value::Quantity(quantity) => {
                // An unusable value is counted among the inputs and enters no feature.
                let payload = if usable { quantity.get() } else { f64::NAN };
                let reading =
                    Reading { subject, at_us: start_us, ingested_us, fingerprint, signal, payload };
                self.scalars.push(Item { lane, seq, body: Body::Reading(reading) });
            }
            Value::Sampled(data) => {
                let data = Arc::new(data);
                for (at_us, from, to) in cut(&data, start_us, pane_us) {
                    let payload = Segment { data: Arc::clone(&data), start_us, from, to, usable };
                    let reading =
                        Reading { subject, at_us, ingested_us, fingerprint, signal, payload };
                    self.waveforms.push(Item { lane, seq, body: Body::Reading(reading) });
                }
            }
        }
    }

    /// Adds a mark that was in force where the lane begins, see [`Body::Base`].
    pub fn push_base(&mut self, lane: Lane, mark: Mark) {
        let mark = SourceMark::from(mark);
        self.scalars.push(Item { lane, seq: 0, body: Body::Base(mark.clone()) });
        self.waveforms.push(Item { lane, seq: 0, body: Body::Base(mark) });
    }

    /// Tells every worker that a lane begins.
    pub fn push_open(&mut self, lane: Lane, edge: &EdgeId, workers: usize) {
        for worker in 0..workers as u64 {
            let edge = || edge.clone();
            self.scalars.push(Item { lane, seq: 0, body: Body::Open { worker, edge: edge() } });
            self.waveforms.push(Item { lane, seq: 0, body: Body::Open { worker, edge: edge() } });
        }
    }

    /// Tells every worker that a lane is over.
    pub fn push_close(&mut self, lane: Lane, workers: usize) {
        for worker in 0..workers as u64 {
            self.scalars.push(Item { lane, seq: 0, body: Body::Close { worker } });
            self.waveforms.push(Item { lane, seq: 0, body: Body::Close { worker } });
        }
    }
}

/// The parts `(time of the first sample, from, to)` of a run that each lie in one pane.
fn cut(data: &SampledData, start_us: i64, pane_us: i64) -> Vec<(i64, u32, u32)> {
    let start = Timestamp::from_micros(start_us);
    let count = data.samples().len() as u32;
    let time = |index: u32| data.rate().sample_time(start, u64::from(index)).micros();
    let mut parts = Vec::with_capacity(2);
    let mut from = 0;
    while from < count {
        let pane = time(from).div_euclid(pane_us);
        // Times rise with the index, so the border is found by bisection.
        let (mut inside, mut outside) = (from, count);
        while outside - inside > 1 {
            let middle = inside + (outside - inside) / 2;
            if time(middle).div_euclid(pane_us) == pane {
                inside = middle
            } else {
                outside = middle
            }
        }
        parts.push((time(from), from, outside));
        from = outside;
    }
    parts
}

/// The first eight bytes of SHA-256 of a device's identifier: enough to tell a subject's devices apart.
pub fn device_number(device: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(device).into();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cutting_loses_no_sample_and_crosses_no_border(
            rate_mhz in 1_000u32..1_000_000,
            count in 1usize..2_000,
            start in -10_000_000i64..10_000_000,
        ) {
            let rate = SampleRate::from_millihertz(rate_mhz).unwrap();
            let data = SampledData::new(rate, 0.0, 1.0, vec![0; count]).unwrap();
            let pane = 1_000_000;
            let parts = cut(&data, start, pane);
            let mut next = 0;
            for (at, from, to) in parts {
                prop_assert_eq!(from, next);
                prop_assert!(to > from);
                let time = |i: u32| rate.sample_time(Timestamp::from_micros(start), u64::from(i)).micros();
                prop_assert_eq!(at, time(from));
                prop_assert_eq!(time(from).div_euclid(pane), time(to - 1).div_euclid(pane));
                next = to;
            }
            prop_assert_eq!(next as usize, count);
        }
    }
}
