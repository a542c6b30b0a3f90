//! Convolution over time, and dense layers, faster than candle's own and with right gradients.
//!
//! candle 0.11.1 multiplies its convolutions through general machinery (half as fast as ONNX Runtime on small networks) and
//! computes both gradients of `conv1d` wrongly on the CPU for more than one input in the batch. Here samples are laid
//! out *channels last*, so that the window under the kernel is one piece of memory and a convolution is a
//! product of overlapping rows with the kernel; bias and rectifier go along.
//!
//! - [`Convolution`]: fixed weights, packed once. For use and for gradients by the input (attribution).
//! - [`convolve`]: weights that are tensors, with gradients by input, kernel and bias. For training.
//!
//! Both give the same bits, and the same for an input alone and at every place of a batch. Everything runs on the
//! calling thread.
//!
//! # Layout
//! Inputs are batch × length × channels, outputs batch × length' × channels' with
//! `length' = (length + 2 padding - taps) / stride + 1`; the kernel is out × in × taps as candle, PyTorch and ONNX have it.
//! With one channel, batch × 1 × length and batch × length × 1 are the same memory: reshape is enough.

use crate::product::{Left, Panels, product};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Device, Layout, Result, Shape, Tensor, bail};
use pulp::Arch;
use std::sync::Arc;

/// How a kernel goes over its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stride {
    /// Samples from one place of the kernel to the next, at least 1.
    pub stride: usize,
    /// Zeros before and behind the input.
    pub padding: usize,
    /// Whether what comes out below zero is cut off. NaN stays NaN.
    pub relu: bool,
}

/// A convolution, or a dense layer, with fixed weights. Cheap to clone: the weights are shared.
#[derive(Clone, Debug)]
pub struct Convolution(Arc<Fixed>);

#[derive(Debug)]
struct Fixed {
    shape: Kernel,
    bias: Vec<f32>,
    /// (tap, in) × out.
    forward: Panels,
    /// out × (tap, in).
    backward: Panels,
}

impl Convolution {
    /// From a kernel of out × in × taps and a bias by output.
    ///
    /// # Errors
    /// If the shapes do not fit or are not f32, or the stride is 0.
    pub fn new(kernel: &Tensor, bias: &Tensor, stride: Stride) -> Result<Self> {
        let (outputs, inputs, taps) = kernel.dims3()?;
        let shape = Kernel::new(outputs, inputs, taps, bias.dims(), stride)?;
        let kernel = kernel.flatten_all()?.to_vec1::<f32>()?;
        let (forward, backward) = (shape.forward(&kernel), shape.backward(&kernel));
        Ok(Self(Arc::new(Fixed { shape, bias: bias.to_vec1()?, forward, backward })))
    }

    /// A dense layer from a weight of out × in and a bias by output; see [`Convolution::apply_dense`].
    ///
    /// # Errors
    /// If the shapes do not fit or are not f32.
    pub fn dense(weight: &Tensor, bias: &Tensor, relu: bool) -> Result<Self> {
        Self::new(&weight.unsqueeze(2)?, bias, Stride { stride: 1, padding: 0, relu })
    }

    /// batch × length × channels to batch × length' × channels'.
    ///
    /// # Errors
    /// If the channels are others, or the input is shorter than the kernel.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if x.track_op() { x.apply_op1(self.clone()) } else { x.apply_op1_no_bwd(self) }
    }

    /// Rows × inputs to rows × outputs, for a kernel of one tap.
    ///
    /// # Errors
    /// If there are other inputs than the weights are for.
    pub fn apply_dense(&self, x: &Tensor) -> Result<Tensor> {
        self.apply(&x.unsqueeze(0)?)?.squeeze(0)
    }
}

/// [`Convolution`] with weights that are learned: gradients by input, kernel (out × in × taps) and bias.
///
/// # Errors
/// If shapes do not fit or are not f32, or the stride is 0.
pub fn convolve(x: &Tensor, kernel: &Tensor, bias: &Tensor, stride: Stride) -> Result<Tensor> {
    x.contiguous()?.apply_op3(&kernel.contiguous()?, &bias.contiguous()?, Learned(stride))
}

