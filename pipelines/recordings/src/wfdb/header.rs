//! The `.hea` file: header(5) of the WFDB Applications Guide.

use std::str::FromStr;

/// The largest header that is read. The longest published ones have a few hundred lines of comments.
pub const MAX_HEADER_BYTES: u64 = 1 << 20;

/// The most signals in one record. Polysomnograms reach about thirty.
pub const MAX_SIGNALS: usize = 64;

/// Samples per second where the header gives none (header(5), "sampling frequency").
const DEFAULT_RATE_HZ: f64 = 250.0;

/// ADC units per physical unit where the header gives none or zero (header(5), "ADC gain").
const DEFAULT_GAIN: f64 = 200.0;

/// What a header says about its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The record's name, as its first line gives it.
    pub name: String,
    /// Samples per second of each signal; positive and finite.
    pub rate_hz: f64,
    /// Samples per signal; `None` where the header leaves it to the length of the files.
    pub samples: Option<u64>,
    /// Wall-clock time of the first sample, where given. WFDB has no time zone.
    pub start: Option<BaseTime>,
    /// The signals in the order of the header.
    pub signals: Vec<SignalSpec>,
    /// Comment lines without their `#`.
    pub comments: Vec<String>,
}

/// A record's base time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseTime {
    /// Microseconds since midnight.
    pub micros_of_day: u64,
    /// The day, where given.
    pub date: Option<BaseDate>,
}

/// A record's base date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseDate {
    /// Year; de-identified databases have years far in the future.
    pub year: u16,
    /// Month, 1–12.
    pub month: u8,
    /// Day of the month, 1–31.
    pub day: u8,
}

/// How samples lie in a signal file (signal(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 16-bit two's complement, least significant byte first.
    F16,
    /// Pairs of 12-bit two's complement in three bytes.
    F212,
}

/// What a header says about one signal.
#[derive(Clone, Debug, PartialEq)]
pub struct SignalSpec {
    /// Name of the file in the header's folder.
    pub file: String,
    /// How the samples lie in it.
    pub format: Format,
    /// Bytes in front of the first sample.
    pub byte_offset: u64,
    /// ADC units per physical unit; positive or negative, never zero.
    pub gain: f64,
    /// The sample value that means zero physical units.
    pub baseline: i32,
    /// The physical unit as it is written; `mV` where none is.
    pub units: String,
    /// Resolution of the converter in bits; zero where unknown.
    pub adc_resolution_bits: u8,
    /// The sample value in the middle of the converter's range.
    pub adc_zero: i32,
    /// The sample that the header says is the first; not verified.
    pub initial_value: Option<i32>,
    /// The low 16 bits of the sum of all samples.
    pub checksum: Option<u16>,
    /// What the signal is, such as `MLII`; empty where the header does not say.
    pub description: String,
}

/// What is wrong in a header.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// No record line.
    #[error("it has no record line; is it a WFDB header at all?")]
    Empty,
    /// A field that cannot be read.
    #[error("line {line}: {field} cannot be read from `{text}`")]
    Field {
        /// Line, from 1.
        line: usize,
        /// Name of the field in header(5).
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// Fewer signal lines than the record line promises.
    #[error(
        "it promises {promised} signals and describes {found}; the file is cut short, fetch it again"
    )]
    MissingSignals {
        /// By the record line.
        promised: usize,
        /// Signal lines found.
        found: usize,
    },
    /// More signals than [`MAX_SIGNALS`].
    #[error("it has {count} signals, and at most {MAX_SIGNALS} are read")]
    TooManySignals {
        /// By the record line.
        count: usize,
    },
    /// A signal format that is not read here.
    #[error(
        "line {line}: signal format {format} is not read here, only 16 and 212; convert the record with `xform` of the WFDB software"
    )]
    UnknownFormat {
        /// Line, from 1.
        line: usize,
        /// The format's number.
        format: String,
    },
    /// A feature of WFDB that is not read here.
    #[error(
        "line {line}: {feature} is not read here; convert the record with `xform` of the WFDB software"
    )]
    Unsupported {
        /// Line, from 1.
        line: usize,
        /// What it is.
        feature: &'static str,
    },
    /// A file outside the header's folder.
    #[error(
        "line {line}: it names the signal file `{file}`, and only a plain name in the same folder is followed"
    )]
    ForeignFile {
        /// Line, from 1.
        line: usize,
        /// The name.
        file: String,
    },
}

