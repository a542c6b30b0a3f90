//! The payload sections of a profile as they stand in the file, and what their values mean.

use crate::profile::{Misplaced, ProfileProblem};
use crate::unit::Conversion;
use haar_schema::{SignalId, SignalKind, Timestamp};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonText {
    pub time: Option<JsonTimeText>,
    pub seq: Option<Spanned<String>>,
    #[serde(default)]
    pub observations: Vec<Spanned<ObservationText>>,
    #[serde(default)]
    pub waveforms: Vec<Spanned<WaveformText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JsonTimeText {
    pub pointer: Spanned<String>,
    pub format: TimeFormat,
    #[serde(default = "yes")]
    pub required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObservationText {
    pub signal: Spanned<String>,
    pub pointer: Spanned<String>,
    pub unit: Option<Spanned<String>>,
    pub unit_pointer: Option<Spanned<String>>,
    #[serde(default)]
    pub required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WaveformText {
    pub signal: Spanned<String>,
    pub samples: Spanned<String>,
    pub rate_hz: Option<Spanned<f64>>,
    pub rate_pointer: Option<Spanned<String>>,
    pub unit: Option<Spanned<String>>,
    pub unit_pointer: Option<Spanned<String>>,
    pub resolution: Option<Spanned<f64>>,
    pub no_sample: Option<i64>,
    #[serde(default)]
    pub required: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BinaryText {
    pub magic: Spanned<String>,
    pub time: Option<Spanned<BinaryTimeText>>,
    pub seq: Option<Spanned<FieldText>>,
    pub channel: Option<Spanned<FieldText>>,
    pub rate_mhz: Spanned<FieldOrNumber>,
    pub factor: Option<Spanned<FieldOrNumber>>,
    pub origin: Option<Spanned<FieldOrNumber>>,
    pub count: Spanned<FieldText>,
    pub samples_offset: usize,
    pub no_sample: Option<i16>,
    #[serde(default)]
    pub crc32: bool,
    pub channels: Vec<Spanned<ChannelText>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BinaryTimeText {
    pub offset: usize,
    pub r#type: FieldType,
    pub format: TimeFormat,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FieldText {
    pub offset: usize,
    pub r#type: FieldType,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "a number, or a field such as { offset = 4, type = \"u32\" }")]
pub(crate) enum FieldOrNumber {
    Field(FieldText),
    Number(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelText {
    pub channel: i64,
    pub signal: Spanned<String>,
    pub unit: Spanned<String>,
}

/// How a device writes the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimeFormat {
    Rfc3339,
    EpochS,
    EpochMs,
    EpochUs,
}

/// How a binary field is stored, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FieldType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl TimeFormat {
    /// Microseconds in one unit of the number; `None` for a text format.
    pub(crate) const fn micros(self) -> Option<i64> {
        match self {
            Self::Rfc3339 => None,
            Self::EpochS => Some(1_000_000),
            Self::EpochMs => Some(1_000),
            Self::EpochUs => Some(1),
        }
    }

    /// A whole number of this format's units; `None` if there is no such time.
    pub(crate) fn time_of_integer(self, number: i64) -> Option<Timestamp> {
        number.checked_mul(self.micros()?).map(Timestamp::from_micros)
    }

    /// A number with decimals, rounded to the microsecond.
    pub(crate) fn time_of_float(self, number: f64) -> Option<Timestamp> {
        let micros = (number * self.micros()? as f64).round();
        // Up to 2^62 µs (the year 148,000) the cast is exact enough; NaN fails the comparison.
        (micros.abs() < (1u64 << 62) as f64).then(|| Timestamp::from_micros(micros as i64))
    }
}

impl FieldType {
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    pub(crate) const fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64)
    }
}

/// The signal of that name and kind.
pub(crate) fn signal(name: &Spanned<String>, kind: SignalKind) -> Result<SignalId, Misplaced> {
    let text = name.get_ref().as_str();
    let signal = SignalId::by_name(text).ok_or_else(|| {
        let similarity =
            |signal: &SignalId| (strsim::jaro_winkler(signal.name(), text) * 1_000.0) as u32;
        let nearest = SignalId::all().max_by_key(similarity).map_or("", SignalId::name);
        (name.span(), ProfileProblem::Signal { name: text.to_owned(), nearest })
    })?;
    let found = signal.definition().kind;
    if found != kind {
        return Err((name.span(), ProfileProblem::Kind { signal: signal.name(), found }));
    }
    Ok(signal)
}

/// The conversion from that unit to the signal's.
pub(crate) fn unit(unit: &Spanned<String>, signal: SignalId) -> Result<Conversion, Misplaced> {
    Conversion::new(unit.get_ref(), signal).ok_or_else(|| {
        let problem = ProfileProblem::Unit {
            unit: unit.get_ref().clone(),
            signal: signal.name(),
            canonical: signal.definition().unit,
        };
        (unit.span(), problem)
    })
}

/// A JSON pointer by RFC 6901, section 3.
pub(crate) fn pointer(text: &Spanned<String>) -> Result<String, Misplaced> {
    let pointer = text.get_ref();
    let escapes_hold = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if (pointer.is_empty() || pointer.starts_with('/')) && escapes_hold {
        Ok(pointer.clone())
    } else {
        Err((text.span(), ProfileProblem::Pointer))
    }
}

const fn yes() -> bool {
    true
}
