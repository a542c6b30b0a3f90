//! Fitting everybody's part of the forecast.

use super::track::step;
use super::{Population, SIGNALS, TASK, inputs, outputs, table_of, tensors};
use crate::package::{Draft, Lineage, Manifest, Metrics, TrainingData, TrainingRun, WeightsFile};
use crate::training::folds;
use haar_recordings::cinc2019::Stay;
use haar_recordings::corpus::CaseId;
use haar_schema::Timestamp;

const HOUR_US: i64 = 3_600_000_000;
/// Rounds of reweighting, by which least squares become least absolute deviations.
const ROUNDS: usize = 8;

/// One patient's vital signs.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// Names the file by content.
    pub id: CaseId,
    /// What it is reported under.
    pub group: String,
    /// For each of [`SIGNALS`] what was read, in order of time.
    pub readings: Vec<Vec<(Timestamp, f64)>>,
}

/// Why nothing was fitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FitError {
    /// Too few readings of a signal.
    #[error("{0} has fewer than 1,000 readings after a patient's first ones: give more patients")]
    Few(&'static str),
    /// Too few or too many folds.
    #[error("a committee has 2 to 16 folds")]
    Folds,
    /// candle failed.
    #[error("tensors could not be made: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// The vital signs of an hourly stay.
pub fn series(id: CaseId, group: &str, stay: &Stay) -> Series {
    let of = |column: usize| {
        let reading = |(hour, values): (usize, f32)| {
            let at = Timestamp::from_micros(HOUR_US.saturating_mul(hour as i64));
            (!values.is_nan()).then(|| (at, f64::from(values)))
        };
        stay.hours.iter().map(|hour| hour.values[column]).enumerate().filter_map(reading).collect()
    };
    let readings = SIGNALS.iter().map(|(_, column)| of(*column)).collect();
    Series { id, group: group.into(), readings }
}

/// Fits a committee: member k on the patients of all folds but k.
///
/// # Errors
/// If a signal has too few readings.
pub fn fit(
    patients: &[Series],
    fold_count: usize,
    seed: u64,
    command: &str,
    date: &str,
) -> Result<Draft, FitError> {
    if !(2..=16).contains(&fold_count) {
        return Err(FitError::Folds);
    }
    let fold_of = folds(patients.len(), fold_count, seed);
    let mut members = Vec::new();
    for fold in 0..fold_count {
        let mut populations = Vec::new();
        for (number, (signal, _)) in SIGNALS.iter().enumerate() {
            let own = patients.iter().zip(&fold_of).filter(|(_, other)| **other != fold);
            let readings: Vec<&[(Timestamp, f64)]> =
                own.map(|(series, _)| series.readings[number].as_slice()).collect();
            populations.push(population(&readings).ok_or(FitError::Few(signal.name()))?);
        }
        members.push(tensors(&populations)?);
    }
    let lineage =
        Lineage::new(patients.iter().zip(fold_of).map(|(series, fold)| (series.id, fold as u8)));
    let manifest = manifest(patients.len() as u64, fold_count, seed, command, date);
    Ok(Draft { manifest, members, lineage, card: String::new() })
}

/// A signal in everybody.
fn population(patients: &[&[(Timestamp, f64)]]) -> Option<Population> {
    let mut values: Vec<f64> =
        patients.iter().copied().flatten().map(|reading| reading.1).collect();
    let steps = patients.iter().flat_map(|own| own.windows(2).map(|pair| pair[1].1 - pair[0].1));
    let mut steps: Vec<f64> = steps.collect();
    values.sort_by(f64::total_cmp);
    steps.sort_by(f64::total_cmp);
    let mut population = Population {
        centre: *values.get(values.len() / 2)?,
        spread: steps.iter().map(|step| step.abs()).sum::<f64>() / steps.len() as f64,
        weights: [0.0, 1.0, 0.0, 0.0],
        scores: table_of(&[-1.0, 0.0, 1.0]),
        values: table_of(&values),
        steps: table_of(&steps),
    };
    let cases = cases(&population, patients);
    if cases.len() < 1_000 {
        return None;
    }
    population.weights = least_absolute(&cases)?;
    let residual = |case: &Case| {
        let forecast: f64 = case.terms.iter().zip(population.weights).map(|(x, w)| x * w).sum();
        (case.target - forecast).abs()
    };
    population.spread = cases.iter().map(residual).sum::<f64>() / cases.len() as f64;
    let mut scores = scores(&population, patients);
    scores.sort_by(f64::total_cmp);
    population.scores = table_of(&scores);
    Some(population)
}

struct Case {
    terms: [f64; 4],
    target: f64,
}

fn cases(population: &Population, patients: &[&[(Timestamp, f64)]]) -> Vec<Case> {
    let mut cases = Vec::new();
    for patient in patients {
        let mut track = None;
        for (at, value) in *patient {
            if let Some(before) = track.filter(is_known) {
                let terms = super::track::Track::regressors(&before, population);
                cases.push(Case { terms, target: value - population.centre });
            }
            track = step(population, track, *value, *at).map(|step| step.1);
        }
    }
    cases
}

fn is_known(track: &super::track::Track) -> bool {
    track.readings() >= super::FIRST_READINGS
}

/// Residuals over the deviation that was known before them.
fn scores(population: &Population, patients: &[&[(Timestamp, f64)]]) -> Vec<f64> {
    let mut scores = Vec::new();
    for patient in patients {
        let mut track: Option<super::track::Track> = None;
        for (at, value) in *patient {
            let Some((judgement, after)) = step(population, track, *value, *at) else { continue };
            if let Some(before) = track.filter(|_| judgement.personal) {
                scores.push((value - judgement.expected) / before.scale(population));
            }
            track = Some(after);
        }
    }
    scores
}

/// Least absolute deviations by iteratively reweighted least squares (Schlossmacher, JASA 68, 1973).
fn least_absolute(cases: &[Case]) -> Option<[f64; 4]> {
    let mut weights = [0.0, 1.0, 0.0, 0.0];
    let floor = cases.iter().map(|case| (case.target - case.terms[1]).abs()).sum::<f64>()
        / cases.len() as f64
        / 20.0;
    for _ in 0..ROUNDS {
        let mut matrix = [[0.0; 5]; 4];
        for case in cases {
            let forecast: f64 = case.terms.iter().zip(weights).map(|(x, w)| x * w).sum();
            let weight = 1.0 / (case.target - forecast).abs().max(floor);
            for (row, x) in matrix.iter_mut().zip(case.terms) {
                for (cell, y) in row.iter_mut().zip(case.terms) {
                    *cell += weight * x * y;
                }
                row[4] += weight * x * case.target;
            }
        }
        // A little ridge: the levels are nearly alike in patients that do not change.
        let ridge = 1e-6 * (0..4).map(|at| matrix[at][at]).sum::<f64>();
        (0..4).for_each(|at| matrix[at][at] += ridge);
        weights = solve(matrix)?;
    }
    Some(weights)
}

/// Gauss' elimination with the largest pivot.
fn solve(mut matrix: [[f64; 5]; 4]) -> Option<[f64; 4]> {
    for column in 0..4 {
        let pivot = (column..4)
            .max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        matrix.swap(column, pivot);
        let own = matrix[column];
        for (number, row) in matrix.iter_mut().enumerate().filter(|(number, _)| *number != column) {
            let factor = row[column] / own[column];
            debug_assert!(number < 4);
            for (cell, own) in row.iter_mut().zip(own) {
                *cell -= factor * own;
            }
        }
    }
    let solution: [f64; 4] = std::array::from_fn(|at| matrix[at][4] / matrix[at][at]);
    solution.iter().all(|weight| weight.is_finite()).then_some(solution)
}

fn manifest(cases: u64, folds: usize, seed: u64, command: &str, date: &str) -> Manifest {
    Manifest {
        id: "personal-normal".into(),
        version: 1,
        task: TASK.into(),
        title: "What is usual for this patient: vital signs an hour ahead with intervals".into(),
        date: date.into(),
        members: folds as u32,
        inputs: inputs(),
        outputs: outputs(),
        weights: WeightsFile::default(),
        data: vec![TrainingData {
            name: "PhysioNet/CinC Challenge 2019".into(),
            citation: "Reyna MA et al. Early Prediction of Sepsis From Clinical Data. Crit Care Med 48(2):210-217, 2020, 10.1097/CCM.0000000000004145; Goldberger AL et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220, 2000".into(),
            licence: "CC BY 4.0".into(),
            cases,
            note: "hourly vital signs; labels not used".into(),
        }],
        training: TrainingRun {
            seed,
            epochs: 1,
            folds: folds as u32,
            command: command.into(),
            settings: [("adaptation".to_owned(), super::ADAPTATION.to_string())].into(),
        },
        metrics: Metrics::default(),
    }
}
