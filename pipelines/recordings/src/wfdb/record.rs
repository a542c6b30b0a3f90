//! Signal files, decoded to physical units: signal(5) of the WFDB Applications Guide.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::header::{Format, Header, HeaderProblem, MAX_HEADER_BYTES, SignalSpec};

/// The most sample values in one record over all its signals: 12 leads at 500 Hz for six hours, or two at
/// 360 Hz for two days. They take 4 bytes each.
pub const MAX_VALUES: u64 = 1 << 27;

/// The most records found in one folder.
pub const MAX_RECORDS: usize = 100_000;

/// A record with its samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What the header says.
    pub header: Header,
    /// Per signal its samples in physical units ([`SignalSpec::units`]), all of the same length. NaN where
    /// the file says that there is no sample (−32768 in format 16, −2048 in format 212).
    pub signals: Vec<Vec<f32>>,
}

/// Why a record could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A file cannot be read.
    #[error(
        "cannot read {path}: {source}; a record needs its .hea and every signal file that it names in one folder"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The header is larger than [`MAX_HEADER_BYTES`], or is not text.
    #[error("{path} is not a WFDB header (text of at most {MAX_HEADER_BYTES} bytes)")]
    NotAHeader {
        /// The file.
        path: PathBuf,
    },
    /// The header is wrong, or asks for something that is not read here.
    #[error("header {path}: {problem}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What and where.
        #[source]
        problem: HeaderProblem,
    },
    /// A signal file is shorter than its header says.
    #[error(
        "{path} is cut short: it holds {found} samples of each signal, the header promises {promised}; fetch it again, or set the number of samples in the header to {found} to use what is there"
    )]
    Truncated {
        /// The signal file.
        path: PathBuf,
        /// Whole samples of each signal that it holds.
        found: u64,
        /// Samples of each signal by the header.
        promised: u64,
    },
    /// The samples are not those that the header was written for.
    #[error(
        "{path}, signal {signal}: the samples sum to {found} and the header says {promised}; the file is damaged or belongs to another header, fetch both again"
    )]
    Checksum {
        /// The signal file.
        path: PathBuf,
        /// Which signal of the record, from 0.
        signal: usize,
        /// Low 16 bits of the sum.
        found: u16,
        /// Those of the header.
        promised: u16,
    },
    /// More values than [`MAX_VALUES`].
    #[error(
        "{path} has {values} sample values, and at most {MAX_VALUES} are read; cut it into parts"
    )]
    TooLarge {
        /// The header.
        path: PathBuf,
        /// Values over all signals.
        values: u64,
    },
    /// Signals of one file that lie differently.
    #[error(
        "{path}: its signals have different formats or offsets in one file, which WFDB rules out"
    )]
    MixedFile {
        /// The signal file.
        path: PathBuf,
    },
}

/// Why no records were found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// The path cannot be read.
    #[error("cannot read {path}: {source}; give a folder of WFDB records or one .hea file")]
    Read {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder without headers.
    #[error(
        "there is no .hea file in {path}; give the folder that holds the records (it is not searched deeper)"
    )]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// More headers than [`MAX_RECORDS`].
    #[error("{path} holds more than {MAX_RECORDS} records; split the folder")]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

impl Record {
    /// Reads a record whole.
    ///
    /// `path` is its `.hea` file or the same without the extension.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RecordError> {
        let path = header_path(path.as_ref());
        let header = read_header(&path)?;
        let mut signals: Vec<Vec<f32>> = vec![Vec::new(); header.signals.len()];
        for group in groups(&header) {
            read_group(&path, &header, &group, &mut signals)?;
        }
        // Files that state no number of samples may end at different lengths; the shortest counts.
        let shortest = signals.iter().map(Vec::len).min().unwrap_or(0);
        signals.iter_mut().for_each(|signal| signal.truncate(shortest));
        Ok(Self { header, signals })
    }
}

/// The headers of one record or of all records in a folder, sorted by path.
///
/// `path` is a folder (not searched deeper), a `.hea` file, or the same without the extension.
pub fn find_records(path: impl AsRef<Path>) -> Result<Vec<PathBuf>, FindError> {
    let path = path.as_ref();
    let failed = |source| FindError::Read { path: path.to_owned(), source };
    if !path.is_dir() {
        let header = header_path(path);
        std::fs::metadata(&header).map_err(failed)?;
        return Ok(vec![header]);
    }
    let mut records = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "hea") {
            if records.len() == MAX_RECORDS {
                return Err(FindError::TooMany { path: path.to_owned() });
            }
            records.push(file);
        }
    }
    if records.is_empty() {
        return Err(FindError::Empty { path: path.to_owned() });
    }
    records.sort();
    Ok(records)
}

