//! Profiles: a TOML file becomes a decoder, with every mistake shown at its place.

use crate::binary::BinaryDecoder;
use crate::json::JsonDecoder;
use crate::layout::{BinaryText, JsonText};
use crate::normalizer::Connector;
use crate::path::PathPattern;
use haar_schema::SignalKind;
use serde::Deserialize;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;

/// The largest profile file.
pub const MAX_PROFILE_BYTES: usize = 64 * 1024;
/// The longest name of a profile.
const MAX_NAME_BYTES: usize = 48;

/// The built-in profiles: file name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("bedside-monitor.toml", include_str!("../profiles/bedside-monitor.toml")),
    ("ecg-json.toml", include_str!("../profiles/ecg-json.toml")),
    ("glucose-sensor.toml", include_str!("../profiles/glucose-sensor.toml")),
    ("laboratory.toml", include_str!("../profiles/laboratory.toml")),
    ("temperature-patch.toml", include_str!("../profiles/temperature-patch.toml")),
    ("wave-binary.toml", include_str!("../profiles/wave-binary.toml")),
];

/// How one kind of device is read.
///
/// # The file
/// Unknown keys are an error.
///
/// | key | |
/// |---|---|
/// | `name` | lower-case letters, digits and `-` |
/// | `connector` | `mqtt` or `coap` |
/// | `path` | topic or path without a slash in front; levels are literal, `{patient}` or `{device}`, each of these once |
/// | `out_of_orderness_ms` | how far readings come in the wrong order: a mark stays this far behind; 2000 |
/// | `idle_after_ms` | silence after which no window waits for the device; 30000 |
/// | `mark_interval_ms` | a mark is written when event time has come on by this; 1000 |
/// | `[json]` or `[binary]` | the payload, one of the two |
///
/// `[json]` (fields by RFC 6901 JSON pointer):
///
/// | key | |
/// |---|---|
/// | `time` | `{ pointer, format, required = true }`; `rfc3339`, `epoch_s`, `epoch_ms` or `epoch_us`. Without: ingest time |
/// | `seq` | pointer of a number or text that tells frames apart |
/// | `[[json.observations]]` | `signal`, `pointer`, `unit` or `unit_pointer`, `required = false` |
/// | `[[json.waveforms]]` | `signal`, `samples`, `rate_hz` or `rate_pointer`, `unit` or `unit_pointer`, `resolution = 1.0` (one step as stored, in the device's unit), `no_sample`, `required = false` |
///
/// `[binary]` (little-endian; a field is `{ offset, type }` with `u8` … `i64`, `f32`, `f64`):
///
/// | key | |
/// |---|---|
/// | `magic` | hexadecimal bytes at offset 0 |
/// | `time` | a field with `format`. Without: ingest time |
/// | `seq` | a field that tells frames apart |
/// | `channel` | a field; without it `channels` has one row |
/// | `rate_mhz` | a field, or a number: samples per 1000 s |
/// | `factor`, `origin` | fields or numbers; physical = origin + factor × sample; 1 and 0 |
/// | `count` | a field: how many i16 samples |
/// | `samples_offset` | where they begin |
/// | `no_sample` | the sample that means none |
/// | `crc32` | whether CRC-32 (IEEE 802.3) of everything before it ends the frame |
/// | `[[binary.channels]]` | `channel`, `signal`, `unit` |
#[derive(Clone)]
pub struct Profile {
    name: Arc<str>,
    connector: Connector,
    path: PathPattern,
    timing: Timing,
    decoder: Decoder,
}

/// The watermark policy of a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// How far readings of one device come in the wrong order.
    pub out_of_orderness_ms: u32,
    /// Silence after which the device is idle, in ingest time.
    pub idle_after_ms: u32,
    /// How far event time comes on between two marks.
    pub mark_interval_ms: u32,
}

/// One of the two payload formats, ready to be run.
#[derive(Clone)]
pub(crate) enum Decoder {
    Json(JsonDecoder),
    Binary(BinaryDecoder),
}

/// A mistake in a profile, with its place.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: {problem}")]
pub struct ProfileError {
    /// The file's name as given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: ProfileProblem,
}

