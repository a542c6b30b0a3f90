//! What the model is given of a recording.

use super::morphology::morphology;
use super::network::CHANNELS;
use super::signal::{Signal, WAVEFORM_HZ, WORKING_HZ};
use super::statistic::{Row, median};
use super::texture::texture;
use super::timing::timing;
use haar_schema::SampleRate;
use haar_signals::ecg::MIN_RATE_HZ;

/// The shortest recording that is judged, in seconds.
pub const MIN_SECONDS: f64 = 5.0;
/// The longest recording that is judged at once, in seconds; longer ones are cut into windows (see `af_burden`).
pub const MAX_SECONDS: f64 = 300.0;

/// How many numbers describe a recording.
pub(super) const FEATURES: usize = 191;
/// Samples of one window of the waveform: 30 s.
pub(super) const WINDOW: usize = 30 * WAVEFORM_HZ;

/// The ratio of an interval to the usual one stays within this of 1.
const INTERVAL_LIMIT: f64 = 1.0;
/// Waveform beyond so many heights of an R peak is an artefact.
const WAVEFORM_LIMIT: f32 = 4.0;

/// One recording, as the model sees it: made once, whichever models are asked.
#[derive(Clone, PartialEq, Debug)]
pub struct RhythmInput {
    /// NaN where one is not defined.
    pub(super) features: Vec<f32>,
    /// [`CHANNELS`] values by sample at [`WAVEFORM_HZ`].
    pub(super) waveform: Vec<f32>,
}

/// Why a recording is not judged.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Not a single sample.
    #[error("the recording has no samples; check the lead")]
    Empty,
    /// Shorter than [`MIN_SECONDS`].
    #[error("the recording has {0:.1} s; at least {MIN_SECONDS} s are needed to judge a rhythm")]
    TooShort(f64),
    /// Longer than [`MAX_SECONDS`].
    #[error("the recording has {0:.0} s; cut it into windows of at most {MAX_SECONDS} s")]
    TooLong(f64),
    /// Sampled more slowly than beats can be found.
    #[error("the recording has {0} samples/s; at least {MIN_RATE_HZ} are needed")]
    TooSlow(f64),
}

impl RhythmInput {
    /// Of one lead in mV; NaN, infinite and absurd values are gaps, which are bridged. Any rate from
    /// [`MIN_RATE_HZ`] up; which way up the lead was taken does not matter.
    ///
    /// # Errors
    /// If it has no samples, is too short or too long, or sampled too slowly.
    pub fn new(mv: &[f32], rate: SampleRate) -> Result<Self, InputError> {
        if rate.hz() < MIN_RATE_HZ {
            return Err(InputError::TooSlow(rate.hz()));
        }
        let seconds = mv.len() as f64 / rate.hz();
        if seconds < MIN_SECONDS {
            return Err(InputError::TooShort(seconds));
        }
        if seconds > MAX_SECONDS {
            return Err(InputError::TooLong(seconds));
        }
        let signal = Signal::new(mv, rate).ok_or(InputError::Empty)?;
        let features = features(&signal).0.into_iter().map(|(_, value)| value).collect();
        Ok(Self { features, waveform: waveform(&signal) })
    }

    /// What the model reads: the features in their order (NaN where one is not defined), then the waveform.
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.features.iter().chain(&self.waveform).copied()
    }

    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples() as f64 / WAVEFORM_HZ as f64
    }

    /// Samples of the waveform.
    pub(super) fn samples(&self) -> usize {
        self.waveform.len() / CHANNELS
    }

    /// Where windows of [`WINDOW`] samples start: one, or as many as overlap by half or a little more.
    pub(super) fn starts(&self) -> Vec<usize> {
        let beyond = self.samples().saturating_sub(WINDOW);
        let steps = beyond.div_ceil(WINDOW / 2);
        (0..=steps).map(|step| beyond * step / steps.max(1)).collect()
    }

    /// The window from `start` on, padded with zeros, and how many samples of it are signal.
    pub(super) fn window(&self, start: usize) -> (Vec<f32>, usize) {
        let end = (start + WINDOW).min(self.samples());
        let mut window = self.waveform[start * CHANNELS..end * CHANNELS].to_vec();
        window.resize(WINDOW * CHANNELS, 0.0);
        (window, end - start)
    }
}

