//! A patient's hourly chart as it grows from live readings.
//!
//! Of each vital sign and laboratory value the first of an hour is charted, as on a paper chart; an hour in which nothing was measured
//! is an empty line. A vital sign belongs to the hour in which it was measured, a laboratory value to the one in which it became known.
//! Hours are those of event time. When the first reading of a later hour comes, the hours before it are closed, and
//! the features are those at the end of the last of them. Deterministic: a function of the readings in their order.
//!
//! # What is missing
//! Mean arterial pressure is reckoned from systolic and diastolic of the same hour, (S + 2 D) / 3, where both are there. What no
//! device or laboratory brings is missing: age, sex, the time of admission. *Hours in intensive care* counts from the first charted
//! hour: for a patient who lay there before, it is too small.

use super::features::{History, Patient};
use haar_recordings::cinc2019::{Hour, VARIABLES};
use haar_schema::{SignalId, Timestamp};
use serde::{Deserialize, Serialize};

/// After so many hours without a reading, a chart is over; what comes then is another stay.
pub const MAX_GAP_H: i64 = 24;

/// Laboratory values that wait for their hour: a day of all of them.
const MAX_AHEAD: usize = 24 * LABORATORY;

const HOUR_US: i64 = 3_600_000_000;

/// What is charted, with its place in [`VARIABLES`]; units are the same, but for [`FRACTION`]. Vital signs first.
const CHARTED: [(SignalId, usize); VITAL_SIGNS + LABORATORY] = [
    (SignalId::HEART_RATE, 0),
    (SignalId::SPO2, 1),
    (SignalId::TEMPERATURE, 2),
    (SignalId::SYSTOLIC, 3),
    (SignalId::DIASTOLIC, 5),
    (SignalId::RESPIRATION_RATE, 6),
    (SignalId::BASE_EXCESS, 8),
    (SignalId::BICARBONATE, 9),
    (SignalId::INSPIRED_OXYGEN, 10),
    (SignalId::BLOOD_PH, 11),
    (SignalId::ARTERIAL_CO2, 12),
    (SignalId::ARTERIAL_SATURATION, 13),
    (SignalId::ASPARTATE_AMINOTRANSFERASE, 14),
    (SignalId::UREA_NITROGEN, 15),
    (SignalId::ALKALINE_PHOSPHATASE, 16),
    (SignalId::CALCIUM, 17),
    (SignalId::CHLORIDE, 18),
    (SignalId::CREATININE, 19),
    (SignalId::BILIRUBIN_DIRECT, 20),
    (SignalId::BLOOD_GLUCOSE, 21),
    (SignalId::LACTATE, 22),
    (SignalId::MAGNESIUM, 23),
    (SignalId::PHOSPHATE, 24),
    (SignalId::POTASSIUM, 25),
    (SignalId::BILIRUBIN_TOTAL, 26),
    (SignalId::TROPONIN_I, 27),
    (SignalId::HEMATOCRIT, 28),
    (SignalId::HEMOGLOBIN, 29),
    (SignalId::APTT, 30),
    (SignalId::LEUKOCYTES, 31),
    (SignalId::FIBRINOGEN, 32),
    (SignalId::PLATELETS, 33),
];
const VITAL_SIGNS: usize = 6;
const LABORATORY: usize = 26;
/// Charted as a share of one, measured in per cent.
const FRACTION: SignalId = SignalId::INSPIRED_OXYGEN;
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
    values: Vec<Option<f32>>,
    /// Laboratory values of hours to come, while no vital sign turns the page: hour, place in [`CHARTED`], value.
    ahead: Vec<(i64, u8, f32)>,
    /// Whether a laboratory has ever reported.
    has_results: bool,
    history: History,
}

impl Chart {
    /// An empty chart whose first hour is that of `at`.
    pub fn begin(at: Timestamp) -> Self {
        let patient =
            Patient { age_years: f32::NAN, male: f32::NAN, hospital_admission_h: f32::NAN };
        let values = vec![None; CHARTED.len()];
        let (hour, history) = (hour_of(at), History::new(patient));
        Self { hour, closed: 0, values, ahead: Vec::new(), has_results: false, history }
    }

    /// The vital signs that a chart has lines for.
    pub fn vital_signs() -> impl Iterator<Item = SignalId> {
        CHARTED.into_iter().take(VITAL_SIGNS).map(|(signal, _)| signal)
    }

