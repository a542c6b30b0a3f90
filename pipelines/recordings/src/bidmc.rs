//! The BIDMC PPG and Respiration Dataset in its CSV form.
//!
//! Eight-minute recordings of intensive-care patients with the breaths that two people marked by hand
//! (Pimentel et al., *IEEE Trans. Biomed. Eng.* 64(8):1914–1923, 2017; <https://physionet.org/content/bidmc/1.0.0/>).
//!
//! # Format
//! Four files a recording, told by how their names end:
//! - `…_Signals.csv`: a column a waveform at [`RATE_HZ`]. `Time [s]` is printed to five digits and repeats, so
//!   that the row says the time, not the column.
//! - `…_Breaths.csv`: two columns of rows of the former, one an annotator; `NaN` fills up the shorter. A few marks are
//!   out of order or there twice: they are sorted and counted once.
//! - `…_Numerics.csv` (may be absent): what the monitor displayed, once a second.
//! - `…_Fix.txt` (may be absent): age, gender, ward and the person's identity in MIMIC-II.
//!
//! # Limits
//! [`MAX_SAMPLES`] rows a file and [`MAX_COLUMNS`] columns.
//!
//! # Trust
//! Outside data: what does not fit is an error with file and line, never a guess. Several recordings may be of *one* person
//! ([`Recording::subject`]); whoever splits by recording lets a person into both parts.

use std::collections::BTreeSet;

use crate::corpus::{CaseId, Corpus};

/// Of the waveforms.
pub const RATE_HZ: u32 = 125;
/// The most rows that a file may have: a day of waveforms.
pub const MAX_SAMPLES: usize = 24 * 3_600 * RATE_HZ as usize;
/// The most columns that a file may have.
pub const MAX_COLUMNS: usize = 64;

const SIGNALS: &str = "_Signals.csv";
const BREATHS: &str = "_Breaths.csv";
const NUMERICS: &str = "_Numerics.csv";
const FIX: &str = "_Fix.txt";

/// One recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What the names of its files begin with.
    pub name: String,
    /// Names the person, if `…_Fix.txt` does: equal for all recordings of one person.
    pub subject: Option<CaseId>,
    /// The waveforms in the order of the file; all equally long. NaN where there is no sample.
    pub signals: Vec<Signal>,
    /// Rows of the waveforms at which each of the two annotators marked a breath: sorted, each once.
    pub breaths: [Vec<usize>; 2],
    /// What the monitor displayed, if it is there.
    pub numerics: Option<Numerics>,
    /// Who was recorded, if it is there.
    pub person: Option<Person>,
}

/// A waveform, at [`RATE_HZ`].
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its column's heading: `RESP` (impedance), `PLETH` (PPG), `II`, `V`, `AVR` (ECG), `ABP`, …
    pub name: String,
    /// In the units of the release (normalised, but for pressures in mmHg).
    pub samples: Vec<f32>,
}

/// The monitor's own figures, one a second; NaN where it displayed none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numerics {
    /// From the ECG, beats/min.
    pub heart_rate: Vec<f32>,
    /// From the PPG, beats/min.
    pub pulse_rate: Vec<f32>,
    /// From the impedance, breaths/min.
    pub respiration_rate: Vec<f32>,
    /// Per cent.
    pub spo2: Vec<f32>,
}

/// What is known of the person.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// In years; `None` where the file has none. (MIMIC-II gives ages over 89 as 90.)
    pub age_years: Option<u32>,
    /// `M` or `F`.
    pub gender: Option<char>,
    /// The ward, as `micu`.
    pub location: Option<String>,
}

/// Why a recording is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BidmcError {
    /// A file is not there.
    #[error("{name}{ending} is not in the data set; a recording needs its {SIGNALS} and {BREATHS}")]
    NoFile {
        /// The recording.
        name: String,
        /// How the file's name ends.
        ending: &'static str,
    },
    /// A column is not there.
    #[error("{file} has no column {column:?}; it is not a file of this data set")]
    NoColumn {
        /// Which file.
        file: String,
        /// Which column.
        column: &'static str,
    },
    /// Something in a file is not what it should be.
    #[error("{file}, line {line}: {reason}; fetch the file again")]
    Malformed {
        /// Which file.
        file: String,
        /// Where, from 1.
        line: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Over [`MAX_SAMPLES`] or [`MAX_COLUMNS`].
    #[error("{file} has more than {MAX_SAMPLES} rows or {MAX_COLUMNS} columns")]
    TooLarge {
        /// Which file.
        file: String,
    },
}

/// Whether a path is that of one of the files of this data set: what to give to [`Corpus::open`].
pub fn is_part(path: &str) -> bool {
    [SIGNALS, BREATHS, NUMERICS, FIX].iter().any(|ending| path.ends_with(ending))
}

