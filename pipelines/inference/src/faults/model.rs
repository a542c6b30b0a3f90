//! The model in use.

use super::features::{FEATURES, Features, NAMES, features};
use super::network::{Network, log_softmax};
use super::{FaultKind, Reading, WINDOW};
use crate::explain::{integrated_differences, integrated_gradients};
use crate::package::{InputSpec, LoadError, Manifest, OutputSpec, Package};
use crate::{BUILTIN, Builtin};
use candle_core::{D, Device, Tensor};
use haar_recordings::corpus::CaseId;
use haar_schema::ModelRef;
use std::ops::Range;
use std::path::Path;

/// What the task is called in manifests.
pub(super) const TASK: &str = "device-fault";
/// Windows in one call of a network; fewer are padded.
const BATCH: usize = 16;
/// Windows of a longer stream begin this far apart.
const STRIDE: usize = WINDOW / 2;
/// Readings between two of a kind that still make one segment.
const BRIDGE: usize = 2;
/// The most readings that are judged at once.
pub const MAX_READINGS: usize = 1_000_000;

/// Steps of [`Way::Quick`].
const STEPS: usize = 12;

/// How an attribution is come by.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// By [`integrated_gradients`], which may take a minute.
    Converged,
    /// By [`integrated_differences`].
    Quick,
}

/// Probabilities of each [`FaultKind`], in their order.
pub(super) type Probabilities = [f32; FaultKind::ALL.len()];

/// A committee of networks that tells what is wrong with a device.
#[derive(Clone, Debug)]
pub struct FaultModel {
    package: Package,
    members: Vec<Network>,
}

/// What was found in some readings.
#[derive(Clone, PartialEq, Debug)]
pub struct Judgement {
    /// By reading: the probability of each [`FaultKind`], in the order of [`FaultKind::ALL`].
    pub probabilities: Vec<[f32; FaultKind::ALL.len()]>,
    /// By reading: standard deviation over the committee of the probability that something is wrong; 0 with one member.
    pub disagreement: Vec<f32>,
    /// Where something is wrong, in order.
    pub segments: Vec<Segment>,
}

/// Readings in a row with one fault.
#[derive(Clone, PartialEq, Debug)]
pub struct Segment {
    /// What is wrong.
    pub kind: FaultKind,
    /// With which readings.
    pub rows: Range<usize>,
    /// The mean probability of the kind over them.
    pub probability: f32,
}

/// How much each feature of a segment speaks for its kind, in log-odds.
#[derive(Clone, PartialEq, Debug)]
pub struct FaultAttribution {
    /// The kind in question.
    pub kind: FaultKind,
    /// By name of the feature, summed over the window's readings, in the order of [`NAMES`].
    pub features: Vec<(&'static str, f32)>,
    /// By reading of the window, summed over the features.
    pub readings: Vec<f32>,
    /// Mean log-odds of the kind over the readings asked about.
    pub output: f32,
    /// The same for a stream without any feature: constant noise around its centre.
    pub neutral: f32,
}

impl FaultAttribution {
    /// What all features got together: `output - neutral` up to 1 % (of at least 0.1).
    pub fn sum(&self) -> f64 {
        self.features.iter().map(|(_, share)| f64::from(*share)).sum()
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// Too few values.
    #[error(
        "a stream needs {} values and a clock that goes forward before its faults can be told",
        super::MIN_VALUES
    )]
    TooFew,
    /// Over `MAX_READINGS`.
    #[error("more than {MAX_READINGS} readings at once; cut the stream")]
    TooMany,
    /// The rows asked about are not in the window.
    #[error("rows {0:?} are not in the window of {1} readings")]
    Rows(Range<usize>, usize),
    /// candle failed.
    #[error("the network could not be computed: {0}")]
    Network(#[from] candle_core::Error),
    /// A network gave no number.
    #[error("the network gave no number; the weights are damaged, fetch them again")]
    NotFinite,
}

/// What the networks take.
pub(super) fn inputs() -> Vec<InputSpec> {
    vec![InputSpec {
        name: "features".into(),
        unit: "1".into(),
        shape: vec![WINDOW, FEATURES],
        rate_millihertz: None,
    }]
}

/// What the networks give.
pub(super) fn outputs() -> Vec<OutputSpec> {
    OutputSpec::probabilities(FaultKind::ALL.map(FaultKind::name))
}

impl FaultModel {
    /// The model that comes with Haar.
    ///
    /// # Errors
    /// If this build has none.
    pub fn builtin() -> Result<Self, LoadError> {
        let own = |builtin: &&Builtin| {
            Manifest::parse(builtin.manifest).is_ok_and(|manifest| manifest.task == TASK)
        };
        let missing = || LoadError::Read {
            path: TASK.into(),
            source: std::io::Error::other("no such model is built in; name a folder"),
        };
        Self::from_package(BUILTIN.iter().find(own).ok_or_else(missing)?.package()?)
    }

