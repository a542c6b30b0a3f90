//! The committee that classifies beats.

use super::BeatClass;
use super::input::{BeatInput, CHANNELS, LEADS_MAX, NUMBERS, SEGMENT_RATE, SEGMENT_SAMPLES};
use super::network::{Batch, Network, PARAMETERS, log_softmax};
use crate::explain::{Explained, integrated_gradients};
use crate::package::Lineage;
use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package, take_parameters};
use candle_core::{Device, Result, Tensor};
use haar_schema::ModelRef;
use std::ops::Range;
use std::path::Path;

/// What the task is called.
pub const BEAT_TASK: &str = "ecg-beat-class";

/// Beats in one call of the networks: what they need stays in the processor's cache. A score does not depend on it.
const ROWS: usize = 32;
/// Probabilities below are taken for this in log-odds.
const PROBABILITY_MIN: f64 = 1e-12;

/// A classifier of heart beats. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct BeatModel {
    package: Package,
    members: Vec<Network>,
}

/// What the model says of one beat.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BeatScore {
    /// The most probable class.
    pub class: BeatClass,
    /// Probability of each class in the order of [`BeatClass::ALL`]; their sum is 1. The mean of the members'.
    pub probabilities: [f32; 5],
}

/// How much each input speaks for (positive) or against a class, in log-odds `ln(p / (1 - p))`, against a beat that
/// is just like the dominant one's absence: a flat line in a regular rhythm.
#[derive(Clone, PartialEq, Debug)]
pub struct Attribution {
    /// The class in question.
    pub class: BeatClass,
    /// By sample of the segment, leads and channels together; [`super::SEGMENT_BEFORE`] samples before the beat's centre.
    pub waveform: Vec<f32>,
    /// By number about rhythm and shape, in the order of [`super::RHYTHM_NAMES`] and [`super::SHAPE_NAMES`].
    pub numbers: Vec<f32>,
    /// Log-odds of the class for the beat.
    pub output: f32,
    /// Log-odds of the class for the neutral beat.
    pub neutral: f32,
}

impl Attribution {
    /// What all inputs got together: `output - neutral` up to 0.5 % (of at least 0.1), unless
    /// [`crate::explain::MAX_POINTS`] were not enough.
    pub fn sum(&self) -> f64 {
        self.waveform.iter().chain(&self.numbers).map(|share| f64::from(*share)).sum()
    }
}

/// Why beats were not classified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifyError {
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
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
            .map(|member| {
                let parameters = take_parameters(package.member(member), &PARAMETERS)?;
                Network::fixed(&parameters).map_err(LoadError::Weights)
            })
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

    /// Networks in the committee.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Scores each beat, in order. Beats of many windows may come in one call: a beat's score
    /// does not depend on the others, not even in its last bit.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn classify(
        &self,
        inputs: &[BeatInput],
    ) -> std::result::Result<Vec<BeatScore>, ClassifyError> {
        self.classify_by(0..self.members.len(), inputs)
    }

    /// As [`Self::classify`], by some members only (a range within their number, not empty): what measuring on patients of
    /// the training needs.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn classify_by(
        &self,
        members: Range<usize>,
        inputs: &[BeatInput],
    ) -> std::result::Result<Vec<BeatScore>, ClassifyError> {
        let mut scores = Vec::with_capacity(inputs.len());
        for chunk in inputs.chunks(ROWS) {
            let mean = mean_probabilities(&self.members[members.clone()], &Batch::new(chunk)?)?;
            for row in mean.to_vec2::<f32>()? {
                scores.push(score(&row).ok_or(ClassifyError::NotFinite(scores.len()))?);
            }
        }
        Ok(scores)
    }

    /// The same model without the other members (a range within their number; all of them if it is not): what replaying
    /// patients of the training through whole pipelines needs. Its name stays, so nothing may be committed with it.
    #[must_use]
    pub fn only(&self, members: Range<usize>) -> Self {
        let chosen = self.members.get(members).filter(|chosen| !chosen.is_empty());
        Self { package: self.package.clone(), members: chosen.unwrap_or(&self.members).to_vec() }
    }

    /// How much each input speaks for the beat being of `class`: integrated gradients of the committee's log-odds.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn attribute(
        &self,
        input: &BeatInput,
        class: BeatClass,
    ) -> std::result::Result<Attribution, ClassifyError> {
        let all = Batch::new(std::slice::from_ref(input))?;
        let inputs = [all.waveform, all.numbers.squeeze(0)?];
        let baselines = [inputs[0].zeros_like()?, inputs[1].zeros_like()?];
        let Explained { shares, output, neutral } =
            integrated_gradients(&inputs, &baselines, |points| {
                let rows = points[1].dim(0)?;
                let shape = (rows * LEADS_MAX, SEGMENT_SAMPLES, CHANNELS);
                let batch = Batch {
                    waveform: points[0].reshape(shape)?,
                    leads: all.leads.broadcast_as((rows, LEADS_MAX))?.contiguous()?,
                    numbers: points[1].clone(),
                };
                log_odds(&mean_probabilities(&self.members, &batch)?, class)
            })?;
        if !output.is_finite() || !neutral.is_finite() {
            return Err(ClassifyError::NotFinite(0));
        }
        let mut waveform = vec![0.0; SEGMENT_SAMPLES];
        for (at, share) in shares[0].iter().enumerate() {
            waveform[at / CHANNELS % SEGMENT_SAMPLES] += share;
        }
        Ok(Attribution { class, waveform, numbers: shares[1].clone(), output, neutral })
    }
}

