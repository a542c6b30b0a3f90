//! Why a model said what it said of a flagged window.
//!
//! Only windows that raised a flag are explained, since an explanation costs more than the score: of beats some milliseconds, of
//! a rhythm some hundreds. Everything is a function of the window and the model, so that a replay comes to the same bytes. A
//! model that cannot explain itself costs the explanation, not the flag.
//!
//! # What is explained
//! - A flag on `beats.*`: the one beat that speaks most for the class that the rule reads. Its numbers are named as the model has them; where
//!   shares lie on the beat's own waveform, they are given over time as well. What the beats that look alike add is one share.
//! - A flag on `rhythm.*`: of the rhythms that the rule reads, the most probable one; by feature, by `waveform` as a whole, and that
//!   one over time.
//! - The group of conditions: by feature of the window.

use haar_catalog::EcgDescription;
use haar_inference::BeatModel;
use haar_inference::beats::{
    BeatClass, BeatInput, RHYTHM_NAMES, SEGMENT_BEFORE, SEGMENT_RATE, SHAPE_NAMES,
    SURROUNDING_NAMES,
};
use haar_inference::condition::{
    ConditionFeatures, ConditionModel, ConditionScore, INPUTS as CONDITION_INPUTS,
};
use haar_inference::rhythm::{RhythmClass, RhythmInput, RhythmModel, feature_names};
use haar_schema::{
    Attribution, Evidence, OverTime, SampleRate, Scale, Score, Timestamp, features_digest, quantise,
};

/// What the beats of the window add that look like the one that is explained.
const ALIKE: &str = "beats that look alike";
/// Samples of a beat that are one stretch over time: 40 ms.
const BEAT_STRETCH: usize = 5;
/// What the model of rhythm gives a share for, in microseconds.
const RHYTHM_STRETCH_US: u32 = 100_000;

/// Why the beats of a window raised a flag whose rule read `evidence`. `start` is the time of the window's first sample.
pub(crate) fn beats(
    model: &BeatModel,
    description: &EcgDescription,
    start: Timestamp,
    evidence: &[Evidence],
) -> Option<Score> {
    let class = evidence.iter().find_map(|evidence| beat_class(&evidence.feature))?;
    let (beat, probability) = description
        .scores
        .iter()
        .enumerate()
        .filter_map(|(beat, score)| Some((beat, (*score)?.probabilities[class.index()])))
        // The first of equals.
        .reduce(|best, other| if other.1 > best.1 { other } else { best })?;
    let input = description.inputs.get(beat)?.as_ref()?;
    let context: Vec<BeatInput> = description.inputs.iter().flatten().cloned().collect();
    let place = description.inputs.iter().take(beat).flatten().count();
    let why = model.attribute(&context, place, class).ok()?;
    let names = RHYTHM_NAMES.iter().chain(&SHAPE_NAMES).chain(&SURROUNDING_NAMES);
    let shares = names
        .zip(&why.numbers)
        .map(|(name, share)| ((*name).into(), f64::from(*share)))
        .chain([(ALIKE.to_owned(), f64::from(why.alike))]);
    let stretches: Vec<f32> =
        why.over_time().chunks(BEAT_STRETCH).map(|stretch| stretch.iter().sum()).collect();
    let peak = u64::from(*description.peaks.get(beat)?);
    let peak = description.rate.sample_time(start, peak);
    Some(Score {
        name: format!("beat-{class}"),
        value: quantise(f64::from(probability)),
        uncertainty: None,
        horizon_h: None,
        model: model.reference().clone(),
        // What the beats alike add is an input like the others.
        features_sha256: features_digest(
            input.numbers().iter().chain([&why.alike]).map(|number| f64::from(*number)),
        ),
        attribution: Attribution::new(
            Scale::LogOdds,
            f64::from(why.neutral),
            f64::from(why.output),
            shares,
        ),
        over_time: Some(OverTime::new(
            peak.plus_micros(-samples_us(SEGMENT_BEFORE)),
            samples_us(BEAT_STRETCH) as u32,
            &stretches,
        )),
    })
}

