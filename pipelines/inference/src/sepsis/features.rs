//! What the model looks at: each quantity's last value, its age, its course and how often it is measured.
//!
//! Hour by hour and causal: [`History::push`] takes what was measured in one hour and gives the row of features at
//! its end, from that hour and those before it alone. What was never measured is NaN and stays so; that, when and how often
//! something is ordered says much about a patient (Agniel, Kohane, Weber, BMJ 361, 2018), so ages and counts are features too,
//! and of laboratory values also the rate and the time since the first.
//!
//! Left out on purpose: the kind of unit (its names are a site's own) and end-tidal CO₂ (not measured in the
//! hospital that the shipped model was trained on).

use super::severity;
use haar_recordings::cinc2019::{Hour, Stay, VARIABLES, VITALS};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// How far back windows go, in hours; what is older is known by its last value, extremes and mean.
pub const WINDOW_H: usize = 24;

/// Windows of the vital signs' courses, in hours.
const COURSES_H: [usize; 3] = [6, 12, WINDOW_H];
/// Windows in which measured laboratory values are counted, in hours.
const ORDERS_H: [usize; 5] = [1, 3, 6, 12, WINDOW_H];
/// Windows in which measured vital signs are counted, in hours.
const COVERAGE_H: [usize; 2] = [6, WINDOW_H];
/// End-tidal CO₂.
const LEFT_OUT: usize = 7;

/// One number that the model looks at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feature {
    /// Its name, such as `Lactate age`.
    pub name: String,
    /// The input that it is computed from, such as `Lactate`: what a clinician is shown.
    pub input: &'static str,
}

/// The features, in the order of the rows.
pub fn features() -> Vec<Feature> {
    let mut row = Row { values: Vec::new(), features: Some(Vec::new()) };
    let unknown = Hour { values: [f32::NAN; VARIABLES.len()], in_care_h: f32::NAN, sepsis: None };
    let patient = Patient { age_years: f32::NAN, male: f32::NAN, hospital_admission_h: f32::NAN };
    let mut history = History::new(patient);
    history.take(&unknown);
    history.write(&mut row);
    row.features.unwrap_or_default()
}

/// The SHA-256 of the features' names, in hexadecimal: a model fits one list only.
pub fn feature_digest() -> String {
    let mut digest = Sha256::new();
    for feature in features() {
        digest.update(feature.name);
        digest.update(b"\n");
    }
    hex::encode(digest.finalize())
}

/// What is known of a patient from the beginning; NaN is not known.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Patient {
    /// Age in years.
    pub age_years: f32,
    /// 1 for male, 0 for female.
    pub male: f32,
    /// Hours from the admission to hospital to that to intensive care, not positive as a rule.
    pub hospital_admission_h: f32,
}

impl From<&Stay> for Patient {
    fn from(stay: &Stay) -> Self {
        let Stay { age_years, male, hospital_admission_h, .. } = *stay;
        Self { age_years, male, hospital_admission_h }
    }
}

/// A patient's hours so far, as far as features need them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "Kept", try_from = "Kept")]
pub struct History {
    patient: Patient,
    hours: u32,
    in_care_h: f32,
    window: VecDeque<[f32; VARIABLES.len()]>,
    courses: [Course; VARIABLES.len()],
}

/// A history as it is written: arrays as long as [`VARIABLES`] become vectors.
#[derive(Serialize, Deserialize)]
struct Kept {
    patient: Patient,
    hours: u32,
    in_care_h: f32,
    window: Vec<Vec<f32>>,
    courses: Vec<Course>,
}

/// What is kept of one quantity besides the window.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Course {
    last: f32,
    before: f32,
    first: f32,
    largest: f32,
    smallest: f32,
    sum: f64,
    count: u32,
    first_at: u32,
    measured_at: u32,
}

