//! Recordings as the fog would meet them: one ECG lead, and what a monitor displayed.
//!
//! # Format
//! One of these:
//! - WFDB records (a folder of `.hea` files, or one of them): the channel that `haar replay` would send is the ECG.
//! - The BIDMC CSV files, in a folder or an archive: the first ECG lead that there is, and heart rate, respiration
//!   rate and SpO₂ once a second. What the monitor did not display (NaN) is not there.
//! - The stays of CinC 2019 (`.psv`), in a folder or an archive: what was charted in an hour is one reading at its beginning.
//!
//! # Trust
//! Outside data. A WFDB record without an ECG is passed over and named; what is damaged is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use haar_recordings::bidmc;
use haar_recordings::cinc2019::{self, VARIABLES, read_stay};
use haar_recordings::corpus::{CaseId, Corpus, MAX_FILE_BYTES};
use haar_recordings::wfdb::{FindError, Record, find_records};
use haar_schema::{SampleRate, SignalId};
use haar_simulator::replay::ecg_channel;

use crate::failure::Failure;

/// ECG leads of BIDMC, the first that a recording has.
const LEADS: [&str; 6] = ["II", "I", "III", "AVR", "V", "MCL"];

/// The columns of CinC 2019 that the fog takes in, in their units.
const CHARTED: [(&str, SignalId); 6] = [
    ("HR", SignalId::HEART_RATE),
    ("O2Sat", SignalId::SPO2),
    ("Resp", SignalId::RESPIRATION_RATE),
    ("SBP", SignalId::SYSTOLIC),
    ("DBP", SignalId::DIASTOLIC),
    ("Temp", SignalId::TEMPERATURE),
];

/// One recording.
#[derive(Clone, Debug, Default)]
pub(super) struct Recording {
    /// Its name.
    pub(super) name: String,
    /// Equal for recordings of one person, where the data say who it was.
    pub(super) person: Option<CaseId>,
    /// Names the ECG's file by its content, as the lineage of a model does.
    pub(super) case: Option<CaseId>,
    /// The lead.
    pub(super) ecg: Option<Ecg>,
    /// What was displayed: seconds from the beginning, rising, with finite values in the signals' units.
    pub(super) vitals: Vec<(i64, Vec<(SignalId, f64)>)>,
    /// How long it lasts, in seconds.
    pub(super) seconds: f64,
}

/// One lead.
#[derive(Clone, Debug)]
pub(super) struct Ecg {
    /// Rate of its samples.
    pub(super) rate: SampleRate,
    /// In millivolt; NaN where there is no sample.
    pub(super) mv: Vec<f32>,
}

/// A data set that has been found.
pub(super) enum DataSet {
    /// Headers.
    Wfdb(Vec<PathBuf>),
    /// All files, and the names of the recordings.
    Bidmc(Corpus, Vec<String>),
    /// All files, and their paths.
    Cinc2019(Corpus, Vec<String>),
}

impl DataSet {
    /// Looks what is in `data`, and takes the recordings called `records`; all if none is named.
    pub(super) fn open(data: &Path, records: &[String]) -> Result<Self, Failure> {
        let mut wanted: BTreeSet<&str> = records.iter().map(String::as_str).collect();
        let all = wanted.is_empty();
        let mut take = |name: &str| wanted.remove(name) || all;
        let is_archive = data.extension().is_some_and(|ending| ending == "zst");
        let found = if is_archive { Ok(Vec::new()) } else { find_records(data) };
        let set = match found {
            Ok(mut headers) if !is_archive => {
                headers.retain(|header| take(&stem(header)));
                Self::Wfdb(headers)
            }
            Ok(_) | Err(FindError::Empty { .. }) => {
                let wanted = "a WFDB header (.hea), a BIDMC …_Signals.csv or a CinC 2019 .psv";
                let is_stay = |path: &str| path.ends_with(cinc2019::EXTENSION);
                let corpus =
                    Corpus::open(data, wanted, |path| bidmc::is_part(path) || is_stay(path))?;
                let mut names: Vec<String> = bidmc::names(&corpus).into_iter().collect();
                if names.is_empty() {
                    let stays = corpus.iter().map(|(path, _)| path.to_owned());
                    let paths = stays.filter(|path| is_stay(path) && take(&stem(path.as_ref())));
                    let paths = paths.collect();
                    Self::Cinc2019(corpus, paths)
                } else {
                    names.retain(|name| take(last(name)));
                    Self::Bidmc(corpus, names)
                }
            }
            Err(error) => return Err(error.into()),
        };
        if wanted.is_empty() {
            return Ok(set);
        }
        let missing: Vec<&str> = wanted.into_iter().collect();
        Err(Failure::usage(format!(
            "no recording called {} in {}; a name is that of the .hea or .psv file, or what stands before _Signals.csv",
            missing.join(", "),
            data.display()
        )))
    }

