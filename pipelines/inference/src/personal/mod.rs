//! What is usual for this patient: a forecast of each vital sign with intervals that hold what they promise.
//!
//! [`Normals::observe`] takes one reading after another and says where it was expected, by this patient's own course. A
//! reading outside its interval is unusual *for this patient*, whatever the general limits say.
//!
//! # How
//! The forecast is linear in the last value, a fast and a slow exponentially weighted level, fitted on many patients; the levels are
//! robust (an innovation counts at most [`CLIP`] deviations). The deviation is the patient's own, shrunk to everybody's. The interval
//! is read from a table of everybody's scaled residuals at a level that adapts to how often this patient
//! has left it: adaptive conformal inference (Gibbs, Candès, NeurIPS 2021, equation 2), each tail by itself. A patient's first
//! [`FIRST_READINGS`] readings, and those after a silence of [`SILENCE_H`] hours, are judged by everybody's values.
//!
//! # Readings
//! One an hour and signal, in the units of [`haar_schema::SignalId`] (a median over the hour does well); what comes within half an hour of the
//! reading before, or is not after it, is not judged and changes nothing. The state is a function of the readings in their
//! order alone, so it is the same bit for bit however they are cut into frames, and after being written down and read again in a
//! format that keeps f64 (postcard, CBOR; JSON only if its reader rounds correctly).
//!
//! # Not guaranteed
//! Long-run coverage of a patient is as promised only where adaptation has not hit its bounds ([`TAIL_MIN`], [`TAIL_MAX`]); a single reading's is not. The data has no
//! time of day, so neither has the forecast. A slow worsening becomes usual: fixed limits stay necessary.

mod evaluate;
mod fit;
mod track;

pub use evaluate::{Coverage, JudgedReading, PersonalFigures, evaluate, judge};
pub use fit::{FitError, Series, fit, series};
pub use track::{Judgement, PersonalState};

use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package};
use candle_core::{DType, Device, Tensor};
use haar_recordings::corpus::CaseId;
use haar_schema::{ModelRef, SignalId};
use std::collections::BTreeMap;
use std::path::Path;

/// The manifest's task.
pub const TASK: &str = "personal-normal";

/// The signals that have a forecast, with their columns in [`haar_recordings::cinc2019::VARIABLES`].
pub const SIGNALS: [(SignalId, usize); 6] = [
    (SignalId::HEART_RATE, 0),
    (SignalId::SPO2, 1),
    (SignalId::RESPIRATION_RATE, 6),
    (SignalId::SYSTOLIC, 3),
    (SignalId::DIASTOLIC, 5),
    (SignalId::TEMPERATURE, 2),
];

/// The promised coverages.
pub const COVERAGES: [f64; 2] = [0.90, 0.95];
/// Readings that are judged by everybody's values.
pub const FIRST_READINGS: u32 = 3;
/// After so many hours without a reading a patient's own course says nothing any more.
pub const SILENCE_H: i64 = 24;
/// An innovation counts for so many deviations at most.
pub const CLIP: f64 = 5.0;
/// How much a miss changes the level of a tail (γ).
pub const ADAPTATION: f64 = 0.01;
/// The least that a tail may hold.
pub const TAIL_MIN: f64 = 0.002;
/// The most that a tail may hold.
pub const TAIL_MAX: f64 = 0.2;

/// Points of a table of quantiles.
const POINTS: usize = 65;
/// The level of a table's first point; the last one mirrors it, between they are even in log-odds.
const OUTERMOST: f64 = 0.0005;

/// What is known of one signal in everybody.
#[derive(Clone, PartialEq, Debug)]
struct Population {
    /// Median.
    centre: f64,
    /// Mean absolute residual of the forecast.
    spread: f64,
    /// Of the constant, last value, fast and slow level, each less the centre.
    weights: [f64; 4],
    /// Quantiles of residuals over the patient's deviation.
    scores: Vec<f64>,
    /// Quantiles of values.
    values: Vec<f64>,
    /// Quantiles of the steps from reading to reading: what the forecast is held against.
    steps: Vec<f64>,
}

/// What is usual, fitted on many patients.
#[derive(Clone, Debug)]
pub struct Normals {
    package: Package,
    members: Vec<Vec<Population>>,
    all: Vec<Population>,
}

impl Normals {
    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give; the built-in files are checked like any others.
    pub fn builtin() -> Result<Self, LoadError> {
        Self::new(Package::from_parts(
            include_str!("../../models/personal-normal/manifest.toml"),
            include_bytes!("../../models/personal-normal/weights.safetensors"),
        )?)
    }

    /// The model in a folder.
    ///
    /// # Errors
    /// If a file is missing, or the model is none for this task and these signals.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        Self::new(Package::load(folder)?)
    }

    /// The model of a package.
    ///
    /// # Errors
    /// If it is none for this task and these signals.
    pub fn new(package: Package) -> Result<Self, LoadError> {
        package.check(TASK, &inputs(), &outputs())?;
        let members = (0..package.members())
            .map(|number| take_from(package.member(number)))
            .collect::<Result<Vec<_>, _>>()?;
        let all = average(&members);
        Ok(Self { package, members, all })
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        self.package.manifest()
    }

    /// Its name in digests.
    pub const fn reference(&self) -> &ModelRef {
        self.package.reference()
    }

    /// The model for a patient's file: fitted without it if it is in the training data, else the mean of all members.
    fn for_case(&self, case: CaseId) -> (&[Population], bool) {
        match self.package.lineage().held_out_by(case).and_then(|fold| self.members.get(fold)) {
            Some(member) => (member, true),
            None => (&self.all, false),
        }
    }
}

