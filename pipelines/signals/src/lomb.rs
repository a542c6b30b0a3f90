//! Lomb–Scargle periodogram: the spectrum of samples that are not evenly spaced, without resampling.
//!
//! Lomb 1976, Astrophys Space Sci 39:447–462; Scargle 1982, Astrophys J 263:835–853. The value is that of
//! Scargle's equation 10 (`scipy.signal.lombscargle` before normalisation): for N evenly spaced samples it
//! is |DFT|²/N, and a sine of amplitude A has about N·A²/4 at its frequency. It is written here without the
//! time offset τ, as the least-squares fit that it is equal to (Press & Rybicki 1989, Astrophys J
//! 338:277–280): no arctangent a frequency.
//!
//! Each sample carries a phasor that is turned by one step from one frequency to the next, so that the cost
//! is samples × frequencies multiplications and no trigonometry. The error of turning grows with the number
//! of steps and is below 10⁻¹⁰ of the phase over [`MAX_FREQUENCIES`].

use pulp::{Simd, WithSimd};

/// The longest grid: more are cut off.
pub const MAX_FREQUENCIES: usize = 16_384;

/// Sums are kept in so many parts, which the processor adds side by side: the widest register's.
const LANES: usize = 8;

/// A determinant below this share of N² is that of a fit that the samples do not settle.
const SINGULAR: f64 = 1e-10;

/// Evenly spaced frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// The first one.
    pub first_hz: f64,
    /// From one to the next.
    pub step_hz: f64,
    /// How many; at most [`MAX_FREQUENCIES`] are used.
    pub count: usize,
}

/// The periodogram at the frequencies of `grid`, in squares of the values' unit.
///
/// `times_s` in any order and with any gaps; `values` of which the mean has been taken off (it is not done
/// here). What one slice has more than the other, and pairs that are not finite, are left out. Empty without
/// samples.
///
/// There is no Nyquist frequency in unevenly spaced samples, yet nothing is to be learnt above the inverse
/// of the shortest distance.
pub fn lomb_scargle(times_s: &[f64], values: &[f64], grid: Grid) -> Vec<f64> {
    let samples: Vec<(f64, f64)> = times_s
        .iter()
        .copied()
        .zip(values.iter().copied())
        .filter(|(time, value)| time.is_finite() && value.is_finite())
        .collect();
    let Some((origin, _)) = samples.first().copied() else { return Vec::new() };
    let mut powers = vec![0.0; grid.count.min(MAX_FREQUENCIES)];
    let mut phasors = Phasors::new(&samples, origin, grid);
    pulp::Arch::new().dispatch(Fill { phasors: &mut phasors, powers: &mut powers });
    powers
}

/// For every sample cosine and sine of its phase, those of one step, and its value.
struct Phasors {
    samples: f64,
    cos: Vec<f64>,
    sin: Vec<f64>,
    step_cos: Vec<f64>,
    step_sin: Vec<f64>,
    value: Vec<f64>,
}

/// Over all samples: Σcos², Σcos·sin, Σvalue·cos, Σvalue·sin.
struct Sums {
    cos_cos: f64,
    cos_sin: f64,
    value_cos: f64,
    value_sin: f64,
}

impl Phasors {
    fn new(samples: &[(f64, f64)], origin: f64, grid: Grid) -> Self {
        // Lanes without a sample stay zero, and add nothing.
        let zeros = vec![0.0; samples.len().next_multiple_of(LANES)];
        let mut phasors = Self {
            samples: samples.len() as f64,
            cos: zeros.clone(),
            sin: zeros.clone(),
            step_cos: zeros.clone(),
            step_sin: zeros.clone(),
            value: zeros,
        };
        for (index, (time, value)) in samples.iter().enumerate() {
            let turn = std::f64::consts::TAU * (time - origin);
            (phasors.sin[index], phasors.cos[index]) = (turn * grid.first_hz).sin_cos();
            (phasors.step_sin[index], phasors.step_cos[index]) = (turn * grid.step_hz).sin_cos();
            phasors.value[index] = *value;
        }
        phasors
    }

    /// The sums at this frequency; turns all phasors to the next.
    ///
    /// Sample i is added to part i modulo [`LANES`] in order of i, whatever the width of the processor's
    /// registers, so that the sums are the same to the bit on all.
    #[inline(always)]
    fn step<S: Simd>(&mut self, simd: S) -> Sums {
        let cos = S::as_mut_simd_f64s(&mut self.cos).0;
        let sin = S::as_mut_simd_f64s(&mut self.sin).0;
        let step_cos = S::as_simd_f64s(&self.step_cos).0;
        let step_sin = S::as_simd_f64s(&self.step_sin).0;
        let value = S::as_simd_f64s(&self.value).0;
        let mut parts = [[0.0; LANES]; 4];
        let registers = (LANES / S::F64_LANES).max(1);
        for first in 0..registers {
            let mut sums = [simd.splat_f64s(0.0); 4];
            let rows = cos.iter_mut().zip(sin.iter_mut()).zip(step_cos).zip(step_sin).zip(value);
            for ((((cos, sin), step_cos), step_sin), value) in rows.skip(first).step_by(registers) {
                let (c, s) = (*cos, *sin);
                sums[0] = simd.add_f64s(sums[0], simd.mul_f64s(c, c));
                sums[1] = simd.add_f64s(sums[1], simd.mul_f64s(c, s));
                sums[2] = simd.add_f64s(sums[2], simd.mul_f64s(*value, c));
                sums[3] = simd.add_f64s(sums[3], simd.mul_f64s(*value, s));
                *cos = simd.sub_f64s(simd.mul_f64s(c, *step_cos), simd.mul_f64s(s, *step_sin));
                *sin = simd.add_f64s(simd.mul_f64s(s, *step_cos), simd.mul_f64s(c, *step_sin));
            }
            for (parts, sum) in parts.iter_mut().zip(sums) {
                S::as_mut_simd_f64s(parts).0[first] = sum;
            }
        }
        let [cos_cos, cos_sin, value_cos, value_sin] = parts.map(|parts| parts.iter().sum());
        Sums { cos_cos, cos_sin, value_cos, value_sin }
    }
}

