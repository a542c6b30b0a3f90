//! What a receiver is told.

use super::outbox::Key;
use haar_alarms::{AlarmId, Condition, Phase, Transition};
use haar_schema::{Priority, Subject, Timestamp};
use serde::Serialize;

/// One step of an alarm, for people and machines; JSON in this order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Message {
    /// The idempotency key: equal for repeats of one message to one target, and for nothing else.
    pub(crate) id: String,
    /// Origin of the log in which the step is committed.
    pub(crate) site: String,
    /// Its leaf there; GET /v1/proofs/{leaf} proves it.
    pub(crate) leaf: u64,
    /// The alarm; POST /v1/alarms/{alarm}/acknowledge takes it on.
    pub(crate) alarm: AlarmId,
    /// Which step of the alarm it is.
    pub(crate) number: u32,
    /// How soon somebody must act.
    pub(crate) priority: Priority,
    /// What kind of condition.
    pub(crate) condition: Condition,
    /// The flag's name.
    pub(crate) flag: String,
    /// For a person.
    pub(crate) text: String,
    /// Where the alarm is now.
    pub(crate) phase: Phase,
    /// Why.
    pub(crate) cause: &'static str,
    /// How many steps of its escalation have been taken.
    pub(crate) level: u8,
    /// End of the newest window that voted on it, RFC 3339.
    pub(crate) event_time: String,
    /// When the step was taken, RFC 3339.
    pub(crate) at: String,
    /// The patient's pseudonym, if the target may know it; none: the site itself, or not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Subject>,
}

impl Message {
    /// Of a step at a leaf.
    pub(crate) fn new(key: &Key, origin: &str, step: Transition, shows_subject: bool) -> Self {
        Self {
            id: key.id(origin),
            site: origin.to_owned(),
            leaf: key.leaf,
            alarm: step.alarm,
            number: step.number,
            priority: step.priority,
            condition: step.condition,
            cause: step.cause.as_str(),
            phase: step.to,
            flag: step.flag,
            text: step.text,
            level: step.level,
            event_time: step.event_us.to_string(),
            at: step.at_us.to_string(),
            subject: step.subject.filter(|_| shows_subject),
        }
    }

    /// The canonical JSON.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Strings, integers and enums only: no failure is possible.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// One line: how urgent, what.
    pub(crate) fn headline(&self) -> String {
        format!("[{}] {}", self.priority.as_str().to_uppercase(), self.flag)
    }

    /// Lines for a person.
    pub(crate) fn lines(&self) -> String {
        let Self { text, cause, level, event_time, at, leaf, site, alarm, .. } = self;
        let subject = self
            .subject
            .map_or(String::new(), |subject| format!("Patient: {}\n", subject.to_hex()));
        let phase = self.phase.as_str();
        let headline = self.headline();
        format!(
            "{headline}\n{text}\n\n{subject}Event time: {event_time}\nState: {phase} ({cause}), escalation step {level}, since {at}\nAlarm: {alarm}\nLeaf {leaf} of {site}\n"
        )
    }
}

/// The clock of a message in seconds since 1970, for signatures.
pub(crate) fn unix_s(now: Timestamp) -> i64 {
    now.micros().div_euclid(1_000_000)
}
