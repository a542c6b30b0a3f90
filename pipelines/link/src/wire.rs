//! The generated messages, and the only place where they become domain types and back.

use crate::signing::SIGNATURE_BYTES;
use crate::{
    Ack, Batch, Hello, MAX_ADVICE_BYTES, MAX_BASE_MARKS, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES,
    MAX_CREDIT, MAX_TRACEPARENT_BYTES, PROTOCOL_VERSION, Refusal, RefusalReason, Welcome,
};
use haar_identity::VerifierKey;
use haar_schema::{Entry, MAX_ENTRY_BYTES, Mark};
use std::sync::Arc;

#[allow(missing_docs, clippy::pedantic)]
mod generated {
    tonic::include_proto!("haar.uplink.v1");
}

pub(crate) use generated::uplink_client::UplinkClient;
pub(crate) use generated::uplink_server::{Uplink, UplinkServer};
pub(crate) use generated::{EdgeMessage, FogMessage};
use generated::{edge_message, fog_message};

/// What an edge says.
pub(crate) enum FromEdge {
    Hello(Hello),
    Batch(Unchecked),
}

/// A batch whose signature is not checked yet: it names no key until then.
pub(crate) struct Unchecked {
    pub(crate) batch: Batch,
    pub(crate) signature: Option<Signature>,
}

/// Whose signature a batch is said to bear.
pub(crate) struct Signature {
    pub(crate) key: Arc<VerifierKey>,
    pub(crate) bytes: [u8; SIGNATURE_BYTES],
}

/// What the fog says.
pub(crate) enum FromFog {
    Welcome(Welcome),
    Refused(Refusal),
    Ack(Ack),
}

pub(crate) fn encode_hello(hello: Hello) -> EdgeMessage {
    let base_marks =
        hello.base_marks.into_iter().map(|mark| Entry::Mark(mark).encode().into()).collect();
    let hello = generated::Hello {
        protocol_version: PROTOCOL_VERSION,
        edge_id: hello.edge.as_str().to_owned(),
        incarnation: hello.incarnation.to_vec().into(),
        oldest_seq: hello.oldest_seq,
        next_seq: hello.next_seq,
        base_marks,
    };
    EdgeMessage { kind: Some(edge_message::Kind::Hello(hello)) }
}

pub(crate) fn encode_batch(batch: Batch, signature: Option<[u8; SIGNATURE_BYTES]>) -> EdgeMessage {
    let batch = generated::Batch {
        first_seq: batch.first_seq,
        entries: batch.entries,
        traceparent: batch.traceparent.unwrap_or_default(),
        key: batch.key.map(|key| key.to_string()).unwrap_or_default(),
        signature: signature.map(|bytes| bytes.to_vec().into()).unwrap_or_default(),
    };
    EdgeMessage { kind: Some(edge_message::Kind::Batch(batch)) }
}

pub(crate) fn encode_welcome(welcome: Welcome) -> FogMessage {
    let Welcome { resume_from, credit } = welcome;
    let welcome = generated::Welcome { resume_from, credit };
    FogMessage { kind: Some(fog_message::Kind::Welcome(welcome)) }
}

pub(crate) fn encode_ack(ack: Ack) -> FogMessage {
    let Ack { durable_through, keep_from, credit } = ack;
    let ack = generated::Ack { durable_through, keep_from, credit };
    FogMessage { kind: Some(fog_message::Kind::Ack(ack)) }
}

pub(crate) fn encode_refusal(refusal: Refusal) -> FogMessage {
    let Refusal { reason, mut advice } = refusal;
    advice.truncate(advice.floor_char_boundary(MAX_ADVICE_BYTES));
    let refused = generated::Refused { reason: reason_number(reason).into(), advice };
    FogMessage { kind: Some(fog_message::Kind::Refused(refused)) }
}

/// Reads a message of an edge; the refusal is what to answer.
pub(crate) fn decode_edge(message: EdgeMessage) -> Result<FromEdge, Refusal> {
    match message.kind {
        Some(edge_message::Kind::Hello(hello)) => decode_hello(hello).map(FromEdge::Hello),
        Some(edge_message::Kind::Batch(batch)) => decode_batch(batch).map(FromEdge::Batch),
        None => Err(malformed("a message is a Hello or a Batch; update the edge")),
    }
}

