//! Writing a record: what the simulator and tests need, one signal file in format 16 or 212.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::header::{Format, MAX_SIGNALS};

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The name is not one that WFDB knows how to read back.
    #[error("`{name}` is no record name; use letters, digits, `_` and `-`")]
    Name {
        /// What was asked for.
        name: String,
    },
    /// Not between one and [`MAX_SIGNALS`] signals, or of different lengths.
    #[error("a record needs 1 to {MAX_SIGNALS} signals of one length")]
    Shape,
    /// Rate or gain is not a positive number.
    #[error("sampling rate and gain must be positive numbers")]
    Scale,
    /// A file cannot be written.
    #[error("cannot write {path}: {source}; is the folder there, writable and not full?")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Writes `name.hea` and `name.dat` into `folder`, over what is there.
///
/// `signals` are descriptions with samples in mV, all of one length; NaN is written as "no sample", and
/// what the format cannot hold is clipped to its range. `gain` is ADC units per mV.
pub fn write_record(
    folder: impl AsRef<Path>,
    name: &str,
    format: Format,
    rate_hz: f64,
    gain: f64,
    signals: &[(&str, &[f32])],
) -> Result<(), WriteError> {
    let folder = folder.as_ref();
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        return Err(WriteError::Name { name: name.to_owned() });
    }
    let samples = signals.first().map_or(0, |(_, samples)| samples.len());
    if signals.is_empty()
        || signals.len() > MAX_SIGNALS
        || signals.iter().any(|(_, other)| other.len() != samples)
    {
        return Err(WriteError::Shape);
    }
    if !(rate_hz.is_finite() && rate_hz > 0.0 && gain.is_finite() && gain > 0.0) {
        return Err(WriteError::Scale);
    }
    let (code, bits) = match format {
        Format::F16 => ("16", 16),
        Format::F212 => ("212", 12),
    };
    let mut header = format!("{name} {} {rate_hz} {samples}\n", signals.len());
    let mut values = vec![0_i16; samples * signals.len()];
    for (lane, (description, signal)) in signals.iter().enumerate() {
        let mut checksum = 0_i16;
        for (sample, mv) in signal.iter().enumerate() {
            let value = format.quantise(*mv, gain);
            checksum = checksum.wrapping_add(value);
            values[sample * signals.len() + lane] = value;
        }
        let initial = values.get(lane).copied().unwrap_or(0);
        let description = description.replace(['\n', '\r'], " ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            header,
            "{name}.dat {code} {gain}(0)/mV {bits} 0 {initial} {checksum} 0 {description}"
        );
    }
    let write = |extension: &str, content: &[u8]| {
        let path = folder.join(format!("{name}.{extension}"));
        std::fs::write(&path, content).map_err(|source| WriteError::Write { path, source })
    };
    // The header last: a folder in which the samples are missing has no record.
    write("dat", &format.encode(&values))?;
    write("hea", header.as_bytes())
}

impl Format {
    fn quantise(self, mv: f32, gain: f64) -> i16 {
        if mv.is_nan() {
            return self.no_sample();
        }
        let lowest = self.no_sample() + 1;
        (f64::from(mv) * gain).round().clamp(f64::from(lowest), -f64::from(lowest)) as i16
    }

    fn encode(self, values: &[i16]) -> Vec<u8> {
        match self {
            Format::F16 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Format::F212 => {
                let mut bytes = Vec::with_capacity(values.len() / 2 * 3 + 2);
                for pair in values.chunks(2) {
                    let first = pair[0] as u16;
                    let second = pair.get(1).map_or(0, |value| *value as u16);
                    bytes.push(first as u8);
                    bytes.push((first >> 8 & 0x0f) as u8 | ((second >> 8 & 0x0f) << 4) as u8);
                    if pair.len() == 2 {
                        bytes.push(second as u8);
                    }
                }
                bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wfdb::Record;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, rate, signals: &[(&str, &[f32])]| {
            write_record(folder.path(), name, Format::F16, rate, 200.0, signals).unwrap_err()
        };
        assert!(matches!(write("../x", 250.0, &[("II", &[0.0])]), WriteError::Name { .. }));
        assert!(matches!(write("x", 250.0, &[]), WriteError::Shape));
        assert!(matches!(write("x", 250.0, &[("a", &[0.0]), ("b", &[])]), WriteError::Shape));
        assert!(matches!(write("x", 0.0, &[("II", &[0.0])]), WriteError::Scale));
        let nowhere = folder.path().join("none");
        let error = write_record(nowhere, "x", Format::F16, 1.0, 1.0, &[("II", &[0.0])]);
        assert!(matches!(error.unwrap_err(), WriteError::Write { .. }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            values in proptest::collection::vec(
                (prop_oneof![9 => -2047i16..=2047, 1 => Just(i16::MIN)], -2047i16..=2047), 1..50),
            format in prop_oneof![Just(Format::F16), Just(Format::F212)],
            rate_mhz in 1u32..2_000_000,
        ) {
            let mv = |value: i16| if value == i16::MIN { f32::NAN } else { f32::from(value) / 200.0 };
            let first: Vec<f32> = values.iter().map(|pair| mv(pair.0)).collect();
            let second: Vec<f32> = values.iter().map(|pair| mv(pair.1)).collect();
            let rate_hz = f64::from(rate_mhz) / 1000.0;
            let folder = tempfile::tempdir().unwrap();
            let signals = [("MLII", &first[..]), ("V1 left", &second[..])];
            write_record(folder.path(), "r-1", format, rate_hz, 200.0, &signals).unwrap();
            let record = Record::open(folder.path().join("r-1")).unwrap();
            prop_assert_eq!(record.header.rate_hz, rate_hz);
            prop_assert_eq!(record.header.signals[1].description.as_str(), "V1 left");
            for (written, read) in [&first, &second].into_iter().zip(&record.signals) {
                for (a, b) in written.iter().zip(read) {
                    prop_assert!(a == b || (a.is_nan() && b.is_nan()), "{a} {b}");
                }
                prop_assert_eq!(written.len(), read.len());
            }
        }
    }
}
