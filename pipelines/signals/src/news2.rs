//! The National Early Warning Score 2.
//!
//! Royal College of Physicians, *National Early Warning Score (NEWS) 2*, London 2017: chart 1 (points),
//! chart 2 (thresholds and clinical risk). It is meant for patients of 16 years and over who are not
//! pregnant; nothing here knows whether a patient is one.
//!
//! A parameter that was not measured is *missing*, never zero: the score is then only known to lie between
//! [`News2::lower`] and [`News2::upper`]. Values that no patient has (see [`Inputs`]) and NaN count as
//! missing too. The chart has whole numbers (temperature: tenths), so that readings are rounded to those,
//! halves up, before they are looked up.

use serde::{Deserialize, Serialize};

use crate::scores::{PartialScore, tenths, whole};

/// The most points that the chart can give: 3 for each parameter and 2 for oxygen.
pub const MAX_POINTS: u8 = 20;

/// What a score is computed from. Everything may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Inputs {
    /// Breaths per minute; 0–150, anything else counts as missing.
    pub respiration_rate: Option<f64>,
    /// Oxygen saturation in per cent; 0–100.
    pub spo2: Option<f64>,
    /// Which of the two saturation scales applies.
    pub spo2_scale: SpO2Scale,
    /// Whether the patient breathes supplemental oxygen (false: air).
    pub supplemental_oxygen: Option<bool>,
    /// Systolic blood pressure in mmHg; 0–400.
    pub systolic_mmhg: Option<f64>,
    /// Heart beats per minute; 0–400.
    pub heart_rate: Option<f64>,
    /// Level of consciousness.
    pub consciousness: Option<Consciousness>,
    /// Body temperature in °C; 10–50.
    pub temperature_celsius: Option<f64>,
}

/// The saturation scale. Scale 2 is for patients with hypercapnic respiratory failure (target 88–92 %) and
/// is used only on the decision of a clinician.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpO2Scale {
    /// For everybody else.
    #[default]
    One,
    /// Target range 88–92 %.
    Two,
}

/// ACVPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consciousness {
    /// Awake and oriented.
    Alert,
    /// New confusion, disorientation or delirium.
    Confusion,
    /// Responds to voice.
    Voice,
    /// Responds to pain.
    Pain,
    /// Does not respond.
    Unresponsive,
}

/// A parameter of the score, in the order of the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Parameter {
    /// Respiration rate.
    RespirationRate,
    /// Oxygen saturation.
    SpO2,
    /// Air or oxygen.
    SupplementalOxygen,
    /// Systolic blood pressure.
    SystolicPressure,
    /// Pulse.
    HeartRate,
    /// Consciousness.
    Consciousness,
    /// Temperature.
    Temperature,
}

/// Clinical risk (chart 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Risk {
    /// Aggregate 0–4.
    Low,
    /// Aggregate 0–4 with 3 points in a single parameter.
    LowMedium,
    /// Aggregate 5–6: urgent response.
    Medium,
    /// Aggregate 7 or more: emergency response.
    High,
}

/// A score, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News2 {
    /// The aggregate if everything missing turned out normal.
    pub lower: u8,
    /// The aggregate if everything missing turned out worst.
    pub upper: u8,
    /// The aggregate, when nothing is missing.
    pub score: Option<u8>,
    /// Points by parameter, in the order of the chart; `None` where they are not known.
    pub points: [(Parameter, Option<u8>); 7],
    /// What is missing, in the order of the chart.
    pub missing: Vec<Parameter>,
    /// A single parameter has 3 points. False does not exclude it for a missing one.
    pub red: bool,
    /// The least risk that the known parameters leave possible.
    pub risk_at_least: Risk,
    /// The risk, when it is certain: nothing is missing, or it is [`Risk::High`] already.
    pub risk: Option<Risk>,
}

