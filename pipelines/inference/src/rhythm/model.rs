//! Loading the model and asking it.

use super::RhythmClass;
use super::input::{FEATURES, RhythmInput, WINDOW};
use super::network::{CHANNELS, CLASSES, agree, describe, see, take_forest, take_parameters};
use super::signal::WAVEFORM_HZ;
use crate::explain::integrated_gradients;
use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package};
use crate::trees::{Forest, Shares};
use crate::{BUILTIN, Builtin};
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use haar_schema::{ModelRef, SampleRate};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// What the model is for, in its manifest.
pub const RHYTHM_TASK: &str = "ecg-rhythm";

/// Windows of waveform in one call of the network; fewer are padded with zeros, so that a score does not
/// depend on how many come together.
const ROWS: usize = 8;

/// Seconds of one share of an attribution over time.
const SHARE_S: f64 = 0.1;

/// A committee that tells the rhythm of short single-lead ECGs. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct RhythmModel {
    package: Package,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    parameters: BTreeMap<String, Tensor>,
    forests: Vec<Forest>,
}

/// What the committee says of one recording.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RhythmScore {
    /// Probability of each class in the order of [`RhythmClass::ALL`], the mean over the members; their sum is 1. An
    /// error about a rare class cost more in training, so they are not calibrated to how common a class is.
    pub probabilities: [f32; CLASSES],
    /// The most probable class.
    pub class: RhythmClass,
    /// How far the members differ: the standard deviation of their probabilities of [`RhythmScore::class`].
    /// 0 where one member was asked.
    pub spread: f32,
}

/// How much each part of a recording speaks for (positive) or against a class, in log-odds.
#[derive(Clone, PartialEq, Debug)]
pub struct RhythmAttribution {
    /// The class in question.
    pub class: RhythmClass,
    /// By tenth of a second from the start: what the waveform and the intervals at that time contribute.
    pub over_time: Vec<f32>,
    /// By feature in the order of training: what the description of the whole recording contributes.
    pub features: Vec<f32>,
    /// Log-odds of the class.
    pub output: f32,
    /// Log-odds of the class for a flat line and what forests usually say.
    pub neutral: f32,
}

impl RhythmAttribution {
    /// What all parts got together: `output - neutral` to within 1 %.
    pub fn sum(&self) -> f64 {
        self.over_time.iter().chain(&self.features).map(|share| f64::from(*share)).sum()
    }
}

/// Why recordings were not judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RhythmError {
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
    /// The weights give no number for this input.
    #[error(
        "the model gave no finite score for recording {0} of the call: its weights are damaged"
    )]
    NotFinite(usize),
    /// No such member.
    #[error("the model has no members {0:?}")]
    Members(Range<usize>),
}

impl RhythmModel {
    /// The model that is built in.
    ///
    /// # Errors
    /// None that a build which passed its tests can give.
    pub fn builtin() -> Result<Self, LoadError> {
        let own = |builtin: &&Builtin| {
            Manifest::parse(builtin.manifest).is_ok_and(|manifest| manifest.task == RHYTHM_TASK)
        };
        let missing = || LoadError::Read {
            path: RHYTHM_TASK.into(),
            source: std::io::Error::other("no such model is built in; name a folder"),
        };
        Self::new(BUILTIN.iter().find(own).ok_or_else(missing)?.package()?)
    }

