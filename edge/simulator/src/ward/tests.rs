use super::*;
use crate::scenario::Episode;
use haar_normalize::{Normalizer, Profile, PseudonymKey, RawMessage};
use haar_schema::{ClockEvidence, Quality, SignalId, Value};
use proptest::prelude::*;
use std::collections::BTreeSet;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn after_s(seconds: f64) -> Timestamp {
    START.plus_micros((seconds * 1e6) as i64)
}

fn ward(seed: u64, patients: u32, scenario: &Scenario) -> Ward {
    Ward::new(seed, patients, START, scenario.clone()).unwrap()
}

fn scenario(episodes: Vec<(u32, u32, u32, What)>) -> Scenario {
    let episode =
        |(patient, start_s, duration_s, what)| Episode { patient, start_s, duration_s, what };
    Scenario { episodes: episodes.into_iter().map(episode).collect() }
}

fn normalizer() -> Normalizer {
    let key = PseudonymKey::new(vec![7; 32]).unwrap();
    Normalizer::new(Profile::built_in().unwrap(), key, haar_normalize::Limits::default()).unwrap()
}

fn decode(normalizer: &Normalizer, frame: &Frame) -> haar_normalize::Frame {
    let (connector, path) = match &frame.connector {
        Connector::Mqtt(topic) => (haar_normalize::Connector::Mqtt, topic),
        Connector::Coap(path) => (haar_normalize::Connector::Coap, path),
    };
    let message = RawMessage {
        connector,
        path,
        payload: &frame.payload,
        received: frame.at,
        redelivered: false,
    };
    normalizer.normalize(&message).unwrap()
}

fn of<'a>(frames: &'a [Frame], device: &str) -> Vec<&'a Frame> {
    frames.iter().filter(|frame| frame.device.as_str() == device).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_however_it_is_asked() {
    let scenario = Scenario::demo(5, 8);
    let mut whole = ward(5, 8, &scenario);
    let frames = whole.next_until(after_s(100.0));
    let mut stepwise = ward(5, 8, &scenario);
    let mut stepped = Vec::new();
    for step in 0..=1_000 {
        stepped.extend(stepwise.next_until(after_s(f64::from(step) * 0.1)));
    }
    assert!(frames == stepped);
    assert!(whole.finish() == stepwise.finish());
    assert!(whole.take_truth() == stepwise.take_truth());
    assert!(frames != ward(6, 8, &scenario).next_until(after_s(100.0)));
    assert!(frames.windows(2).all(|pair| pair[0].at <= pair[1].at));
}

#[test]
fn every_frame_decodes_to_what_was_simulated() {
    let mut ward = ward(3, 4, &Scenario::default());
    let normalizer = normalizer();
    let frames = ward.next_until(after_s(31.9));
    let mut bodies: Vec<Vec<Second>> = (0..4)
        .map(|bed| {
            let mut patient = Patient::new(3, bed);
            (0..31).map(|_| patient.second(&Condition::default())).collect()
        })
        .collect();
    let (mut readings, mut seen) = (0, BTreeSet::new());
    for frame in &frames {
        let decoded = decode(&normalizer, frame);
        assert_eq!(decoded.device, frame.device);
        assert_eq!(decoded.observations.len(), frame.readings as usize);
        for observation in decoded.observations {
            assert_eq!(observation.clock, ClockEvidence::Device);
            assert_eq!(observation.quality, Quality::GOOD);
            seen.insert(observation.signal);
            readings += 1;
            let elapsed_us = observation.effective.micros_since(START);
            assert_eq!(elapsed_us % SECOND_US, 0);
            let elapsed_s = (elapsed_us / SECOND_US) as usize;
            let body = &mut bodies[frame.bed as usize];
            match observation.value {
                Value::Sampled(data) => {
                    let second = &body[elapsed_s];
                    let (truth, step) = match observation.signal {
                        SignalId::ECG => (&second.ecg, 0.001),
                        SignalId::PPG => (&second.ppg, 0.0001),
                        SignalId::RESPIRATION => (&second.respiration, 0.0001),
                        other => panic!("{other:?} is no curve"),
                    };
                    assert_eq!(data.samples().len(), truth.len());
                    for (sample, truth) in data.physical().zip(truth) {
                        assert!((f64::from(sample) - truth).abs() < 0.51 * step + 1e-6);
                    }
                }
                Value::Quantity(value) => {
                    let vitals = body[elapsed_s - 1].vitals;
                    let (truth, within) = match observation.signal {
                        SignalId::HEART_RATE => (vitals.heart_rate, 0.0501),
                        SignalId::SPO2 => (vitals.spo2, 0.0501),
                        SignalId::RESPIRATION_RATE => (vitals.respiration_rate, 0.0501),
                        SignalId::SYSTOLIC => (vitals.systolic, 0.0501),
                        SignalId::DIASTOLIC => (vitals.diastolic, 0.0501),
                        SignalId::TEMPERATURE => (vitals.temperature, 0.0501),
                        other => panic!("{other:?} is no quantity"),
                    };
                    assert!((value.get() - truth).abs() < within, "{:?}", observation.signal);
                }
            }
        }
    }
    assert_eq!(seen.len(), 9);
    // 31 s of five vitals and three curves of four; two have a temperature in their vitals, two a patch.
    assert_eq!(readings, 31 * 4 * (5 + 3) + 31 * 2 + 4 * 2);
}

