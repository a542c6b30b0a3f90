//! Why a network said what it said: integrated gradients.
//!
//! Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017. The gradient of a scalar output is
//! averaged along the straight line from a baseline to the input and multiplied by the way gone. What each
//! input gets adds up to the difference of the outputs at both ends, up to the error of the average: the number of points
//! is doubled until that is below [`TOLERANCE`].

use candle_core::{Tensor, Var};

/// The most points on the line.
pub const MAX_POINTS: usize = 4096;

/// How far the sum may be off, as a share of the difference (of at least 0.1).
pub const TOLERANCE: f64 = 0.005;

const POINTS_FIRST: usize = 32;
/// Points in one call of the network.
const ROWS: usize = 32;

/// What each input contributed.
#[derive(Clone, PartialEq, Debug)]
pub struct Explained {
    /// By input tensor, then by element in its own order: how much it speaks for (positive) or against.
    pub shares: Vec<Vec<f32>>,
    /// The output at the input.
    pub output: f32,
    /// The output at the baseline.
    pub neutral: f32,
}

impl Explained {
    /// What all inputs got together; `output - neutral` up to [`TOLERANCE`].
    pub fn sum(&self) -> f64 {
        self.shares.iter().flatten().map(|share| f64::from(*share)).sum()
    }

    /// Whether the shares add up as promised.
    pub fn is_complete(&self) -> bool {
        let difference = f64::from(self.output) - f64::from(self.neutral);
        (self.sum() - difference).abs() <= TOLERANCE * difference.abs().max(0.1)
    }
}

