//! A window of ECG as features.

use crate::Family;
use crate::feature::{RHYTHM_MODEL, features};
use crate::group::{self, Group};
use haar_inference::rhythm::{RhythmClass, RhythmScore};
use haar_inference::{BeatClass, BeatInput, BeatScore, beat_inputs};
use haar_schema::{Beat, Feature, Features, Missing, SampleRate, SignalSet};
use haar_signals::ecg::{RrSeries, TooFewBeats, coverage, detect_r_peaks, quality};

/// Below this quality the peaks are mostly noise, and what is computed from them says nothing.
const MIN_QUALITY: f64 = 0.2;

/// Fewer beats in a row are no run.
const RUN_BEATS_MIN: usize = 3;

/// Fewer scored beats have no shares worth a rule.
const MIN_SCORED_BEATS: usize = 10;

/// What one window of ECG is like.
#[derive(Clone, PartialEq, Debug)]
pub struct EcgDescription {
    /// Every feature of the family; `beats.*` are missing until the model has spoken.
    pub features: Features,
    /// Sampling rate of the window.
    pub rate: SampleRate,
    /// R peaks, as indices of samples in the window, ascending.
    pub peaks: Vec<u32>,
    /// Input of the model for each peak; `None` where the beat cannot be cut out of the window.
    pub inputs: Vec<Option<BeatInput>>,
    /// AAMI class letter of each peak, where the model gave one.
    pub classes: Vec<Option<char>>,
    /// What the model said of each peak, where it was asked.
    pub scores: Vec<Option<BeatScore>>,
}

impl EcgDescription {
    /// The beats, for a strip over the same samples.
    pub fn beats(&self) -> Vec<Beat> {
        let classes = self.classes.iter().copied().chain(std::iter::repeat(None));
        self.peaks
            .iter()
            .zip(classes)
            .map(|(sample, class)| Beat { sample: *sample, class })
            .collect()
    }
}

/// Describes a window: its peaks, its rhythm, and what the model is to be given.
pub(crate) fn describe(
    mv: &[f32],
    rate: SampleRate,
    model: Option<&str>,
    groups: &[Group],
) -> EcgDescription {
    let since_first = mv.iter().position(|mv| mv.is_finite()).map_or(&[][..], |at| &mv[at..]);
    let (coverage, continuity) = (coverage(mv), coverage(since_first));
    let reason = if coverage == 0.0 { Missing::NoData } else { Missing::TooFew };
    let mut features: Features = features(Family::Ecg, SignalSet::EMPTY, model, &[])
        .into_iter()
        .map(|feature| (feature.name, Feature::missing(reason)))
        .collect();
    let peaks = detect_r_peaks(mv, rate);
    let quality = quality(mv, rate, &peaks).map(|quality| quality.index);
    let mut set = |name: &str, feature: Feature| features.insert(format!("ecg.{name}"), feature);
    set("coverage", Feature::value(coverage));
    set("continuity", Feature::value(continuity));
    if let Some(index) = quality {
        set("quality", Feature::value(index));
    }
    if coverage > 0.0 {
        set("beats", Feature::value(peaks.len() as f64));
    }
    let rhythm = RrSeries::from_intervals_ms(intervals_ms(mv, rate, &peaks));
    for (name, value) in [
        ("heart_rate", rhythm.heart_rate()),
        ("rmssd_ms", rhythm.rmssd_ms()),
        ("sdnn_ms", rhythm.sdnn_ms()),
        ("ectopic_fraction", rhythm.ectopic_fraction()),
        ("rr_irregularity", rhythm.irregularity()),
    ] {
        let feature = match (value, quality) {
            (_, Some(index)) if index < MIN_QUALITY => Feature::missing(Missing::PoorQuality),
            (Ok(value), _) => Feature::value(value),
            (Err(TooFewBeats { .. }), _) => Feature::missing(reason),
        };
        set(name, feature);
    }
    let usable = quality.is_some_and(|index| index >= MIN_QUALITY);
    group::describe_ecg(&mut features, groups, (mv, rate), (&peaks, &rhythm), usable);
    // Only where beats are scored: cutting them out is most of the work.
    let inputs = match model {
        None | Some(RHYTHM_MODEL) => vec![None; peaks.len()],
        Some(_) => beat_inputs(mv, rate, &peaks),
    };
    EcgDescription {
        features,
        rate,
        classes: vec![None; peaks.len()],
        scores: vec![None; peaks.len()],
        // A window of more than 2^32 samples is beyond every limit on windows.
        peaks: peaks.into_iter().map(|peak| u32::try_from(peak).unwrap_or(u32::MAX)).collect(),
        inputs,
    }
}

