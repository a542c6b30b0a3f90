//! What a node waits for before it can do its work.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The named conditions of one node. Ready when all of them are. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

/// One condition of a [`Readiness`]; begins as not ready, "starting".
#[derive(Clone, Debug)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

/// A condition that is not met.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unready {
    /// Its name.
    pub condition: &'static str,
    /// Why not, and what to do.
    pub reason: String,
}

impl Readiness {
    /// Without a condition: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition; the same name gives the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.conditions().entry(name).or_insert_with(|| Some("starting".to_owned()));
        Condition { readiness: self.clone(), name }
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.conditions().values().all(Option::is_none)
    }

    /// The conditions that are not met, by name.
    pub fn unready(&self) -> Vec<Unready> {
        let conditions = self.conditions();
        let unmet = conditions.iter().filter_map(|(condition, reason)| {
            reason.clone().map(|reason| Unready { condition, reason })
        });
        unmet.collect()
    }

    fn conditions(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// It is met.
    pub fn ready(&self) {
        self.readiness.conditions().insert(self.name, None);
    }

    /// It is not met. The reason is shown to whoever asks: no identifier and no secret.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.readiness.conditions().insert(self.name, Some(reason.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_condition_is() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        let (spool, broker) = (readiness.condition("spool"), readiness.condition("broker"));
        spool.ready();
        assert_eq!(
            readiness.unready(),
            [Unready { condition: "broker", reason: "starting".to_owned() }]
        );
        broker.ready();
        assert!(readiness.is_ready());
        spool.not_ready("full");
        assert!(!readiness.is_ready());
    }
}
