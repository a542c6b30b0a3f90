//! From flags to alarms: when a flag becomes an alarm, who is told, and when it is over.
//!
//! A flag says that a rule held in *one* window. An [alarm](OpenAlarm) is what a person has to deal with: it begins
//! after a delay, sounds until somebody acts or the condition is over, reminds, climbs a roster, and is
//! the same episode when it comes back soon after. [`Alarms`] is that state machine, by the spirit of
//! IEC 60601-1-8:2006+A1+A2 (priorities, conditions, latching, acknowledgement, pause, reminder) and
//! IEC 60601-1-10 (a controller states what it knows and what it does not). [`Policy`] holds its numbers.
//!
//! ```text
//!            raised          held             acknowledged
//! inactive ────────▶ pending ────▶ active ───────────────────▶ acknowledged
//!                       │           │  ▲ ╲ paused                   │
//!          explained by │  cleared  │  │  ▶ paused (until)          │ cleared
//!    another, or stale  ▼           ▼  │                            ▼
//!                  suppressed ──▶ latched (if it latches) ──────▶ ended
//! ```
//!
//! # Pure
//! No clock, no I/O, no randomness. [`Alarms::step`] takes the fog's time and an [`Input`], and returns
//! [`Transition`]s; equal inputs give equal transitions, also when the state was written down
//! ([`Alarms::take_changes`]) and read again ([`Alarms::restore`]) in between. Delay and episodes go by
//! event time, which is in the windows; reminders, escalation, pauses and acknowledgements by the fog's time.
//!
//! # What is not guaranteed
//! No conformity with any standard is claimed. The machine knows what flags tell it: a pipeline that
//! raises no flag alarms nobody. What it refuses for a limit it counts ([`Alarms::refused`]).
#![forbid(unsafe_code)]

mod alarm;
mod condition;
mod episode;
mod input;
mod machine;
mod patient;
mod policy;
mod source;
mod transition;

pub use alarm::{MAX_SOURCES, OpenAlarm, Phase};
pub use condition::Condition;
pub use input::{
    Action, Actor, ActorError, Deed, Input, MAX_ACTOR_CHARS, RaisedFlag, StepError, Window,
};
pub use machine::{Alarms, ChangedRow, MAX_PATIENTS, ROW_VERSION, RestoreError};
pub use patient::{FORGET_AFTER_US, MAX_ALARMS_PER_PATIENT, MAX_PIPELINES_PER_PATIENT};
pub use policy::{
    DEFAULT_POLICY, MAX_ENTRIES, MAX_NAME_BYTES, MAX_POLICY_BYTES, MAX_ROSTER, MAX_TIME_US,
    MAX_VOTES, Policy, PolicyError, Rule, Step,
};
pub use transition::{AlarmId, Cause, Transition};