/// Adds the classes of the beats, and their shares among the beats that were scored.
pub(crate) fn conclude(description: &mut EcgDescription, scores: &[Option<BeatScore>]) {
    // Scores of other beats than these say nothing about them.
    if scores.len() != description.inputs.len() {
        return;
    }
    description.classes =
        scores.iter().map(|score| score.map(|score| score.class.letter())).collect();
    description.scores = scores.to_vec();
    let scored = scores.iter().flatten().count();
    for class in BeatClass::ALL {
        let of_class = scores.iter().flatten().filter(|score| score.class == class).count();
        let feature = if scored < MIN_SCORED_BEATS {
            Feature::missing(Missing::TooFew)
        } else {
            Feature::value(of_class as f64 / scored as f64)
        };
        let name = format!("beats.fraction_{}", class.letter().to_ascii_lowercase());
        description.features.insert(name, feature);
    }
    ventricular_run(description, scored >= MIN_SCORED_BEATS);
}

/// The longest run of ventricular beats. A beat without a score ends a run: it may have been another.
fn ventricular_run(description: &mut EcgDescription, is_scored: bool) {
    let peaks = &description.peaks;
    let (mut longest, mut current) = (0..0, 0..0);
    for (at, class) in description.classes.iter().enumerate() {
        current = match class {
            Some('V') if current.end == at => current.start..at + 1,
            Some('V') => at..at + 1,
            _ => at + 1..at + 1,
        };
        if current.len() > longest.len() {
            longest = current.clone();
        }
    }
    let rate = match (longest.len(), longest.clone().last()) {
        (RUN_BEATS_MIN.., Some(last)) => {
            let samples = f64::from(peaks[last].saturating_sub(peaks[longest.start]));
            let seconds = samples / description.rate.hz();
            Feature::value(60.0 * (longest.len() - 1) as f64 / seconds)
        }
        _ => Feature::missing(Missing::TooFew),
    };
    let length = match is_scored {
        true => Feature::value(longest.len() as f64),
        false => Feature::missing(Missing::TooFew),
    };
    description.features.insert("beats.run_v".to_owned(), length);
    description.features.insert("beats.run_v_rate".to_owned(), rate);
}

/// Adds what the model of rhythm says of the window.
pub(crate) fn conclude_rhythm(description: &mut EcgDescription, score: &RhythmScore) {
    for class in RhythmClass::ALL {
        let name = match class {
            RhythmClass::Normal => "rhythm.normal",
            RhythmClass::Fibrillation => "rhythm.fibrillation",
            RhythmClass::Other => "rhythm.other",
            RhythmClass::Noisy => "rhythm.noisy",
        };
        let probability = f64::from(score.probabilities[class.index()]);
        description.features.insert(name.to_owned(), Feature::value(probability));
    }
}