impl History {
    /// Before the first hour.
    pub fn new(patient: Patient) -> Self {
        let none = Course {
            last: f32::NAN,
            before: f32::NAN,
            first: f32::NAN,
            largest: f32::NAN,
            smallest: f32::NAN,
            sum: 0.0,
            count: 0,
            first_at: 0,
            measured_at: 0,
        };
        let courses = [none; VARIABLES.len()];
        Self { patient, hours: 0, in_care_h: f32::NAN, window: VecDeque::new(), courses }
    }

    /// Takes the next hour, also one in which nothing was measured, and gives the features at its end.
    pub fn push(&mut self, hour: &Hour) -> Vec<f32> {
        self.take(hour);
        let mut row = Row { values: Vec::new(), features: None };
        self.write(&mut row);
        row.values
    }

    fn take(&mut self, hour: &Hour) {
        self.hours += 1;
        self.in_care_h = hour.in_care_h;
        self.window.push_back(hour.values);
        if self.window.len() > WINDOW_H {
            self.window.pop_front();
        }
        for (course, value) in self.courses.iter_mut().zip(hour.values) {
            if value.is_nan() {
                continue;
            }
            course.before = course.last;
            course.last = value;
            if course.count == 0 {
                course.first = value;
                course.first_at = self.hours;
            }
            course.largest = course.largest.max(value);
            course.smallest = course.smallest.min(value);
            course.sum += f64::from(value);
            course.count += 1;
            course.measured_at = self.hours;
        }
    }

    fn write(&self, row: &mut Row) {
        for (number, variable) in VARIABLES.iter().enumerate() {
            if number != LEFT_OUT {
                self.write_variable(row, number, variable.name);
            }
        }
        self.write_orders(row);
        let last: [f32; VARIABLES.len()] = std::array::from_fn(|number| self.courses[number].last);
        for (name, value) in severity::scores(&last) {
            row.put(name, || name.to_owned(), value);
        }
        row.put("Age", || "Age".into(), self.patient.age_years);
        row.put("Sex", || "Sex (male)".into(), self.patient.male);
        let admission = "Admission to hospital";
        row.put(admission, || admission.into(), self.patient.hospital_admission_h);
        row.put("Hours in intensive care", || "Hours in intensive care".into(), self.in_care_h);
    }

    fn write_variable(&self, row: &mut Row, number: usize, name: &'static str) {
        let course = &self.courses[number];
        let known = |value: f32| if course.count > 0 { value } else { f32::NAN };
        let recent = self.recent(number, WINDOW_H).filter(|value| !value.is_nan()).count();
        row.put(name, || format!("{name} last"), course.last);
        row.put(name, || format!("{name} age"), known((self.hours - course.measured_at) as f32));
        row.put(name, || format!("{name} count {WINDOW_H} h"), recent as f32);
        row.put(name, || format!("{name} step"), course.last - course.before);
        row.put(name, || format!("{name} since first"), course.last - course.first);
        row.put(name, || format!("{name} largest"), course.largest);
        row.put(name, || format!("{name} smallest"), course.smallest);
        if number >= VITALS {
            let hours = self.hours.max(1) as f32;
            row.put(name, || format!("{name} count"), course.count as f32);
            row.put(name, || format!("{name} count by hour"), course.count as f32 / hours);
            row.put(
                name,
                || format!("{name} since ordered"),
                known((self.hours - course.first_at) as f32),
            );
            return;
        }
        let mean = course.sum / f64::from(course.count.max(1));
        row.put(name, || format!("{name} mean"), known(mean as f32));
        for hours in COURSES_H {
            let shape = Shape::of(self.recent(number, hours));
            row.put(name, || format!("{name} mean {hours} h"), shape.mean);
            row.put(name, || format!("{name} smallest {hours} h"), shape.smallest);
            row.put(name, || format!("{name} largest {hours} h"), shape.largest);
            row.put(name, || format!("{name} deviation {hours} h"), shape.deviation);
            row.put(name, || format!("{name} slope {hours} h"), shape.slope);
        }
    }