/// Why the rhythm of a window raised a flag whose rule read `evidence`.
pub(crate) fn rhythm(
    model: &RhythmModel,
    mv: &[f32],
    rate: SampleRate,
    start: Timestamp,
    evidence: &[Evidence],
) -> Option<Score> {
    let input = RhythmInput::new(mv, rate).ok()?;
    let score = *model.classify(std::slice::from_ref(&input)).ok()?.first()?;
    let probability = |class: &RhythmClass| score.probabilities[class.index()];
    let (name, class) = evidence
        .iter()
        .filter_map(|evidence| rhythm_class(&evidence.feature))
        .max_by(|(_, a), (_, b)| probability(a).total_cmp(&probability(b)))?;
    let why = model.attribute(&input, class).ok()?;
    let waveform = why.over_time.iter().map(|share| f64::from(*share)).sum();
    let features = feature_names().into_iter().zip(&why.features);
    let shares = features
        .map(|(name, share)| (name.to_owned(), f64::from(*share)))
        .chain([("waveform".to_owned(), waveform)]);
    Some(Score {
        name: format!("rhythm-{name}"),
        value: quantise(f64::from(probability(&class))),
        uncertainty: None,
        horizon_h: None,
        model: model.reference().clone(),
        features_sha256: features_digest(input.values().map(f64::from)),
        attribution: Attribution::new(
            Scale::LogOdds,
            f64::from(why.neutral),
            f64::from(why.output),
            shares,
        ),
        over_time: Some(OverTime::new(start, RHYTHM_STRETCH_US, &why.over_time)),
    })
}

/// Why a window was sorted under a group.
pub(crate) fn condition(
    model: &ConditionModel,
    window: &ConditionFeatures,
    score: &ConditionScore,
) -> Option<Score> {
    let why = model.attribute(window, score.group).ok()?;
    let shares = CONDITION_INPUTS
        .iter()
        .zip(why.shares.first()?)
        .map(|(input, share)| (input.name.to_owned(), f64::from(*share)));
    let (neutral, output) = (f64::from(why.neutral), f64::from(why.output));
    Some(Score {
        name: format!("condition-{}", score.group.as_str()),
        value: quantise(f64::from(score.probabilities[score.group.index()])),
        uncertainty: None,
        horizon_h: None,
        model: model.reference().clone(),
        features_sha256: features_digest(window.values().iter().map(|value| f64::from(*value))),
        attribution: Attribution::new(Scale::Probability, neutral, output, shares),
        over_time: None,
    })
}

/// The class that a feature of beats is about.
fn beat_class(feature: &str) -> Option<BeatClass> {
    let about = feature.strip_prefix("beats.")?;
    let about = about.strip_prefix("fraction_").or_else(|| about.strip_prefix("run_"))?;
    BeatClass::ALL.into_iter().find(|class| {
        about.chars().next().is_some_and(|letter| letter.eq_ignore_ascii_case(&class.letter()))
    })
}

/// The rhythm that a feature is about, with its name.
fn rhythm_class(feature: &str) -> Option<(&str, RhythmClass)> {
    let name = feature.strip_prefix("rhythm.")?;
    let class = match name {
        "normal" => RhythmClass::Normal,
        "fibrillation" => RhythmClass::Fibrillation,
        "other" => RhythmClass::Other,
        "noisy" => RhythmClass::Noisy,
        _ => return None,
    };
    Some((name, class))
}

