//! The rules by which flags become alarms.
//!
//! The built-in policy is the file `default-policy.toml` beside this module; it documents every key. A
//! site's own file says what differs from it.
//!
//! # Limits
//! The constants below. What is over one is a mistake of the file, told with its place.
//!
//! # Trust
//! A policy is written by the operator of a fog. It can be wrong; no text may panic here.

mod read;

use crate::Condition;
use haar_schema::Priority;
use std::collections::{BTreeMap, BTreeSet};

pub use read::PolicyError;

/// The longest policy file, in bytes.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;
/// The most windows that "m of n" looks back: they are bits of a word.
pub const MAX_VOTES: u8 = 64;
/// The longest time in a policy.
pub const MAX_TIME_US: i64 = 7 * 24 * 3_600 * 1_000_000;
/// The most steps of an escalation, and the most contacts of one step.
pub const MAX_ROSTER: usize = 16;
/// The most entries in each of `[[flags]]` and `[[suppress]]`, and the most flags of one suppression.
pub const MAX_ENTRIES: usize = 256;
/// The longest name of a flag or contact, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// The text of the built-in policy.
pub const DEFAULT_POLICY: &str = include_str!("default-policy.toml");

/// A checked policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    pub(crate) stale_after_us: i64,
    pub(crate) silent_after_us: i64,
    priorities: [Rule; 4],
    /// What is said of single flags: their condition, and their rule at each priority.
    flags: BTreeMap<String, (Option<Condition>, [Rule; 4])>,
    suppressions: Vec<Suppression>,
}

/// How one kind of alarm behaves. The keys are documented in `default-policy.toml`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// In how many of the last [`Rule::of`] windows the flag must be raised.
    pub raised: u8,
    /// See [`Rule::raised`]; at most [`MAX_VOTES`].
    pub of: u8,
    /// From the end of the first of them to the end of the last, microseconds of event time.
    pub hold_us: i64,
    /// Windows in a row without the flag that end it.
    pub clear: u8,
    /// Whether it sounds on when the condition is over.
    pub latching: bool,
    /// How often it says itself again, microseconds; `None`: never.
    pub remind_us: Option<i64>,
    /// How long an acknowledgement lasts, microseconds.
    pub acknowledged_for_us: i64,
    /// The longest pause, microseconds.
    pub pause_us_max: i64,
    /// The longest interruption of an episode, microseconds of event time.
    pub gap_us: i64,
    /// Who is told, in order.
    pub escalate: Vec<Step>,
}

/// One step of an escalation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// How long after the alarm began to sound, microseconds. Rises from step to step.
    pub after_us: i64,
    /// The contacts who are told.
    pub to: Vec<String>,
}

/// What one flag explains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Suppression {
    pub(crate) by: String,
    /// The flags that it explains; `*` for all but technical ones.
    pub(crate) flags: Vec<String>,
    pub(crate) at_most_us: i64,
}

impl Policy {
    /// Reads a policy file: what it leaves out is as in the built-in policy. `file_name` is what
    /// mistakes call it; nothing is opened.
    ///
    /// # Errors
    /// The first mistake, with its line and, where one is near, what was probably meant.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, PolicyError> {
        read::parse(file_name, text)
    }

    /// The same policy, but nothing suppresses anything: what suppression is measured against.
    #[must_use]
    pub fn without_suppressions(mut self) -> Self {
        self.suppressions.clear();
        self
    }

    /// The same policy, but a single window is enough for any alarm: what delays are measured against. How
    /// alarms end, and what is the same episode, stays.
    #[must_use]
    pub fn without_delays(mut self) -> Self {
        let of_flags = self.flags.values_mut().flat_map(|(_, rules)| rules);
        for rule in self.priorities.iter_mut().chain(of_flags) {
            (rule.raised, rule.of, rule.hold_us) = (1, 1, 0);
        }
        self
    }

    /// How alarms of this flag and priority behave.
    pub fn rule(&self, flag: &str, priority: Priority) -> &Rule {
        let rules = self.flags.get(flag).map_or(&self.priorities, |(_, rules)| rules);
        &rules[index(priority)]
    }

    /// Without a window for so long (microseconds of the fog's time), a condition counts as over.
    pub const fn silent_after_us(&self) -> i64 {
        self.silent_after_us
    }

    /// What kind of condition the policy says a flag is; `None`: it says nothing.
    pub fn condition(&self, flag: &str) -> Option<Condition> {
        self.flags.get(flag).and_then(|(condition, _)| *condition)
    }

    /// Every contact that is told of something.
    pub fn contacts(&self) -> BTreeSet<&str> {
        let of_flags = self.flags.values().flat_map(|(_, rules)| rules);
        let rules = self.priorities.iter().chain(of_flags);
        let steps = rules.flat_map(|rule| &rule.escalate);
        steps.flat_map(|step| step.to.iter().map(String::as_str)).collect()
    }

    /// Every flag that the policy names.
    pub fn flags(&self) -> BTreeSet<&str> {
        let suppressed = self.suppressions.iter().flat_map(|suppression| {
            suppression.flags.iter().chain([&suppression.by]).map(String::as_str)
        });
        let own = self.flags.keys().map(String::as_str);
        own.chain(suppressed).filter(|flag| *flag != "*").collect()
    }

    /// Whether alarms of this flag suppress others.
    pub(crate) fn suppresses(&self, flag: &str) -> bool {
        self.suppressions.iter().any(|suppression| suppression.by == flag)
    }

    /// The suppressions that may concern a flag.
    pub(crate) fn suppressions<'p>(
        &'p self,
        flag: &'p str,
        condition: Condition,
    ) -> impl Iterator<Item = &'p Suppression> {
        self.suppressions.iter().filter(move |suppression| {
            let named =
                |name: &String| name == flag || (name == "*" && condition != Condition::Technical);
            suppression.by != flag && suppression.flags.iter().any(named)
        })
    }
}

impl Default for Policy {
    /// The built-in policy.
    fn default() -> Self {
        read::built_in()
    }
}

/// Where a priority's rule stands in arrays of them.
const fn index(priority: Priority) -> usize {
    match priority {
        Priority::Information => 0,
        Priority::Low => 1,
        Priority::Medium => 2,
        Priority::High => 3,
    }
}

#[cfg(test)]
mod tests;
