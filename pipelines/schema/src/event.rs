//! What leaves the dataflow and is committed: window digests and flagged events.
//!
//! # Format
//! Canonical JSON (RFC 8259): fields in the order declared here, maps sorted by key, no white space,
//! numbers in their shortest form after [`quantise`]. A record is bytes once it is committed: whoever
//! checks a proof hashes the bytes as given and never re-encodes.
//!
//! # Determinism
//! No wall clock, no random, no address. Equal inputs give equal bytes, on every processor, as long as
//! features agree to the quantum.

use crate::{EdgeId, Fingerprint, SampleRate, Score, SignalId, Subject, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// The most samples in one [`Strip`].
pub const MAX_STRIP_SAMPLES: usize = 16_384;

/// Rounds a result to six decimal places (and −0 to 0), so that the last bit of a sum, which may
/// differ between processors, is not in a digest.
pub fn quantise(value: f64) -> f64 {
    let rounded = (value * 1e6).round() / 1e6;
    // Beyond 2^53 / 1e6 there are no such decimals left to round to.
    if rounded.is_finite() { rounded + 0.0 } else { value }
}

/// Names a pipeline definition by its content.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PipelineRef {
    /// The definition's `id`, such as `ward-vitals`.
    pub id: String,
    /// The definition's `version`.
    pub version: u32,
    /// SHA-256 of the definition's text, in hexadecimal.
    pub sha256: String,
}

/// Names a model by its content.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ModelRef {
    /// The manifest's `id`, such as `ecg-beats`.
    pub id: String,
    /// SHA-256 of the manifest, which itself holds the hash of the weights, in hexadecimal.
    pub sha256: String,
}

/// What a window is *of*. Its id is made from this and nothing else, so that a replay finds it again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WindowKey {
    /// The edge whose lane fed it.
    pub edge: EdgeId,
    /// Whom it is about.
    pub subject: Subject,
    /// The pipeline's id (not its version: a new version's window corrects the old one's).
    pub pipeline: String,
    /// First microsecond in the window.
    pub start_us: Timestamp,
    /// First microsecond behind it.
    pub end_us: Timestamp,
}

/// SHA-256 over a [`WindowKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId([u8; 32]);

impl WindowKey {
    /// The window's id: SHA-256 over the domain `haar-window-v1`, edge and pipeline (each with its
    /// length as u32), subject, start and end (as i64), all little-endian.
    pub fn id(&self) -> WindowId {
        let mut hash = Sha256::new();
        hash.update(b"haar-window-v1");
        for text in [self.edge.as_str(), &self.pipeline] {
            hash.update((text.len() as u32).to_le_bytes());
            hash.update(text);
        }
        hash.update(self.subject.to_bytes());
        hash.update(self.start_us.micros().to_le_bytes());
        hash.update(self.end_us.micros().to_le_bytes());
        WindowId(hash.finalize().into())
    }
}

impl WindowId {
    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for WindowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WindowId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for WindowId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// Why a feature has no value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Missing {
    /// No reading of the signal in the window.
    NoData,
    /// Readings, but too few for this feature.
    TooFew,
    /// Readings, but of too poor a quality.
    PoorQuality,
    /// Computed from inputs of which one is missing.
    Incomplete,
}

/// A feature's value, or why there is none. Never a zero that means "unknown".
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Feature {
    /// The value, in the unit that the pipeline's documentation gives for the feature.
    Value(f64),
    /// None, and why.
    Missing {
        /// Why.
        missing: Missing,
    },
}

impl Feature {
    /// A value, quantised; one that is not finite counts as [`Missing::TooFew`].
    pub fn value(value: f64) -> Self {
        if value.is_finite() {
            Self::Value(quantise(value))
        } else {
            Self::missing(Missing::TooFew)
        }
    }

    /// No value, for this reason.
    pub const fn missing(missing: Missing) -> Self {
        Self::Missing { missing }
    }

    /// The value, if there is one.
    pub const fn get(self) -> Option<f64> {
        match self {
            Self::Value(value) => Some(value),
            Self::Missing { .. } => None,
        }
    }
}

/// Features by dotted name, such as `heart_rate.mean`.
pub type Features = BTreeMap<String, Feature>;

/// What went into a window.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InputsDigest {
    /// How many observations.
    pub observations: u64,
    /// SHA-256 over the window's panes in order, each the SHA-256 of its sorted observation
    /// fingerprints; hexadecimal.
    pub sha256: String,
}

impl InputsDigest {
    /// The digest of one pane: SHA-256 over its sorted fingerprints.
    pub fn of_pane(sorted: &[Fingerprint]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for fingerprint in sorted {
            hash.update(fingerprint.to_bytes());
        }
        hash.finalize().into()
    }

    /// The digest of a window from those of its panes, each with its signal, in order.
    pub fn of_window(observations: u64, panes: impl Iterator<Item = (SignalId, [u8; 32])>) -> Self {
        let mut hash = Sha256::new();
        for (signal, pane) in panes {
            hash.update([signal.index()]);
            hash.update(pane);
        }
        Self { observations, sha256: hex::encode(hash.finalize()) }
    }
}

/// The result of one window, committed for every window whether or not it was flagged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct WindowDigest {
    /// The key's id.
    pub id: WindowId,
    /// 0 for the first result; each correction by late readings counts one up.
    pub revision: u32,
    /// What the window is of.
    pub key: WindowKey,
    /// What computed it.
    pub pipeline: PipelineRef,
    /// What went in.
    pub inputs: InputsDigest,
    /// The model that scored it, if one did.
    pub model: Option<ModelRef>,
    /// What came out.
    pub features: Features,
    /// Names of the flags it raised.
    pub flags: Vec<String>,
}

