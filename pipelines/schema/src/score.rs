//! What a model said, and why: beside the flag that it led to.
//!
//! Every number is rounded by [`quantise`]. An attribution names the inputs that count most and gives the others as one number, so
//! that a flagged event stays small; what is named and the rest still add up to the output.

use crate::{ModelRef, Timestamp, quantise};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The most inputs that an [`Attribution`] names; the others are one number.
pub const MAX_CONTRIBUTIONS: usize = 16;

/// The most shares over time that a [`Score`] gives.
pub const MAX_TIME_SHARES: usize = 64;

/// How far an attribution's sum may be from the output, as a share of what is to be explained.
pub const ATTRIBUTION_TOLERANCE: f64 = 0.01;

/// What is to be explained counts as at least this: of a smaller one, a share of it is below rounding.
const EXPLAINED_MIN: f64 = 0.1;

/// A model's word on a window.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Score {
    /// What was scored, such as `sepsis-risk`.
    pub name: String,
    /// A probability, from 0 to 1.
    pub value: f64,
    /// How far the model's members disagree: a standard deviation, as a probability.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncertainty: Option<f64>,
    /// How far ahead the probability looks, in hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub horizon_h: Option<u32>,
    /// Who says so.
    pub model: ModelRef,
    /// What it was shown: [`features_digest`] in hexadecimal.
    pub features_sha256: String,
    /// Why.
    pub attribution: Attribution,
    /// Where in the waveform, if it was shown one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_time: Option<OverTime>,
}

/// Which stretches of a waveform spoke for (positive) and against an output, in the attribution's scale. It is the part of the
/// attribution that lies on the waveform, told another way, and nothing beside it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OverTime {
    /// Time of the first stretch.
    pub start_us: Timestamp,
    /// Length of a stretch, in microseconds.
    pub step_us: u32,
    /// By stretch, at most [`MAX_TIME_SHARES`].
    pub shares: Vec<f64>,
}

impl OverTime {
    /// Of shares that lie `step_us` apart; so many neighbours become one that there are at most [`MAX_TIME_SHARES`].
    pub fn new(start_us: Timestamp, step_us: u32, shares: &[f32]) -> Self {
        let together = shares.len().div_ceil(MAX_TIME_SHARES).max(1);
        let sum = |stretch: &[f32]| stretch.iter().map(|share| f64::from(*share)).sum();
        Self {
            start_us,
            step_us: step_us.saturating_mul(u32::try_from(together).unwrap_or(u32::MAX)),
            shares: shares.chunks(together).map(|stretch| quantise(sum(stretch))).collect(),
        }
    }
}

/// In what an attribution is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Scale {
    /// The natural logarithm of the odds.
    LogOdds,
    /// Probability.
    Probability,
}

/// What spoke for (positive) and against an output.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Attribution {
    /// In what all its numbers are counted.
    pub scale: Scale,
    /// The output where nothing is known.
    pub neutral: f64,
    /// The output: `neutral`, all shares and the rest together.
    pub output: f64,
    /// The inputs that count most, the largest first.
    pub contributions: Vec<Contribution>,
    /// All other inputs together.
    pub rest: f64,
}

/// What one input contributed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Contribution {
    /// The input's name.
    pub input: String,
    /// How much it speaks for (positive) or against.
    pub share: f64,
}

impl Attribution {
    /// Of shares in any order; the [`MAX_CONTRIBUTIONS`] largest are named, equals by name.
    pub fn new(
        scale: Scale,
        neutral: f64,
        output: f64,
        shares: impl IntoIterator<Item = (String, f64)>,
    ) -> Self {
        let mut shares: Vec<(String, f64)> = shares.into_iter().collect();
        shares.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then_with(|| a.0.cmp(&b.0)));
        let others = shares.split_off(shares.len().min(MAX_CONTRIBUTIONS));
        Self {
            scale,
            neutral: quantise(neutral),
            output: quantise(output),
            contributions: shares
                .into_iter()
                .map(|(input, share)| Contribution { input, share: quantise(share) })
                .collect(),
            rest: quantise(others.iter().map(|(_, share)| share).sum()),
        }
    }

    /// What neutral, shares and rest come to; [`Self::output`] up to [`ATTRIBUTION_TOLERANCE`].
    pub fn sum(&self) -> f64 {
        let named: f64 = self.contributions.iter().map(|own| own.share).sum();
        self.neutral + named + self.rest
    }

    /// Whether it adds up as promised.
    pub fn is_complete(&self) -> bool {
        let explained = (self.output - self.neutral).abs().max(EXPLAINED_MIN);
        (self.sum() - self.output).abs() <= ATTRIBUTION_TOLERANCE * explained
    }
}

/// SHA-256 over what a model was shown, in its own order, in hexadecimal: each value rounded by [`quantise`], as the eight bytes of
/// a little-endian double; one that is not there as the bytes of one quiet NaN.
pub fn features_digest(values: impl IntoIterator<Item = f64>) -> String {
    let mut hash = Sha256::new();
    for value in values {
        let value = if value.is_nan() { f64::NAN } else { quantise(value) };
        let bits = if value.is_nan() { QUIET_NAN_BITS } else { value.to_bits() };
        hash.update(bits.to_le_bytes());
    }
    hex::encode(hash.finalize())
}

/// IEEE 754's quiet NaN without a payload.
const QUIET_NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_a_bounded_number_of_stretches() {
        let shares: Vec<f32> = (0..300).map(|at| at as f32 / 300.0).collect();
        let told = OverTime::new(Timestamp::from_micros(0), 100_000, &shares);
        assert_eq!((told.shares.len(), told.step_us), (60, 500_000));
        let sum: f64 = shares.iter().map(|share| f64::from(*share)).sum();
        assert!((told.shares.iter().sum::<f64>() - sum).abs() < 1e-3);
        assert!(OverTime::new(Timestamp::from_micros(0), 1, &[]).shares.is_empty());
        assert_eq!(OverTime::new(Timestamp::from_micros(0), 8_000, &shares[..64]).shares.len(), 64);
    }

    #[test]
    fn the_largest_are_named_and_the_rest_still_counts() {
        let shares = (0..40).map(|at| (format!("input-{at:02}"), f64::from(at) / 100.0 - 0.2));
        let sum: f64 = shares.clone().map(|(_, share)| share).sum();
        let attribution = Attribution::new(Scale::LogOdds, -3.0, -3.0 + sum, shares.clone());
        assert_eq!(attribution.contributions.len(), MAX_CONTRIBUTIONS);
        assert_eq!(attribution.contributions[0].input, "input-00");
        assert!(attribution.rest != 0.0 && attribution.is_complete(), "{attribution:?}");
        assert!((attribution.sum() - (-3.0 + sum)).abs() < 1e-4);
        let wrong = Attribution::new(Scale::LogOdds, -3.0, -3.0 + sum + 0.1, shares);
        assert!(!wrong.is_complete());
        let json = serde_json::to_string(&attribution).unwrap();
        assert!(json.starts_with(r#"{"scale":"log-odds","neutral":-3.0,"#), "{json}");
        assert_eq!(serde_json::from_str::<Attribution>(&json).unwrap(), attribution);
    }

    #[test]
    fn a_digest_is_of_the_values_in_their_order() {
        let digest = features_digest([1.0, f64::NAN]);
        assert_eq!(digest, features_digest([1.000_000_000_1, -f64::NAN]));
        assert_ne!(digest, features_digest([f64::NAN, 1.0]));
        assert_ne!(digest, features_digest([1.0, 0.0]));
        assert_eq!(digest.len(), 64);
    }
}