/// [`Convolution::dense`] with weights that are learned: rows × in by out × in to rows × out.
///
/// # Errors
/// If shapes do not fit or are not f32.
pub fn dense(x: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    let stride = Stride { stride: 1, padding: 0, relu };
    convolve(&x.unsqueeze(0)?, &weight.unsqueeze(2)?, bias, stride)?.squeeze(0)
}

/// The mean over the length: batch × length × channels to batch × channels.
///
/// # Errors
/// If it is not f32 with three extents, or the length is 0.
pub fn mean_over_length(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(MeanOverLength)
}

struct Learned(Stride);

struct MeanOverLength;

impl CustomOp1 for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Fixed { shape, bias, forward, .. } = &*self.0;
        let sizes = shape.sizes(layout.shape())?;
        let out = run(sizes, values(x, layout)?, forward, bias);
        Ok((CpuStorage::F32(out), sizes.out_shape()))
    }

    fn bwd(&self, x: &Tensor, out: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let Fixed { shape, backward, .. } = &*self.0;
        let sizes = shape.sizes(x.shape())?;
        let gradient = rectified(sizes, out, gradient)?;
        Ok(Some(by_input(sizes, &gradient, backward, x.shape())?))
    }
}

impl CustomOp1 for MeanOverLength {
    fn name(&self) -> &'static str {
        "mean over length"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, length, channels) = layout.shape().dims3()?;
        if length * channels == 0 {
            bail!("{:?} (batch, length, channels) has no mean over its length", layout.shape());
        }
        let mut out = vec![0.0; batch * channels];
        let each = values(x, layout)?.chunks_exact(length * channels);
        for (means, x) in out.chunks_exact_mut(channels).zip(each) {
            for row in x.chunks_exact(channels) {
                means.iter_mut().zip(row).for_each(|(mean, value)| *mean += value);
            }
            means.iter_mut().for_each(|mean| *mean /= length as f32);
        }
        Ok((CpuStorage::F32(out), (batch, channels).into()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let length = x.dim(1)? as f64;
        Ok(Some((gradient.unsqueeze(1)? / length)?.broadcast_as(x.shape())?.contiguous()?))
    }
}

impl CustomOp3 for Learned {
    fn name(&self) -> &'static str {
        "learned convolution"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        kernel: &CpuStorage,
        kernel_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs, taps) = kernel_layout.shape().dims3()?;
        let shape = Kernel::new(outputs, inputs, taps, bias_layout.dims(), self.0)?;
        let sizes = shape.sizes(x_layout.shape())?;
        let forward = shape.forward(values(kernel, kernel_layout)?);
        let out = run(sizes, values(x, x_layout)?, &forward, values(bias, bias_layout)?);
        Ok((CpuStorage::F32(out), sizes.out_shape()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        kernel: &Tensor,
        bias: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs, taps) = kernel.dims3()?;
        let shape = Kernel::new(outputs, inputs, taps, bias.dims(), self.0)?;
        let sizes = shape.sizes(x.shape())?;
        let gradient = rectified(sizes, out, gradient)?;
        let by_x = if x.track_op() {
            let backward = shape.backward(&kernel.flatten_all()?.to_vec1::<f32>()?);
            Some(by_input(sizes, &gradient, &backward, x.shape())?)
        } else {
            None
        };
        let by_kernel = by_kernel(sizes, &x.flatten_all()?.to_vec1::<f32>()?, &gradient);
        let by_kernel = Tensor::from_vec(by_kernel, kernel.shape(), &Device::Cpu)?;
        let mut by_bias = vec![0.0; outputs];
        for row in gradient.chunks_exact(outputs) {
            for (sum, value) in by_bias.iter_mut().zip(row) {
                *sum += value;
            }
        }
        Ok((by_x, Some(by_kernel), Some(Tensor::from_vec(by_bias, outputs, &Device::Cpu)?)))
    }
}

/// Shape of a kernel, and how it goes over the input.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    outputs: usize,
    inputs: usize,
    taps: usize,
    stride: Stride,
}

