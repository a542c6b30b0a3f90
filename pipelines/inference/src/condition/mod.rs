//! What a flagged window is about: a group of conditions with a probability, so that flags arrive sorted.
//!
//! Six groups ([`ConditionGroup`]). The input is a window's features, by the names that pipelines give them
//! ([`INPUTS`]); whatever a window does not have is missing, and the network is told so. Two linear layers: enough to
//! weigh a dozen numbers against each other, small enough to be read.
//!
//! # Not guaranteed
//! There is no public recording with such labels. The network is trained on cases that are drawn from published ranges
//! ([`cases`]), so its probability sorts a list; how often it is right on a ward nobody has measured, and the model's card
//! says so.

pub mod cases;
mod train;

pub use train::{ConditionSettings, train};

use crate::explain::{Explained, integrated_gradients};
use crate::package::{InputSpec, LoadError, OutputSpec, Package, take_parameters};
use candle_core::{D, Device, Tensor};
use haar_schema::ModelRef;
use std::collections::BTreeMap;

/// What the task is called.
pub const CONDITION_TASK: &str = "condition-group";

/// What a window may be about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConditionGroup {
    /// Rate and rhythm of the heart.
    Rhythm,
    /// Breathing and oxygenation.
    Respiratory,
    /// Infection, sepsis among it.
    Infection,
    /// Glucose and what follows from it.
    Metabolic,
    /// Pressure and perfusion.
    Haemodynamic,
    /// A sensor or its connection.
    Device,
}

impl ConditionGroup {
    /// All, in the order of the network's outputs.
    pub const ALL: [Self; 6] = [
        Self::Rhythm,
        Self::Respiratory,
        Self::Infection,
        Self::Metabolic,
        Self::Haemodynamic,
        Self::Device,
    ];

    /// Names in the same order.
    pub const NAMES: [&'static str; 6] =
        ["rhythm", "respiratory", "infection", "metabolic", "haemodynamic", "device"];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// A feature that the network reads.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConditionInput {
    /// The feature's name, as pipelines give it.
    pub name: &'static str,
    /// Its UCUM unit.
    pub unit: &'static str,
    /// What is usual for an adult at rest: becomes zero.
    pub usual: f32,
    /// What becomes one.
    pub scale: f32,
}

const fn input(name: &'static str, unit: &'static str, usual: f32, scale: f32) -> ConditionInput {
    ConditionInput { name, unit, usual, scale }
}

/// The features, in order.
pub const INPUTS: [ConditionInput; 14] = [
    input("heart_rate.mean", "/min", 75.0, 20.0),
    input("spo2.mean", "%", 97.0, 3.0),
    input("respiration_rate.mean", "/min", 15.0, 5.0),
    input("systolic.mean", "mm[Hg]", 122.0, 20.0),
    input("diastolic.mean", "mm[Hg]", 76.0, 12.0),
    input("temperature.mean", "Cel", 36.8, 0.7),
    input("glucose.mean", "mg/dL", 110.0, 60.0),
    input("heart_rate.continuity", "1", 1.0, 0.3),
    input("spo2.continuity", "1", 1.0, 0.3),
    input("ecg.heart_rate", "/min", 75.0, 20.0),
    input("ecg.rr_irregularity", "1", -2.2, 0.5),
    input("ecg.quality", "1", 0.9, 0.2),
    input("beats.fraction_v", "1", 0.0, 0.1),
    input("beats.fraction_s", "1", 0.0, 0.1),
];

const COUNT: usize = INPUTS.len();
const HIDDEN: usize = 24;
/// Values further out say no more than this many scales.
const CLAMP: f32 = 8.0;
/// Rows of one call of the network; fewer are filled up, so that a window's result does not depend on its neighbours.
const BATCH: usize = 16;

const PARAMETERS: [(&str, &[usize]); 4] = [
    ("hidden.weight", &[HIDDEN, 2 * COUNT]),
    ("hidden.bias", &[HIDDEN]),
    ("output.weight", &[6, HIDDEN]),
    ("output.bias", &[6]),
];

/// The features of a window, as the network reads them: scaled values, then which of them are there.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConditionFeatures([f32; 2 * COUNT]);

impl ConditionFeatures {
    /// Of a window; `feature` gives the value of a name, `None` where it is missing or not finite.
    pub fn of(feature: impl Fn(&str) -> Option<f64>) -> Self {
        let mut row = [0.0; 2 * COUNT];
        for (at, input) in INPUTS.iter().enumerate() {
            if let Some(value) = feature(input.name).filter(|value| value.is_finite()) {
                row[at] = ((value as f32 - input.usual) / input.scale).clamp(-CLAMP, CLAMP);
                row[COUNT + at] = 1.0;
            }
        }
        Self(row)
    }

