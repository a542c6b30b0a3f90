//! The PhysioNet/CinC Challenge 2017: single-lead ECG of 9 to 61 s, one of four rhythms each.
//!
//! Clifford et al. 2017, Computing in Cardiology 44, doi:10.22489/CinC.2017.065-469. A recording is a WFDB header
//! (`NAME.hea`) and a MATLAB v4 matrix (`NAME.mat`: a header of 24 bytes, then 16-bit samples), 300 Hz, 1000 to
//! the mV. Classes stand in a table of `NAME,CLASS` without a heading, of which there are three editions.
//!
//! # Traps
//! - The latest edition, `REFERENCE-v3.csv`, is taken; an earlier one only where it is missing. The table may
//!   lie in another folder than the recordings, and name more recordings than there are.
//! - The headers' checksums are zero and many initial values are wrong: both are ignored.
//!
//! # Limits
//! Those of [`Corpus`]; a recording has at most [`MAX_SAMPLES`].
//!
//! # Not guaranteed
//! There are no names of patients: that no two recordings are of one patient is an assumption.

use crate::corpus::{CaseId, Corpus, CorpusError};
use crate::wfdb::{Format, Header, HeaderProblem};
use std::collections::BTreeMap;
use std::path::Path;

/// The most samples in one recording: an hour at 300 Hz. The longest of the challenge has a minute.
pub const MAX_SAMPLES: usize = 300 * 3_600;

/// Names of the table of classes, the best first.
const TABLES: [&str; 4] =
    ["REFERENCE-v3.csv", "REFERENCE.csv", "REFERENCE-v2.csv", "REFERENCE-original.csv"];

/// Format 16 says so that there is no sample.
const NO_SAMPLE: i16 = i16::MIN;

/// The rhythm of a recording, by the challenge's annotators.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rhythm {
    /// `N`: normal sinus rhythm.
    Normal,
    /// `A`: atrial fibrillation.
    Fibrillation,
    /// `O`: any other rhythm.
    Other,
    /// `~`: too noisy to say.
    Noisy,
}

/// One recording.
#[derive(Clone, PartialEq, Debug)]
pub struct Recording {
    /// Its content's name: that of its `.mat` file.
    pub case: CaseId,
    /// Samples per second, in thousandths of a hertz.
    pub rate_millihertz: u32,
    /// Samples in mV; NaN where there is none.
    pub mv: Vec<f32>,
    /// What the annotators say.
    pub rhythm: Rhythm,
}