/// Reads a message of the fog; `None` if it is none of this protocol.
pub(crate) fn decode_fog(message: FogMessage) -> Option<FromFog> {
    Some(match message.kind? {
        fog_message::Kind::Welcome(generated::Welcome { resume_from, credit }) => {
            FromFog::Welcome(Welcome { resume_from, credit: credit.min(MAX_CREDIT) })
        }
        fog_message::Kind::Ack(generated::Ack { durable_through, keep_from, credit }) => {
            FromFog::Ack(Ack { durable_through, keep_from, credit: credit.min(MAX_CREDIT) })
        }
        fog_message::Kind::Refused(refused) => {
            let reason = match refused.reason() {
                generated::Reason::Unspecified => return None,
                generated::Reason::ProtocolVersion => RefusalReason::ProtocolVersion,
                generated::Reason::Identity => RefusalReason::Identity,
                generated::Reason::UnknownEdge => RefusalReason::UnknownEdge,
                generated::Reason::Incarnation => RefusalReason::Incarnation,
                generated::Reason::Gap => RefusalReason::Gap,
                generated::Reason::Credit => RefusalReason::Credit,
                generated::Reason::Limits => RefusalReason::Limits,
                generated::Reason::Malformed => RefusalReason::Malformed,
                generated::Reason::NotReady => RefusalReason::NotReady,
                generated::Reason::Replaced => RefusalReason::Replaced,
                generated::Reason::Stopping => RefusalReason::Stopping,
                generated::Reason::Key => RefusalReason::Key,
            };
            let mut advice = refused.advice;
            advice.truncate(advice.floor_char_boundary(MAX_ADVICE_BYTES));
            FromFog::Refused(Refusal { reason, advice })
        }
    })
}

fn decode_hello(hello: generated::Hello) -> Result<Hello, Refusal> {
    if hello.protocol_version != PROTOCOL_VERSION {
        let advice = format!(
            "the edge speaks version {}, this fog {PROTOCOL_VERSION}; update the older one",
            hello.protocol_version
        );
        return Err(Refusal::new(RefusalReason::ProtocolVersion, advice));
    }
    let edge = hello.edge_id.parse().map_err(|error| malformed(format!("edge_id: {error}")))?;
    let incarnation: [u8; 16] = hello
        .incarnation
        .as_ref()
        .try_into()
        .map_err(|_| malformed("an incarnation has 16 bytes"))?;
    if hello.oldest_seq == 0 || hello.oldest_seq > hello.next_seq {
        return Err(malformed("sequences begin with 1, and oldest_seq is not behind next_seq"));
    }
    if hello.base_marks.len() > MAX_BASE_MARKS {
        let advice = format!("a Hello has at most {MAX_BASE_MARKS} base marks; split the edge");
        return Err(Refusal::new(RefusalReason::Limits, advice));
    }
    let base_marks =
        hello.base_marks.iter().map(|bytes| decode_mark(bytes)).collect::<Result<_, _>>()?;
    Ok(Hello {
        edge,
        incarnation,
        oldest_seq: hello.oldest_seq,
        next_seq: hello.next_seq,
        base_marks,
    })
}

fn decode_mark(bytes: &[u8]) -> Result<Mark, Refusal> {
    match Entry::decode(bytes) {
        Ok(Entry::Mark(mark)) => Ok(mark),
        Ok(_) => Err(malformed("a base mark is something other than a mark")),
        Err(error) => Err(malformed(format!("a base mark: {error}"))),
    }
}

fn decode_batch(batch: generated::Batch) -> Result<Unchecked, Refusal> {
    let limits = |advice: String| Err(Refusal::new(RefusalReason::Limits, advice));
    if batch.entries.is_empty() || batch.entries.len() > MAX_BATCH_ENTRIES {
        return limits(format!("a batch has 1 to {MAX_BATCH_ENTRIES} entries"));
    }
    if batch.entries.iter().any(|entry| entry.len() > MAX_ENTRY_BYTES) {
        return limits(format!("an entry has at most {MAX_ENTRY_BYTES} bytes"));
    }
    if batch.traceparent.len() > MAX_TRACEPARENT_BYTES {
        return limits(format!("a traceparent has at most {MAX_TRACEPARENT_BYTES} bytes"));
    }
    let traceparent = Some(batch.traceparent).filter(|text| !text.is_empty());
    let signature = decode_signature(&batch.key, &batch.signature)?;
    let batch =
        Batch { first_seq: batch.first_seq, entries: batch.entries, traceparent, key: None };
    if batch.bytes() > MAX_BATCH_BYTES {
        return limits(format!("a batch has at most {MAX_BATCH_BYTES} bytes of entries"));
    }
    Ok(Unchecked { batch, signature })
}

/// Key and signature; `None` if there is neither.
fn decode_signature(key: &str, bytes: &[u8]) -> Result<Option<Signature>, Refusal> {
    if key.is_empty() && bytes.is_empty() {
        return Ok(None);
    }
    let key = key.parse().map_err(|error| malformed(format!("a batch's key: {error}")))?;
    let bytes = bytes
        .try_into()
        .map_err(|_| malformed(format!("a signature has {SIGNATURE_BYTES} bytes")))?;
    Ok(Some(Signature { key: Arc::new(key), bytes }))
}