    /// The model in a folder.
    ///
    /// # Errors
    /// If it is not readable, or another task's, or its tensors are not of this build's networks.
    pub fn load(folder: &Path) -> Result<Self, LoadError> {
        Self::from_package(Package::load(folder)?)
    }

    /// The model of a package.
    ///
    /// # Errors
    /// If the package is another task's, or its tensors are not of this build's networks.
    pub fn from_package(package: Package) -> Result<Self, LoadError> {
        package.check(TASK, &inputs(), &outputs())?;
        let members = (0..package.manifest().members as usize)
            .map(|member| Network::new(package.member(member)).map_err(LoadError::Tensor))
            .collect::<Result<_, _>>()?;
        Ok(Self { package, members })
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        self.package.manifest()
    }

    /// Its name in digests.
    pub const fn reference(&self) -> &ModelRef {
        self.package.reference()
    }

    /// The members to ask about a patient or mote: the one that was trained without it, or all.
    pub fn members_for(&self, case: CaseId) -> Range<usize> {
        self.package.lineage().members_for(case, self.members.len())
    }

    /// All members.
    pub fn members(&self) -> Range<usize> {
        0..self.members.len()
    }

    /// Whether one of the members was trained without this patient or mote, and the others with it.
    pub fn has_seen(&self, case: CaseId) -> bool {
        self.package.lineage().held_out_by(case).is_some()
    }

    /// Judges readings of one stream, oldest first, whatever their number (up to `MAX_READINGS`), by the whole committee. `range` is the physical
    /// range of the unit, if known. Windows overlap by half; a reading's probability is the mean of the windows it is in, each weighted by
    /// how far the reading is from the window's ends.
    ///
    /// # Errors
    /// If there are too few or too many readings, or a network cannot be computed.
    pub fn judge(
        &self,
        readings: &[Reading],
        range: Option<(f32, f32)>,
    ) -> Result<Judgement, FaultError> {
        self.judge_by(readings, range, self.members())
    }

    /// [`FaultModel::judge`] by some of the committee ([`FaultModel::members_for`]).
    ///
    /// # Errors
    /// As for [`FaultModel::judge`].
    pub fn judge_by(
        &self,
        readings: &[Reading],
        range: Option<(f32, f32)>,
        members: Range<usize>,
    ) -> Result<Judgement, FaultError> {
        if readings.len() > MAX_READINGS {
            return Err(FaultError::TooMany);
        }
        let mut windows = Vec::new();
        for end in window_ends(readings.len()) {
            let window = features(&readings[..end], range).ok_or(FaultError::TooFew)?;
            windows.push((end - window.rows, window));
        }
        let all: Vec<&Features> = windows.iter().map(|(_, window)| window).collect();
        let by_member = members
            .map(|member| self.windows(&all, member))
            .collect::<Result<Vec<_>, FaultError>>()?;
        let mut blend = Blend::new(readings.len(), by_member.len());
        for (at, (first, window)) in windows.iter().enumerate() {
            for (member, judged) in by_member.iter().enumerate() {
                blend.add(member, *first, &judged[at][..window.rows]);
            }
        }
        Ok(blend.finish())
    }

