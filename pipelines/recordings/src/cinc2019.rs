//! Stays of the PhysioNet/CinC Challenge 2019: hourly vitals and laboratory values of patients in intensive care.
//!
//! Reyna et al., "Early prediction of sepsis from clinical data", Crit Care Med 48(2), 2020, 10.1097/CCM.0000000000004145.
//!
//! # Format
//! One patient a file (`.psv`): a line of column names, then one line an hour, columns with `|` between them, `NaN` for what was
//! not measured. Columns are found by their names; all but `SepsisLabel` must be there, others are passed over.
//! `SepsisLabel` is 1 from six hours before the onset of sepsis (Sepsis-3) to the last line.
//!
//! # Units
//! Those of the values, by UCUM. The challenge's page prints mg/dL for lactate and mmol/dL for magnesium; their
//! values are plainly mmol/L and mg/dL, and so they are named here.
//!
//! # Limits
//! [`MAX_HOURS`] lines a file. A number that is not finite counts as not measured.

use std::collections::BTreeMap;

/// The most hours in one stay.
pub const MAX_HOURS: usize = 10_000;

/// The ending of these files' names.
pub const EXTENSION: &str = ".psv";

/// A measured quantity: its column and its UCUM unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variable {
    /// The name of its column.
    pub name: &'static str,
    /// Its UCUM unit.
    pub unit: &'static str,
}

/// How many of [`VARIABLES`] are vital signs; they come first, the laboratory values after them.
pub const VITALS: usize = 8;

/// What is measured, in the order of [`Hour::values`].
pub const VARIABLES: [Variable; 34] = [
    variable("HR", "/min"),
    variable("O2Sat", "%"),
    variable("Temp", "Cel"),
    variable("SBP", "mm[Hg]"),
    variable("MAP", "mm[Hg]"),
    variable("DBP", "mm[Hg]"),
    variable("Resp", "/min"),
    variable("EtCO2", "mm[Hg]"),
    variable("BaseExcess", "mmol/L"),
    variable("HCO3", "mmol/L"),
    variable("FiO2", "1"),
    variable("pH", "[pH]"),
    variable("PaCO2", "mm[Hg]"),
    variable("SaO2", "%"),
    variable("AST", "U/L"),
    variable("BUN", "mg/dL"),
    variable("Alkalinephos", "U/L"),
    variable("Calcium", "mg/dL"),
    variable("Chloride", "mmol/L"),
    variable("Creatinine", "mg/dL"),
    variable("Bilirubin_direct", "mg/dL"),
    variable("Glucose", "mg/dL"),
    variable("Lactate", "mmol/L"),
    variable("Magnesium", "mg/dL"),
    variable("Phosphate", "mg/dL"),
    variable("Potassium", "mmol/L"),
    variable("Bilirubin_total", "mg/dL"),
    variable("TroponinI", "ng/mL"),
    variable("Hct", "%"),
    variable("Hgb", "g/dL"),
    variable("PTT", "s"),
    variable("WBC", "10*3/uL"),
    variable("Fibrinogen", "mg/dL"),
    variable("Platelets", "10*3/uL"),
];

const fn variable(name: &'static str, unit: &'static str) -> Variable {
    Variable { name, unit }
}

/// One hour of a stay.
#[derive(Clone, PartialEq, Debug)]
pub struct Hour {
    /// What was measured in it, in the order and units of [`VARIABLES`]; NaN is not measured.
    pub values: [f32; VARIABLES.len()],
    /// Hours since the admission to intensive care, counted from 1.
    pub in_care_h: f32,
    /// Whether sepsis begins within six hours, or has begun; `None` without a label.
    pub sepsis: Option<bool>,
}

/// One patient's stay in intensive care.
#[derive(Clone, PartialEq, Debug)]
pub struct Stay {
    /// Age in years (100 for 90 and more in one of the hospitals); NaN is not known.
    pub age_years: f32,
    /// 1 for male, 0 for female; NaN is not known.
    pub male: f32,
    /// Hours from the admission to hospital to that to intensive care, not positive as a rule; NaN is not known.
    pub hospital_admission_h: f32,
    /// The hours, one after another.
    pub hours: Vec<Hour>,
}

impl Stay {
    /// Whether any hour is labelled; `None` if an hour has no label.
    pub fn has_sepsis(&self) -> Option<bool> {
        self.hours.iter().try_fold(false, |any, hour| Some(any | hour.sepsis?))
    }
}

