//! The network: four convolutions of stride 2 over the waveform, then two linear layers over what they
//! found and the rhythm.
//!
//! | layer | in | out | parameters |
//! |---|---|---|---|
//! | `conv1` | 2 × 195 | 16 × 95, kernel 7 | 240 |
//! | `conv2` | 16 × 95 | 32 × 45, kernel 7 | 3,616 |
//! | `conv3` | 32 × 45 | 32 × 21, kernel 5 | 5,152 |
//! | `conv4` | 32 × 21 | 32 × 9, kernel 5 | 5,152 |
//! | `hidden` | 288 + 8 | 48 | 14,256 |
//! | `output` | 48 | 5 | 245 |
//!
//! No padding; the sizes leave no remainder at stride 2. The features of `conv4` are laid out in time, not averaged over it: where a P
//! wave stands, or is missing, is what tells a supraventricular beat.

use crate::{CHANNELS, RR_FEATURES, SEGMENT_SAMPLES};
use candle_core::{D, Tensor};
use std::collections::BTreeMap;

const STRIDE: usize = 2;
const FEATURES: usize = 32 * 9;
const HIDDEN: usize = 48;

/// Name and shape of each parameter.
pub(crate) const PARAMETERS: [(&str, &[usize]); 12] = [
    ("conv1.weight", &[16, CHANNELS, 7]),
    ("conv1.bias", &[16]),
    ("conv2.weight", &[32, 16, 7]),
    ("conv2.bias", &[32]),
    ("conv3.weight", &[32, 32, 5]),
    ("conv3.bias", &[32]),
    ("conv4.weight", &[32, 32, 5]),
    ("conv4.bias", &[32]),
    ("hidden.weight", &[HIDDEN, FEATURES + RR_FEATURES]),
    ("hidden.bias", &[HIDDEN]),
    ("output.weight", &[5, HIDDEN]),
    ("output.bias", &[5]),
];

/// The parameters by name. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Network(BTreeMap<&'static str, Tensor>);

impl Network {
    /// From tensors by name.
    ///
    /// # Errors
    /// The name of the first that is missing, too many, or not f32 of its shape.
    pub(crate) fn new(mut tensors: BTreeMap<String, Tensor>) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        for (name, shape) in PARAMETERS {
            match tensors.remove(name) {
                Some(tensor)
                    if tensor.dims() == shape && tensor.dtype() == candle_core::DType::F32 =>
                {
                    parameters.insert(name, tensor);
                }
                _ => return Err(name.into()),
            }
        }
        match tensors.pop_first() {
            Some((name, _)) => Err(name),
            None => Ok(Self(parameters)),
        }
    }

    /// The scores before the softmax: `waveform` is batch × channels × samples, `rr` batch × features,
    /// `mask` (batch × features, in training only) multiplies what goes into the linear layers.
    pub(crate) fn forward(
        &self,
        waveform: &Tensor,
        rr: &Tensor,
        mask: Option<&Tensor>,
    ) -> candle_core::Result<Tensor> {
        let x = self.convolve("conv1.weight", "conv1.bias", waveform)?;
        let x = self.convolve("conv2.weight", "conv2.bias", &x)?;
        let x = self.convolve("conv3.weight", "conv3.bias", &x)?;
        let x = self.convolve("conv4.weight", "conv4.bias", &x)?;
        let x = Tensor::cat(&[&x.flatten_from(1)?, rr], 1)?;
        let x = match mask {
            Some(mask) => (x * mask)?,
            None => x,
        };
        let x = self.linear("hidden.weight", "hidden.bias", &x)?.relu()?;
        self.linear("output.weight", "output.bias", &x)
    }

    fn convolve(&self, weight: &str, bias: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let (kernel, bias) = (&self.0[weight], self.0[bias].reshape((1, (), 1))?);
        let sums = if x.track_op() || kernel.track_op() {
            unfolded(x, kernel)?
        } else {
            x.conv1d(kernel, 0, STRIDE, 1, 1)?
        };
        sums.broadcast_add(&bias)?.relu()
    }

    fn linear(&self, weight: &str, bias: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        x.matmul(&self.0[weight].t()?)?.broadcast_add(&self.0[bias])
    }
}

/// The convolution as slices and one product, for gradients.
///
/// candle 0.11.1 computes both gradients of its own `conv1d` wrongly on the CPU for more than one input in the
/// batch: by the kernel, since a kernel that is not contiguous is copied and then not used; by the
/// input, since `MatMul::f` stacks the batch's matrices into one though they are transposed. The forward
/// way of contiguous tensors is right, and faster than this.
fn unfolded(x: &Tensor, kernel: &Tensor) -> candle_core::Result<Tensor> {
    let (batch, channels, samples) = x.dims3()?;
    let (out, _, taps) = kernel.dims3()?;
    let length = (samples - taps) / STRIDE + 1;
    let pairs = x.pad_with_zeros(2, 0, samples % STRIDE)?;
    let pairs = pairs.reshape((batch, channels, (), STRIDE))?;
    let slices = (0..taps)
        .map(|tap| pairs.narrow(3, tap % STRIDE, 1)?.squeeze(3)?.narrow(2, tap / STRIDE, length))
        .collect::<candle_core::Result<Vec<_>>>()?;
    let columns = Tensor::stack(&slices, 3)?.transpose(1, 2)?.contiguous()?;
    let columns = columns.reshape((batch * length, channels * taps))?;
    let kernel = kernel.reshape((out, channels * taps))?.t()?;
    columns.matmul(&kernel)?.reshape((batch, length, out))?.transpose(1, 2)
}

/// The width of what the `mask` of [`Network::forward`] multiplies.
pub(crate) const MASK_WIDTH: usize = FEATURES + RR_FEATURES;
/// How much of it is the rhythm, at the end.
pub(crate) const MASK_RHYTHM: usize = RR_FEATURES;

/// Logarithms of the classes' probabilities.
pub(crate) fn log_softmax(scores: &Tensor) -> candle_core::Result<Tensor> {
    let largest = scores.max_keepdim(D::Minus1)?.detach();
    let shifted = scores.broadcast_sub(&largest)?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?;
    shifted.broadcast_sub(&sum.log()?)
}

/// The scores of one call's shape must follow from the constants of the inputs.
const _: () = {
    const fn out(samples: usize, kernel: usize) -> usize {
        assert!((samples - kernel).is_multiple_of(STRIDE));
        (samples - kernel) / STRIDE + 1
    }
    assert!(32 * out(out(out(out(SEGMENT_SAMPLES, 7), 7), 5), 5) == FEATURES);
};

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_convolutions_agree() {
        for (samples, taps) in [(SEGMENT_SAMPLES, 7), (45, 5), (46, 5)] {
            let x = Tensor::randn(0.0_f32, 1.0, (3, 4, samples), &Device::Cpu).unwrap();
            let kernel = Tensor::randn(0.0_f32, 1.0, (6, 4, taps), &Device::Cpu).unwrap();
            let theirs = x.conv1d(&kernel, 0, STRIDE, 1, 1).unwrap();
            let ours = unfolded(&x, &kernel).unwrap();
            assert_eq!(ours.dims(), theirs.dims());
            let off = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-4);
        }
    }
}
