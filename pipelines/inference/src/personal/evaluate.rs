//! Whether the intervals hold what they promise, and whether the forecast is worth more than the last value.

use super::fit::Series;
use super::track::{Judgement, step};
use super::{COVERAGES, Normals, Population, SIGNALS, quantile};
use haar_schema::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// A patient's own coverage is looked at from so many judged readings on.
const READINGS_MIN: usize = 24;

/// How one signal's intervals did on readings judged by a patient's own course.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PersonalFigures {
    /// Judged readings.
    pub readings: usize,
    /// By promised coverage.
    pub coverages: Vec<Coverage>,
    /// Mean absolute error of the forecast, in the signal's unit.
    pub mae: f64,
    /// Of the last value as forecast.
    pub mae_last_value: f64,
    /// Mean pinball loss at the four ends of the intervals, in the signal's unit.
    pub pinball: f64,
    /// Of the last value with everybody's steps around it.
    pub pinball_last_value: f64,
    /// Of everybody's values: limits that are the same for all.
    pub pinball_everybody: f64,
}

/// How one interval did.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Coverage {
    /// What was promised.
    pub promised: f64,
    /// Share of readings within.
    pub measured: f64,
    /// The same over the first readings of patients, judged by everybody's values.
    pub measured_first: f64,
    /// A tenth of the patients with 24 judged readings or more have less coverage than this.
    pub tenth_patient: f64,
    /// The interval's mean width.
    pub width: f64,
}

/// A reading with where it was expected.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct JudgedReading {
    /// Event time.
    pub at: Timestamp,
    /// In the signal's unit.
    pub value: f64,
    /// What was said of it, from the readings before alone.
    pub judgement: Judgement,
}

/// A patient's readings, by signal in the order of [`SIGNALS`], each judged by a model that has not seen the patient.
pub fn judge(normals: &Normals, patient: &Series) -> Vec<Vec<JudgedReading>> {
    let (populations, _) = normals.for_case(patient.id);
    let signals = populations.iter().zip(&patient.readings);
    signals.map(|(population, readings)| judged(population, readings)).collect()
}

fn judged(population: &Population, readings: &[(Timestamp, f64)]) -> Vec<JudgedReading> {
    let mut track = None;
    let judge = |(at, value): &(Timestamp, f64)| {
        let (judgement, after) = step(population, track, *value, *at)?;
        track = Some(after);
        Some(JudgedReading { at: *at, value: *value, judgement })
    };
    readings.iter().filter_map(judge).collect()
}

/// Judges all readings of patients, each by a model that has not seen them, by group and signal.
pub fn evaluate(
    normals: &Normals,
    patients: &[Series],
) -> BTreeMap<String, BTreeMap<&'static str, PersonalFigures>> {
    let mut tallies: BTreeMap<String, Vec<Tally>> = BTreeMap::new();
    for patient in patients {
        let (populations, _) = normals.for_case(patient.id);
        let none = || (0..SIGNALS.len()).map(|_| Tally::default()).collect();
        let group = tallies.entry(patient.group.clone()).or_insert_with(none);
        for (number, tally) in group.iter_mut().enumerate() {
            tally.add(&populations[number], &patient.readings[number]);
        }
    }
    let figures = |tally: &Tally, (signal, _): &(haar_schema::SignalId, usize)| {
        Some((signal.name(), tally.figures()?))
    };
    tallies
        .into_iter()
        .map(|(group, own)| {
            let signals = own.iter().zip(&SIGNALS);
            (group, signals.filter_map(|(tally, signal)| figures(tally, signal)).collect())
        })
        .collect()
}

#[derive(Default)]
struct Tally {
    readings: usize,
    first: usize,
    within: [usize; COVERAGES.len()],
    within_first: [usize; COVERAGES.len()],
    width: [f64; COVERAGES.len()],
    patients: [Vec<f64>; COVERAGES.len()],
    errors: [f64; 2],
    pinball: [f64; 3],
}

impl Tally {
    fn add(&mut self, population: &Population, readings: &[(Timestamp, f64)]) {
        let mut last = None;
        let (mut own, mut own_within) = (0, [0; COVERAGES.len()]);
        for JudgedReading { value, judgement, .. } in &judged(population, readings) {
            let within = judgement.intervals.map(|(lower, upper)| (lower..=upper).contains(value));
            if let Some(last) = last.filter(|_| judgement.personal) {
                own += 1;
                for (coverage, interval) in judgement.intervals.iter().enumerate() {
                    own_within[coverage] += usize::from(within[coverage]);
                    self.width[coverage] += interval.1 - interval.0;
                    self.pinball(population, coverage, *interval, last, *value);
                }
                self.errors[0] += (value - judgement.expected).abs();
                self.errors[1] += (value - last).abs();
            } else {
                self.first += 1;
                (0..COVERAGES.len())
                    .for_each(|at| self.within_first[at] += usize::from(within[at]));
            }
            last = Some(*value);
        }
        self.readings += own;
        for (coverage, within) in own_within.into_iter().enumerate() {
            self.within[coverage] += within;
            if own >= READINGS_MIN {
                self.patients[coverage].push(within as f64 / own as f64);
            }
        }
    }

    fn pinball(
        &mut self,
        population: &Population,
        coverage: usize,
        ours: (f64, f64),
        last: f64,
        value: f64,
    ) {
        let tail = (1.0 - COVERAGES[coverage]) / 2.0;
        let around = |table: &[f64], centre: f64| {
            (centre + quantile(table, tail), centre + quantile(table, 1.0 - tail))
        };
        let ends = [ours, around(&population.steps, last), around(&population.values, 0.0)];
        for (sum, (lower, upper)) in self.pinball.iter_mut().zip(ends) {
            *sum += loss(value - lower, tail) + loss(value - upper, 1.0 - tail);
        }
    }

    fn figures(&self) -> Option<PersonalFigures> {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let of = |sum: f64| sum / self.readings as f64;
        let coverage = |at: usize| {
            let mut patients = self.patients[at].clone();
            patients.sort_by(f64::total_cmp);
            Coverage {
                promised: COVERAGES[at],
                measured: share(self.within[at], self.readings),
                measured_first: share(self.within_first[at], self.first),
                tenth_patient: patients.get(patients.len() / 10).copied().unwrap_or(f64::NAN),
                width: of(self.width[at]),
            }
        };
        let ends = (2 * COVERAGES.len()) as f64;
        (self.readings > 0).then(|| PersonalFigures {
            readings: self.readings,
            coverages: (0..COVERAGES.len()).map(coverage).collect(),
            mae: of(self.errors[0]),
            mae_last_value: of(self.errors[1]),
            pinball: of(self.pinball[0]) / ends,
            pinball_last_value: of(self.pinball[1]) / ends,
            pinball_everybody: of(self.pinball[2]) / ends,
        })
    }
}

/// The pinball loss of a quantile (Koenker, Bassett, Econometrica 46, 1978) from what the value is above it.
fn loss(above: f64, level: f64) -> f64 {
    if above >= 0.0 { level * above } else { (level - 1.0) * above }
}