/// Why a file is no stay.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StayError {
    /// The table cannot be read.
    #[error("not a table with `|` between its columns: {0}")]
    Table(#[from] csv::Error),
    /// A column is missing.
    #[error("no column `{0}`; give files of the CinC 2019 challenge")]
    Column(&'static str),
    /// Something is no number.
    #[error("line {line}, column `{column}` is no number")]
    Number {
        /// The line, counted from 1.
        line: usize,
        /// Which column.
        column: &'static str,
    },
    /// Over [`MAX_HOURS`].
    #[error("more than {MAX_HOURS} lines")]
    TooLong,
    /// No hour.
    #[error("no line after the columns' names")]
    Empty,
}

/// Reads a patient's file.
///
/// # Errors
/// If a column is missing, something is no number, or the file has no or too many lines.
pub fn read_stay(bytes: &[u8]) -> Result<Stay, StayError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(b'|').from_reader(bytes);
    let names: BTreeMap<String, usize> = reader
        .headers()?
        .iter()
        .enumerate()
        .map(|(at, name)| (name.trim().to_owned(), at))
        .collect();
    let column =
        |name: &'static str| names.get(name).map(|at| (name, *at)).ok_or(StayError::Column(name));
    let mut measured = Vec::with_capacity(VARIABLES.len());
    for variable in VARIABLES {
        measured.push(column(variable.name)?);
    }
    let (age, gender) = (column("Age")?, column("Gender")?);
    let (admission, in_care) = (column("HospAdmTime")?, column("ICULOS")?);
    let label = column("SepsisLabel").ok();
    let mut stay = Stay {
        age_years: f32::NAN,
        male: f32::NAN,
        hospital_admission_h: f32::NAN,
        hours: Vec::new(),
    };
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        if stay.hours.len() >= MAX_HOURS {
            return Err(StayError::TooLong);
        }
        let line = stay.hours.len() + 2;
        let value = |column: (&'static str, usize)| number(&record, line, column);
        if stay.hours.is_empty() {
            stay.age_years = value(age)?;
            stay.male = value(gender)?;
            stay.hospital_admission_h = value(admission)?;
        }
        let mut values = [f32::NAN; VARIABLES.len()];
        for (slot, column) in values.iter_mut().zip(&measured) {
            *slot = value(*column)?;
        }
        let sepsis = label.map(value).transpose()?.filter(|label| label.is_finite());
        stay.hours.push(Hour {
            values,
            in_care_h: value(in_care)?,
            sepsis: sepsis.map(|label| label > 0.5),
        });
    }
    if stay.hours.is_empty() {
        return Err(StayError::Empty);
    }
    Ok(stay)
}

/// A cell; NaN where it is empty or not finite.
fn number(
    record: &csv::StringRecord,
    line: usize,
    (column, at): (&'static str, usize),
) -> Result<f32, StayError> {
    let cell = record.get(at).unwrap_or("").trim();
    if cell.is_empty() {
        return Ok(f32::NAN);
    }
    let value: f32 = cell.parse().map_err(|_| StayError::Number { line, column })?;
    Ok(if value.is_finite() { value } else { f32::NAN })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file with these hours: heart rate, hour in care and label as text; everything else is not measured.
    fn file(hours: &[(&str, &str, &str)]) -> String {
        let mut names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
        names.extend(["Age", "Gender", "Unit1", "Unit2", "HospAdmTime", "ICULOS", "SepsisLabel"]);
        let mut text = names.join("|");
        for (rate, hour, label) in hours {
            let missing = "NaN|".repeat(VARIABLES.len() - 1);
            text.push_str(&format!("\n{rate}|{missing}83.1|0|NaN|NaN|-0.03|{hour}|{label}"));
        }
        text
    }

    #[test]
    fn a_stay_is_read_with_its_gaps() {
        let stay = read_stay(file(&[("97", "1", "0"), ("NaN", "2", "1")]).as_bytes()).unwrap();
        assert_eq!((stay.age_years, stay.male, stay.hospital_admission_h), (83.1, 0.0, -0.03));
        assert_eq!(stay.hours[0].values[0], 97.0);
        assert!(stay.hours[1].values.iter().all(|value| value.is_nan()));
        assert_eq!((stay.hours[1].in_care_h, stay.hours[1].sepsis), (2.0, Some(true)));
        assert_eq!(stay.has_sepsis(), Some(true));
        let unlabelled = file(&[("97", "1", "0")]).replace("SepsisLabel", "Other");
        assert_eq!(read_stay(unlabelled.as_bytes()).unwrap().has_sepsis(), None);
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = file(&[("97", "1", "0")]);
        let turned: Vec<String> =
            text.lines().map(|line| line.split('|').rev().collect::<Vec<_>>().join("|")).collect();
        let (one, other) = (read_stay(text.as_bytes()), read_stay(turned.join("\n").as_bytes()));
        // NaN is no equal of itself.
        assert_eq!(format!("{:?}", one.unwrap()), format!("{:?}", other.unwrap()));
    }

    #[test]
    fn what_is_no_stay_is_refused() {
        for (text, wanted) in [
            (file(&[]), "no line"),
            (file(&[("fast", "1", "0")]), "line 2, column `HR`"),
            (file(&[("9", "1", "0")]).replace("|Temp|", "|T|"), "no column `Temp`"),
            (format!("{}\n1|2", file(&[("9", "1", "0")])), "not a table"),
        ] {
            let error = read_stay(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut text = file(&[("97", "1", "0")]).into_bytes();
            text.extend(&bytes);
            let _ = (read_stay(&bytes), read_stay(&text));
        }
    }
}