#[test]
fn every_frame_of_the_demo_ward_is_taken() {
    let normalizer = normalizer();
    let mut ward = ward(1, 8, &Scenario::demo(1, 8));
    for frame in ward.next_until(after_s(200.0)) {
        let decoded = decode(&normalizer, &frame);
        assert_eq!(decoded.observations.len(), frame.readings as usize);
        assert!(frame.payload.len() <= format::MAX_FRAME_BYTES);
    }
}

#[test]
fn truth_agrees_with_what_the_demo_promises() {
    let mut ward = ward(9, 8, &Scenario::demo(9, 8));
    ward.next_until(after_s(601.0));
    let truth = ward.take_truth();
    assert_eq!(truth[0], Truth::Ward { seed: 9, patients: 8, start_us: START });
    let expected: Vec<(&str, ExpectedFlag)> = truth
        .iter()
        .filter_map(|line| match line {
            Truth::Expected { patient, flag, .. } => Some((patient.as_str(), *flag)),
            _ => None,
        })
        .collect();
    assert_eq!(
        expected,
        [
            ("patient-000", ExpectedFlag::AtrialFibrillation),
            ("patient-001", ExpectedFlag::Fever),
            ("patient-002", ExpectedFlag::VentricularEctopy),
            ("patient-003", ExpectedFlag::News2),
            ("patient-003", ExpectedFlag::Fever),
            ("patient-004", ExpectedFlag::LeadOff),
            ("patient-005", ExpectedFlag::Clock),
            ("patient-006", ExpectedFlag::MonitorStuck),
        ]
    );
    let mut highest = [0; 8];
    let mut ectopic = [0; 8];
    for line in &truth {
        let bed = |patient: &str| patient[8..].parse::<usize>().unwrap();
        match line {
            Truth::Vitals { patient, news2, .. } => {
                highest[bed(patient)] = highest[bed(patient)].max(*news2);
            }
            Truth::Beat { patient, class: crate::rhythm::BeatClass::V, .. } => {
                ectopic[bed(patient)] += 1;
            }
            _ => {}
        }
    }
    assert!(highest[3] >= 9, "{highest:?}");
    assert!([0, 1, 2, 4, 5, 6, 7].iter().all(|bed| highest[*bed] < 7), "{highest:?}");
    assert!(ectopic[2] > 80 && ectopic.iter().sum::<u32>() == ectopic[2], "{ectopic:?}");
}

#[test]
fn faults_of_sensors_appear_and_end() {
    let device = Device::Monitor;
    let scenario = scenario(vec![
        (0, 10, 10, What::DetachedLead),
        (0, 30, 10, What::Flatline { device: Device::Ecg }),
        (0, 10, 10, What::Dropout { device: Device::Oximeter }),
        (1, 10, 20, What::Flatline { device }),
        (1, 40, 20, What::Drift { device, per_min: 30.0 }),
        (1, 70, 60, What::Spike { device }),
    ]);
    let normalizer = normalizer();
    let frames = ward(1, 2, &scenario).next_until(after_s(141.0));
    let vitals: Vec<(f64, bool)> = of(&frames, "monitor-001")
        .into_iter()
        .map(|frame| {
            let readings = decode(&normalizer, frame).observations;
            let spo2 = readings.iter().find(|o| o.signal == SignalId::SPO2).unwrap();
            let Value::Quantity(value) = &spo2.value else { panic!("a curve") };
            (value.get(), spo2.quality.usable())
        })
        .collect();
    assert!(vitals[10..30].iter().all(|(value, _)| *value == vitals[9].0));
    assert!(vitals[30..40].iter().any(|(value, _)| *value != vitals[9].0));
    assert!(vitals[59].0 - vitals[39].0 > 6.0, "{:?}", &vitals[39..60]);
    let spikes = |from: usize, to: usize| vitals[from..to].iter().filter(|v| !v.1).count();
    assert!((1..20).contains(&spikes(70, 130)) && spikes(0, 40) == 0);

    let runs: Vec<Vec<i16>> = of(&frames, "ecg-000")
        .into_iter()
        .map(|frame| match &decode(&normalizer, frame).observations[0].value {
            Value::Sampled(data) => data.samples().to_vec(),
            Value::Quantity(_) => panic!("a quantity"),
        })
        .collect();
    assert!(runs[10..20].iter().flatten().all(|sample| *sample == format::NO_SAMPLE));
    assert!(runs[20..30].iter().flatten().all(|sample| *sample != format::NO_SAMPLE));
    assert!(runs[30..40].iter().flatten().all(|sample| *sample == runs[29][249]));
    // 141 s of two curves without 10 s.
    assert_eq!(of(&frames, "oximeter-000").len(), 2 * 141 - 2 * 10);
}

