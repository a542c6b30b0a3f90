//! One patient's course, reading by reading.

use super::{
    ADAPTATION, CLIP, COVERAGES, FIRST_READINGS, Normals, Population, SIGNALS, SILENCE_H, TAIL_MAX,
    TAIL_MIN, quantile,
};
use haar_schema::{SignalId, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const HOUR_US: i64 = 3_600_000_000;
/// Share of an innovation that the fast level takes in an hour.
const FAST: f64 = 0.3;
/// And the slow one.
const SLOW: f64 = 0.05;
/// How much of the weight of residuals is kept from reading to reading.
const KEPT: f64 = 0.97;
/// Everybody's spread counts as so many of the patient's own residuals.
const PRIOR: f64 = 8.0;

/// A patient's course so far: small, to be kept as a fact. Empty before the first reading.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PersonalState {
    tracks: BTreeMap<SignalId, Track>,
}

/// Where a reading was expected.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judgement {
    /// The forecast, in the signal's unit; the median of everybody while the patient's own course is not known.
    pub expected: f64,
    /// Lower and upper end of the intervals of [`COVERAGES`].
    pub intervals: [(f64, f64); COVERAGES.len()],
    /// Which interval the reading lies outside of, by the largest coverage; `None` if within all.
    pub unusual: Option<f64>,
    /// Whether by the patient's own course, or by everybody's values.
    pub personal: bool,
}

/// One signal's course.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Track {
    at: Timestamp,
    readings: u32,
    last: f64,
    fast: f64,
    slow: f64,
    /// Residuals' absolute values, weighted, and their weight.
    deviation: f64,
    weight: f64,
    /// Share that each tail is meant to hold, by coverage: lower and upper.
    tails: [(f64, f64); COVERAGES.len()],
}

impl PersonalState {
    /// The time of the newest reading of any signal; `None` before the first.
    pub fn newest(&self) -> Option<Timestamp> {
        self.tracks.values().map(|track| track.at).max()
    }
}

impl Normals {
    /// Judges a reading, then learns from it. `None`, and nothing learned, for a signal that has no forecast, a value that is
    /// not finite, or a time that is less than half an hour after the reading before.
    pub fn observe(
        &self,
        state: &mut PersonalState,
        signal: SignalId,
        value: f64,
        at: Timestamp,
    ) -> Option<Judgement> {
        let number = SIGNALS.iter().position(|(known, _)| *known == signal)?;
        let before = state.tracks.get(&signal).copied();
        let (judgement, track) = step(&self.all[number], before, value, at)?;
        state.tracks.insert(signal, track);
        Some(judgement)
    }
}

/// A judgement and the course after it.
pub(super) fn step(
    population: &Population,
    before: Option<Track>,
    value: f64,
    at: Timestamp,
) -> Option<(Judgement, Track)> {
    let silence = before.map_or(0, |track| at.micros_since(track.at));
    if !value.is_finite() || (before.is_some() && silence < HOUR_US / 2) {
        return None;
    }
    let track = match before.filter(|_| silence < SILENCE_H * HOUR_US) {
        Some(track) => track,
        None => Track::begin(value, at),
    };
    let personal = track.readings >= FIRST_READINGS;
    let (expected, scale) = match personal {
        true => (track.forecast(population), track.scale(population)),
        false => (population.centre, 1.0),
    };
    let intervals = std::array::from_fn(|coverage| {
        let (lower, upper) = track.tails[coverage];
        match personal {
            true => (
                expected + scale * quantile(&population.scores, lower),
                expected + scale * quantile(&population.scores, 1.0 - upper),
            ),
            false => {
                let tail = (1.0 - COVERAGES[coverage]) / 2.0;
                (quantile(&population.values, tail), quantile(&population.values, 1.0 - tail))
            }
        }
    });
    let outside = |(lower, upper): (f64, f64)| value < lower || value > upper;
    let unusual = (0..COVERAGES.len()).rev().find(|at| outside(intervals[*at]));
    let unusual = unusual.map(|at| COVERAGES[at]);
    let after = track.learn(population, value, at, personal.then_some(&intervals));
    Some((Judgement { expected, intervals, unusual, personal }, after))
}

impl Track {
    fn begin(value: f64, at: Timestamp) -> Self {
        let tails = COVERAGES.map(|coverage| ((1.0 - coverage) / 2.0, (1.0 - coverage) / 2.0));
        let (last, fast, slow) = (value, value, value);
        Self { at, readings: 0, last, fast, slow, deviation: 0.0, weight: 0.0, tails }
    }

    /// What the forecast is linear in.
    pub(super) fn regressors(&self, population: &Population) -> [f64; 4] {
        let centre = population.centre;
        [1.0, self.last - centre, self.fast - centre, self.slow - centre]
    }

    /// How many readings it has seen.
    pub(super) const fn readings(&self) -> u32 {
        self.readings
    }

    fn forecast(&self, population: &Population) -> f64 {
        let terms = self.regressors(population);
        let sum: f64 = terms.iter().zip(population.weights).map(|(x, weight)| x * weight).sum();
        population.centre + sum
    }

    pub(super) fn scale(&self, population: &Population) -> f64 {
        (PRIOR * population.spread + self.deviation) / (PRIOR + self.weight)
    }

    fn learn(
        mut self,
        population: &Population,
        value: f64,
        at: Timestamp,
        judged: Option<&[(f64, f64); COVERAGES.len()]>,
    ) -> Self {
        let limit = CLIP * self.scale(population);
        if self.readings > 0 {
            let residual = (value - self.forecast(population)).abs().min(limit);
            self.deviation = KEPT * self.deviation + residual;
            self.weight = KEPT * self.weight + 1.0;
        }
        self.fast += FAST * (value - self.fast).clamp(-limit, limit);
        self.slow += SLOW * (value - self.slow).clamp(-limit, limit);
        for (at, interval) in judged.into_iter().flatten().enumerate() {
            let tail = (1.0 - COVERAGES[at]) / 2.0;
            let adapt = |share: f64, missed: bool| {
                let miss = f64::from(u8::from(missed));
                (share + ADAPTATION * (tail - miss)).clamp(TAIL_MIN, TAIL_MAX)
            };
            let (lower, upper) = self.tails[at];
            self.tails[at] = (adapt(lower, value < interval.0), adapt(upper, value > interval.1));
        }
        self.last = value;
        self.at = at;
        self.readings = self.readings.saturating_add(1);
        self
    }
}