/// What is wrong in a profile, and what would be right.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileProblem {
    /// Not TOML, a key that is not known, or a value of another type.
    #[error("{0}")]
    Toml(String),
    /// Over [`MAX_PROFILE_BYTES`].
    #[error("a profile has at most {MAX_PROFILE_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// The name has characters that labels do not have.
    #[error("a name has 1 to {MAX_NAME_BYTES} lower-case letters, digits and -")]
    Name,
    /// The pattern is none.
    #[error("not a path pattern: {0}")]
    Path(&'static str),
    /// Both payload formats, or none.
    #[error("a profile has one of [json] and [binary], and exactly one")]
    Payload,
    /// Two keys that exclude each other, or none of them.
    #[error("give {0} or {1}, exactly one of them")]
    OneOf(&'static str, &'static str),
    /// No such signal.
    #[error("there is no signal \"{name}\"; did you mean \"{nearest}\"?")]
    Signal {
        /// As written.
        name: String,
        /// The signal with the most similar name.
        nearest: &'static str,
    },
    /// A scalar where a waveform belongs, or the reverse.
    #[error("\"{signal}\" is a {}", match found { SignalKind::Scalar => "scalar; list it under [[json.observations]]", SignalKind::Waveform => "waveform; list it under [[json.waveforms]] or [[binary.channels]]" })]
    Kind {
        /// The signal.
        signal: &'static str,
        /// What it is.
        found: SignalKind,
    },
    /// Not UCUM or of another kind of quantity.
    #[error(
        "\"{unit}\" is not a UCUM unit that converts to {canonical}, the unit of {signal}; see https://ucum.org/ucum (such as [degF], uV, /min, mm[Hg])"
    )]
    Unit {
        /// As written.
        unit: String,
        /// The signal.
        signal: &'static str,
        /// Its canonical unit.
        canonical: &'static str,
    },
    /// Not RFC 6901.
    #[error("a JSON pointer is empty or begins with / (RFC 6901), such as /nibp/sys or /0/v")]
    Pointer,
    /// The binary layout contradicts itself.
    #[error("{0}")]
    Layout(&'static str),
    /// A number outside what it may be.
    #[error("{0}")]
    Number(&'static str),
}

/// A problem with the bytes of the text that it is about.
pub(crate) type Misplaced = (Range<usize>, ProfileProblem);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileText {
    name: Spanned<String>,
    connector: Connector,
    path: Spanned<String>,
    out_of_orderness_ms: Option<u32>,
    idle_after_ms: Option<u32>,
    mark_interval_ms: Option<u32>,
    json: Option<Spanned<JsonText>>,
    binary: Option<Spanned<BinaryText>>,
}

impl Default for Timing {
    fn default() -> Self {
        Self { out_of_orderness_ms: 2_000, idle_after_ms: 30_000, mark_interval_ms: 1_000 }
    }
}

impl Profile {
    /// Reads a profile; `file` names it in the error.
    ///
    /// # Errors
    /// The first mistake with its place.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        parse(text).map_err(|(span, problem)| {
            let before = &text[..text.floor_char_boundary(span.start)];
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            ProfileError {
                file: file.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                problem,
            }
        })
    }

    /// The profiles in [`BUILT_IN`].
    ///
    /// # Errors
    /// None: a test reads them all. The type is that of [`Profile::parse`].
    pub fn built_in() -> Result<Vec<Self>, ProfileError> {
        BUILT_IN.iter().map(|(file, text)| Self::parse(file, text)).collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The connector that its devices come by.
    pub const fn connector(&self) -> Connector {
        self.connector
    }

    /// Its watermark policy.
    pub const fn timing(&self) -> Timing {
        self.timing
    }

    /// Its path pattern as an MQTT topic filter.
    pub fn topic_filter(&self) -> String {
        self.path.topic_filter()
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(crate) const fn path(&self) -> &PathPattern {
        &self.path
    }

    pub(crate) const fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

impl fmt::Debug for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Profile({})", self.name)
    }
}

fn parse(text: &str) -> Result<Profile, Misplaced> {
    if text.len() > MAX_PROFILE_BYTES {
        return Err((0..0, ProfileProblem::TooLong(text.len())));
    }
    let read: ProfileText = toml::from_str(text).map_err(|error| {
        let problem = ProfileProblem::Toml(error.message().to_owned());
        (error.span().unwrap_or(0..0), problem)
    })?;
    let name = read.name.get_ref();
    if name.is_empty()
        || name.len() > MAX_NAME_BYTES
        || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err((read.name.span(), ProfileProblem::Name));
    }
    let path = PathPattern::parse(read.path.get_ref())
        .map_err(|problem| (read.path.span(), ProfileProblem::Path(problem)))?;
    let decoder = match (&read.json, &read.binary) {
        (Some(json), None) => Decoder::Json(JsonDecoder::new(json)?),
        (None, Some(binary)) => Decoder::Binary(BinaryDecoder::new(binary)?),
        _ => return Err((read.name.span(), ProfileProblem::Payload)),
    };
    let standard = Timing::default();
    let timing = Timing {
        out_of_orderness_ms: read.out_of_orderness_ms.unwrap_or(standard.out_of_orderness_ms),
        idle_after_ms: read.idle_after_ms.unwrap_or(standard.idle_after_ms),
        mark_interval_ms: read.mark_interval_ms.unwrap_or(standard.mark_interval_ms),
    };
    Ok(Profile { name: name.as_str().into(), connector: read.connector, path, timing, decoder })
}
