//! One alarm: where it is, and what it remembers.

use crate::source::Source;
use crate::{Actor, AlarmId, Condition};
use haar_schema::{Priority, Subject, Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most pipelines that may raise one flag of one patient; what others say of it is passed over.
pub const MAX_SOURCES: usize = 8;

/// Where an alarm is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not there: where every episode comes from.
    Inactive,
    /// The flag was raised; the delay is not over.
    Pending,
    /// It sounds.
    Active,
    /// Somebody has taken it on; the condition is still there.
    Acknowledged,
    /// Silent for a time.
    Paused,
    /// The condition is over, and it sounds until somebody acknowledges.
    Latched,
    /// The condition is there and explained by something else; silent and recorded.
    Suppressed,
    /// Over.
    Ended,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Inactive,
        Self::Pending,
        Self::Active,
        Self::Acknowledged,
        Self::Paused,
        Self::Latched,
        Self::Suppressed,
        Self::Ended,
    ];

    /// Whether an alarm may go from here to `next`. To itself: a reminder or an escalation.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Inactive => matches!(next, Self::Pending | Self::Active | Self::Suppressed),
            Self::Pending | Self::Suppressed => {
                matches!(next, Self::Active | Self::Suppressed | Self::Ended)
                    && !matches!((self, next), (Self::Suppressed, Self::Suppressed))
            }
            Self::Active => matches!(
                next,
                Self::Active | Self::Acknowledged | Self::Paused | Self::Latched | Self::Ended
            ),
            Self::Acknowledged => matches!(next, Self::Ended),
            Self::Paused => {
                matches!(next, Self::Active | Self::Acknowledged | Self::Latched | Self::Ended)
            }
            Self::Latched => {
                matches!(next, Self::Active | Self::Latched | Self::Paused | Self::Ended)
            }
            // Back within the episode; one that was acknowledged stays silent.
            Self::Ended => matches!(next, Self::Active | Self::Acknowledged | Self::Suppressed),
        }
    }

    /// Whether it calls for somebody in this phase.
    pub const fn sounds(self) -> bool {
        matches!(self, Self::Active | Self::Latched)
    }

    /// Its lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Paused => "paused",
            Self::Latched => "latched",
            Self::Suppressed => "suppressed",
            Self::Ended => "ended",
        }
    }
}

/// An alarm as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OpenAlarm {
    /// The episode.
    pub alarm: AlarmId,
    /// Whom it is about; `None`: the site itself.
    pub subject: Option<Subject>,
    /// The flag's name.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// What kind of condition.
    pub condition: Condition,
    /// For a person.
    pub text: String,
    /// Where it is.
    pub phase: Phase,
    /// Whether the condition is still there.
    pub present: bool,
    /// End of the first window of the episode.
    pub opened_us: Timestamp,
    /// End of the newest window that voted on it.
    pub event_us: Timestamp,
    /// When it came into this phase, by the fog's clock.
    pub since_us: Timestamp,
    /// Who acknowledged or paused it last.
    pub by: Option<Actor>,
    /// When a pause or an acknowledgement will run out.
    pub until_us: Option<Timestamp>,
    /// What it is suppressed by.
    pub suppressed_by: Option<String>,
    /// How many steps of its escalation have been taken.
    pub level: u8,
    /// The newest window that raised the flag.
    pub window: Option<WindowId>,
}

/// One alarm in its present episode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Alarm {
    pub(crate) id: AlarmId,
    pub(crate) condition: Condition,
    pub(crate) text: String,
    pub(crate) phase: Phase,
    /// By pipeline.
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) opened: Timestamp,
    /// Episodes before this one that it followed at once.
    pub(crate) ordinal: u32,
    /// Fog time of the last change of phase.
    pub(crate) phase_at: Timestamp,
    /// Event time at which it ended last.
    pub(crate) ended: Timestamp,
    /// Steps of the escalation taken, and when the last of them (fog time).
    pub(crate) level: u8,
    pub(crate) level_at: Timestamp,
    /// When it was last told to anybody (fog time).
    pub(crate) told_at: Timestamp,
    pub(crate) by: Option<Actor>,
    /// When an acknowledgement of this episode runs out, if there is one.
    pub(crate) acknowledged_until: Option<Timestamp>,
    pub(crate) paused_until: Timestamp,
    /// When it was first suppressed, and by what.
    pub(crate) suppressed_at: Option<Timestamp>,
    pub(crate) suppressed_by: Option<String>,
    pub(crate) window: Option<WindowId>,
    pub(crate) transitions: u32,
}

impl Alarm {
    pub(crate) fn new(id: AlarmId, condition: Condition, opened: Timestamp, ordinal: u32) -> Self {
        let never = Timestamp::default();
        Self {
            id,
            condition,
            text: String::new(),
            phase: Phase::Inactive,
            sources: BTreeMap::new(),
            opened,
            ordinal,
            phase_at: never,
            ended: never,
            level: 0,
            level_at: never,
            told_at: never,
            by: None,
            acknowledged_until: None,
            paused_until: never,
            suppressed_at: None,
            suppressed_by: None,
            window: None,
            transitions: 0,
        }
    }

    /// Whether the condition is there.
    pub(crate) fn present(&self) -> bool {
        self.sources.values().any(|source| source.held)
    }

    /// End of the newest window that voted.
    pub(crate) fn event(&self) -> Timestamp {
        self.sources.values().map(|source| source.latest).max().unwrap_or(self.opened)
    }

    pub(crate) fn until(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Paused => Some(self.paused_until),
            Phase::Acknowledged => self.acknowledged_until,
            _ => None,
        }
    }

    pub(crate) fn shown(
        &self,
        subject: Option<Subject>,
        flag: &str,
        priority: Priority,
    ) -> OpenAlarm {
        OpenAlarm {
            alarm: self.id,
            subject,
            flag: flag.to_owned(),
            priority,
            condition: self.condition,
            text: self.text.clone(),
            phase: self.phase,
            present: self.present(),
            opened_us: self.opened,
            event_us: self.event(),
            since_us: self.phase_at,
            by: self.by.clone(),
            until_us: self.until(),
            suppressed_by: self.suppressed_by.clone().filter(|_| self.phase == Phase::Suppressed),
            level: self.level,
            window: self.window,
        }
    }
}
