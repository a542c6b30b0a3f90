//! How the [`watch`](super::watch) does on streams played as they come: faults found by kind, how late, and false flags per device-day.
//!
//! # How it is played
//! A window ends every [`EVERY`] readings and holds the last [`HISTORY`]: at one reading a second the built-in definition's five minutes
//! and half a minute. Slower streams are played by the same numbers of readings, which no definition does today (a window is an hour at
//! most); their figures say how the model would do. Readings are in the order of their stamps, as in the fog.
//!
//! # What is counted
//! - *As recorded*: each stream whole. A kind that reaches its [`threshold`] in windows one after the other is one flag. Nobody
//!   has marked these recordings: some flags may be right. One kind is: where values are missing, a dropout is no false flag.
//! - *Put in*: each kind into up to [`PLACES`] places of each stream ([`inject`]); then the stream goes on as recorded, so a fault that stays
//!   ends there. It is found if one window that has it reaches the threshold of its kind. Other kinds that do are counted,
//!   those of the stream as it was recorded included.
//!
//! A patient or mote is judged by the member that has not seen it, others by all.

use super::inject::inject;
use super::model::{FaultError, FaultModel};
use super::streams::{Origin, Stream};
use super::watch::{Series, threshold};
use super::{FaultKind, MIN_VALUES, Reading, WINDOW};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Readings of a window.
pub const HISTORY: usize = 300;
/// Readings between the ends of two windows.
pub const EVERY: usize = 30;
/// Faults of each kind in a stream.
pub const PLACES: usize = 3;
/// Readings of a stream that are looked at, at most: a week of glucose.
pub const READINGS_MAX: usize = 2_000;
/// Readings between two places in a long stream.
const APART: usize = 900;
/// How far apart the places are in a short one.
const APART_MIN: usize = 15;
/// Intervals without a reading from which values are missing: two may be lost in a row.
const MISSING_INTERVALS: f64 = 3.5;
/// Windows that are judged at once.
const AT_ONCE: usize = 256;

/// How one kind is told live.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct LiveKind {
    /// Faults put in.
    pub put_in: u64,
    /// Of these, flagged with their kind.
    pub found: u64,
    /// Of these, flagged with another kind too, or instead.
    pub other: u64,
    /// Readings from the first faulty one to the end of the first window that flagged it, by fault found; unordered.
    pub delays: Vec<u32>,
    /// Flags of streams as they are recorded.
    pub false_flags: u64,
    /// Windows that were flagged so, of those as they are recorded.
    pub false_windows: u64,
}

impl LiveKind {
    /// The middle of the delays, in readings.
    pub fn median_delay(&self) -> Option<u32> {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        delays.get(delays.len() / 2).copied()
    }
}

/// How the watch does on the streams of one data set.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct LiveFigures {
    /// Streams played.
    pub streams: u64,
    /// Windows judged of streams as they are recorded.
    pub windows: u64,
    /// From first to last reading of these streams, pauses included, in days of one device.
    pub device_days: f64,
    /// By kind, without [`FaultKind::Sound`].
    pub kinds: BTreeMap<FaultKind, LiveKind>,
}

/// Plays streams, whole and with faults put in; by data set.
///
/// # Errors
/// If a network cannot be computed.
pub fn live(
    model: &FaultModel,
    streams: &[Stream],
    seed: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<BTreeMap<Origin, LiveFigures>, FaultError> {
    let mut figures: BTreeMap<Origin, LiveFigures> = BTreeMap::new();
    for (at, stream) in streams.iter().enumerate() {
        let readings = &stream.readings[..stream.readings.len().min(READINGS_MAX)];
        if !stream.events.contains(&true) && readings.len() >= HISTORY + WINDOW {
            let play = Play { model, stream, readings };
            let own = figures.entry(stream.origin).or_default();
            play.as_recorded(own)?;
            for place in 0..PLACES {
                for kind in &FaultKind::ALL[1..] {
                    let mut random = ChaCha8Rng::seed_from_u64(seed);
                    random.set_stream(((at * PLACES + place) * 8 + kind.index()) as u64);
                    play.with_fault(*kind, place, &mut random, own)?;
                }
            }
        }
        progress(at + 1);
    }
    Ok(figures)
}

struct Play<'a> {
    model: &'a FaultModel,
    stream: &'a Stream,
    readings: &'a [Reading],
}

