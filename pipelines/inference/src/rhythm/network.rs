//! The network: two towers, one over the features, one over the waveform; their log-probabilities are added.
//!
//! | layer | in | out | parameters |
//! |---|---|---|---|
//! | `described` | 191 features | 48 | 9,216 |
//! | `described_out` | 48 | 4 | 196 |
//! | `conv1` | 3000 × 2, kernel 16, stride 4 | 750 × 16 | 528 |
//! | `conv2` | 750 × 16, kernel 7, stride 2 | 375 × 24 | 2,712 |
//! | `conv3` | 375 × 24, kernel 7, stride 2 | 188 × 32 | 5,408 |
//! | `conv4` | 188 × 32, kernel 3, added to its input | 188 × 32 | 3,104 |
//! | `conv5` | 188 × 32, kernel 5, stride 2 | 94 × 40 | 6,440 |
//! | `conv6` | 94 × 40, kernel 3, added to its input | 94 × 40 | 4,840 |
//! | `conv7` | 94 × 40, kernel 5, stride 2 | 47 × 48 | 9,648 |
//! | `conv8` | 47 × 48, kernel 3, added to its input | 47 × 48 | 6,960 |
//! | `seen_out` | mean and largest of each of the 48 over time | 4 | 388 |
//!
//! A recording is as long as it is: what was padded takes no part in the mean and the largest.
//!
//! The towers are trained side by side, each for itself: features are learned within an epoch and would leave
//! a waveform that is joined to them nothing to learn.

use super::input::{FEATURES, WINDOW};
use crate::conv::{Stride, convolve, dense};
use crate::network::log_softmax;
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// Channels of the waveform: millivolts over the height of the R peak, and the interval to the next beat.
pub(super) const CHANNELS: usize = 2;
/// Classes that come out.
pub(super) const CLASSES: usize = 4;
/// Width of the layer over the features.
pub(super) const DESCRIBED: usize = 48;
/// Samples of the waveform for one place of the last layer.
const REDUCTION: usize = 64;
/// Places of the last layer.
const PLACES: usize = WINDOW.div_ceil(REDUCTION);
const SEEN: usize = 48;

/// Name and shape of each parameter.
pub(super) const PARAMETERS: [(&str, &[usize]); 22] = [
    ("described.weight", &[DESCRIBED, FEATURES]),
    ("described.bias", &[DESCRIBED]),
    ("described_out.weight", &[CLASSES, DESCRIBED]),
    ("described_out.bias", &[CLASSES]),
    ("conv1.weight", &[16, CHANNELS, 16]),
    ("conv1.bias", &[16]),
    ("conv2.weight", &[24, 16, 7]),
    ("conv2.bias", &[24]),
    ("conv3.weight", &[32, 24, 7]),
    ("conv3.bias", &[32]),
    ("conv4.weight", &[32, 32, 3]),
    ("conv4.bias", &[32]),
    ("conv5.weight", &[40, 32, 5]),
    ("conv5.bias", &[40]),
    ("conv6.weight", &[40, 40, 3]),
    ("conv6.bias", &[40]),
    ("conv7.weight", &[48, 40, 5]),
    ("conv7.bias", &[48]),
    ("conv8.weight", &[48, 48, 3]),
    ("conv8.bias", &[48]),
    ("seen_out.weight", &[CLASSES, 2 * SEEN]),
    ("seen_out.bias", &[CLASSES]),
];

/// What happens to activities in training only.
pub(super) struct Masks<'m> {
    /// Rows × [`DESCRIBED`].
    pub(super) described: &'m Tensor,
    /// Rows × 2 [`SEEN`].
    pub(super) seen: &'m Tensor,
}

/// Width of the waveform's mask.
pub(super) const SEEN_WIDTH: usize = 2 * SEEN;

