//! What drives the machine: windows, actions of people, time.

use crate::{AlarmId, Condition, Phase};
use haar_schema::{Priority, Subject, Timestamp, WindowId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest name of an actor, in characters.
pub const MAX_ACTOR_CHARS: usize = 64;

/// One input of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A window was concluded.
    Window(Window),
    /// Somebody acts.
    Action(Action),
    /// Time has passed.
    Tick,
}

/// What a concluded window says about flags. A flag that is neither raised nor undetermined is all clear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Whom it is about; `None`: the site itself.
    pub subject: Option<Subject>,
    /// The pipeline's id. All-clear counts from the pipeline that raised the flag.
    pub pipeline: String,
    /// First microsecond behind it.
    pub end: Timestamp,
    /// Its id, if it is one of a dataflow.
    pub id: Option<WindowId>,
    /// The flags that it raises.
    pub raised: Vec<RaisedFlag>,
    /// The flags whose rule could not be decided: neither raised nor all clear.
    pub undetermined: Vec<String>,
}

/// A flag that a window raises.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RaisedFlag {
    /// Its name.
    pub flag: String,
    /// How soon somebody must act.
    pub priority: Priority,
    /// What kind of condition; the policy's word goes before this.
    pub condition: Condition,
    /// For a person.
    pub text: String,
}

/// Somebody acts on an alarm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Action {
    /// On which.
    pub alarm: AlarmId,
    /// Who.
    pub by: Actor,
    /// What.
    pub deed: Deed,
}

/// What somebody does to an alarm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Takes it on: it is silent for the rest of the episode. One that is over and latched ends.
    Acknowledge,
    /// Silences it for so many microseconds.
    Pause {
        /// More than 0, and at most the policy's `pause_at_most`.
        for_us: i64,
    },
    /// Ends a pause.
    Resume,
}

/// Who acts: a name or staff number, without control characters. It is committed with the action.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Actor(String);

/// The text is no name of an actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "say who acts: a name of 1 to {MAX_ACTOR_CHARS} characters, without control characters and blanks at the ends"
)]
pub struct ActorError;

impl Actor {
    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Actor {
    type Error = ActorError;
    fn try_from(text: String) -> Result<Self, ActorError> {
        let plain = text.trim() == text && !text.chars().any(char::is_control);
        if plain && (1..=MAX_ACTOR_CHARS).contains(&text.chars().count()) {
            Ok(Self(text))
        } else {
            Err(ActorError)
        }
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.0
    }
}

impl fmt::Debug for Actor {
    /// A person's name is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Actor(redacted)")
    }
}

/// Why an action was refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// No such episode, or it ended and was forgotten.
    #[error("no open alarm has this id; `haar alarms list` or GET /v1/alarms shows those that are")]
    NoSuchAlarm,
    /// The alarm is in a phase in which this does nothing.
    #[error("the alarm is {phase}; only one that is {allowed} can be {done}", phase = .phase.as_str())]
    Phase {
        /// Where it is.
        phase: Phase,
        /// Where it would have to be.
        allowed: &'static str,
        /// What was asked for.
        done: &'static str,
    },
    /// The pause is longer than the policy allows, or no time at all.
    #[error("a pause of this alarm is longer than 0 s and at most {most_s} s")]
    PauseLength {
        /// The policy's limit, in seconds.
        most_s: i64,
    },
}
