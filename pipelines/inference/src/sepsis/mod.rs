//! Sepsis within six hours, from hourly vital signs and laboratory values with their gaps.
//!
//! [`History`] turns the hours of a stay into rows of features, [`SepsisModel`] gives each row a calibrated probability that sepsis
//! (Sepsis-3) begins within [`HORIZON_H`] hours or has begun, with an uncertainty and with what each input contributed.
//!
//! # The model
//! A committee of boosted forests ([`crate::trees`]). Stays are dealt into folds; a forest is grown for each *pair* of
//! folds, without the patients of both. Member k is the mean of the forests that have not seen fold k; its calibration
//! (Platt, "Probabilistic outputs for support vector machines", 1999) and its threshold for a warning are fitted on what each of these forests says about the
//! other fold that it has not seen. So neither forest, calibration nor threshold of member k has seen fold k.
//! Networks were tried first and did not reach the trees; the model card has the figures.
//!
//! # Units
//! Those of [`haar_recordings::cinc2019::VARIABLES`], one row an hour. Every hour must be given, also one in which nothing was
//! measured. Nothing of a later hour is looked at.
//!
//! # Not guaranteed
//! Labels are by Sepsis-3 from charts of two hospitals; another hospital orders and charts otherwise, and what is ordered is
//! part of what the model sees. The uncertainty is the members' disagreement, not an error bar. No medical device.

mod calibrate;
mod chart;
mod evaluate;
mod features;
mod severity;
mod train;
mod utility;

pub use calibrate::{Platt, platt};
pub use chart::{Chart, MAX_GAP_H};
pub use evaluate::{Case, Evaluation, Figures, evaluate};
pub use features::{Feature, History, Patient, WINDOW_H, feature_digest, features};
pub use train::{SepsisSettings, TrainError, TrainProgress, Trained, train};
pub use utility::Utility;

use crate::BUILTIN;
use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package};
use crate::trees::{Forest, ForestError};
use candle_core::{DType, Device, Tensor};
use haar_recordings::cinc2019::VARIABLES;
use haar_recordings::corpus::CaseId;
use haar_schema::ModelRef;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// How far the probability looks ahead, in hours.
pub const HORIZON_H: u32 = 6;

/// The manifest's task.
pub const TASK: &str = "sepsis-6h";

const CALIBRATION: &str = "calibration";
const THRESHOLD: &str = "threshold";

/// The probability of an onset within so many hours, or before.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Risk<const WITHIN_H: u32> {
    /// Calibrated probability.
    pub probability: f64,
    /// Standard deviation of the members' probabilities; `None` if one was asked.
    pub uncertainty: Option<f64>,
    /// Whether the probability is at the threshold that had the best utility in training, or above.
    pub warning: bool,
}

/// The risk of sepsis as [`SepsisModel`] gives it.
pub type SepsisRisk = Risk<HORIZON_H>;

/// What speaks for and against, in log-odds.
#[derive(Clone, PartialEq, Debug)]
pub struct RiskShares {
    /// What each input contributed, the largest first; equals by name.
    pub inputs: Vec<(&'static str, f64)>,
    /// The log-odds of a patient of whom nothing is known.
    pub neutral: f64,
    /// The log-odds of the probability: `neutral` and all shares together.
    pub log_odds: f64,
}

/// A loaded model.
#[derive(Clone, Debug)]
pub struct SepsisModel {
    package: Package,
    members: Vec<Member>,
    features: Vec<Feature>,
}

/// A forest with what was fitted on patients that it had not seen.
#[derive(Clone, PartialEq, Debug)]
struct Member {
    forest: Forest,
    platt: Platt,
    threshold: f64,
}

impl SepsisModel {
    /// The model in a folder.
    ///
    /// # Errors
    /// If a file is missing, or the model is none for this task, these inputs and features.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        Self::new(Package::load(folder)?)
    }