    /// What the network reads, in order: of [`INPUTS`] the scaled values, then 1 for each that is there.
    pub const fn values(&self) -> &[f32] {
        &self.0
    }

    /// How many of [`INPUTS`] are there.
    pub fn known(&self) -> usize {
        self.0[COUNT..].iter().filter(|mask| **mask > 0.0).count()
    }
}

/// What the model says of a window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ConditionScore {
    /// The most probable group.
    pub group: ConditionGroup,
    /// Probability of each group, in the order of [`ConditionGroup::ALL`]; the sum is 1.
    pub probabilities: [f32; 6],
}

/// Sorts flagged windows. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct ConditionModel {
    reference: ModelRef,
    members: Vec<Parameters>,
}

type Parameters = BTreeMap<&'static str, Tensor>;

impl ConditionModel {
    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    pub fn builtin() -> Result<Self, LoadError> {
        Self::from_package(&Package::from_parts(
            include_str!("../../models/condition-group/manifest.toml"),
            include_bytes!("../../models/condition-group/weights.safetensors"),
        )?)
    }

    /// The model in a package.
    ///
    /// # Errors
    /// If it is one for something else, or its parameters do not fit.
    pub fn from_package(package: &Package) -> Result<Self, LoadError> {
        package.check(CONDITION_TASK, &input_specs(), &output_specs())?;
        let members = (0..package.members())
            .map(|member| take_parameters(package.member(member), &PARAMETERS))
            .collect::<Result<_, _>>()?;
        Ok(Self { reference: package.reference().clone(), members })
    }

    /// The model's name in digests.
    pub const fn reference(&self) -> &ModelRef {
        &self.reference
    }

    /// Sorts windows, in order. A window's result does not depend on the others.
    ///
    /// # Errors
    /// If the network cannot be computed.
    pub fn classify(
        &self,
        windows: &[ConditionFeatures],
    ) -> candle_core::Result<Vec<ConditionScore>> {
        let mut scores = Vec::with_capacity(windows.len());
        for chunk in windows.chunks(BATCH) {
            let mut rows: Vec<f32> = chunk.iter().flat_map(|window| window.0).collect();
            rows.resize(BATCH * 2 * COUNT, 0.0);
            let rows = Tensor::from_vec(rows, (BATCH, 2 * COUNT), &Device::Cpu)?;
            let probabilities = self.probabilities(&rows)?.to_vec2::<f32>()?;
            for row in probabilities.iter().take(chunk.len()) {
                let probabilities: [f32; 6] = std::array::from_fn(|group| row[group]);
                let mut group = ConditionGroup::Rhythm;
                for other in ConditionGroup::ALL {
                    if probabilities[other.index()] > probabilities[group.index()] {
                        group = other;
                    }
                }
                scores.push(ConditionScore { group, probabilities });
            }
        }
        Ok(scores)
    }

    /// How much each of [`INPUTS`] speaks for (positive) or against a group, in probability, against a window of
    /// which nothing is known. That an input is there at all counts with its value.
    ///
    /// # Errors
    /// If the network cannot be computed.
    pub fn attribute(
        &self,
        window: &ConditionFeatures,
        group: ConditionGroup,
    ) -> candle_core::Result<Explained> {
        let row = Tensor::new(&window.0, &Device::Cpu)?;
        let mut explained =
            integrated_gradients(std::slice::from_ref(&row), &[row.zeros_like()?], |rows| {
                self.probabilities(&rows[0])?.narrow(1, group.index(), 1)?.squeeze(1)
            })?;
        for shares in &mut explained.shares {
            let masks = shares.split_off(COUNT);
            for (share, mask) in shares.iter_mut().zip(masks) {
                *share += mask;
            }
        }
        Ok(explained)
    }

    /// The mean over the members.
    fn probabilities(&self, rows: &Tensor) -> candle_core::Result<Tensor> {
        let each = self
            .members
            .iter()
            .map(|member| softmax(&forward(member, rows)?))
            .collect::<candle_core::Result<Vec<_>>>()?;
        Tensor::stack(&each, 0)?.mean(0)
    }
}

