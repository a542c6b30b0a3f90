//! What an edge's spool holds, and its canonical bytes.
//!
//! # Format
//! One byte [`ENTRY_VERSION`], then postcard (<https://postcard.jamesmunns.com/wire-format>) of
//! [`Entry`]. The same bytes lie in the spool and travel in a batch. At most [`MAX_ENTRY_BYTES`].
//!
//! # Trust
//! The bytes come from another machine: decoding checks every bound and leaves no partial value.

use crate::{DeviceId, Observation, SignalSet, Subject, Timestamp};
use serde::{Deserialize, Serialize};

/// First byte of every entry.
pub const ENTRY_VERSION: u8 = 1;

/// The longest encoded entry: the largest run of samples at three bytes each, and change.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;

/// One entry of a spool. An edge's entries in sequence are its *lane*; everything that the fog
/// computes is a function of the lane.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Entry {
    /// A reading.
    Observation(Observation),
    /// How far event time has come for one device on one subject.
    Mark(Mark),
    /// Readings that stood here were shed by the configured policy; keeps the sequence whole.
    Shed,
}

/// A watermark, written by the edge between the readings so that a replay sees it at the same place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The device that it speaks for.
    pub device: DeviceId,
    /// The subject that the device is on. A device that moves is marked [`MarkKind::Idle`] there.
    pub subject: Subject,
    /// The signals that the device has sent for this subject so far.
    pub signals: SignalSet,
    /// What is promised.
    pub kind: MarkKind,
}

/// What a [`Mark`] promises. Times never go back for one device and subject.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MarkKind {
    /// Readings before this time are late from here on.
    Progress(Timestamp),
    /// Nothing has come for the idle timeout: no window need wait for this device. The time is the
    /// latest event time seen.
    Idle(Timestamp),
    /// The edge forgets this pair; so may everybody.
    Gone,
}

/// Why bytes are not an [`Entry`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Over [`MAX_ENTRY_BYTES`].
    #[error("an entry has at most {MAX_ENTRY_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Another version's, or no entry at all.
    #[error("entry version {0:?} is unknown here; this build reads version {ENTRY_VERSION}")]
    Version(Option<u8>),
    /// Not the encoding of an entry.
    #[error("malformed entry: {0}")]
    Malformed(#[from] postcard::Error),
    /// Bytes behind the entry.
    #[error("{0} bytes too many behind the entry")]
    Trailing(usize),
}

impl Entry {
    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising these types into a growing vector has no failure: no maps of unknown length,
        // no errors of our own in `Serialize`.
        postcard::to_extend(self, vec![ENTRY_VERSION]).unwrap_or_default()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// If they are not exactly one entry within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(DecodeError::TooLong(bytes.len()));
        }
        match bytes.split_first() {
            Some((&ENTRY_VERSION, rest)) => {
                let (entry, trailing) = postcard::take_from_bytes(rest)?;
                if trailing.is_empty() {
                    Ok(entry)
                } else {
                    Err(DecodeError::Trailing(trailing.len()))
                }
            }
            other => Err(DecodeError::Version(other.map(|(version, _)| *version))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ClockEvidence, MAX_SAMPLES, Quality, Quantity, SampleRate, SampledData, SignalId, Value,
    };
    use proptest::prelude::*;

    fn observation(value: Value) -> Observation {
        Observation {
            subject: Subject::from_bytes([7; 16]),
            device: "monitor-1".parse().unwrap(),
            signal: SignalId::HEART_RATE,
            value,
            effective: Timestamp::from_millis(1_000),
            ingested: Timestamp::from_millis(1_100),
            quality: Quality::GOOD,
            clock: ClockEvidence::Device,
        }
    }

    #[test]
    fn the_largest_run_of_samples_fits() {
        let rate = SampleRate::from_hz(250).unwrap();
        let data = SampledData::new(rate, 0.0, 1.0, vec![i16::MIN; MAX_SAMPLES]).unwrap();
        let entry = Entry::Observation(observation(Value::Sampled(data)));
        let bytes = entry.encode();
        assert!(bytes.len() <= MAX_ENTRY_BYTES);
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
    }

    #[test]
    fn bytes_are_canonical_and_versioned() {
        let entry = Entry::Observation(observation(Value::Quantity(Quantity::new(72.0).unwrap())));
        expect_test::expect!["010007070707070707070707070707070707096d6f6e69746f722d310000000000000000524080897ac0a386010000"]
        .assert_eq(&hex::encode(entry.encode()).replace(' ', ""));
        assert!(matches!(Entry::decode(&[2, 0]), Err(DecodeError::Version(Some(2)))));
        assert!(matches!(Entry::decode(&[]), Err(DecodeError::Version(None))));
        let mut longer = entry.encode();
        longer.push(0);
        assert!(matches!(Entry::decode(&longer), Err(DecodeError::Trailing(1))));
    }

    #[test]
    fn arrival_is_not_in_the_fingerprint() {
        let first = observation(Value::Quantity(Quantity::new(72.0).unwrap()));
        let mut again = first.clone();
        again.ingested = again.ingested.plus_micros(5_000_000);
        assert_eq!(first.fingerprint(), again.fingerprint());
        again.effective = again.effective.plus_micros(1);
        assert_ne!(first.fingerprint(), again.fingerprint());
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let mut framed = vec![ENTRY_VERSION];
            framed.extend(bytes);
            if let Ok(entry) = Entry::decode(&framed) {
                // What decodes, encodes to something that decodes to the same.
                prop_assert_eq!(Entry::decode(&entry.encode()).unwrap(), entry);
            }
        }
    }
}
