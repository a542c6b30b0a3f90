//! Recursive filters, as the samples come.

use haar_schema::SampleRate;

use super::{Biquad, DesignError, Memory, is_sample};
use crate::ecg::MIN_RATE_HZ;

/// Quality factor of the notch: 50 Hz and 60 Hz ± 1 Hz are let through again by half.
const NOTCH_Q: f64 = 30.0;

/// The most of the sampling rate that a corner may be: above it the bilinear transform bends the response.
const MAX_CORNER: f64 = 0.45;

/// After a gap that is longer, in seconds, the filter starts anew.
const RESTART_S: f64 = 0.1;

/// A filter of second-order sections over a stream, forwards only: it delays, more where its response is
/// steep, and needs nothing to come. For marking waves use something symmetric instead.
///
/// It starts as if the first sample had always been there, so that an offset makes no step. What is no sample
/// (NaN, infinite, 10 V) comes out as NaN; within, the last sample stands for it, and after more than a tenth
/// of a second the filter starts anew with the next sample. One sample after the other: however the stream is
/// cut into frames, the result is the same to the last bit.
///
/// ```
/// use haar_schema::SampleRate;
/// use haar_signals::ecg::filter::{Recursive, notch};
///
/// let rate = SampleRate::from_hz(250).unwrap();
/// let mut mv: Vec<f32> = (0..500).map(|i| (i as f32 * 0.3).sin()).collect();
/// let whole = notch(&mv, 50.0, rate)?;
/// let mut filter = Recursive::notch(50.0, rate)?;
/// mv.chunks_mut(33).for_each(|frame| filter.apply(frame));
/// assert_eq!(mv, whole);
/// # Ok::<(), haar_signals::ecg::filter::DesignError>(())
/// ```
#[derive(Clone)]
pub struct Recursive {
    sections: Vec<(Biquad, Memory)>,
    last: f32,
    /// Samples missing since the last; at `restart` the next starts anew.
    missing: usize,
    restart: usize,
}

impl Recursive {
    /// Butterworth high-pass of second order, −3 dB at `corner_hz`, by the bilinear transform. At 0.5 Hz it
    /// takes baseline wander out of a rhythm strip (and moves the ST level: for that, use 0.05 Hz).
    pub fn high_pass(corner_hz: f64, rate: SampleRate) -> Result<Self, DesignError> {
        let hz = corner(corner_hz, rate)?;
        Ok(Self::of(vec![Biquad::high_pass(hz, rate.hz())], rate))
    }

    /// Butterworth low-pass of second order, −3 dB at `corner_hz`, by the bilinear transform.
    pub fn low_pass(corner_hz: f64, rate: SampleRate) -> Result<Self, DesignError> {
        let hz = corner(corner_hz, rate)?;
        Ok(Self::of(vec![Biquad::low_pass(hz, rate.hz())], rate))
    }

    /// A Butterworth high-pass of second order at `low_hz`, then a low-pass of second order at `high_hz`. −3 dB
    /// at the corners if they are two octaves apart; a little more if they are nearer.
    pub fn band_pass(low_hz: f64, high_hz: f64, rate: SampleRate) -> Result<Self, DesignError> {
        let (low, high) = (corner(low_hz, rate)?, corner(high_hz, rate)?);
        if low >= high {
            return Err(DesignError::Band);
        }
        let sections = vec![Biquad::high_pass(low, rate.hz()), Biquad::low_pass(high, rate.hz())];
        Ok(Self::of(sections, rate))
    }

    /// Takes out the mains at `hz` (50 or 60), and nearly nothing two hertz beside it: second order, Q = 30, by
    /// Bristow-Johnson's cookbook formulae for the bilinear transform. It rings for about 0.4 s after a step.
    pub fn notch(hz: f64, rate: SampleRate) -> Result<Self, DesignError> {
        Ok(Self::of(vec![Biquad::notch(corner(hz, rate)?, NOTCH_Q, rate.hz())], rate))
    }

    /// Filters the next samples in place.
    pub fn apply(&mut self, mv: &mut [f32]) {
        for value in mv {
            if is_sample(*value) {
                if self.missing >= self.restart {
                    self.start(f64::from(*value));
                }
                self.missing = 0;
                self.last = *value;
                *value = self.step();
            } else {
                *value = f32::NAN;
                if self.missing < self.restart {
                    self.missing += 1;
                    self.step();
                }
            }
        }
    }

    fn of(sections: Vec<Biquad>, rate: SampleRate) -> Self {
        let restart = (RESTART_S * rate.hz()) as usize + 1;
        let sections = sections.into_iter().map(|section| (section, Memory::default())).collect();
        Self { sections, last: 0.0, missing: restart, restart }
    }

    fn step(&mut self) -> f32 {
        let through = |value, (section, memory): &mut (Biquad, Memory)| section.step(memory, value);
        self.sections.iter_mut().fold(f64::from(self.last), through) as f32
    }

    fn start(&mut self, mut value: f64) {
        for (section, memory) in &mut self.sections {
            (*memory, value) = section.settled(value);
        }
    }
}

/// [`Recursive::high_pass`] over a whole slice.
pub fn high_pass(mv: &[f32], corner_hz: f64, rate: SampleRate) -> Result<Vec<f32>, DesignError> {
    Recursive::high_pass(corner_hz, rate).map(|filter| whole(filter, mv))
}

/// [`Recursive::low_pass`] over a whole slice.
pub fn low_pass(mv: &[f32], corner_hz: f64, rate: SampleRate) -> Result<Vec<f32>, DesignError> {
    Recursive::low_pass(corner_hz, rate).map(|filter| whole(filter, mv))
}