/// Computes the score.
///
/// With scale 2 and a saturation of 93 % or more the points depend on whether oxygen is given; if that is
/// missing the saturation's points are unknown as well and the bounds cover both.
pub fn news2(inputs: &Inputs) -> News2 {
    let air = chart(inputs, false);
    let oxygen = chart(inputs, true);
    let candidates = match inputs.supplemental_oxygen {
        Some(false) => [air, air],
        Some(true) => [oxygen, oxygen],
        None => [air, oxygen],
    };
    // A row is known if it is the same whatever the oxygen is.
    let points: [(Parameter, Option<u8>); 7] = std::array::from_fn(|row| {
        let [(parameter, one), (_, other)] = candidates.map(|chart| chart[row]);
        (parameter, one.filter(|_| one == other))
    });
    let sum = |chart: &[(Parameter, Option<u8>); 7]| {
        PartialScore::of(chart.map(|(parameter, known)| (parameter, known, 3)))
    };
    let sums = candidates.each_ref().map(sum);
    let lower = sums[0].lower.min(sums[1].lower);
    let upper = sums[0].upper.max(sums[1].upper);
    let missing: Vec<Parameter> = air
        .iter()
        .filter(|(parameter, known)| match parameter {
            Parameter::SupplementalOxygen => inputs.supplemental_oxygen.is_none(),
            _ => known.is_none(),
        })
        .map(|(parameter, _)| *parameter)
        .collect();
    let red = points.iter().any(|(_, known)| *known == Some(3));
    let score = missing.is_empty().then_some(lower);
    let risk_at_least = match lower {
        7.. => Risk::High,
        5..=6 => Risk::Medium,
        _ if red => Risk::LowMedium,
        _ => Risk::Low,
    };
    let risk = (score.is_some() || risk_at_least == Risk::High).then_some(risk_at_least);
    News2 { lower, upper, score, points, missing, red, risk_at_least, risk }
}

/// Chart 1 for a patient on air or on oxygen.
fn chart(inputs: &Inputs, on_oxygen: bool) -> [(Parameter, Option<u8>); 7] {
    let respiration_rate = whole(inputs.respiration_rate, 150.0).map(|rate| match rate {
        ..=8 => 3,
        9..=11 => 1,
        12..=20 => 0,
        21..=24 => 2,
        25.. => 3,
    });
    let spo2 = whole(inputs.spo2, 100.0).map(|spo2| match inputs.spo2_scale {
        SpO2Scale::One => saturation_scale_1(spo2),
        SpO2Scale::Two => saturation_scale_2(spo2, on_oxygen),
    });
    let systolic = whole(inputs.systolic_mmhg, 400.0).map(|pressure| match pressure {
        ..=90 => 3,
        91..=100 => 2,
        101..=110 => 1,
        111..=219 => 0,
        220.. => 3,
    });
    let heart_rate = whole(inputs.heart_rate, 400.0).map(|rate| match rate {
        ..=40 => 3,
        41..=50 => 1,
        51..=90 => 0,
        91..=110 => 1,
        111..=130 => 2,
        131.. => 3,
    });
    let consciousness = inputs.consciousness.map(|level| match level {
        Consciousness::Alert => 0,
        _ => 3,
    });
    let temperature = tenths(inputs.temperature_celsius).map(|tenths| match tenths {
        ..=350 => 3,
        351..=360 => 1,
        361..=380 => 0,
        381..=390 => 1,
        391.. => 2,
    });
    [
        (Parameter::RespirationRate, respiration_rate),
        (Parameter::SpO2, spo2),
        (Parameter::SupplementalOxygen, Some(if on_oxygen { 2 } else { 0 })),
        (Parameter::SystolicPressure, systolic),
        (Parameter::HeartRate, heart_rate),
        (Parameter::Consciousness, consciousness),
        (Parameter::Temperature, temperature),
    ]
}

fn saturation_scale_1(spo2: i32) -> u8 {
    match spo2 {
        ..=91 => 3,
        92..=93 => 2,
        94..=95 => 1,
        96.. => 0,
    }
}

