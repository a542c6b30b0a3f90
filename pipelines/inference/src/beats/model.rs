//! The committee that classifies beats.
//!
//! A member has a forest each for S, V and F against the rest ([`Scorer`]): its sum less the threshold that was chosen for it in
//! training, drawn towards those of beats of the context that look alike ([`super::alike`]), is the log-odds of the class. The members' sums are averaged; with 0 for N they are the logarithms of
//! the probabilities up to a common factor (softmax). Q, for which there is no case to learn from, has a probability
//! near 0.
//!
//! A member's tensors: those of a forest (`crate::trees`) as `S.trees.first` and so on, `threshold` (f64, of S, V, F), and `alike` (f64, 2 × 3:
//! bandwidths and shares; without it every beat is judged by itself).

use super::alike::Alike;
use super::input::{BeatInput, NUMBERS, numbers_name};
use super::shape::{self, SAMPLES};
use super::{BeatClass, RHYTHM_FEATURES, SHAPE_FEATURES};
use crate::package::Lineage;
use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package};
use crate::trees::Forest;
use candle_core::{DType, Device, Tensor};
use haar_schema::ModelRef;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// What the task is called.
pub const BEAT_TASK: &str = "ecg-beat-class";

/// The classes that have a forest.
pub(super) const SCORED: [BeatClass; 3] = [BeatClass::S, BeatClass::V, BeatClass::F];
/// Log-odds of Q against N.
const UNKNOWN: f64 = -9.0;
/// Points at which an attribution asks how much each forest's sum moves the probability.
const STEPS: u32 = 256;
const THRESHOLD: &str = "threshold";
const ALIKE: &str = "alike";

/// A classifier of heart beats. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct BeatModel {
    package: Package,
    members: Vec<Scorer>,
}

/// One member.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Scorer {
    /// In the order of [`SCORED`].
    pub(super) forests: [Forest; 3],
    /// What is subtracted from their sums.
    pub(super) thresholds: [f64; 3],
    /// How these are then drawn together.
    pub(super) alike: Alike,
}

/// What the model says of one beat.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BeatScore {
    /// The most probable class.
    pub class: BeatClass,
    /// Probability of each class in the order of [`BeatClass::ALL`]; their sum is 1. Of the members' mean scores.
    pub probabilities: [f32; 5],
}

/// How much each input speaks for (positive) or against a class, in log-odds `ln(p / (1 - p))`, against the mean over
/// the beats of the training.
#[derive(Clone, PartialEq, Debug)]
pub struct Attribution {
    /// The class in question.
    pub class: BeatClass,
    /// By number, in the order of [`BeatInput::numbers`].
    pub numbers: Vec<f32>,
    /// What the beats of the context that look alike add to that.
    pub alike: f32,
    /// Log-odds of the class for the beat.
    pub output: f32,
    /// Log-odds of the class for the neutral beat.
    pub neutral: f32,
}

impl Attribution {
    /// What all inputs and the beats alike got together: `output - neutral` up to 1 % (of at least 0.1).
    pub fn sum(&self) -> f64 {
        self.numbers.iter().map(|share| f64::from(*share)).sum::<f64>() + f64::from(self.alike)
    }

    /// The shares of the numbers about the beat's own shape over time: each lies evenly on the samples that it is
    /// computed from, [`super::SEGMENT_SAMPLES`] at [`super::SEGMENT_RATE`], [`super::SEGMENT_BEFORE`] of them before the beat's centre.
    /// What remains to the sum is of rhythm and neighbours.
    pub fn over_time(&self) -> Vec<f32> {
        let mut samples = vec![0.0; SAMPLES];
        let own = self.numbers.iter().skip(RHYTHM_FEATURES).take(SHAPE_FEATURES);
        for (number, share) in own.enumerate() {
            let Some(span) = shape::span(number) else { continue };
            let part = share / span.len() as f32;
            samples[span].iter_mut().for_each(|sample| *sample += part);
        }
        samples
    }
}

