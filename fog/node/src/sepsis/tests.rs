//! Charts over hours of windows: what is raised, that it adds up, and that neither a kill nor a replay changes it.

use super::*;
use crate::facts::ROW_VERSION;
use haar_alarms::{Alarms, Input, Phase, Policy};
use haar_dataflow::item::Lane;
use haar_schema::Timestamp;
use haar_schema::{Features, InputsDigest, PipelineRef, WindowDigest, WindowKey};
use std::collections::BTreeMap;

const MINUTE_US: i64 = 60_000_000;
/// Three an hour.
const WINDOWS: i64 = 150;
/// Hours that are over when the last window comes.
const HOURS: usize = WINDOWS as usize / 3 - 1;

/// By the built-in model.
fn judge(charts: &mut Charts, window: &mut Concluded) {
    let models = Timeline::constant(SepsisModel::builtin().unwrap());
    charts.judge(window, &models, &mut Said::default());
}

fn window(minute: i64, pipeline: &str, vitals: &[(&str, f64)]) -> Concluded {
    let key = WindowKey {
        edge: "edge-1".parse().unwrap(),
        subject: Subject::from_bytes([7; 16]),
        pipeline: pipeline.to_owned(),
        start_us: Timestamp::from_micros((minute - 1) * MINUTE_US),
        end_us: Timestamp::from_micros(minute * MINUTE_US),
    };
    let features: Features = vitals
        .iter()
        .map(|(name, value)| (format!("{name}.mean"), Feature::value(*value)))
        .collect();
    Concluded {
        lane: Lane(0),
        seq: 1,
        ingested_us: 0,
        digest: WindowDigest {
            id: key.id(),
            revision: 0,
            key,
            pipeline: PipelineRef { id: pipeline.into(), version: 1, sha256: String::new() },
            inputs: InputsDigest { observations: 60, sha256: String::new() },
            model: None,
            features,
            flags: Vec::new(),
        },
        flagged: Vec::new(),
        undetermined: Vec::new(),
    }
}