    /// Probabilities of each window's readings, means over some members. Rows after a window's last reading are there, but mean nothing.
    pub(super) fn mean_windows(
        &self,
        windows: &[&Features],
        members: Range<usize>,
    ) -> Result<Vec<Vec<Probabilities>>, FaultError> {
        let share = 1.0 / members.len().max(1) as f32;
        let mut means = vec![vec![[0.0; FaultKind::ALL.len()]; WINDOW]; windows.len()];
        for member in members {
            let judged = self.windows(windows, member)?;
            for (mean, own) in means.iter_mut().flatten().zip(judged.iter().flatten()) {
                for (mean, own) in mean.iter_mut().zip(own) {
                    *mean += own * share;
                }
            }
        }
        Ok(means)
    }

    /// Why the readings `rows` of the window that ends with `readings` are, or are not, of `kind`: integrated gradients of
    /// the mean log-odds over these rows and the committee.
    ///
    /// # Errors
    /// If there are too few readings, the rows are not in the window, or a network cannot be computed.
    pub fn attribute(
        &self,
        readings: &[Reading],
        range: Option<(f32, f32)>,
        kind: FaultKind,
        rows: Range<usize>,
    ) -> Result<FaultAttribution, FaultError> {
        self.explain(readings, range, kind, rows, Way::Converged)
    }

    pub(super) fn explain(
        &self,
        readings: &[Reading],
        range: Option<(f32, f32)>,
        kind: FaultKind,
        rows: Range<usize>,
        way: Way,
    ) -> Result<FaultAttribution, FaultError> {
        let window = features(readings, range).ok_or(FaultError::TooFew)?;
        if rows.is_empty() || rows.end > window.rows {
            return Err(FaultError::Rows(rows, window.rows));
        }
        let input = Tensor::from_slice(&window.numbers, (WINDOW, FEATURES), &Device::Cpu)?;
        let output = |points: &[Tensor]| {
            let scores = self
                .members
                .iter()
                .map(|member| log_odds(&member.forward(&points[0])?, kind, &rows))
                .collect::<candle_core::Result<Vec<_>>>()?;
            Tensor::stack(&scores, 0)?.mean(0)
        };
        let neutral = input.zeros_like()?;
        let explained = match way {
            Way::Converged => {
                integrated_gradients(std::slice::from_ref(&input), &[neutral], output)?
            }
            Way::Quick => integrated_differences(&input, &neutral, STEPS, output)?,
        };
        let shares = &explained.shares[0];
        let by_feature = |at: usize| shares.iter().skip(at).step_by(FEATURES).sum();
        Ok(FaultAttribution {
            kind,
            features: NAMES.iter().enumerate().map(|(at, name)| (*name, by_feature(at))).collect(),
            readings: shares
                .chunks(FEATURES)
                .take(window.rows)
                .map(|row| row.iter().sum())
                .collect(),
            output: explained.output,
            neutral: explained.neutral,
        })
    }