/// Why beats were not classified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// No member was asked.
    #[error("a committee of nobody says nothing")]
    Nobody,
    /// There is no such beat in the context.
    #[error("the context has no beat {0}")]
    NoBeat(usize),
    /// The weights give no number for this input.
    #[error("the model gave no finite score for beat {0} of the batch: its weights are damaged")]
    NotFinite(usize),
}

impl BeatModel {
    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give; the built-in files are checked like any others.
    pub fn builtin() -> std::result::Result<Self, LoadError> {
        Self::from_package(Package::from_parts(
            include_str!("../../models/ecg-beats/manifest.toml"),
            include_bytes!("../../models/ecg-beats/weights.safetensors"),
        )?)
    }

    /// The model in a folder with `manifest.toml` and the weights it names.
    ///
    /// # Errors
    /// If a file is missing or too large, or hash, unit, shape or classes do not fit.
    pub fn load(folder: &Path) -> std::result::Result<Self, LoadError> {
        Self::from_package(Package::load(folder)?)
    }

    /// The model in a package.
    ///
    /// # Errors
    /// If it is one for something else, or its parameters do not fit.
    pub fn from_package(package: Package) -> std::result::Result<Self, LoadError> {
        package.check(BEAT_TASK, &input_specs(), &output_specs())?;
        let members = (0..package.members())
            .map(|member| Scorer::take_from(package.member(member)))
            .collect::<std::result::Result<_, _>>()?;
        Ok(Self { package, members })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.package.manifest()
    }

    /// The model's name in digests.
    pub fn reference(&self) -> &ModelRef {
        self.package.reference()
    }

    /// Whom it was trained on.
    pub fn lineage(&self) -> &Lineage {
        self.package.lineage()
    }

    /// Members of the committee.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Scores each beat of a context (a window, a recording), in order of time. Beats that look alike are judged together, so beats of
    /// different patients or windows must not come in one call.
    ///
    /// # Errors
    /// If the forests give no number.
    pub fn classify(
        &self,
        context: &[BeatInput],
    ) -> std::result::Result<Vec<BeatScore>, ClassifyError> {
        self.classify_by(0..self.members.len(), context)
    }

    /// As [`Self::classify`], by some members only (a range within their number, not empty): what measuring on patients of
    /// the training needs.
    ///
    /// # Errors
    /// If the range has no member, or they give no number.
    pub fn classify_by(
        &self,
        members: Range<usize>,
        context: &[BeatInput],
    ) -> std::result::Result<Vec<BeatScore>, ClassifyError> {
        let members = self.members.get(members).filter(|members| !members.is_empty());
        let members = members.ok_or(ClassifyError::Nobody)?;
        let mut means = vec![[0.0; 3]; context.len()];
        for member in members {
            for (mean, sums) in means.iter_mut().zip(member.sums(context)) {
                mean.iter_mut()
                    .zip(sums)
                    .for_each(|(mean, sum)| *mean += sum / members.len() as f64);
            }
        }
        let scores = means.into_iter().map(|sums| score(&probabilities(sums)));
        let scores =
            scores.enumerate().map(|(at, score)| score.ok_or(ClassifyError::NotFinite(at)));
        scores.collect()
    }

    /// The same model without the other members (a range within their number; all of them if it is not): what replaying
    /// patients of the training through whole pipelines needs. Its name stays, so nothing may be committed with it.
    #[must_use]
    pub fn only(&self, members: Range<usize>) -> Self {
        let chosen = self.members.get(members).filter(|chosen| !chosen.is_empty());
        Self { package: self.package.clone(), members: chosen.unwrap_or(&self.members).to_vec() }
    }

