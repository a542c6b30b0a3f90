//! Training any network of candle tensors: folds of patients, steps, and going on where one was broken off.
//!
//! What is random grows from the seed, the stage (which member) and the epoch alone, so a training that
//! was broken off after an epoch ends with the same weights, bit for bit on one machine, as one that was not.

mod fit;
mod optimizer;

pub use fit::{FitError, FitProgress, Run, fit, forget};
pub(crate) use optimizer::AdamW;

use candle_core::{D, Device, Tensor};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// The shuffling of patients has its own random numbers, apart from every stage's.
const DEAL: usize = usize::MAX;

/// The random numbers of one purpose.
pub fn random(seed: u64, stage: usize, epoch: u32) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(stage as u64).to_le_bytes());
    key[16..20].copy_from_slice(&epoch.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The fold of each patient: shuffled by the seed, then dealt in turn, so that folds differ by one patient at most.
pub fn folds(patients: usize, folds: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..patients).collect();
    order.shuffle(&mut random(seed, DEAL, 0));
    let mut fold_of = vec![0; patients];
    for (place, patient) in order.into_iter().enumerate() {
        fold_of[patient] = place % folds.max(1);
    }
    fold_of
}

/// Random weights after He et al., "Delving deep into rectifiers", ICCV 2015 (uniform, by inputs: all extents but
/// the first); zeros for parameters of one extent (biases).
///
/// # Errors
/// If candle cannot make a tensor.
pub fn initial(
    shapes: &[(&'static str, &[usize])],
    rng: &mut ChaCha8Rng,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    shapes
        .iter()
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let inputs: usize = shape[1..].iter().product();
            let limit = if shape.len() > 1 { (6.0 / inputs as f32).sqrt() } else { 0.0 };
            let values: Vec<f32> =
                (0..count).map(|_| limit * (2.0 * rng.random::<f32>() - 1.0)).collect();
            Ok(((*name).to_owned(), Tensor::from_vec(values, *shape, &Device::Cpu)?))
        })
        .collect()
}

/// Logarithms of the classes' probabilities.
pub(crate) fn log_softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let shifted = scores.broadcast_sub(&largest)?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?;
    shifted.broadcast_sub(&sum.log()?)
}
