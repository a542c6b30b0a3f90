//! Cases to train the sorter of flags on: drawn, not recorded.
//!
//! A case is an adult at rest (ranges of the simulated ward), to whom one thing happens, as far as a random severity says;
//! then sensors are taken away at random, since windows of an ECG have no pressure and windows of vitals no rhythm.
//! What happens follows what textbooks and scores give as typical:
//!
//! | group | drawn from |
//! |---|---|
//! | rhythm | fibrillation: irregularity above −1.4 (Lake, Moorman 2011); ectopy 10 % and more; rate above 130 or below 45 |
//! | respiratory | saturation below 92 % with breathing above 20 or below 10 (NEWS2, RCP 2017) |
//! | infection | temperature above 38.3 or below 36, with rate, breathing and pressure following (SIRS, Bone 1992; qSOFA, Singer 2016) |
//! | metabolic | glucose below 70 or above 250 mg/dL (ADA), deep breathing and fast heart when high |
//! | haemodynamic | systolic pressure below 95 or above 180 with an answering rate, no fever |
//! | device | poor quality, gaps, or values outside of what a heart can do |

use super::{ConditionFeatures, ConditionGroup, INPUTS};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A drawn window.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    /// What it is about.
    pub group: ConditionGroup,
    /// Its features.
    pub features: ConditionFeatures,
}

/// Which sensors a window has.
const SENSORS: [&[&str]; 6] = [
    &["heart_rate.mean", "heart_rate.continuity"],
    &["spo2.mean", "spo2.continuity"],
    &["respiration_rate.mean"],
    &["systolic.mean", "diastolic.mean"],
    &["temperature.mean"],
    &["glucose.mean"],
];

/// `count` cases from a seed, the groups in turn.
pub fn draw(seed: u64, count: usize) -> impl Iterator<Item = Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(move |at| {
        let group = ConditionGroup::ALL[at % ConditionGroup::ALL.len()];
        Case { group, features: window(group, &mut rng) }
    })
}

fn window(group: ConditionGroup, rng: &mut ChaCha8Rng) -> ConditionFeatures {
    let mut values = at_rest(rng);
    let shows_in_ecg = match group {
        ConditionGroup::Rhythm => true,
        ConditionGroup::Device => rng.random_bool(0.5),
        _ => false,
    };
    match group {
        ConditionGroup::Rhythm => rhythm(&mut values, rng),
        ConditionGroup::Respiratory => respiratory(&mut values, rng),
        ConditionGroup::Infection => infection(&mut values, rng),
        ConditionGroup::Metabolic => metabolic(&mut values, rng),
        ConditionGroup::Haemodynamic => haemodynamic(&mut values, rng),
        ConditionGroup::Device => device(&mut values, shows_in_ecg, rng),
    }
    // A window is of vitals or of an ECG; now and then somebody joins both.
    let both = rng.random_bool(0.2);
    let is_ecg = |name: &str| name.starts_with("ecg.") || name.starts_with("beats.");
    let there = |name: &str| both || is_ecg(name) == shows_in_ecg;
    let absent: Vec<&str> = SENSORS
        .iter()
        .filter(|names| !tells(group, names) && rng.random_bool(0.3))
        .flat_map(|names| names.iter().copied())
        .collect();
    ConditionFeatures::of(|name| {
        let at = INPUTS.iter().position(|input| input.name == name)?;
        (there(name) && !absent.contains(&name)).then(|| values[at])
    })
}

/// Whether a group cannot be told without this sensor.
fn tells(group: ConditionGroup, names: &[&str]) -> bool {
    let needed = match group {
        ConditionGroup::Rhythm | ConditionGroup::Device => "heart_rate.mean",
        ConditionGroup::Respiratory => "spo2.mean",
        ConditionGroup::Infection => "temperature.mean",
        ConditionGroup::Metabolic => "glucose.mean",
        ConditionGroup::Haemodynamic => "systolic.mean",
    };
    names.contains(&needed)
}

type Values = [f64; INPUTS.len()];

/// Places in [`Values`].
const HEART_RATE: usize = 0;
const SPO2: usize = 1;
const BREATHING: usize = 2;
const SYSTOLIC: usize = 3;
const DIASTOLIC: usize = 4;
const TEMPERATURE: usize = 5;
const GLUCOSE: usize = 6;
const HEART_RATE_CONTINUITY: usize = 7;
const SPO2_CONTINUITY: usize = 8;
const ECG_RATE: usize = 9;
const IRREGULARITY: usize = 10;
const QUALITY: usize = 11;
const VENTRICULAR: usize = 12;
const SUPRAVENTRICULAR: usize = 13;

fn at_rest(rng: &mut ChaCha8Rng) -> Values {
    let heart_rate = rng.random_range(55.0..100.0);
    [
        heart_rate,
        rng.random_range(94.0..99.5),
        rng.random_range(11.0..20.0),
        rng.random_range(105.0..150.0),
        rng.random_range(60.0..92.0),
        rng.random_range(36.1..37.6),
        rng.random_range(75.0..180.0),
        rng.random_range(0.85..1.0),
        rng.random_range(0.85..1.0),
        heart_rate,
        rng.random_range(-3.0..-1.6),
        rng.random_range(0.65..1.0),
        rng.random_range(0.0..0.04),
        rng.random_range(0.0..0.04),
    ]
}

