//! JSON payloads (RFC 8259), fields by JSON pointer (RFC 6901).

use crate::layout::{self, JsonText, TimeFormat, WaveformText};
use crate::profile::{Misplaced, ProfileProblem};
use crate::reading::{Payload, Reading, RejectReason, Rejected};
use crate::unit::{Conversion, UnitCache};
use haar_schema::{MAX_SAMPLES, SampleRate, SignalId, SignalKind, Timestamp};
use serde_json::Value;
use std::ops::Range;
use toml::Spanned;

/// Reads JSON payloads of one profile.
#[derive(Clone)]
pub(crate) struct JsonDecoder {
    time: Option<TimeField>,
    seq: Option<String>,
    observations: Vec<Scalar>,
    waveforms: Vec<Waveform>,
}

#[derive(Clone)]
struct TimeField {
    pointer: String,
    format: TimeFormat,
    required: bool,
}

#[derive(Clone)]
struct Scalar {
    signal: SignalId,
    pointer: String,
    unit: UnitSource,
    required: bool,
}

#[derive(Clone)]
struct Waveform {
    signal: SignalId,
    samples: String,
    rate: RateSource,
    unit: UnitSource,
    resolution: f64,
    no_sample: Option<i64>,
    required: bool,
}

#[derive(Clone)]
enum UnitSource {
    Fixed(Conversion),
    Pointer(String),
}

#[derive(Clone)]
enum RateSource {
    Fixed(SampleRate),
    Pointer(String),
}

impl JsonDecoder {
    pub(crate) fn new(text: &Spanned<JsonText>) -> Result<Self, Misplaced> {
        let section = text.get_ref();
        let time = match &section.time {
            None => None,
            Some(time) => Some(TimeField {
                pointer: layout::pointer(&time.pointer)?,
                format: time.format,
                required: time.required,
            }),
        };
        let mut observations = Vec::new();
        for row in &section.observations {
            let (span, row) = (row.span(), row.get_ref());
            let signal = layout::signal(&row.signal, SignalKind::Scalar)?;
            let unit = unit_source(&row.unit, &row.unit_pointer, signal, span)?;
            let pointer = layout::pointer(&row.pointer)?;
            observations.push(Scalar { signal, pointer, unit, required: row.required });
        }
        let waveforms = section.waveforms.iter().map(waveform).collect::<Result<Vec<_>, _>>()?;
        if observations.is_empty() && waveforms.is_empty() {
            let problem = ProfileProblem::Layout(
                "list at least one of [[json.observations]] and [[json.waveforms]]",
            );
            return Err((text.span(), problem));
        }
        let seq = section.seq.as_ref().map(layout::pointer).transpose()?;
        Ok(Self { time, seq, observations, waveforms })
    }

    pub(crate) fn decode(&self, payload: &[u8], units: &UnitCache) -> Result<Payload, Rejected> {
        let document: Value = serde_json::from_slice(payload).map_err(|error| {
            // The category and place only: the message may quote the payload.
            let (line, column) = (error.line(), error.column());
            let detail = format!("not JSON ({:?}) at {line}:{column}", error.classify());
            Rejected::new(RejectReason::MalformedPayload, detail)
        })?;
        let time = match &self.time {
            Some(field) => time(&document, field)?,
            None => None,
        };
        let numbered = self.numbered(&document)?;
        let mut readings = Vec::new();
        for scalar in &self.observations {
            let Some(value) = field(&document, &scalar.pointer, scalar.required)? else { continue };
            let value = number(value, &scalar.pointer)?;
            let conversion = conversion(&document, &scalar.unit, scalar.signal, units)?;
            readings.push(Reading::quantity(scalar.signal, value, conversion, &scalar.pointer)?);
        }
        for waveform in &self.waveforms {
            let found = field(&document, &waveform.samples, waveform.required)?;
            let Some(values) = found else { continue };
            let samples = samples(values, waveform)?;
            let rate = rate(&document, &waveform.rate)?;
            let conversion = conversion(&document, &waveform.unit, waveform.signal, units)?;
            let scale = (0.0, waveform.resolution);
            readings.push(Reading::samples(waveform.signal, rate, scale, conversion, samples)?);
        }
        Ok(Payload { time, numbered, readings })
    }

    fn numbered(&self, document: &Value) -> Result<bool, Rejected> {
        let Some(pointer) = &self.seq else { return Ok(false) };
        match field(document, pointer, false)? {
            None => Ok(false),
            Some(Value::Number(_) | Value::String(_)) => Ok(true),
            Some(_) => {
                let detail = format!("the sequence at {pointer} is no number or text");
                Err(Rejected::new(RejectReason::MalformedPayload, detail))
            }
        }
    }
}

fn waveform(text: &Spanned<WaveformText>) -> Result<Waveform, Misplaced> {
    let (span, row) = (text.span(), text.get_ref());
    let signal = layout::signal(&row.signal, SignalKind::Waveform)?;
    let unit = unit_source(&row.unit, &row.unit_pointer, signal, span.clone())?;
    let rate = match (&row.rate_hz, &row.rate_pointer) {
        (Some(hz), None) => RateSource::Fixed(rate_of_hz(*hz.get_ref()).ok_or_else(|| {
            let problem = ProfileProblem::Number("a rate is at least 0.001 and at most 1e6 Hz");
            (hz.span(), problem)
        })?),
        (None, Some(pointer)) => RateSource::Pointer(layout::pointer(pointer)?),
        _ => return Err((span, ProfileProblem::OneOf("rate_hz", "rate_pointer"))),
    };
    let resolution = match &row.resolution {
        None => 1.0,
        Some(value) if value.get_ref().is_finite() && *value.get_ref() > 0.0 => *value.get_ref(),
        Some(value) => {
            return Err((value.span(), ProfileProblem::Number("a resolution is positive")));
        }
    };
    Ok(Waveform {
        signal,
        samples: layout::pointer(&row.samples)?,
        rate,
        unit,
        resolution,
        no_sample: row.no_sample,
        required: row.required,
    })
}

