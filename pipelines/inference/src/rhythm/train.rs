//! Training of the committee.
//!
//! Every member is trained without one fold of the recordings. Its forests grow on the features of the whole and of three
//! parts of each recording; its network sees windows of the waveform that are stretched in time, scaled, made noisy and
//! blotted out in places, anew in every epoch.

use super::RhythmClass;
use super::input::{FEATURES, InputError, RhythmInput, WINDOW};
use super::network::{CHANNELS, CLASSES, PARAMETERS, SEEN_WIDTH, forest_tensors, kept, see};
use crate::training::{FitError, FitProgress, Run, fit, folds, initial, random};
use crate::trees::{Forest, Growth, Table, grow};
use candle_core::{Device, Tensor};
use haar_recordings::corpus::CaseId;
use haar_schema::SampleRate;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Parts of a recording whose features are learned beside those of the whole, as shares of its length.
const PARTS: [(f64, f64); 3] = [(0.0, 0.75), (0.25, 1.0), (0.125, 0.875)];
/// How much the whole counts; the parts share the rest.
const WHOLE: f64 = 0.4;
/// The random numbers of forests are apart from those of every network's stage.
const FORESTS: usize = 1 << 32;

/// How the committee is trained.
#[derive(Clone, PartialEq, Debug)]
pub struct RhythmSettings {
    /// What all random numbers grow from.
    pub seed: u64,
    /// Passes over the recordings, for each member.
    pub epochs: u32,
    /// Members, and folds of recordings.
    pub members: usize,
    /// Recordings in a step.
    pub batch: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// What an error about a class costs, in the order of [`RhythmClass::ALL`].
    pub costs: [f32; CLASSES],
    /// The share of the truth that is spread over all classes, because annotators err.
    pub smoothing: f32,
    /// Share of what was pooled over time that is left out in a step.
    pub dropout: f32,
    /// The forests over the features.
    pub growth: Growth,
}

impl Default for RhythmSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 30,
            members: 5,
            batch: 32,
            learning_rate: 2e-3,
            weight_decay: 0.02,
            costs: [1.0, 1.3, 1.2, 1.5],
            smoothing: 0.05,
            dropout: 0.3,
            growth: Growth {
                trees: 120,
                leaves: 12,
                learning_rate: 0.07,
                leaf_weight: 12.0,
                regularisation: 4.0,
                feature_share: 0.3,
                group_share: 0.7,
            },
        }
    }
}

/// A recording to learn from.
#[derive(Clone, Debug)]
pub struct RhythmCase {
    /// Its file, by content.
    pub case: CaseId,
    /// What it shows.
    pub class: RhythmClass,
    whole: RhythmInput,
    parts: Vec<Vec<f32>>,
}

impl RhythmCase {
    /// Of a recording in mV.
    ///
    /// # Errors
    /// If [`RhythmInput::new`] refuses it.
    pub fn new(
        case: CaseId,
        class: RhythmClass,
        mv: &[f32],
        rate: SampleRate,
    ) -> Result<Self, InputError> {
        let whole = RhythmInput::new(mv, rate)?;
        let place = |share: f64| (share * mv.len() as f64) as usize;
        let part = |(from, to): &(f64, f64)| RhythmInput::new(&mv[place(*from)..place(*to)], rate);
        // A part too short to be judged, or without samples, teaches nothing.
        let parts = PARTS.iter().filter_map(|range| part(range).ok()).map(|part| part.features);
        Ok(Self { case, class, parts: parts.collect(), whole })
    }

    /// The whole recording as the model sees it.
    pub const fn input(&self) -> &RhythmInput {
        &self.whole
    }
}

/// What training gives: the members' tensors and the fold of each recording.
#[derive(Clone, Debug)]
pub struct Committee {
    /// Tensors by member, as [`super::RhythmModel`] wants them.
    pub members: Vec<BTreeMap<String, Tensor>>,
    /// The member that has not seen the recording, by recording.
    pub fold_of: Vec<usize>,
}