    /// The laboratory values that a chart has lines for.
    pub fn laboratory() -> impl Iterator<Item = SignalId> {
        CHARTED.into_iter().skip(VITAL_SIGNS).map(|(signal, _)| signal)
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
            self.values = vec![None; CHARTED.len()];
            self.hour += 1;
            let now = self.ahead.extract_if(.., |(hour, ..)| *hour <= self.hour);
            for (_, place, value) in now {
                if let Some(slot @ None) = self.values.get_mut(usize::from(place)) {
                    *slot = Some(value);
                }
            }
        }
        row
    }

    /// Charts a value of the hour of `at`, in the signal's unit, if that is the open one and the signal has none in it yet; whether it
    /// did. A laboratory value of an hour before, which has only now become known, is one of the open hour; one of an hour to come waits for it.
    pub fn note(&mut self, signal: SignalId, value: f64, at: Timestamp) -> bool {
        let Some(place) = CHARTED.iter().position(|(charted, _)| *charted == signal) else {
            return false;
        };
        let (is_result, hour) = (place >= VITAL_SIGNS, hour_of(at));
        let value = if signal == FRACTION { value / 100.0 } else { value };
        if is_result && hour > self.hour && value.is_finite() {
            let is_new =
                !self.ahead.iter().any(|(own, at, _)| (*own, usize::from(*at)) == (hour, place));
            if is_new && self.ahead.len() < MAX_AHEAD {
                self.ahead.push((hour, place as u8, value as f32));
                self.has_results = true;
                return true;
            }
            return false;
        }
        match self.values.get_mut(place) {
            Some(slot @ None)
                if (hour == self.hour || is_result && hour < self.hour) && value.is_finite() =>
            {
                *slot = Some(value as f32);
                self.has_results |= is_result;
                true
            }
            _ => false,
        }
    }

    /// Whether a laboratory value was charted. Of a chart without one the model's threshold says nothing: on recorded stays whose
    /// laboratory values were taken away it was reached in 62 % of the hours (`haar evaluate sepsis --without laboratory`).
    pub const fn has_results(&self) -> bool {
        self.has_results
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
        for ((_, place), value) in CHARTED.into_iter().zip(&self.values) {
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
    fn laboratory_values_are_charted_when_they_become_known() {
        let mut chart = Chart::begin(at(5));
        assert!(!chart.has_results());
        assert!(chart.note(SignalId::LACTATE, 3.1, at(5)));
        assert!(chart.has_results());
        assert!(!chart.note(SignalId::LACTATE, 9.9, at(50)), "one an hour");
        chart.turn_to(at(61));
        // Of 0:50, known at 1:01.
        assert!(chart.note(SignalId::INSPIRED_OXYGEN, 40.0, at(50)));
        assert!(!chart.note(SignalId::HEART_RATE, 80.0, at(50)), "a reading is of its hour");
        // Of 2:01, while the page is that of 1:00.
        assert!(chart.note(SignalId::LACTATE, 4.0, at(121)));
        assert!(!chart.note(SignalId::LACTATE, 5.0, at(122)), "one an hour");
        let row = chart.turn_to(at(121)).unwrap();
        let value =
            |name: &str| row[features().iter().position(|feature| feature.name == name).unwrap()];
        for (name, expected) in [
            ("Lactate last", 3.1),
            ("Lactate age", 1.0),
            ("FiO2 last", 0.4),
            ("FiO2 age", 0.0),
            ("Laboratory values measured 24 h", 2.0),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        let row = chart.turn_to(at(181)).unwrap();
        let lactate = features().iter().position(|own| own.name == "Lactate last").unwrap();
        assert_eq!(row[lactate], 4.0);
    }

    /// Each signal stands where the recordings have the variable of its name.
    #[test]
    fn signals_stand_in_their_variables_places() {
        let unit = |signal: SignalId| signal.definition().unit;
        for (signal, place) in CHARTED {
            let same = unit(signal) == VARIABLES[place].unit || signal == FRACTION;
            assert!(same, "{signal:?}: {} is {}", unit(signal), VARIABLES[place].unit);
        }
        let places: std::collections::BTreeSet<usize> =
            CHARTED.into_iter().map(|(_, place)| place).collect();
        // Mean pressure is reckoned, end-tidal CO2 left out.
        let all: Vec<usize> =
            (0..VARIABLES.len()).filter(|at| ![MEAN_PRESSURE, 7].contains(at)).collect();
        assert_eq!(places.into_iter().collect::<Vec<_>>(), all);
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
