//! What a receiver is told: a step of an alarm, or that somebody read under break-glass.

use super::outbox::Key;
use haar_alarms::{AlarmId, Condition, Phase, Transition};
use haar_ledger::consent::Emergency;
use haar_ledger::{LeafKind, Record};
use haar_schema::{Priority, Subject, Timestamp};
use serde::Serialize;

/// The flag under which a patient is told of a break-glass.
pub(crate) const BREAK_GLASS: &str = "break-glass";

/// Alarms go first.
pub(crate) const BREAK_GLASS_PRIORITY: Priority = Priority::Low;
const BREAK_GLASS_TEXT: &str = "In an emergency a clinician has read records of this patient without consent. Who, what and why: the patient's audit.";

/// What is told, as the log has it.
pub(crate) enum News {
    /// An alarm took a step.
    Step(Box<Transition>),
    /// Records of a patient were read without consent, in an emergency.
    BreakGlass(Emergency),
}

impl News {
    /// From a record; `None` if it is no news.
    pub(crate) fn read(record: &Record) -> Option<Self> {
        match record.kind {
            LeafKind::AlarmTransition => {
                let step = Transition::from_json(&record.body).ok()?;
                Some(Self::Step(Box::new(step)))
            }
            LeafKind::AccessDecision => Emergency::read(&record.body).map(Self::BreakGlass),
            _ => None,
        }
    }
}

/// A message, for people and machines; JSON in this order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Message {
    /// The idempotency key: equal for repeats of one message to one target, and for nothing else.
    pub(crate) id: String,
    /// Origin of the log in which the step is committed.
    pub(crate) site: String,
    /// Its leaf there; GET /v1/proofs/{leaf} proves it.
    pub(crate) leaf: u64,
    /// How soon somebody must act.
    pub(crate) priority: Priority,
    /// The flag's name; [`BREAK_GLASS`] of what is no alarm.
    pub(crate) flag: String,
    /// For a person.
    pub(crate) text: String,
    /// When the step was taken or the records were read, RFC 3339.
    pub(crate) at: String,
    /// Of an alarm's step.
    #[serde(flatten)]
    pub(crate) step: Option<Step>,
    /// The patient's pseudonym, if the target may know it; none: the site itself, or not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Subject>,
}

/// What is told of an alarm's step besides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Step {
    /// The alarm; POST /v1/alarms/{alarm}/acknowledge takes it on.
    pub(crate) alarm: AlarmId,
    /// Which step of the alarm it is.
    pub(crate) number: u32,
    /// What kind of condition.
    pub(crate) condition: Condition,
    /// Where the alarm is now.
    pub(crate) phase: Phase,
    /// Why.
    pub(crate) cause: &'static str,
    /// How many steps of its escalation have been taken.
    pub(crate) level: u8,
    /// End of the newest window that voted on it, RFC 3339.
    pub(crate) event_time: String,
}

impl Message {
    /// Of what is at a leaf.
    pub(crate) fn new(key: &Key, origin: &str, news: News, shows_subject: bool) -> Self {
        let (id, site, leaf) = (key.id(origin), origin.to_owned(), key.leaf);
        let step = match news {
            News::Step(step) => step,
            News::BreakGlass(Emergency { subject, recorded }) => {
                return Self {
                    id,
                    site,
                    leaf,
                    priority: BREAK_GLASS_PRIORITY,
                    flag: BREAK_GLASS.to_owned(),
                    text: BREAK_GLASS_TEXT.to_owned(),
                    at: recorded,
                    step: None,
                    subject: Subject::from_hex(&subject).filter(|_| shows_subject),
                };
            }
        };
        Self {
            id,
            site,
            leaf,
            priority: step.priority,
            flag: step.flag,
            text: step.text,
            at: step.at_us.to_string(),
            step: Some(Step {
                alarm: step.alarm,
                number: step.number,
                condition: step.condition,
                phase: step.to,
                cause: step.cause.as_str(),
                level: step.level,
                event_time: step.event_us.to_string(),
            }),
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
        let Self { text, at, leaf, site, .. } = self;
        let subject = self
            .subject
            .map_or(String::new(), |subject| format!("Patient: {}\n", subject.to_hex()));
        let headline = self.headline();
        let step = match &self.step {
            Some(Step { alarm, phase, cause, level, event_time, .. }) => format!(
                "Event time: {event_time}\nState: {} ({cause}), escalation step {level}, since {at}\nAlarm: {alarm}\n",
                phase.as_str()
            ),
            None => format!("When: {at}\n"),
        };
        format!("{headline}\n{text}\n\n{subject}{step}Leaf {leaf} of {site}\n")
    }
}

/// The clock of a message in seconds since 1970, for signatures.
pub(crate) fn unix_s(now: Timestamp) -> i64 {
    now.micros().div_euclid(1_000_000)
}
