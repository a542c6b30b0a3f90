//! The network: three convolutions of stride 2 over each lead, the mean over the leads, and two dense layers over what they
//! found and the numbers.
//!
//! | layer | in | out | parameters |
//! |---|---|---|---|
//! | `conv1` | 98 × 2 | 46 × 12, kernel 7 | 180 |
//! | `conv2` | 46 × 12 | 21 × 24, kernel 5 | 1,464 |
//! | `conv3` | 21 × 24 | 9 × 24, kernel 5 | 2,904 |
//! | `lead` | 216 | 24 | 5,208 |
//! | `numbers` | 35 | 32 | 1,152 |
//! | `hidden` | 24 + 32 | 32 | 1,824 |
//! | `output` | 32 | 5 | 165 |
//!
//! Leads share their weights: none is asked which one it is. The features of `conv3` are laid out in time, not averaged
//! over it: where a P wave stands, or is missing, is what tells a supraventricular beat.

use super::input::{BeatInput, CHANNELS, LEADS_MAX, NUMBERS, SEGMENT_SAMPLES};
use crate::conv::{Convolution, Stride, convolve, dense};
use candle_core::{D, Device, Result, Tensor};
use std::collections::BTreeMap;

const FLAT: usize = 9 * 24;
const LEAD: usize = 24;
const HIDDEN: usize = 32;
const CONVOLVE: Stride = Stride { stride: 2, padding: 0, relu: true };

/// What `mask` of [`Network::forward`] multiplies: what the leads say, then what the numbers say.
pub(super) const MASK_WIDTH: usize = LEAD + HIDDEN;

/// Name and shape of each parameter.
pub(super) const PARAMETERS: [(&str, &[usize]); 14] = [
    ("conv1.weight", &[12, CHANNELS, 7]),
    ("conv1.bias", &[12]),
    ("conv2.weight", &[24, 12, 5]),
    ("conv2.bias", &[24]),
    ("conv3.weight", &[24, 24, 5]),
    ("conv3.bias", &[24]),
    ("lead.weight", &[LEAD, FLAT]),
    ("lead.bias", &[LEAD]),
    ("numbers.weight", &[HIDDEN, NUMBERS]),
    ("numbers.bias", &[HIDDEN]),
    ("hidden.weight", &[HIDDEN, LEAD + HIDDEN]),
    ("hidden.bias", &[HIDDEN]),
    ("output.weight", &[5, HIDDEN]),
    ("output.bias", &[5]),
];

const LAYERS: [(&str, Kind); 7] = [
    ("conv1", Kind::Convolution),
    ("conv2", Kind::Convolution),
    ("conv3", Kind::Convolution),
    ("lead", Kind::Dense { relu: true }),
    ("numbers", Kind::Dense { relu: true }),
    ("hidden", Kind::Dense { relu: true }),
    ("output", Kind::Dense { relu: false }),
];

#[derive(Clone, Copy)]
enum Kind {
    Convolution,
    Dense { relu: bool },
}

/// The layers. Cloning shares the weights.
#[derive(Clone, Debug)]
pub(super) struct Network(Vec<Layer>);

#[derive(Clone, Debug)]
enum Layer {
    Fixed(Convolution),
    Learned { weight: Tensor, bias: Tensor },
}

/// What a network is given, batch first.
pub(super) struct Batch {
    /// (batch × leads) × samples × channels.
    pub(super) waveform: Tensor,
    /// batch × leads: what a lead counts; the sum of a row is 1.
    pub(super) leads: Tensor,
    /// batch × numbers.
    pub(super) numbers: Tensor,
}