    fn windows(
        &self,
        windows: &[&Features],
        member: usize,
    ) -> Result<Vec<Vec<Probabilities>>, FaultError> {
        let mut judged = Vec::with_capacity(windows.len());
        for chunk in windows.chunks(BATCH) {
            let mut numbers = Vec::with_capacity(BATCH * WINDOW * FEATURES);
            for window in chunk {
                numbers.extend_from_slice(&window.numbers);
            }
            numbers.resize(BATCH * WINDOW * FEATURES, 0.0);
            let input = Tensor::from_vec(numbers, (BATCH, WINDOW, FEATURES), &Device::Cpu)?;
            let scores = log_softmax(&self.members[member].forward(&input)?)?.exp()?;
            for window in scores.to_vec3::<f32>()?.into_iter().take(chunk.len()) {
                let rows: Vec<Probabilities> =
                    window.into_iter().filter_map(|row| row.try_into().ok()).collect();
                if rows.iter().flatten().any(|probability| !probability.is_finite()) {
                    return Err(FaultError::NotFinite);
                }
                judged.push(rows);
            }
        }
        Ok(judged)
    }
}

/// The most likely kind.
pub(super) fn likeliest(probabilities: &Probabilities) -> FaultKind {
    let mut best = FaultKind::Sound;
    for kind in FaultKind::ALL {
        if probabilities[kind.index()] > probabilities[best.index()] {
            best = kind;
        }
    }
    best
}

/// Readings in a row whose most likely kind is the same fault, others up to [`BRIDGE`] in between bridged.
pub(super) fn segments(probabilities: &[Probabilities]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for (at, row) in probabilities.iter().enumerate() {
        let kind = likeliest(row);
        if kind == FaultKind::Sound {
            continue;
        }
        let open = segments
            .iter_mut()
            .rev()
            .take(2)
            .find(|last| last.kind == kind && at - last.rows.end <= BRIDGE);
        match open {
            Some(last) => last.rows.end = at + 1,
            None => segments.push(Segment { kind, rows: at..at + 1, probability: 0.0 }),
        }
    }
    for segment in &mut segments {
        let rows = &probabilities[segment.rows.clone()];
        let sum: f32 = rows.iter().map(|row| row[segment.kind.index()]).sum();
        segment.probability = sum / rows.len() as f32;
    }
    segments
}

/// Ends of windows over so many readings, oldest first; the last is the end of all.
fn window_ends(rows: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = (0..)
        .map(|back| rows.saturating_sub(back * STRIDE))
        .take_while(|end| *end > WINDOW)
        .collect();
    match ends.last() {
        Some(last) if last - STRIDE <= WINDOW && *last > WINDOW => ends.push(WINDOW),
        Some(_) => {}
        None => ends.push(rows),
    }
    ends.reverse();
    ends
}

fn log_odds(scores: &Tensor, kind: FaultKind, rows: &Range<usize>) -> candle_core::Result<Tensor> {
    let scores = scores.narrow(1, rows.start, rows.len())?;
    let others: Vec<u32> =
        (0..FaultKind::ALL.len() as u32).filter(|other| *other as usize != kind.index()).collect();
    let others = scores.contiguous()?.index_select(&Tensor::new(others, &Device::Cpu)?, 2)?;
    let largest = others.max_keepdim(D::Minus1)?.detach();
    let sum = (others.broadcast_sub(&largest)?.exp()?.sum_keepdim(D::Minus1)?.log()? + largest)?;
    (scores.narrow(2, kind.index(), 1)? - sum)?.flatten_from(1)?.mean(1)
}

/// Weighted sums of overlapping windows, by member.
struct Blend {
    members: Vec<Vec<Probabilities>>,
    weights: Vec<f32>,
}

impl Blend {
    fn new(rows: usize, members: usize) -> Self {
        Self {
            members: vec![vec![[0.0; FaultKind::ALL.len()]; rows]; members],
            weights: vec![0.0; rows],
        }
    }

    fn add(&mut self, member: usize, first: usize, rows: &[Probabilities]) {
        for (at, row) in rows.iter().enumerate() {
            let weight = (at + 1).min(rows.len() - at) as f32;
            if member == 0 {
                self.weights[first + at] += weight;
            }
            for (sum, own) in self.members[member][first + at].iter_mut().zip(row) {
                *sum += own * weight;
            }
        }
    }

