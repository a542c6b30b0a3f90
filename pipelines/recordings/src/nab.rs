//! Series and labelled windows of the Numenta Anomaly Benchmark (Lavin, Ahmad, "Evaluating real-time anomaly detection
//! algorithms: the Numenta Anomaly Benchmark", ICMLA 2015; Ahmad, Lavin, Purdy, Agha, Neurocomputing 262, 2017).
//!
//! # Format
//! A series is a CSV of `timestamp,value` (`YYYY-MM-DD HH:MM:SS`). `combined_windows.json` maps `folder/file.csv` to a list of
//! `[begin, end]` stamps, both inside the window. A series belongs to the entry that its path ends with.
//!
//! # Limits
//! [`MAX_READINGS`] in one series.

use crate::cgm::civil_seconds;
use crate::corpus::Corpus;
use std::collections::BTreeMap;

/// The most rows of one series.
pub const MAX_READINGS: usize = 10_000_000;
/// The file with the windows.
pub const WINDOWS_FILE: &str = "combined_windows.json";

const HEADER: &[u8] = b"timestamp,value";

/// One series and its windows.
#[derive(Clone, PartialEq, Debug)]
pub struct Series {
    /// As the windows' file names it: `folder/file.csv`.
    pub name: String,
    /// Seconds (without a zone) and value.
    pub readings: Vec<(f64, f32)>,
    /// First and last row of each labelled window, in order.
    pub windows: Vec<(usize, usize)>,
}

/// Why the benchmark is not readable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NabError {
    /// Not a CSV of timestamp and value.
    #[error("{name} is not a table of timestamp, value: {reason}")]
    Table {
        /// Which.
        name: String,
        /// What the parser says.
        reason: String,
    },
    /// The windows are not JSON of the expected form.
    #[error("{WINDOWS_FILE} is not a map of series to [begin, end] stamps: {0}")]
    Windows(String),
    /// A window's stamp is none of its series'.
    #[error("{name}: a window begins or ends at no row of the series; fetch both again")]
    Stamp {
        /// Which series.
        name: String,
    },
}

/// Whether a file begins as a series does.
pub fn is_series(bytes: &[u8]) -> bool {
    bytes.starts_with(HEADER)
}

/// The series of a data set that the windows' file knows, by name. Empty when there is no windows' file.
///
/// # Errors
/// If a series or the windows are not readable.
pub fn read(corpus: &Corpus) -> Result<Vec<Series>, NabError> {
    let Some((_, windows)) = corpus.iter().find(|(path, _)| path.ends_with(WINDOWS_FILE)) else {
        return Ok(Vec::new());
    };
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_slice(windows).map_err(|error| NabError::Windows(error.to_string()))?;
    let mut series = Vec::new();
    for (name, windows) in windows {
        let bytes = corpus.iter().find(|(path, bytes)| {
            path.strip_suffix(name.as_str())
                .is_some_and(|head| head.is_empty() || head.ends_with('/'))
                && is_series(bytes)
        });
        if let Some((_, bytes)) = bytes {
            series.push(one(name, bytes, &windows)?);
        }
    }
    Ok(series)
}

fn one(name: String, bytes: &[u8], windows: &[(String, String)]) -> Result<Series, NabError> {
    let table = |reason: String| NabError::Table { name: name.clone(), reason };
    let mut readings = Vec::new();
    for row in csv::Reader::from_reader(bytes).deserialize() {
        let (stamp, value): (String, f32) = row.map_err(|error| table(error.to_string()))?;
        let time_s = civil_seconds(&stamp).ok_or_else(|| table("a timestamp".into()))?;
        if readings.len() >= MAX_READINGS {
            return Err(table(format!("more than {MAX_READINGS} rows")));
        }
        readings.push((time_s, value));
    }
    let row = |stamp: &str| {
        let time_s = civil_seconds(stamp)?;
        readings.iter().position(|(at, _)| *at == time_s)
    };
    let windows = windows
        .iter()
        .map(|(begin, end)| Some((row(begin)?, row(end)?)))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| NabError::Stamp { name: name.clone() })?;
    Ok(Series { name, readings, windows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(windows: &str) -> Corpus {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/real")).unwrap();
        let series = "timestamp,value\n2015-07-10 14:24:00,564\n2015-07-10 14:38:00,730\n";
        std::fs::write(folder.path().join("data/real/a.csv"), series).unwrap();
        std::fs::write(folder.path().join(WINDOWS_FILE), windows).unwrap();
        Corpus::open(folder.path(), "a series", |_| true).unwrap()
    }

    #[test]
    fn series_get_their_windows_as_rows() {
        let windows = r#"{"other/b.csv": [], "real/a.csv":
            [["2015-07-10 14:38:00.000000", "2015-07-10 14:38:00.000000"]]}"#;
        let series = read(&corpus(windows)).unwrap();
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].name, "real/a.csv");
        assert_eq!(series[0].windows, [(1, 1)]);
        assert_eq!(series[0].readings[1].0 - series[0].readings[0].0, 840.0);
    }

    #[test]
    fn windows_outside_the_series_are_refused() {
        let windows = r#"{"real/a.csv": [["2015-07-10 14:38:00", "2015-07-10 15:00:00"]]}"#;
        assert!(matches!(read(&corpus(windows)), Err(NabError::Stamp { .. })));
        assert!(matches!(read(&corpus("[]")), Err(NabError::Windows(_))));
    }
}