impl Batch {
    pub(super) fn new(inputs: &[BeatInput]) -> Result<Self> {
        let rows = inputs.len();
        let waveform: Vec<f32> = inputs.iter().flat_map(|input| &input.waveform).copied().collect();
        let numbers: Vec<f32> = inputs.iter().flat_map(|input| input.numbers).collect();
        let mut leads = Vec::with_capacity(rows * LEADS_MAX);
        for input in inputs {
            let count = input.leads.iter().filter(|there| **there).count().max(1) as f32;
            leads.extend(input.leads.map(|there| if there { 1.0 / count } else { 0.0 }));
        }
        let shape = (rows * LEADS_MAX, SEGMENT_SAMPLES, CHANNELS);
        Ok(Self {
            waveform: Tensor::from_vec(waveform, shape, &Device::Cpu)?,
            leads: Tensor::from_vec(leads, (rows, LEADS_MAX), &Device::Cpu)?,
            numbers: Tensor::from_vec(numbers, (rows, NUMBERS), &Device::Cpu)?,
        })
    }
}

impl Network {
    /// For use: the weights are packed once.
    pub(super) fn fixed(parameters: &BTreeMap<&'static str, Tensor>) -> Result<Self> {
        Self::build(
            |name| parameters.get(name),
            |weight, bias, kind| {
                Ok(Layer::Fixed(match kind {
                    Kind::Convolution => Convolution::new(weight, bias, CONVOLVE)?,
                    Kind::Dense { relu } => Convolution::dense(weight, bias, relu)?,
                }))
            },
        )
    }

    /// For training: gradients by the weights.
    pub(super) fn learned(parameters: &BTreeMap<String, Tensor>) -> Result<Self> {
        Self::build(
            |name| parameters.get(name),
            |weight, bias, _| Ok(Layer::Learned { weight: weight.clone(), bias: bias.clone() }),
        )
    }

    fn build<'p>(
        parameter: impl Fn(&str) -> Option<&'p Tensor>,
        layer: impl Fn(&Tensor, &Tensor, Kind) -> Result<Layer>,
    ) -> Result<Self> {
        let named = |name: String| {
            parameter(&name)
                .ok_or_else(|| candle_core::Error::Msg(format!("the network has no `{name}`")))
        };
        LAYERS
            .iter()
            .map(|(name, kind)| {
                layer(named(format!("{name}.weight"))?, named(format!("{name}.bias"))?, *kind)
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The scores before the softmax, batch × 5. `mask` (batch × [`MASK_WIDTH`], in training only) multiplies what goes
    /// into the last but one layer.
    pub(super) fn forward(&self, batch: &Batch, mask: Option<&Tensor>) -> Result<Tensor> {
        let rows = batch.numbers.dim(0)?;
        let mut x = batch.waveform.clone();
        for layer in 0..3 {
            x = self.apply(layer, &x)?;
        }
        let x = self.apply(3, &x.reshape((rows * LEADS_MAX, FLAT))?)?;
        let x = x.reshape((rows, LEADS_MAX, LEAD))?;
        let lead = |at: usize| -> Result<Tensor> {
            x.narrow(1, at, 1)?.squeeze(1)?.broadcast_mul(&batch.leads.narrow(1, at, 1)?)
        };
        let x = (1..LEADS_MAX).try_fold(lead(0)?, |sum, at| sum + lead(at)?)?;
        let x = Tensor::cat(&[&x, &self.apply(4, &batch.numbers)?], 1)?;
        let x = match mask {
            Some(mask) => (x * mask)?,
            None => x,
        };
        self.apply(6, &self.apply(5, &x)?)
    }

    fn apply(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        match (&self.0[layer], LAYERS[layer].1) {
            (Layer::Fixed(layer), Kind::Convolution) => layer.apply(x),
            (Layer::Fixed(layer), Kind::Dense { .. }) => layer.apply_dense(x),
            (Layer::Learned { weight, bias }, Kind::Convolution) => {
                convolve(x, weight, bias, CONVOLVE)
            }
            (Layer::Learned { weight, bias }, Kind::Dense { relu }) => dense(x, weight, bias, relu),
        }
    }
}

/// Logarithms of the classes' probabilities.
pub(crate) fn log_softmax(scores: &Tensor) -> Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let shifted = scores.broadcast_sub(&largest)?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?;
    shifted.broadcast_sub(&sum.log()?)
}