impl Play<'_> {
    fn as_recorded(&self, figures: &mut LiveFigures) -> Result<(), FaultError> {
        let ends: Vec<usize> =
            (EVERY..=self.readings.len()).step_by(EVERY).filter(|end| *end >= MIN_VALUES).collect();
        let said = self.said(self.readings, &ends)?;
        figures.streams += 1;
        figures.windows += said.iter().flatten().count() as u64;
        if let [first, .., last] = self.readings {
            figures.device_days += (last.time_s - first.time_s) / 86_400.0;
        }
        for kind in &FaultKind::ALL[1..] {
            let own = figures.kinds.entry(*kind).or_default();
            let mut on = false;
            for (said, end) in said.iter().zip(&ends) {
                let window = &self.readings[end.saturating_sub(WINDOW + 1)..*end];
                let called = said.is_some_and(|said| said[kind.index()]);
                let wrongly = called && !(*kind == FaultKind::Dropout && is_missing(window));
                own.false_windows += u64::from(wrongly);
                own.false_flags += u64::from(wrongly && !on);
                on = wrongly;
            }
        }
        Ok(())
    }

    fn with_fault(
        &self,
        kind: FaultKind,
        place: usize,
        random: &mut ChaCha8Rng,
        figures: &mut LiveFigures,
    ) -> Result<(), FaultError> {
        let spare = self.readings.len() - HISTORY - WINDOW;
        let until = HISTORY + place * APART.min((spare / PLACES).max(APART_MIN));
        if until + WINDOW > self.readings.len() {
            return Ok(());
        }
        let (before, after) = self.readings.split_at(until);
        let Some(made) = inject(before, kind, self.stream.range, random) else { return Ok(()) };
        let Some(first) = made.labels.iter().position(|label| *label == kind) else {
            return Ok(());
        };
        let mut readings = made.readings;
        let over = readings.len();
        readings.extend_from_slice(after);
        // Windows end where they do, wherever the fault is.
        let ends: Vec<usize> =
            (EVERY..over + WINDOW).step_by(EVERY).filter(|end| *end > first).collect();
        let said = self.said(&readings, &ends)?;
        let own = figures.kinds.entry(kind).or_default();
        own.put_in += 1;
        let flagged = |said: &Option<Said>| said.is_some_and(|said| said[kind.index()]);
        if let Some(window) = said.iter().position(flagged) {
            own.found += 1;
            own.delays.push((ends[window] - first) as u32);
        }
        let others = |said: &Said| (1..said.len()).any(|at| said[at] && at != kind.index());
        own.other += u64::from(said.iter().flatten().any(others));
        Ok(())
    }

    /// Which kinds the windows with these ends reach; `None` where there is too little to judge.
    fn said(&self, readings: &[Reading], ends: &[usize]) -> Result<Vec<Option<Said>>, FaultError> {
        let members = self.model.members_for(self.stream.case);
        let mut said = Vec::with_capacity(ends.len());
        for ends in ends.chunks(AT_ONCE) {
            let windows: Vec<Vec<Reading>> = ends
                .iter()
                .map(|end| in_order(&readings[end.saturating_sub(HISTORY)..*end]))
                .collect();
            let series: Vec<Series<'_>> = windows
                .iter()
                .map(|own| Series { readings: own, range: self.stream.range })
                .collect();
            for watched in self.model.watch_by(&series, members.clone())? {
                said.push(watched.map(|watched| {
                    FaultKind::ALL.map(|kind| watched.probability(kind) >= threshold(kind))
                }));
            }
        }
        Ok(said)
    }
}