/// How soon somebody must act, after IEC 60601-1-8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// For information.
    Information,
    /// Awareness is required.
    Low,
    /// Prompt response is required.
    Medium,
    /// Immediate response is required.
    High,
}

impl Priority {
    /// Its lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// One input of a flag's rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Evidence {
    /// The feature's name.
    pub feature: String,
    /// Its value in the window.
    pub value: Feature,
}

/// A beat that was detected in a strip.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Beat {
    /// Index of its R peak (or pulse foot) in the strip.
    pub sample: u32,
    /// AAMI class letter, `N`, `S`, `V`, `F` or `Q`, if a model classified it.
    pub class: Option<char>,
}

/// The stretch of waveform that shows why.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Strip {
    /// What it is of.
    pub signal: SignalId,
    /// Time of the first sample.
    pub start_us: Timestamp,
    /// Sampling rate.
    pub rate_millihertz: SampleRate,
    /// Physical units per step; the origin is zero.
    pub factor: f32,
    /// The samples, at most [`MAX_STRIP_SAMPLES`]; `None` where nothing was received.
    pub samples: Vec<Option<i16>>,
    /// Beats in it.
    pub beats: Vec<Beat>,
}

/// What a flagged window is probably about. It sorts; it raises and withholds nothing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// The group: `rhythm`, `respiratory`, `infection`, `metabolic`, `haemodynamic` or `device`.
    pub group: String,
    /// Its probability by the model, in per mille.
    pub per_mille: u16,
    /// The model that says so.
    pub model: ModelRef,
}

/// A window in which a rule of its pipeline held.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlaggedEvent {
    /// The window it was raised on.
    pub window: WindowId,
    /// That window's revision.
    pub revision: u32,
    /// What the window is of.
    pub key: WindowKey,
    /// The flag's name, such as `news2-high`.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// For a person: what it means.
    pub text: String,
    /// The rule as written in the pipeline definition.
    pub rule: String,
    /// The features the rule read.
    pub evidence: Vec<Evidence>,
    /// The model whose scores the rule read, if it did.
    pub model: Option<ModelRef>,
    /// What the window is probably about, so that flags can be sorted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// What models said of the window, and why: the one whose word the flag is, and the one that sorts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Score>,
    /// The waveform behind it, if the pipeline has one.
    pub strip: Option<Strip>,
}

macro_rules! json {
    ($($record:ty),*) => {$(
        impl $record {
            /// The canonical JSON.
            pub fn to_json(&self) -> Vec<u8> {
                // These types have string keys and finite numbers only: no failure is possible.
                serde_json::to_vec(self).unwrap_or_default()
            }

            /// Reads the JSON of such a record.
            ///
            /// # Errors
            /// If it is not one.
            pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
                serde_json::from_slice(bytes)
            }
        }
    )*};
}

json!(WindowDigest, FlaggedEvent);

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> WindowKey {
        WindowKey {
            edge: "edge-1".parse().unwrap(),
            subject: Subject::from_bytes([1; 16]),
            pipeline: "ward-vitals".into(),
            start_us: Timestamp::from_millis(0),
            end_us: Timestamp::from_millis(60_000),
        }
    }

    #[test]
    fn a_digest_is_canonical_json() {
        let digest = WindowDigest {
            id: key().id(),
            revision: 0,
            key: key(),
            pipeline: PipelineRef { id: "ward-vitals".into(), version: 1, sha256: "ab".into() },
            inputs: InputsDigest::of_window(0, std::iter::empty()),
            model: None,
            features: Features::from([
                ("news2.score".into(), Feature::missing(Missing::Incomplete)),
                ("heart_rate.mean".into(), Feature::value(72.123_456_789)),
            ]),
            flags: vec![],
        };
        let json = digest.to_json();
        expect_test::expect![[r#"{"id":"43ae20cbef821aa0d891570cb8bb087f86771e1030335c45cc9f1cf677994227","revision":0,"key":{"edge":"edge-1","subject":"01010101010101010101010101010101","pipeline":"ward-vitals","start_us":0,"end_us":60000000},"pipeline":{"id":"ward-vitals","version":1,"sha256":"ab"},"inputs":{"observations":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"model":null,"features":{"heart_rate.mean":72.123457,"news2.score":{"missing":"incomplete"}},"flags":[]}"#]]
            .assert_eq(&String::from_utf8(json.clone()).unwrap());
        assert_eq!(WindowDigest::from_json(&json).unwrap(), digest);
    }

    #[test]
    fn the_id_depends_on_every_part_of_the_key() {
        let base = key().id();
        let variants = [
            WindowKey { edge: "edge-2".parse().unwrap(), ..key() },
            WindowKey { subject: Subject::from_bytes([2; 16]), ..key() },
            WindowKey { pipeline: "ward-vital".into(), ..key() },
            WindowKey { start_us: Timestamp::from_millis(1), ..key() },
            WindowKey { end_us: Timestamp::from_millis(1), ..key() },
        ];
        for variant in variants {
            assert_ne!(variant.id(), base);
        }
    }

    #[test]
    fn quantising_is_idempotent_and_has_no_negative_zero() {
        for value in [0.0, -0.0, 1.0 / 3.0, -2.0e-7, 1e300, 72.123_456_5] {
            let once = quantise(value);
            assert_eq!(once.to_bits(), quantise(once).to_bits());
        }
        assert!(quantise(-1e-9).is_sign_positive());
        assert_eq!(Feature::value(f64::NAN), Feature::missing(Missing::TooFew));
    }
}
