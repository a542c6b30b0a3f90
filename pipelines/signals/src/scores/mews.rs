//! The Modified Early Warning Score.
//!
//! Subbe et al., *Validation of a modified Early Warning Score in medical admissions*, QJM 94:521, 2001, table 1. For
//! adults. Two places that the table leaves open are filled here: a heart rate of exactly 40 (it has "< 40" and "41–50")
//! has the 2 points of the former, and new confusion, which AVPU does not know, has the point of V.

use super::{PartialScore, tenths, whole};
use crate::news2::Consciousness;

/// From this score on death and intensive care are likelier (Subbe 2001).
pub const MEWS_CRITICAL: u8 = 5;

/// What it is computed from. Everything may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MewsInputs {
    /// Systolic blood pressure in mmHg; 0–400, anything else counts as missing.
    pub systolic_mmhg: Option<f64>,
    /// Heart beats per minute; 0–400.
    pub heart_rate: Option<f64>,
    /// Breaths per minute; 0–150.
    pub respiration_rate: Option<f64>,
    /// Body temperature in °C; 10–50.
    pub temperature_celsius: Option<f64>,
    /// Level of consciousness.
    pub consciousness: Option<Consciousness>,
}

/// A parameter, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MewsParameter {
    /// Systolic blood pressure.
    SystolicPressure,
    /// Heart rate.
    HeartRate,
    /// Respiration rate.
    RespirationRate,
    /// Temperature.
    Temperature,
    /// Consciousness.
    Consciousness,
}

/// The score, 0 to 14, as far as it is known.
pub type Mews = PartialScore<MewsParameter>;

/// Computes the score. Readings round to the table's whole numbers (temperature: tenths), halves up.
pub fn mews(inputs: &MewsInputs) -> Mews {
    let systolic = whole(inputs.systolic_mmhg, 400.0).map(|pressure| match pressure {
        ..=70 => 3,
        71..=80 => 2,
        81..=100 => 1,
        101..=199 => 0,
        200.. => 2,
    });
    let heart_rate = whole(inputs.heart_rate, 400.0).map(|rate| match rate {
        ..=40 => 2,
        41..=50 => 1,
        51..=100 => 0,
        101..=110 => 1,
        111..=129 => 2,
        130.. => 3,
    });
    let respiration_rate = whole(inputs.respiration_rate, 150.0).map(|rate| match rate {
        ..=8 => 2,
        9..=14 => 0,
        15..=20 => 1,
        21..=29 => 2,
        30.. => 3,
    });
    let temperature = tenths(inputs.temperature_celsius).map(|tenths| match tenths {
        ..=349 => 2,
        350..=384 => 0,
        385.. => 2,
    });
    let consciousness = inputs.consciousness.map(|level| match level {
        Consciousness::Alert => 0,
        Consciousness::Confusion | Consciousness::Voice => 1,
        Consciousness::Pain => 2,
        Consciousness::Unresponsive => 3,
    });
    PartialScore::of([
        (MewsParameter::SystolicPressure, systolic, 3),
        (MewsParameter::HeartRate, heart_rate, 3),
        (MewsParameter::RespirationRate, respiration_rate, 3),
        (MewsParameter::Temperature, temperature, 2),
        (MewsParameter::Consciousness, consciousness, 3),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> MewsInputs {
        MewsInputs {
            systolic_mmhg: Some(120.0),
            heart_rate: Some(70.0),
            respiration_rate: Some(12.0),
            temperature_celsius: Some(37.0),
            consciousness: Some(Consciousness::Alert),
        }
    }

    /// One parameter changed in a healthy patient: the score is its points.
    fn check(cases: &[(f64, u8)], set: impl Fn(&mut MewsInputs, f64)) {
        for (value, points) in cases {
            let mut inputs = healthy();
            set(&mut inputs, *value);
            assert_eq!(mews(&inputs).score, Some(*points), "{value}");
        }
    }

    #[test]
    fn every_edge_of_the_table() {
        check(
            &[
                (70.0, 3),
                (71.0, 2),
                (80.0, 2),
                (81.0, 1),
                (100.0, 1),
                (101.0, 0),
                (199.0, 0),
                (200.0, 2),
            ],
            |inputs, value| inputs.systolic_mmhg = Some(value),
        );
        check(
            &[
                (39.0, 2),
                (40.0, 2),
                (41.0, 1),
                (50.0, 1),
                (51.0, 0),
                (100.0, 0),
                (101.0, 1),
                (110.0, 1),
                (111.0, 2),
                (129.0, 2),
                (130.0, 3),
            ],
            |inputs, value| inputs.heart_rate = Some(value),
        );
        check(
            &[(8.0, 2), (9.0, 0), (14.0, 0), (15.0, 1), (20.0, 1), (21.0, 2), (29.0, 2), (30.0, 3)],
            |inputs, value| inputs.respiration_rate = Some(value),
        );
        check(&[(34.9, 2), (35.0, 0), (38.4, 0), (38.5, 2)], |inputs, value| {
            inputs.temperature_celsius = Some(value);
        });
        use Consciousness::*;
        for (level, points) in
            [(Alert, 0), (Confusion, 1), (Voice, 1), (Pain, 2), (Unresponsive, 3)]
        {
            let inputs = MewsInputs { consciousness: Some(level), ..healthy() };
            assert_eq!(mews(&inputs).score, Some(points));
        }
    }

    #[test]
    fn missing_is_not_zero() {
        let nothing = mews(&MewsInputs::default());
        assert_eq!((nothing.lower, nothing.upper, nothing.score), (0, 14, None));
        let found = mews(&MewsInputs { temperature_celsius: Some(98.6), ..healthy() });
        assert_eq!(
            (found.lower, found.upper, found.missing),
            (0, 2, vec![MewsParameter::Temperature])
        );
    }
}