    /// How much each input speaks for a beat of the context being of `class`: the Shapley values of each forest's sum, and what the
    /// beats that look alike add to the sum, weighted by how
    /// much that sum moves the log-odds of the class on the straight way from the neutral sums to the beat's
    /// (Sundararajan et al., "Axiomatic attribution for deep networks", ICML 2017, with the forests' sums as inputs).
    ///
    /// # Errors
    /// If there is no such beat, or the model gives no number.
    pub fn attribute(
        &self,
        context: &[BeatInput],
        beat: usize,
        class: BeatClass,
    ) -> std::result::Result<Attribution, ClassifyError> {
        let input = context.get(beat).ok_or(ClassifyError::NoBeat(beat))?;
        let count = self.members.len() as f64;
        let mut shares = vec![[0.0; 3]; NUMBERS];
        let mut alike = [0.0; 3];
        let (mut neutral, mut output) = ([0.0; 3], [0.0; 3]);
        for member in &self.members {
            for (at, forest) in member.forests.iter().enumerate() {
                let own = forest.explain(input.numbers(), NUMBERS);
                neutral[at] += (own.neutral - member.thresholds[at]) / count;
                output[at] += (own.output - member.thresholds[at]) / count;
                for (share, own) in shares.iter_mut().zip(own.features) {
                    share[at] += own / count;
                }
            }
            let sums = member.alone(context);
            let blended = member.alike.blend_one(context, &sums, beat);
            for at in 0..3 {
                alike[at] += (blended[at] - sums[beat][at]) / count;
                output[at] += (blended[at] - sums[beat][at]) / count;
            }
        }
        let mut weights = [0.0; 3];
        for step in 0..STEPS {
            let part = (f64::from(step) + 0.5) / f64::from(STEPS);
            let sums = std::array::from_fn(|at| neutral[at] + part * (output[at] - neutral[at]));
            let slopes = slopes(sums, class);
            weights
                .iter_mut()
                .zip(slopes)
                .for_each(|(sum, slope)| *sum += slope / f64::from(STEPS));
        }
        let weigh = |each: &[f64; 3]| -> f32 {
            each.iter().zip(weights).map(|(share, weight)| share * weight).sum::<f64>() as f32
        };
        let numbers = shares.iter().map(weigh).collect();
        let alike = weigh(&alike);
        let (output, neutral) = (log_odds(output, class) as f32, log_odds(neutral, class) as f32);
        if !output.is_finite() || !neutral.is_finite() {
            return Err(ClassifyError::NotFinite(0));
        }
        Ok(Attribution { class, numbers, alike, output, neutral })
    }
}

impl Scorer {
    /// The sums for the beats of a context, less the thresholds, drawn together.
    pub(super) fn sums(&self, context: &[BeatInput]) -> Vec<[f64; 3]> {
        self.alike.blend(context, &self.alone(context))
    }

    /// The same of each beat by itself.
    pub(super) fn alone(&self, context: &[BeatInput]) -> Vec<[f64; 3]> {
        let sums = |input: &BeatInput| {
            std::array::from_fn(|at| self.forests[at].predict(&input.numbers) - self.thresholds[at])
        };
        context.iter().map(sums).collect()
    }

