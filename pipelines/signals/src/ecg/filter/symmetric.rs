//! Symmetric filters of finite length: what a filter run both ways does, with a known delay.

use super::Biquad;

/// Outputs that are computed side by side.
const LANES: usize = 16;

/// A symmetric filter of finite length over a stream. Output `i` belongs to input `i`; it comes out once
/// [`reach`](Self::reach) further inputs are there (and in blocks). Before the first input and after the last
/// the signal is taken to stand still at zero and at the last value.
///
/// Each output is a sum over its own inputs in a fixed order: it depends neither on how the stream is cut
/// nor on what came before.
pub(crate) struct Symmetric {
    /// The middle one and those to one side.
    taps: Vec<f32>,
    input: Vec<f32>,
}

impl Symmetric {
    /// The response of `high` and `low` run forwards and backwards, cut off `reach` samples from its middle,
    /// with no response to a constant.
    pub(crate) fn band_pass(high: Biquad, low: Biquad, reach: usize) -> Self {
        // By four times the reach the response has died away.
        let middle = 4 * reach + 4;
        let mut response = vec![0.0_f64; 2 * middle + 1];
        response[middle] = 1.0;
        for _ in 0..2 {
            high.run(&mut response);
            low.run(&mut response);
            response.reverse();
        }
        let mut taps = response[middle..=middle + reach].to_vec();
        // What was cut off must not let a constant through: spread over a Hann window.
        let bell: Vec<f64> = (0..=reach)
            .map(|k| 0.5 + 0.5 * (std::f64::consts::PI * k as f64 / (reach + 1) as f64).cos())
            .collect();
        let both_sides = |taps: &[f64]| 2.0 * taps.iter().sum::<f64>() - taps[0];
        let excess = both_sides(&taps) / both_sides(&bell);
        taps.iter_mut().zip(&bell).for_each(|(tap, bell)| *tap -= excess * bell);
        Self { taps: taps.iter().map(|tap| *tap as f32).collect(), input: vec![0.0; reach] }
    }

    /// Samples on either side that an output depends on.
    pub(crate) fn reach(&self) -> usize {
        self.taps.len() - 1
    }

    /// Takes more inputs and appends those outputs that are settled.
    pub(crate) fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        self.input.extend_from_slice(input);
        let ready = self.input.len().saturating_sub(2 * self.reach()) / LANES * LANES;
        self.convolve(ready, out);
    }

    /// Appends the outputs that are left.
    pub(crate) fn finish(&mut self, out: &mut Vec<f32>) {
        let last = self.input.last().copied().unwrap_or(0.0);
        self.input.resize(self.input.len() + self.reach(), last);
        self.convolve(self.input.len() - 2 * self.reach(), out);
    }

    fn convolve(&mut self, outputs: usize, out: &mut Vec<f32>) {
        let reach = self.reach();
        let mut at = 0;
        while at + LANES <= outputs {
            out.extend(products::<LANES>(&self.taps, &self.input[at..at + LANES + 2 * reach]));
            at += LANES;
        }
        for at in at..outputs {
            out.extend(products::<1>(&self.taps, &self.input[at..=at + 2 * reach]));
        }
        self.input.drain(..outputs);
    }
}

/// `N` outputs from `N + 2 × reach` inputs.
#[inline(always)]
fn products<const N: usize>(taps: &[f32], input: &[f32]) -> [f32; N] {
    let reach = taps.len() - 1;
    let mut sums = [0.0_f32; N];
    for (k, tap) in taps.iter().enumerate().skip(1) {
        let (before, after) = (&input[reach - k..][..N], &input[reach + k..][..N]);
        for lane in 0..N {
            sums[lane] += tap * (before[lane] + after[lane]);
        }
    }
    let middle = &input[reach..][..N];
    for lane in 0..N {
        sums[lane] += taps[0] * middle[lane];
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(rate_hz: f64) -> Symmetric {
        let (high, low) = (Biquad::high_pass(6.0, rate_hz), Biquad::low_pass(18.0, rate_hz));
        Symmetric::band_pass(high, low, (0.3 * rate_hz) as usize)
    }

    fn whole(input: &[f32]) -> Vec<f32> {
        let (mut filter, mut out) = (filter(120.0), Vec::new());
        filter.push(input, &mut out);
        filter.finish(&mut out);
        out
    }

    #[test]
    fn the_band_passes_and_the_rest_does_not() {
        let gain = |hz: f64| {
            let radians = 2.0 * std::f64::consts::PI * hz / 120.0;
            let wave: Vec<f32> =
                (0..2_400).map(|i| (radians * f64::from(i)).sin() as f32).collect();
            whole(&wave)[500..1_900].iter().fold(0.0_f32, |most, value| most.max(value.abs()))
        };
        assert!(gain(10.0) > 0.7, "{}", gain(10.0));
        assert!(gain(0.5) < 0.002, "{}", gain(0.5));
        assert!(gain(50.0) < 0.01, "{}", gain(50.0));
        // Twice −3 dB at a cut-off: half the amplitude.
        assert!((gain(18.0) - 0.5).abs() < 0.02, "{}", gain(18.0));
    }

    #[test]
    fn nothing_is_shifted_and_a_constant_is_nothing() {
        let mut impulse = vec![0.0; 201];
        impulse[100] = 1.0;
        let response = whole(&impulse);
        assert_eq!(response.len(), 201);
        for k in 1..=100 {
            assert_eq!(response[100 - k], response[100 + k]);
            assert!(response[100 + k] < response[100]);
        }
        assert!(response.iter().sum::<f32>().abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            input in proptest::collection::vec(-5.0f32..5.0, 0..400),
            cuts in proptest::collection::vec(1usize..90, 1..20),
        ) {
            let (mut filter, mut out, mut rest) = (filter(120.0), Vec::new(), &input[..]);
            for cut in cuts.iter().cycle() {
                let (frame, after) = rest.split_at((*cut).min(rest.len()));
                filter.push(frame, &mut out);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            filter.finish(&mut out);
            prop_assert_eq!(out, whole(&input));
        }
    }
}