    /// How much was measured lately, whatever came out.
    fn write_orders(&self, row: &mut Row) {
        for hours in ORDERS_H {
            let count: usize =
                (VITALS..VARIABLES.len()).map(|number| self.measured(number, hours)).sum();
            let name = "Laboratory values measured";
            row.put(name, || format!("{name} {hours} h"), count as f32);
        }
        for hours in COVERAGE_H {
            let count: usize = (0..LEFT_OUT).map(|number| self.measured(number, hours)).sum();
            let share = count as f32 / (self.window.len().min(hours).max(1) * LEFT_OUT) as f32;
            let name = "Vital signs measured";
            row.put(name, || format!("{name} {hours} h"), share);
        }
    }

    fn measured(&self, number: usize, hours: usize) -> usize {
        self.recent(number, hours).filter(|value| !value.is_nan()).count()
    }

    /// A quantity's last hours, oldest first.
    fn recent(&self, number: usize, hours: usize) -> impl Iterator<Item = f32> {
        let skipped = self.window.len().saturating_sub(hours);
        self.window.iter().skip(skipped).map(move |values| values[number])
    }
}

impl From<History> for Kept {
    fn from(history: History) -> Self {
        let History { patient, hours, in_care_h, window, courses } = history;
        let window = window.into_iter().map(Vec::from).collect();
        Self { patient, hours, in_care_h, window, courses: courses.into() }
    }
}

/// What was written is no history of this build's quantities.
#[derive(Debug, thiserror::Error)]
#[error("a history of other quantities than this build's")]
struct OtherQuantities;

impl TryFrom<Kept> for History {
    type Error = OtherQuantities;

    fn try_from(kept: Kept) -> Result<Self, OtherQuantities> {
        let Kept { patient, hours, in_care_h, window, courses } = kept;
        if window.len() > WINDOW_H {
            return Err(OtherQuantities);
        }
        let window = window.into_iter().map(|hour| hour.try_into().map_err(|_| OtherQuantities));
        let window = window.collect::<Result<_, _>>()?;
        let courses = courses.try_into().map_err(|_| OtherQuantities)?;
        Ok(Self { patient, hours, in_care_h, window, courses })
    }
}

struct Row {
    values: Vec<f32>,
    features: Option<Vec<Feature>>,
}

impl Row {
    fn put(&mut self, input: &'static str, name: impl FnOnce() -> String, value: f32) {
        self.values.push(if value.is_finite() { value } else { f32::NAN });
        if let Some(features) = &mut self.features {
            features.push(Feature { name: name(), input });
        }
    }
}

/// The course of a window; NaN where there is too little for it.
struct Shape {
    mean: f32,
    smallest: f32,
    largest: f32,
    /// Of three values or more, with n in the denominator.
    deviation: f32,
    /// Least squares over three values or more, per hour.
    slope: f32,
}