fn saturation_scale_2(spo2: i32, on_oxygen: bool) -> u8 {
    match (spo2, on_oxygen) {
        (..=83, _) => 3,
        (84..=85, _) => 2,
        (86..=87, _) => 1,
        (88..=92, _) | (93.., false) => 0,
        (93..=94, true) => 1,
        (95..=96, true) => 2,
        (97.., true) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn healthy() -> Inputs {
        Inputs {
            respiration_rate: Some(16.0),
            spo2: Some(98.0),
            spo2_scale: SpO2Scale::One,
            supplemental_oxygen: Some(false),
            systolic_mmhg: Some(120.0),
            heart_rate: Some(70.0),
            consciousness: Some(Consciousness::Alert),
            temperature_celsius: Some(37.0),
        }
    }

    /// One parameter changed in a healthy patient: the aggregate is its points.
    fn check(cases: &[(f64, u8)], set: impl Fn(&mut Inputs, f64)) {
        for (value, points) in cases {
            let mut inputs = healthy();
            set(&mut inputs, *value);
            let result = news2(&inputs);
            assert_eq!(result.score, Some(*points), "{value}");
            assert_eq!((result.lower, result.upper), (*points, *points), "{value}");
            assert_eq!(result.red, *points == 3, "{value}");
        }
    }

    #[test]
    fn respiration_rate_at_every_edge() {
        check(
            &[
                (0.0, 3),
                (8.0, 3),
                (9.0, 1),
                (11.0, 1),
                (12.0, 0),
                (20.0, 0),
                (21.0, 2),
                (24.0, 2),
                (25.0, 3),
            ],
            |inputs, value| inputs.respiration_rate = Some(value),
        );
    }

    #[test]
    fn saturation_scale_1_at_every_edge() {
        check(
            &[(91.0, 3), (92.0, 2), (93.0, 2), (94.0, 1), (95.0, 1), (96.0, 0), (100.0, 0)],
            |inputs, value| inputs.spo2 = Some(value),
        );
    }

    #[test]
    fn saturation_scale_2_at_every_edge() {
        let on_air = [
            (83.0, 3),
            (84.0, 2),
            (85.0, 2),
            (86.0, 1),
            (87.0, 1),
            (88.0, 0),
            (92.0, 0),
            (93.0, 0),
            (100.0, 0),
        ];
        check(&on_air, |inputs, value| {
            inputs.spo2_scale = SpO2Scale::Two;
            inputs.spo2 = Some(value);
        });
        let on_oxygen = [
            (83.0, 3),
            (85.0, 2),
            (87.0, 1),
            (88.0, 0),
            (92.0, 0),
            (93.0, 1),
            (94.0, 1),
            (95.0, 2),
            (96.0, 2),
            (97.0, 3),
            (100.0, 3),
        ];
        for (value, points) in on_oxygen {
            let inputs = Inputs {
                spo2_scale: SpO2Scale::Two,
                spo2: Some(value),
                supplemental_oxygen: Some(true),
                ..healthy()
            };
            assert_eq!(news2(&inputs).score, Some(points + 2), "{value}");
        }
    }

    #[test]
    fn oxygen_is_two_points() {
        let inputs = Inputs { supplemental_oxygen: Some(true), ..healthy() };
        assert_eq!(news2(&inputs).score, Some(2));
    }

    #[test]
    fn systolic_pressure_at_every_edge() {
        check(
            &[
                (90.0, 3),
                (91.0, 2),
                (100.0, 2),
                (101.0, 1),
                (110.0, 1),
                (111.0, 0),
                (219.0, 0),
                (220.0, 3),
            ],
            |inputs, value| inputs.systolic_mmhg = Some(value),
        );
    }

    #[test]
    fn heart_rate_at_every_edge() {
        check(
            &[
                (40.0, 3),
                (41.0, 1),
                (50.0, 1),
                (51.0, 0),
                (90.0, 0),
                (91.0, 1),
                (110.0, 1),
                (111.0, 2),
                (130.0, 2),
                (131.0, 3),
            ],
            |inputs, value| inputs.heart_rate = Some(value),
        );
    }

    #[test]
    fn temperature_at_every_edge() {
        check(
            &[
                (35.0, 3),
                (35.1, 1),
                (36.0, 1),
                (36.1, 0),
                (38.0, 0),
                (38.1, 1),
                (39.0, 1),
                (39.1, 2),
            ],
            |inputs, value| inputs.temperature_celsius = Some(value),
        );
    }

    #[test]
    fn anything_but_alert_is_three_points() {
        use Consciousness::*;
        for (level, points) in
            [(Alert, 0), (Confusion, 3), (Voice, 3), (Pain, 3), (Unresponsive, 3)]
        {
            let inputs = Inputs { consciousness: Some(level), ..healthy() };
            assert_eq!(news2(&inputs).score, Some(points));
        }
    }

    #[test]
    fn readings_round_to_the_chart() {
        check(&[(8.49, 3), (8.5, 1), (20.49, 0), (20.5, 2)], |inputs, value| {
            inputs.respiration_rate = Some(value);
        });
        check(&[(35.04, 3), (35.05, 1), (38.04, 0), (38.05, 1)], |inputs, value| {
            inputs.temperature_celsius = Some(value);
        });
    }

    #[test]
    fn risk_bands() {
        let with = |pulse, rate, pressure| Inputs {
            heart_rate: Some(pulse),
            respiration_rate: Some(rate),
            systolic_mmhg: Some(pressure),
            ..healthy()
        };
        let cases = [
            (with(70.0, 16.0, 120.0), 0, Risk::Low),
            (with(115.0, 22.0, 120.0), 4, Risk::Low),
            (with(135.0, 16.0, 120.0), 3, Risk::LowMedium),
            (with(135.0, 16.0, 105.0), 4, Risk::LowMedium),
            (with(135.0, 22.0, 120.0), 5, Risk::Medium),
            (with(115.0, 22.0, 95.0), 6, Risk::Medium),
            (with(135.0, 22.0, 95.0), 7, Risk::High),
        ];
        for (inputs, score, risk) in cases {
            let result = news2(&inputs);
            assert_eq!((result.score, result.risk), (Some(score), Some(risk)));
            assert_eq!(result.risk_at_least, risk);
        }
    }

    #[test]
    fn what_is_missing_widens_the_bounds() {
        let nothing = news2(&Inputs::default());
        assert_eq!((nothing.lower, nothing.upper, nothing.score), (0, MAX_POINTS, None));
        assert_eq!((nothing.missing.len(), nothing.risk, nothing.red), (7, None, false));
        assert_eq!(nothing.risk_at_least, Risk::Low);

        let result =
            news2(&Inputs { consciousness: None, heart_rate: Some(f64::NAN), ..healthy() });
        assert_eq!((result.lower, result.upper, result.score), (0, 6, None));
        assert_eq!(result.missing, [Parameter::HeartRate, Parameter::Consciousness]);

        // Certain already, whatever the rest would be.
        let inputs = Inputs {
            heart_rate: Some(140.0),
            respiration_rate: Some(30.0),
            systolic_mmhg: Some(105.0),
            ..Inputs::default()
        };
        assert_eq!((news2(&inputs).lower, news2(&inputs).risk), (7, Some(Risk::High)));
    }

    #[test]
    fn scale_2_without_word_of_oxygen() {
        let scale_2 = |spo2| Inputs {
            spo2_scale: SpO2Scale::Two,
            spo2: Some(spo2),
            supplemental_oxygen: None,
            ..healthy()
        };
        let high = news2(&scale_2(98.0));
        assert_eq!((high.lower, high.upper), (0, 5));
        assert_eq!(high.points[1], (Parameter::SpO2, None));
        assert_eq!(high.missing, [Parameter::SupplementalOxygen]);
        let low = news2(&scale_2(90.0));
        assert_eq!((low.lower, low.upper, low.points[1].1), (0, 2, Some(0)));
    }

    #[test]
    fn impossible_values_are_missing() {
        for inputs in [
            Inputs { spo2: Some(101.0), ..healthy() },
            Inputs { respiration_rate: Some(-1.0), ..healthy() },
            Inputs { temperature_celsius: Some(98.6), ..healthy() },
            Inputs { temperature_celsius: Some(0.0), ..healthy() },
            Inputs { heart_rate: Some(f64::INFINITY), ..healthy() },
        ] {
            let result = news2(&inputs);
            assert_eq!((result.score, result.missing.len()), (None, 1), "{inputs:?}");
        }
    }

    proptest! {
        /// Leaving something out never contradicts the full score.
        #[test]
        fn bounds_contain_the_score(
            rate in 0.0..60.0f64, spo2 in 70.0..100.0f64, two: bool, oxygen: bool,
            pressure in 50.0..260.0f64, pulse in 20.0..200.0f64, alert: bool,
            temperature in 33.0..42.0f64, left_out in 0u8..128,
        ) {
            let keep = |bit: u8| left_out >> bit & 1 == 0;
            let scale = if two { SpO2Scale::Two } else { SpO2Scale::One };
            let level = if alert { Consciousness::Alert } else { Consciousness::Pain };
            let full = Inputs {
                respiration_rate: Some(rate),
                spo2: Some(spo2),
                spo2_scale: scale,
                supplemental_oxygen: Some(oxygen),
                systolic_mmhg: Some(pressure),
                heart_rate: Some(pulse),
                consciousness: Some(level),
                temperature_celsius: Some(temperature),
            };
            let part = Inputs {
                respiration_rate: full.respiration_rate.filter(|_| keep(0)),
                spo2: full.spo2.filter(|_| keep(1)),
                spo2_scale: scale,
                supplemental_oxygen: full.supplemental_oxygen.filter(|_| keep(2)),
                systolic_mmhg: full.systolic_mmhg.filter(|_| keep(3)),
                heart_rate: full.heart_rate.filter(|_| keep(4)),
                consciousness: full.consciousness.filter(|_| keep(5)),
                temperature_celsius: full.temperature_celsius.filter(|_| keep(6)),
            };
            let (whole, known) = (news2(&full), news2(&part));
            let score = whole.score.unwrap();
            prop_assert!(score <= MAX_POINTS);
            prop_assert!(known.lower <= score && score <= known.upper);
            prop_assert_eq!(known.missing.len() as u32, left_out.count_ones());
            prop_assert!(known.risk_at_least <= whole.risk_at_least);
            prop_assert!(known.risk.is_none() || known.risk == whole.risk);
        }
    }
}
