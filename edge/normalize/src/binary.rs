//! Binary payloads: little-endian fields at fixed offsets, then a run of i16 samples.

use crate::layout::{self, BinaryText, FieldOrNumber, FieldText, FieldType, TimeFormat};
use crate::profile::{Misplaced, ProfileProblem};
use crate::reading::{Payload, Reading, RejectReason, Rejected};
use crate::unit::Conversion;
use haar_schema::{MAX_SAMPLES, SampleRate, SignalId, SignalKind, Timestamp};
use std::ops::Range;
use toml::Spanned;

/// The longest header that a profile may describe.
const MAX_HEADER_BYTES: usize = 1024;
/// The length of the checksum at the end.
const CRC_BYTES: usize = 4;

/// Reads binary payloads of one profile. Its fields all lie before `samples_offset`.
#[derive(Clone)]
pub(crate) struct BinaryDecoder {
    magic: Vec<u8>,
    time: Option<(FieldText, TimeFormat)>,
    numbered: bool,
    channel: Option<FieldText>,
    rate_mhz: FieldOrNumber,
    factor: FieldOrNumber,
    origin: FieldOrNumber,
    count: FieldText,
    samples_offset: usize,
    no_sample: Option<i16>,
    crc32: bool,
    channels: Vec<Channel>,
}

#[derive(Clone)]
struct Channel {
    number: i64,
    signal: SignalId,
    conversion: Conversion,
}

/// A field's content. 64-bit integers keep all their digits.
#[derive(Clone, Copy)]
enum Content {
    Integer(i64),
    Float(f64),
}