    /// The model in a folder with `manifest.toml` and its weights.
    ///
    /// # Errors
    /// If a file is missing, or hash, task, inputs, outputs or tensors do not fit this build.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        Self::new(Package::load(folder)?)
    }

    /// The model of a package.
    ///
    /// # Errors
    /// If task, inputs, outputs or tensors do not fit this build.
    pub fn new(package: Package) -> Result<Self, LoadError> {
        package.check(RHYTHM_TASK, &inputs(), &outputs())?;
        let member = |number: u32| {
            let mut tensors = package.member(number as usize).clone();
            let forest = |class| {
                let forest = take_forest(class, &mut tensors);
                forest.map_err(|error| LoadError::Tensor(format!("class{class}: {error}")))
            };
            let forests = (0..CLASSES).map(forest).collect::<Result<_, _>>()?;
            let parameters = take_parameters(&mut tensors).map_err(LoadError::Tensor)?;
            match tensors.pop_first() {
                Some((name, _)) => Err(LoadError::Tensor(name)),
                None => Ok(Member { parameters, forests }),
            }
        };
        let members = (0..package.manifest().members).map(member).collect::<Result<_, _>>()?;
        Ok(Self { package, members })
    }

    /// The package it came from: manifest, lineage, reference.
    pub const fn package(&self) -> &Package {
        &self.package
    }

    /// The model's name in digests.
    pub fn reference(&self) -> &ModelRef {
        self.package.reference()
    }

    /// The members that have not seen a recording (its `.mat` file, by content): one if it was trained on, else all.
    pub fn members_for(&self, case: CaseId) -> Range<usize> {
        self.package.lineage().members_for(case, self.members.len())
    }

    /// Scores each recording by all members, in order. A score does not depend on the others, not even in its last bit.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn classify(&self, inputs: &[RhythmInput]) -> Result<Vec<RhythmScore>, RhythmError> {
        self.classify_by(inputs, 0..self.members.len())
    }

    /// Scores each recording by some members.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number, or there are no such members.
    pub fn classify_by(
        &self,
        inputs: &[RhythmInput],
        members: Range<usize>,
    ) -> Result<Vec<RhythmScore>, RhythmError> {
        let asked = self.members.get(members.clone()).filter(|asked| !asked.is_empty());
        let asked = asked.ok_or(RhythmError::Members(members))?;
        let by_member: Vec<Vec<[f32; CLASSES]>> =
            asked.iter().map(|member| member.probabilities(inputs)).collect::<Result<_, _>>()?;
        let score = |at: usize| {
            let rows: Vec<[f32; CLASSES]> = by_member.iter().map(|rows| rows[at]).collect();
            score(&rows).ok_or(RhythmError::NotFinite(at))
        };
        (0..inputs.len()).map(score).collect()
    }

    /// How much each tenth of a second, and each feature, speaks for the recording being of `class`, from a flat line with
    /// the forests' usual answers: integrated gradients of the log-odds, by waveform and by what the forests say, and of that
    /// each feature's Shapley values. The mean over the members.
    ///
    /// # Errors
    /// If the network cannot be computed.
    pub fn attribute(
        &self,
        input: &RhythmInput,
        class: RhythmClass,
    ) -> Result<RhythmAttribution, RhythmError> {
        let mut attribution = RhythmAttribution {
            class,
            over_time: vec![0.0; (input.seconds() / SHARE_S).ceil() as usize],
            features: vec![0.0; FEATURES],
            output: 0.0,
            neutral: 0.0,
        };
        for member in &self.members {
            member.attribute(input, class, 1.0 / self.members.len() as f32, &mut attribution)?;
        }
        Ok(attribution)
    }
}

impl Member {
    fn probabilities(&self, inputs: &[RhythmInput]) -> candle_core::Result<Vec<[f32; CLASSES]>> {
        let mut windows = Vec::new();
        for input in inputs {
            windows.extend(input.starts().into_iter().map(|start| input.window(start)));
        }
        let mut seen = self.see(&windows)?.into_iter();
        let mut all = Vec::with_capacity(inputs.len());
        for chunk in inputs.chunks(ROWS) {
            let mut margins: Vec<f32> = Vec::with_capacity(ROWS * CLASSES);
            for input in chunk {
                margins.extend(self.forests.iter().map(|f| f.predict(&input.features) as f32));
            }
            margins.resize(ROWS * CLASSES, 0.0);
            let margins = Tensor::from_vec(margins, (ROWS, CLASSES), &Device::Cpu)?;
            let described = describe(&margins)?;
            let mut means = Vec::with_capacity(ROWS * CLASSES);
            for input in chunk {
                let count = input.starts().len();
                let own: Vec<[f32; CLASSES]> = seen.by_ref().take(count).collect();
                let mean = |class: usize| own.iter().map(|row| row[class]).sum::<f32>();
                means.extend((0..CLASSES).map(|class| mean(class) / count as f32));
            }
            means.resize(ROWS * CLASSES, 0.0);
            let means = Tensor::from_vec(means, (ROWS, CLASSES), &Device::Cpu)?;
            let rows = agree(&described, &means)?.exp()?.to_vec2::<f32>()?;
            for row in rows.iter().take(chunk.len()) {
                all.push(std::array::from_fn(|class| row[class]));
            }
        }
        Ok(all)
    }

