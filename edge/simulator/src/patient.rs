//! One simulated patient: breath, beats, curves and vitals of one body, second by second.

use crate::ecg::EcgModel;
use crate::pulse::{BreathModel, PpgModel};
use crate::rhythm::{Beat, Drive, Rhythm, RhythmModel, Variability};
use crate::vitals::{Course, Vitals, VitalsModel};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// How long beats are kept: longer than two of the longest intervals and the pulse transit time.
const KEPT_S: f64 = 10.0;
/// Over how many intervals a monitor averages the heart rate.
const AVERAGED_BEATS: usize = 8;

/// What is the matter with a patient during one second.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// Illnesses, and how far each has set in, 0 to 1.
    pub courses: Vec<(Course, f64)>,
    /// The rhythm.
    pub rhythm: Rhythm,
    /// Share of ventricular ectopic beats.
    pub ventricular: f64,
    /// Share of supraventricular ectopic beats.
    pub supraventricular: f64,
}

impl Default for Condition {
    fn default() -> Self {
        Self { courses: Vec::new(), rhythm: Rhythm::Sinus, ventricular: 0.0, supraventricular: 0.0 }
    }
}

/// One second of a patient.
#[derive(Clone, PartialEq, Debug)]
pub struct Second {
    /// Beats whose R peak is in it, in seconds since the simulation began.
    pub beats: Vec<Beat>,
    /// ECG lead II in millivolts, at [`crate::ecg::ECG_HZ`].
    pub ecg: Vec<f64>,
    /// Plethysmogram, at [`crate::pulse::PPG_HZ`].
    pub ppg: Vec<f64>,
    /// Respiration, at [`crate::pulse::RESPIRATION_HZ`].
    pub respiration: Vec<f64>,
    /// Vitals at its end; the heart rate is that of the beats.
    pub vitals: Vitals,
}

/// A patient.
#[derive(Clone, Debug)]
pub struct Patient {
    second: u64,
    vitals: VitalsModel,
    breath: BreathModel,
    rhythm: RhythmModel,
    ecg: EcgModel,
    ppg: PpgModel,
    beats: Vec<Beat>,
}

impl Patient {
    /// Patient number `bed` of the ward drawn from `seed`. Each part of each patient has its own random
    /// stream, so that one more patient, or one more draw in one part, changes nothing in the others.
    pub fn new(seed: u64, bed: u32) -> Self {
        let stream = |part| random_stream(seed, bed, part);
        Self {
            second: 0,
            vitals: VitalsModel::new(stream(0)),
            breath: BreathModel::new(stream(1)),
            rhythm: RhythmModel::new(stream(2), Variability::default(), -KEPT_S),
            ecg: EcgModel::new(stream(3)),
            ppg: PpgModel::new(stream(4)),
            beats: Vec::new(),
        }
    }

    /// The next second.
    pub fn second(&mut self, condition: &Condition) -> Second {
        let from_s = self.second as f64;
        let to_s = from_s + 1.0;
        let mut vitals = self.vitals.second(&condition.courses);
        let breathing = self.breath.second(vitals.respiration_rate);
        while self.rhythm.last().at_s < to_s {
            let at_s = self.rhythm.last().at_s;
            let beat = self.rhythm.next(Drive {
                rate_per_min: vitals.heart_rate,
                breath: breathing.phase_at(at_s - from_s).sin(),
                rhythm: condition.rhythm,
                ventricular: condition.ventricular,
                supraventricular: condition.supraventricular,
            });
            self.beats.push(beat);
        }
        self.beats.retain(|beat| beat.at_s > from_s - KEPT_S);
        let ecg = self.ecg.second(&self.beats, from_s, breathing.phase, breathing.hz);
        let ppg = self.ppg.second(&self.beats, from_s, &breathing);
        vitals.heart_rate = heart_rate(&self.beats, to_s).unwrap_or(vitals.heart_rate);
        let beats = self.beats.iter().filter(|beat| (from_s..to_s).contains(&beat.at_s));
        let beats = beats.copied().collect();
        self.second += 1;
        Second { beats, ecg, ppg, respiration: breathing.samples, vitals }
    }
}

/// The random stream of one part of one patient.
pub(crate) fn random_stream(seed: u64, bed: u32, part: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(bed) << 8 | part);
    rng
}

/// Sixty over the mean of the last intervals, as a monitor shows it.
fn heart_rate(beats: &[Beat], until_s: f64) -> Option<f64> {
    let intervals: Vec<f64> = beats
        .iter()
        .rev()
        .filter(|beat| beat.at_s < until_s)
        .take(AVERAGED_BEATS)
        .map(|beat| beat.rr_s)
        .collect();
    (!intervals.is_empty()).then(|| 60.0 * intervals.len() as f64 / intervals.iter().sum::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecg::ECG_HZ;

    #[test]
    fn the_heart_rate_is_that_of_the_beats_and_beats_are_in_the_curve() {
        let mut patient = Patient::new(11, 3);
        let seconds: Vec<Second> =
            (0..120).map(|_| patient.second(&Condition::default())).collect();
        let beats: Vec<Beat> = seconds.iter().flat_map(|second| second.beats.clone()).collect();
        let ecg: Vec<f64> = seconds.iter().flat_map(|second| second.ecg.clone()).collect();
        for pair in beats.windows(2) {
            assert!((pair[1].at_s - pair[0].at_s - pair[1].rr_s).abs() < 1e-9);
        }
        let mean = seconds.iter().map(|second| second.vitals.heart_rate).sum::<f64>() / 120.0;
        assert!((beats.len() as f64 / 2.0 - mean).abs() < 2.0, "{} beats, {mean}", beats.len());
        for beat in beats.iter().filter(|beat| beat.at_s > 1.0 && beat.at_s < 119.0) {
            let near = (beat.at_s * f64::from(ECG_HZ)).round() as usize;
            let top = (near - 50..near + 50).max_by(|a, b| ecg[*a].total_cmp(&ecg[*b])).unwrap();
            assert!(top.abs_diff(near) <= 3, "R at {near}, top at {top}");
        }
    }

    #[test]
    fn a_patient_is_a_function_of_seed_and_number() {
        let run = |seed, bed| {
            let mut patient = Patient::new(seed, bed);
            (0..5).map(|_| patient.second(&Condition::default())).collect::<Vec<_>>()
        };
        assert_eq!(run(1, 2), run(1, 2));
        assert_ne!(run(1, 2), run(1, 3));
        assert_ne!(run(1, 2), run(2, 2));
    }
}