/// Explains the scalar function `f` at `inputs` against `baselines`, tensors of equal shapes without a batch extent.
///
/// `f` is given the same tensors with a batch extent in front (32 points, or 2 at the ends) and returns one number
/// for each; it must be differentiable by candle, and its rows must not mix. If [`MAX_POINTS`] were not enough the result says so
/// by [`Explained::is_complete`].
///
/// # Errors
/// If `f` fails, or the shapes differ.
pub fn integrated_gradients(
    inputs: &[Tensor],
    baselines: &[Tensor],
    f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Explained> {
    let ends: Vec<Tensor> = inputs
        .iter()
        .zip(baselines)
        .map(|(input, baseline)| Tensor::stack(&[input, baseline], 0))
        .collect::<candle_core::Result<_>>()?;
    let ends = f(&ends)?.to_vec1::<f32>()?;
    let (&[output, neutral], true) = (ends.as_slice(), inputs.len() == baselines.len()) else {
        candle_core::bail!("a function to be explained gives one number for each row");
    };
    let mut points = POINTS_FIRST;
    loop {
        let shares = line(inputs, baselines, points, &f)?;
        let explained = Explained { shares, output, neutral };
        if explained.is_complete() || points >= MAX_POINTS {
            return Ok(explained);
        }
        points *= 2;
    }
}

/// The same in a fixed number of steps, for where there is no time to converge: Yang, Wang, Bilgic, "IDGI: a framework to eliminate
/// explanation noise from integrated gradients", CVPR 2023. Each step's difference of outputs is divided among the inputs that change
/// along the line, by the squares of their gradients at its beginning; so the shares add up whatever the number of steps. A step without
/// a gradient is not divided, and shows in [`Explained::is_complete`].
///
/// # Errors
/// As for [`integrated_gradients`].
pub fn integrated_differences(
    input: &Tensor,
    baseline: &Tensor,
    steps: usize,
    f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Explained> {
    let way = (input - baseline)?;
    let rows: Vec<Tensor> = (0..=steps)
        .map(|step| baseline + (&way * (step as f64 / steps as f64))?)
        .collect::<candle_core::Result<_>>()?;
    let line = Var::from_tensor(&Tensor::stack(&rows, 0)?)?;
    let values = f(&[line.as_tensor().clone()])?;
    let outputs = values.to_vec1::<f32>()?;
    let (Some(neutral), Some(output)) = (outputs.first().copied(), outputs.last().copied()) else {
        candle_core::bail!("a function to be explained gives one number for each row");
    };
    let changes: Vec<bool> =
        way.flatten_all()?.to_vec1::<f32>()?.iter().map(|way| *way != 0.0).collect();
    let mut shares = vec![0.0_f64; changes.len()];
    if let Some(gradients) = values.sum_all()?.backward()?.get(&line) {
        let gradients = gradients.flatten_from(1)?.to_vec2::<f32>()?;
        for (ends, gradient) in outputs.windows(2).zip(&gradients) {
            let weight = |(gradient, changes): (&f32, &bool)| {
                if *changes { f64::from(*gradient).powi(2) } else { 0.0 }
            };
            let all: f64 = gradient.iter().zip(&changes).map(weight).sum();
            if all > 0.0 {
                let difference = f64::from(ends[1]) - f64::from(ends[0]);
                for (share, own) in shares.iter_mut().zip(gradient.iter().zip(&changes)) {
                    *share += weight(own) / all * difference;
                }
            }
        }
    }
    let shares = vec![shares.into_iter().map(|share| share as f32).collect()];
    Ok(Explained { shares, output, neutral })
}

/// The gradient averaged over the middles of `points` equal pieces of the line, times the way.
fn line(
    inputs: &[Tensor],
    baselines: &[Tensor],
    points: usize,
    f: &impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> candle_core::Result<Vec<Vec<f32>>> {
    let mut totals: Vec<Vec<f64>> =
        inputs.iter().map(|input| vec![0.0; input.elem_count()]).collect();
    for first in (0..points).step_by(ROWS) {
        let vars: Vec<Var> = inputs
            .iter()
            .zip(baselines)
            .map(|(input, baseline)| {
                let way = (input - baseline)?;
                let rows: Vec<Tensor> = (first..first + ROWS)
                    .map(|point| baseline + (&way * ((point as f64 + 0.5) / points as f64))?)
                    .collect::<candle_core::Result<_>>()?;
                Var::from_tensor(&Tensor::stack(&rows, 0)?)
            })
            .collect::<candle_core::Result<_>>()?;
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let gradients = f(&tensors)?.sum_all()?.backward()?;
        for (total, var) in totals.iter_mut().zip(&vars) {
            let Some(gradient) = gradients.get(var) else { continue };
            for row in gradient.flatten_from(1)?.to_vec2::<f32>()? {
                for (total, value) in total.iter_mut().zip(row) {
                    *total += f64::from(value) / points as f64;
                }
            }
        }
    }
    let mut shares = Vec::with_capacity(totals.len());
    for ((total, input), baseline) in totals.iter().zip(inputs).zip(baselines) {
        let way = (input - baseline)?.flatten_all()?.to_vec1::<f32>()?;
        shares.push(total.iter().zip(way).map(|(g, way)| (g * f64::from(way)) as f32).collect());
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn differences_add_up_in_few_steps_and_leave_out_what_does_not_change() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let f = |x: &[Tensor]| (x[0].sqr()? * 3.0)?.sum(1)?.exp()?.log()? + x[0].sum(1)?;
        let (input, baseline) = (tensor(&[1.0, 0.0, 2.0]), tensor(&[0.0, 0.0, 0.0]));
        let explained = integrated_differences(&input, &baseline, 8, f).unwrap();
        assert!(explained.is_complete(), "{explained:?}");
        let shares = &explained.shares[0];
        assert!(shares[1] == 0.0 && shares[2] > shares[0] && shares[0] > 0.0, "{shares:?}");
        assert!((explained.output - 18.0).abs() < 1e-4 && explained.neutral.abs() < 1e-6);
    }

    #[test]
    fn shares_add_up_and_are_exact_where_they_are_known() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let (a, b) = (tensor(&[1.0, 2.0]), tensor(&[3.0]));
        let zeros = [tensor(&[0.0, 0.0]), tensor(&[0.0])];
        // a₀² + 5 a₁ + a₁ b: along the straight line the product is shared equally.
        let f = |x: &[Tensor]| {
            let (a0, a1) = (x[0].narrow(1, 0, 1)?.squeeze(1)?, x[0].narrow(1, 1, 1)?.squeeze(1)?);
            let product = (&a1 * x[1].squeeze(1)?)?;
            (a0.sqr()? + (a1 * 5.0)?)? + product
        };
        let explained = integrated_gradients(&[a, b], &zeros, f).unwrap();
        assert!(explained.is_complete());
        assert_eq!((explained.output, explained.neutral), (17.0, 0.0));
        for (share, known) in explained.shares.concat().iter().zip([1.0, 13.0, 3.0]) {
            assert!((share - known).abs() < 1e-3, "{:?}", explained.shares);
        }
    }

    #[test]
    fn a_kink_is_followed_until_the_sum_is_right() {
        let input = Tensor::new(&[1.0_f32, -1.0], &Device::Cpu).unwrap();
        let f = |x: &[Tensor]| {
            let sum = ((x[0].narrow(1, 0, 1)? * 7.3)? - 5.1)?.relu()?;
            (sum - (x[0].narrow(1, 1, 1)? * 40.0)?.tanh()?)?.squeeze(1)
        };
        let explained =
            integrated_gradients(std::slice::from_ref(&input), &[input.zeros_like().unwrap()], f)
                .unwrap();
        assert!(explained.is_complete(), "{explained:?}");
    }
}