#[test]
fn faults_of_clocks_and_delivery_appear() {
    let device = Device::Monitor;
    let scenario = scenario(vec![
        (0, 0, 20, What::ClockOffset { device, seconds: -3_600.0 }),
        (1, 0, 20, What::ClockDrift { device, ppm: 50_000.0 }),
        (1, 0, 40, What::NoClock),
        (2, 10, 10, What::LateDelivery { device, seconds: 30.0 }),
        (2, 30, 20, What::Duplicates { device, fraction: 1.0 }),
        (3, 0, 60, What::Reordering { device, fraction: 0.3 }),
    ]);
    let normalizer = normalizer();
    let mut ward = ward(1, 4, &scenario);
    let mut frames = ward.next_until(after_s(60.0));
    frames.extend(ward.finish());
    let times = |device: &str| -> Vec<f64> {
        of(&frames, device)
            .into_iter()
            .map(|f| {
                decode(&normalizer, f).observations[0].effective.micros_since(START) as f64 / 1e6
            })
            .collect()
    };
    assert_eq!(times("monitor-000")[..2], [-3_599.0, -3_598.0]);
    assert_eq!(times("monitor-000")[20], 21.0);
    assert!((times("monitor-001")[19] - 20.95).abs() < 1e-3, "{:?}", times("monitor-001"));
    let patch = of(&frames, "patch-001");
    let evidence = |frame: &Frame| decode(&normalizer, frame).observations[0].clock;
    assert_eq!(evidence(patch[0]), ClockEvidence::Ingest);
    assert_eq!(evidence(patch[5]), ClockEvidence::Device);

    let late = of(&frames, "monitor-002");
    assert_eq!(late.iter().filter(|frame| frame.repeat).count(), 20);
    assert_eq!(late.len(), 80);
    let delay = |frame: &Frame| {
        frame.at.micros_since(decode(&normalizer, frame).observations[0].effective) / SECOND_US
    };
    assert_eq!(late.iter().filter(|frame| delay(frame) == 30).count(), 10);
    let reordered = times("monitor-003");
    assert!((5..40).contains(&reordered.windows(2).filter(|pair| pair[1] < pair[0]).count()));
    assert_eq!(reordered.iter().map(|at| *at as i64).collect::<BTreeSet<_>>().len(), 60);
}

#[test]
fn a_ward_without_patients_is_none() {
    let refused = |patients| Ward::new(0, patients, START, Scenario::default()).is_err();
    assert!(refused(0) && refused(MAX_PATIENTS + 1));
    let beyond = scenario(vec![(3, 0, 1, What::AtrialFibrillation)]);
    assert!(matches!(Ward::new(0, 3, START, beyond), Err(WardError::Scenario(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn beats_of_any_ward_stand_in_its_ecg(seed: u64, bed in 0_u32..4) {
        let demo = Scenario::demo(seed, 4);
        let mut ward = ward(seed, 4, &demo);
        let frames = ward.next_until(after_s(130.0));
        let name = format!("patient-{bed:03}");
        let beats: Vec<f64> = ward.take_truth().iter().filter_map(|line| match line {
            Truth::Beat { patient, at_us, .. } if *patient == name => {
                Some(at_us.micros_since(START) as f64 / 1e6)
            }
            _ => None,
        }).collect();
        let normalizer = normalizer();
        let ecg: Vec<f32> = of(&frames, &format!("ecg-{bed:03}")).into_iter().flat_map(|frame| {
            match &decode(&normalizer, frame).observations[0].value {
                Value::Sampled(data) => data.physical().collect::<Vec<_>>(),
                Value::Quantity(_) => Vec::new(),
            }
        }).collect();
        for beat in beats.iter().filter(|at| (1.0..128.0).contains(*at)) {
            let near = (beat * 250.0).round() as usize;
            let top = (near - 20..near + 20).max_by(|a, b| ecg[*a].total_cmp(&ecg[*b])).unwrap_or(0);
            prop_assert!(top.abs_diff(near) <= 8, "R at {} but the top at {}", near, top);
            prop_assert!(ecg[top] > 0.6, "{} mV at {}", ecg[top], beat);
        }
    }
}