fn set_rate(values: &mut Values, rate: f64) {
    let rate = rate.clamp(20.0, 230.0);
    (values[HEART_RATE], values[ECG_RATE]) = (rate, rate);
}

fn rhythm(values: &mut Values, rng: &mut ChaCha8Rng) {
    match rng.random_range(0..4) {
        0 => {
            values[IRREGULARITY] = rng.random_range(-1.4..-0.2);
            let rate = values[HEART_RATE] + rng.random_range(0.0..70.0);
            set_rate(values, rate);
        }
        1 => {
            values[VENTRICULAR] = rng.random_range(0.1..0.6);
            values[IRREGULARITY] = rng.random_range(-2.2..-0.6);
        }
        2 => {
            let rate = rng.random_range(130.0..210.0);
            set_rate(values, rate);
            values[SUPRAVENTRICULAR] = rng.random_range(0.0..0.3);
        }
        _ => {
            let rate = rng.random_range(25.0..45.0);
            set_rate(values, rate);
            values[SYSTOLIC] -= rng.random_range(0.0..25.0);
        }
    }
}

fn respiratory(values: &mut Values, rng: &mut ChaCha8Rng) {
    values[SPO2] = rng.random_range(70.0..92.0);
    values[BREATHING] = match rng.random_bool(0.8) {
        true => rng.random_range(20.0..42.0),
        false => rng.random_range(4.0..10.0),
    };
    let rate = values[HEART_RATE] + rng.random_range(0.0..40.0);
    set_rate(values, rate);
}

fn infection(values: &mut Values, rng: &mut ChaCha8Rng) {
    values[TEMPERATURE] = match rng.random_bool(0.9) {
        true => rng.random_range(38.3..41.0),
        false => rng.random_range(34.5..36.0),
    };
    let rate = values[HEART_RATE] + rng.random_range(10.0..55.0);
    set_rate(values, rate);
    values[BREATHING] += rng.random_range(2.0..14.0);
    values[SYSTOLIC] -= rng.random_range(0.0..45.0);
    values[DIASTOLIC] -= rng.random_range(0.0..28.0);
    values[SPO2] -= rng.random_range(0.0..8.0);
}

fn metabolic(values: &mut Values, rng: &mut ChaCha8Rng) {
    if rng.random_bool(0.5) {
        values[GLUCOSE] = rng.random_range(25.0..70.0);
        let rate = values[HEART_RATE] + rng.random_range(0.0..30.0);
        set_rate(values, rate);
    } else {
        values[GLUCOSE] = rng.random_range(250.0..600.0);
        values[BREATHING] += rng.random_range(0.0..16.0);
        values[SYSTOLIC] -= rng.random_range(0.0..20.0);
    }
}

fn haemodynamic(values: &mut Values, rng: &mut ChaCha8Rng) {
    if rng.random_bool(0.75) {
        values[SYSTOLIC] = rng.random_range(50.0..95.0);
        values[DIASTOLIC] = values[SYSTOLIC] * rng.random_range(0.45..0.7);
        let rate = values[HEART_RATE] + rng.random_range(0.0..50.0);
        set_rate(values, rate);
        values[BREATHING] += rng.random_range(0.0..8.0);
    } else {
        values[SYSTOLIC] = rng.random_range(180.0..240.0);
        values[DIASTOLIC] = rng.random_range(95.0..140.0);
    }
}

fn device(values: &mut Values, in_ecg: bool, rng: &mut ChaCha8Rng) {
    if in_ecg {
        values[QUALITY] = rng.random_range(0.0..0.45);
        values[IRREGULARITY] = rng.random_range(-2.5..-0.2);
        values[ECG_RATE] = rng.random_range(30.0..220.0);
        return;
    }
    match rng.random_range(0..3) {
        0 => values[HEART_RATE_CONTINUITY] = rng.random_range(0.0..0.5),
        1 => values[SPO2_CONTINUITY] = rng.random_range(0.0..0.5),
        _ => {
            // An oximeter off the finger: both at once.
            values[HEART_RATE_CONTINUITY] = rng.random_range(0.0..0.6);
            values[SPO2_CONTINUITY] = rng.random_range(0.0..0.6);
            values[SPO2] = rng.random_range(40.0..90.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_grow_from_the_seed_and_always_have_what_tells() {
        let cases: Vec<Case> = draw(1, 600).collect();
        assert_eq!(cases, draw(1, 600).collect::<Vec<_>>());
        assert_ne!(cases, draw(2, 600).collect::<Vec<_>>());
        for case in &cases {
            assert!(case.features.known() >= 2, "{case:?}");
        }
        for group in ConditionGroup::ALL {
            assert_eq!(cases.iter().filter(|case| case.group == group).count(), 100);
        }
    }
}