/// Exactly one of the two must be given; `row` is where they are not.
fn unit_source(
    unit: &Option<Spanned<String>>,
    pointer: &Option<Spanned<String>>,
    signal: SignalId,
    row: Range<usize>,
) -> Result<UnitSource, Misplaced> {
    match (unit, pointer) {
        (Some(unit), None) => layout::unit(unit, signal).map(UnitSource::Fixed),
        (None, Some(pointer)) => layout::pointer(pointer).map(UnitSource::Pointer),
        _ => Err((row, ProfileProblem::OneOf("unit", "unit_pointer"))),
    }
}

/// To the millihertz.
fn rate_of_hz(hz: f64) -> Option<SampleRate> {
    let millihertz = (hz * 1_000.0).round();
    // NaN is in no range.
    (1.0..=1e9).contains(&millihertz).then(|| SampleRate::from_millihertz(millihertz as u32))?
}

/// The value at the pointer; `null` counts as missing.
fn field<'a>(
    document: &'a Value,
    pointer: &str,
    required: bool,
) -> Result<Option<&'a Value>, Rejected> {
    match document.pointer(pointer).filter(|value| !value.is_null()) {
        None if required => Err(missing(pointer)),
        found => Ok(found),
    }
}

fn missing(pointer: &str) -> Rejected {
    Rejected::new(RejectReason::MissingField, format!("{pointer} is missing"))
}

fn number(value: &Value, pointer: &str) -> Result<f64, Rejected> {
    value.as_f64().ok_or_else(|| {
        Rejected::new(RejectReason::NotANumber, format!("the value at {pointer} is no number"))
    })
}

fn time(document: &Value, time: &TimeField) -> Result<Option<Timestamp>, Rejected> {
    let pointer = &time.pointer;
    let Some(value) = field(document, pointer, time.required)? else { return Ok(None) };
    let read = match value {
        Value::String(text) if time.format == TimeFormat::Rfc3339 => {
            Timestamp::parse_rfc3339(text).ok()
        }
        Value::Number(number) => match number.as_i64() {
            Some(integer) => time.format.time_of_integer(integer),
            None => number.as_f64().and_then(|float| time.format.time_of_float(float)),
        },
        _ => None,
    };
    let bad = || {
        let detail = format!("the time at {pointer} is not in the format {:?}", time.format);
        Rejected::new(RejectReason::BadTime, detail)
    };
    read.map(Some).ok_or_else(bad)
}

fn conversion(
    document: &Value,
    source: &UnitSource,
    signal: SignalId,
    units: &UnitCache,
) -> Result<Conversion, Rejected> {
    let pointer = match source {
        UnitSource::Fixed(conversion) => return Ok(*conversion),
        UnitSource::Pointer(pointer) => pointer,
    };
    let unit = field(document, pointer, true)?.and_then(Value::as_str);
    unit.and_then(|unit| units.conversion(unit, signal)).ok_or_else(|| {
        let canonical = signal.definition().unit;
        let detail = format!("the unit at {pointer} is not one that converts to {canonical}");
        Rejected::new(RejectReason::WrongUnit, detail)
    })
}

fn rate(document: &Value, source: &RateSource) -> Result<SampleRate, Rejected> {
    let pointer = match source {
        RateSource::Fixed(rate) => return Ok(*rate),
        RateSource::Pointer(pointer) => pointer,
    };
    let hz = field(document, pointer, true)?.ok_or_else(|| missing(pointer))?;
    rate_of_hz(number(hz, pointer)?).ok_or_else(|| {
        Rejected::new(RejectReason::BadSamples, format!("the rate at {pointer} is out of range"))
    })
}

fn samples(values: &Value, waveform: &Waveform) -> Result<Vec<i16>, Rejected> {
    let pointer = &waveform.samples;
    let Value::Array(values) = values else {
        let detail = format!("{pointer} is no array of samples");
        return Err(Rejected::new(RejectReason::MalformedPayload, detail));
    };
    if values.len() > MAX_SAMPLES {
        let detail = format!("more than {MAX_SAMPLES} samples at {pointer}");
        return Err(Rejected::new(RejectReason::TooLarge, detail));
    }
    let sample = |value: &Value| {
        if value.is_null() || (value.is_i64() && value.as_i64() == waveform.no_sample) {
            return Ok(i16::MIN);
        }
        let step = (number(value, pointer)? / waveform.resolution).round();
        // i16::MIN is taken: it means no sample.
        if step.abs() <= f64::from(i16::MAX) {
            Ok(step as i16)
        } else {
            let detail = format!("a sample at {pointer} does not fit 16 bits at the resolution");
            Err(Rejected::new(RejectReason::BadSamples, detail))
        }
    };
    values.iter().map(sample).collect()
}
