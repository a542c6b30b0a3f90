//! From a message to a frame of observations.

use crate::path::Captures;
use crate::profile::{Decoder, Profile, Timing};
use crate::pseudonym::PseudonymKey;
use crate::reading::{Payload, RejectReason, Rejected};
use crate::unit::UnitCache;
use haar_schema::{ClockEvidence, DeviceId, Observation, Quality, Subject, Timestamp};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// The longest payload: a full run of samples as JSON, and change.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;
/// The longest topic or path.
pub const MAX_PATH_BYTES: usize = 512;
/// The longest patient identifier.
pub const MAX_PATIENT_BYTES: usize = 64;
/// The most profiles in one normalizer.
pub const MAX_PROFILES: usize = 256;

/// How a message came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connector {
    /// MQTT 3.1.1 or 5.
    Mqtt,
    /// CoAP (RFC 7252).
    Coap,
}

/// A message as it came.
#[derive(Clone, Copy)]
pub struct RawMessage<'a> {
    /// How it came.
    pub connector: Connector,
    /// MQTT topic, or CoAP path with or without the slash in front.
    pub path: &'a str,
    /// What came.
    pub payload: &'a [u8],
    /// Ingest time: when it came.
    pub received: Timestamp,
    /// The sender says that it may have sent this before (MQTT's DUP).
    pub redelivered: bool,
}

/// What a message said. Never empty.
#[derive(Clone, PartialEq)]
pub struct Frame {
    /// What measured.
    pub device: DeviceId,
    /// Whom it measured.
    pub subject: Subject,
    /// In the order of the profile; all have the same event time.
    pub observations: Vec<Observation>,
    /// The first 16 bytes of SHA-256 over the path's length as u32 little-endian, path and payload: the
    /// same for an exact redelivery. `None` where two equal messages may be two readings, that is
    /// when the device says neither time nor sequence; unless the message is
    /// [`RawMessage::redelivered`].
    pub frame_id: Option<[u8; 16]>,
    /// Name of the profile that read it.
    pub profile: Arc<str>,
    /// The profile's watermark policy.
    pub timing: Timing,
    /// Ingest time.
    pub received: Timestamp,
}

/// What is done with times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// An older reading is rejected; 30 days.
    pub max_age_ms: u64,
    /// A reading further ahead of ingest time is clamped; 5 s.
    pub skew_ms: u64,
}

/// Reads messages with a set of profiles.
pub struct Normalizer {
    profiles: Vec<Profile>,
    key: PseudonymKey,
    limits: Limits,
    units: UnitCache,
}

/// Why profiles do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NormalizerError {
    /// None at all.
    #[error("there is no profile; name at least one, or use the built-in ones")]
    NoProfile,
    /// Over [`MAX_PROFILES`].
    #[error("at most {MAX_PROFILES} profiles, these are {0}")]
    TooMany(usize),
    /// Two of one name.
    #[error("two profiles are named \"{0}\"; rename one")]
    SameName(String),
    /// One path for two.
    #[error("the profiles \"{0}\" and \"{1}\" match the same paths; make their paths different")]
    SamePath(String, String),
}

impl Connector {
    /// `mqtt` or `coap`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Coap => "coap",
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_age_ms: 30 * 24 * 3_600_000, skew_ms: 5_000 }
    }
}

impl Normalizer {
    /// With these profiles, of which at most one may match a message.
    ///
    /// # Errors
    /// If there are none or too many, or two do not go together.
    pub fn new(
        profiles: Vec<Profile>,
        key: PseudonymKey,
        limits: Limits,
    ) -> Result<Self, NormalizerError> {
        if profiles.is_empty() {
            return Err(NormalizerError::NoProfile);
        }
        if profiles.len() > MAX_PROFILES {
            return Err(NormalizerError::TooMany(profiles.len()));
        }
        for (at, one) in profiles.iter().enumerate() {
            for other in &profiles[at + 1..] {
                if one.name() == other.name() {
                    return Err(NormalizerError::SameName(one.name().to_owned()));
                }
                if one.connector() == other.connector() && one.path().overlaps(other.path()) {
                    let (one, other) = (one.name().to_owned(), other.name().to_owned());
                    return Err(NormalizerError::SamePath(one, other));
                }
            }
        }
        Ok(Self { profiles, key, limits, units: UnitCache::default() })
    }

    /// What an MQTT client must subscribe to; sorted, each once.
    pub fn topic_filters(&self) -> Vec<String> {
        let mqtt = self.profiles.iter().filter(|profile| profile.connector() == Connector::Mqtt);
        let mut filters: Vec<_> = mqtt.map(Profile::topic_filter).collect();
        filters.sort_unstable();
        filters.dedup();
        filters
    }