/// The scores before the softmax; `rows` is batch × (values, masks).
fn forward(parameters: &Parameters, rows: &Tensor) -> candle_core::Result<Tensor> {
    let linear = |name: [&str; 2], x: &Tensor| {
        x.matmul(&parameters[name[0]].t()?)?.broadcast_add(&parameters[name[1]])
    };
    let hidden = linear(["hidden.weight", "hidden.bias"], rows)?.tanh()?;
    linear(["output.weight", "output.bias"], &hidden)
}

fn softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let powers = scores.broadcast_sub(&largest)?.exp()?;
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)
}

fn input_specs() -> Vec<InputSpec> {
    let spec = |input: &ConditionInput| InputSpec {
        name: input.name.into(),
        unit: input.unit.into(),
        shape: vec![1],
        rate_millihertz: None,
    };
    INPUTS.iter().map(spec).collect()
}

fn output_specs() -> Vec<OutputSpec> {
    OutputSpec::probabilities(ConditionGroup::NAMES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(values: &[(&str, f64)]) -> ConditionFeatures {
        ConditionFeatures::of(|name| {
            values.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
        })
    }

    #[test]
    fn textbook_windows_are_sorted() {
        let model = ConditionModel::builtin().unwrap();
        let cases = [
            (
                ConditionGroup::Rhythm,
                window(&[
                    ("ecg.rr_irregularity", -0.9),
                    ("ecg.heart_rate", 112.0),
                    ("ecg.quality", 0.9),
                ]),
            ),
            (
                ConditionGroup::Respiratory,
                window(&[
                    ("spo2.mean", 84.0),
                    ("respiration_rate.mean", 28.0),
                    ("heart_rate.mean", 95.0),
                    ("temperature.mean", 36.9),
                    ("systolic.mean", 124.0),
                ]),
            ),
            (
                ConditionGroup::Infection,
                window(&[
                    ("temperature.mean", 39.1),
                    ("heart_rate.mean", 118.0),
                    ("respiration_rate.mean", 24.0),
                    ("systolic.mean", 98.0),
                    ("spo2.mean", 94.0),
                ]),
            ),
            (
                ConditionGroup::Metabolic,
                window(&[("glucose.mean", 45.0), ("heart_rate.mean", 88.0)]),
            ),
            (
                ConditionGroup::Haemodynamic,
                window(&[
                    ("systolic.mean", 78.0),
                    ("diastolic.mean", 45.0),
                    ("heart_rate.mean", 105.0),
                    ("temperature.mean", 36.7),
                    ("spo2.mean", 97.0),
                ]),
            ),
            (ConditionGroup::Device, window(&[("ecg.quality", 0.1), ("ecg.heart_rate", 80.0)])),
        ];
        let windows: Vec<ConditionFeatures> = cases.iter().map(|case| case.1).collect();
        for ((expected, _), score) in cases.iter().zip(model.classify(&windows).unwrap()) {
            assert_eq!(score.group, *expected, "{score:?}");
            assert!((score.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn neighbours_do_not_matter_and_shares_add_up() {
        let model = ConditionModel::builtin().unwrap();
        let windows: Vec<ConditionFeatures> =
            cases::draw(7, 40).map(|case| case.features).collect();
        let together = model.classify(&windows).unwrap();
        for (window, score) in windows.iter().zip(&together) {
            let alone = model.classify(std::slice::from_ref(window)).unwrap()[0];
            assert_eq!(
                alone.probabilities.map(f32::to_bits),
                score.probabilities.map(f32::to_bits)
            );
        }
        for (window, score) in windows.iter().zip(&together).take(8) {
            let explained = model.attribute(window, score.group).unwrap();
            let difference = f64::from(explained.output) - f64::from(explained.neutral);
            assert!((explained.sum() - difference).abs() <= 0.01 * difference.abs().max(0.1));
            assert_eq!(explained.shares[0].len(), INPUTS.len());
        }
    }

    #[test]
    fn what_is_not_there_is_not_zero() {
        let none = window(&[]);
        assert_eq!(none.known(), 0);
        let usual = window(&[("heart_rate.mean", 75.0), ("spo2.mean", f64::NAN)]);
        assert_eq!(usual.known(), 1);
        assert_ne!(none, usual);
        let far = window(&[("heart_rate.mean", 1e9)]);
        assert_eq!(far.0[0], CLAMP);
    }
}
