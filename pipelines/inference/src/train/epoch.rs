//! One pass over the training patients: which beats, in which order, changed how.

use super::TrainSettings;
use super::dataset::Patient;
use crate::network::{MASK_RHYTHM, MASK_WIDTH};
use crate::{BeatClass, CHANNELS, RR_FEATURES, SEGMENT_SAMPLES};
use candle_core::{Device, Tensor};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The random numbers of one purpose: from the seed, the stage and the epoch alone, so that a training that
/// was broken off goes on as if it had not been.
pub(super) fn random(seed: u64, stage: usize, epoch: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(stage as u64).to_le_bytes());
    key[16..20].copy_from_slice(&epoch.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Beats for one epoch by patient and place: all that are not normal and at most
/// [`TrainSettings::normals_per_patient`] that are, shuffled. So a patient with many like beats does not outweigh the others.
pub(super) fn choose(
    patients: &[&Patient],
    settings: &TrainSettings,
    rng: &mut ChaCha8Rng,
) -> Vec<(usize, usize)> {
    let mut chosen = Vec::new();
    for (at, patient) in patients.iter().enumerate() {
        let is_normal = |beat: &usize| patient.beats[*beat].0 == BeatClass::N;
        let (normal, other): (Vec<usize>, Vec<usize>) =
            (0..patient.beats.len()).partition(is_normal);
        let some = normal.sample(rng, settings.normals_per_patient).copied();
        chosen.extend(some.chain(other).map(|beat| (at, beat)));
    }
    chosen.shuffle(rng);
    chosen
}

/// What one step learns from.
pub(super) struct Step {
    pub(super) waveform: Tensor,
    pub(super) rr: Tensor,
    /// Weight of each beat in the column of its class, zero elsewhere; the sum of all is 1.
    pub(super) weights: Tensor,
    /// What the dropout leaves.
    pub(super) mask: Tensor,
}

/// The beats of one step, each changed at random within what real recordings show.
pub(super) fn step(
    patients: &[&Patient],
    chosen: &[(usize, usize)],
    settings: &TrainSettings,
    rng: &mut ChaCha8Rng,
) -> candle_core::Result<Step> {
    let rows = chosen.len();
    let mut waveform = Vec::with_capacity(rows * CHANNELS * SEGMENT_SAMPLES);
    let mut rr = Vec::with_capacity(rows * RR_FEATURES);
    let mut weights = vec![0.0_f32; rows * 5];
    for (row, (patient, beat)) in chosen.iter().enumerate() {
        let (class, segment) = &patients[*patient].beats[*beat];
        let limit = settings.shift_samples_max as f32;
        let shift = if limit > 0.0 { rng.random_range(-limit..=limit) } else { 0.0 };
        let mut beat = segment.waveform(shift);
        disturb(&mut beat, settings, rng);
        waveform.append(&mut beat);
        rr.extend(segment.rr.map(|value| {
            let noise: f32 = rng.sample(StandardNormal);
            value + settings.rr_noise * noise
        }));
        weights[row * 5 + class.index()] = settings.class_weights[class.index()];
    }
    let total: f32 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total.max(f32::MIN_POSITIVE));
    let left = 1.0 - settings.dropout;
    let mask: Vec<f32> = (0..rows * MASK_WIDTH)
        .map(|at| match at % MASK_WIDTH < MASK_WIDTH - MASK_RHYTHM {
            true if rng.random::<f32>() < settings.dropout => 0.0,
            true => 1.0 / left,
            false => 1.0,
        })
        .collect();
    Ok(Step {
        waveform: Tensor::from_vec(waveform, (rows, CHANNELS, SEGMENT_SAMPLES), &Device::Cpu)?,
        rr: Tensor::from_vec(rr, (rows, RR_FEATURES), &Device::Cpu)?,
        weights: Tensor::from_vec(weights, (rows, 5), &Device::Cpu)?,
        mask: Tensor::from_vec(mask, (rows, MASK_WIDTH), &Device::Cpu)?,
    })
}

/// Gain, noise and what is left of baseline wander: the same in both channels, since the second is the
/// first less what does not change.
fn disturb(waveform: &mut [f32], settings: &TrainSettings, rng: &mut ChaCha8Rng) {
    let normal = |rng: &mut ChaCha8Rng| rng.sample::<f32, _>(StandardNormal);
    let gain = 1.0 + settings.gain * normal(rng);
    let noise = settings.noise * rng.random::<f32>();
    let wander = settings.wander * normal(rng);
    // 0.1 to 0.7 Hz: breath and movement.
    let turn = std::f32::consts::TAU * rng.random_range(0.1..0.7) / 250.0;
    let phase = rng.random_range(0.0..std::f32::consts::TAU);
    let (beat, deviation) = waveform.split_at_mut(SEGMENT_SAMPLES);
    for (at, (beat, deviation)) in beat.iter_mut().zip(deviation).enumerate() {
        let usual = *beat - *deviation;
        *beat = *beat * gain + noise * normal(rng) + wander * (turn * at as f32 + phase).sin();
        *deviation = *beat - usual;
    }
}