impl Kernel {
    fn new(
        outputs: usize,
        inputs: usize,
        taps: usize,
        bias: &[usize],
        stride: Stride,
    ) -> Result<Self> {
        if bias != [outputs] || outputs * inputs * taps * stride.stride == 0 {
            bail!(
                "a kernel of {outputs} x {inputs} x {taps} with a bias of {bias:?} and {stride:?}"
            );
        }
        Ok(Self { outputs, inputs, taps, stride })
    }

    /// Values under the kernel at one place.
    const fn window(&self) -> usize {
        self.taps * self.inputs
    }

    /// Where the weight of `output` by (tap, input) stands in out × in × taps.
    const fn place(&self, output: usize, under: usize) -> usize {
        (output * self.inputs + under % self.inputs) * self.taps + under / self.inputs
    }

    fn forward(&self, kernel: &[f32]) -> Panels {
        Panels::new(self.window(), self.outputs, |under, out| kernel[self.place(out, under)])
    }

    fn backward(&self, kernel: &[f32]) -> Panels {
        Panels::new(self.outputs, self.window(), |out, under| kernel[self.place(out, under)])
    }

    fn sizes(self, shape: &Shape) -> Result<Sizes> {
        let (batch, length, inputs) = shape.dims3()?;
        let padded = length + 2 * self.stride.padding;
        if inputs != self.inputs || padded < self.taps {
            bail!(
                "a convolution of {} taps over {} channels was given {shape:?} (batch, length, channels)",
                self.taps,
                self.inputs
            );
        }
        let places = (padded - self.taps) / self.stride.stride + 1;
        Ok(Sizes { kernel: self, batch, length, padded, places })
    }
}

/// A kernel before an input.
#[derive(Clone, Copy)]
struct Sizes {
    kernel: Kernel,
    batch: usize,
    length: usize,
    padded: usize,
    places: usize,
}

impl Sizes {
    fn out_shape(&self) -> Shape {
        (self.batch, self.places, self.kernel.outputs).into()
    }

    /// What one place of the kernel sees, place by place.
    fn windows<'a>(&self, padded: &'a [f32]) -> Left<'a> {
        Left {
            values: padded,
            rows: self.places,
            row_step: self.kernel.stride.stride * self.kernel.inputs,
            inner: self.kernel.window(),
            inner_step: 1,
        }
    }

    /// Calls `f` with each input of the batch, zeros around it.
    fn each_padded(&self, x: &[f32], mut f: impl FnMut(usize, &[f32])) {
        let Kernel { inputs, stride, .. } = self.kernel;
        let before = stride.padding * inputs;
        let mut padded = vec![0.0; if before > 0 { self.padded * inputs } else { 0 }];
        for (at, x) in x.chunks_exact((self.length * inputs).max(1)).enumerate() {
            if before > 0 {
                padded[before..before + x.len()].copy_from_slice(x);
                f(at, &padded);
            } else {
                f(at, x);
            }
        }
    }
}

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("a convolution wants its inputs contiguous"),
    }
}

fn run(sizes: Sizes, x: &[f32], forward: &Panels, bias: &[f32]) -> Vec<f32> {
    let arch = Arch::new();
    let (each, relu) = (sizes.places * sizes.kernel.outputs, sizes.kernel.stride.relu);
    let mut out = vec![0.0; sizes.batch * each];
    sizes.each_padded(x, |at, x| {
        let out = &mut out[at * each..(at + 1) * each];
        product(arch, sizes.windows(x), forward, Some(bias), relu, out);
    });
    out
}

/// The gradient of what came before the rectifier.
fn rectified(sizes: Sizes, out: &Tensor, gradient: &Tensor) -> Result<Vec<f32>> {
    let mut gradient = gradient.flatten_all()?.to_vec1::<f32>()?;
    if sizes.kernel.stride.relu {
        for (gradient, out) in gradient.iter_mut().zip(out.flatten_all()?.to_vec1::<f32>()?) {
            if out <= 0.0 {
                *gradient = 0.0;
            }
        }
    }
    Ok(gradient)
}