    /// Log-probabilities of windows and how much of each is signal.
    fn see(&self, windows: &[(Vec<f32>, usize)]) -> candle_core::Result<Vec<[f32; CLASSES]>> {
        let mut all = Vec::with_capacity(windows.len());
        for chunk in windows.chunks(ROWS) {
            let mut values: Vec<f32> = Vec::with_capacity(ROWS * WINDOW * CHANNELS);
            chunk.iter().for_each(|(window, _)| values.extend(window));
            values.resize(ROWS * WINDOW * CHANNELS, 0.0);
            let mut valid: Vec<usize> = chunk.iter().map(|(_, valid)| *valid).collect();
            valid.resize(ROWS, 0);
            let waveform = Tensor::from_vec(values, (ROWS, WINDOW, CHANNELS), &Device::Cpu)?;
            let rows = see(&self.parameters, &waveform, &valid, None)?.to_vec2::<f32>()?;
            for row in rows.iter().take(chunk.len()) {
                all.push(std::array::from_fn(|class| row[class]));
            }
        }
        Ok(all)
    }

    /// Adds this member's attribution, times `share`.
    fn attribute(
        &self,
        input: &RhythmInput,
        class: RhythmClass,
        share: f32,
        total: &mut RhythmAttribution,
    ) -> candle_core::Result<()> {
        let starts = input.starts();
        let (mut values, mut valid) = (Vec::new(), Vec::new());
        for start in &starts {
            let (window, length) = input.window(*start);
            values.extend(window);
            valid.push(length);
        }
        let count = starts.len();
        let waveform = Tensor::from_vec(values, (count, WINDOW, CHANNELS), &Device::Cpu)?;
        let grown: Vec<_> =
            self.forests.iter().map(|forest| forest.explain(&input.features, FEATURES)).collect();
        let tensor = |part: fn(&Shares) -> f64| {
            let values: Vec<f32> = grown.iter().map(|shares| part(shares) as f32).collect();
            Tensor::from_vec(values, CLASSES, &Device::Cpu)
        };
        let inputs = [tensor(|shares| shares.output)?, waveform];
        let neutral = [tensor(|shares| shares.neutral)?, inputs[1].zeros_like()?];
        let explained = integrated_gradients(&inputs, &neutral, |points| {
            let rows = points[0].dim(0)?;
            let described = describe(&points[0])?;
            let waveform = points[1].reshape((rows * count, WINDOW, CHANNELS))?;
            let seen = see(&self.parameters, &waveform, &valid.repeat(rows), None)?;
            let seen = seen.reshape((rows, count, CLASSES))?.mean(1)?;
            log_odds(&agree(&described, &seen)?, class)
        })?;
        // What a forest contributed is handed on to its features as they made it up.
        for (grown, value) in grown.iter().zip(&explained.shares[0]) {
            let way = grown.output - grown.neutral;
            let each = if way.abs() > 1e-9 { f64::from(share * value) / way } else { 0.0 };
            for (sum, own) in total.features.iter_mut().zip(&grown.features) {
                *sum += (each * own) as f32;
            }
        }
        let window_values = WINDOW * CHANNELS;
        let step = (SHARE_S * WAVEFORM_HZ as f64) as usize;
        for (at, value) in explained.shares[1].iter().enumerate() {
            let sample = starts[at / window_values] + at % window_values / CHANNELS;
            // Padding is equal to the baseline and has no share.
            if let Some(sum) = total.over_time.get_mut(sample / step) {
                *sum += share * value;
            }
        }
        total.output += share * explained.output;
        total.neutral += share * explained.neutral;
        Ok(())
    }
}

/// `ln(p / (1 - p))` of a class, from log-probabilities.
fn log_odds(log: &Tensor, class: RhythmClass) -> candle_core::Result<Tensor> {
    let p = log.narrow(1, class.index(), 1)?.squeeze(1)?;
    let others: Vec<u32> = (0..CLASSES as u32).filter(|at| *at != class.index() as u32).collect();
    let others = log.index_select(&Tensor::new(others.as_slice(), log.device())?, 1)?;
    p - others.exp()?.sum(1)?.log()?
}

/// What goes into a member.
pub(super) fn inputs() -> Vec<InputSpec> {
    let rate = SampleRate::from_hz(WAVEFORM_HZ as u32);
    vec![
        InputSpec {
            name: "features".into(),
            unit: "1".into(),
            shape: vec![FEATURES],
            rate_millihertz: None,
        },
        InputSpec {
            name: "ecg over its R height, interval over the usual one".into(),
            unit: "1".into(),
            shape: vec![CHANNELS, WINDOW],
            rate_millihertz: rate,
        },
    ]
}

/// What comes out of it.
pub(super) fn outputs() -> Vec<OutputSpec> {
    OutputSpec::probabilities(RhythmClass::ALL.map(RhythmClass::name))
}