const fn samples_us(samples: usize) -> i64 {
    samples as i64 * 1_000_000_000 / SEGMENT_RATE.millihertz() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::{ATTRIBUTION_TOLERANCE, Feature, MAX_TIME_SHARES};

    const RATE: SampleRate = match SampleRate::from_hz(250) {
        Some(rate) => rate,
        None => unreachable!(),
    };
    const START: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    /// Half a minute in which every fifth beat comes early and is broad.
    fn ectopy() -> Vec<f32> {
        let mut mv: Vec<f32> = (0..7_500).map(|at| 0.01 * ((at * 7_919) % 13) as f32).collect();
        let (mut at, mut beat) = (150.0_f32, 0);
        while at < 7_300.0 {
            let broad = beat % 5 == 4;
            let (width, height) = if broad { (14.0, 1.6) } else { (4.0, 1.0) };
            for (place, value) in mv.iter_mut().enumerate() {
                let away = (place as f32 - at) / width;
                let t = (place as f32 - at - 70.0) / 16.0;
                *value += height * (-away * away).exp() + 0.2 * (-t * t).exp();
            }
            beat += 1;
            at += if beat % 5 == 4 { 130.0 } else { 200.0 };
        }
        mv
    }

    fn read(features: &[&str]) -> Vec<Evidence> {
        let evidence = |feature: &&str| Evidence {
            feature: (*feature).to_owned(),
            value: Feature::value(0.5),
        };
        features.iter().map(evidence).collect()
    }

    fn assert_whole(score: &Score) {
        let Attribution { neutral, output, .. } = score.attribution;
        assert!(
            score.attribution.is_complete(),
            "{neutral} to {output}: {}",
            score.attribution.sum()
        );
        assert!((0.0..=1.0).contains(&score.value) && score.features_sha256.len() == 64);
    }

    #[test]
    fn an_ectopic_beat_is_explained_in_numbers_and_time() {
        let all = haar_catalog::builtin();
        let pipeline = all.iter().find(|own| own.reference().id == "ecg-rhythm").unwrap();
        let model = BeatModel::builtin().unwrap();
        let mut description = pipeline.describe_ecg(&ectopy(), RATE);
        let inputs: Vec<_> = description.inputs.iter().flatten().cloned().collect();
        let mut scores = model.classify(&inputs).unwrap().into_iter();
        let placed: Vec<_> = description
            .inputs
            .iter()
            .map(|input| input.as_ref().and_then(|_| scores.next()))
            .collect();
        pipeline.conclude_ecg(&mut description, &placed);
        let evidence = read(&["ecg.beats", "beats.fraction_v"]);
        let score = beats(&model, &description, START, &evidence).unwrap();
        assert_eq!(score.name, "beat-V");
        assert_whole(&score);
        let most = placed.iter().flatten().map(|score| score.probabilities[BeatClass::V.index()]);
        assert_eq!(score.value, quantise(f64::from(most.fold(0.0, f32::max))));
        let time = score.over_time.clone().unwrap();
        assert!(time.start_us > START && time.shares.len() == 20 && time.step_us == 40_000);
        // The same window, the same words; another window, another digest.
        assert_eq!(beats(&model, &description, START, &evidence), Some(score.clone()));
        let other = beats(&model, &description, START, &read(&["beats.fraction_s"])).unwrap();
        assert_eq!(other.name, "beat-S");
        assert!(beats(&model, &description, START, &read(&["ecg.heart_rate"])).is_none());
    }

    #[test]
    fn a_rhythm_is_explained_by_feature_and_over_time() {
        let model = RhythmModel::builtin().unwrap();
        let evidence = read(&["rhythm.fibrillation", "rhythm.other", "rhythm.normal"]);
        let score = rhythm(&model, &ectopy(), RATE, START, &evidence).unwrap();
        assert_whole(&score);
        let time = score.over_time.clone().unwrap();
        assert!(time.start_us == START && time.shares.len() <= MAX_TIME_SHARES);
        let known = model.classify(&[RhythmInput::new(&ectopy(), RATE).unwrap()]).unwrap()[0];
        let read = [RhythmClass::Normal, RhythmClass::Fibrillation, RhythmClass::Other];
        let most =
            read.map(|class| known.probabilities[class.index()]).into_iter().fold(0.0, f32::max);
        assert_eq!(score.value, quantise(f64::from(most)));
        assert!(rhythm(&model, &[0.0; 40], RATE, START, &evidence).is_none());
    }

    #[test]
    fn a_group_is_explained_by_the_features_that_are_there() {
        let model = ConditionModel::builtin().unwrap();
        let values =
            [("spo2.mean", 84.0), ("respiration_rate.mean", 31.0), ("heart_rate.mean", 120.0)];
        let window = ConditionFeatures::of(|name| {
            values.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
        });
        let known = model.classify(&[window]).unwrap()[0];
        let score = condition(&model, &window, &known).unwrap();
        assert_whole(&score);
        assert_eq!(score.name, format!("condition-{}", known.group.as_str()));
        let absent: f64 = score
            .attribution
            .contributions
            .iter()
            .filter(|own| values.iter().all(|(name, _)| *name != own.input))
            .map(|own| own.share.abs())
            .sum();
        assert!(absent <= ATTRIBUTION_TOLERANCE, "what is not there says nothing: {absent}");
    }

    #[test]
    fn features_are_about_classes() {
        assert_eq!(beat_class("beats.run_v_rate"), Some(BeatClass::V));
        assert_eq!(beat_class("beats.fraction_s"), Some(BeatClass::S));
        assert_eq!(beat_class("ecg.beats"), None);
        assert_eq!(rhythm_class("rhythm.noisy"), Some(("noisy", RhythmClass::Noisy)));
        assert_eq!(rhythm_class("ecg.rr_irregularity"), None);
    }
}
