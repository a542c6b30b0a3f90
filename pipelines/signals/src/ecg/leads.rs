//! R peaks from two leads of one patient, taken at the same time.
//!
//! Beats are sought in each lead by itself. Stretch by stretch the first lead is believed as long as it is good,
//! and otherwise the better of the two; how good a lead is says the agreement of two detectors in it
//! (bSQI: Li, Mark & Clifford 2008, Physiol Meas 29:15–32, who fuse leads and pressure by it) times the share
//! of it that is there, moves and is not saturated. A lead that shows flutter without beats agrees with itself.
//!
//! The stretches count from the beginning of the stream, so that the peaks do not depend on how it is cut.
//!
//! Not guaranteed: noise that both detectors take for the same beats passes for a good lead; and where both
//! leads are bad, so are the peaks of the better one. Where one lead takes over from the other, a beat within a few
//! samples of that place may be missed.

use std::collections::VecDeque;
use std::ops::Range;

use haar_schema::SampleRate;

use super::detect::Detector;
use super::flutter::flutter_episodes;
use super::quality::{coverage, quality};

/// For so long one lead is believed at least, in seconds: some ten beats.
const STRETCH_S: f64 = 10.0;

/// A first lead that is at least this good is believed: one beat in twenty may be in doubt.
const GOOD: f64 = 0.95;

/// Peaks of two leads that are nearer to each other than this are one beat, in seconds.
const SAME_BEAT_S: f64 = 0.24;

/// Missing samples that are pushed at a time for a frame that is too short.
const MISSING: [f32; 256] = [f32::NAN; 256];

/// Finds the R peaks in two leads of the same patient and time: indices, rising.
///
/// Samples as for [`detect_r_peaks`](super::detect_r_peaks); a lead that ends before the other is missing from
/// there on. It is a [`LeadPair`] given all at once. `leads[0]` should be the one that is better as a rule.
pub fn detect_r_peaks_in_pair(leads: [&[f32]; 2], rate: SampleRate) -> Vec<usize> {
    let mut pair = LeadPair::new(rate);
    let mut peaks = pair.push(leads);
    peaks.extend(pair.finish());
    peaks
}

/// Finds R peaks in a stream of two leads. However the stream is cut into frames, the peaks are those of
/// [`detect_r_peaks_in_pair`] on the whole.
///
/// They are given a stretch of ten seconds at a time, once it is settled in both leads: after at most
/// [`DELAY_S_MAX`](super::DELAY_S_MAX) and ten seconds. The samples of that time are kept.
pub struct LeadPair {
    leads: [Lead; 2],
    rate: SampleRate,
    stretch: usize,
    /// Start of the first stretch that is not decided.
    start: usize,
    /// Which lead was believed last.
    believed: usize,
    /// The last peak given.
    last: Option<usize>,
}

/// A lead from the first undecided stretch on.
struct Lead {
    detector: Detector,
    mv: Vec<f32>,
    peaks: VecDeque<usize>,
}

impl LeadPair {
    /// At less than [`MIN_RATE_HZ`](super::MIN_RATE_HZ) it finds nothing.
    pub fn new(rate: SampleRate) -> Self {
        let lead =
            || Lead { detector: Detector::new(rate), mv: Vec::new(), peaks: VecDeque::new() };
        Self {
            leads: [lead(), lead()],
            rate,
            stretch: ((STRETCH_S * rate.hz()) as usize).max(1),
            start: 0,
            believed: 0,
            last: None,
        }
    }

    /// Takes the next samples of both leads, in mV. If one frame is shorter, the samples at its end are
    /// missing. Gives the peaks that are settled: numbers of samples since the beginning, rising from call
    /// to call.
    pub fn push(&mut self, frames: [&[f32]; 2]) -> Vec<usize> {
        let mut peaks = Vec::new();
        let mut rest = frames;
        // A stretch at a time, so that no more than the delay is kept of a long frame.
        while rest.iter().any(|frame| !frame.is_empty()) {
            let samples = self.stretch.min(rest[0].len().max(rest[1].len()));
            for (lead, rest) in self.leads.iter_mut().zip(&mut rest) {
                let (frame, after) = rest.split_at(samples.min(rest.len()));
                lead.push(frame);
                lead.push_missing(samples - frame.len());
                *rest = after;
            }
            while self.leads.iter().all(|lead| lead.detector.settled() >= self.start + self.stretch)
                && self.leads[0].mv.len() >= self.stretch
            {
                self.decide(self.stretch, &mut peaks);
            }
        }
        peaks
    }

    /// Ends the stream and gives the peaks that are left.
    pub fn finish(mut self) -> Vec<usize> {
        for lead in &mut self.leads {
            let ended = Detector::new(self.rate);
            lead.peaks.extend(std::mem::replace(&mut lead.detector, ended).finish());
        }
        let mut peaks = Vec::new();
        while !self.leads[0].mv.is_empty() {
            let samples = self.stretch.min(self.leads[0].mv.len());
            self.decide(samples, &mut peaks);
        }
        peaks
    }