    /// How many recordings there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Wfdb(headers) => headers.len(),
            Self::Bidmc(_, names) | Self::Cinc2019(_, names) => names.len(),
        }
    }

    /// Name of the recording at `place`.
    pub(super) fn name(&self, place: usize) -> String {
        match self {
            Self::Wfdb(headers) => stem(&headers[place]),
            Self::Bidmc(_, names) => last(&names[place]).to_owned(),
            Self::Cinc2019(_, paths) => stem(paths[place].as_ref()),
        }
    }

    /// Reads the recording at `place`; `None` if there is nothing in it that can be replayed.
    pub(super) fn read(&self, place: usize) -> Result<Option<Recording>, Failure> {
        match self {
            Self::Wfdb(headers) => wfdb(&headers[place]),
            Self::Bidmc(corpus, names) => {
                let recording = bidmc::Recording::read(corpus, &names[place])?;
                Ok(Some(monitored(recording)?))
            }
            Self::Cinc2019(corpus, paths) => {
                let path = &paths[place];
                let stay = read_stay(corpus.get(path).unwrap_or_default())
                    .map_err(|error| Failure::usage(format!("{path}: {error}")))?;
                Ok(Some(charted(stem(path.as_ref()), &stay)))
            }
        }
    }
}

fn charted(name: String, stay: &cinc2019::Stay) -> Recording {
    let columns: Vec<(SignalId, usize)> = CHARTED
        .iter()
        .filter_map(|(column, signal)| {
            Some((*signal, VARIABLES.iter().position(|variable| variable.name == *column)?))
        })
        .collect();
    let vitals = stay.hours.iter().enumerate().map(|(hour, charted)| {
        let there = columns.iter().map(|(signal, at)| (*signal, f64::from(charted.values[*at])));
        (hour as i64 * 3_600, there.filter(|(_, value)| value.is_finite()).collect())
    });
    Recording {
        name,
        seconds: stay.hours.len() as f64 * 3_600.0,
        vitals: vitals.collect(),
        ..Recording::default()
    }
}

fn stem(header: &Path) -> String {
    header.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn wfdb(header: &Path) -> Result<Option<Recording>, Failure> {
    let record = Record::open(header)?;
    let Some((place, scale)) = ecg_channel(&record) else { return Ok(None) };
    let Some(rate) = SampleRate::from_millihertz((record.header.rate_hz * 1_000.0).round() as u32)
    else {
        return Ok(None);
    };
    let file = header.with_file_name(&record.header.signals[place].file);
    let failed = |error| Failure::new(format!("cannot read {}: {error}", file.display()));
    // No model was trained on a file that no data set may have.
    let is_known = std::fs::metadata(&file).map_err(failed)?.len() <= MAX_FILE_BYTES;
    let bytes = is_known.then(|| std::fs::read(&file)).transpose().map_err(failed)?;
    let mv: Vec<f32> =
        record.signals[place].iter().map(|value| (f64::from(*value) * scale) as f32).collect();
    Ok(Some(Recording {
        name: stem(header),
        case: bytes.map(|bytes| CaseId::of(&bytes)),
        seconds: mv.len() as f64 / rate.hz(),
        ecg: Some(Ecg { rate, mv }),
        ..Recording::default()
    }))
}

fn monitored(recording: bidmc::Recording) -> Result<Recording, Failure> {
    let rate = SampleRate::from_hz(bidmc::RATE_HZ)
        .ok_or_else(|| Failure::new("the sampling rate of BIDMC is out of range"))?;
    let lead = LEADS.iter().find_map(|lead| recording.signal(lead));
    let ecg = lead.map(|samples| Ecg { rate, mv: samples.to_vec() });
    let numerics = recording.numerics.unwrap_or_default();
    let columns = [
        (SignalId::HEART_RATE, &numerics.heart_rate),
        (SignalId::SPO2, &numerics.spo2),
        (SignalId::RESPIRATION_RATE, &numerics.respiration_rate),
    ];
    let rows = columns.iter().map(|(_, column)| column.len()).max().unwrap_or(0);
    let vitals = (0..rows).map(|row| {
        let there = columns.iter().filter_map(|(signal, column)| {
            let value = column.get(row).copied().filter(|value| value.is_finite())?;
            Some((*signal, f64::from(value)))
        });
        (row as i64, there.collect())
    });
    let waves = recording.signals.first().map_or(0, |signal| signal.samples.len());
    Ok(Recording {
        name: recording.name,
        person: recording.subject,
        case: None,
        seconds: (waves as f64 / rate.hz()).max(rows as f64),
        ecg,
        vitals: vitals.collect(),
    })
}
