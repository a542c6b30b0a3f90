//! What the two sides say to each other, as types that cannot be wrong.

use bytes::Bytes;
use haar_identity::VerifierKey;
use haar_schema::{EdgeId, Mark};
use std::fmt;
use std::sync::Arc;

/// One accepted connection of an edge. Later connections to the same server have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub(crate) u64);

impl SessionId {
    /// The number; meaningful only beside others of the same process.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How an edge introduces itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello {
    /// Who it is; equal to the name in its certificate.
    pub edge: EdgeId,
    /// Drawn when its spool was made. Another one means another lane: sequences begin anew.
    pub incarnation: [u8; 16],
    /// The first sequence that it still holds; from 1.
    pub oldest_seq: u64,
    /// The sequence that its next entry will have; equal to `oldest_seq` if it holds none.
    pub next_seq: u64,
    /// The marks in force just before `oldest_seq`, one per device and subject. At most
    /// [`crate::MAX_BASE_MARKS`].
    pub base_marks: Vec<Mark>,
}

/// The fog's answer to a Hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The first sequence that it wants, within the Hello's oldest..=next.
    pub resume_from: u64,
    /// How many entries may be sent before the first ack. At most [`crate::MAX_CREDIT`].
    pub credit: u32,
}

/// A run of entries in sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// The sequence of the first entry.
    pub first_seq: u64,
    /// Encoded entries ([`haar_schema::Entry::encode`]), not yet decoded: 1 to
    /// [`crate::MAX_BATCH_ENTRIES`], each at most [`haar_schema::MAX_ENTRY_BYTES`], together at most
    /// [`crate::MAX_BATCH_BYTES`].
    pub entries: Vec<Bytes>,
    /// W3C Trace Context of the span that sent it.
    pub traceparent: Option<String>,
    /// By whose key it is signed. A fog gets it checked; an edge leaves it to [`crate::BatchSender`].
    pub key: Option<Arc<VerifierKey>>,
}

impl Batch {
    /// The sequence behind the last entry.
    pub fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.entries.len() as u64)
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Bytes::len).sum()
    }
}

/// What the fog has done so far. Cumulative.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Ack {
    /// Everything up to this sequence is committed; 0 for nothing.
    pub durable_through: u64,
    /// The edge may forget what lies before this sequence: no replay will need it.
    pub keep_from: u64,
    /// Entries that may be sent beyond `durable_through`. At most [`crate::MAX_CREDIT`].
    pub credit: u32,
}

impl Ack {
    /// The highest sequence that may be sent.
    pub const fn limit(self) -> u64 {
        self.durable_through.saturating_add(self.credit as u64)
    }
}

/// Why the fog ended a session, or did not begin one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}: {advice}")]
pub struct Refusal {
    /// The kind.
    pub reason: RefusalReason,
    /// What to do about it, for the log of the other side. At most [`crate::MAX_ADVICE_BYTES`] are sent.
    pub advice: String,
}

impl Refusal {
    /// A refusal with its advice.
    pub fn new(reason: RefusalReason, advice: impl Into<String>) -> Self {
        Self { reason, advice: advice.into() }
    }
}

/// The kinds of [`Refusal`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The two sides speak different versions.
    ProtocolVersion,
    /// The certificate names nobody, or somebody other than the Hello.
    Identity,
    /// The fog does not know this edge.
    UnknownEdge,
    /// The spool is not the one that the fog knows, or has gone back.
    Incarnation,
    /// A batch does not continue the last one.
    Gap,
    /// More was sent than credit allowed.
    Credit,
    /// Over a limit of this protocol.
    Limits,
    /// Not a message of this protocol.
    Malformed,
    /// The fog cannot take readings just now.
    NotReady,
    /// The edge has opened a newer connection.
    Replaced,
    /// The fog is stopping.
    Stopping,
    /// A batch is not signed by the key that it names, or that key does not count for this edge.
    Key,
}

impl RefusalReason {
    /// Whether trying again later may help without anybody doing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::NotReady | Self::Stopping | Self::Replaced)
    }

    /// Its name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol-version",
            Self::Identity => "identity",
            Self::UnknownEdge => "unknown-edge",
            Self::Incarnation => "incarnation",
            Self::Gap => "gap",
            Self::Credit => "credit",
            Self::Limits => "limits",
            Self::Malformed => "malformed",
            Self::NotReady => "not-ready",
            Self::Replaced => "replaced",
            Self::Stopping => "stopping",
            Self::Key => "key",
        }
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