/// [`Recursive::band_pass`] over a whole slice.
pub fn band_pass(
    mv: &[f32],
    low_hz: f64,
    high_hz: f64,
    rate: SampleRate,
) -> Result<Vec<f32>, DesignError> {
    Recursive::band_pass(low_hz, high_hz, rate).map(|filter| whole(filter, mv))
}

/// [`Recursive::notch`] over a whole slice.
pub fn notch(mv: &[f32], hz: f64, rate: SampleRate) -> Result<Vec<f32>, DesignError> {
    Recursive::notch(hz, rate).map(|filter| whole(filter, mv))
}

fn whole(mut filter: Recursive, mv: &[f32]) -> Vec<f32> {
    let mut out = mv.to_vec();
    filter.apply(&mut out);
    out
}

fn corner(hz: f64, rate: SampleRate) -> Result<f64, DesignError> {
    if rate.hz() < MIN_RATE_HZ {
        return Err(DesignError::Rate);
    }
    let fits = hz > 0.0 && hz <= MAX_CORNER * rate.hz();
    if fits { Ok(hz) } else { Err(DesignError::Corner { share: MAX_CORNER }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES_HZ: [u32; 5] = [125, 250, 360, 500, 1_000];

    fn rate(hz: u32) -> SampleRate {
        SampleRate::from_hz(hz).unwrap()
    }

    /// Amplitude of a sine of amplitude 1 after ten seconds.
    fn gain(mut filter: Recursive, hz: f64, rate_hz: u32) -> f32 {
        let radians = 2.0 * std::f64::consts::PI * hz / f64::from(rate_hz);
        let mut wave: Vec<f32> =
            (0..20 * rate_hz).map(|i| (radians * f64::from(i)).sin() as f32).collect();
        filter.apply(&mut wave);
        wave[10 * rate_hz as usize..].iter().fold(0.0, |most, value| most.max(value.abs()))
    }

    #[test]
    fn corners_are_where_they_should_be() {
        let half_power = std::f32::consts::FRAC_1_SQRT_2;
        for hz in RATES_HZ {
            let band = || Recursive::band_pass(0.5, 40.0, rate(hz)).unwrap();
            for (at, expected) in [(0.5, half_power), (8.0, 1.0), (40.0, half_power), (0.05, 0.01)]
            {
                let gain = gain(band(), at, hz);
                assert!((gain - expected).abs() < 0.01, "{at} Hz at {hz} Hz: {gain}");
            }
            let high = gain(Recursive::high_pass(0.5, rate(hz)).unwrap(), 0.5, hz);
            let low = gain(Recursive::low_pass(40.0, rate(hz)).unwrap(), 40.0, hz);
            assert!((high - half_power).abs() < 0.01 && (low - half_power).abs() < 0.01);
        }
    }

    #[test]
    fn the_notch_takes_the_mains_and_leaves_the_rest() {
        for hz in RATES_HZ {
            for mains_hz in [50.0, 56.0] {
                let notch = || Recursive::notch(mains_hz, rate(hz)).unwrap();
                for (at, expected) in [(mains_hz, 0.0), (mains_hz - 10.0, 0.99), (5.0, 1.0)] {
                    let gain = gain(notch(), at, hz);
                    assert!((gain - expected).abs() < 0.01, "{at} Hz at {hz} Hz: {gain}");
                }
            }
        }
    }

    #[test]
    fn an_offset_makes_no_step_at_the_start_nor_after_a_gap() {
        let mut mv = vec![300.0; 500];
        mv.extend([f32::NAN; 100]);
        mv.extend([-200.0; 500]);
        let out = band_pass(&mv, 0.5, 40.0, rate(250)).unwrap();
        for (before, after) in mv.iter().zip(&out) {
            assert!(if before.is_nan() { after.is_nan() } else { after.abs() < 1e-3 });
        }
    }

    #[test]
    fn what_cannot_be_designed_is_said() {
        assert_eq!(notch(&[], 50.0, rate(100)).unwrap_err(), DesignError::Corner { share: 0.45 });
        assert_eq!(
            high_pass(&[], 0.0, rate(250)).unwrap_err(),
            DesignError::Corner { share: 0.45 }
        );
        assert_eq!(
            low_pass(&[], f64::NAN, rate(250)).unwrap_err(),
            DesignError::Corner { share: 0.45 }
        );
        assert_eq!(band_pass(&[], 9.0, 8.0, rate(250)).unwrap_err(), DesignError::Band);
        assert_eq!(high_pass(&[], 0.5, rate(49)).unwrap_err(), DesignError::Rate);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            mv in proptest::collection::vec(
                prop_oneof![9 => -5.0f32..5.0, 1 => Just(f32::NAN), 1 => Just(f32::MAX)], 0..600),
            cuts in proptest::collection::vec(1usize..90, 1..20),
        ) {
            let mut filter = Recursive::band_pass(0.5, 40.0, rate(250)).unwrap();
            let (mut framed, mut at) = (mv.clone(), 0);
            for cut in cuts.iter().cycle().take_while(|_| !mv.is_empty()) {
                let end = (at + cut).min(mv.len());
                filter.apply(&mut framed[at..end]);
                at = end;
                if at == mv.len() {
                    break;
                }
            }
            let bits = |mv: &[f32]| mv.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&framed), bits(&band_pass(&mv, 0.5, 40.0, rate(250)).unwrap()));
        }
    }
}
