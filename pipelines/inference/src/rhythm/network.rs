//! The two towers of a member: forests over the features, a network over the waveform. Their log-probabilities are
//! added.
//!
//! There is a forest ([`crate::trees`]) for each class against the rest. The network:
//!
//! | layer | in | out | parameters |
//! |---|---|---|---|
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

use super::input::{FEATURES, WINDOW};
use crate::conv::{Stride, convolve, dense};
use crate::training::log_softmax;
use crate::trees::{Forest, ForestError};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// Channels of the waveform: millivolts over the height of the R peak, and the interval to the next beat.
pub(super) const CHANNELS: usize = 2;
/// Classes that come out.
pub(super) const CLASSES: usize = 4;
/// Samples of the waveform for one place of the last layer.
const REDUCTION: usize = 64;
/// Places of the last layer.
const PLACES: usize = WINDOW.div_ceil(REDUCTION);
const SEEN: usize = 48;

/// Name and shape of each parameter.
pub(super) const PARAMETERS: [(&str, &[usize]); 18] = [
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

/// Width of the waveform's mask.
pub(super) const SEEN_WIDTH: usize = 2 * SEEN;

/// What the forests of the classes say, from the log-odds of each against the rest (rows × classes): the
/// logarithms of their probabilities, brought to a sum of 1.
pub(super) fn describe(margins: &Tensor) -> candle_core::Result<Tensor> {
    log_softmax(&(margins.neg()?.exp()? + 1.0)?.log()?.neg()?)
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

/// The network out of a member's tensors, as f32; the name of the first that is missing or of another shape.
pub(super) fn take_parameters(
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, String> {
    let take = |(name, shape): &(&str, &[usize])| {
        let tensor = tensors.remove(*name).filter(|tensor| tensor.dims() == *shape);
        let tensor = tensor.and_then(|tensor| tensor.to_dtype(DType::F32).ok());
        Ok(((*name).to_owned(), tensor.ok_or_else(|| (*name).to_owned())?))
    };
    PARAMETERS.iter().map(take).collect()
}

/// The network's tensors as they are kept: in half precision, which is half the size and no different in use.
pub(super) fn kept(
    parameters: BTreeMap<String, Tensor>,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    parameters.into_iter().map(|(name, tensor)| Ok((name, tensor.to_dtype(DType::F16)?))).collect()
}

/// The tensors of a class's forest, by the names they have in a member.
pub(super) fn forest_tensors(
    class: usize,
    forest: &Forest,
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let named = |(name, tensor)| (format!("class{class}.{name}"), tensor);
    Ok(forest.tensors()?.into_iter().map(named).collect())
}

/// A class's forest out of a member's tensors.
pub(super) fn take_forest(
    class: usize,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Forest, ForestError> {
    let prefix = format!("class{class}.");
    let own: Vec<String> =
        tensors.keys().filter(|name| name.starts_with(&prefix)).cloned().collect();
    let mut forest = BTreeMap::new();
    for name in own {
        if let Some(tensor) = tensors.remove(&name) {
            forest.insert(name[prefix.len()..].to_owned(), tensor);
        }
    }
    Forest::take_from(&mut forest, FEATURES)
}
