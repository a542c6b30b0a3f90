//! Recordings with reference beats, cut as the live path would cut them.

use super::TrainError;
use crate::input::{Segment, segments};
use crate::{BeatClass, BeatInput};
use haar_recordings::wfdb::{Annotation, Record, find_records, read_annotations};
use haar_schema::SampleRate;
use std::path::Path;

/// Windows as long as the live path's.
const WINDOW_S: f64 = 30.0;
/// What of a window lies before and behind the beats that are taken from it, so that these have
/// neighbours on both sides.
const OVERLAP_S: f64 = 5.0;

/// One beat that somebody has labelled.
#[derive(Clone, Debug)]
pub struct LabelledBeat {
    /// Index of its annotation's sample in the recording.
    pub sample: usize,
    /// What it truly is.
    pub class: BeatClass,
    /// What the network is given about it, or none: see [`crate::beat_inputs`].
    pub input: Option<BeatInput>,
}

/// One person's beats.
#[derive(Debug)]
pub(super) struct Patient {
    pub(super) records: Vec<String>,
    pub(super) beats: Vec<(BeatClass, Segment)>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) patients: Vec<Patient>,
    /// Recordings of paced patients.
    pub(super) left_out: Vec<String>,
}

/// The labelled beats of a WFDB recording (`header`: its `.hea` file) with annotations in the `.atr` file
/// beside it; `None` if the patient is paced, for EC57 leaves such recordings out.
///
/// The lead is the one called `MLII`, for that is what the model is made for, else the first. The inputs are
/// computed from overlapping windows of 30 s, at the annotated times.
///
/// # Errors
/// If the recording cannot be read, or its lead is not in millivolt.
pub fn labelled_beats(header: &Path) -> Result<Option<Vec<LabelledBeat>>, TrainError> {
    let Some(beats) = read(header, 0)? else { return Ok(None) };
    Ok(Some(
        beats
            .into_iter()
            .map(|(sample, class, segment)| {
                let input = segment.map(|cut| BeatInput::from_parts(cut.waveform(0.0), cut.rr));
                LabelledBeat { sample, class, input }
            })
            .collect(),
    ))
}

/// Reads every recording of a folder. `margin`: samples by which training may move a beat.
/// `loaded` hears of each: how many there are and how many have been read.
pub(super) fn load(
    folder: &Path,
    same_patient: &[Vec<String>],
    margin: usize,
    mut loaded: impl FnMut(usize, usize),
) -> Result<Dataset, TrainError> {
    let headers = find_records(folder)?;
    let mut dataset = Dataset { patients: Vec::new(), left_out: Vec::new() };
    for (at, header) in headers.iter().enumerate() {
        let name = header.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match read(header, margin)? {
            None => dataset.left_out.push(name),
            Some(beats) => {
                let beats = beats.into_iter().filter_map(|(_, class, cut)| Some((class, cut?)));
                dataset.add(name, beats.collect(), same_patient);
            }
        }
        loaded(at + 1, headers.len());
    }
    Ok(dataset)
}

impl Dataset {
    fn add(
        &mut self,
        record: String,
        beats: Vec<(BeatClass, Segment)>,
        same_patient: &[Vec<String>],
    ) {
        let group = same_patient.iter().find(|group| group.contains(&record));
        let known = group.and_then(|group| {
            self.patients
                .iter_mut()
                .find(|patient| patient.records.iter().any(|record| group.contains(record)))
        });
        match known {
            Some(patient) => {
                patient.records.push(record);
                patient.beats.extend(beats);
            }
            None => self.patients.push(Patient { records: vec![record], beats }),
        }
    }
}

type Beat = (usize, BeatClass, Option<Segment>);

fn read(header: &Path, margin: usize) -> Result<Option<Vec<Beat>>, TrainError> {
    let record = Record::open(header)?;
    let annotations = read_annotations(header.with_extension("atr"))?;
    if is_paced(&annotations) {
        return Ok(None);
    }
    let signals = &record.header.signals;
    let lead = signals.iter().position(|signal| signal.description == "MLII").unwrap_or(0);
    let (Some(signal), Some(mv)) = (signals.get(lead), record.signals.get(lead)) else {
        return Err(TrainError::NoLead { record: header.into() });
    };
    if signal.units != "mV" {
        return Err(TrainError::Unit { record: header.into(), unit: signal.units.clone() });
    }
    let rate = SampleRate::from_millihertz((record.header.rate_hz * 1000.0).round() as u32)
        .ok_or_else(|| TrainError::NoLead { record: header.into() })?;
    Ok(Some(in_windows(mv, rate, &beats(&annotations, mv.len()), margin)))
}

