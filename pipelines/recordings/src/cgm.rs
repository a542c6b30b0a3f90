//! Continuous glucose monitoring, as Glucose-ML harmonises it: one table of many subjects.
//!
//! # Format
//! CSV with the columns `dataset`, `subject`, `timestamp` and `glucose_mg_dl`; the rows of a subject stand together. A
//! timestamp is `YYYY-MM-DD HH:MM:SS`, or only `HH:MM:SS` in studies that give no date: there, a stamp more than
//! half a day before the last one counts as the next day. A value is a number, or `Low` or `High` where the sensor was out of its
//! range. Prioleau et al., arXiv:2507.14077.
//!
//! # Limits
//! [`MAX_READINGS`] in one table.
//!
//! # Not guaranteed
//! Times of subjects have no common zone, and stamps may repeat or go back: they are given as they stand.

use crate::corpus::CaseId;
use jiff::civil;

/// The most rows of one table.
pub const MAX_READINGS: usize = 20_000_000;

/// What one reading says.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Glucose {
    /// Glucose in mg/dL.
    MgDl(f32),
    /// Below the sensor's range.
    Low,
    /// Above the sensor's range.
    High,
}

impl Glucose {
    /// In mg/dL; NaN where the sensor was out of its range.
    pub fn mg_dl(self) -> f32 {
        match self {
            Self::MgDl(value) => value,
            Self::Low | Self::High => f32::NAN,
        }
    }
}

/// The readings of one subject, in order of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Subject {
    /// The study.
    pub study: String,
    /// Names the subject by its rows, whatever it is called.
    pub case: CaseId,
    /// Seconds (of the study's local clock, since 1970) and what was read.
    pub readings: Vec<(f64, Glucose)>,
}

/// Why a table is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgmError {
    /// Not a CSV with the columns that are needed.
    #[error("not a table of dataset, subject, timestamp, glucose_mg_dl: {0}")]
    Table(String),
    /// A cell that is not what its column says.
    #[error("line {line}: {column} is not readable; correct or leave out the row")]
    Cell {
        /// Which line, from 1.
        line: u64,
        /// Which column.
        column: &'static str,
    },
    /// Over [`MAX_READINGS`].
    #[error("more than {MAX_READINGS} rows; split the table by study")]
    TooMany,
}

/// Whether a file begins as such a table does.
pub fn is_cgm(bytes: &[u8]) -> bool {
    bytes.starts_with(b"dataset,subject,timestamp,glucose_mg_dl")
}

/// The subjects of a table, in its order.
///
/// # Errors
/// If the table or one of its cells is not readable, or it is too long.
pub fn read(bytes: &[u8]) -> Result<Vec<Subject>, CgmError> {
    if !is_cgm(bytes) {
        return Err(CgmError::Table("other columns".into()));
    }
    let mut reader = csv::ReaderBuilder::new().from_reader(bytes);
    let (mut subjects, mut row) = (Vec::new(), csv::StringRecord::new());
    let mut open: Option<(String, Builder)> = None;
    let mut rows = 0;
    while reader.read_record(&mut row).map_err(|error| CgmError::Table(error.to_string()))? {
        rows += 1;
        if rows > MAX_READINGS {
            return Err(CgmError::TooMany);
        }
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |at: usize, column| row.get(at).ok_or(CgmError::Cell { line, column });
        let (study, subject) = (cell(0, "dataset")?, cell(1, "subject")?);
        let same =
            open.as_ref().is_some_and(|(name, builder)| name == subject && builder.study == study);
        if !same {
            subjects.extend(open.take().map(|(_, builder)| builder.finish()));
            open = Some((subject.to_owned(), Builder::new(study)));
        }
        let stamp = cell(2, "timestamp")?;
        let value = cell(3, "glucose_mg_dl")?;
        let Some((_, builder)) = open.as_mut() else { continue };
        let time_s = builder.seconds(stamp).ok_or(CgmError::Cell { line, column: "timestamp" })?;
        let glucose = glucose(value).ok_or(CgmError::Cell { line, column: "glucose_mg_dl" })?;
        builder.add(time_s, glucose, stamp, value);
    }
    subjects.extend(open.map(|(_, builder)| builder.finish()));
    Ok(subjects)
}

/// `YYYY-MM-DD HH:MM:SS` as seconds since 1970, without a zone.
pub(crate) fn civil_seconds(stamp: &str) -> Option<f64> {
    let stamp: civil::DateTime = stamp.trim().parse().ok()?;
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond() as f64 / 1_000.0)
}

const DAY_S: f64 = 86_400.0;

struct Builder {
    study: String,
    rows: Vec<u8>,
    readings: Vec<(f64, Glucose)>,
    days: f64,
}

impl Builder {
    fn new(study: &str) -> Self {
        Self { study: study.to_owned(), rows: Vec::new(), readings: Vec::new(), days: 0.0 }
    }

    fn seconds(&mut self, stamp: &str) -> Option<f64> {
        if stamp.contains('-') {
            return civil_seconds(stamp);
        }
        let time: civil::Time = stamp.trim().parse().ok()?;
        let seconds = f64::from(time.hour()) * 3_600.0
            + f64::from(time.minute()) * 60.0
            + f64::from(time.second());
        if let Some((last, _)) = self.readings.last()
            && *last - (seconds + self.days) > DAY_S / 2.0
        {
            self.days += DAY_S;
        }
        Some(seconds + self.days)
    }

    fn add(&mut self, time_s: f64, glucose: Glucose, stamp: &str, value: &str) {
        self.readings.push((time_s, glucose));
        self.rows.extend_from_slice(stamp.as_bytes());
        self.rows.push(b',');
        self.rows.extend_from_slice(value.as_bytes());
        self.rows.push(b'\n');
    }

    fn finish(self) -> Subject {
        Subject { study: self.study, case: CaseId::of(&self.rows), readings: self.readings }
    }
}

fn glucose(cell: &str) -> Option<Glucose> {
    match cell.trim() {
        "Low" => Some(Glucose::Low),
        "High" => Some(Glucose::High),
        number => number.parse().ok().filter(|value: &f32| value.is_finite()).map(Glucose::MgDl),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_dates_and_range_flags_are_read() {
        let table = "dataset,subject,timestamp,glucose_mg_dl\n\
            A,1,2023-12-08 00:04:00,151\nA,1,2023-12-08 00:09:00,Low\n\
            A,2,2023-12-08 00:04:00,90.5\nB,2,23:58:00,100\nB,2,00:03:00,High\n";
        let subjects = read(table.as_bytes()).unwrap();
        assert_eq!(subjects.len(), 3);
        assert_eq!(
            subjects[0].readings,
            [(1_701_993_840.0, Glucose::MgDl(151.0)), (1_701_994_140.0, Glucose::Low)]
        );
        assert!(subjects[0].readings[1].1.mg_dl().is_nan());
        // Without a date, after midnight is later.
        assert_eq!(subjects[2].readings[1].0 - subjects[2].readings[0].0, 300.0);
        assert_ne!(subjects[0].case, subjects[1].case);
    }

    #[test]
    fn an_unreadable_cell_is_named_by_line_and_column() {
        let table = "dataset,subject,timestamp,glucose_mg_dl\nA,1,2023-12-08 00:04:00,much\n";
        let error = read(table.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with("line 2: glucose_mg_dl"), "{error}");
        assert!(matches!(read(b"a,b\n1,2\n"), Err(CgmError::Table(_))));
    }
}
