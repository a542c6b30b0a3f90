//! Scores and ratios of what was last measured.
//!
//! Bone et al., Chest 101, 1992 (SIRS); Singer et al., JAMA 315, 2016 (qSOFA); Vincent et al., Intensive Care Med 22, 1996
//! (SOFA); Royal College of Physicians 2017 (NEWS2); Allgöwer, Burri 1967 (shock index). They are features and no
//! diagnoses: consciousness, urine and vasopressors are not in the data, so each counts what is there, a missing
//! quantity as no point.

use haar_recordings::cinc2019::VARIABLES;
use haar_signals::news2::{Inputs, news2};

const HR: usize = 0;
const SPO2: usize = 1;
const TEMP: usize = 2;
const SBP: usize = 3;
const MAP: usize = 4;
const DBP: usize = 5;
const RESP: usize = 6;
const FIO2: usize = 10;
const PACO2: usize = 12;
const BUN: usize = 15;
const CREATININE: usize = 19;
const BILIRUBIN: usize = 26;
const WBC: usize = 31;
const PLATELETS: usize = 33;

/// Names and values, of the last values in the order of [`VARIABLES`]; NaN where an input of a ratio is missing.
pub(super) fn scores(last: &[f32; VARIABLES.len()]) -> [(&'static str, f32); 10] {
    let pulse_pressure = last[SBP] - last[DBP];
    [
        ("Shock index", last[HR] / last[SBP]),
        ("Heart rate by mean pressure", last[HR] / last[MAP]),
        ("Pulse pressure", pulse_pressure),
        ("SpO2 by FiO2", if last[FIO2] >= 0.2 { last[SPO2] / last[FIO2] } else { f32::NAN }),
        ("BUN by creatinine", last[BUN] / last[CREATININE]),
        ("Heart rate by pulse pressure", last[HR] / pulse_pressure),
        ("SIRS", sirs(last)),
        ("qSOFA", points(&[last[SBP] <= 100.0, last[RESP] >= 22.0])),
        ("SOFA", sofa(last)),
        ("NEWS2", f32::from(news(last).lower)),
    ]
}

fn sirs(last: &[f32; VARIABLES.len()]) -> f32 {
    points(&[
        last[HR] > 90.0,
        last[RESP] > 20.0 || last[PACO2] < 32.0,
        last[TEMP] > 38.0 || last[TEMP] < 36.0,
        last[WBC] > 12.0 || last[WBC] < 4.0,
    ])
}

/// Circulation (pressure only), coagulation, liver and kidney (creatinine only).
fn sofa(last: &[f32; VARIABLES.len()]) -> f32 {
    let above = |value: f32, limits: [f32; 4]| points(&limits.map(|limit| value >= limit));
    let below = |value: f32, limits: [f32; 4]| points(&limits.map(|limit| value < limit));
    points(&[last[MAP] < 70.0])
        + below(last[PLATELETS], [150.0, 100.0, 50.0, 20.0])
        + above(last[BILIRUBIN], [1.2, 2.0, 6.0, 12.0])
        + above(last[CREATININE], [1.2, 2.0, 3.5, 5.0])
}

fn news(last: &[f32; VARIABLES.len()]) -> haar_signals::news2::News2 {
    let known = |number: usize| Some(f64::from(last[number])).filter(|value| !value.is_nan());
    news2(&Inputs {
        respiration_rate: known(RESP),
        spo2: known(SPO2),
        supplemental_oxygen: known(FIO2).map(|fraction| fraction > 0.21),
        systolic_mmhg: known(SBP),
        heart_rate: known(HR),
        temperature_celsius: known(TEMP),
        ..Inputs::default()
    })
}

/// How many hold; a comparison with NaN does not.
fn points(criteria: &[bool]) -> f32 {
    criteria.iter().filter(|holds| **holds).count() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_a_septic_patient_and_of_nothing() {
        let mut last = [f32::NAN; VARIABLES.len()];
        let nothing: Vec<f32> = scores(&last).iter().map(|score| score.1).collect();
        assert!(nothing[..6].iter().all(|ratio| ratio.is_nan()) && nothing[6..] == [0.0; 4]);
        for (number, value) in [
            (HR, 120.0),
            (SPO2, 90.0),
            (TEMP, 39.4),
            (SBP, 80.0),
            (MAP, 55.0),
            (DBP, 40.0),
            (RESP, 28.0),
            (FIO2, 0.5),
            (BUN, 40.0),
            (CREATININE, 2.0),
            (BILIRUBIN, 1.5),
            (WBC, 18.0),
            (PLATELETS, 90.0),
        ] {
            last[number] = value;
        }
        let values: Vec<f32> = scores(&last).iter().map(|score| score.1).collect();
        // NEWS2: breaths 3, saturation 3, oxygen 2, pressure 3, pulse 2, temperature 2.
        assert_eq!(values[6..], [4.0, 2.0, 1.0 + 2.0 + 1.0 + 2.0, 15.0]);
        assert_eq!((values[0], values[2], values[3]), (1.5, 40.0, 180.0));
    }
}
