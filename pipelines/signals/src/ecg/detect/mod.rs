//! R peaks, as the samples come.
//!
//! The chain is that of most QRS detectors since Pan & Tompkins 1985 (IEEE Trans Biomed Eng 32:230–236):
//! band-pass, slope, energy in a moving window, thresholds that follow the signal, search back. Two things
//! differ, because beats need not be told at once: filters are symmetric and shift nothing in time, and a
//! candidate is held against what lies *around* it and not only before it. So there is no learning phase, and
//! the first beat is found like any other.
//!
//! Everything up to the energy happens on means of a few samples, at a rate of at least 120 Hz, which the
//! band allows; a parabola through the largest deflection gives the sample again. Each stage computes a
//! sample from a fixed stretch around it in a fixed order, so the peaks do not depend on how the stream
//! is cut, and an artefact is forgotten once it has left the stretch.
//!
//! Limits: a beat is told some eight seconds after it, when what lies around it is known, and at the latest
//! after [`DELAY_S_MAX`]; memory is that of a second of working samples and of the candidates within the delay,
//! whatever the length of the stream and of gaps in it.
//!
//! Not guaranteed: every threshold is relative, so that a slice without any ECG but with noise gives
//! peaks; `quality` tells. A paced beat is found by its complex, not by the spike. In ventricular flutter and
//! fibrillation there are no QRS complexes and no peaks are given; see `flutter_episodes`.

mod candidates;
mod choose;
mod front;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use haar_schema::SampleRate;

use super::filter::Biquad;
use super::filter::symmetric::Symmetric;
use super::flutter::Flutter;
use candidates::{Candidate, Maxima, SlopeEnergy, Stretch};
use choose::{Complex, SearchBack, Thresholds};
pub(super) use front::Front;

/// Below this rate a QRS complex is a sample or two, and nothing is detected.
pub const MIN_RATE_HZ: f64 = 50.0;

/// A beat is told at the latest so long after it, in seconds: 14 for what may yet turn out to be flutter (within
/// which its threshold is known), six for the longest gap that is searched, six for the intervals after it, and
/// some for the filters.
pub const DELAY_S_MAX: f64 = 28.0;

/// Samples are averaged as long as this rate remains: ten samples to a complex.
const WORKING_RATE_HZ: f64 = 120.0;

/// Band in which a QRS complex stands out from P and T waves, wander and muscle.
const BAND_HZ: (f64, f64) = (6.0, 18.0);

/// The response of the band-pass is cut off this far from its middle, in seconds: eight time constants.
const BAND_REACH_S: f64 = 0.3;

/// Width of a QRS complex: the window of the energy, in seconds.
const COMPLEX_S: f64 = 0.1;

/// How far the R lies at most from the middle of the energy, in seconds.
const PLACEMENT_S: f64 = 0.08;

/// Two beats are never nearer than this, in seconds: 250 per minute.
const REFRACTORY_S: f64 = 0.24;

/// Samples that go through all stages at a time, so that what is in between stays in the cache.
const CHUNK: usize = 4_096;

/// Finds the R peaks of one ECG lead: indices into `mv`, rising.
///
/// `mv` are samples in mV; NaN, infinite and absurd values (10 V) are no samples, are bridged, and never
/// bear a peak. Works from [`MIN_RATE_HZ`] up (below it nothing is found), on seconds as on hours; the result
/// depends on nothing but the slice. It is a [`Detector`] given all at once.
/// A beat within a tenth of a second of either end may be missed.
pub fn detect_r_peaks(mv: &[f32], rate: SampleRate) -> Vec<usize> {
    let mut detector = Detector::new(rate);
    let mut peaks = detector.push(mv);
    peaks.extend(detector.finish());
    peaks
}

/// Finds R peaks in a stream of samples.
///
/// However the stream is cut into frames, the peaks are those of [`detect_r_peaks`] on the whole.
///
/// ```
/// use haar_schema::SampleRate;
/// use haar_signals::ecg::{Detector, detect_r_peaks};
///
/// let mv: Vec<f32> = (0..2_500).map(|i| if i % 200 < 5 { 1.0 } else { 0.0 }).collect();
/// let rate = SampleRate::from_hz(250).unwrap();
/// let mut detector = Detector::new(rate);
/// let mut peaks: Vec<usize> = mv.chunks(77).flat_map(|frame| detector.push(frame)).collect();
/// peaks.extend(detector.finish());
/// assert_eq!(peaks, detect_r_peaks(&mv, rate));
/// ```
pub struct Detector {
    /// `None` where the rate is too low.
    stages: Option<Stages>,
}

impl Detector {
    /// For one lead. At less than [`MIN_RATE_HZ`] it finds nothing.
    pub fn new(rate: SampleRate) -> Self {
        let rate_hz = rate.hz();
        Self { stages: (rate_hz >= MIN_RATE_HZ).then(|| Stages::new(rate_hz)) }
    }

    /// Takes the next samples, in mV (NaN, infinite and absurd values are none), and gives the R peaks that
    /// are settled: numbers of samples since the beginning of the stream, rising from call to call.
    pub fn push(&mut self, mv: &[f32]) -> Vec<usize> {
        let mut peaks = Vec::new();
        if let Some(stages) = &mut self.stages {
            for chunk in mv.chunks(CHUNK) {
                stages.push(chunk, &mut peaks);
            }
        }
        peaks
    }