/// Trains `settings.members` networks, each without its fold of `cases`. With `resume`, one that was broken off
/// goes on.
///
/// # Errors
/// If a training diverges, candle fails, or the files to resume from are another training's.
pub fn train_rhythm(
    cases: &[RhythmCase],
    settings: &RhythmSettings,
    resume: Option<&Path>,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<Committee, FitError> {
    let fold_of = folds(cases.len(), settings.members, settings.seed);
    let fingerprint = fingerprint(cases, settings);
    let mut members = Vec::new();
    for member in 0..settings.members {
        let seen: Vec<&RhythmCase> = cases
            .iter()
            .zip(&fold_of)
            .filter(|(_, fold)| **fold != member)
            .map(|(case, _)| case)
            .collect();
        let run = Run {
            seed: settings.seed,
            stage: member,
            stages: settings.members,
            epochs: settings.epochs,
            learning_rate: settings.learning_rate,
            weight_decay: settings.weight_decay,
            fingerprint: &fingerprint,
            resume,
        };
        let mut tensors = kept(train_sight(&seen, settings, &run, progress)?)?;
        for (class, forest) in grow_forests(&seen, settings, member).iter().enumerate() {
            tensors.extend(forest_tensors(class, forest)?);
        }
        members.push(tensors);
    }
    Ok(Committee { members, fold_of })
}

/// The tower over the waveform of one member.
fn train_sight(
    seen: &[&RhythmCase],
    settings: &RhythmSettings,
    run: &Run,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<BTreeMap<String, Tensor>, FitError> {
    let start = initial(&PARAMETERS, &mut random(run.seed, run.stage, 0))?;
    let plan = |_, rng: &mut ChaCha8Rng| {
        let mut order: Vec<usize> = (0..seen.len()).collect();
        order.shuffle(rng);
        order.chunks(settings.batch).map(<[usize]>::to_vec).collect()
    };
    let loss = |parameters: &BTreeMap<String, Tensor>, batch: &[usize], rng: &mut ChaCha8Rng| {
        let cases: Vec<&RhythmCase> = batch.iter().map(|at| seen[*at]).collect();
        let step = Step::draw(&cases, settings, rng)?;
        let said = see(parameters, &step.waveform, &step.valid, Some(&step.mask))?;
        (said * &step.truth)?.sum_all()?.neg()
    };
    fit(run, start, plan, loss, progress)
}

/// The forests of one member, one for each class against the rest, from the whole and the parts of each recording.
fn grow_forests(seen: &[&RhythmCase], settings: &RhythmSettings, member: usize) -> Vec<Forest> {
    let (mut values, mut classes, mut weights, mut groups) = (vec![], vec![], vec![], vec![]);
    for (group, case) in seen.iter().enumerate() {
        let rest = (1.0 - WHOLE) / case.parts.len().max(1) as f64;
        let rows = std::iter::once((&case.whole.features, WHOLE));
        for (row, weight) in rows.chain(case.parts.iter().map(|part| (part, rest))) {
            values.extend_from_slice(row);
            classes.push(case.class);
            weights.push(weight as f32);
            groups.push(group);
        }
    }
    let cases: Vec<usize> = (0..classes.len()).collect();
    let of_class = |class: RhythmClass| {
        let positive: Vec<bool> = classes.iter().map(|own| *own == class).collect();
        let table = Table {
            values: &values,
            features: FEATURES,
            positive: &positive,
            weights: &weights,
            groups: &groups,
        };
        let mut rng = random(settings.seed, FORESTS + member, class.index() as u32);
        grow(&table, &cases, &settings.growth, &mut rng, &mut |_| {})
    };
    RhythmClass::ALL.map(of_class).into()
}

/// The tensors of one step.
struct Step {
    waveform: Tensor,
    valid: Vec<usize>,
    /// The share of each class in the truth, times its cost, over the recordings in the step.
    truth: Tensor,
    mask: Tensor,
}

impl Step {
    fn draw(
        cases: &[&RhythmCase],
        settings: &RhythmSettings,
        rng: &mut ChaCha8Rng,
    ) -> candle_core::Result<Self> {
        let rows = cases.len();
        let mut waveform = Vec::with_capacity(rows * WINDOW * CHANNELS);
        let mut valid = Vec::with_capacity(rows);
        let mut truth = Vec::with_capacity(rows * CLASSES);
        for case in cases {
            let (window, length) = altered(&case.whole, rng);
            waveform.extend(window);
            valid.push(length);
            for class in RhythmClass::ALL {
                let share = settings.smoothing / CLASSES as f32
                    + if class == case.class { 1.0 - settings.smoothing } else { 0.0 };
                truth.push(share * settings.costs[case.class.index()] / rows as f32);
            }
        }
        let kept = 1.0 / (1.0 - settings.dropout);
        let draw = |_| if rng.random::<f32>() < settings.dropout { 0.0 } else { kept };
        let mask: Vec<f32> = (0..rows * SEEN_WIDTH).map(draw).collect();
        Ok(Self {
            waveform: Tensor::from_vec(waveform, (rows, WINDOW, CHANNELS), &Device::Cpu)?,
            valid,
            truth: Tensor::from_vec(truth, (rows, CLASSES), &Device::Cpu)?,
            mask: Tensor::from_vec(mask, (rows, SEEN_WIDTH), &Device::Cpu)?,
        })
    }
}

/// A window of the waveform, somewhere, stretched, scaled, noisy and with a blot; and how much of it is signal.
fn altered(input: &RhythmInput, rng: &mut ChaCha8Rng) -> (Vec<f32>, usize) {
    let samples = input.samples();
    let stretch: f64 = rng.random_range(0.88..1.14);
    let whole = (samples as f64 * stretch) as usize;
    let wanted = if rng.random_bool(0.5) { 1.0 } else { rng.random_range(0.7..1.0) };
    let length = ((whole as f64 * wanted) as usize).clamp(1, WINDOW);
    let start = rng.random_range(0..=whole - length.min(whole));
    let scale = rng.random_range(-0.25_f32..0.25).exp();
    let level = if rng.random_bool(0.5) { rng.random_range(0.0..0.06_f32) } else { 0.0 };
    let mut noise = Noise::new(level, rng);
    let blot = if rng.random_bool(0.3) { rng.random_range(0..length) } else { length };
    let blot = blot..blot + rng.random_range(50..150);
    let mut window = Vec::with_capacity(WINDOW * CHANNELS);
    for at in 0..length {
        let place = (start + at) as f64 / stretch;
        let (before, part) = (place as usize, place.fract() as f32);
        let value = |channel: usize| {
            let of = |sample: usize| input.waveform[sample.min(samples - 1) * CHANNELS + channel];
            of(before) * (1.0 - part) + of(before + 1) * part
        };
        let millivolts = if blot.contains(&at) { 0.0 } else { scale * value(0) };
        window.extend([millivolts + noise.next(), value(1)]);
    }
    window.resize(WINDOW * CHANNELS, 0.0);
    (window, length)
}

/// Noise of a level; two even numbers added are normal enough, and cost little.
struct Noise {
    state: u32,
    level: f32,
}

impl Noise {
    fn new(level: f32, rng: &mut ChaCha8Rng) -> Self {
        Self { state: rng.random(), level }
    }

    fn next(&mut self) -> f32 {
        // Numerical Recipes' congruential generator; of its bits the upper ones.
        let mut even = || {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (self.state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        // The deviation of the sum is the root of a sixth.
        self.level * 6.0_f32.sqrt() * (even() + even())
    }
}

/// Settings and recordings, in one hash.
fn fingerprint(cases: &[RhythmCase], settings: &RhythmSettings) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{settings:?}"));
    for case in cases {
        hash.update(case.case.0.to_le_bytes());
        hash.update([case.class.index() as u8]);
        // What was described otherwise is not gone on with.
        case.whole.features.iter().for_each(|feature| hash.update(feature.to_le_bytes()));
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use candle_core::DType;

    /// A recording of 12 s: regular with P waves, or irregular without.
    fn recording(number: u64, irregular: bool) -> Vec<f32> {
        let mut rng = random(number, 0, 0);
        let mut mv = vec![0.0_f32; 12 * 300];
        let mut beat = 100.0;
        while beat < 3_500.0 {
            for (at, value) in mv.iter_mut().enumerate() {
                let bump = |place: f64, width: f64, height: f64| {
                    height * (-0.5 * ((at as f64 - place) / width).powi(2)).exp()
                };
                let p = if irregular { 0.0 } else { 0.15 };
                *value += (bump(beat, 4.0, 1.0) + bump(beat - 48.0, 8.0, p)) as f32;
            }
            beat += if irregular { rng.random_range(110.0..360.0) } else { 240.0 };
        }
        mv.iter_mut().for_each(|value| *value += rng.random_range(-0.02..0.02));
        mv
    }

    pub(in super::super) fn cases() -> Vec<RhythmCase> {
        let case = |number: u64| {
            let class = [RhythmClass::Normal, RhythmClass::Fibrillation][number as usize % 2];
            let mv = recording(number, number % 2 == 1);
            RhythmCase::new(CaseId(number), class, &mv, SampleRate::from_hz(300).unwrap()).unwrap()
        };
        (0..24).map(case).collect()
    }

    pub(in super::super) fn settings() -> RhythmSettings {
        RhythmSettings { epochs: 6, members: 2, batch: 4, ..RhythmSettings::default() }
    }

    #[test]
    fn broken_off_and_resumed_it_ends_the_same() {
        let (cases, settings) = (cases(), RhythmSettings { epochs: 2, ..settings() });
        let weights = |committee: &Committee| -> Vec<Vec<f32>> {
            let tensors = committee.members.iter().flat_map(BTreeMap::values);
            let values = |tensor: &Tensor| {
                let tensor = tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap();
                tensor.to_vec1().unwrap()
            };
            tensors.map(values).collect()
        };
        let whole = train_rhythm(&cases, &settings, None, &mut |_| {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resume");
        let kept = folder.path().join("kept");
        train_rhythm(&cases, &settings, Some(&path), &mut |progress| {
            if (progress.stage, progress.epoch) == (1, 1) {
                std::fs::copy(folder.path().join("resume.1"), &kept).unwrap();
            }
        })
        .unwrap();
        std::fs::rename(&kept, folder.path().join("resume.1")).unwrap();
        let mut epochs = 0;
        let resumed = train_rhythm(&cases, &settings, Some(&path), &mut |_| epochs += 1).unwrap();
        assert_eq!(epochs, 1);
        assert_eq!(weights(&resumed), weights(&whole));
        let other = RhythmSettings { seed: 2, ..settings };
        let error = train_rhythm(&cases, &other, Some(&path), &mut |_| {}).unwrap_err();
        assert!(matches!(error, FitError::Resume { .. }), "{error}");
    }

    #[test]
    fn what_is_altered_keeps_its_shape_and_its_end() {
        let input = &cases()[0].whole;
        for epoch in 0..50 {
            let (window, length) = altered(input, &mut random(1, 0, epoch));
            assert_eq!(window.len(), WINDOW * CHANNELS);
            assert!((input.samples() / 2..=WINDOW).contains(&length), "{length}");
            assert!(window[length * CHANNELS..].iter().all(|value| *value == 0.0));
            assert!(window.iter().all(|value| value.is_finite()));
        }
    }
}
