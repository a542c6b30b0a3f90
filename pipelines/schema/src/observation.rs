//! One reading.

use crate::{DeviceId, SampleRate, SignalId, Subject, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The most samples in one [`SampledData`].
pub const MAX_SAMPLES: usize = 16_384;

/// One reading of one subject by one device: FHIR R4 `Observation`, with the code held as a row of
/// the table of signals and the unit therefore canonical by construction.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// Whom it is about.
    pub subject: Subject,
    /// What measured it.
    pub device: DeviceId,
    /// What it is; gives the LOINC or MDC code and the UCUM unit.
    pub signal: SignalId,
    /// The quantity or samples, in the signal's canonical unit.
    pub value: Value,
    /// Event time: when it was measured; of samples, the first one's.
    pub effective: Timestamp,
    /// When the edge received it.
    pub ingested: Timestamp,
    /// What is known against it.
    pub quality: Quality,
    /// Where the event time is from.
    pub clock: ClockEvidence,
}

/// What was measured.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Value {
    /// A number in the signal's unit; finite.
    Quantity(Quantity),
    /// A run of samples.
    Sampled(SampledData),
}

/// A finite number in the unit that the signal's definition names.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Quantity(f64);

impl Quantity {
    /// `None` for NaN and infinities: they are faults, not values.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Quantity {
    type Error = &'static str;
    fn try_from(value: f64) -> Result<Self, Self::Error> {
        Self::new(value).ok_or("a quantity is a finite number")
    }
}

impl From<Quantity> for f64 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

/// Evenly spaced samples, as FHIR `SampledData`: physical value = `origin` + `factor` × sample.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(try_from = "SampledDataParts")]
pub struct SampledData {
    rate: SampleRate,
    origin: f32,
    factor: f32,
    samples: Vec<i16>,
}

#[derive(Deserialize)]
struct SampledDataParts {
    rate: SampleRate,
    origin: f32,
    factor: f32,
    samples: Vec<i16>,
}

/// Why samples are not [`SampledData`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SampledDataError {
    /// No sample.
    #[error("a run of samples may not be empty")]
    Empty,
    /// Over [`MAX_SAMPLES`].
    #[error("a run has at most {MAX_SAMPLES} samples, this one has {0}")]
    TooMany(usize),
    /// Origin or factor is not finite, or the factor is zero.
    #[error("origin and factor must be finite and the factor not zero")]
    Scale,
}

impl SampledData {
    /// Samples at `rate`, each `origin + factor × sample` in the signal's unit.
    ///
    /// # Errors
    /// If there are none or too many, or the scale is no scale.
    pub fn new(
        rate: SampleRate,
        origin: f32,
        factor: f32,
        samples: Vec<i16>,
    ) -> Result<Self, SampledDataError> {
        if samples.is_empty() {
            return Err(SampledDataError::Empty);
        }
        if samples.len() > MAX_SAMPLES {
            return Err(SampledDataError::TooMany(samples.len()));
        }
        if !origin.is_finite() || !factor.is_finite() || factor == 0.0 {
            return Err(SampledDataError::Scale);
        }
        Ok(Self { rate, origin, factor, samples })
    }

    /// Sampling rate.
    pub const fn rate(&self) -> SampleRate {
        self.rate
    }

    /// The physical value of sample 0, in the signal's unit.
    pub const fn origin(&self) -> f32 {
        self.origin
    }

    /// Physical units per step.
    pub const fn factor(&self) -> f32 {
        self.factor
    }

    /// The raw samples.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }

    /// The samples in the signal's unit.
    pub fn physical(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        self.samples.iter().map(|sample| self.origin + self.factor * f32::from(*sample))
    }
}

impl TryFrom<SampledDataParts> for SampledData {
    type Error = SampledDataError;
    fn try_from(parts: SampledDataParts) -> Result<Self, SampledDataError> {
        Self::new(parts.rate, parts.origin, parts.factor, parts.samples)
    }
}

/// What is known against a reading. Empty is good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Quality(u8);

impl Quality {
    /// Nothing is known against it.
    pub const GOOD: Self = Self(0);
    /// The device's clock was ahead; event time was set back to ingest time.
    pub const CLOCK_CLAMPED: Self = Self(1);
    /// The device says that the sensor or lead is off.
    pub const SENSOR_OFF: Self = Self(1 << 1);
    /// The device says that the value is questionable.
    pub const QUESTIONABLE: Self = Self(1 << 2);
    /// Outside what the signal's definition calls plausible.
    pub const IMPLAUSIBLE: Self = Self(1 << 3);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the value may enter a feature: a clamped clock does not spoil a value, the rest does.
    pub const fn usable(self) -> bool {
        self.0 & !Self::CLOCK_CLAMPED.0 == 0
    }
}

impl fmt::Debug for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::CLOCK_CLAMPED, "clock-clamped"),
            (Self::SENSOR_OFF, "sensor-off"),
            (Self::QUESTIONABLE, "questionable"),
            (Self::IMPLAUSIBLE, "implausible"),
        ];
        f.debug_set().entries(names.iter().filter(|(bit, _)| self.has(*bit)).map(|n| n.1)).finish()
    }
}

/// Where an event time is from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ClockEvidence {
    /// The device wrote it.
    Device,
    /// The device has no clock; the edge took the ingest time.
    Ingest,
}

/// The first 16 bytes of SHA-256 over what a device said: everything of an [`Observation`] but when
/// and how well it arrived. Two deliveries of one reading have one fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Fingerprint(pub [u64; 2]);

impl Fingerprint {
    /// The 16 bytes.
    pub const fn to_bytes(self) -> [u8; 16] {
        (((self.0[0] as u128) << 64) | self.0[1] as u128).to_be_bytes()
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl Observation {
    /// This reading's [`Fingerprint`]: SHA-256 over subject, device (length and bytes), signal,
    /// event time and value, all little-endian.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(self.subject.to_bytes());
        hash.update([self.device.as_str().len() as u8]);
        hash.update(self.device.as_str());
        hash.update([self.signal.index()]);
        hash.update(self.effective.micros().to_le_bytes());
        match &self.value {
            Value::Quantity(quantity) => hash.update(quantity.get().to_le_bytes()),
            Value::Sampled(data) => {
                hash.update(data.rate.millihertz().to_le_bytes());
                hash.update(data.origin.to_le_bytes());
                hash.update(data.factor.to_le_bytes());
                for sample in &data.samples {
                    hash.update(sample.to_le_bytes());
                }
            }
        }
        let digest: [u8; 32] = hash.finalize().into();
        let half = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Fingerprint([half(0), half(8)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_no_quantity() {
        assert!(Quantity::new(f64::NAN).is_none());
        assert!(Quantity::new(f64::INFINITY).is_none());
    }

    #[test]
    fn samples_are_bounded_and_scaled() {
        let rate = SampleRate::from_hz(250).unwrap();
        assert_eq!(SampledData::new(rate, 0.0, 1.0, vec![]), Err(SampledDataError::Empty));
        assert_eq!(SampledData::new(rate, 0.0, 0.0, vec![1]), Err(SampledDataError::Scale));
        assert!(SampledData::new(rate, 0.0, 1.0, vec![0; MAX_SAMPLES + 1]).is_err());
        let data = SampledData::new(rate, 0.5, 0.25, vec![-2, 4]).unwrap();
        assert_eq!(data.physical().collect::<Vec<_>>(), [0.0, 1.5]);
    }
}
