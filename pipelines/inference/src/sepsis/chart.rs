//! A patient's hourly chart as it grows from live readings.
//!
//! Of each vital sign the first value of an hour is charted, as on a paper chart; an hour in which nothing was measured
//! is an empty line. Hours are those of event time. When the first reading of a later hour comes, the hours before it are closed, and
//! the features are those at the end of the last of them. Deterministic: a function of the readings in their order.
//!
//! # What is missing
//! Mean arterial pressure is reckoned from systolic and diastolic of the same hour, (S + 2 D) / 3, where both are there. What no
//! device brings is missing: laboratory values, age, sex, the time of admission. *Hours in intensive care* counts from the first charted
//! hour: for a patient who lay there before, it is too small.

use super::features::{History, Patient};
use haar_recordings::cinc2019::{Hour, VARIABLES};
use haar_schema::{SignalId, Timestamp};
use serde::{Deserialize, Serialize};

/// After so many hours without a reading, a chart is over; what comes then is another stay.
pub const MAX_GAP_H: i64 = 24;

const HOUR_US: i64 = 3_600_000_000;

/// The vital signs that are charted, with their places in [`VARIABLES`]; units are the same.
const CHARTED: [(SignalId, usize); 6] = [
    (SignalId::HEART_RATE, 0),
    (SignalId::SPO2, 1),
    (SignalId::TEMPERATURE, 2),
    (SignalId::SYSTOLIC, 3),
    (SignalId::DIASTOLIC, 5),
    (SignalId::RESPIRATION_RATE, 6),
];
const SYSTOLIC: usize = 3;
const MEAN_PRESSURE: usize = 4;
const DIASTOLIC: usize = 5;

/// One patient's chart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chart {
    /// The open hour: hours since 1970.
    hour: i64,
    /// Closed hours.
    closed: u32,
    /// What is charted in the open hour, in the order of [`CHARTED`].
    values: [Option<f32>; CHARTED.len()],
    history: History,
}

impl Chart {
    /// An empty chart whose first hour is that of `at`.
    pub fn begin(at: Timestamp) -> Self {
        let patient =
            Patient { age_years: f32::NAN, male: f32::NAN, hospital_admission_h: f32::NAN };
        let values = [None; CHARTED.len()];
        Self { hour: hour_of(at), closed: 0, values, history: History::new(patient) }
    }

    /// The vital signs that a chart has lines for.
    pub fn signals() -> impl Iterator<Item = SignalId> {
        CHARTED.into_iter().map(|(signal, _)| signal)
    }

    /// Whether a reading at `at` belongs to another stay: more than [`MAX_GAP_H`] later.
    pub fn is_over_at(&self, at: Timestamp) -> bool {
        hour_of(at) - self.hour > MAX_GAP_H
    }

    /// Turns to the hour of `at`. If that is a later one, the features at the end of the hour before it.
    pub fn turn_to(&mut self, at: Timestamp) -> Option<Vec<f32>> {
        let mut row = None;
        let later = (hour_of(at) - self.hour).min(MAX_GAP_H);
        for _ in 0..later {
            self.closed = self.closed.saturating_add(1);
            let hour = Hour { values: self.line(), in_care_h: self.closed as f32, sepsis: None };
            row = Some(self.history.push(&hour));
            self.values = [None; CHARTED.len()];
            self.hour += 1;
        }
        row
    }

    /// Charts a value of the hour of `at` if that is the open one and the signal has none in it yet; whether it did.
    pub fn note(&mut self, signal: SignalId, value: f64, at: Timestamp) -> bool {
        let place = CHARTED.iter().position(|(charted, _)| *charted == signal);
        let slot = place.and_then(|place| self.values.get_mut(place));
        match slot {
            Some(slot @ None) if hour_of(at) == self.hour && value.is_finite() => {
                *slot = Some(value as f32);
                true
            }
            _ => false,
        }
    }

    /// Hours that are closed.
    pub const fn hours(&self) -> u32 {
        self.closed
    }

    /// When the open hour began.
    pub const fn open_since(&self) -> Timestamp {
        Timestamp::from_micros(self.hour.saturating_mul(HOUR_US))
    }

    fn line(&self) -> [f32; VARIABLES.len()] {
        let mut line = [f32::NAN; VARIABLES.len()];
        for ((_, place), value) in CHARTED.into_iter().zip(self.values) {
            line[place] = value.unwrap_or(f32::NAN);
        }
        // NaN if one of them is.
        line[MEAN_PRESSURE] = (line[SYSTOLIC] + 2.0 * line[DIASTOLIC]) / 3.0;
        line
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.micros().div_euclid(HOUR_US)
}

#[cfg(test)]
mod tests {
    use super::super::features;
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000)
    }

    #[test]
    fn the_first_value_of_an_hour_is_charted_and_gaps_stay_gaps() {
        let mut chart = Chart::begin(at(5));
        assert!(chart.note(SignalId::HEART_RATE, 80.0, at(5)));
        assert!(!chart.note(SignalId::HEART_RATE, 180.0, at(6)));
        assert!(chart.note(SignalId::SYSTOLIC, 120.0, at(7)));
        assert!(chart.note(SignalId::DIASTOLIC, 60.0, at(8)));
        assert!(
            !chart.note(SignalId::ECG, 1.0, at(9)) && !chart.note(SignalId::SPO2, f64::NAN, at(9))
        );
        assert_eq!(chart.turn_to(at(59)), None);
        let row = chart.turn_to(at(185)).unwrap();
        // An older reading is no reading of the open hour.
        assert!(!chart.note(SignalId::HEART_RATE, 90.0, at(100)));
        assert_eq!((chart.hours(), chart.open_since()), (3, at(180)));
        let value =
            |name: &str| row[features().iter().position(|feature| feature.name == name).unwrap()];
        for (name, expected) in [
            ("HR last", 80.0),
            ("HR age", 2.0),
            ("MAP last", 80.0),
            ("Hours in intensive care", 3.0),
            ("Laboratory values measured 24 h", 0.0),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        assert!(value("O2Sat last").is_nan() && value("Age").is_nan());
        assert!(!chart.is_over_at(at(60 * 27)) && chart.is_over_at(at(60 * 28)));
    }

    #[test]
    fn a_written_chart_goes_on_as_it_was() {
        let mut chart = Chart::begin(at(0));
        for hour in 0..30 {
            chart.turn_to(at(60 * hour));
            chart.note(SignalId::TEMPERATURE, 37.0 + hour as f64 / 10.0, at(60 * hour + 1));
        }
        let written = postcard::to_allocvec(&chart).unwrap();
        let mut again: Chart = postcard::from_bytes(&written).unwrap();
        let bits = |chart: &mut Chart| {
            let row = chart.turn_to(at(60 * 30)).unwrap();
            row.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(&mut chart), bits(&mut again));
        assert!(written.len() < 8_192, "{} bytes", written.len());
    }
}