    pub(super) fn tensors(&self) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        for (class, forest) in SCORED.iter().zip(&self.forests) {
            let named = |(name, tensor)| (format!("{class}.{name}"), tensor);
            tensors.extend(forest.tensors()?.into_iter().map(named));
        }
        tensors.insert(THRESHOLD.into(), Tensor::new(&self.thresholds, &Device::Cpu)?);
        let alike = [self.alike.bandwidths, self.alike.shares];
        tensors.insert(ALIKE.into(), Tensor::new(&alike, &Device::Cpu)?);
        Ok(tensors)
    }

    fn take_from(mut tensors: BTreeMap<String, Tensor>) -> std::result::Result<Self, LoadError> {
        let thresholds = tensors
            .remove(THRESHOLD)
            .filter(|tensor| tensor.dtype() == DType::F64)
            .and_then(|tensor| <[f64; 3]>::try_from(tensor.to_vec1::<f64>().ok()?).ok())
            .filter(|thresholds| thresholds.iter().all(|threshold| threshold.is_finite()))
            .ok_or_else(|| LoadError::Tensor(THRESHOLD.into()))?;
        let alike = match tensors.remove(ALIKE) {
            None => Alike::ALONE,
            Some(tensor) => alike(&tensor).ok_or_else(|| LoadError::Tensor(ALIKE.into()))?,
        };
        let mut forests = Vec::new();
        for class in SCORED {
            let prefix = format!("{class}.");
            let own = |name: &String| name.starts_with(&prefix);
            let names: Vec<String> = tensors.keys().filter(|name| own(name)).cloned().collect();
            let mut forest: BTreeMap<String, Tensor> = names
                .iter()
                .filter_map(|name| Some((name[prefix.len()..].to_owned(), tensors.remove(name)?)))
                .collect();
            let taken = Forest::take_from(&mut forest, NUMBERS)
                .map_err(|error| LoadError::Tensor(format!("{prefix}{error}")))?;
            if let Some((name, _)) = forest.pop_first() {
                return Err(LoadError::Tensor(format!("{prefix}{name}")));
            }
            forests.push(taken);
        }
        if let Some((name, _)) = tensors.pop_first() {
            return Err(LoadError::Tensor(name));
        }
        let forests = <[Forest; 3]>::try_from(forests);
        forests
            .map(|forests| Self { forests, alike, thresholds })
            .map_err(|_| LoadError::Tensor("S".into()))
    }
}

pub(super) fn input_specs() -> Vec<InputSpec> {
    vec![InputSpec {
        name: numbers_name(),
        unit: "1".into(),
        shape: vec![NUMBERS],
        rate_millihertz: None,
    }]
}

pub(super) fn output_specs() -> Vec<OutputSpec> {
    OutputSpec::probabilities(BeatClass::NAMES)
}

fn alike(tensor: &Tensor) -> Option<Alike> {
    let rows = tensor.to_vec2::<f64>().ok()?;
    let [bandwidths, shares] = <[Vec<f64>; 2]>::try_from(rows).ok()?;
    let alike = Alike { bandwidths: bandwidths.try_into().ok()?, shares: shares.try_into().ok()? };
    alike.is_sound().then_some(alike)
}

/// The logarithms of the classes' probabilities up to a common one.
fn scores(sums: [f64; 3]) -> [f64; 5] {
    let mut scores = [0.0; 5];
    SCORED.iter().zip(sums).for_each(|(class, sum)| scores[class.index()] = sum);
    scores[BeatClass::Q.index()] = UNKNOWN;
    scores
}

pub(super) fn probabilities(sums: [f64; 3]) -> [f32; 5] {
    let scores = scores(sums);
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let each = scores.map(|score| (score - most).exp());
    let sum: f64 = each.iter().sum();
    each.map(|part| (part / sum) as f32)
}

/// `ln(p / (1 - p))` of a class.
fn log_odds(sums: [f64; 3], class: BeatClass) -> f64 {
    let scores = scores(sums);
    scores[class.index()] - log_sum(&scores, class)
}

/// The logarithm of the sum of the other classes' factors.
fn log_sum(scores: &[f64; 5], without: BeatClass) -> f64 {
    let others = || (0..5).filter(|at| *at != without.index()).map(|at| scores[at]);
    let most = others().fold(f64::NEG_INFINITY, f64::max);
    most + others().map(|score| (score - most).exp()).sum::<f64>().ln()
}

/// By how much the log-odds of a class change with each sum.
fn slopes(sums: [f64; 3], class: BeatClass) -> [f64; 3] {
    let scores = scores(sums);
    let others = log_sum(&scores, class);
    SCORED.map(|of| match of == class {
        true => 1.0,
        false => -(scores[of.index()] - others).exp(),
    })
}