/// Fills in the powers, compiled for each kind of processor.
struct Fill<'a> {
    phasors: &'a mut Phasors,
    powers: &'a mut [f64],
}

impl WithSimd for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for power in self.powers {
            *power = self.phasors.step(simd).power(self.phasors.samples);
        }
    }
}

impl Sums {
    fn power(&self, n: f64) -> f64 {
        let sin_sin = n - self.cos_cos;
        let determinant = self.cos_cos * sin_sin - self.cos_sin * self.cos_sin;
        if determinant <= SINGULAR * n * n {
            // At 0 Hz and its like one of the two waves is nowhere: the other alone.
            return 0.5 * (self.value_cos.powi(2) + self.value_sin.powi(2)) / n;
        }
        let fit = self.value_cos.powi(2) * sin_sin + self.value_sin.powi(2) * self.cos_cos
            - 2.0 * self.value_cos * self.value_sin * self.cos_sin;
        0.5 * fit / determinant
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_scipy_has_it() {
        // scipy 1.17.1: t = [0, .7, 1.5, 2.6, 3.1, 4.4, 5.0, 6.3], y = [3, -1, 2, -4, 1, .5, -2.5, 1],
        // scipy.signal.lombscargle(t, y, 2*pi*f) for f = .1, .25, .4.
        let times = [0.0, 0.7, 1.5, 2.6, 3.1, 4.4, 5.0, 6.3];
        let values = [3.0, -1.0, 2.0, -4.0, 1.0, 0.5, -2.5, 1.0];
        let grid = Grid { first_hz: 0.1, step_hz: 0.15, count: 3 };
        let expected = [3.568066058281608, 1.5034793690718344, 4.109251819826293];
        for (found, expected) in lomb_scargle(&times, &values, grid).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    #[test]
    fn a_sine_has_a_quarter_of_its_square() {
        let times: Vec<f64> = (0..1_000).map(|i| f64::from(i) * 0.5).collect();
        let wave: Vec<f64> =
            times.iter().map(|t| 3.0 * (std::f64::consts::TAU * 0.2 * t).sin()).collect();
        let grid = Grid { first_hz: 0.01, step_hz: 0.01, count: 40 };
        let powers = lomb_scargle(&times, &wave, grid);
        assert!((powers[19] - 1_000.0 * 9.0 / 4.0).abs() < 1e-6);
        assert!(powers.iter().enumerate().all(|(k, power)| k == 19 || *power < 1e-6));
    }

    #[test]
    fn of_nothing_and_of_zero_hertz() {
        let grid = Grid { first_hz: 0.0, step_hz: 0.1, count: 2 };
        assert!(lomb_scargle(&[], &[], grid).is_empty());
        assert!(lomb_scargle(&[f64::NAN], &[1.0], grid).is_empty());
        assert_eq!(lomb_scargle(&[0.0, 1.0], &[1.0, -1.0], grid)[0], 0.0);
    }

    /// Scargle's equation 10 as he wrote it.
    fn by_the_book(times: &[f64], values: &[f64], hz: f64) -> f64 {
        let w = std::f64::consts::TAU * hz;
        let (sin, cos) = times.iter().fold((0.0, 0.0), |(sin, cos), t| {
            (sin + (2.0 * w * t).sin(), cos + (2.0 * w * t).cos())
        });
        let tau = sin.atan2(cos) / (2.0 * w);
        let part = |wave: fn(f64) -> f64| {
            let (mut above, mut below) = (0.0, 0.0);
            for (time, value) in times.iter().zip(values) {
                above += value * wave(w * (time - tau));
                below += wave(w * (time - tau)).powi(2);
            }
            above * above / below
        };
        0.5 * (part(f64::cos) + part(f64::sin))
    }

    proptest! {
        #[test]
        fn equals_the_book(
            steps in proptest::collection::vec((0.3..1.5f64, -50.0..50.0f64), 8..60),
            first_hz in 0.02..0.1f64,
        ) {
            let mut time = 0.0;
            let (times, values): (Vec<f64>, Vec<f64>) =
                steps.iter().map(|(step, value)| { time += step; (time, *value) }).unzip();
            let grid = Grid { first_hz, step_hz: 0.003, count: 100 };
            for (k, found) in lomb_scargle(&times, &values, grid).iter().enumerate() {
                let expected = by_the_book(&times, &values, first_hz + 0.003 * k as f64);
                prop_assert!((found - expected).abs() <= 1e-6 * (1.0 + expected), "{found} {expected}");
                prop_assert!(*found >= 0.0);
            }
        }
    }
}