/// Names of the features, in order.
pub fn feature_names() -> Vec<&'static str> {
    let flat = Signal {
        raw: vec![0.0; WORKING_HZ],
        clean: vec![0.0; WORKING_HZ],
        peaks: Vec::new(),
        height_mv: 1.0,
        turned: false,
    };
    features(&flat).0.into_iter().map(|(name, _)| name).collect()
}

/// Numbers that describe a recording, by name; NaN where one is not defined.
fn features(signal: &Signal) -> Row {
    let mut row = Row::default();
    let beats: Vec<f64> =
        signal.peaks.iter().map(|peak| *peak as f64 / WORKING_HZ as f64).collect();
    timing(&beats, signal.seconds(), &mut row);
    let residue = morphology(signal, &mut row);
    texture(signal, &residue, &mut row);
    row
}

/// The clean signal, and by how much the interval that a sample lies in differs from the usual one.
fn waveform(signal: &Signal) -> Vec<f32> {
    let intervals: Vec<f64> = signal.peaks.windows(2).map(|p| (p[1] - p[0]) as f64).collect();
    let usual = median(&intervals);
    let mut beat = 0;
    let interleaved = signal.waveform().into_iter().enumerate().flat_map(|(at, value)| {
        let place = at * WORKING_HZ / WAVEFORM_HZ;
        while signal.peaks.get(beat).is_some_and(|peak| *peak <= place) {
            beat += 1;
        }
        let interval = beat.checked_sub(1).and_then(|before| intervals.get(before));
        let off = interval.map_or(0.0, |interval| interval / usual - 1.0);
        let off = off.clamp(-INTERVAL_LIMIT, INTERVAL_LIMIT) as f32;
        [value.clamp(-WAVEFORM_LIMIT, WAVEFORM_LIMIT), off]
    });
    interleaved.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A spike every 0.8 s, the eleventh 0.3 s early.
    fn recording(seconds: usize) -> Vec<f32> {
        (0..seconds * 250)
            .map(|at| {
                let beat = (at / 200, at % 200);
                let place = if beat.0 == 10 { 25 } else { 100 };
                if beat.1.abs_diff(place) < 3 { 1.0 } else { 0.0 }
            })
            .collect()
    }

    fn of(mv: &[f32]) -> Result<RhythmInput, InputError> {
        RhythmInput::new(mv, SampleRate::from_hz(250).unwrap())
    }

    #[test]
    fn features_have_names() {
        let names = feature_names();
        assert_eq!(names.len(), FEATURES);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), FEATURES);
        assert_eq!(of(&recording(20)).unwrap().features.len(), FEATURES);
    }

    #[test]
    fn intervals_go_along_with_the_waveform() {
        let input = of(&recording(30)).unwrap();
        assert_eq!(input.samples(), 3_000);
        // The early beat is at 8.1 s; the one before at 7.6 s, the one after at 9.2 s.
        let off = |second: f64| input.waveform[(second * 100.0) as usize * 2 + 1];
        assert!((off(5.0)).abs() < 0.02);
        assert!((off(7.8) + 0.375).abs() < 0.03, "{}", off(7.8));
        assert!((off(8.5) - 0.375).abs() < 0.03);
    }

    #[test]
    fn windows_cover_the_recording() {
        for (seconds, starts) in
            [(10, vec![0]), (30, vec![0]), (31, vec![0, 100]), (60, vec![0, 1_500, 3_000])]
        {
            let input = of(&recording(seconds)).unwrap();
            assert_eq!(input.starts(), starts, "{seconds}");
        }
        let (window, valid) = of(&recording(10)).unwrap().window(0);
        assert_eq!((window.len(), valid), (WINDOW * CHANNELS, 1_000));
    }

    #[test]
    fn what_is_not_judged_is_said() {
        assert!(matches!(of(&[0.0; 100]), Err(InputError::TooShort(_))));
        assert_eq!(of(&[f32::NAN; 2_500]), Err(InputError::Empty));
        assert!(matches!(of(&vec![0.0; 250 * 301]), Err(InputError::TooLong(_))));
        let slow = RhythmInput::new(&[0.0; 1_000], SampleRate::from_hz(20).unwrap());
        assert_eq!(slow, Err(InputError::TooSlow(20.0)));
        let error = of(&[0.0; 100]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the recording has 0.4 s; at least 5 s are needed to judge a rhythm"
        );
    }
}
