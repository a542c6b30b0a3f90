//! What kind of condition an alarm is about.

use haar_schema::FlaggedEvent;
use serde::{Deserialize, Serialize};

/// The features of scores, by the beginning of their names.
const SCORES: [&str; 5] = ["news2.", "qsofa.", "mews.", "pews.", "shock_index."];

/// What kind of condition an alarm is about; after IEC 60601-1-8, which tells physiological from
/// technical ones, the former divided by what found them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// A feature is beyond a limit.
    Limit,
    /// A clinical score is.
    Score,
    /// A model says so.
    Model,
    /// A sensor, device or channel does not work as it should.
    Technical,
}

impl Condition {
    /// What a flagged event is about by what it says of itself: its model, or the features that its rule
    /// read. That it is technical only a policy can say ([`crate::Policy::condition`]).
    pub fn of(event: &FlaggedEvent) -> Self {
        let is_score = |name: &str| SCORES.iter().any(|score| name.starts_with(score));
        if event.model.is_some() {
            Self::Model
        } else if event.evidence.iter().any(|evidence| is_score(&evidence.feature)) {
            Self::Score
        } else {
            Self::Limit
        }
    }

    /// Its lower-case name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Score => "score",
            Self::Model => "model",
            Self::Technical => "technical",
        }
    }
}
