//! What is recorded of an alarm: every step it takes.
//!
//! # Format
//! Canonical JSON (RFC 8259): fields in the order declared here, no white space. Bytes once committed.

use crate::{Actor, Condition, Phase};
use haar_schema::{Priority, Subject, Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// Names one episode of an alarm: SHA-256 over what it is of and when it began.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlarmId([u8; 32]);

impl AlarmId {
    /// SHA-256 over the domain `haar-alarm-v1`, 1 and the subject (0 and zeros: the site), the flag with its length as u32,
    /// priority (0 information to 3 high), the event time of the beginning as i64, and how many episodes
    /// came before without a pause in between as u32; numbers little-endian.
    pub(crate) fn new(
        subject: Option<Subject>,
        flag: &str,
        priority: Priority,
        opened: Timestamp,
        ordinal: u32,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"haar-alarm-v1");
        hash.update([u8::from(subject.is_some())]);
        hash.update(subject.map_or([0; 16], Subject::to_bytes));
        hash.update((flag.len() as u32).to_le_bytes());
        hash.update(flag);
        hash.update([priority as u8]);
        hash.update(opened.micros().to_le_bytes());
        hash.update(ordinal.to_le_bytes());
        Self(hash.finalize().into())
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Reads 64 hexadecimal digits; `None` if they are none.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for AlarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hexadecimal where people read it, 32 bytes where machines do.
impl Serialize for AlarmId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for AlarmId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            Self::from_hex(&text)
                .ok_or_else(|| serde::de::Error::custom("an alarm's id is 64 hexadecimal digits"))
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Why an alarm took a step.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// The flag was raised.
    Raised,
    /// It was raised often and long enough.
    Held,
    /// It was not raised any more for long enough.
    Cleared,
    /// It came back within the same episode.
    Returned,
    /// No window came any more.
    NoData,
    /// Somebody acknowledged it.
    Acknowledged,
    /// An acknowledgement ran out while the condition was still there; a new episode follows.
    AcknowledgementExpired,
    /// Somebody paused it.
    Paused,
    /// Somebody ended the pause.
    Resumed,
    /// The pause ran out.
    PauseExpired,
    /// Nobody has acted yet.
    Reminder,
    /// Nobody has acted yet: the next contacts are told.
    Escalation,
    /// What suppressed it is over, or has suppressed it long enough.
    SuppressionOver,
}

/// One step of an alarm.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Transition {
    /// The episode.
    pub alarm: AlarmId,
    /// 0 for the episode's first step; each further one counts one up.
    pub number: u32,
    /// Whom it is about; `None`: the site itself.
    pub subject: Option<Subject>,
    /// The flag's name.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// What kind of condition.
    pub condition: Condition,
    /// For a person: what it means.
    pub text: String,
    /// Where it was.
    pub from: Phase,
    /// Where it is now; the same for a reminder or an escalation.
    pub to: Phase,
    /// Why.
    pub cause: Cause,
    /// When, by the fog's clock.
    pub at_us: Timestamp,
    /// End of the newest window that voted on it.
    pub event_us: Timestamp,
    /// The newest window that raised the flag.
    pub window: Option<WindowId>,
    /// Who did it, if a person did.
    pub by: Option<Actor>,
    /// When a pause or an acknowledgement will run out.
    pub until_us: Option<Timestamp>,
    /// What it is suppressed by: a flag, or `stale` for data that are history.
    pub suppressed_by: Option<String>,
    /// How many steps of its escalation have been taken.
    pub level: u8,
    /// The contacts that are to be told of this step.
    pub notify: Vec<String>,
}

impl Transition {
    /// The canonical JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, integers and enums only: no failure is possible.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads the JSON of a transition.
    ///
    /// # Errors
    /// If it is not one.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

impl Cause {
    /// Its name in a record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Held => "held",
            Self::Cleared => "cleared",
            Self::Returned => "returned",
            Self::NoData => "no-data",
            Self::Acknowledged => "acknowledged",
            Self::AcknowledgementExpired => "acknowledgement-expired",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::PauseExpired => "pause-expired",
            Self::Reminder => "reminder",
            Self::Escalation => "escalation",
            Self::SuppressionOver => "suppression-over",
        }
    }
}