    fn finish(mut self) -> Judgement {
        let share = 1.0 / self.members.len().max(1) as f32;
        let rows = self.weights.len();
        let mut probabilities = vec![[0.0; FaultKind::ALL.len()]; rows];
        let mut disagreement = vec![0.0; rows];
        for at in 0..rows {
            let mut wrong = Vec::with_capacity(self.members.len());
            for member in &mut self.members {
                let own = member[at].map(|sum| sum / self.weights[at].max(1e-6));
                wrong.push(1.0 - own[FaultKind::Sound.index()]);
                for (mean, own) in probabilities[at].iter_mut().zip(own) {
                    *mean += own * share;
                }
            }
            let mean = wrong.iter().sum::<f32>() * share;
            let squares: f32 = wrong.iter().map(|own| (own - mean) * (own - mean)).sum();
            disagreement[at] = (squares * share).sqrt();
        }
        let segments = segments(&probabilities);
        Judgement { probabilities, disagreement, segments }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::inject::tests::wave;
    use super::super::network::Architecture;
    use super::*;
    use crate::package::{Draft, Lineage, Metrics, TrainingRun, WeightsFile};
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    pub(crate) fn model(architecture: Architecture, members: u64) -> FaultModel {
        let member = |seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            architecture.initial(&mut random).unwrap()
        };
        let draft = Draft {
            manifest: Manifest {
                id: "device-faults".into(),
                version: 1,
                task: TASK.into(),
                title: "Device faults".into(),
                date: "2026-11-22".into(),
                members: members as u32,
                inputs: inputs(),
                outputs: outputs(),
                weights: WeightsFile::default(),
                data: Vec::new(),
                training: TrainingRun {
                    seed: 1,
                    epochs: 0,
                    folds: members as u32,
                    command: "cargo test".into(),
                    settings: Default::default(),
                },
                metrics: Metrics::default(),
            },
            members: (0..members).map(member).collect(),
            lineage: Lineage::new([(CaseId(7), 1)]),
            card: String::new(),
        };
        let (manifest, weights) = draft.encode().unwrap();
        FaultModel::from_package(Package::from_parts(&manifest, &weights).unwrap()).unwrap()
    }

    #[test]
    fn every_reading_is_judged_and_shares_sum_to_one() {
        let model = model(Architecture::Convolutions, 2);
        for rows in [40, WINDOW, WINDOW + 1, 2 * WINDOW, 700] {
            let judged = model.judge(&wave(rows, 3), None).unwrap();
            assert_eq!(judged.probabilities.len(), rows);
            for row in &judged.probabilities {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "{rows}: {row:?}");
            }
            assert!(judged.disagreement.iter().all(|own| *own >= 0.0));
        }
        assert!(matches!(model.judge(&wave(8, 3), None), Err(FaultError::TooFew)));
        assert_eq!(model.members_for(CaseId(7)), 1..2);
        assert_eq!(model.members_for(CaseId(8)), 0..2);
    }

    #[test]
    fn attribution_adds_up() {
        for architecture in [Architecture::Convolutions, Architecture::Gru] {
            let model = model(architecture, 2);
            let why = model.attribute(&wave(200, 4), None, FaultKind::Spike, 20..25).unwrap();
            let difference = f64::from(why.output) - f64::from(why.neutral);
            assert!((why.sum() - difference).abs() <= 0.01 * difference.abs().max(0.1), "{why:?}");
            let by_reading: f64 = why.readings.iter().map(|share| f64::from(*share)).sum();
            assert!((by_reading - why.sum()).abs() < 1e-3);
            let beyond = model.attribute(&wave(200, 4), None, FaultKind::Spike, 120..129);
            assert!(matches!(beyond, Err(FaultError::Rows(..))));
        }
    }

    #[test]
    fn segments_bridge_short_gaps() {
        let row = |kind: FaultKind| {
            let mut row = [0.1 / 7.0; FaultKind::ALL.len()];
            row[kind.index()] = 0.9;
            row
        };
        use FaultKind::{Clock, Sound, Stuck};
        let rows = [Sound, Stuck, Stuck, Sound, Stuck, Sound, Sound, Sound, Stuck, Clock].map(row);
        let found: Vec<_> =
            segments(&rows).into_iter().map(|segment| (segment.kind, segment.rows)).collect();
        assert_eq!(found, [(Stuck, 1..5), (Stuck, 8..9), (Clock, 9..10)]);
    }
}