fn inputs() -> Vec<InputSpec> {
    let input = |(signal, _): &(SignalId, usize)| InputSpec {
        name: signal.name().into(),
        unit: signal.definition().unit.into(),
        shape: vec![1],
        rate_millihertz: None,
    };
    SIGNALS.iter().map(input).collect()
}

fn outputs() -> Vec<OutputSpec> {
    ["expected", "lower 90 %", "upper 90 %", "lower 95 %", "upper 95 %"]
        .map(|name| OutputSpec { name: name.into(), unit: "of the signal".into() })
        .into()
}

/// The tensors of a member: a row of numbers for each signal.
fn tensors(member: &[Population]) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let table = |row: &dyn Fn(&Population) -> Vec<f64>| -> candle_core::Result<Tensor> {
        let rows: Vec<Vec<f64>> = member.iter().map(row).collect();
        Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu)
    };
    Ok([
        ("course".into(), table(&|p| [vec![p.centre, p.spread], p.weights.into()].concat())?),
        ("scores".into(), table(&|p| p.scores.clone())?),
        ("values".into(), table(&|p| p.values.clone())?),
        ("steps".into(), table(&|p| p.steps.clone())?),
    ]
    .into())
}

fn take_from(mut tensors: BTreeMap<String, Tensor>) -> Result<Vec<Population>, LoadError> {
    let mut take = |name: &str, width: usize| -> Result<Vec<Vec<f64>>, LoadError> {
        let fits = |tensor: &Tensor| {
            tensor.dtype() == DType::F64 && tensor.dims() == [SIGNALS.len(), width]
        };
        let tensor = tensors.remove(name).filter(fits);
        let rows = tensor.and_then(|tensor| tensor.to_vec2::<f64>().ok());
        let sound = |rows: &Vec<Vec<f64>>| rows.iter().flatten().all(|value| value.is_finite());
        rows.filter(sound).ok_or_else(|| LoadError::Tensor(name.into()))
    };
    let (course, scores) = (take("course", 6)?, take("scores", POINTS)?);
    let (values, steps) = (take("values", POINTS)?, take("steps", POINTS)?);
    if let Some((name, _)) = tensors.pop_first() {
        return Err(LoadError::Tensor(name));
    }
    let populations = course.into_iter().zip(scores).zip(values).zip(steps);
    Ok(populations
        .map(|(((course, scores), values), steps)| Population {
            centre: course[0],
            spread: course[1],
            weights: [course[2], course[3], course[4], course[5]],
            scores,
            values,
            steps,
        })
        .collect())
}

/// The mean of members, number by number: all of them are means and quantiles of nearly the same patients.
fn average(members: &[Vec<Population>]) -> Vec<Population> {
    let count = members.len().max(1) as f64;
    (0..SIGNALS.len())
        .map(|signal| {
            let own: Vec<&Population> = members.iter().map(|member| &member[signal]).collect();
            let mean = |of: &dyn Fn(&Population) -> f64| {
                own.iter().map(|population| of(population)).sum::<f64>() / count
            };
            let table = |of: &dyn Fn(&Population) -> &Vec<f64>| {
                (0..POINTS).map(|at| mean(&|population| of(population)[at])).collect()
            };
            Population {
                centre: mean(&|p| p.centre),
                spread: mean(&|p| p.spread),
                weights: std::array::from_fn(|at| mean(&|p| p.weights[at])),
                scores: table(&|p| &p.scores),
                values: table(&|p| &p.values),
                steps: table(&|p| &p.steps),
            }
        })
        .collect()
}

/// The level of a table's point.
fn level(point: usize) -> f64 {
    let outermost = (OUTERMOST / (1.0 - OUTERMOST)).ln();
    let log_odds = outermost * (1.0 - 2.0 * point as f64 / (POINTS - 1) as f64);
    1.0 / (1.0 + (-log_odds).exp())
}

/// The quantile of a table at a level, linear in log-odds between its points.
fn quantile(table: &[f64], at: f64) -> f64 {
    let outermost = (OUTERMOST / (1.0 - OUTERMOST)).ln();
    let log_odds = (at / (1.0 - at)).ln().clamp(outermost, -outermost);
    let place = (1.0 - log_odds / outermost) / 2.0 * (POINTS - 1) as f64;
    let low = (place.floor() as usize).min(POINTS - 2);
    let share = place - low as f64;
    table[low] * (1.0 - share) + table[low + 1] * share
}

/// The table of quantiles of sorted values; zeros without any.
fn table_of(sorted: &[f64]) -> Vec<f64> {
    let last = sorted.len().saturating_sub(1) as f64;
    let at = |point| sorted.get((level(point) * last).round() as usize).copied().unwrap_or(0.0);
    (0..POINTS).map(at).collect()
}

#[cfg(test)]
mod tests;
