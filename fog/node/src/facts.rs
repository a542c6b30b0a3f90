//! One small fact for each patient, which outlives the dataflow's memory (design D1).
//!
//! # Format
//! A row is a version, one byte ([`ROW_VERSION`]), and the state in postcard. The rows that changed are written in the transaction of
//! the epoch that changed them, so after a kill facts stand where the log says.
//!
//! # Limits
//! As many patients as its owner says; of more the one who was silent longest is forgotten, and begins anew.

use haar_schema::{Subject, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};

/// First byte of a row.
pub(crate) const ROW_VERSION: u8 = 1;

/// A row that changed: the patient, and the row, or none if the patient was forgotten.
pub(crate) type ChangedRow = (Subject, Option<Vec<u8>>);

/// The facts of one kind.
pub(crate) struct Facts<S> {
    states: BTreeMap<Subject, S>,
    changed: BTreeSet<Subject>,
    patients_max: usize,
    /// When a patient was heard of last.
    heard: fn(&S) -> Option<Timestamp>,
}

impl<S: Serialize + DeserializeOwned> Facts<S> {
    /// As they were, and how many rows this version does not understand: those patients begin anew.
    pub(crate) fn restore(
        rows: impl IntoIterator<Item = (Subject, Vec<u8>)>,
        patients_max: usize,
        heard: fn(&S) -> Option<Timestamp>,
    ) -> (Self, u64) {
        let mut states = BTreeMap::new();
        let mut dropped = 0;
        for (subject, row) in rows {
            let rest = row.split_first().filter(|(version, _)| **version == ROW_VERSION);
            match rest.map(|(_, rest)| postcard::from_bytes(rest)) {
                Some(Ok(state)) => drop(states.insert(subject, state)),
                _ => dropped += 1,
            }
        }
        (Self { states, changed: BTreeSet::new(), patients_max, heard }, dropped)
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    pub(crate) fn get(&self, subject: &Subject) -> Option<&S> {
        self.states.get(subject)
    }

    pub(crate) fn get_mut(&mut self, subject: &Subject) -> Option<&mut S> {
        self.states.get_mut(subject)
    }

    /// The patient's state, in the place of an older one; the silent longest makes room.
    pub(crate) fn put(&mut self, subject: Subject, state: S) {
        self.make_room(subject);
        self.states.insert(subject, state);
    }

    /// The patient's state, or a new one; the silent longest makes room.
    pub(crate) fn get_or_begin(&mut self, subject: Subject) -> &mut S
    where
        S: Default,
    {
        self.make_room(subject);
        self.states.entry(subject).or_default()
    }

    /// Forgets a patient, without a row to write: who calls has removed it.
    pub(crate) fn forget(&mut self, subject: Subject) {
        self.states.remove(&subject);
        self.changed.remove(&subject);
    }

    /// The patient's row is to be written.
    pub(crate) fn changed(&mut self, subject: Subject) {
        self.changed.insert(subject);
    }

    /// The rows that have changed since they were last taken.
    pub(crate) fn take_changes(&mut self) -> Vec<ChangedRow> {
        let changed = std::mem::take(&mut self.changed);
        let row = |subject: Subject| {
            let state = self.states.get(&subject)?;
            // Into a vector, of types that postcard knows: no failure is possible.
            postcard::to_extend(state, vec![ROW_VERSION]).ok()
        };
        changed.into_iter().map(|subject| (subject, row(subject))).collect()
    }

    fn make_room(&mut self, subject: Subject) {
        if self.states.len() < self.patients_max || self.states.contains_key(&subject) {
            return;
        }
        let silent = self.states.iter().min_by_key(|(_, state)| (self.heard)(state));
        if let Some(silent) = silent.map(|(subject, _)| *subject) {
            self.states.remove(&silent);
            self.changed.insert(silent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Serialize, Deserialize, Default, PartialEq, Debug, Clone)]
    struct Seen(u64);

    fn heard(seen: &Seen) -> Option<Timestamp> {
        i64::try_from(seen.0).ok().map(Timestamp::from_micros)
    }

    fn subject(n: u8) -> Subject {
        Subject::from_bytes([n; 16])
    }

    #[test]
    fn rows_restore_what_was_and_the_silent_longest_makes_room() {
        let (mut facts, _) = Facts::restore([], 2, heard);
        for (n, at) in [(1, 30), (2, 20), (1, 40), (3, 50)] {
            facts.put(subject(n), Seen(at));
            facts.changed(subject(n));
        }
        let rows = facts.take_changes();
        assert_eq!(
            rows.iter().map(|(own, row)| (*own, row.is_some())).collect::<Vec<_>>(),
            [(subject(1), true), (subject(2), false), (subject(3), true)]
        );
        assert!(facts.take_changes().is_empty());
        let kept = rows.into_iter().filter_map(|(own, row)| Some((own, row?)));
        let foreign = (subject(9), vec![ROW_VERSION + 1, 0]);
        let (restored, dropped) = Facts::<Seen>::restore(kept.chain([foreign]), 2, heard);
        assert_eq!(dropped, 1);
        assert_eq!(restored.get(&subject(1)), Some(&Seen(40)));
        assert_eq!((restored.get(&subject(2)), restored.get(&subject(9))), (None, None));
    }
}