/// Paced beats are the mark of a paced patient.
fn is_paced(annotations: &[Annotation]) -> bool {
    annotations.iter().any(|annotation| annotation.symbol == '/')
}

fn beats(annotations: &[Annotation], samples: usize) -> Vec<(usize, BeatClass)> {
    let inside = |annotation: &Annotation| {
        usize::try_from(annotation.sample).ok().filter(|sample| *sample < samples)
    };
    annotations
        .iter()
        .filter_map(|annotation| {
            Some((inside(annotation)?, BeatClass::from_annotation(annotation.symbol)?))
        })
        .collect()
}

/// Cuts the recording into overlapping windows and takes from each the beats of its middle.
fn in_windows(
    mv: &[f32],
    rate: SampleRate,
    beats: &[(usize, BeatClass)],
    margin: usize,
) -> Vec<Beat> {
    let samples = |seconds: f64| (rate.hz() * seconds) as usize;
    let (overlap, step) = (samples(OVERLAP_S), samples(WINDOW_S - 2.0 * OVERLAP_S).max(1));
    let position = |sample: usize| beats.partition_point(|(beat, _)| *beat < sample);
    let mut all = Vec::with_capacity(beats.len());
    for start in (0..mv.len()).step_by(step) {
        let from = start.saturating_sub(overlap);
        let to = (start + step + overlap).min(mv.len());
        let (first, last) = (position(from), position(to));
        let peaks: Vec<usize> = beats[first..last].iter().map(|(beat, _)| beat - from).collect();
        let cuts = segments(&mv[from..to], rate, &peaks, margin);
        let (take, leave) = (position(start) - first, position(start + step).min(last) - first);
        for (at, cut) in cuts.into_iter().enumerate().take(leave).skip(take) {
            let (sample, class) = beats[first + at];
            all.push((sample, class, cut));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotation(sample: u64, symbol: char) -> Annotation {
        Annotation { sample, symbol, subtype: 0, channel: 0, number: 0, aux: None }
    }

    #[test]
    fn every_beat_is_taken_once_and_in_order() {
        let rate = SampleRate::from_hz(250).unwrap();
        let mv: Vec<f32> =
            (0..250 * 95).map(|at| if at % 200 == 100 { 1.0 } else { 0.0 }).collect();
        let annotations: Vec<Annotation> =
            (0..mv.len() as u64 / 200).map(|beat| annotation(beat * 200 + 100, 'N')).collect();
        let beats = beats(&annotations, mv.len());
        let cut = in_windows(&mv, rate, &beats, 4);
        let samples: Vec<usize> = cut.iter().map(|(sample, ..)| *sample).collect();
        assert_eq!(samples, beats.iter().map(|(sample, _)| *sample).collect::<Vec<_>>());
        // All but the first and the last have neighbours on both sides.
        assert_eq!(cut.iter().filter(|(.., cut)| cut.is_some()).count(), cut.len() - 2);
    }

    #[test]
    fn paced_patients_are_known_by_their_beats() {
        assert!(is_paced(&[annotation(1, 'N'), annotation(2, '/')]));
        assert!(!is_paced(&[annotation(1, 'N'), annotation(2, '+')]));
        assert!(beats(&[annotation(1, '+'), annotation(9, 'N')], 5).is_empty());
    }

    #[test]
    fn recordings_of_one_patient_stay_together() {
        let mut dataset = Dataset { patients: vec![], left_out: vec![] };
        let same = [vec!["a".to_string(), "c".into()]];
        for record in ["a", "b", "c"] {
            dataset.add(record.into(), vec![], &same);
        }
        let records: Vec<_> = dataset.patients.iter().map(|p| p.records.join(" ")).collect();
        assert_eq!(records, ["a c", "b"]);
    }
}