fn header_path(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "hea") {
        path.to_owned()
    } else {
        // Not `with_extension`: a record may be called `a.b`.
        let mut name = path.as_os_str().to_owned();
        name.push(".hea");
        name.into()
    }
}

fn read_header(path: &Path) -> Result<Header, RecordError> {
    let bytes = read_at_most(path, MAX_HEADER_BYTES + 1)?;
    let not_a_header = || RecordError::NotAHeader { path: path.to_owned() };
    if bytes.len() as u64 > MAX_HEADER_BYTES {
        return Err(not_a_header());
    }
    let text = String::from_utf8(bytes).map_err(|_| not_a_header())?;
    let header: Header =
        text.parse().map_err(|problem| RecordError::Header { path: path.to_owned(), problem })?;
    let values = header.samples.unwrap_or(0).saturating_mul(header.signals.len() as u64);
    if values > MAX_VALUES {
        return Err(RecordError::TooLarge { path: path.to_owned(), values });
    }
    Ok(header)
}

/// Indices of the signals that share a file, file by file in the header's order.
fn groups(header: &Header) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, signal) in header.signals.iter().enumerate() {
        match groups.iter_mut().find(|group| header.signals[group[0]].file == signal.file) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

fn read_group(
    header_path: &Path,
    header: &Header,
    group: &[usize],
    signals: &mut [Vec<f32>],
) -> Result<(), RecordError> {
    let specs: Vec<&SignalSpec> = group.iter().map(|index| &header.signals[*index]).collect();
    let (format, offset) = (specs[0].format, specs[0].byte_offset);
    let path = header_path.with_file_name(&specs[0].file);
    if specs.iter().any(|spec| (spec.format, spec.byte_offset) != (format, offset)) {
        return Err(RecordError::MixedFile { path });
    }
    let width = group.len() as u64;
    let wanted = header.samples.map(|samples| samples * width);
    let most_bytes = format.bytes_of(wanted.unwrap_or(MAX_VALUES + 1)).saturating_add(offset);
    let bytes = read_at_most(&path, most_bytes)?;
    let data = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();

    let held = format.values_in(data.len() as u64);
    let samples = match header.samples {
        Some(promised) if held < promised * width => {
            return Err(RecordError::Truncated { path, found: held / width, promised });
        }
        Some(promised) => promised,
        None if held > MAX_VALUES => {
            return Err(RecordError::TooLarge { path: header_path.to_owned(), values: held });
        }
        None => held / width,
    };
    let sums = decode(format, data, samples as usize, &specs, group, signals);
    for ((index, spec), found) in group.iter().zip(&specs).zip(sums) {
        if let Some(promised) = spec.checksum.filter(|promised| *promised != found) {
            return Err(RecordError::Checksum { path, signal: *index, found, promised });
        }
    }
    Ok(())
}

/// Fills the group's signals and gives the low 16 bits of each one's sum.
fn decode(
    format: Format,
    data: &[u8],
    samples: usize,
    specs: &[&SignalSpec],
    group: &[usize],
    signals: &mut [Vec<f32>],
) -> Vec<u16> {
    let width = specs.len();
    let mut sums = vec![0_u16; width];
    for (lane, (spec, index)) in specs.iter().zip(group).enumerate() {
        let sum = &mut sums[lane];
        signals[*index] = (0..samples)
            .map(|sample| {
                let value = format.value(data, sample * width + lane);
                *sum = sum.wrapping_add(value as u16);
                if value == format.no_sample() {
                    f32::NAN
                } else {
                    ((f64::from(value) - f64::from(spec.baseline)) / spec.gain) as f32
                }
            })
            .collect();
    }
    sums
}

impl Format {
    /// Bytes that hold this many values; an odd last value of format 212 takes two.
    fn bytes_of(self, values: u64) -> u64 {
        match self {
            Format::F16 => values.saturating_mul(2),
            Format::F212 => (values / 2).saturating_mul(3).saturating_add(values % 2 * 2),
        }
    }

    /// Whole values in this many bytes.
    fn values_in(self, bytes: u64) -> u64 {
        match self {
            Format::F16 => bytes / 2,
            Format::F212 => bytes / 3 * 2 + u64::from(bytes % 3 == 2),
        }
    }

    /// The value that says "no sample".
    pub(super) const fn no_sample(self) -> i16 {
        match self {
            Format::F16 => i16::MIN,
            Format::F212 => -2048,
        }
    }

    /// Value `index`, which must lie within [`Format::values_in`].
    #[inline]
    fn value(self, data: &[u8], index: usize) -> i16 {
        match self {
            Format::F16 => i16::from_le_bytes([data[index * 2], data[index * 2 + 1]]),
            Format::F212 => {
                let at = index / 2 * 3;
                let (middle, other, shift) = (data[at + 1], index % 2 == 1, 12);
                let raw = if other {
                    u16::from(middle >> 4) << 8 | u16::from(data[at + 2])
                } else {
                    u16::from(middle & 0x0f) << 8 | u16::from(data[at])
                };
                // Twelve bits to the top and back again carry the sign along.
                ((raw << (16 - shift)) as i16) >> (16 - shift)
            }
        }
    }
}

fn read_at_most(path: &Path, bytes: u64) -> Result<Vec<u8>, RecordError> {
    let read = || {
        let mut content = Vec::new();
        File::open(path)?.take(bytes).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_err(|source| RecordError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    /// A folder with one record `x` of these header and signal bytes.
    fn folder(header: &str, data: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.hea"), header).unwrap();
        fs::write(folder.path().join("x.dat"), data).unwrap();
        folder
    }

    fn open(header: &str, data: &[u8]) -> Result<Record, RecordError> {
        Record::open(folder(header, data).path().join("x"))
    }

    fn message(header: &str, data: &[u8]) -> String {
        let folder = folder(header, data);
        let error = Record::open(folder.path().join("x.hea")).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn format_212_by_hand() {
        // 0x123 and −1; then −2048 (no sample) and 2047.
        let record =
            open("x 1 360 4\nx.dat 212 100(1)/mV", &[0x23, 0xf1, 0xff, 0x00, 0x78, 0xff]).unwrap();
        let values = &record.signals[0];
        assert_eq!((values[0], values[1], values[3]), (2.9, -0.02, 20.46));
        assert!(values[2].is_nan());
    }

    #[test]
    fn format_16_interleaved_behind_an_offset() {
        let header = "x 2 360 2\nx.dat 16+1 1/mV 16 0 0 3\nx.dat 16+1 1/mV 16 0 0 -32771";
        let record = open(header, &[9, 1, 0, 0xfd, 0xff, 2, 0, 0, 0x80]).unwrap();
        assert_eq!(record.signals[0], [1.0, 2.0]);
        assert_eq!(record.signals[1][0], -3.0);
        assert!(record.signals[1][1].is_nan());
    }

    #[test]
    fn without_a_number_of_samples_the_file_decides() {
        let record = open("x 2 360\nx.dat 212\nx.dat 212", &[0; 3 * 5 + 2]).unwrap();
        assert_eq!(record.signals[0].len(), 5);
    }

    #[test]
    fn a_damaged_record_says_what_to_do() {
        assert_eq!(
            message("x 2 360 4\nx.dat 212\nx.dat 212", &[0; 10]),
            "x.dat is cut short: it holds 3 samples of each signal, the header promises 4; fetch it again, or set the number of samples in the header to 3 to use what is there"
        );
        assert_eq!(
            message("x 1 360 1\nx.dat 16 200 11 0 0 7", &[8, 0]),
            "x.dat, signal 0: the samples sum to 8 and the header says 7; the file is damaged or belongs to another header, fetch both again"
        );
        assert!(message("x 1 360 1\ny.dat 16", &[8, 0]).starts_with("cannot read y.dat: "));
        assert!(
            message("x 2 360 99999999999\nx.dat 16\nx.dat 16", &[]).contains("cut it into parts")
        );
        assert!(message("x 2 360 1\nx.dat 16\nx.dat 212", &[0; 9]).contains("different formats"));
        assert!(message("x 1 360 1\nx.dat 8", &[0; 9]).contains("only 16 and 212"));
    }

    #[test]
    fn an_offset_past_the_end_is_a_truncation() {
        let error = open("x 1 360 1\nx.dat 16+18446744073709551615", &[0; 4]).unwrap_err();
        assert!(matches!(error, RecordError::Truncated { found: 0, promised: 1, .. }));
    }

    #[test]
    fn folders_are_listed_in_order() {
        let folder = folder("x 0", &[]);
        let at = |name: &str| folder.path().join(name);
        fs::write(at("b.hea"), "b 0").unwrap();
        assert_eq!(find_records(folder.path()).unwrap(), [at("b.hea"), at("x.hea")]);
        assert_eq!(find_records(at("x")).unwrap(), [at("x.hea")]);
        assert!(matches!(find_records(at("none")).unwrap_err(), FindError::Read { .. }));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(find_records(empty.path()).unwrap_err(), FindError::Empty { .. }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            data in proptest::collection::vec(any::<u8>(), 0..40),
            samples in 0u64..20,
            format in prop_oneof![Just("16"), Just("212"), Just("212+3")],
        ) {
            let header = format!("x 2 360 {samples}\nx.dat {format}\nx.dat {format}");
            if let Ok(record) = open(&header, &data) {
                prop_assert!(samples == 0 || record.signals[0].len() as u64 == samples);
            }
        }
    }
}
