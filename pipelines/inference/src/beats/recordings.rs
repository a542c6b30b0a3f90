//! Recordings with reference beats.

use super::BeatClass;
use super::input::{BeatInput, LEADS_MAX, beat_inputs_of_leads};
use haar_recordings::corpus::CaseId;
use haar_recordings::wfdb::{Annotation, AnnotationError, Record, RecordError, read_annotations};
use haar_schema::SampleRate;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Windows as long as the live path's.
const WINDOW_S: f64 = 30.0;
/// What of a window lies before and behind the beats that are taken from it, so that these have
/// neighbours on both sides.
const OVERLAP_S: f64 = 5.0;

/// A WFDB recording with annotated beats.
#[derive(Clone, Debug)]
pub struct AnnotatedRecord {
    /// Its name.
    pub name: String,
    /// Names the file of its signals by content.
    pub case: CaseId,
    /// Rate of its samples.
    pub rate: SampleRate,
    /// Its signals in millivolt, at most [`LEADS_MAX`], of equal length.
    pub leads: Vec<Vec<f32>>,
    /// The annotated beats, in order.
    pub beats: Vec<LabelledBeat>,
    /// Whether beats are paced; EC57 leaves such patients out.
    pub is_paced: bool,
}

/// One beat that somebody has labelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LabelledBeat {
    /// Index of its annotation's sample in the recording.
    pub sample: usize,
    /// What it truly is.
    pub class: BeatClass,
}

/// Why a recording is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The signals are not readable.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its annotations are not readable.
    #[error(transparent)]
    Annotations(#[from] AnnotationError),
    /// The file of its signals cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No signal in millivolt with a sampling rate.
    #[error("{record} has no signal in mV with a sampling rate; convert it")]
    NoLead {
        /// Its header.
        record: PathBuf,
    },
}

impl AnnotatedRecord {
    /// Reads a recording (`header`: its `.hea` file, the signals in the `.dat` file of that name) with annotations in the
    /// `.atr` file beside it. Signals in other units than mV are left out.
    ///
    /// # Errors
    /// If a file is not readable or there is no signal in mV.
    pub fn read(header: &Path) -> Result<Self, ReadError> {
        let record = Record::open(header)?;
        let annotations = read_annotations(header.with_extension("atr"))?;
        let path = header.with_extension("dat");
        let bytes = std::fs::read(&path).map_err(|source| ReadError::File { path, source })?;
        let signals = record.header.signals.iter().zip(record.signals);
        let mut leads: Vec<Vec<f32>> = signals
            .filter(|(signal, _)| signal.units == "mV")
            .map(|(_, samples)| samples)
            .take(LEADS_MAX)
            .collect();
        let length = leads.first().map_or(0, Vec::len);
        leads.retain(|lead| lead.len() == length);
        let rate = SampleRate::from_millihertz((record.header.rate_hz * 1000.0).round() as u32);
        let (Some(rate), true) = (rate, length > 0) else {
            return Err(ReadError::NoLead { record: header.into() });
        };
        Ok(Self {
            name: header.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            case: CaseId::of(&bytes),
            rate,
            leads,
            beats: beats(&annotations, length),
            is_paced: annotations.iter().any(|annotation| annotation.symbol == '/'),
        })
    }

    /// The inputs of beats at `peaks`, ascending: with the whole recording as their context, or (`windowed`) as the live path
    /// has them, from windows of 30 s that overlap by 10 s.
    pub fn inputs(&self, peaks: &[usize], windowed: bool) -> Vec<Option<BeatInput>> {
        self.inputs_of(0..self.leads.len(), peaks, windowed)
    }

    /// [`Self::inputs`] of some leads.
    pub(super) fn inputs_of(
        &self,
        leads: Range<usize>,
        peaks: &[usize],
        windowed: bool,
    ) -> Vec<Option<BeatInput>> {
        let leads: Vec<&[f32]> = self.leads[leads].iter().map(Vec::as_slice).collect();
        let length = leads.first().map_or(0, |lead| lead.len());
        if !windowed {
            return beat_inputs_of_leads(&leads, self.rate, peaks);
        }
        let samples = |seconds: f64| (self.rate.hz() * seconds) as usize;
        let (overlap, step) = (samples(OVERLAP_S), samples(WINDOW_S - 2.0 * OVERLAP_S).max(1));
        let position = |sample: usize| peaks.partition_point(|peak| *peak < sample);
        let mut all = Vec::with_capacity(peaks.len());
        for start in (0..length).step_by(step) {
            let from = start.saturating_sub(overlap);
            let to = (start + step + overlap).min(length);
            let (first, last) = (position(from), position(to));
            let inside: Vec<usize> = peaks[first..last].iter().map(|peak| peak - from).collect();
            let window: Vec<&[f32]> = leads.iter().map(|lead| &lead[from..to]).collect();
            let cuts = beat_inputs_of_leads(&window, self.rate, &inside);
            let (take, leave) = (position(start) - first, position(start + step).min(last) - first);
            all.extend(cuts.into_iter().take(leave).skip(take));
        }
        all.resize(peaks.len(), None);
        all
    }
}

fn beats(annotations: &[Annotation], samples: usize) -> Vec<LabelledBeat> {
    annotations
        .iter()
        .filter_map(|annotation| {
            let sample = usize::try_from(annotation.sample).ok().filter(|at| *at < samples)?;
            Some(LabelledBeat { sample, class: BeatClass::from_annotation(annotation.symbol)? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beats::input::tests::train;

    #[test]
    fn every_peak_is_taken_once_and_in_order() {
        let rate = SampleRate::from_hz(250).unwrap();
        let peaks: Vec<usize> = (0..118).map(|beat| beat * 200 + 100).collect();
        let record = AnnotatedRecord {
            name: "a".into(),
            case: CaseId(1),
            rate,
            leads: vec![train(rate, 95, &peaks)],
            beats: vec![],
            is_paced: false,
        };
        for windowed in [false, true] {
            let inputs = record.inputs(&peaks, windowed);
            assert_eq!(inputs.len(), peaks.len());
            // All but the first and the last have neighbours on both sides.
            assert_eq!(inputs.iter().flatten().count(), peaks.len() - 2);
        }
    }

    #[test]
    fn annotations_that_are_no_beats_are_left_out() {
        let annotation = |sample, symbol| Annotation {
            sample,
            symbol,
            subtype: 0,
            channel: 0,
            number: 0,
            aux: None,
        };
        let found = beats(&[annotation(1, '+'), annotation(2, 'V'), annotation(9, 'N')], 5);
        assert_eq!(found, [LabelledBeat { sample: 2, class: BeatClass::V }]);
    }
}
