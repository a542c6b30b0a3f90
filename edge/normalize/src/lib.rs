//! Device profiles: the bytes that a device sends become [`haar_schema::Observation`]s. No I/O, no
//! clock.
//!
//! A *profile* is a TOML file that maps one kind of device; nothing of a device is in code. The
//! built-in ones lie in `edge/normalize/profiles` ([`BUILT_IN`]); [`Profile`] explains every key.
//!
//! ```
//! use haar_normalize::{Connector, Limits, Normalizer, Profile, PseudonymKey, RawMessage};
//! use haar_schema::{SignalId, Timestamp, Value};
//!
//! let thermometer = r#"
//!     name = "ear-thermometer"
//!     connector = "mqtt"
//!     path = "ear/{device}/{patient}"
//!     [json]
//!     time = { pointer = "/t", format = "epoch_ms" }
//!     [[json.observations]]
//!     signal = "temperature"
//!     pointer = "/f"
//!     unit = "[degF]"
//! "#;
//! let profile = Profile::parse("ear-thermometer.toml", thermometer)?;
//! let key = PseudonymKey::new(vec![7; 32])?;
//! let normalizer = Normalizer::new(vec![profile], key, Limits::default())?;
//! let frame = normalizer.normalize(&RawMessage {
//!     connector: Connector::Mqtt,
//!     path: "ear/thermometer-4/patient-17",
//!     payload: br#"{"t": 1000, "f": 98.6}"#,
//!     received: Timestamp::from_millis(1_500),
//!     redelivered: false,
//! })?;
//! let temperature = &frame.observations[0];
//! assert_eq!(temperature.signal, SignalId::TEMPERATURE);
//! let Value::Quantity(celsius) = &temperature.value else { unreachable!() };
//! assert!((celsius.get() - 37.0).abs() < 1e-9);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What becomes of a bad frame
//! A frame is taken whole or rejected whole, with a [`RejectReason`] for the counter and a detail
//! for the quarantine. Rejected: what cannot be read, has a wrong unit, no finite number, a bad time or
//! checksum. *Not* rejected: a value outside the signal's plausible interval is kept and flagged
//! [`haar_schema::Quality::IMPLAUSIBLE`], because a device fault is itself something to know. A field that a
//! profile does not call required may be missing or `null`.
//!
//! # Samples
//! `i16::MIN` in [`haar_schema::SampledData`] means *no sample*; the fog treats it as a gap. A run of
//! nothing else is flagged [`haar_schema::Quality::SENSOR_OFF`].
//!
//! # Time
//! Event time is the device's where it says one, else ingest time. A time more than
//! [`Limits::skew_ms`] ahead of ingest time is set back to it, flagged
//! [`haar_schema::Quality::CLOCK_CLAMPED`], and never moves a mark. One older than [`Limits::max_age_ms`] is
//! rejected. [`Watermarks`] writes down how far event time has come.
//!
//! # Limits
//! [`MAX_PAYLOAD_BYTES`], [`MAX_PATH_BYTES`], [`MAX_PATIENT_BYTES`], [`MAX_UNIT_BYTES`],
//! [`haar_schema::MAX_SAMPLES`], [`MAX_PROFILES`], [`MAX_PROFILE_BYTES`], [`DEFAULT_MAX_PAIRS`].
//!
//! # Trust
//! Payload and path are a stranger's: any bytes give a frame or a rejection. Profiles are the
//! operator's. That a device may speak for a patient is for the connector to decide, not decided here.
//! No error or `Debug` shows an identifier or a value.
#![forbid(unsafe_code)]

mod binary;
mod json;
mod layout;
mod normalizer;
mod path;
mod profile;
mod pseudonym;
mod reading;
mod unit;
mod watermarks;

pub use normalizer::{
    Connector, Frame, Limits, MAX_PATH_BYTES, MAX_PATIENT_BYTES, MAX_PAYLOAD_BYTES, MAX_PROFILES,
    Normalizer, NormalizerError, RawMessage,
};
pub use profile::{BUILT_IN, MAX_PROFILE_BYTES, Profile, ProfileError, ProfileProblem, Timing};
pub use pseudonym::{MIN_KEY_BYTES, PseudonymKey, PseudonymKeyError};
pub use reading::{RejectReason, Rejected};
pub use unit::MAX_UNIT_BYTES;
pub use watermarks::{DEFAULT_MAX_PAIRS, GONE_AFTER_MS, Watermarks, mark_key};
