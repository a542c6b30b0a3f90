//! Training of the committee.
//!
//! Every member is trained without one fold of the recordings. From each of its recordings it sees the features of the
//! whole and of three parts, and windows of the waveform that are stretched in time, scaled, made noisy
//! and blotted out in places, anew in every epoch.

use super::input::{FEATURES, InputError, RhythmInput, WINDOW};
use super::network::{CHANNELS, CLASSES, DESCRIBED, Masks, PARAMETERS, SEEN_WIDTH, describe, see};
use super::{RhythmClass, standard::Standard};
use crate::training::{FitError, FitProgress, Run, fit, folds, initial, random};
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
/// How often the whole is drawn among the parts.
const WHOLE: f64 = 0.4;

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
    /// Share of the activities over the features that is left out in a step.
    pub dropout: f32,
}

impl Default for RhythmSettings {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 20,
            members: 5,
            batch: 32,
            learning_rate: 2e-3,
            weight_decay: 0.02,
            costs: [1.0, 1.3, 1.2, 1.5],
            smoothing: 0.05,
            dropout: 0.3,
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
    pub(super) whole: RhythmInput,
    pub(super) parts: Vec<Vec<f32>>,
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
        members.push(train_member(&seen, settings, &run, progress)?);
    }
    Ok(Committee { members, fold_of })
}

/// One member; its standard is that of the recordings it has seen.
pub(super) fn train_member(
    seen: &[&RhythmCase],
    settings: &RhythmSettings,
    run: &Run,
    progress: &mut dyn FnMut(FitProgress),
) -> Result<BTreeMap<String, Tensor>, FitError> {
    let all = seen.iter().flat_map(|case| std::iter::once(&case.whole.features).chain(&case.parts));
    let standard = Standard::of(&all.map(Vec::as_slice).collect::<Vec<_>>());
    let start = initial(&PARAMETERS, &mut random(run.seed, run.stage, 0))?;
    let plan = |_, rng: &mut ChaCha8Rng| {
        let mut order: Vec<usize> = (0..seen.len()).collect();
        order.shuffle(rng);
        order.chunks(settings.batch).map(<[usize]>::to_vec).collect()
    };
    let loss = |parameters: &BTreeMap<String, Tensor>, batch: &[usize], rng: &mut ChaCha8Rng| {
        let cases: Vec<&RhythmCase> = batch.iter().map(|at| seen[*at]).collect();
        let step = Step::draw(&cases, &standard, settings, rng)?;
        let masks = Masks { described: &step.described_mask, seen: &step.seen_mask };
        let described = describe(parameters, &step.features, Some(masks.described))?;
        let seen = see(parameters, &step.waveform, &step.valid, Some(masks.seen))?;
        ((described + seen)? * &step.truth)?.sum_all()?.neg()
    };
    let mut member = fit(run, start, plan, loss, progress)?;
    member.extend(standard.tensors()?);
    Ok(member)
}

/// The tensors of one step.
struct Step {
    features: Tensor,
    waveform: Tensor,
    valid: Vec<usize>,
    /// The share of each class in the truth, times its cost, over the recordings in the step.
    truth: Tensor,
    described_mask: Tensor,
    seen_mask: Tensor,
}

impl Step {
    fn draw(
        cases: &[&RhythmCase],
        standard: &Standard,
        settings: &RhythmSettings,
        rng: &mut ChaCha8Rng,
    ) -> candle_core::Result<Self> {
        let rows = cases.len();
        let mut features = Vec::with_capacity(rows * FEATURES);
        let mut waveform = Vec::with_capacity(rows * WINDOW * CHANNELS);
        let mut valid = Vec::with_capacity(rows);
        let mut truth = Vec::with_capacity(rows * CLASSES);
        for case in cases {
            let drawn = match case.parts.len() {
                parts if parts > 0 && !rng.random_bool(WHOLE) => {
                    &case.parts[rng.random_range(0..parts)]
                }
                _ => &case.whole.features,
            };
            features.extend(standard.apply(drawn));
            let (window, length) = altered(&case.whole, rng);
            waveform.extend(window);
            valid.push(length);
            for class in RhythmClass::ALL {
                let share = settings.smoothing / CLASSES as f32
                    + if class == case.class { 1.0 - settings.smoothing } else { 0.0 };
                truth.push(share * settings.costs[case.class.index()] / rows as f32);
            }
        }
        let tensor = |values, width| Tensor::from_vec(values, (rows, width), &Device::Cpu);
        let mut mask = |width: usize, dropout: f32| {
            let kept = 1.0 / (1.0 - dropout);
            let draw = |_| if rng.random::<f32>() < dropout { 0.0 } else { kept };
            tensor((0..rows * width).map(draw).collect(), width)
        };
        let described_mask = mask(DESCRIBED, settings.dropout)?;
        let seen_mask = mask(SEEN_WIDTH, settings.dropout)?;
        Ok(Self {
            features: tensor(features, FEATURES)?,
            waveform: Tensor::from_vec(waveform, (rows, WINDOW, CHANNELS), &Device::Cpu)?,
            valid,
            truth: tensor(truth, CLASSES)?,
            described_mask,
            seen_mask,
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
pub(super) fn fingerprint(cases: &[RhythmCase], settings: &RhythmSettings) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{settings:?}"));
    for case in cases {
        hash.update(case.case.0.to_le_bytes());
        hash.update([case.class.index() as u8]);
    }
    hex::encode(hash.finalize())
}
