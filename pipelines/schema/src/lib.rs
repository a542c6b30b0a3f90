//! The common schema of Haar: what a reading *is*, whatever device it came from.
//!
//! - [`Observation`]: one reading, as FHIR R4 means the word: a coded quantity or a run of samples,
//!   of one pseudonymous [`Subject`], measured by one device, with event time and ingest time.
//! - [`Entry`]: what an edge's spool holds, in sequence: observations, and the [`Mark`]s by which the
//!   edge says how far event time has come.
//! - [`WindowDigest`] and [`FlaggedEvent`]: what leaves the dataflow and is committed to the site log.
//!
//! Two encodings, each in one place. Readings are many and small: [`Entry::encode`] gives their
//! canonical bytes (postcard, one version byte in front). Records are few and are read by people and
//! by foreign tools: [`WindowDigest::to_json`] and [`FlaggedEvent::to_json`] give canonical JSON.
//!
//! Nothing here reads a clock or does I/O. Pseudonyms print redacted with `Debug`; use
//! [`Subject::to_hex`] where the pseudonym itself is wanted.
#![forbid(unsafe_code)]

mod entry;
mod event;
mod ids;
mod observation;
mod score;
mod signal;
mod time;

pub use entry::{DecodeError, ENTRY_VERSION, Entry, MAX_ENTRY_BYTES, Mark, MarkKind};
pub use event::{
    Beat, Condition, Evidence, Feature, Features, FlaggedEvent, InputsDigest, MAX_STRIP_SAMPLES,
    Missing, ModelRef, PipelineRef, Priority, Strip, WindowDigest, WindowId, WindowKey, quantise,
};
pub use ids::{DeviceId, EdgeId, IdError, MAX_ID_BYTES, Subject};
pub use observation::{
    ClockEvidence, Fingerprint, MAX_SAMPLES, Observation, Quality, Quantity, SampledData,
    SampledDataError, Value,
};
pub use score::{
    ATTRIBUTION_TOLERANCE, Attribution, Contribution, MAX_CONTRIBUTIONS, MAX_TIME_SHARES, OverTime,
    Scale, Score, features_digest,
};
pub use signal::{CodeSystem, Coding, SignalDefinition, SignalId, SignalKind, SignalSet};
pub use time::{SampleRate, Timestamp, TimestampError};