impl FromStr for Header {
    type Err = HeaderProblem;

    fn from_str(text: &str) -> Result<Self, HeaderProblem> {
        let comments = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix('#'))
            .map(|comment| comment.trim().to_owned())
            .collect();
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let (number, line) = lines.next().ok_or(HeaderProblem::Empty)?;
        let (mut header, promised) = record_line(number, line)?;
        header.comments = comments;
        for (number, line) in lines.take(promised) {
            header.signals.push(signal_line(number, line)?);
        }
        let found = header.signals.len();
        if found < promised {
            return Err(HeaderProblem::MissingSignals { promised, found });
        }
        Ok(header)
    }
}

/// `name signals [rate[/counter[(base)]] [samples [time [date]]]]`
fn record_line(line: usize, text: &str) -> Result<(Header, usize), HeaderProblem> {
    let mut fields = text.split_ascii_whitespace();
    let name = fields.next().unwrap_or_default();
    if name.contains('/') {
        return Err(HeaderProblem::Unsupported { line, feature: "a multi-segment record" });
    }
    let count = required(line, "number of signals", fields.next())?;
    if count > MAX_SIGNALS {
        return Err(HeaderProblem::TooManySignals { count });
    }
    let rate_hz = match fields.next() {
        None => DEFAULT_RATE_HZ,
        Some(field) => {
            let rate = field.split('/').next().unwrap_or_default();
            let hz: f64 = required(line, "sampling frequency", Some(rate))?;
            if !(hz.is_finite() && hz > 0.0) {
                return Err(unreadable(line, "sampling frequency", field));
            }
            hz
        }
    };
    // Zero samples mean "not said" (header(5), "number of samples per signal").
    let samples: Option<u64> = optional(line, "number of samples", fields.next())?;
    let start = match fields.next() {
        None => None,
        Some(time) => Some(BaseTime {
            micros_of_day: base_time(time).ok_or_else(|| unreadable(line, "base time", time))?,
            date: match fields.next() {
                None => None,
                Some(date) => {
                    Some(base_date(date).ok_or_else(|| unreadable(line, "base date", date))?)
                }
            },
        }),
    };
    let header = Header {
        name: name.to_owned(),
        rate_hz,
        samples: samples.filter(|samples| *samples > 0),
        start,
        signals: Vec::with_capacity(count),
        comments: Vec::new(),
    };
    Ok((header, count))
}

/// `file format[xN][:skew][+offset] [gain[(baseline)][/units] [bits [zero [initial [checksum [block
/// [description]]]]]]]`
fn signal_line(line: usize, text: &str) -> Result<SignalSpec, HeaderProblem> {
    let mut rest = text;
    let mut next = || {
        let field = rest.split_ascii_whitespace().next()?;
        rest = rest.trim_ascii_start()[field.len()..].trim_ascii_start();
        Some(field)
    };
    let file = next().unwrap_or_default();
    if file.contains(['/', '\\']) || file.starts_with('.') || file == "-" || file == "~" {
        return Err(HeaderProblem::ForeignFile { line, file: file.to_owned() });
    }
    let (format, byte_offset) = format_field(line, next())?;
    let (gain, baseline, units) = gain_field(line, next())?;
    let bits = optional(line, "ADC resolution", next())?.unwrap_or(0);
    let adc_zero = optional(line, "ADC zero", next())?.unwrap_or(0);
    let initial_value = optional(line, "initial value", next())?;
    let checksum: Option<i32> = optional(line, "checksum", next())?;
    let _block_size: Option<i64> = optional(line, "block size", next())?;
    Ok(SignalSpec {
        file: file.to_owned(),
        format,
        byte_offset,
        gain,
        baseline: baseline.unwrap_or(adc_zero),
        units,
        adc_resolution_bits: bits,
        adc_zero,
        initial_value,
        // Written signed or unsigned; the low 16 bits are what counts.
        checksum: checksum.map(|sum| sum as u16),
        description: rest.to_owned(),
    })
}

