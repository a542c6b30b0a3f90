//! The *ward* load: the job that `haar bench ward` and the peers' programs do.
//!
//! Reading `i` of `keys × seconds`: key `i mod keys`, second `i div keys`; with
//! `h = mix(i + 0x9e3779b97f4a7c15)` it is `(h >> 8) mod 5000` ms late if `h mod 100 = 0`, and its value is
//! `60 + ((h >> 20) & 1023) / 10`. `mix` is the last three steps of splitmix64. Windows of 60 s slide by
//! 10 s, watermarks run 10 s behind. A subject is a patient with five vitals, sent by one monitor, which
//! marks its progress once a second, as an edge does; a key is a subject's signal.
//!
//! The readings go through the production operator, [`windows`] over [`Moments`], input digests,
//! replay positions and all.

use crate::item::{Body, Item, Lane, Reading, SourceMark};
use crate::operator::{Report, windows};
use crate::window::Windowing;
use haar_schema::{EdgeId, Fingerprint, MarkKind, SignalId, SignalSet, Subject, Timestamp};
use haar_signals::moments::Moments;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::{Inspect, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};

/// Vitals per simulated patient.
pub const SIGNALS_PER_SUBJECT: u64 = 5;

const SIGNALS: [SignalId; SIGNALS_PER_SUBJECT as usize] = [
    SignalId::HEART_RATE,
    SignalId::SPO2,
    SignalId::RESPIRATION_RATE,
    SignalId::SYSTOLIC,
    SignalId::DIASTOLIC,
];

/// How many epochs, each a second of event time, are generated ahead of the windows.
const EPOCHS_AHEAD: u64 = 4;

/// How long windows and watermarks are in the ward load, microseconds.
const SIZE_US: i64 = 60_000_000;
const SLIDE_US: i64 = 10_000_000;
const OUT_OF_ORDERNESS_US: i64 = 10_000_000;

/// What a run computed and how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct WardResult {
    /// Readings put in.
    pub readings: u64,
    /// Windows of one key that fired.
    pub windows: u64,
    /// Sum of their counts.
    pub count_sum: u64,
    /// Sum of their means.
    pub mean_sum: f64,
    /// Sum of their minima.
    pub min_sum: f64,
    /// Sum of their maxima.
    pub max_sum: f64,
    /// Sum of their standard deviations.
    pub standard_deviation_sum: f64,
    /// Sum of their slopes, per second.
    pub slope_sum: f64,
    /// From the first reading generated to the last window out.
    pub elapsed: Duration,
}

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The number of keys is not a positive multiple of [`SIGNALS_PER_SUBJECT`], or workers is 0.
    #[error(
        "keys must be a positive multiple of {SIGNALS_PER_SUBJECT}, seconds and workers at least 1"
    )]
    Size,
    /// Timely could not start.
    #[error("timely could not start its workers: {0}")]
    Start(String),
    /// A worker stopped early.
    #[error("a dataflow worker stopped early: {0}")]
    Worker(String),
}

/// Runs the load to its end: `keys` (a multiple of five) for `seconds` of event time on `workers` threads.
///
/// # Errors
/// If the sizes make no sense, or timely fails.
pub fn ward(keys: u64, seconds: u64, workers: usize) -> Result<WardResult, LoadError> {
    if keys == 0 || !keys.is_multiple_of(SIGNALS_PER_SUBJECT) || seconds == 0 || workers == 0 {
        return Err(LoadError::Size);
    }
    let (results, collected) = mpsc::channel::<WardResult>();
    let begun = Instant::now();
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let index = worker.index() as u64;
        let probe = ProbeHandle::new();
        let mut input = InputHandle::<u64, CapacityContainerBuilder<Vec<Item<f64>>>>::new();
        let tally = Rc::new(RefCell::new(WardResult::default()));
        let fired_tally = Rc::clone(&tally);
        worker.dataflow::<u64, _, _>(|scope| {
            let Some(windowing) = Windowing::new(SIZE_US, SLIDE_US, 0) else { return };
            let signals: SignalSet = SIGNALS.into_iter().collect();
            windows::<Moments>(input.to_stream(scope), "Windows", windowing, signals)
                .inspect(move |report| {
                    if let Report::Fired(fired) = report {
                        fired_tally.borrow_mut().add(&fired.series);
                    }
                })
                .probe_with(&probe);
        });
        Share { index, of: workers as u64, keys, seconds }.generate(worker, input, &probe);
        let _ = results.send(*tally.borrow());
    })
    .map_err(LoadError::Start)?;
    let mut total = WardResult { readings: keys * seconds, ..WardResult::default() };
    for part in collected {
        total.windows += part.windows;
        total.count_sum += part.count_sum;
        total.mean_sum += part.mean_sum;
        total.min_sum += part.min_sum;
        total.max_sum += part.max_sum;
        total.standard_deviation_sum += part.standard_deviation_sum;
        total.slope_sum += part.slope_sum;
    }
    for result in guards.join() {
        result.map_err(LoadError::Worker)?;
    }
    total.elapsed = begun.elapsed();
    Ok(total)
}