/// In a manifest time comes last; in memory channels do.
pub(super) fn input_specs() -> Vec<InputSpec> {
    vec![
        InputSpec {
            name: "waveform".into(),
            unit: "1".into(),
            shape: vec![LEADS_MAX, CHANNELS, SEGMENT_SAMPLES],
            rate_millihertz: Some(SEGMENT_RATE),
        },
        InputSpec {
            name: "numbers".into(),
            unit: "1".into(),
            shape: vec![NUMBERS],
            rate_millihertz: None,
        },
    ]
}

pub(super) fn output_specs() -> Vec<OutputSpec> {
    OutputSpec::probabilities(BeatClass::NAMES)
}

fn mean_probabilities(members: &[Network], batch: &Batch) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for member in members {
        let own = log_softmax(&member.forward(batch, None)?)?.exp()?;
        sum = Some(match sum {
            Some(sum) => (sum + own)?,
            None => own,
        });
    }
    match sum {
        Some(sum) => sum / members.len() as f64,
        None => candle_core::bail!("a committee of nobody says nothing"),
    }
}

/// `ln(p / (1 - p))` of a class, by row.
fn log_odds(probabilities: &Tensor, class: BeatClass) -> Result<Tensor> {
    let others: Vec<u32> = (0..5).filter(|other| *other != class.index() as u32).collect();
    let others = probabilities.index_select(&Tensor::new(others, &Device::Cpu)?, 1)?.sum(1)?;
    let own = probabilities.narrow(1, class.index(), 1)?.squeeze(1)?;
    (own + PROBABILITY_MIN)?.log()? - (others + PROBABILITY_MIN)?.log()?
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
    use crate::training::{initial, random};
    use haar_recordings::corpus::CaseId;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Random weights, but always the same.
    fn draft() -> Draft {
        let member = |at: usize| initial(&PARAMETERS, &mut random(3, at, 0)).unwrap();
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
            members: vec![member(0), member(1)],
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
        (0..count)
            .map(|at| BeatInput {
                waveform: (0..LEADS_MAX * CHANNELS * SEGMENT_SAMPLES)
                    .map(|_| rng.random_range(-1.0..1.0))
                    .collect(),
                leads: [true, at % 2 == 0],
                numbers: std::array::from_fn(|_| rng.random_range(-2.0..2.0)),
            })
            .collect()
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
        assert!(model.classify(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_committee_is_the_mean_of_its_members() {
        let model = model_of(&draft()).unwrap();
        let inputs = inputs(3, 1);
        let all = model.classify(&inputs).unwrap();
        let each = [0..1, 1..2].map(|range| model.classify_by(range, &inputs).unwrap());
        for at in 0..3 {
            for class in 0..5 {
                let mean =
                    (each[0][at].probabilities[class] + each[1][at].probabilities[class]) / 2.0;
                assert!((mean - all[at].probabilities[class]).abs() < 1e-6);
            }
        }
        assert_eq!(model.lineage().members_for(CaseId(5), model.members()), 1..2);
        assert_eq!(model.only(1..2).classify(&inputs).unwrap(), each[1]);
        assert_eq!(model.only(1..3).classify(&inputs).unwrap(), all);
        assert!(matches!(model.classify_by(0..0, &inputs), Err(ClassifyError::Network(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn neighbours_do_not_matter(seed in 4_u64..1000, before in 0_usize..70, behind in 0_usize..70) {
            let model = model_of(&draft()).unwrap();
            let beat = inputs(1, 3);
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
        other.manifest.inputs[0].shape[2] = 195;
        assert!(matches!(model_of(&other), Err(LoadError::Inputs { .. })));
        let mut other = draft();
        other.members[1].remove("conv2.bias");
        assert!(matches!(model_of(&other), Err(LoadError::Tensor(name)) if name == "conv2.bias"));
    }

    #[test]
    fn shares_add_up_to_the_difference_of_the_outputs() {
        let (random, builtin) = (model_of(&draft()).unwrap(), BeatModel::builtin().unwrap());
        for (model, input) in [&random, &builtin].into_iter().zip(inputs(2, 8)) {
            for class in BeatClass::ALL {
                let attribution = model.attribute(&input, class).unwrap();
                let difference = f64::from(attribution.output) - f64::from(attribution.neutral);
                let off = (attribution.sum() - difference).abs();
                assert!(off <= 0.01 * difference.abs().max(0.1), "{class}: {off} of {difference}");
                // The output is the probability that the model gives.
                let given = model.classify(std::slice::from_ref(&input)).unwrap()[0].probabilities;
                let probability = 1.0 / (1.0 + (-attribution.output).exp());
                assert!((probability - given[class.index()]).abs() < 1e-5);
            }
        }
    }
}