fn format_field(line: usize, field: Option<&str>) -> Result<(Format, u64), HeaderProblem> {
    let field = field.ok_or_else(|| unreadable(line, "format", ""))?;
    let (field, offset) = match field.split_once('+') {
        Some((field, offset)) => (field, required(line, "byte offset", Some(offset))?),
        None => (field, 0),
    };
    let (field, skew) = match field.split_once(':') {
        Some((field, skew)) => (field, required(line, "skew", Some(skew))?),
        None => (field, 0_i64),
    };
    if skew != 0 {
        return Err(HeaderProblem::Unsupported { line, feature: "skew between signals" });
    }
    let (field, per_frame) = match field.split_once('x') {
        Some((field, count)) => (field, required(line, "samples per frame", Some(count))?),
        None => (field, 1_u32),
    };
    if per_frame != 1 {
        return Err(HeaderProblem::Unsupported { line, feature: "several samples per frame" });
    }
    let format = match field {
        "16" => Format::F16,
        "212" => Format::F212,
        other => return Err(HeaderProblem::UnknownFormat { line, format: other.to_owned() }),
    };
    Ok((format, offset))
}

fn gain_field(
    line: usize,
    field: Option<&str>,
) -> Result<(f64, Option<i32>, String), HeaderProblem> {
    let Some(field) = field else { return Ok((DEFAULT_GAIN, None, "mV".to_owned())) };
    let (field, units) = field.split_once('/').unwrap_or((field, "mV"));
    let (gain, baseline) = match field.split_once('(') {
        Some((gain, baseline)) => {
            (gain, Some(required(line, "baseline", Some(baseline.trim_end_matches(')')))?))
        }
        None => (field, None),
    };
    let gain: f64 = required(line, "ADC gain", Some(gain))?;
    if !gain.is_finite() {
        return Err(unreadable(line, "ADC gain", field));
    }
    Ok((if gain == 0.0 { DEFAULT_GAIN } else { gain }, baseline, units.to_owned()))
}

fn required<T: FromStr>(
    line: usize,
    name: &'static str,
    field: Option<&str>,
) -> Result<T, HeaderProblem> {
    let text = field.unwrap_or_default();
    text.parse().map_err(|_| unreadable(line, name, text))
}

fn optional<T: FromStr>(
    line: usize,
    name: &'static str,
    field: Option<&str>,
) -> Result<Option<T>, HeaderProblem> {
    field.map(|text| required(line, name, Some(text))).transpose()
}

fn unreadable(line: usize, field: &'static str, text: &str) -> HeaderProblem {
    HeaderProblem::Field { line, field, text: text.to_owned() }
}

/// `HH:MM:SS[.fraction]`, `MM:SS` or `SS` in microseconds.
fn base_time(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: u64 = 0;
    let mut parts = 0;
    for part in whole.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(u64::from(part.parse::<u16>().ok()?))?;
        parts += 1;
    }
    let mut micros = 0;
    let mut unit = 100_000;
    for digit in fraction.chars() {
        micros += u64::from(digit.to_digit(10)?) * unit;
        unit /= 10;
    }
    (parts <= 3 && seconds < 86_400).then_some(seconds * 1_000_000 + micros)
}