    /// The model that comes with Haar.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    pub fn builtin() -> Result<Self, LoadError> {
        for builtin in BUILTIN {
            if Manifest::parse(builtin.manifest)?.task == TASK {
                return Self::new(builtin.package()?);
            }
        }
        Err(LoadError::Task { found: "none".into(), wanted: TASK.into() })
    }

    /// The model of a package.
    ///
    /// # Errors
    /// If it is none for this task, these inputs and features.
    pub fn new(package: Package) -> Result<Self, LoadError> {
        package.check(TASK, &inputs(), &OutputSpec::probabilities(["sepsis within 6 h"]))?;
        let features = features();
        let members = (0..package.members())
            .map(|number| Member::take_from(package.member(number), features.len()))
            .collect::<Result<_, _>>()?;
        Ok(Self { package, members, features })
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        self.package.manifest()
    }

    /// Its name in digests.
    pub const fn reference(&self) -> &ModelRef {
        self.package.reference()
    }

    /// The members to ask about a patient's file: the one that has not seen it, or all.
    pub fn members_for(&self, case: CaseId) -> Range<usize> {
        self.package.lineage().members_for(case, self.members.len())
    }

    /// All members: for patients that are not in the training data.
    pub fn all_members(&self) -> Range<usize> {
        0..self.members.len()
    }

    /// The probability from which on all members together warn.
    pub fn threshold(&self) -> f64 {
        threshold(&self.members)
    }

    /// The risk at the end of an hour, from its row of features ([`History::push`]). `None` without a member in the range.
    pub fn risk(&self, row: &[f32], members: Range<usize>) -> Option<SepsisRisk> {
        let members = self.members.get(members).filter(|members| !members.is_empty())?;
        let log_odds: Vec<f64> = members.iter().map(|member| member.log_odds(row)).collect();
        let probability = sigmoid(mean(&log_odds));
        let each: Vec<f64> = log_odds.iter().map(|log_odds| sigmoid(*log_odds)).collect();
        let centre = mean(&each);
        let squares: f64 = each.iter().map(|p| (p - centre).powi(2)).sum();
        let uncertainty = (each.len() > 1).then(|| (squares / (each.len() - 1) as f64).sqrt());
        let warning = probability >= threshold(members);
        Some(Risk { probability, uncertainty, warning })
    }

    /// What each input contributed to the log-odds of [`Self::risk`]. `None` without a member in the range.
    pub fn explain(&self, row: &[f32], members: Range<usize>) -> Option<RiskShares> {
        let members = self.members.get(members).filter(|members| !members.is_empty())?;
        let mut by_input: BTreeMap<&'static str, f64> = BTreeMap::new();
        let (mut neutral, mut log_odds) = (0.0, 0.0);
        for member in members {
            let part = 1.0 / members.len() as f64;
            let shares = member.forest.explain(row, self.features.len());
            neutral += part * member.platt.apply(shares.neutral);
            log_odds += part * member.platt.apply(shares.output);
            for (feature, share) in self.features.iter().zip(shares.features) {
                *by_input.entry(feature.input).or_default() += part * member.platt.slope * share;
            }
        }
        let mut inputs: Vec<(&'static str, f64)> = by_input.into_iter().collect();
        inputs.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(b.0)));
        Some(RiskShares { inputs, neutral, log_odds })
    }
}

impl Member {
    fn log_odds(&self, row: &[f32]) -> f64 {
        self.platt.apply(self.forest.predict(row))
    }

    fn tensors(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let mut tensors = self.forest.tensors()?;
        let calibration = [self.platt.slope, self.platt.intercept];
        tensors.insert(CALIBRATION.into(), Tensor::new(&calibration, &Device::Cpu)?);
        tensors.insert(THRESHOLD.into(), Tensor::new(&[self.threshold], &Device::Cpu)?);
        Ok(tensors)
    }

    fn take_from(
        mut tensors: BTreeMap<String, Tensor>,
        features: usize,
    ) -> Result<Self, LoadError> {
        let mut numbers = |name: &str, count: usize| {
            let tensor = tensors.remove(name).filter(|tensor| tensor.dtype() == DType::F64);
            let values = tensor.and_then(|tensor| tensor.to_vec1::<f64>().ok());
            let finite = |values: &Vec<f64>| {
                values.len() == count && values.iter().all(|value| value.is_finite())
            };
            values.filter(finite).ok_or_else(|| LoadError::Tensor(name.into()))
        };
        let (calibration, threshold) = (numbers(CALIBRATION, 2)?, numbers(THRESHOLD, 1)?);
        let forest = Forest::take_from(&mut tensors, features)
            .map_err(|error: ForestError| LoadError::Tensor(error.to_string()))?;
        if let Some((name, _)) = tensors.pop_first() {
            return Err(LoadError::Tensor(name));
        }
        let platt = Platt { slope: calibration[0], intercept: calibration[1] };
        Ok(Self { forest, platt, threshold: threshold[0] })
    }
}

/// What a model for this build has as inputs: the quantities and what is known of the patient, and as the last one the list of
/// features that this build makes of them, by its digest.
fn inputs() -> Vec<InputSpec> {
    let one = |name: &str, unit: &str| InputSpec {
        name: name.into(),
        unit: unit.into(),
        shape: vec![1],
        rate_millihertz: None,
    };
    let mut inputs: Vec<InputSpec> =
        VARIABLES.iter().map(|variable| one(variable.name, variable.unit)).collect();
    inputs.extend([one("Age", "a"), one("Sex (1 is male)", "1")]);
    inputs.extend([one("Admission to hospital", "h"), one("Hours in intensive care", "h")]);
    let digest = feature_digest();
    let name = format!("features {}", &digest[..16]);
    inputs.push(InputSpec {
        name,
        unit: "1".into(),
        shape: vec![features().len()],
        rate_millihertz: None,
    });
    inputs
}

fn threshold(members: &[Member]) -> f64 {
    members.iter().map(|member| member.threshold).sum::<f64>() / members.len().max(1) as f64
}

fn sigmoid(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests;