    /// Gives the peaks of the lead to be believed in the next `samples`.
    fn decide(&mut self, samples: usize, peaks: &mut Vec<usize>) {
        let stretch = self.start..self.start + samples;
        let trust = self.leads.each_ref().map(|lead| lead.trust(&stretch, self.rate));
        match trust {
            // Too short to tell.
            [None, None] => {}
            [Some(first), _] if first >= GOOD => self.believed = 0,
            [first, second] => {
                self.believed = usize::from(second.unwrap_or(0.0) > first.unwrap_or(0.0));
            }
        }
        let apart = (SAME_BEAT_S * self.rate.hz()) as usize;
        for (index, lead) in self.leads.iter_mut().enumerate() {
            lead.mv.drain(..samples);
            while let Some(peak) = lead.peaks.pop_front_if(|peak| *peak < stretch.end) {
                if index == self.believed && self.last.is_none_or(|last| peak > last + apart) {
                    self.last = Some(peak);
                    peaks.push(peak);
                }
            }
        }
        self.start = stretch.end;
    }
}

impl Lead {
    fn push(&mut self, mv: &[f32]) {
        self.peaks.extend(self.detector.push(mv));
        self.mv.extend_from_slice(mv);
    }

    fn push_missing(&mut self, mut samples: usize) {
        while samples > 0 {
            let some = samples.min(MISSING.len());
            self.push(&MISSING[..some]);
            samples -= some;
        }
    }

    /// How good the lead is in a stretch that begins with its first sample, 0–1; `None` if that can't be told.
    fn trust(&self, stretch: &Range<usize>, rate: SampleRate) -> Option<f64> {
        let mv = &self.mv[..stretch.len()];
        let peaks: Vec<usize> = self
            .peaks
            .iter()
            .take_while(|peak| **peak < stretch.end)
            .map(|peak| peak - stretch.start)
            .collect();
        let there = coverage(mv);
        if there == 0.0 {
            return Some(0.0);
        }
        let quality = quality(mv, rate, &peaks)?;
        let flutter: usize = flutter_episodes(mv, rate).iter().map(ExactSizeIterator::len).sum();
        let agreement = if 2 * flutter > mv.len() { 1.0 } else { quality.agreement };
        Some(agreement * there * (1.0 - quality.flat - quality.saturated).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::detect_r_peaks;
    use crate::ecg::tests::{noise, rhythm};
    use proptest::prelude::*;

    fn rate() -> SampleRate {
        SampleRate::from_hz(250).unwrap()
    }

    #[test]
    fn the_good_lead_is_believed() {
        let clean = rhythm(250.0, 120.0, 0.8);
        let expected = detect_r_peaks(&clean, rate());
        let spoil = |how: fn(f32, f32) -> f32| -> Vec<f32> {
            let spoilt = clean.iter().zip(noise()).enumerate().map(|(index, (value, noise))| {
                if (7_600..17_400).contains(&index) { how(*value, noise) } else { *value }
            });
            spoilt.collect()
        };
        for how in [|_, _| f32::NAN, |_, _| 5.0, |value, noise| value + 6.0 * noise] {
            let bad = spoil(how);
            assert_ne!(detect_r_peaks(&bad, rate()), expected);
            assert_eq!(detect_r_peaks_in_pair([&bad, &clean], rate()), expected);
            assert_eq!(detect_r_peaks_in_pair([&clean, &bad], rate()), expected);
        }
    }

    #[test]
    fn a_lead_that_is_not_there_is_missing() {
        let clean = rhythm(250.0, 60.0, 0.8);
        let expected = detect_r_peaks(&clean, rate());
        assert_eq!(detect_r_peaks_in_pair([&clean, &[]], rate()), expected);
        assert_eq!(detect_r_peaks_in_pair([&[], &clean], rate()), expected);
        assert!(detect_r_peaks_in_pair([&[], &[]], rate()).is_empty());
        let slow = SampleRate::from_hz(40).unwrap();
        assert!(detect_r_peaks_in_pair([&clean, &clean], slow).is_empty());
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            off in proptest::collection::vec((0usize..2, 0usize..20_000, 1usize..6_000), 0..5),
            cuts in proptest::collection::vec(1usize..3_000, 1..30),
        ) {
            let mut leads = [rhythm(250.0, 80.0, 0.7), rhythm(250.0, 80.0, 0.7)];
            for (lead, begin, samples) in off {
                let end = (begin + samples).min(leads[lead].len());
                leads[lead][begin.min(end)..end].fill(f32::NAN);
            }
            let mut pair = LeadPair::new(rate());
            let (mut peaks, mut at) = (Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(leads[0].len());
                peaks.extend(pair.push([&leads[0][at..end], &leads[1][at..end]]));
                at = end;
                if at == leads[0].len() {
                    break;
                }
            }
            peaks.extend(pair.finish());
            prop_assert_eq!(peaks, detect_r_peaks_in_pair([&leads[0], &leads[1]], rate()));
        }
    }
}