/// Why the data set is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cinc2017Error {
    /// Folder or archive.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// No table of classes.
    #[error("there is no REFERENCE-v3.csv; put it beside the recordings or into their archive")]
    NoTable,
    /// A line of the table is not `NAME,CLASS` with one of the classes N, A, O, ~.
    #[error(
        "line {line} of the table of classes is not NAME,N|A|O|~; fetch REFERENCE-v3.csv again"
    )]
    Table {
        /// Line, from 1.
        line: usize,
    },
    /// A recording lacks its header, or its class in the table.
    #[error("{path} has no {missing}; fetch the data set again, or leave the recording out")]
    Incomplete {
        /// The `.mat` file.
        path: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// A header is wrong.
    #[error("header {path}: {problem}")]
    Header {
        /// Which.
        path: String,
        /// What is wrong.
        problem: HeaderProblem,
    },
    /// A recording is not as the challenge's are.
    #[error("{path} {problem}; fetch it again")]
    Signal {
        /// The `.mat` file.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Reads every recording under `folder` or in its archives, in order of their paths.
///
/// # Errors
/// If something is missing, damaged or over a limit.
pub fn read(folder: &Path) -> Result<Vec<Recording>, Cinc2017Error> {
    let corpus = Corpus::open(folder, "a recording of the challenge (.mat)", |path| {
        path.ends_with(".mat") || path.ends_with(".hea") || TABLES.contains(&name_of(path))
    })?;
    let classes = classes(&corpus)?;
    let mut recordings = Vec::new();
    for (path, mat) in corpus.iter().filter(|(path, _)| path.ends_with(".mat")) {
        let incomplete = |missing| Cinc2017Error::Incomplete { path: path.into(), missing };
        let stem = path.strip_suffix(".mat").unwrap_or(path);
        let header = corpus.get(&format!("{stem}.hea")).ok_or_else(|| incomplete("header"))?;
        let rhythm = classes.get(name_of(stem)).ok_or_else(|| incomplete("class in the table"))?;
        let header: Header = String::from_utf8_lossy(header)
            .parse()
            .map_err(|problem| Cinc2017Error::Header { path: path.into(), problem })?;
        let mv = samples(&header, mat)
            .map_err(|problem| Cinc2017Error::Signal { path: path.into(), problem })?;
        recordings.push(Recording {
            case: CaseId::of(mat),
            rate_millihertz: (header.rate_hz * 1e3).round() as u32,
            mv,
            rhythm: *rhythm,
        });
    }
    Ok(recordings)
}

/// The table of classes by name of recording.
fn classes(corpus: &Corpus) -> Result<BTreeMap<String, Rhythm>, Cinc2017Error> {
    let table = TABLES
        .iter()
        .find_map(|table| corpus.iter().find(|(path, _)| name_of(path) == *table))
        .ok_or(Cinc2017Error::NoTable)?;
    let text = String::from_utf8_lossy(table.1);
    let line = |(index, line): (usize, &str)| {
        let wrong = Cinc2017Error::Table { line: index + 1 };
        let (name, class) = line.split_once(',').ok_or(wrong)?;
        let rhythm = match class.trim() {
            "N" => Rhythm::Normal,
            "A" => Rhythm::Fibrillation,
            "O" => Rhythm::Other,
            "~" => Rhythm::Noisy,
            _ => return Err(Cinc2017Error::Table { line: index + 1 }),
        };
        Ok((name.trim().to_owned(), rhythm))
    };
    text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(line).collect()
}

/// The samples of the one signal, in mV; or what is wrong.
fn samples(header: &Header, mat: &[u8]) -> Result<Vec<f32>, &'static str> {
    let [signal] = header.signals.as_slice() else { return Err("has not exactly one signal") };
    if signal.format != Format::F16 || signal.units != "mV" {
        return Err("is not of 16-bit samples in mV");
    }
    let offset = usize::try_from(signal.byte_offset).unwrap_or(usize::MAX);
    let bytes = mat.get(offset..).ok_or("is cut short")?;
    if bytes.len() / 2 > MAX_SAMPLES {
        return Err("is longer than an hour");
    }
    if header.samples.is_some_and(|promised| promised != (bytes.len() / 2) as u64) {
        return Err("does not hold as many samples as its header says");
    }
    let sample = |pair: &[u8]| match i16::from_le_bytes([pair[0], pair[1]]) {
        NO_SAMPLE => f32::NAN,
        value => ((f64::from(value) - f64::from(signal.baseline)) / signal.gain) as f32,
    };
    Ok(bytes.chunks_exact(2).map(sample).collect())
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data set of one recording with two samples, in which the table names another one too.
    fn data_set() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("set");
        std::fs::create_dir(&set).unwrap();
        let header = "R1 1 300 2 04:04:27 1/04/2000 \nR1.mat 16+24 1000/mV 16 0 15 0 0 ECG \n";
        std::fs::write(set.join("R1.hea"), header).unwrap();
        let mut mat = vec![0; 24];
        mat.extend(500_i16.to_le_bytes());
        mat.extend(NO_SAMPLE.to_le_bytes());
        std::fs::write(set.join("R1.mat"), mat).unwrap();
        std::fs::write(folder.path().join("REFERENCE-v3.csv"), "R0,N\nR1,A\n").unwrap();
        std::fs::write(folder.path().join("REFERENCE-v2.csv"), "R1,~\n").unwrap();
        folder
    }

    #[test]
    fn a_recording_is_read_with_the_latest_class() {
        let folder = data_set();
        let recordings = read(folder.path()).unwrap();
        assert_eq!(recordings.len(), 1);
        assert_eq!(recordings[0].rhythm, Rhythm::Fibrillation);
        assert_eq!(recordings[0].rate_millihertz, 300_000);
        assert_eq!(recordings[0].mv[0], 0.5);
        assert!(recordings[0].mv[1].is_nan());
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        let folder = data_set();
        let (mat, table) = ("set/R1.mat", "REFERENCE-v3.csv");
        std::fs::write(folder.path().join(mat), [0; 26]).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("as many samples"), "{error}");
        std::fs::write(folder.path().join(table), "R1,X\n").unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with("line 1 of"), "{error}");
        std::fs::write(folder.path().join(table), "R0,N\n").unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no class in the table"), "{error}");
        std::fs::remove_file(folder.path().join(table)).unwrap();
        std::fs::remove_file(folder.path().join("REFERENCE-v2.csv")).unwrap();
        assert!(matches!(read(folder.path()), Err(Cinc2017Error::NoTable)));
        std::fs::remove_dir_all(folder.path().join("set")).unwrap();
        assert!(matches!(read(folder.path()), Err(Cinc2017Error::Corpus(_))));
    }

    #[test]
    fn recorded_counts_are_those_of_the_data_set() {
        let data = std::env::var("HAAR_DATA").expect("HAAR_DATA names the folder of the data sets");
        let recordings = read(&Path::new(&data).join("cinc2017")).unwrap();
        let count = |rhythm| recordings.iter().filter(|one| one.rhythm == rhythm).count();
        let counts =
            [Rhythm::Normal, Rhythm::Fibrillation, Rhythm::Other, Rhythm::Noisy].map(count);
        assert_eq!(counts.iter().sum::<usize>(), recordings.len());
        // By PROVENANCE.md the whole set has 5076, 758, 2415, 279: shares that any half of it has too.
        let share = |class: usize| counts[class] as f64 / recordings.len() as f64;
        for (class, whole) in [0.595, 0.089, 0.283, 0.033].into_iter().enumerate() {
            assert!((share(class) - whole).abs() < 0.03, "{counts:?}");
        }
        assert!(recordings.iter().all(|one| one.rate_millihertz == 300_000));
        assert!(recordings.iter().all(|one| (2_700..=18_300).contains(&one.mv.len())));
    }
}