fn well() -> [(&'static str, f64); 6] {
    vitals([70.0, 98.0, 36.7, 128.0, 74.0, 14.0])
}

/// Fever, fast heart and breath, falling pressure: worse from hour to hour.
fn ill(hour: i64) -> [(&'static str, f64); 6] {
    let worse = hour as f64;
    vitals([
        110.0 + 2.0 * worse,
        91.0,
        38.4 + worse / 10.0,
        95.0 - 2.0 * worse,
        48.0 - worse,
        28.0 + worse,
    ])
}

fn vitals(values: [f64; 6]) -> [(&'static str, f64); 6] {
    let names = ["heart_rate", "spo2", "temperature", "systolic", "diastolic", "respiration_rate"];
    std::array::from_fn(|at| (names[at], values[at]))
}

/// Ten hours well, ten ill, thirty well, a window every 20 minutes; lactate every six hours.
fn course() -> Vec<Concluded> {
    course_with(true)
}

fn course_with(laboratory: bool) -> Vec<Concluded> {
    (1..=WINDOWS)
        .map(|at| {
            let minute = at * 20;
            let hour = minute / 60;
            let is_ill = (10..20).contains(&hour);
            let mut values = if is_ill { ill(hour - 10) } else { well() }.to_vec();
            if laboratory && at % 18 == 1 {
                values.push(("lactate", if is_ill { 4.5 } else { 1.0 }));
            }
            window(minute, "ward-vitals", &values)
        })
        .collect()
}

/// Of a chart without any laboratory value the threshold says nothing.
#[test]
fn without_a_laboratory_it_is_scored_and_nothing_is_raised() {
    let windows = judged(course_with(false), true);
    let scored = |window: &&Concluded| window.digest.features.contains_key("sepsis.probability");
    assert_eq!(windows.iter().filter(scored).count(), HOURS);
    assert!(windows.iter().all(|window| window.flagged.is_empty()));
    let high = |window: &Concluded| {
        window.digest.features["sepsis.probability"].get()
            > Some(SepsisModel::builtin().unwrap().threshold())
    };
    assert!(windows.iter().filter(scored).any(high), "the model would have warned");
}

/// The windows as judged, with a restart from the written rows before each.
fn judged(windows: Vec<Concluded>, restarts: bool) -> Vec<Concluded> {
    let mut charts = Charts::restore([]);
    let mut rows = BTreeMap::new();
    let judge = |mut window: Concluded| {
        if restarts {
            charts = Charts::restore(rows.clone());
        }
        judge(&mut charts, &mut window);
        for (subject, row) in charts.take_changes() {
            rows.insert(subject, row.unwrap());
        }
        window
    };
    windows.into_iter().map(judge).collect()
}

#[test]
fn an_hour_is_scored_and_a_risk_is_flagged_with_its_reasons() {
    let windows = judged(course(), false);
    let scored = |window: &&Concluded| window.digest.features.contains_key("sepsis.probability");
    assert_eq!(windows.iter().filter(scored).count(), HOURS, "one window opens each hour");
    let raised: Vec<&Concluded> =
        windows.iter().filter(|window| !window.flagged.is_empty()).collect();
    assert!(!raised.is_empty());
    for window in &raised {
        let event = &window.flagged[0];
        assert_eq!((event.flag.as_str(), event.priority), ("sepsis-risk", Priority::Medium));
        let hour = event.key.end_us.micros() / (60 * MINUTE_US);
        assert!(hour >= 10, "flagged while well, in hour {hour}");
        let [score] = event.scores.as_slice() else { panic!("{:?}", event.scores) };
        assert_eq!((score.horizon_h, score.model.sha256.len()), (Some(6), 64));
        assert_eq!(event.model.as_ref(), Some(&score.model));
        // The shares, added up again, give the log-odds of the probability.
        let attribution = &score.attribution;
        let named: f64 = attribution.contributions.iter().map(|own| own.share).sum();
        let log_odds = attribution.neutral + named + attribution.rest;
        let expected = (score.value / (1.0 - score.value)).ln();
        assert!((log_odds - expected).abs() <= 0.01 * expected.abs(), "{log_odds} {expected}");
        assert!(attribution.is_complete() && score.uncertainty.is_some());
        let again = FlaggedEvent::from_json(&event.to_json()).unwrap();
        assert_eq!(&again, event);
        assert!(event.to_json().len() < 8_192);
    }
}

#[test]
fn a_kill_at_any_window_and_a_replay_change_nothing() {
    let bytes = |windows: Vec<Concluded>| -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        let one = |window: &Concluded| {
            let events = window.flagged.iter().map(FlaggedEvent::to_json).collect();
            (window.digest.to_json(), events)
        };
        windows.iter().map(one).collect()
    };
    assert_eq!(bytes(judged(course(), false)), bytes(judged(course(), true)));
}

#[test]
fn the_alarm_counts_hours_and_not_windows() {
    let mut alarms = Alarms::new(Policy::parse("test", "").unwrap());
    let mut phases = Vec::new();
    for window in judged(course(), false) {
        let end = window.digest.key.end_us;
        let seen = crate::alarms::seen(&window);
        alarms.step(end, &Input::Window(seen)).unwrap();
        let open = alarms.open();
        let phase = open.iter().find(|alarm| alarm.flag == FLAG).map(|alarm| alarm.phase);
        phases.push((window.digest.flags.contains(&FLAG.to_owned()), phase));
    }
    let first = phases.iter().position(|(raised, _)| *raised).unwrap();
    // The first hour at the threshold that two below it follow.
    let raised = |at: usize| phases.get(at).is_some_and(|(raised, _)| *raised);
    let last = (first..).step_by(3).find(|at| !raised(at + 3) && !raised(at + 6)).unwrap();
    assert_eq!(phases[first].1, Some(Phase::Active), "one hour is enough");
    assert!(phases[first..=last].iter().all(|(_, phase)| *phase == Some(Phase::Active)));
    // It ends with the second hour below the threshold: a window opens an hour every three.
    assert_eq!(phases[last + 5].1, Some(Phase::Active), "one hour below does not end it");
    assert_eq!(phases[last + 6].1, None, "two do");
}

#[test]
fn other_pipelines_corrections_and_rows_of_other_versions_are_passed_over() {
    let mut charts = Charts::restore([]);
    judge(&mut charts, &mut window(20, "ward-vitals", &well()));
    assert_eq!(charts.take_changes().len(), 1);
    judge(&mut charts, &mut window(90, "other", &ill(9)));
    let mut correction = window(91, "ward-vitals", &ill(9));
    correction.digest.revision = 1;
    judge(&mut charts, &mut correction);
    assert!(charts.take_changes().is_empty());
    let mut empty = Charts::restore([]);
    judge(&mut empty, &mut window(20, "ecg-rhythm", &[]));
    assert!(empty.take_changes().is_empty());
    let subject = Subject::from_bytes([1; 16]);
    for row in [vec![], vec![9, 1, 2], vec![ROW_VERSION, 255]] {
        assert!(Charts::restore([(subject, row)]).states.is_empty());
    }
}
