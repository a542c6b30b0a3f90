//! What really happened on the ward, for scoring flags.
//!
//! # Format
//! JSON lines (one object a line), each with a `truth` that says what it is. Times are microseconds since
//! 1970, in true time, whatever the devices' clocks say. A file begins with one `ward` line; the rest is in the
//! order in which the simulation came by it: what is scripted first, then each second's beats and vitals.
//!
//! # Limits
//! A line has at most [`MAX_TRUTH_LINE_BYTES`].

use crate::rhythm::{BeatClass, Rhythm};
use crate::scenario::What;
use crate::vitals::Vitals;
use haar_schema::{DeviceId, Timestamp};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};

/// The longest line.
pub const MAX_TRUTH_LINE_BYTES: usize = 4_096;

/// One thing that is true.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "truth", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Truth {
    /// The ward itself.
    Ward {
        /// What everything was drawn from.
        seed: u64,
        /// How many patients.
        patients: u32,
        /// When simulated time began.
        start_us: Timestamp,
    },
    /// A heart beat.
    Beat {
        /// Whose.
        patient: String,
        /// Time of the R peak.
        at_us: Timestamp,
        /// What kind.
        class: BeatClass,
        /// In which rhythm.
        rhythm: Rhythm,
    },
    /// The vitals at the end of a second, before any fault of a sensor.
    Vitals {
        /// Whose.
        patient: String,
        /// When.
        at_us: Timestamp,
        /// The vitals.
        vitals: Vitals,
        /// Their NEWS2 (air, alert, SpO₂ scale 1).
        news2: u8,
    },
    /// A scripted episode.
    Episode {
        /// Whose.
        patient: String,
        /// The device concerned, if it is one's fault.
        device: Option<DeviceId>,
        /// First microsecond.
        from_us: Timestamp,
        /// First microsecond behind it.
        to_us: Timestamp,
        /// What.
        what: What,
    },
    /// A flag that ought to be raised somewhere in this time, and nowhere else.
    Expected {
        /// For whom.
        patient: String,
        /// Which.
        flag: ExpectedFlag,
        /// From here on it may come.
        from_us: Timestamp,
        /// First microsecond behind its cause.
        to_us: Timestamp,
    },
}

/// The kinds of flags that a scripted episode calls for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedFlag {
    /// Atrial fibrillation in the ECG.
    AtrialFibrillation,
    /// At least one beat in ten is ventricular ectopic.
    VentricularEctopy,
    /// NEWS2 of 7 or more.
    News2,
    /// Temperature of 38 Cel or more.
    Fever,
    /// No ECG although the device speaks.
    LeadOff,
    /// The monitor repeats its last numbers.
    MonitorStuck,
    /// A device's clock is far from the edge's.
    Clock,
}

/// Why truth cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TruthError {
    /// The file.
    #[error("the truth file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is no truth.
    #[error("line {line} of the truth file: {source}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Over [`MAX_TRUTH_LINE_BYTES`].
    #[error("line {0} of the truth file has more than {MAX_TRUTH_LINE_BYTES} bytes")]
    TooLong(usize),
}

/// Writes lines.
///
/// # Errors
/// Those of the writer.
pub fn write_truth<'a>(
    mut out: impl Write,
    truth: impl IntoIterator<Item = &'a Truth>,
) -> io::Result<()> {
    for line in truth {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write_truth`] wrote, line by line.
pub fn read_truth(mut input: impl BufRead) -> impl Iterator<Item = Result<Truth, TruthError>> {
    let mut number = 0;
    let mut line = Vec::new();
    std::iter::from_fn(move || {
        number += 1;
        line.clear();
        // One byte more than allowed shows that the line is too long.
        let mut bounded = input.by_ref().take(MAX_TRUTH_LINE_BYTES as u64 + 1);
        match bounded.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(read) if read > MAX_TRUTH_LINE_BYTES => Some(Err(TruthError::TooLong(number))),
            Ok(_) => Some(
                serde_json::from_slice(&line)
                    .map_err(|source| TruthError::Line { line: number, source }),
            ),
            Err(error) => Some(Err(error.into())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn lines_come_back_as_they_were() {
        let truth = vec![
            Truth::Ward { seed: u64::MAX, patients: 2, start_us: Timestamp::from_millis(5) },
            Truth::Beat {
                patient: "p001".into(),
                at_us: Timestamp::from_micros(123_456),
                class: BeatClass::V,
                rhythm: Rhythm::Sinus,
            },
            Truth::Episode {
                patient: "p001".into(),
                device: None,
                from_us: Timestamp::from_millis(0),
                to_us: Timestamp::from_millis(9),
                what: What::DetachedLead,
            },
        ];
        let mut bytes = Vec::new();
        write_truth(&mut bytes, &truth).unwrap();
        expect![[r#"
            {"truth":"ward","seed":18446744073709551615,"patients":2,"start_us":5000}
            {"truth":"beat","patient":"p001","at_us":123456,"class":"V","rhythm":"sinus"}
            {"truth":"episode","patient":"p001","device":null,"from_us":0,"to_us":9000,"what":"detached-lead"}
        "#]]
        .assert_eq(std::str::from_utf8(&bytes).unwrap());
        let read: Vec<_> = read_truth(bytes.as_slice()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, truth);
    }

    #[test]
    fn bad_lines_are_named() {
        let mut lines = read_truth("{}\n".as_bytes());
        assert!(matches!(lines.next(), Some(Err(TruthError::Line { line: 1, .. }))));
        let long = vec![b' '; MAX_TRUTH_LINE_BYTES + 1];
        assert!(matches!(read_truth(long.as_slice()).next(), Some(Err(TruthError::TooLong(1)))));
    }
}