    /// The place in the stream before which all peaks have been given. It follows what was pushed at a
    /// distance of some eight seconds, at most [`DELAY_S_MAX`].
    pub fn settled(&self) -> usize {
        self.stages.as_ref().map_or(usize::MAX, |stages| stages.settled)
    }

    /// Ends the stream and gives the peaks that are left.
    pub fn finish(self) -> Vec<usize> {
        let mut peaks = Vec::new();
        if let Some(stages) = self.stages {
            stages.finish(&mut peaks);
        }
        peaks
    }
}

/// How many samples make a working sample, and the rate of these.
pub(super) fn working_rate(rate_hz: f64) -> (usize, f64) {
    let divisor = ((rate_hz / WORKING_RATE_HZ) as usize).max(1);
    (divisor, rate_hz / divisor as f64)
}

/// Lengths in working samples.
#[derive(Clone, Copy)]
struct Scale {
    /// Samples in a working sample.
    divisor: usize,
    /// How far the R lies from the energy.
    reach: usize,
    /// Least distance of two candidates.
    refractory: usize,
}

/// What each sample goes through, and the buffers in between.
struct Stages {
    front: Front,
    working: Vec<f32>,
    band_pass: Symmetric,
    band: Stretch,
    energy: SlopeEnergy,
    energies: Vec<f32>,
    maxima: Maxima,
    flutter: Flutter,
    candidates: Vec<Candidate>,
    thresholds: Thresholds,
    /// Complexes of which it is not known yet whether they lie in flutter.
    complexes: VecDeque<Complex>,
    search_back: SearchBack,
    /// How far a peak may lie before the place of its complex.
    placement: usize,
    /// All peaks before this have been given.
    settled: usize,
}

impl Stages {
    fn new(rate_hz: f64) -> Self {
        let (divisor, working_hz) = working_rate(rate_hz);
        let (high, low) =
            (Biquad::high_pass(BAND_HZ.0, working_hz), Biquad::low_pass(BAND_HZ.1, working_hz));
        let samples = |seconds: f64| (seconds * working_hz) as usize;
        let scale =
            Scale { divisor, reach: samples(PLACEMENT_S), refractory: samples(REFRACTORY_S) };
        Self {
            front: Front::new(divisor, rate_hz),
            working: Vec::new(),
            band_pass: Symmetric::band_pass(high, low, samples(BAND_REACH_S)),
            band: Stretch::default(),
            energy: SlopeEnergy::new(samples(COMPLEX_S) / 2),
            energies: Vec::new(),
            maxima: Maxima::new(scale),
            flutter: Flutter::new(working_hz, divisor),
            candidates: Vec::new(),
            thresholds: Thresholds::new(rate_hz),
            complexes: VecDeque::new(),
            search_back: SearchBack::new(rate_hz),
            placement: (scale.reach + 1) * divisor,
            settled: 0,
        }
    }

    fn push(&mut self, mv: &[f32], peaks: &mut Vec<usize>) {
        self.working.clear();
        self.front.push(mv, &mut self.working);
        self.advance();
        let decided = self
            .thresholds
            .advance(self.maxima.frontier(), |complex| self.complexes.push_back(complex));
        self.leave_out_flutter(decided.min(self.flutter.frontier()), peaks);
    }

    /// The new working samples, up to candidates and flutter.
    fn advance(&mut self) {
        self.flutter.push(&self.working);
        let before = self.band.samples.len();
        self.band_pass.push(&self.working, &mut self.band.samples);
        self.energies.clear();
        self.energy.push(&self.band.samples[before..], &mut self.energies);
        self.maxima.push(&self.energies, &self.band, &self.front, &mut self.candidates);
        self.maxima.forget(&mut self.band, &mut self.front);
        self.candidates.drain(..).for_each(|candidate| self.thresholds.push(candidate));
    }

    fn finish(mut self, peaks: &mut Vec<usize>) {
        self.working.clear();
        self.front.finish(&mut self.working);
        self.advance();
        let before = self.band.samples.len();
        self.band_pass.finish(&mut self.band.samples);
        self.energies.clear();
        self.energy.push(&self.band.samples[before..], &mut self.energies);
        self.energy.finish(&mut self.energies);
        self.maxima.push(&self.energies, &self.band, &self.front, &mut self.candidates);
        self.maxima.close(&self.band, &self.front, &mut self.candidates);
        self.candidates.drain(..).for_each(|candidate| self.thresholds.push(candidate));
        self.flutter.finish();
        self.thresholds.finish(|complex| self.complexes.push_back(complex));
        self.leave_out_flutter(usize::MAX, peaks);
    }

    fn leave_out_flutter(&mut self, frontier: usize, peaks: &mut Vec<usize>) {
        while let Some(complex) = self.complexes.pop_front_if(|next| next.candidate.at < frontier) {
            if !self.flutter.contains(complex.candidate.at) {
                self.search_back.push(complex);
            }
        }
        self.flutter.forget_before(frontier);
        let settled = self.search_back.advance(frontier, peaks);
        self.settled = settled.saturating_sub(self.placement);
    }
}