/// The tower over the features: rows × [`FEATURES`] to log-probabilities.
pub(super) fn describe(
    parameters: &BTreeMap<String, Tensor>,
    features: &Tensor,
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let [weight, bias] = layer(parameters, "described")?;
    let hidden = dense(features, weight, bias, true)?;
    let hidden = if let Some(mask) = mask { (hidden * mask)? } else { hidden };
    let [weight, bias] = layer(parameters, "described_out")?;
    log_softmax(&dense(&hidden, weight, bias, false)?)
}

/// The tower over the waveform: rows × [`WINDOW`] × [`CHANNELS`], of which the first `valid` samples of each row are
/// signal, to log-probabilities.
pub(super) fn see(
    parameters: &BTreeMap<String, Tensor>,
    waveform: &Tensor,
    valid: &[usize],
    mask: Option<&Tensor>,
) -> candle_core::Result<Tensor> {
    let convolution = |x: &Tensor, name: &str, stride: usize, padding: usize| {
        let [weight, bias] = layer(parameters, name)?;
        convolve(x, weight, bias, Stride { stride, padding, relu: true })
    };
    let x = convolution(waveform, "conv1", 4, 6)?;
    let x = convolution(&x, "conv2", 2, 3)?;
    let x = convolution(&x, "conv3", 2, 3)?;
    let x = (&x + convolution(&x, "conv4", 1, 1)?)?;
    let x = convolution(&x, "conv5", 2, 2)?;
    let x = (&x + convolution(&x, "conv6", 1, 1)?)?;
    let x = convolution(&x, "conv7", 2, 2)?;
    let x = (&x + convolution(&x, "conv8", 1, 1)?)?;
    let pooled = pool(&x, valid)?;
    let pooled = if let Some(mask) = mask { (pooled * mask)? } else { pooled };
    let [weight, bias] = layer(parameters, "seen_out")?;
    log_softmax(&dense(&pooled, weight, bias, false)?)
}

/// Both towers together, in use: log-probabilities of the product of what they say.
pub(super) fn agree(described: &Tensor, seen: &Tensor) -> candle_core::Result<Tensor> {
    log_softmax(&((described + seen)? * AGREEMENT)?)
}

/// Each tower speaks of the same recording: their sum would count what both saw twice.
const AGREEMENT: f64 = 0.6;

/// Mean and largest over the places that hold signal.
fn pool(x: &Tensor, valid: &[usize]) -> candle_core::Result<Tensor> {
    let rows = valid.len();
    let mut holds = vec![0.0_f32; rows * PLACES];
    let mut weigh = holds.clone();
    for (row, valid) in valid.iter().enumerate() {
        let places = valid.div_ceil(REDUCTION).clamp(1, PLACES);
        holds[row * PLACES..row * PLACES + places].fill(1.0);
        weigh[row * PLACES..row * PLACES + places].fill(1.0 / places as f32);
    }
    let tensor = |values| Tensor::from_vec(values, (rows, PLACES, 1), x.device());
    let mean = x.broadcast_mul(&tensor(weigh)?)?.sum(1)?;
    // After the rectifiers nothing is below zero.
    let most = x.broadcast_mul(&tensor(holds)?)?.max(1)?;
    Tensor::cat(&[&mean, &most], 1)
}

fn layer<'p>(
    parameters: &'p BTreeMap<String, Tensor>,
    name: &str,
) -> candle_core::Result<[&'p Tensor; 2]> {
    match (parameters.get(&format!("{name}.weight")), parameters.get(&format!("{name}.bias"))) {
        (Some(weight), Some(bias)) => Ok([weight, bias]),
        _ => candle_core::bail!("the network has no layer {name}"),
    }
}

/// The first parameter that is missing or not f32 of its shape.
pub(super) fn misfit(parameters: &BTreeMap<String, Tensor>) -> Option<&'static str> {
    let fits = |(name, shape): &(&str, &[usize])| {
        parameters
            .get(*name)
            .is_some_and(|tensor| tensor.dims() == *shape && tensor.dtype() == DType::F32)
    };
    PARAMETERS.iter().find(|parameter| !fits(parameter)).map(|(name, _)| *name)
}
