//! Recordings in atrial fibrillation whose beats nobody has annotated.
//!
//! In fibrillation any interval may be short, and no beat is a supraventricular one for coming early. The few patients with
//! annotated beats do not teach that: hardly any has fibrillation. But there are many short recordings that were annotated
//! as fibrillation (CinC 2017); the beats that are found in them count as not S. Nobody has said which of them are
//! ventricular, so the forests of V and F do not learn from them, and nothing is measured on them. (Recordings in normal rhythm, as many or
//! few as one likes beside them, did not help.)

use super::super::{BeatInput, beat_inputs};
use crate::training::random;
use haar_recordings::cinc2017::{self, Cinc2017Error, Recording, Rhythm};
use haar_recordings::corpus::CaseId;
use haar_schema::SampleRate;
use haar_signals::ecg::detect_r_peaks;
use rand::seq::IndexedRandom;
use std::path::Path;

/// Beats of one recording that are learned from.
const BEATS_MAX: usize = 15;
/// Random numbers of what is drawn, apart from all others of the training.
const DRAWN: usize = 1 << 33;

/// Some beats of a recording, none of them S.
pub(super) struct Fibrillation {
    pub(super) case: CaseId,
    pub(super) beats: Vec<BeatInput>,
}

/// The recordings in fibrillation under `folder`, in their order there.
pub(super) fn read(folder: &Path, seed: u64) -> Result<Vec<Fibrillation>, Cinc2017Error> {
    let recordings = cinc2017::read(folder)?;
    let numbered = recordings.iter().enumerate();
    Ok(numbered.filter_map(|(number, recording)| of(recording, seed, number)).collect())
}

fn of(recording: &Recording, seed: u64, number: usize) -> Option<Fibrillation> {
    if recording.rhythm != Rhythm::Fibrillation {
        return None;
    }
    let rate = SampleRate::from_millihertz(recording.rate_millihertz)?;
    let peaks = detect_r_peaks(&recording.mv, rate);
    let found: Vec<BeatInput> =
        beat_inputs(&recording.mv, rate, &peaks).into_iter().flatten().collect();
    let mut rng = random(seed, DRAWN + number, 0);
    let beats: Vec<BeatInput> = found.sample(&mut rng, BEATS_MAX).cloned().collect();
    (!beats.is_empty()).then_some(Fibrillation { case: recording.case, beats })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beats::input::tests::train;

    fn recording(rhythm: Rhythm, peaks: &[usize]) -> Recording {
        let rate = SampleRate::from_hz(250).unwrap();
        let mv = train(rate, 30, peaks);
        Recording { case: CaseId(7), rate_millihertz: 250_000, mv, rhythm }
    }

    #[test]
    fn only_fibrillation_is_taken() {
        let peaks: Vec<usize> = (1..36).map(|beat| beat * 200).collect();
        let taken = |rhythm| of(&recording(rhythm, &peaks), 1, 0);
        for other in [Rhythm::Normal, Rhythm::Other, Rhythm::Noisy] {
            assert!(taken(other).is_none());
        }
        assert_eq!(taken(Rhythm::Fibrillation).unwrap().beats.len(), BEATS_MAX);
        // Without beats there is nothing to learn.
        assert!(of(&recording(Rhythm::Fibrillation, &[]), 1, 0).is_none());
    }

    #[test]
    fn the_same_seed_draws_the_same_beats() {
        let peaks: Vec<usize> = (1..36).map(|beat| beat * 200 + beat % 3).collect();
        let record = recording(Rhythm::Fibrillation, &peaks);
        let drawn = |seed| of(&record, seed, 3).unwrap().beats;
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
