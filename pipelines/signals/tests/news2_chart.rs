//! NEWS2 against the chart, written out as data and looked up in another way: every combination of both sides of
//! every boundary, and of anything missing.
#![allow(clippy::unwrap_used)] // The helpers belong to tests as much as the tests do.

use haar_signals::news2::{Consciousness, Inputs, Parameter, Risk, SpO2Scale, news2};

/// Chart 1 of the Royal College of Physicians' report (2017), a row a band: the first and the last value, points.
type Rows = &'static [(f64, f64, u8)];
const RESPIRATION: Rows =
    &[(0.0, 8.0, 3), (9.0, 11.0, 1), (12.0, 20.0, 0), (21.0, 24.0, 2), (25.0, 150.0, 3)];
const SCALE_1: Rows = &[(0.0, 91.0, 3), (92.0, 93.0, 2), (94.0, 95.0, 1), (96.0, 100.0, 0)];
const SCALE_2_AIR: Rows = &[(0.0, 83.0, 3), (84.0, 85.0, 2), (86.0, 87.0, 1), (88.0, 100.0, 0)];
const SCALE_2_OXYGEN: Rows = &[
    (0.0, 83.0, 3),
    (84.0, 85.0, 2),
    (86.0, 87.0, 1),
    (88.0, 92.0, 0),
    (93.0, 94.0, 1),
    (95.0, 96.0, 2),
    (97.0, 100.0, 3),
];
const SYSTOLIC: Rows =
    &[(0.0, 90.0, 3), (91.0, 100.0, 2), (101.0, 110.0, 1), (111.0, 219.0, 0), (220.0, 400.0, 3)];
const PULSE: Rows = &[
    (0.0, 40.0, 3),
    (41.0, 50.0, 1),
    (51.0, 90.0, 0),
    (91.0, 110.0, 1),
    (111.0, 130.0, 2),
    (131.0, 400.0, 3),
];
const TEMPERATURE: Rows =
    &[(10.0, 35.0, 3), (35.1, 36.0, 1), (36.1, 38.0, 0), (38.1, 39.0, 1), (39.1, 50.0, 2)];

fn look_up(rows: Rows, value: f64) -> u8 {
    rows.iter().find(|(first, last, _)| (*first..=*last).contains(&value)).unwrap().2
}

/// Every edge of every band, and missing.
fn edges(rows: Rows) -> Vec<Option<f64>> {
    rows.iter().flat_map(|(first, last, _)| [Some(*first), Some(*last)]).chain([None]).collect()
}

/// Least and most points of a row; if it is missing, of the whole row.
fn points(rows: Rows, value: Option<f64>) -> (u8, u8) {
    match value {
        Some(value) => (look_up(rows, value), look_up(rows, value)),
        None => (0, rows.iter().map(|row| row.2).max().unwrap().max(3)),
    }
}

/// The bounds of the aggregate, and whether a known parameter has 3 points, by the tables alone.
fn expected(inputs: &Inputs) -> (u8, u8, bool) {
    let level = match inputs.consciousness {
        Some(Consciousness::Alert) => (0, 0),
        Some(_) => (3, 3),
        None => (0, 3),
    };
    let rest = [
        points(RESPIRATION, inputs.respiration_rate),
        points(SYSTOLIC, inputs.systolic_mmhg),
        points(PULSE, inputs.heart_rate),
        level,
        points(TEMPERATURE, inputs.temperature_celsius),
    ];
    // Oxygen and saturation go together: every case that what is known leaves.
    let cases: Vec<(u8, u8, u8)> = [false, true]
        .into_iter()
        .filter(|oxygen| inputs.supplemental_oxygen.is_none_or(|known| known == *oxygen))
        .map(|oxygen| {
            let rows = match (inputs.spo2_scale, oxygen) {
                (SpO2Scale::One, _) => SCALE_1,
                (SpO2Scale::Two, false) => SCALE_2_AIR,
                (SpO2Scale::Two, true) => SCALE_2_OXYGEN,
            };
            let (least, most) = points(rows, inputs.spo2);
            (least, most, 2 * u8::from(oxygen))
        })
        .collect();
    let sum = |side: fn(&(u8, u8)) -> u8| rest.iter().map(side).sum::<u8>();
    let lower = cases.iter().map(|(least, _, oxygen)| least + oxygen).min().unwrap();
    let upper = cases.iter().map(|(_, most, oxygen)| most + oxygen).max().unwrap();
    let red =
        rest.contains(&(3, 3)) || cases.iter().all(|(least, most, _)| (*least, *most) == (3, 3));
    (sum(|row| row.0) + lower, sum(|row| row.1) + upper, red)
}

fn check(inputs: &Inputs) {
    let found = news2(inputs);
    let (lower, upper, red) = expected(inputs);
    assert_eq!((found.lower, found.upper, found.red), (lower, upper, red), "{inputs:?}");
    let complete = found.missing.is_empty();
    assert_eq!(found.score, complete.then_some(lower), "{inputs:?}");
    let risk = match lower {
        0..=4 if red => Risk::LowMedium,
        0..=4 => Risk::Low,
        5..=6 => Risk::Medium,
        _ => Risk::High,
    };
    assert_eq!(found.risk_at_least, risk, "{inputs:?}");
    assert_eq!(found.risk, (complete || risk == Risk::High).then_some(risk), "{inputs:?}");
}

#[test]
fn every_combination_of_every_boundary() {
    use Consciousness::{Alert, Confusion, Pain, Unresponsive, Voice};
    let mut combinations = 0_u64;
    for spo2_scale in [SpO2Scale::One, SpO2Scale::Two] {
        // Scale 2 on oxygen has all the edges of scale 2 on air.
        let saturations =
            edges(if spo2_scale == SpO2Scale::One { SCALE_1 } else { SCALE_2_OXYGEN });
        for spo2 in saturations {
            for supplemental_oxygen in [None, Some(false), Some(true)] {
                for consciousness in [
                    None,
                    Some(Alert),
                    Some(Confusion),
                    Some(Voice),
                    Some(Pain),
                    Some(Unresponsive),
                ] {
                    for respiration_rate in edges(RESPIRATION) {
                        for systolic_mmhg in edges(SYSTOLIC) {
                            for heart_rate in edges(PULSE) {
                                for temperature_celsius in edges(TEMPERATURE) {
                                    check(&Inputs {
                                        respiration_rate,
                                        spo2,
                                        spo2_scale,
                                        supplemental_oxygen,
                                        systolic_mmhg,
                                        heart_rate,
                                        consciousness,
                                        temperature_celsius,
                                    });
                                    combinations += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(combinations, (9 + 15) * 3 * 6 * 11 * 11 * 13 * 11);
}

#[test]
fn what_is_missing_is_named_in_the_order_of_the_chart() {
    let all = news2(&Inputs::default()).missing;
    let order = [
        Parameter::RespirationRate,
        Parameter::SpO2,
        Parameter::SupplementalOxygen,
        Parameter::SystolicPressure,
        Parameter::HeartRate,
        Parameter::Consciousness,
        Parameter::Temperature,
    ];
    assert_eq!(all, order);
}