/// By kind in the order of [`FaultKind::ALL`].
type Said = [bool; FaultKind::ALL.len()];

fn in_order(readings: &[Reading]) -> Vec<Reading> {
    let mut readings = readings.to_vec();
    readings.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
    readings
}

/// Whether values are missing: three in a row.
fn is_missing(readings: &[Reading]) -> bool {
    let Some(scale) = super::Scale::of(readings) else { return true };
    let present: Vec<f64> =
        readings.iter().filter(|row| row.value.is_finite()).map(|row| row.time_s).collect();
    present.windows(2).any(|pair| pair[1] - pair[0] > MISSING_INTERVALS * scale.interval_s)
        || readings.last().zip(present.last()).is_some_and(|(last, present)| {
            last.time_s - present > (MISSING_INTERVALS - 1.0) * scale.interval_s
        })
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::super::streams;
    use super::*;
    use haar_recordings::corpus::CaseId;

    fn stream(seed: u64) -> Stream {
        Stream {
            case: CaseId(seed),
            origin: Origin::Bidmc,
            range: None,
            readings: wave(500, seed),
            events: Vec::new(),
        }
    }

    #[test]
    fn faults_of_every_kind_are_found_live_and_a_sound_wave_has_none() {
        let model = FaultModel::builtin().unwrap();
        let streams: Vec<Stream> = (0..10).map(stream).collect();
        let figures =
            live(&model, &streams, 1, &mut |_| {}).unwrap().remove(&Origin::Bidmc).unwrap();
        assert_eq!((figures.streams, figures.windows), (10, 160));
        assert!((figures.device_days - 10.0 * 499.0 * 5.0 / 86_400.0).abs() < 1e-9);
        for (kind, own) in &figures.kinds {
            assert_eq!(own.put_in, 30, "{kind}");
            // The wave's own swing is as large as many drifts.
            let least = if *kind == FaultKind::Drift { 12 } else { 20 };
            assert!(own.found >= least, "{kind}: {own:?}");
            assert!(own.median_delay().is_some_and(|delay| delay <= 120), "{kind}: {own:?}");
            assert!(own.false_flags <= 1, "{kind}: {own:?}");
        }
    }

    /// Each patient by the member that has not seen it.
    #[test]
    fn recorded_numerics_are_seldom_called_faulty_and_faults_are_found() {
        let data =
            std::env::var_os("HAAR_DATA").expect("set HAAR_DATA to the recordings, see README");
        let corpus = streams::open(&std::path::Path::new(&data).join("bidmc")).unwrap();
        let streams = streams::read(&corpus).unwrap();
        let model = FaultModel::builtin().unwrap();
        let figures =
            live(&model, &streams, 1, &mut |_| {}).unwrap().remove(&Origin::Bidmc).unwrap();
        for (kind, own) in &figures.kinds {
            let (most, least) = match kind {
                FaultKind::Spike => (0.02, 0.9),
                FaultKind::Drift => (0.005, 0.6),
                FaultKind::Dropout => (0.005, 0.85),
                // Whole numbers that hardly change.
                FaultKind::Stuck => (0.002, 0.2),
                _ => (0.002, 0.85),
            };
            assert!(own.false_windows as f64 <= most * figures.windows as f64, "{kind}: {own:?}");
            assert!(own.found as f64 >= least * own.put_in as f64, "{kind}: {own:?}");
        }
    }

    #[test]
    fn three_values_in_a_row_are_missing_and_two_are_not() {
        let mut readings = wave(100, 1);
        readings.drain(50..52);
        assert!(!is_missing(&readings));
        readings.drain(70..73);
        assert!(is_missing(&readings));
        let mut hollow = wave(100, 1);
        for row in &mut hollow[97..] {
            row.value = f32::NAN;
        }
        assert!(is_missing(&hollow));
    }
}