fn malformed(advice: impl Into<String>) -> Refusal {
    Refusal::new(RefusalReason::Malformed, advice)
}

fn reason_number(reason: RefusalReason) -> generated::Reason {
    match reason {
        RefusalReason::ProtocolVersion => generated::Reason::ProtocolVersion,
        RefusalReason::Identity => generated::Reason::Identity,
        RefusalReason::UnknownEdge => generated::Reason::UnknownEdge,
        RefusalReason::Incarnation => generated::Reason::Incarnation,
        RefusalReason::Gap => generated::Reason::Gap,
        RefusalReason::Credit => generated::Reason::Credit,
        RefusalReason::Limits => generated::Reason::Limits,
        RefusalReason::Malformed => generated::Reason::Malformed,
        RefusalReason::NotReady => generated::Reason::NotReady,
        RefusalReason::Replaced => generated::Reason::Replaced,
        RefusalReason::Stopping => generated::Reason::Stopping,
        RefusalReason::Key => generated::Reason::Key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::{MarkKind, SignalSet, Subject, Timestamp};
    use proptest::prelude::*;
    use prost::Message;

    fn hello() -> Hello {
        Hello {
            edge: "edge-1".parse().unwrap(),
            incarnation: [7; 16],
            oldest_seq: 3,
            next_seq: 9,
            base_marks: vec![Mark {
                device: "monitor-1".parse().unwrap(),
                subject: Subject::from_bytes([1; 16]),
                signals: SignalSet::EMPTY,
                kind: MarkKind::Progress(Timestamp::from_millis(5)),
            }],
        }
    }

    #[test]
    fn a_hello_comes_back_as_it_was() {
        let Ok(FromEdge::Hello(back)) = decode_edge(encode_hello(hello())) else { panic!() };
        assert_eq!(back, hello());
    }

    #[test]
    fn every_reason_and_its_advice_come_back() {
        for number in 1..=12 {
            let reason = generated::Reason::try_from(number).unwrap();
            let message = FogMessage {
                kind: Some(fog_message::Kind::Refused(generated::Refused {
                    reason: reason.into(),
                    advice: "do this".into(),
                })),
            };
            let Some(FromFog::Refused(refusal)) = decode_fog(message.clone()) else { panic!() };
            assert_eq!(encode_refusal(refusal), message);
        }
    }

    #[test]
    fn limits_of_a_batch_hold_and_the_largest_fits_into_a_message() {
        let batch = |entries: Vec<bytes::Bytes>| Batch {
            first_seq: 1,
            entries,
            traceparent: None,
            key: None,
        };
        let reason = |batch| decode_edge(encode_batch(batch, None)).map(|_| ()).unwrap_err().reason;
        assert_eq!(reason(batch(vec![])), RefusalReason::Limits);
        assert_eq!(reason(batch(vec![vec![0].into(); 4097])), RefusalReason::Limits);
        assert_eq!(reason(batch(vec![vec![0; 65 * 1024].into()])), RefusalReason::Limits);
        assert_eq!(reason(batch(vec![vec![0; 1024].into(); 2049])), RefusalReason::Limits);
        let mut largest = batch(vec![vec![0; 512].into(); MAX_BATCH_ENTRIES]);
        let name = "n".repeat(haar_identity::MAX_ORIGIN_BYTES);
        let key = haar_identity::Identity::generate(&name, [1; 32]).unwrap();
        largest.key = Some(Arc::new(key.vkey().clone()));
        let largest = encode_batch(largest, Some([0; SIGNATURE_BYTES]));
        assert!(largest.encoded_len() <= crate::MAX_MESSAGE_BYTES);
        assert!(decode_edge(largest).is_ok());
    }

    #[test]
    fn a_key_comes_with_its_signature_or_not_at_all() {
        let key = haar_identity::Identity::generate("site.example/edge-1", [3; 32]).unwrap();
        let entries = vec![vec![0].into()];
        let batch = Batch { first_seq: 1, entries, traceparent: None, key: None };
        let named = Batch { key: Some(Arc::new(key.vkey().clone())), ..batch.clone() };
        let signature = Some([7; SIGNATURE_BYTES]);
        let Ok(FromEdge::Batch(read)) = decode_edge(encode_batch(named.clone(), signature)) else {
            panic!()
        };
        // It names no key before somebody has looked at the signature.
        assert_eq!(read.batch, batch);
        assert_eq!(*read.signature.unwrap().key, *key.vkey());
        for half in [encode_batch(named, None), encode_batch(batch, signature)] {
            assert_eq!(decode_edge(half).map(|_| ()).unwrap_err().reason, RefusalReason::Malformed);
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = EdgeMessage::decode(bytes.as_slice()) {
                let _ = decode_edge(message);
            }
            if let Ok(message) = FogMessage::decode(bytes.as_slice()) {
                let _ = decode_fog(message);
            }
        }
    }
}