/// `DD/MM/YYYY`
fn base_date(text: &str) -> Option<BaseDate> {
    let mut parts = text.split('/');
    let day = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = parts.next()?.parse().ok().filter(|month| (1..=12).contains(month))?;
    let year = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(BaseDate { year, month, day })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;

    #[test]
    fn every_field() {
        let header: Header = "# about\r\nx1 1 360/120(7) 650000 10:20:30.25 17/03/2027\r\n\
             x1.mat 16+24 1000(-5)/uV 12 3 -127 -1 0 lead II, modified\r\n# male"
            .parse()
            .unwrap();
        expect![[r#"
            Header {
                name: "x1",
                rate_hz: 360.0,
                samples: Some(
                    650000,
                ),
                start: Some(
                    BaseTime {
                        micros_of_day: 37230250000,
                        date: Some(
                            BaseDate {
                                year: 2027,
                                month: 3,
                                day: 17,
                            },
                        ),
                    },
                ),
                signals: [
                    SignalSpec {
                        file: "x1.mat",
                        format: F16,
                        byte_offset: 24,
                        gain: 1000.0,
                        baseline: -5,
                        units: "uV",
                        adc_resolution_bits: 12,
                        adc_zero: 3,
                        initial_value: Some(
                            -127,
                        ),
                        checksum: Some(
                            65535,
                        ),
                        description: "lead II, modified",
                    },
                ],
                comments: [
                    "about",
                    "male",
                ],
            }
        "#]]
        .assert_debug_eq(&header);
    }

    #[test]
    fn defaults() {
        let header: Header = "x 1\nx.dat 212".parse().unwrap();
        assert_eq!((header.rate_hz, header.samples, header.start), (250.0, None, None));
        let signal = &header.signals[0];
        assert_eq!((signal.gain, signal.baseline, signal.checksum), (200.0, 0, None));
        assert_eq!((signal.units.as_str(), signal.description.as_str()), ("mV", ""));
        // Without a baseline of its own it is the ADC zero; a gain of zero means uncalibrated.
        let header: Header = "x 1 0.5 0\nx.dat 212 0 11 1024".parse().unwrap();
        assert_eq!((header.signals[0].gain, header.signals[0].baseline), (200.0, 1024));
        assert_eq!((header.rate_hz, header.samples), (0.5, None));
    }

    #[test]
    fn what_is_refused_says_why() {
        let check = |text: &str| match text.parse::<Header>() {
            Ok(header) => panic!("{header:?}"),
            Err(problem) => problem.to_string(),
        };
        let all = [
            "# only a comment",
            "x",
            "x two",
            "x 65",
            "x/3 2 360 100",
            "x 1 nan",
            "x 1 360 100 25:00:00",
            "x 2 360 10\nx.dat 16",
            "x 1\nx.dat 310",
            "x 1\nx.dat 16:4",
            "x 1\nx.dat 16x4",
            "x 1\n../x.dat 16",
            "x 1\nx.dat 16 200(b)",
        ]
        .map(check)
        .join("\n");
        expect![[r#"
            it has no record line; is it a WFDB header at all?
            line 1: number of signals cannot be read from ``
            line 1: number of signals cannot be read from `two`
            it has 65 signals, and at most 64 are read
            line 1: a multi-segment record is not read here; convert the record with `xform` of the WFDB software
            line 1: sampling frequency cannot be read from `nan`
            line 1: base time cannot be read from `25:00:00`
            it promises 2 signals and describes 1; the file is cut short, fetch it again
            line 2: signal format 310 is not read here, only 16 and 212; convert the record with `xform` of the WFDB software
            line 2: skew between signals is not read here; convert the record with `xform` of the WFDB software
            line 2: several samples per frame is not read here; convert the record with `xform` of the WFDB software
            line 2: it names the signal file `../x.dat`, and only a plain name in the same folder is followed
            line 2: baseline cannot be read from `b`"#]]
        .assert_eq(&all);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n\t]{0,300}") {
            let _ = text.parse::<Header>();
        }
    }
}
