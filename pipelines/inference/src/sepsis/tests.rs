//! The committee as a whole, trained on a few invented stays.

use super::*;
use crate::trees::Growth;
use haar_recordings::cinc2019::{Hour, Stay};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Stays of 30 hours; in every fifth the heart rate rises and lactate is measured from hour 12, and labels begin at 16.
fn stays(count: u64, seed: u64) -> Vec<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            let septic = number % 5 == 0;
            let hours = (0..30).map(|hour| {
                let mut values = [f32::NAN; VARIABLES.len()];
                let ill = septic && hour >= 12;
                values[0] = 80.0 + rng.random_range(-10.0..10.0) + if ill { 15.0 } else { 0.0 };
                if ill && hour % 4 == 0 {
                    values[22] = rng.random_range(2.0..5.0);
                }
                Hour { values, in_care_h: hour as f32 + 1.0, sepsis: Some(septic && hour >= 16) }
            });
            let stay = Stay {
                age_years: 60.0,
                male: 1.0,
                hospital_admission_h: -1.0,
                hours: hours.collect(),
            };
            let group = if number % 2 == 0 { "a" } else { "b" };
            Case { id: CaseId(seed << 32 | number), group: group.into(), stay }
        })
        .collect()
}

fn settings() -> SepsisSettings {
    let growth = Growth {
        trees: 15,
        leaves: 4,
        learning_rate: 0.3,
        leaf_weight: 5.0,
        ..SepsisSettings::default().growth
    };
    SepsisSettings { growth, folds: 3, ..SepsisSettings::default() }
}

fn trained() -> Trained {
    train(&stays(60, 1), &settings(), "haar train sepsis", "2026-11-23", None, &mut |_| {}).unwrap()
}

fn model(trained: &Trained) -> SepsisModel {
    let (text, weights) = trained.draft.encode().unwrap();
    SepsisModel::new(Package::from_parts(&text, &weights).unwrap()).unwrap()
}

#[test]
fn a_committee_learns_and_is_judged_on_whom_it_has_not_seen() {
    let trained = trained();
    let all = &trained.held_out.all;
    assert_eq!((all.patients, all.septic, all.held_out, all.unknown), (60, 12, 60, 0));
    assert!(all.auroc.unwrap() > 0.95 && all.utility.unwrap() > 0.5, "{all:?}");
    assert_eq!(trained.held_out.groups.keys().collect::<Vec<_>>(), ["a", "b"]);
    let model = model(&trained);
    let unseen = evaluate(&model, &stays(40, 2), &mut |_| {});
    assert_eq!((unseen.all.held_out, unseen.all.unknown), (0, 40));
    assert!(unseen.all.auroc.unwrap() > 0.95 && unseen.all.uncertainty.is_some());
    assert!(unseen.all.auroc_interval.unwrap().lower <= unseen.all.auroc.unwrap());
}

#[test]
fn shares_add_up_to_the_probability() {
    let model = model(&trained());
    for case in stays(10, 3) {
        let mut history = History::new(Patient::from(&case.stay));
        for hour in &case.stay.hours {
            let row = history.push(hour);
            for members in [0..3, 1..2] {
                let risk = model.risk(&row, members.clone()).unwrap();
                assert_eq!(risk.uncertainty.is_some(), members.len() > 1);
                let shares = model.explain(&row, members).unwrap();
                let sum: f64 = shares.inputs.iter().map(|input| input.1).sum();
                assert!((shares.neutral + sum - shares.log_odds).abs() < 1e-9);
                assert!((sigmoid(shares.log_odds) - risk.probability).abs() < 1e-12);
            }
        }
        let row = history.push(&case.stay.hours[29]);
        let septic = case.stay.has_sepsis().unwrap();
        let first = model.explain(&row, model.all_members()).unwrap().inputs[0];
        assert!(
            !septic
                || (first.1 > 0.0
                    && ["HR", "Lactate", "Laboratory values measured"].contains(&first.0)),
            "{first:?}"
        );
        assert_eq!(model.risk(&row, 3..3), None);
        assert_eq!(model.risk(&row, 2..4), None);
    }
}

#[test]
fn a_training_goes_on_where_it_stopped_and_refuses_another_ones_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resume");
    let (cases, settings) = (stays(60, 1), settings());
    let run = |settings: &SepsisSettings, grown: &mut usize| {
        train(&cases, settings, "", "2026-11-23", Some(&path), &mut |progress| {
            *grown += usize::from(matches!(progress, TrainProgress::Grown { .. }));
        })
    };
    let mut grown = 0;
    let whole = run(&settings, &mut grown).unwrap().draft.encode().unwrap().1;
    assert_eq!(grown, 45);
    std::fs::remove_file(folder.path().join("resume.1")).unwrap();
    grown = 0;
    assert_eq!(run(&settings, &mut grown).unwrap().draft.encode().unwrap().1, whole);
    assert_eq!(grown, 15);
    let other = SepsisSettings { seed: 7, ..settings };
    assert!(matches!(run(&other, &mut grown), Err(TrainError::Resume { .. })));
    Trained::forget(&settings, &path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_learned_from_or_loaded_is_refused() {
    let few = train(&stays(8, 1), &settings(), "", "", None, &mut |_| {});
    assert!(matches!(few, Err(TrainError::Few { septic: 2, .. })));
    let folds = SepsisSettings { folds: 2, ..settings() };
    assert!(matches!(
        train(&stays(60, 1), &folds, "", "", None, &mut |_| {}),
        Err(TrainError::Folds)
    ));
    let mut draft = trained().draft;
    draft.manifest.inputs[0].unit = "Hz".into();
    let (text, weights) = draft.encode().unwrap();
    let error = SepsisModel::new(Package::from_parts(&text, &weights).unwrap()).unwrap_err();
    assert!(matches!(error, LoadError::Inputs { .. }), "{error}");
    let mut draft = trained().draft;
    draft.members[0].remove(THRESHOLD);
    let (text, weights) = draft.encode().unwrap();
    let error = SepsisModel::new(Package::from_parts(&text, &weights).unwrap()).unwrap_err();
    assert!(matches!(error, LoadError::Tensor(name) if name == THRESHOLD));
}