/// The names of the recordings that have waveforms, rising. A name has the folders before it.
pub fn names(corpus: &Corpus) -> BTreeSet<String> {
    corpus.iter().filter_map(|(path, _)| path.strip_suffix(SIGNALS)).map(str::to_owned).collect()
}

impl Recording {
    /// Reads the recording called `name` (one of [`names`]).
    ///
    /// # Errors
    /// If waveforms or breaths are not there, a file is malformed or over a limit, or a breath lies outside
    /// of the waveforms.
    pub fn read(corpus: &Corpus, name: &str) -> Result<Self, BidmcError> {
        let required = |ending: &'static str| {
            let file = format!("{name}{ending}");
            match corpus.get(&file) {
                Some(bytes) => Ok((file, bytes)),
                None => Err(BidmcError::NoFile { name: name.to_owned(), ending }),
            }
        };
        let (file, bytes) = required(SIGNALS)?;
        let signals = read_signals(&file, bytes)?;
        let samples = signals.first().map_or(0, |signal| signal.samples.len());
        let (file, bytes) = required(BREATHS)?;
        let breaths = read_breaths(&file, bytes, samples)?;
        let file = format!("{name}{NUMERICS}");
        let numerics = corpus.get(&file).map(|bytes| read_numerics(&file, bytes)).transpose()?;
        let fix = corpus.get(&format!("{name}{FIX}"));
        let (subject, person) = fix.map(read_fix).unzip();
        Ok(Self {
            name: name.rsplit('/').next().unwrap_or(name).to_owned(),
            subject: subject.flatten(),
            signals,
            breaths,
            numerics,
            person,
        })
    }

    /// The waveform called `name`, if there is one.
    pub fn signal(&self, name: &str) -> Option<&[f32]> {
        self.signals
            .iter()
            .find(|signal| signal.name == name)
            .map(|signal| signal.samples.as_slice())
    }
}

/// Columns with their headings; an empty cell or `NaN` is NaN.
fn read_columns(file: &str, bytes: &[u8]) -> Result<Vec<Signal>, BidmcError> {
    let malformed =
        |line: u64, reason| BidmcError::Malformed { file: file.to_owned(), line, reason };
    let too_large = || BidmcError::TooLarge { file: file.to_owned() };
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).has_headers(true).from_reader(bytes);
    let headings = reader.headers().map_err(|_| malformed(1, "the headings are not text"))?;
    if headings.len() > MAX_COLUMNS {
        return Err(too_large());
    }
    let mut columns: Vec<Signal> =
        headings.iter().map(|name| Signal { name: name.to_owned(), samples: Vec::new() }).collect();
    let mut row = csv::ByteRecord::new();
    loop {
        let line = reader.position().line();
        // Rows of another length are an error of the reader's.
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(columns),
            Err(_) => return Err(malformed(line, "not as many cells as headings")),
        }
        for (column, cell) in columns.iter_mut().zip(&row) {
            let value = match cell {
                b"" => Some(f32::NAN),
                cell => std::str::from_utf8(cell).ok().and_then(|text| text.parse().ok()),
            };
            column.samples.push(value.ok_or_else(|| malformed(line, "a cell is not a number"))?);
        }
        if columns.first().is_some_and(|column| column.samples.len() > MAX_SAMPLES) {
            return Err(too_large());
        }
    }
}

fn read_signals(file: &str, bytes: &[u8]) -> Result<Vec<Signal>, BidmcError> {
    let mut columns = read_columns(file, bytes)?;
    let before = columns.len();
    columns.retain(|column| column.name != "Time [s]");
    if columns.len() == before {
        return Err(BidmcError::NoColumn { file: file.to_owned(), column: "Time [s]" });
    }
    Ok(columns)
}

fn read_breaths(file: &str, bytes: &[u8], samples: usize) -> Result<[Vec<usize>; 2], BidmcError> {
    let columns = read_columns(file, bytes)?;
    let annotator = |prefix: &'static str| {
        let column = columns
            .iter()
            .find(|column| column.name.starts_with(prefix))
            .ok_or_else(|| BidmcError::NoColumn { file: file.to_owned(), column: prefix })?;
        let mut breaths: Vec<usize> = Vec::new();
        for (row, value) in column.samples.iter().enumerate() {
            if value.is_nan() {
                continue;
            }
            if value.fract() != 0.0 || !(0.0..samples as f32).contains(value) {
                let reason = "a breath is not on a row of the waveforms";
                let line = row as u64 + 2;
                return Err(BidmcError::Malformed { file: file.to_owned(), line, reason });
            }
            breaths.push(*value as usize);
        }
        breaths.sort_unstable();
        breaths.dedup();
        Ok(breaths)
    };
    Ok([annotator("breaths ann1")?, annotator("breaths ann2")?])
}