fn by_input(sizes: Sizes, gradient: &[f32], backward: &Panels, shape: &Shape) -> Result<Tensor> {
    let Kernel { inputs, outputs, stride, .. } = sizes.kernel;
    let (arch, window) = (Arch::new(), sizes.kernel.window());
    let mut all = Vec::with_capacity(sizes.batch * sizes.length * inputs);
    let mut windows = vec![0.0; sizes.places * window];
    let mut padded = vec![0.0; sizes.padded * inputs];
    for gradient in gradient.chunks_exact(sizes.places * outputs) {
        let left = Left {
            values: gradient,
            rows: sizes.places,
            row_step: outputs,
            inner: outputs,
            inner_step: 1,
        };
        product(arch, left, backward, None, false, &mut windows);
        padded.fill(0.0);
        for (place, window) in windows.chunks_exact(window).enumerate() {
            let under = &mut padded[place * stride.stride * inputs..];
            for (sum, value) in under.iter_mut().zip(window) {
                *sum += value;
            }
        }
        let before = stride.padding * inputs;
        all.extend_from_slice(&padded[before..before + sizes.length * inputs]);
    }
    Tensor::from_vec(all, shape, &Device::Cpu)
}

fn by_kernel(sizes: Sizes, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Kernel { inputs, outputs, stride, .. } = sizes.kernel;
    let (arch, window) = (Arch::new(), sizes.kernel.window());
    let mut sums = vec![0.0; window * outputs];
    let mut one = sums.clone();
    sizes.each_padded(x, |at, x| {
        let gradient = &gradient[at * sizes.places * outputs..];
        let right =
            Panels::new(sizes.places, outputs, |place, out| gradient[place * outputs + out]);
        let left = Left {
            values: x,
            rows: window,
            row_step: 1,
            inner: sizes.places,
            inner_step: stride.stride * inputs,
        };
        product(arch, left, &right, None, false, &mut one);
        for (sum, value) in sums.iter_mut().zip(&one) {
            *sum += value;
        }
    });
    let mut kernel = vec![0.0; sums.len()];
    for (at, value) in sums.into_iter().enumerate() {
        kernel[sizes.kernel.place(at % outputs, at / outputs)] = value;
    }
    kernel
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(seed: u64, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values = (0..shape.elem_count()).map(|_| rng.random_range(-1.0_f32..1.0)).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn list(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn theirs(x: &Tensor, kernel: &Tensor, bias: &Tensor, how: Stride) -> Tensor {
        let x = x.transpose(1, 2).unwrap().contiguous().unwrap();
        let y = x.conv1d(kernel, how.padding, how.stride, 1, 1).unwrap();
        let y = y.broadcast_add(&bias.reshape((1, (), 1)).unwrap()).unwrap();
        let y = if how.relu { y.relu().unwrap() } else { y };
        y.transpose(1, 2).unwrap().contiguous().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn it_is_candles_convolution(
            seed: u64, batch in 1_usize..5, extra in 0_usize..30, inputs in 1_usize..20, outputs in 1_usize..40,
            taps in 1_usize..8, stride in 1_usize..4, padding in 0_usize..4, relu: bool,
        ) {
            let how = Stride { stride, padding, relu };
            let x = random(seed, (batch, taps + extra, inputs));
            let (kernel, bias) = (random(!seed, (outputs, inputs, taps)), random(seed ^ 7, outputs));
            let ours = Convolution::new(&kernel, &bias, how).unwrap();
            let out = ours.apply(&x).unwrap();
            let theirs = theirs(&x, &kernel, &bias, how);
            prop_assert_eq!(out.dims(), theirs.dims());
            for (a, b) in list(&out).iter().zip(list(&theirs)) {
                prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
            }
            prop_assert_eq!(list(&convolve(&x, &kernel, &bias, how).unwrap()), list(&out));
            for row in 0..batch {
                let alone = ours.apply(&x.narrow(0, row, 1).unwrap()).unwrap();
                prop_assert_eq!(list(&alone), list(&out.narrow(0, row, 1).unwrap()));
            }
        }
    }

    /// Without the rectifier the output is linear in each part, so a whole step's difference is the slope.
    #[test]
    fn gradients_are_slopes() {
        let how = Stride { stride: 2, padding: 3, relu: false };
        let start = [random(1, (3, 21, 4)), random(2, (9, 4, 7)), random(3, 9)];
        let weigh = random(4, (3, 11, 9));
        let vars = start.clone().map(|part| Var::from_tensor(&part).unwrap());
        let gradients = |relu: bool, fused: bool| {
            let y = convolve(&vars[0], &vars[1], &vars[2], Stride { relu: relu && fused, ..how });
            let y = if relu && !fused { y.unwrap().relu() } else { y };
            let gradients = (y.unwrap() * &weigh).unwrap().sum_all().unwrap().backward().unwrap();
            vars.clone().map(|var| gradients.get(&var).unwrap().clone())
        };
        let linear = gradients(false, false);
        for at in 0..3 {
            let direction = random(10 + at as u64, start[at].shape());
            let slope = (&linear[at] * &direction).unwrap().sum_all().unwrap();
            let moved = |sign: f64| {
                let mut parts = start.clone();
                parts[at] = (&parts[at] + (&direction * sign).unwrap()).unwrap();
                let y = convolve(&parts[0], &parts[1], &parts[2], how).unwrap();
                (y * &weigh).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
            };
            let slope = slope.to_scalar::<f32>().unwrap();
            let measured = (moved(1.0) - moved(-1.0)) / 2.0;
            assert!((slope - measured).abs() < 1e-3 * slope.abs().max(1.0), "{slope} {measured}");
        }
        let (fused, apart) = (gradients(true, true), gradients(true, false));
        for (fused, apart) in fused.iter().zip(&apart) {
            assert_eq!(list(fused), list(apart));
        }
        // Fixed weights give the same gradient by the input.
        let fixed = Convolution::new(&start[1], &start[2], Stride { relu: true, ..how }).unwrap();
        let y = (fixed.apply(&vars[0]).unwrap() * &weigh).unwrap().sum_all().unwrap();
        assert_eq!(list(y.backward().unwrap().get(&vars[0]).unwrap()), list(&fused[0]));
    }

    #[test]
    fn a_dense_layer_is_a_product() {
        let (x, weight, bias) = (random(1, (7, 20)), random(2, (5, 20)), random(3, 5));
        let theirs =
            x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap().relu().unwrap();
        let ours = Convolution::dense(&weight, &bias, true).unwrap().apply_dense(&x).unwrap();
        for (a, b) in list(&ours).iter().zip(list(&theirs)) {
            assert!((a - b).abs() < 1e-4);
        }
        assert_eq!(list(&dense(&x, &weight, &bias, true).unwrap()), list(&ours));
    }

    #[test]
    fn the_mean_is_candles() {
        let x = Var::from_tensor(&random(1, (3, 7, 5))).unwrap();
        let weigh = random(2, (3, 5));
        let (ours, theirs) = (mean_over_length(&x).unwrap(), x.mean(1).unwrap());
        let gradient = |mean: &Tensor| {
            let gradients = (mean * &weigh).unwrap().sum_all().unwrap().backward().unwrap();
            list(gradients.get(&x).unwrap())
        };
        let pairs = list(&ours).into_iter().zip(list(&theirs));
        for (a, b) in pairs.chain(gradient(&ours).into_iter().zip(gradient(&theirs))) {
            assert!((a - b).abs() < 1e-6);
        }
        assert!(mean_over_length(&random(1, (3, 0, 5))).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let how = Stride { stride: 1, padding: 0, relu: false };
        let (kernel, bias) = (random(1, (4, 2, 3)), random(2, 4));
        let layer = Convolution::new(&kernel, &bias, how).unwrap();
        assert!(layer.apply(&random(3, (1, 9, 3))).is_err());
        assert!(layer.apply(&random(3, (1, 2, 2))).is_err());
        assert!(Convolution::new(&kernel, &random(2, 5), how).is_err());
        assert!(Convolution::new(&kernel, &bias, Stride { stride: 0, ..how }).is_err());
    }
}