impl Shape {
    fn of(values: impl Iterator<Item = f32>) -> Self {
        let (mut n, mut sum, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
        let (mut t, mut tt, mut tx) = (0.0_f64, 0.0_f64, 0.0_f64);
        let (mut smallest, mut largest) = (f32::NAN, f32::NAN);
        for (hour, value) in values.enumerate().filter(|(_, value)| !value.is_nan()) {
            let (hour, x) = (hour as f64, f64::from(value));
            n += 1.0;
            sum += x;
            squares += x * x;
            t += hour;
            tt += hour * hour;
            tx += hour * x;
            smallest = smallest.min(value);
            largest = largest.max(value);
        }
        // 0/0 without a value.
        let mean = sum / n;
        let (mut deviation, mut slope) = (f64::NAN, f64::NAN);
        if n > 2.0 {
            deviation = (squares / n - mean * mean).max(0.0).sqrt();
            slope = (tx - t * mean) / (tt - t * t / n);
        }
        let (mean, deviation, slope) = (mean as f32, deviation as f32, slope as f32);
        Self { mean, smallest, largest, deviation, slope }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn hour(in_care_h: f32, measured: &[(usize, f32)]) -> Hour {
        let mut values = [f32::NAN; VARIABLES.len()];
        for (number, value) in measured {
            values[*number] = *value;
        }
        Hour { values, in_care_h, sepsis: None }
    }

    fn patient() -> Patient {
        Patient { age_years: 64.0, male: 1.0, hospital_admission_h: -3.0 }
    }

    #[test]
    fn names_are_unique_and_rows_have_their_length() {
        let names: BTreeSet<String> = features().into_iter().map(|feature| feature.name).collect();
        assert_eq!(names.len(), features().len());
        let row = History::new(patient()).push(&hour(1.0, &[]));
        assert_eq!(row.len(), names.len());
        assert!(!names.iter().any(|name| name.contains("EtCO2")));
    }

    #[test]
    fn the_course_of_a_heart_rate() {
        let mut history = History::new(patient());
        history.push(&hour(1.0, &[(0, 80.0)]));
        history.push(&hour(2.0, &[(0, 90.0), (22, 3.0)]));
        history.push(&hour(3.0, &[(0, 100.0)]));
        let row = history.push(&hour(4.0, &[]));
        let value =
            |name: &str| row[features().iter().position(|feature| feature.name == name).unwrap()];
        for (name, expected) in [
            ("HR last", 100.0),
            ("HR age", 1.0),
            ("HR count 24 h", 3.0),
            ("HR step", 10.0),
            ("HR since first", 20.0),
            ("HR mean 6 h", 90.0),
            ("HR slope 6 h", 10.0),
            ("HR smallest 6 h", 80.0),
            ("Lactate age", 2.0),
            ("Lactate count", 1.0),
            ("Lactate count by hour", 0.25),
            ("Lactate since ordered", 2.0),
            ("Laboratory values measured 3 h", 1.0),
            ("Laboratory values measured 1 h", 0.0),
            ("Hours in intensive care", 4.0),
        ] {
            assert!((value(name) - expected).abs() < 1e-4, "{name}: {}", value(name));
        }
        assert!(value("SBP last").is_nan() && value("Lactate step").is_nan());
    }

    #[test]
    fn a_written_history_goes_on_as_it_was() {
        let mut history = History::new(patient());
        for at in 0_u16..30 {
            let rate = 80.0 + f32::from(at);
            history.push(&hour(f32::from(at), &[(0, rate), (22, rate / 50.0)]));
        }
        let written = postcard::to_allocvec(&history).unwrap();
        let mut again: History = postcard::from_bytes(&written).unwrap();
        let bits = |history: &mut History| {
            let row = history.push(&hour(31.0, &[(2, 38.0)]));
            row.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(&mut history), bits(&mut again));
        let mut other = Kept::from(history);
        other.courses.pop();
        let written = postcard::to_allocvec(&other).unwrap();
        assert!(postcard::from_bytes::<History>(&written).is_err());
    }

    /// 0.1 to 300, by tenths: proptest 1.12 draws from wide ranges of `f32` with a panic once in some million times.
    fn value() -> impl Strategy<Value = f32> {
        (1u16..3_000).prop_map(|tenths| f32::from(tenths) / 10.0)
    }

    proptest! {
        /// Hours to come change nothing, and a course of any length gives finite numbers or NaN.
        #[test]
        fn causal(values in prop::collection::vec((0usize..VARIABLES.len(), value()), 1..80), cut in 0usize..80) {
            let rows = |changed: bool| -> Vec<Vec<f32>> {
                let mut history = History::new(patient());
                values.iter().enumerate().map(|(at, (number, value))| {
                    let value = if changed && at > cut { 7.0 } else { *value };
                    history.push(&hour(at as f32, &[(*number, value)]))
                }).collect()
            };
            let (one, other) = (rows(false), rows(true));
            for at in 0..values.len().min(cut + 1) {
                prop_assert!(one[at].iter().zip(&other[at]).all(|(a, b)| a.to_bits() == b.to_bits()));
                prop_assert!(one[at].iter().all(|value| !value.is_infinite()));
            }
        }
    }
}