/// Intervals between peaks. One over missing samples, where a beat may have gone unseen, is no interval:
/// NaN, which [`RrSeries`] takes for implausible.
fn intervals_ms(mv: &[f32], rate: SampleRate, peaks: &[usize]) -> impl Iterator<Item = f64> {
    peaks.windows(2).map(move |pair| {
        let whole =
            mv.get(pair[0]..pair[1]).is_some_and(|between| between.iter().all(|mv| mv.is_finite()));
        if whole { (pair[1] - pair[0]) as f64 * 1_000.0 / rate.hz() } else { f64::NAN }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: SampleRate = match SampleRate::from_hz(250) {
        Some(rate) => rate,
        None => unreachable!(),
    };

    /// A lead II that is a P wave, a QRS complex and a T wave at each of the times.
    fn ecg(seconds: usize, beats: &[f64]) -> Vec<f32> {
        // Offset from the R peak in s, width in s, height in mV.
        let waves = [
            (-0.17, 0.025, 0.12),
            (-0.025, 0.008, -0.12),
            (0.0, 0.011, 1.1),
            (0.028, 0.009, -0.22),
            (0.27, 0.045, 0.28),
        ];
        (0..seconds * 250)
            .map(|sample| {
                let time = sample as f64 / 250.0;
                let near = beats.iter().filter(|beat| (**beat - time).abs() < 0.6);
                near.flat_map(|beat| {
                    waves.iter().map(move |(offset, width, height)| {
                        height * (-((time - beat - offset) / width).powi(2) / 2.0).exp()
                    })
                })
                .sum::<f64>() as f32
            })
            .collect()
    }

    fn steady(seconds: usize, interval: f64) -> Vec<f64> {
        (0..)
            .map(|beat| 0.4 + f64::from(beat) * interval)
            .take_while(|t| *t < seconds as f64)
            .collect()
    }

    fn value(description: &EcgDescription, name: &str) -> f64 {
        description.features[name].get().unwrap()
    }

    #[test]
    fn nothing_received_is_no_data() {
        for mv in [vec![], vec![f32::NAN; 7_500]] {
            let description = describe(&mv, RATE, Some("ecg-beats"), &[]);
            assert!(description.peaks.is_empty() && description.inputs.is_empty());
            for (name, feature) in &description.features {
                let expected = match name.as_str() {
                    "ecg.coverage" | "ecg.continuity" => Feature::Value(0.0),
                    _ => Feature::missing(Missing::NoData),
                };
                assert_eq!(*feature, expected, "{name}");
            }
        }
    }

    #[test]
    fn a_steady_rhythm_is_described() {
        let description = describe(&ecg(30, &steady(30, 0.8)), RATE, Some("ecg-beats"), &[]);
        assert!((value(&description, "ecg.heart_rate") - 75.0).abs() < 0.5);
        assert!(value(&description, "ecg.sdnn_ms") < 5.0);
        assert_eq!(value(&description, "ecg.ectopic_fraction"), 0.0);
        assert_eq!(value(&description, "ecg.coverage"), 1.0);
        assert!(value(&description, "ecg.beats") >= 36.0);
        assert_eq!(description.inputs.len(), description.peaks.len());
        assert!(description.features["beats.fraction_v"].get().is_none());
    }

    #[test]
    fn a_gap_is_no_long_interval() {
        let mut mv = ecg(30, &steady(30, 0.8));
        // One beat and its surroundings are gone; the two intervals around it become one of 1.6 s.
        mv[2_800..3_050].fill(f32::NAN);
        let description = describe(&mv, RATE, Some("ecg-beats"), &[]);
        assert!((value(&description, "ecg.heart_rate") - 75.0).abs() < 0.5);
        assert!(value(&description, "ecg.coverage") < 0.97);
    }

    #[test]
    fn before_the_first_sample_is_no_gap() {
        let mut mv = ecg(30, &steady(30, 0.8));
        mv[..5_000].fill(f32::NAN);
        let description = describe(&mv, RATE, Some("ecg-beats"), &[]);
        assert!(value(&description, "ecg.coverage") < 0.34);
        assert_eq!(value(&description, "ecg.continuity"), 1.0);
        mv.reverse();
        assert!(value(&describe(&mv, RATE, Some("ecg-beats"), &[]), "ecg.continuity") < 0.34);
    }

    #[test]
    fn scores_become_shares() {
        let mut description = describe(&ecg(30, &steady(30, 0.8)), RATE, Some("ecg-beats"), &[]);
        let beats = description.inputs.len();
        let score = |class| Some(BeatScore { class, probabilities: [0.2; 5] });
        conclude(&mut description, &[score(BeatClass::V)]);
        assert!(description.classes.iter().all(Option::is_none), "scores of other beats");

        let scores: Vec<Option<BeatScore>> = (0..beats)
            .map(|beat| match beat {
                0 => None,
                _ if beat % 4 == 0 => score(BeatClass::V),
                _ => score(BeatClass::N),
            })
            .collect();
        conclude(&mut description, &scores);
        let ectopic = (1..beats).filter(|beat| beat % 4 == 0).count() as f64;
        let share = value(&description, "beats.fraction_v");
        assert!((share - ectopic / (beats - 1) as f64).abs() < 1e-6);
        assert_eq!(value(&description, "beats.fraction_s"), 0.0);
        assert_eq!(value(&description, "beats.run_v"), 1.0);
        assert_eq!(description.features["beats.run_v_rate"], Feature::missing(Missing::TooFew));
        assert_eq!(description.beats()[4].class, Some('V'));
        assert_eq!(description.beats()[0].class, None);

        let run: Vec<Option<BeatScore>> = (0..beats)
            .map(|beat| score(if (10..16).contains(&beat) { BeatClass::V } else { BeatClass::N }))
            .collect();
        conclude(&mut description, &run);
        assert_eq!(value(&description, "beats.run_v"), 6.0);
        assert!((value(&description, "beats.run_v_rate") - 75.0).abs() < 0.5);

        let few: Vec<Option<BeatScore>> =
            scores.iter().enumerate().map(|(beat, score)| score.filter(|_| beat < 5)).collect();
        conclude(&mut description, &few);
        assert_eq!(description.features["beats.fraction_v"], Feature::missing(Missing::TooFew));
    }
}
