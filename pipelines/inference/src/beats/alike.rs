//! Beats of one context that look alike are called alike.
//!
//! A patient's ventricular beats come from few places of the heart and look like each other; what tells a single one from
//! noise is how the others like it were judged. A beat's sum (a forest's, less its threshold) is therefore drawn towards the mean of
//! the sums of the beats that lie near it, in time and shape:
//!
//! ```text
//! blended = (1 - share) own + share Σ w lent / Σ w,   w = exp(-d² / (2 bandwidth²))
//! ```
//!
//! where `lent` is a beat's sum within ± [`LENT_MAX`], so that few that are very sure do not outvote many, `d` is the Euclidean distance of the numbers about the beats' own shape ([`super::SHAPE_NAMES`], those of both leads), and the
//! sums run over the beat itself and up to [`NEIGHBOURS`] beats on each side within [`REACH`] bandwidths (Nadaraya, "On estimating
//! regression", Theory Probab. Appl. 9, 1964). Nothing outside the context is looked at; a beat that is alone keeps its sum.

use super::input::BeatInput;
use super::intervals::RHYTHM_FEATURES;
use super::shape::MEASURES;

/// Beats on each side that are looked at: about as far as the context of a beat reaches.
const NEIGHBOURS: usize = 200;
/// What a beat lends to another at most, in log-odds.
const LENT_MAX: f64 = 4.0;
/// Bandwidths beyond which a beat counts for nothing: its weight would be a ninetieth of an equal one's.
const REACH: f64 = 3.0;
/// Numbers about a beat's own shape: the largest and the least of both leads.
const OWN_SHAPE: usize = 2 * MEASURES;

/// How far the sums for S, V and F are drawn towards those of beats that look alike.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Alike {
    /// In units of the numbers about shape, above 0.
    pub(super) bandwidths: [f64; 3],
    /// 0 (not at all) to 1.
    pub(super) shares: [f64; 3],
}

impl Alike {
    /// Every beat by itself.
    pub(super) const ALONE: Self = Self { bandwidths: [1.0; 3], shares: [0.0; 3] };

    /// Whether the numbers make sense.
    pub(super) fn is_sound(&self) -> bool {
        self.bandwidths.iter().all(|bandwidth| (0.01..=100.0).contains(bandwidth))
            && self.shares.iter().all(|share| (0.0..=1.0).contains(share))
    }

    /// The blended sums of a context's beats, in order.
    pub(super) fn blend(&self, context: &[BeatInput], sums: &[[f64; 3]]) -> Vec<[f64; 3]> {
        (0..context.len().min(sums.len())).map(|beat| self.blend_one(context, sums, beat)).collect()
    }

    /// That of one beat of the context.
    pub(super) fn blend_one(
        &self,
        context: &[BeatInput],
        sums: &[[f64; 3]],
        beat: usize,
    ) -> [f64; 3] {
        let own = sums[beat];
        let widest = std::iter::zip(self.bandwidths, self.shares)
            .filter(|(_, share)| *share > 0.0)
            .map(|(bandwidth, _)| (REACH * bandwidth).powi(2))
            .fold(0.0, f64::max);
        if widest == 0.0 {
            return own;
        }
        let (mut weights, mut weighed) = ([0.0; 3], [0.0; 3]);
        let last = context.len().min(sums.len()).min(beat + NEIGHBOURS + 1);
        for other in beat.saturating_sub(NEIGHBOURS)..last {
            let Some(squared) = squared_distance(&context[beat], &context[other], widest) else {
                continue;
            };
            for at in 0..3 {
                let bandwidth = self.bandwidths[at];
                if squared <= (REACH * bandwidth).powi(2) {
                    let weight = (-squared / (2.0 * bandwidth * bandwidth)).exp();
                    weights[at] += weight;
                    weighed[at] += weight * sums[other][at].clamp(-LENT_MAX, LENT_MAX);
                }
            }
        }
        // The beat itself is among them: no weight is 0.
        std::array::from_fn(|at| {
            let share = self.shares[at];
            (1.0 - share) * own[at] + share * weighed[at] / weights[at]
        })
    }
}

/// The squared distance of two shapes; `None` beyond `most`.
fn squared_distance(one: &BeatInput, other: &BeatInput, most: f64) -> Option<f64> {
    let own = RHYTHM_FEATURES..RHYTHM_FEATURES + OWN_SHAPE;
    let mut sum = 0.0;
    for (one, other) in one.numbers[own.clone()].iter().zip(&other.numbers[own]) {
        sum += f64::from(one - other).powi(2);
        if sum > most {
            return None;
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::super::input::NUMBERS;
    use super::*;

    const ALIKE: Alike = Alike { bandwidths: [0.5, 2.0, 1.0], shares: [0.5, 0.5, 0.0] };

    /// A beat whose first number about shape is this.
    fn beat(shape: f32) -> BeatInput {
        let mut numbers = [0.0; NUMBERS];
        numbers[RHYTHM_FEATURES] = shape;
        BeatInput { numbers }
    }

    #[test]
    fn equal_beats_come_together_and_others_stay() {
        let context = [beat(0.0), beat(0.0), beat(100.0)];
        let sums = [[1.0; 3], [3.0; 3], [2.0; 3]];
        let blended = ALIKE.blend(&context, &sums);
        assert_eq!(blended, [[1.5, 1.5, 1.0], [2.5, 2.5, 3.0], [2.0; 3]]);
        assert_eq!(Alike::ALONE.blend(&context, &sums), sums);
        assert_eq!(ALIKE.blend(&context[..1], &sums[..1]), sums[..1], "one alone");
    }

    #[test]
    fn the_nearer_counts_more_within_the_bandwidth() {
        let context = [beat(0.0), beat(1.0), beat(2.0)];
        // The second lends no more than 4.
        let sums = [[0.0; 3], [6.0; 3], [0.0; 3]];
        let [s, v, _] = ALIKE.blend(&context, &sums)[0];
        // exp(-2) for S at half a bandwidth of 1; V sees all three.
        let near = (-2.0_f64).exp();
        assert!((s - 0.5 * 4.0 * near / (1.0 + near)).abs() < 1e-12, "{s}");
        let (one, two) = ((-0.125_f64).exp(), (-0.5_f64).exp());
        assert!((v - 0.5 * 4.0 * one / (1.0 + one + two)).abs() < 1e-12, "{v}");
    }

    #[test]
    fn far_in_time_is_another_context() {
        let context: Vec<BeatInput> = (0..=NEIGHBOURS + 1).map(|_| beat(0.0)).collect();
        let mut sums = vec![[0.0; 3]; context.len()];
        sums[NEIGHBOURS + 1] = [1_000.0; 3];
        assert_eq!(ALIKE.blend_one(&context, &sums, 0), [0.0; 3]);
        assert!(ALIKE.blend_one(&context, &sums, 1)[0] > 0.0);
    }

    #[test]
    fn only_sense_is_sound() {
        assert!(ALIKE.is_sound() && Alike::ALONE.is_sound());
        for (bandwidth, share) in [(0.0, 0.5), (f64::NAN, 0.5), (1.0, -0.1), (1.0, 1.1)] {
            let unsound = Alike { bandwidths: [bandwidth; 3], shares: [share; 3] };
            assert!(!unsound.is_sound(), "{bandwidth} {share}");
        }
    }
}