/// The probabilities with the largest one's class, the first of equals; `None` if one is no number.
pub(super) fn score(row: &[f32]) -> Option<BeatScore> {
    let probabilities: [f32; 5] = row.try_into().ok()?;
    if !probabilities.iter().all(|probability| probability.is_finite()) {
        return None;
    }
    let mut class = BeatClass::N;
    for other in BeatClass::ALL {
        if probabilities[other.index()] > probabilities[class.index()] {
            class = other;
        }
    }
    Some(BeatScore { class, probabilities })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::{Draft, Metrics, TrainingRun, WeightsFile};
    use crate::training::random;
    use crate::trees::{Growth, Table, grow};
    use haar_recordings::corpus::CaseId;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Forests of made-up beats, but always the same.
    fn scorer(seed: u64) -> Scorer {
        let beats = inputs(300, seed);
        let values: Vec<f32> = beats.iter().flat_map(|beat| beat.numbers).collect();
        let growth = Growth {
            trees: 12,
            leaves: 6,
            learning_rate: 0.5,
            leaf_weight: 5.0,
            regularisation: 1.0,
            feature_share: 0.5,
            group_share: 1.0,
        };
        let forest = |at: usize| {
            let positive: Vec<bool> =
                beats.iter().map(|beat| beat.numbers[at] + beat.numbers[at + 1] > 1.0).collect();
            let (weights, groups) = (vec![1.0; 300], vec![0; 300]);
            let table = Table {
                values: &values,
                features: NUMBERS,
                positive: &positive,
                weights: &weights,
                groups: &groups,
            };
            let cases: Vec<usize> = (0..300).collect();
            grow(&table, &cases, &growth, &mut random(seed, at, 0), &mut |_| {})
        };
        let alike = Alike { bandwidths: [4.0, 6.0, 1.0], shares: [0.5, 0.5, 0.0] };
        let forests = [forest(0), forest(20), forest(60)];
        Scorer { forests, alike, thresholds: [0.5, -0.5, 1.0] }
    }

    fn draft() -> Draft {
        Draft {
            manifest: Manifest {
                id: "ecg-beats".into(),
                version: 1,
                task: BEAT_TASK.into(),
                title: "made up".into(),
                date: "2026-11-23".into(),
                members: 2,
                inputs: input_specs(),
                outputs: output_specs(),
                weights: WeightsFile::default(),
                data: vec![],
                training: TrainingRun {
                    seed: 1,
                    epochs: 1,
                    folds: 2,
                    command: "none".into(),
                    settings: Default::default(),
                },
                metrics: Metrics::default(),
            },
            members: [1, 2].map(|seed| scorer(seed).tensors().unwrap()).into(),
            lineage: Lineage::new([(CaseId(5), 1)]),
            card: String::new(),
        }
    }

    fn model_of(draft: &Draft) -> std::result::Result<BeatModel, LoadError> {
        let (manifest, weights) = draft.encode().unwrap();
        BeatModel::from_package(Package::from_parts(&manifest, &weights)?)
    }

    fn inputs(count: usize, seed: u64) -> Vec<BeatInput> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut one =
            || BeatInput { numbers: std::array::from_fn(|_| rng.random_range(-2.0..2.0)) };
        (0..count).map(|_| one()).collect()
    }

    fn bits(score: &BeatScore) -> [u32; 5] {
        score.probabilities.map(f32::to_bits)
    }

    #[test]
    fn probabilities_are_probabilities() {
        let model = model_of(&draft()).unwrap();
        let scores = model.classify(&inputs(40, 1)).unwrap();
        assert_eq!(scores.len(), 40);
        for score in &scores {
            assert!((score.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let largest = score.probabilities[score.class.index()];
            assert!(score.probabilities.iter().all(|other| *other <= largest));
        }
        assert!(scores.iter().any(|score| score.class != scores[0].class));
        assert!(model.classify(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_committee_has_the_mean_score_of_its_members() {
        let model = model_of(&draft()).unwrap();
        let inputs = inputs(3, 1);
        let all = model.classify(&inputs).unwrap();
        let each = [0..1, 1..2].map(|range| model.classify_by(range, &inputs).unwrap());
        let log_ratio = |score: &BeatScore, class: BeatClass| {
            (score.probabilities[class.index()] / score.probabilities[0]).ln()
        };
        for at in 0..3 {
            for class in SCORED {
                let mean = (log_ratio(&each[0][at], class) + log_ratio(&each[1][at], class)) / 2.0;
                assert!((mean - log_ratio(&all[at], class)).abs() < 1e-4);
            }
        }
        assert_eq!(model.lineage().members_for(CaseId(5), model.members()), 1..2);
        assert_eq!(model.only(1..2).classify(&inputs).unwrap(), each[1]);
        assert_eq!(model.only(1..3).classify(&inputs).unwrap(), all);
        assert!(matches!(model.classify_by(0..0, &inputs), Err(ClassifyError::Nobody)));
        assert!(matches!(model.classify_by(1..3, &inputs), Err(ClassifyError::Nobody)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn only_beats_that_look_alike_matter(seed in 4_u64..1000, before in 0_usize..70, behind in 0_usize..70) {
            let model = BeatModel::builtin().unwrap();
            let mut beat = inputs(1, 3);
            beat[0].numbers[RHYTHM_FEATURES] = 100.0;
            let alone = model.classify(&beat).unwrap();
            let mut many = inputs(before, seed);
            many.extend(beat);
            many.extend(inputs(behind, seed + 1));
            prop_assert_eq!(bits(&model.classify(&many).unwrap()[before]), bits(&alone[0]));
        }
    }

    #[test]
    fn another_model_is_refused() {
        let mut other = draft();
        other.manifest.inputs[0].shape[0] += 1;
        assert!(matches!(model_of(&other), Err(LoadError::Inputs { .. })));
        let damaged = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
            let mut other = draft();
            change(&mut other.members[1]);
            model_of(&other)
        };
        let missing = damaged(&|member| drop(member.remove("V.trees.node")));
        assert!(matches!(missing, Err(LoadError::Tensor(name)) if name.starts_with("V.")));
        let missing = damaged(&|member| drop(member.remove(THRESHOLD)));
        assert!(matches!(missing, Err(LoadError::Tensor(name)) if name == THRESHOLD));
        let more = damaged(&|member| {
            member.insert("x".into(), Tensor::new(&[1.0_f32], &Device::Cpu).unwrap());
        });
        assert!(matches!(more, Err(LoadError::Tensor(name)) if name == "x"));
    }

    #[test]
    fn shares_add_up_to_the_difference_of_the_outputs() {
        let (made_up, builtin) = (model_of(&draft()).unwrap(), BeatModel::builtin().unwrap());
        for (model, seed) in [&made_up, &builtin].into_iter().zip([8, 9]) {
            let mut context = inputs(3, seed);
            // The beats beside it are like it in shape.
            for at in [0, 2] {
                let shape = RHYTHM_FEATURES..RHYTHM_FEATURES + SHAPE_FEATURES;
                let own = context[1].numbers;
                context[at].numbers[shape.clone()].copy_from_slice(&own[shape]);
            }
            assert!(model.attribute(&context, 3, BeatClass::V).is_err());
            for class in BeatClass::ALL {
                let attribution = model.attribute(&context, 1, class).unwrap();
                assert_ne!(attribution.alike, 0.0);
                let difference = f64::from(attribution.output) - f64::from(attribution.neutral);
                let off = (attribution.sum() - difference).abs();
                assert!(off <= 0.01 * difference.abs().max(0.1), "{class}: {off} of {difference}");
                // The output is the probability that the model gives.
                let given = model.classify(&context).unwrap()[1].probabilities;
                let probability = 1.0 / (1.0 + (-attribution.output).exp());
                assert!((probability - given[class.index()]).abs() < 1e-5);
                // What lies in time is what the numbers of the beat's own shape have.
                let over_time: f32 = attribution.over_time().iter().sum();
                let shape = RHYTHM_FEATURES..RHYTHM_FEATURES + SHAPE_FEATURES;
                let own: f32 = attribution.numbers[shape]
                    .iter()
                    .enumerate()
                    .filter(|(number, _)| shape::span(*number).is_some())
                    .map(|(_, share)| share)
                    .sum();
                assert!((over_time - own).abs() < 1e-3);
            }
        }
    }
}
