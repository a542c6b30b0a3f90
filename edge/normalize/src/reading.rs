//! What a payload says, and why one is refused.

use crate::unit::Conversion;
use haar_schema::{
    MAX_SAMPLES, Quality, Quantity, SampleRate, SampledData, SampledDataError, SignalId, Timestamp,
    Value,
};
use std::fmt;

/// A frame that was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejected {
    /// For counters.
    pub reason: RejectReason,
    /// For people: which part of the profile the frame does not meet. Holds no value and no
    /// identifier out of the frame.
    pub detail: String,
}

impl Rejected {
    pub(crate) fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame was refused. The labels are stable.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum RejectReason {
            $($(#[$doc])* $name,)*
        }

        impl RejectReason {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The label in snake case.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// No profile matches the connector and path.
    NoProfile = "no_profile",
    /// Patient or device is empty, too long or has characters that identifiers do not have.
    BadIdentifier = "bad_identifier",
    /// Payload, path or a run of samples is over its limit.
    TooLarge = "too_large",
    /// Not the format that the profile says.
    MalformedPayload = "malformed_payload",
    /// The checksum does not fit.
    BadChecksum = "bad_checksum",
    /// A field that the profile calls required is not there.
    MissingField = "missing_field",
    /// The frame has none of the profile's observations.
    NoObservation = "no_observation",
    /// The time is not in the format that the profile says.
    BadTime = "bad_time",
    /// The time is too long ago.
    TooOld = "too_old",
    /// The unit is not UCUM, or of another kind of quantity than the signal.
    WrongUnit = "wrong_unit",
    /// A value is not a finite number.
    NotANumber = "not_a_number",
    /// The samples' rate or scale is none, or a sample does not fit 16 bits at the resolution.
    BadSamples = "bad_samples",
    /// The channel is not in the profile's table.
    UnknownChannel = "unknown_channel",
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a payload says, before it is known whose it is and when it came.
pub(crate) struct Payload {
    /// The device's time, if it says one.
    pub time: Option<Timestamp>,
    /// Whether the frame has a sequence number.
    pub numbered: bool,
    pub readings: Vec<Reading>,
}

/// A value in the signal's canonical unit.
pub(crate) struct Reading {
    pub signal: SignalId,
    pub value: Value,
    pub quality: Quality,
}

impl Reading {
    /// A quantity in the device's unit; `field` names it in the rejection.
    pub(crate) fn quantity(
        signal: SignalId,
        value: f64,
        conversion: Conversion,
        field: &str,
    ) -> Result<Self, Rejected> {
        let value = Quantity::new(conversion.apply(value)).ok_or_else(|| {
            Rejected::new(RejectReason::NotANumber, format!("the value at {field} is not finite"))
        })?;
        let quality = plausible(signal, std::iter::once(value.get()));
        Ok(Self { signal, value: Value::Quantity(value), quality })
    }

    /// A run of samples, each `origin + factor × sample` in the device's unit; `i16::MIN` is no sample.
    pub(crate) fn samples(
        signal: SignalId,
        rate: SampleRate,
        (origin, factor): (f64, f64),
        conversion: Conversion,
        samples: Vec<i16>,
    ) -> Result<Self, Rejected> {
        // Single precision holds a scale to seven digits; a 16-bit sample has less than five.
        let origin = conversion.apply(origin) as f32;
        let factor = (factor * conversion.factor) as f32;
        let off = samples.iter().all(|sample| *sample == i16::MIN);
        let data = SampledData::new(rate, origin, factor, samples).map_err(|error| {
            let reason = match error {
                SampledDataError::TooMany(_) => RejectReason::TooLarge,
                _ => RejectReason::BadSamples,
            };
            Rejected::new(reason, sampled_data_detail(&error))
        })?;
        let quality = if off {
            Quality::SENSOR_OFF
        } else {
            let present = data.samples().iter().zip(data.physical());
            let present = present.filter(|(sample, _)| **sample != i16::MIN);
            plausible(signal, present.map(|(_, value)| f64::from(value)))
        };
        Ok(Self { signal, value: Value::Sampled(data), quality })
    }
}

fn sampled_data_detail(error: &SampledDataError) -> String {
    match error {
        SampledDataError::Empty => "there is no sample".to_owned(),
        SampledDataError::TooMany(_) => format!("more than {MAX_SAMPLES} samples"),
        _ => "the scale of the samples is not finite or zero".to_owned(),
    }
}

fn plausible(signal: SignalId, mut values: impl Iterator<Item = f64>) -> Quality {
    let (low, high) = signal.definition().plausible;
    if values.all(|value| (low..=high).contains(&value)) {
        Quality::GOOD
    } else {
        Quality::IMPLAUSIBLE
    }
}