impl BinaryDecoder {
    pub(crate) fn new(text: &Spanned<BinaryText>) -> Result<Self, Misplaced> {
        let section = text.get_ref();
        let layout = |span: Range<usize>, why| Err((span, ProfileProblem::Layout(why)));
        let samples_offset = section.samples_offset;
        if samples_offset > MAX_HEADER_BYTES {
            return layout(text.span(), "samples_offset is at most 1024");
        }
        let magic = match hex::decode(section.magic.get_ref()) {
            Ok(magic) if !magic.is_empty() && magic.len() <= samples_offset => magic,
            _ => {
                let why = "magic is a whole number of bytes in hexadecimal, before samples_offset";
                return layout(section.magic.span(), why);
            }
        };
        let inside = |field: FieldText, span: Range<usize>| {
            let end = field.offset.checked_add(field.r#type.bytes());
            match end {
                Some(end) if end <= samples_offset => Ok(field),
                _ => Err((span, ProfileProblem::Layout("the field reaches behind samples_offset"))),
            }
        };
        let field = |field: &Spanned<FieldText>| inside(*field.get_ref(), field.span());
        let integer = |text: &Spanned<FieldText>| match field(text)? {
            found if found.r#type.is_integer() => Ok(found),
            _ => Err((text.span(), ProfileProblem::Layout("this field is an integer"))),
        };
        let field_or = |given: &Spanned<FieldOrNumber>| match *given.get_ref() {
            FieldOrNumber::Field(found) => inside(found, given.span()).map(FieldOrNumber::Field),
            number => Ok(number),
        };
        let optional = |given: &Option<Spanned<FieldOrNumber>>, standard| {
            given.as_ref().map_or(Ok(FieldOrNumber::Number(standard)), field_or)
        };
        let time = match &section.time {
            None => None,
            Some(time) => Some((
                inside(
                    FieldText { offset: time.get_ref().offset, r#type: time.get_ref().r#type },
                    time.span(),
                )?,
                match time.get_ref().format {
                    TimeFormat::Rfc3339 => {
                        return layout(
                            time.span(),
                            "a binary time is epoch_s, epoch_ms or epoch_us",
                        );
                    }
                    format => format,
                },
            )),
        };
        if let Some(seq) = &section.seq {
            field(seq)?;
        }
        Ok(Self {
            magic,
            time,
            numbered: section.seq.is_some(),
            channel: section.channel.as_ref().map(integer).transpose()?,
            rate_mhz: field_or(&section.rate_mhz)?,
            factor: optional(&section.factor, 1.0)?,
            origin: optional(&section.origin, 0.0)?,
            count: integer(&section.count)?,
            samples_offset,
            no_sample: section.no_sample,
            crc32: section.crc32,
            channels: channels(text)?,
        })
    }

    pub(crate) fn decode(&self, payload: &[u8]) -> Result<Payload, Rejected> {
        let malformed = |why: &str| Err(Rejected::new(RejectReason::MalformedPayload, why));
        if payload.len() < self.samples_offset {
            return malformed("shorter than the header");
        }
        if !payload.starts_with(&self.magic) {
            return malformed("it does not begin with the magic bytes");
        }
        let count = match self.integer(payload, self.count).map(usize::try_from) {
            Some(Ok(count)) if count <= MAX_SAMPLES => count,
            Some(Ok(_)) => {
                let detail = format!("more than {MAX_SAMPLES} samples");
                return Err(Rejected::new(RejectReason::TooLarge, detail));
            }
            _ => return malformed("a negative number of samples"),
        };
        let samples_end = self.samples_offset + 2 * count;
        let checksum_bytes = if self.crc32 { CRC_BYTES } else { 0 };
        if payload.len() != samples_end + checksum_bytes {
            return malformed("its length is not that of its number of samples");
        }
        let (body, checksum) = payload.split_at(samples_end);
        if self.crc32 && checksum != crc32fast::hash(body).to_le_bytes() {
            return Err(Rejected::new(RejectReason::BadChecksum, "the CRC-32 does not fit"));
        }
        let channel = self.channel(body)?;
        let (samples, _) = body[self.samples_offset..].as_chunks::<2>();
        let samples = samples.iter().map(|bytes| match i16::from_le_bytes(*bytes) {
            sample if Some(sample) == self.no_sample => i16::MIN,
            sample => sample,
        });
        let scale = (self.number(body, self.origin), self.number(body, self.factor));
        let rate = self.rate(body)?;
        let (signal, conversion) = (channel.signal, channel.conversion);
        let reading = Reading::samples(signal, rate, scale, conversion, samples.collect())?;
        let time = self.time(body)?;
        Ok(Payload { time, numbered: self.numbered, readings: vec![reading] })
    }

    fn channel(&self, body: &[u8]) -> Result<&Channel, Rejected> {
        let found = match self.channel {
            None => self.channels.first(),
            Some(field) => {
                let number = self.integer(body, field);
                self.channels.iter().find(|channel| Some(channel.number) == number)
            }
        };
        found.ok_or_else(|| {
            Rejected::new(RejectReason::UnknownChannel, "the channel is not in the profile")
        })
    }

    fn rate(&self, body: &[u8]) -> Result<SampleRate, Rejected> {
        let millihertz = self.number(body, self.rate_mhz).round();
        let rate = (1.0..=f64::from(u32::MAX))
            .contains(&millihertz)
            .then(|| SampleRate::from_millihertz(millihertz as u32));
        rate.flatten().ok_or_else(|| {
            Rejected::new(RejectReason::BadSamples, "the rate is zero or out of range")
        })
    }

    fn time(&self, body: &[u8]) -> Result<Option<Timestamp>, Rejected> {
        let Some((field, format)) = self.time else { return Ok(None) };
        let time = match read(body, field) {
            Some(Content::Integer(number)) => format.time_of_integer(number),
            Some(Content::Float(number)) => format.time_of_float(number),
            None => None,
        };
        let bad = || Rejected::new(RejectReason::BadTime, "the time is out of range");
        time.map(Some).ok_or_else(bad)
    }

    fn integer(&self, body: &[u8], field: FieldText) -> Option<i64> {
        match read(body, field)? {
            Content::Integer(number) => Some(number),
            Content::Float(_) => None,
        }
    }

    /// NaN where the field has no number: every use checks the range.
    fn number(&self, body: &[u8], source: FieldOrNumber) -> f64 {
        match source {
            FieldOrNumber::Number(number) => number,
            FieldOrNumber::Field(field) => match read(body, field) {
                Some(Content::Integer(number)) => number as f64,
                Some(Content::Float(number)) => number,
                None => f64::NAN,
            },
        }
    }
}

fn channels(text: &Spanned<BinaryText>) -> Result<Vec<Channel>, Misplaced> {
    let section = text.get_ref();
    let mut channels: Vec<Channel> = Vec::new();
    for row in &section.channels {
        let (span, row) = (row.span(), row.get_ref());
        if channels.iter().any(|channel| channel.number == row.channel) {
            return Err((span, ProfileProblem::Layout("this channel is listed twice")));
        }
        let signal = layout::signal(&row.signal, SignalKind::Waveform)?;
        let conversion = layout::unit(&row.unit, signal)?;
        channels.push(Channel { number: row.channel, signal, conversion });
    }
    if channels.is_empty() || (section.channel.is_none() && channels.len() > 1) {
        let why = "list [[binary.channels]]: one, or several with the field `channel`";
        return Err((text.span(), ProfileProblem::Layout(why)));
    }
    Ok(channels)
}

/// `None` if the field is not inside, or an unsigned number is over 2^63.
fn read(body: &[u8], field: FieldText) -> Option<Content> {
    let bytes = body.get(field.offset..)?;
    fn head<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
        bytes.first_chunk::<N>().copied()
    }
    Some(match field.r#type {
        FieldType::U8 => Content::Integer(u8::from_le_bytes(head(bytes)?).into()),
        FieldType::I8 => Content::Integer(i8::from_le_bytes(head(bytes)?).into()),
        FieldType::U16 => Content::Integer(u16::from_le_bytes(head(bytes)?).into()),
        FieldType::I16 => Content::Integer(i16::from_le_bytes(head(bytes)?).into()),
        FieldType::U32 => Content::Integer(u32::from_le_bytes(head(bytes)?).into()),
        FieldType::I32 => Content::Integer(i32::from_le_bytes(head(bytes)?).into()),
        FieldType::U64 => Content::Integer(u64::from_le_bytes(head(bytes)?).try_into().ok()?),
        FieldType::I64 => Content::Integer(i64::from_le_bytes(head(bytes)?)),
        FieldType::F32 => Content::Float(f32::from_le_bytes(head(bytes)?).into()),
        FieldType::F64 => Content::Float(f64::from_le_bytes(head(bytes)?)),
    })
}