impl WardResult {
    fn add(&mut self, series: &[(SignalId, Moments)]) {
        for (_, moments) in series {
            self.windows += 1;
            self.count_sum += moments.count();
            self.mean_sum += moments.mean().unwrap_or_default();
            self.min_sum += moments.min().unwrap_or_default();
            self.max_sum += moments.max().unwrap_or_default();
            self.standard_deviation_sum += moments.standard_deviation().unwrap_or_default();
            self.slope_sum += moments.slope_per_s().unwrap_or_default();
        }
    }
}

/// The subjects that one worker generates: every `of`-th.
struct Share {
    index: u64,
    of: u64,
    keys: u64,
    seconds: u64,
}

impl Share {
    fn generate(
        &self,
        worker: &mut timely::worker::Worker,
        mut input: Input,
        probe: &ProbeHandle<u64>,
    ) {
        let lane = Lane(self.index as u32);
        let mut seq = 0;
        if let Ok(edge) = format!("ward-{}", self.index).parse::<EdgeId>() {
            for worker in 0..self.of {
                input.send(Item { lane, seq, body: Body::Open { worker, edge: edge.clone() } });
            }
        }
        for second in 0..self.seconds {
            let now_us = second as i64 * 1_000_000;
            for subject in self.subjects() {
                for (place, signal) in SIGNALS.into_iter().enumerate() {
                    let index = second * self.keys + subject * SIGNALS_PER_SUBJECT + place as u64;
                    seq += 1;
                    input.send(Item { lane, seq, body: reading(subject, signal, index, now_us) });
                }
                let progress = Timestamp::from_micros(now_us - OUT_OF_ORDERNESS_US);
                seq += 1;
                input.send(Item { lane, seq, body: mark(subject, MarkKind::Progress(progress)) });
            }
            input.advance_to(second + 1);
            // A few epochs ahead of the windows at most: workers need not march in step, and what is
            // generated is not queued up.
            worker.step_while(|| probe.less_than(&(second + 1).saturating_sub(EPOCHS_AHEAD)));
        }
        let last = Timestamp::from_micros((self.seconds as i64 - 1) * 1_000_000);
        for subject in self.subjects() {
            seq += 1;
            input.send(Item { lane, seq, body: mark(subject, MarkKind::Idle(last)) });
        }
        input.close();
        worker.step_while(|| !probe.done());
    }

    fn subjects(&self) -> impl Iterator<Item = u64> {
        (self.index..self.keys / SIGNALS_PER_SUBJECT).step_by(self.of as usize)
    }
}

type Input = InputHandle<u64, CapacityContainerBuilder<Vec<Item<f64>>>>;

fn reading(subject: u64, signal: SignalId, index: u64, now_us: i64) -> Body<f64> {
    let hash = mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let late_ms = if hash.is_multiple_of(100) { (hash >> 8) % 5_000 } else { 0 };
    Body::Reading(Reading {
        subject: pseudonym(subject),
        at_us: now_us - late_ms as i64 * 1_000,
        ingested_us: now_us,
        fingerprint: Fingerprint([hash, index]),
        signal,
        payload: 60.0 + ((hash >> 20) & 1_023) as f64 / 10.0,
    })
}

fn mark(subject: u64, kind: MarkKind) -> Body<f64> {
    let signals = SIGNALS.into_iter().collect();
    Body::Mark(SourceMark { subject: pseudonym(subject), device: subject, signals, kind })
}

/// Spread like the pseudonyms of real subjects.
fn pseudonym(subject: u64) -> Subject {
    let (high, low) = (mix(subject + 1), mix(subject.wrapping_add(0x5bf0_3635)));
    Subject::from_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Flink's, Bytewax's and Pathway's versions of this job give for this size.
    #[test]
    fn a_small_ward_has_the_peers_window_count() {
        for workers in [1, 2, 4] {
            let result = ward(1_000, 200, workers).unwrap();
            assert_eq!(result.windows, 25_027);
            assert_eq!(result.count_sum, 200_000 * 6);
        }
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        assert!(matches!(ward(7, 10, 1), Err(LoadError::Size)));
        assert!(matches!(ward(10, 10, 0), Err(LoadError::Size)));
    }
}