    /// Reads one message.
    ///
    /// # Errors
    /// [`Rejected`], for the quarantine.
    pub fn normalize(&self, message: &RawMessage<'_>) -> Result<Frame, Rejected> {
        check_size("the path", message.path.len(), MAX_PATH_BYTES)?;
        check_size("the payload", message.payload.len(), MAX_PAYLOAD_BYTES)?;
        let (profile, captures) = self.find(message)?;
        let device = captures.device.parse().map_err(|error: haar_schema::IdError| {
            Rejected::new(RejectReason::BadIdentifier, format!("the device's level: {error}"))
        })?;
        let subject = self.subject(captures.patient)?;
        let payload = match profile.decoder() {
            Decoder::Json(decoder) => decoder.decode(message.payload, &self.units)?,
            Decoder::Binary(decoder) => decoder.decode(message.payload)?,
        };
        if payload.readings.is_empty() {
            let detail = "the frame has none of the profile's observations";
            return Err(Rejected::new(RejectReason::NoObservation, detail));
        }
        let (effective, clock, time_quality) = self.event_time(&payload, message.received)?;
        let identified = payload.time.is_some() || payload.numbered || message.redelivered;
        let observations = payload.readings.into_iter().map(|reading| Observation {
            subject,
            device: DeviceId::clone(&device),
            signal: reading.signal,
            value: reading.value,
            effective,
            ingested: message.received,
            quality: reading.quality.with(time_quality),
            clock,
        });
        Ok(Frame {
            observations: observations.collect(),
            device,
            subject,
            frame_id: identified.then(|| frame_id(message.path, message.payload)),
            profile: profile.shared_name(),
            timing: profile.timing(),
            received: message.received,
        })
    }

    fn find<'a>(&self, message: &RawMessage<'a>) -> Result<(&Profile, Captures<'a>), Rejected> {
        let path = match message.connector {
            // In a topic a slash in front is a level of its own (MQTT 5, 4.7.1.1).
            Connector::Mqtt => message.path,
            Connector::Coap => message.path.strip_prefix('/').unwrap_or(message.path),
        };
        let mut of_connector =
            self.profiles.iter().filter(|profile| profile.connector() == message.connector);
        of_connector.find_map(|profile| Some((profile, profile.path().captures(path)?))).ok_or_else(
            || Rejected::new(RejectReason::NoProfile, "no profile matches the connector and path"),
        )
    }

    fn subject(&self, patient: &str) -> Result<Subject, Rejected> {
        let bad = |why| Err(Rejected::new(RejectReason::BadIdentifier, why));
        if patient.is_empty() {
            return bad("the patient's level is empty");
        }
        if patient.len() > MAX_PATIENT_BYTES {
            return bad("the patient's level is over 64 bytes");
        }
        if patient.chars().any(char::is_control) {
            return bad("the patient's level has control characters");
        }
        Ok(self.key.subject(patient))
    }

    fn event_time(
        &self,
        payload: &Payload,
        received: Timestamp,
    ) -> Result<(Timestamp, ClockEvidence, Quality), Rejected> {
        let Some(said) = payload.time else {
            return Ok((received, ClockEvidence::Ingest, Quality::GOOD));
        };
        if said > received.plus_micros(micros(self.limits.skew_ms)) {
            return Ok((received, ClockEvidence::Device, Quality::CLOCK_CLAMPED));
        }
        if said < received.plus_micros(-micros(self.limits.max_age_ms)) {
            let detail = "the reading is older than this edge accepts; check the device's clock";
            return Err(Rejected::new(RejectReason::TooOld, detail));
        }
        Ok((said, ClockEvidence::Device, Quality::GOOD))
    }
}

impl fmt::Debug for Normalizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Normalizer").field("profiles", &self.profiles).finish_non_exhaustive()
    }
}

/// Shows neither identifier nor value.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {} observations)", self.profile, self.observations.len())
    }
}

/// Shows neither identifier nor value.
impl fmt::Debug for RawMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawMessage({:?}, {} bytes)", self.connector, self.payload.len())
    }
}

fn check_size(what: &str, bytes: usize, limit: usize) -> Result<(), Rejected> {
    if bytes > limit {
        let detail = format!("{what} has more than {limit} bytes");
        return Err(Rejected::new(RejectReason::TooLarge, detail));
    }
    Ok(())
}

fn micros(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).map_or(i64::MAX, |ms| ms.saturating_mul(1_000))
}

fn frame_id(path: &str, payload: &[u8]) -> [u8; 16] {
    // Paths are at most MAX_PATH_BYTES.
    let digest: [u8; 32] = Sha256::new()
        .chain_update((path.len() as u32).to_le_bytes())
        .chain_update(path)
        .chain_update(payload)
        .finalize()
        .into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}
