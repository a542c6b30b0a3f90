use super::*;
use crate::beats::BeatModel;
use crate::beats::recordings::LabelledBeat;
use candle_core::Tensor;
use haar_schema::SampleRate;

/// A patient with a ventricular beat (early, broad) after every seventh.
fn record(name: &str, period: usize) -> AnnotatedRecord {
    let mut mv = vec![0.0_f32; 250 * 60];
    let mut beats = Vec::new();
    let mut at = period;
    while at + 2 * period < mv.len() {
        let ventricular = beats.len() % 7 == 6;
        let sample = if ventricular { at - period / 3 } else { at };
        let width = if ventricular { 12.0 } else { 4.0 };
        for (place, value) in mv.iter_mut().enumerate() {
            let away = (place as f32 - sample as f32) / width;
            *value += (-away * away).exp();
        }
        let class = if ventricular { BeatClass::V } else { BeatClass::N };
        beats.push(LabelledBeat { sample, class });
        at += period;
    }
    AnnotatedRecord {
        name: name.into(),
        case: CaseId(period as u64),
        rate: SampleRate::from_hz(250).unwrap(),
        leads: vec![mv],
        beats,
        is_paced: false,
    }
}

fn data() -> Dataset {
    let mut data = Dataset::default();
    for (name, period) in [("a", 190), ("b", 200), ("c", 220), ("d", 180)] {
        data.add(&record(name, period), &settings());
    }
    data.add(&AnnotatedRecord { is_paced: true, ..record("e", 210) }, &settings());
    data
}

fn settings() -> BeatSettings {
    let growth = Growth { trees: 20, learning_rate: 0.3, ..BeatSettings::default().growth };
    BeatSettings { growth, folds: 2, ..BeatSettings::default() }
}

#[test]
fn it_learns_and_what_it_writes_is_loaded() {
    let data = data();
    let folder = tempfile::tempdir().unwrap();
    let resume = folder.path().join("resume.safetensors");
    let (draft, confusion) = data.train(&settings(), Some(&resume), &mut |_| {}).unwrap();
    let v = confusion.class(BeatClass::V.index());
    assert!(v.cases > 30 && v.f1 > Some(0.9), "{confusion}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is left to resume from");
    draft.write(folder.path()).unwrap();
    let model = BeatModel::load(folder.path()).unwrap();
    assert_eq!((model.lineage().len(), model.members()), (4, 2));
    assert_eq!(model.manifest().data[0].note, "1 recordings of paced patients left out");
    let Context { classes, inputs } = &data.patients[0].contexts[0];
    assert_eq!(model.classify(inputs).unwrap()[20].class, classes[20]);
}

#[test]
fn a_training_that_was_broken_off_ends_with_the_same_bytes() {
    let data = data();
    let whole = data.train(&settings(), None, &mut |_| {}).unwrap().0.encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let resume = folder.path().join("resume");
    // As if it had been broken off after the first forest.
    let fold_of = data.folds(&settings());
    data.grow(&settings(), &fold_of, Some(&resume), &mut |_| {}).unwrap();
    for number in 1..6 {
        std::fs::remove_file(numbered(&resume, number)).unwrap();
    }
    let mut grown = Vec::new();
    let mut tell = |progress| match progress {
        BeatProgress::Grown { trees, .. } => grown.push(trees),
        BeatProgress::Read { .. } => {}
    };
    let (draft, _) = data.train(&settings(), Some(&resume), &mut tell).unwrap();
    assert_eq!(draft.encode().unwrap(), whole);
    assert_eq!((grown.first(), grown.len()), (Some(&21), 100), "the first forest was kept");
    // Another training's forests are refused.
    let other = BeatSettings { seed: 2, ..settings() };
    data.grow(&settings(), &fold_of, Some(&resume), &mut |_| {}).unwrap();
    let error = data.train(&other, Some(&resume), &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Keep(KeepError::Other { .. })), "{error}");
}

#[test]
fn at_the_threshold_ppv_and_sensitivity_stand_in_their_ratio() {
    let scores = [(4.0, true), (3.0, true), (2.0, false), (1.0, true), (0.0, false)];
    // Three called: PPV 2/3, sensitivity 2/3; four: 3/4 and 1.
    assert_eq!(threshold(scores.into(), 1.0), 0.5);
    // Two called: PPV 1, half of the sensitivity 1/3; four have half of it 1/2.
    assert_eq!(threshold(scores.into(), 0.5), 0.5);
    assert_eq!(threshold(vec![(1.0, true), (0.0, false)], 1.0), 0.5);
    assert_eq!(threshold(vec![(1.0, false)], 1.0), 0.0);
}

#[test]
fn recordings_of_one_patient_stay_together() {
    let mut data = Dataset::default();
    let settings = BeatSettings { same_patient: vec![vec!["a".into(), "c".into()]], ..settings() };
    for (name, period) in [("a", 190), ("b", 200), ("c", 220)] {
        data.add(&record(name, period), &settings);
    }
    let records: Vec<_> = data.patients.iter().map(|p| p.records.join(" ")).collect();
    assert_eq!(records, ["a c", "b"]);
    assert_eq!(data.patients[0].cases.len(), 2);
}

#[test]
fn settings_out_of_bounds_are_refused() {
    let nowhere = Path::new("/nowhere");
    let attempt =
        |settings: BeatSettings| train(nowhere, None, &settings, None, &mut |_| {}).unwrap_err();
    let growth = settings().growth;
    for settings in [
        BeatSettings { growth: Growth { trees: 0, ..growth }, ..settings() },
        BeatSettings { folds: 1, ..settings() },
        BeatSettings { growth: Growth { learning_rate: f64::NAN, ..growth }, ..settings() },
    ] {
        let error = attempt(settings);
        assert!(matches!(error, TrainError::Setting(_)), "{error}");
    }
    assert!(matches!(attempt(settings()), TrainError::Find(_)));
    let few = BeatSettings { folds: 5, ..settings() };
    let error = data().train(&few, None, &mut |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::TooFew { patients: 4, folds: 5 }), "{error}");
}

#[test]
fn beats_in_fibrillation_are_learned_from_by_the_forests_of_s_only() {
    let plain = data().train(&settings(), None, &mut |_| {}).unwrap().0;
    let mut data = data();
    let beats: Vec<BeatInput> =
        data.patients[0].contexts[0].inputs.iter().take(12).cloned().collect();
    for case in 100..110 {
        data.fibrillation.push(Fibrillation { case: CaseId(case), beats: beats.clone() });
    }
    let draft = data.train(&settings(), None, &mut |_| {}).unwrap().0;
    assert_eq!((draft.lineage.len(), plain.lineage.len()), (14, 4));
    assert_eq!(draft.manifest.data[1].cases, 10);
    let values = |draft: &Draft, class: BeatClass| {
        let first = |member: &BTreeMap<String, Tensor>| {
            let own = member.iter().filter(|(name, _)| name.starts_with(&format!("{class}.")));
            own.map(|(name, tensor)| format!("{name} {tensor}")).collect::<Vec<_>>()
        };
        draft.members.iter().flat_map(first).collect::<Vec<_>>()
    };
    assert_eq!(values(&draft, BeatClass::V), values(&plain, BeatClass::V));
    assert_eq!(values(&draft, BeatClass::F), values(&plain, BeatClass::F));
    // Every member knows half of the recordings only.
    let fold_of = data.folds(&settings());
    assert_eq!(fold_of[4..].iter().filter(|fold| **fold == 0).count(), 5);
}
