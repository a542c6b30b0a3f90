use super::*;
use haar_schema::Timestamp;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const HOUR_US: i64 = 3_600_000_000;

/// Patients whose level, spread and drift differ.
fn patients(count: u64, seed: u64) -> Vec<Series> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|number| {
            let readings = SIGNALS.map(|_| {
                let (level, spread) = (rng.random_range(60.0..110.0), rng.random_range(1.0..6.0));
                let mut drift = 0.0;
                (0..80)
                    .map(|hour| {
                        drift += rng.random_range(-0.5..0.5);
                        let noise: f64 = (0..4).map(|_| rng.random_range(-0.5..0.5)).sum();
                        (Timestamp::from_micros(hour * HOUR_US), level + drift + spread * noise)
                    })
                    .collect()
            });
            Series { id: CaseId(seed << 32 | number), group: "a".into(), readings: readings.into() }
        })
        .collect()
}

fn normals() -> Normals {
    let draft = fit(&patients(60, 1), 3, 1, "haar train personal", "2026-11-23").unwrap();
    let (text, weights) = draft.encode().unwrap();
    Normals::new(Package::from_parts(&text, &weights).unwrap()).unwrap()
}

#[test]
fn intervals_cover_new_patients_as_promised_and_beat_the_last_value() {
    let figures = &evaluate(&normals(), &patients(100, 2))["a"];
    assert_eq!(figures.len(), SIGNALS.len());
    // A hundred patients' first readings are few; over all signals they are enough.
    let first = |figures: &PersonalFigures| figures.coverages[0].measured_first;
    let first = figures.values().map(first).sum::<f64>() / figures.len() as f64;
    assert!((first - COVERAGES[0]).abs() < 0.06, "{first}");
    for (signal, figures) in figures {
        for coverage in &figures.coverages {
            assert!((coverage.measured - coverage.promised).abs() < 0.02, "{signal} {coverage:?}");
        }
        assert!(figures.coverages[0].width < figures.coverages[1].width);
        assert!(figures.mae < 0.9 * figures.mae_last_value, "{signal} {figures:?}");
        assert!(figures.pinball < 0.9 * figures.pinball_last_value, "{signal} {figures:?}");
        assert!(figures.pinball < 0.5 * figures.pinball_everybody, "{signal} {figures:?}");
    }
}

#[test]
fn what_is_usual_in_everybody_may_be_unusual_in_one() {
    let normals = normals();
    let mut state = PersonalState::default();
    let hour = |hour: i64| Timestamp::from_micros(hour * HOUR_US);
    for at in 0..30 {
        let value = 62.0 + (at % 3) as f64 * 0.3;
        let judgement = normals.observe(&mut state, SignalId::HEART_RATE, value, hour(at)).unwrap();
        assert_eq!(judgement.personal, at >= i64::from(FIRST_READINGS));
        assert!(at < 10 || judgement.unusual.is_none(), "{at} {judgement:?}");
    }
    let before = state.clone();
    let judgement = normals.observe(&mut state, SignalId::HEART_RATE, 85.0, hour(30)).unwrap();
    assert_eq!(judgement.unusual, Some(0.95));
    // After a day of silence everybody's values hold again.
    let mut silent = before.clone();
    let judgement = normals.observe(&mut silent, SignalId::HEART_RATE, 85.0, hour(54)).unwrap();
    assert_eq!((judgement.unusual, judgement.personal), (None, false));
    // What is late, too soon, not finite or of another signal changes nothing.
    let mut same = before.clone();
    for (signal, value, at) in [
        (SignalId::HEART_RATE, 85.0, hour(3)),
        (SignalId::HEART_RATE, 85.0, hour(29)),
        (SignalId::HEART_RATE, f64::NAN, hour(31)),
        (SignalId::OXYGEN_FLOW, 2.0, hour(31)),
    ] {
        assert_eq!(normals.observe(&mut same, signal, value, at), None);
    }
    assert_eq!(same, before);
}

#[test]
fn quantiles_of_a_table() {
    let sorted: Vec<f64> = (0..=10_000).map(f64::from).collect();
    let table = table_of(&sorted);
    for level in [0.001, 0.025, 0.05, 0.3, 0.5, 0.95, 0.975] {
        let found = quantile(&table, level);
        assert!((found - level * 10_000.0).abs() < 60.0, "{level} {found}");
    }
    assert_eq!(quantile(&table, 0.0), table[0]);
    assert_eq!(quantile(&table, 1.0), table[POINTS - 1]);
}

#[test]
fn too_little_and_what_does_not_fit_are_refused() {
    let few = fit(&patients(2, 1), 2, 1, "", "");
    assert!(matches!(few, Err(FitError::Few("heart_rate"))));
    assert!(matches!(fit(&patients(60, 1), 1, 1, "", ""), Err(FitError::Folds)));
    let mut draft = fit(&patients(60, 1), 2, 1, "", "").unwrap();
    draft.members[1].remove("steps");
    let (text, weights) = draft.encode().unwrap();
    let error = Normals::new(Package::from_parts(&text, &weights).unwrap()).unwrap_err();
    assert!(matches!(error, LoadError::Tensor(name) if name == "steps"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// A state that is written down and read again anywhere goes on bit for bit.
    #[test]
    fn framing_changes_nothing(values in prop::collection::vec(20.0f64..200.0, 1..60), cut in 0usize..60) {
        let normals = normals();
        let (mut whole, mut framed) = (PersonalState::default(), PersonalState::default());
        for (at, value) in values.iter().enumerate() {
            if at == cut {
                let bytes = postcard::to_allocvec(&framed).unwrap();
                framed = postcard::from_bytes(&bytes).unwrap();
            }
            let at = Timestamp::from_micros(at as i64 * HOUR_US);
            let one = normals.observe(&mut whole, SignalId::SPO2, *value, at);
            prop_assert_eq!(one, normals.observe(&mut framed, SignalId::SPO2, *value, at));
        }
        prop_assert_eq!(postcard::to_allocvec(&whole).unwrap(), postcard::to_allocvec(&framed).unwrap());
    }
}