/// The mean over members, with the largest one's class, the first of equals; `None` if one is no number.
fn score(rows: &[[f32; CLASSES]]) -> Option<RhythmScore> {
    let count = rows.len() as f32;
    let mean = |class: usize| rows.iter().map(|row| row[class]).sum::<f32>() / count;
    let probabilities: [f32; CLASSES] = std::array::from_fn(mean);
    if !probabilities.iter().all(|probability| probability.is_finite()) {
        return None;
    }
    let mut class = RhythmClass::Normal;
    for other in RhythmClass::ALL {
        if probabilities[other.index()] > probabilities[class.index()] {
            class = other;
        }
    }
    let at = class.index();
    let squares: f32 = rows.iter().map(|row| (row[at] - probabilities[at]).powi(2)).sum();
    Some(RhythmScore { probabilities, class, spread: (squares / count).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Draft;
    use crate::rhythm::train::tests::{cases, settings};
    use crate::rhythm::{RhythmAbout, rhythm_draft, train_rhythm};

    fn draft() -> Draft {
        let (cases, settings) = (cases(), settings());
        let committee = train_rhythm(&cases, &settings, None, &mut |_| {}).unwrap();
        let about = RhythmAbout { version: 3, date: "2026-11-23".into(), command: "none".into() };
        rhythm_draft(&committee, &cases, &settings, &about).unwrap()
    }

    #[test]
    fn what_was_trained_is_loaded_asked_and_explained() {
        let draft = draft();
        // Two dozen recordings teach little: what is held here is the way, not how well.
        assert!((0.0..=1.0).contains(&draft.manifest.metrics.values["accuracy"]));
        let folder = tempfile::tempdir().unwrap();
        draft.write(folder.path()).unwrap();
        let model = RhythmModel::load(folder.path()).unwrap();
        assert_eq!(model.package().manifest().version, 3);
        assert!(
            draft.card.contains("24 recordings") && !draft.card.contains('{'),
            "{}",
            draft.card
        );

        let inputs: Vec<RhythmInput> = cases().iter().map(|case| case.input().clone()).collect();
        let together = model.classify(&inputs).unwrap();
        for (input, score) in inputs.iter().zip(&together) {
            let alone = model.classify(std::slice::from_ref(input)).unwrap();
            assert_eq!(alone[0], *score);
            assert!((score.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let attribution = model.attribute(&inputs[1], RhythmClass::Fibrillation).unwrap();
        assert_eq!(attribution.over_time.len(), 120);
        let difference = f64::from(attribution.output) - f64::from(attribution.neutral);
        let off = (attribution.sum() - difference).abs();
        assert!(off <= 0.01 * difference.abs().max(0.1), "{off} of {difference}");
    }

    #[test]
    fn who_has_seen_a_recording_is_not_asked_about_it() {
        let (text, weights) = draft().encode().unwrap();
        let model = RhythmModel::new(Package::from_parts(&text, &weights).unwrap()).unwrap();
        let own = cases()[0].case;
        assert_eq!(model.members_for(own).len(), 1);
        assert_eq!(model.members_for(CaseId(999)), 0..2);
        let input = [cases()[0].input().clone()];
        assert_eq!(model.classify_by(&input, model.members_for(own)).unwrap()[0].spread, 0.0);
        assert!(matches!(model.classify_by(&input, 1..3), Err(RhythmError::Members(_))));
        assert!(matches!(model.classify_by(&input, 1..1), Err(RhythmError::Members(_))));
    }

    #[test]
    fn a_model_for_something_else_is_refused() {
        let draft = draft();
        let refused = |change: &dyn Fn(&mut Draft)| {
            let mut other = draft.clone();
            change(&mut other);
            let (text, weights) = other.encode().unwrap();
            RhythmModel::new(Package::from_parts(&text, &weights).unwrap()).unwrap_err()
        };
        let error = refused(&|draft| draft.manifest.task = "ecg-beats".into());
        assert!(matches!(error, LoadError::Task { .. }), "{error}");
        let error = refused(&|draft| draft.manifest.inputs.swap(0, 1));
        assert!(matches!(error, LoadError::Inputs { .. }), "{error}");
        let error = refused(&|draft| {
            draft.members[0].remove("conv3.bias");
        });
        assert!(matches!(error, LoadError::Tensor(name) if name == "conv3.bias"));
        let error = refused(&|draft| {
            draft.members[1].remove("class2.trees.node");
        });
        assert!(matches!(error, LoadError::Tensor(name) if name.starts_with("class2")));
    }
}