fn read_numerics(file: &str, bytes: &[u8]) -> Result<Numerics, BidmcError> {
    let mut columns = read_columns(file, bytes)?;
    // A monitor without one of the figures has no column for it.
    let mut take = |name: &str| {
        let found = columns.iter_mut().find(|column| column.name == name);
        found.map(|column| std::mem::take(&mut column.samples)).unwrap_or_default()
    };
    Ok(Numerics {
        heart_rate: take("HR"),
        pulse_rate: take("PULSE"),
        respiration_rate: take("RESP"),
        spo2: take("SpO2"),
    })
}

fn read_fix(bytes: &[u8]) -> (Option<CaseId>, Person) {
    let text = String::from_utf8_lossy(bytes);
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    let subject = value("MIMIC II matched wdb ID").map(|id| CaseId::of(id.as_bytes()));
    let person = Person {
        age_years: value("Age").and_then(|age| age.parse().ok()),
        gender: value("Gender").and_then(|text| text.chars().next()).filter(|c| *c != '?'),
        location: value("Location"),
    };
    (subject, person)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(files: &[(&str, &str)]) -> (tempfile::TempDir, Corpus) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let corpus = Corpus::open(folder.path(), "a recording", is_part).unwrap();
        (folder, corpus)
    }

    const ROWS: &str = "Time [s], RESP, PLETH\n0,0.5,0.25\n0.008,,NaN\n0.016,0.75,1\n";
    const MARKS: &str =
        "breaths ann1 [signal sample no], breaths ann2 [signal sample no]\n2,1\n0,NaN\n2,NaN\n";

    #[test]
    fn a_recording_is_read_whole() {
        let (_folder, corpus) = corpus(&[
            ("x_1_Signals.csv", ROWS),
            ("x_1_Breaths.csv", MARKS),
            ("x_1_Numerics.csv", "Time [s], HR, PULSE, RESP, SpO2\n0,94,,25,97\n"),
            ("x_1_Fix.txt", "Age: NaN\nGender: F\nLocation: micu\nMIMIC II matched wdb ID: p1\n"),
        ]);
        assert_eq!(names(&corpus).into_iter().collect::<Vec<_>>(), ["x_1"]);
        let recording = Recording::read(&corpus, "x_1").unwrap();
        assert_eq!(recording.signal("PLETH").unwrap()[0], 0.25);
        assert!(recording.signal("RESP").unwrap()[1].is_nan());
        assert_eq!(recording.signal("II"), None);
        assert_eq!(recording.breaths, [vec![0, 2], vec![1]]);
        assert_eq!(recording.subject, Some(CaseId::of(b"p1")));
        let numerics = recording.numerics.unwrap();
        assert_eq!((numerics.heart_rate[0], numerics.spo2[0]), (94.0, 97.0));
        assert!(numerics.pulse_rate[0].is_nan());
        let person =
            Person { age_years: None, gender: Some('F'), location: Some("micu".to_owned()) };
        assert_eq!(recording.person, Some(person));
    }

    #[test]
    fn numerics_and_person_may_be_absent() {
        let (_folder, corpus) = corpus(&[("a_Signals.csv", ROWS), ("a_Breaths.csv", MARKS)]);
        let recording = Recording::read(&corpus, "a").unwrap();
        assert_eq!((recording.subject, recording.numerics, recording.person), (None, None, None));
    }

    /// The message for a recording whose two files are these.
    fn refusal(rows: &str, marks: &str) -> String {
        let (_folder, corpus) = corpus(&[("a_Signals.csv", rows), ("a_Breaths.csv", marks)]);
        Recording::read(&corpus, "a").unwrap_err().to_string()
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(refusal("RESP\n1\n", MARKS).contains("no column \"Time [s]\""));
        assert!(refusal(ROWS, "breaths ann1\n1\n").contains("no column \"breaths ann2\""));
        assert!(refusal("Time [s], RESP\n0,x\n", MARKS).contains("line 2: a cell"));
        assert!(refusal("Time [s], RESP\n0,1\n0\n", MARKS).contains("line 3: not as many"));
        for marks in ["3,1", "1,0.5", "-1,1"] {
            let marks = format!("breaths ann1, breaths ann2\n{marks}\n");
            assert!(refusal(ROWS, &marks).contains("line 2: a breath is not on"), "{marks}");
        }
        let (_folder, corpus) = corpus(&[("a_Signals.csv", ROWS)]);
        let error = Recording::read(&corpus, "a").unwrap_err();
        assert!(error.to_string().starts_with("a_Breaths.csv is not in"), "{error}");
    }
}
