//! Why a beat was put into a class: integrated gradients.
//!
//! Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", ICML 2017. The gradient of the class's
//! log-odds `ln(p / (1 - p))` is averaged along the straight line from a neutral beat (a flat line in
//! a regular rhythm of 75 per minute: all inputs zero) to the beat, and multiplied by the way gone. What each
//! input gets adds up to the difference of the log-odds at both ends. Log-odds, because a probability close to
//! 1 hardly moves and would leave nothing to share out.

use crate::model::{BATCH, batch};
use crate::{
    BeatClass, BeatInput, BeatModel, CHANNELS, ClassifyError, RR_FEATURES, SEGMENT_SAMPLES,
};
use candle_core::{D, Device, Tensor, Var};

/// The most points on the line at which the gradient is taken.
pub const MAX_ATTRIBUTION_STEPS: usize = 2048;

/// Points that are tried first; doubled until the sum is right.
const STEPS_FIRST: usize = 64;
/// How far the sum may be off, as a share of the difference (of at least 1 in log-odds).
const TOLERANCE: f64 = 0.005;

/// How much each input speaks for (positive) or against a class, in log-odds.
#[derive(Clone, PartialEq, Debug)]
pub struct Attribution {
    /// The class in question.
    pub class: BeatClass,
    /// By sample of the segment, both channels together; [`crate::SEGMENT_BEFORE`] samples before the R peak.
    pub waveform: Vec<f32>,
    /// By number about the rhythm, in the order of [`crate::RR_NAMES`].
    pub rr: [f32; RR_FEATURES],
    /// Log-odds of the class for the beat.
    pub output: f32,
    /// Log-odds of the class for the neutral beat.
    pub neutral: f32,
}

impl Attribution {
    /// What all inputs got together; `output - neutral` up to 0.5 % (of at least 1), unless
    /// [`MAX_ATTRIBUTION_STEPS`] were not enough.
    pub fn sum(&self) -> f64 {
        self.waveform.iter().chain(&self.rr).map(|share| f64::from(*share)).sum()
    }

    fn is_complete(&self) -> bool {
        let difference = f64::from(self.output) - f64::from(self.neutral);
        (self.sum() - difference).abs() <= TOLERANCE * difference.abs().max(1.0)
    }
}

impl BeatModel {
    /// How much each input speaks for the beat being of `class`.
    ///
    /// # Errors
    /// If the network cannot be computed or gives no number.
    pub fn attribute(
        &self,
        input: &BeatInput,
        class: BeatClass,
    ) -> Result<Attribution, ClassifyError> {
        let ends = [input.scaled(1.0), input.scaled(0.0)];
        let (waveform, rr) = batch(&ends, BATCH)?;
        let ends = log_odds(&self.network.forward(&waveform, &rr, None)?, class)?;
        let ends = ends.narrow(0, 0, 2)?.to_vec1::<f32>()?;
        if !ends.iter().all(|end| end.is_finite()) {
            return Err(ClassifyError::NotFinite(0));
        }
        let mut steps = STEPS_FIRST;
        loop {
            let (waveform, rr) = self.mean_gradient(input, class, steps)?;
            let mut attribution = Attribution {
                class,
                waveform: vec![0.0; SEGMENT_SAMPLES],
                rr: [0.0; RR_FEATURES],
                output: ends[0],
                neutral: ends[1],
            };
            for (at, (gradient, value)) in waveform.iter().zip(input.waveform()).enumerate() {
                attribution.waveform[at % SEGMENT_SAMPLES] += (gradient * f64::from(*value)) as f32;
            }
            for (share, (gradient, value)) in
                attribution.rr.iter_mut().zip(rr.iter().zip(input.rr()))
            {
                *share = (gradient * f64::from(*value)) as f32;
            }
            if attribution.is_complete() || steps >= MAX_ATTRIBUTION_STEPS {
                return Ok(attribution);
            }
            steps *= 2;
        }
    }

    /// The gradient by waveform and rhythm, averaged over the middles of `steps` equal pieces of the line.
    fn mean_gradient(
        &self,
        input: &BeatInput,
        class: BeatClass,
        steps: usize,
    ) -> Result<(Vec<f64>, Vec<f64>), ClassifyError> {
        let mut by_waveform = vec![0.0; CHANNELS * SEGMENT_SAMPLES];
        let mut by_rr = vec![0.0; RR_FEATURES];
        for first in (0..steps).step_by(BATCH) {
            let points: Vec<BeatInput> = (first..first + BATCH)
                .map(|step| input.scaled((step as f32 + 0.5) / steps as f32))
                .collect();
            let (waveform, rr) = batch(&points, BATCH)?;
            let (waveform, rr) = (Var::from_tensor(&waveform)?, Var::from_tensor(&rr)?);
            let scores = self.network.forward(&waveform, &rr, None)?;
            let gradients = log_odds(&scores, class)?.sum_all()?.backward()?;
            for (total, input) in [(&mut by_waveform, &waveform), (&mut by_rr, &rr)] {
                let Some(gradient) = gradients.get(input) else { continue };
                for row in gradient.flatten_from(1)?.to_vec2::<f32>()? {
                    for (total, value) in total.iter_mut().zip(row) {
                        *total += f64::from(value) / steps as f64;
                    }
                }
            }
        }
        Ok((by_waveform, by_rr))
    }
}

/// `ln(p / (1 - p))` of a class: its score less the log of the summed exponentials of the others.
fn log_odds(scores: &Tensor, class: BeatClass) -> candle_core::Result<Tensor> {
    let others: Vec<u32> = (0..5).filter(|other| *other != class.index() as u32).collect();
    let others = scores.index_select(&Tensor::new(others, &Device::Cpu)?, 1)?;
    let largest = others.max_keepdim(D::Minus1)?.detach();
    let sum = others.broadcast_sub(&largest)?.exp()?.sum(D::Minus1)?.log()?;
    scores.narrow(1, class.index(), 1)?.squeeze(1)? - (sum + largest.squeeze(1)?)?
}

impl BeatInput {
    /// The point at `share` of the way from the neutral beat.
    fn scaled(&self, share: f32) -> Self {
        Self::from_parts(
            self.waveform().iter().map(|value| value * share).collect(),
            self.rr().map(|value| value * share),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{inputs, model};

    fn check(model: &BeatModel, input: &BeatInput) {
        for class in BeatClass::ALL {
            let attribution = model.attribute(input, class).unwrap();
            let difference = f64::from(attribution.output) - f64::from(attribution.neutral);
            let off = (attribution.sum() - difference).abs();
            assert!(off <= 0.01 * difference.abs().max(1.0), "{class}: {off} of {difference}");
            // The output is the probability that the model gives.
            let given = model.classify(std::slice::from_ref(input)).unwrap()[0].probabilities;
            let probability = 1.0 / (1.0 + (-attribution.output).exp());
            assert!((probability - given[class.index()]).abs() < 1e-5);
        }
    }

    #[test]
    fn shares_add_up_to_the_difference_of_the_outputs() {
        let (random, builtin) = (model(), BeatModel::builtin().unwrap());
        for input in inputs(3, 8) {
            check(&random, &input);
            check(&builtin, &input);
        }
    }

    #[test]
    fn a_neutral_beat_has_nothing_to_share() {
        let neutral = inputs(1, 8)[0].scaled(0.0);
        let attribution = model().attribute(&neutral, BeatClass::V).unwrap();
        assert_eq!(attribution.sum(), 0.0);
        assert_eq!(attribution.output, attribution.neutral);
    }
}
