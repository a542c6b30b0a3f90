//! The machine: patients, their timers, and what of them has to be written down.

use crate::alarm::{OpenAlarm, Phase};
use crate::episode::Step;
use crate::patient::Patient;
use crate::{Action, AlarmId, Input, Policy, StepError, Transition, Window};
use haar_schema::{Subject, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// The most patients with an alarm that is not over for good. What would make one more is refused and counted.
pub const MAX_PATIENTS: usize = 65_536;

/// First byte of a written row; a patient and the time of its next timer by postcard follow.
pub const ROW_VERSION: u8 = 1;

/// A row to write: key and value; no value: to remove.
pub type ChangedRow = (Vec<u8>, Option<Vec<u8>>);

/// All alarms of a site.
#[derive(Clone, Debug)]
pub struct Alarms {
    policy: Policy,
    patients: BTreeMap<Option<Subject>, Timed>,
    /// The same times, in order.
    due: BTreeSet<(Timestamp, Option<Subject>)>,
    changed: BTreeSet<Option<Subject>>,
    refused: u64,
}

/// A patient, and when its next timer is due.
#[derive(Clone, Debug)]
struct Timed {
    patient: Patient,
    due: Option<Timestamp>,
}

/// A row is none of this machine's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// Written by another version.
    #[error(
        "an alarm row of version {0}; this build reads version {ROW_VERSION}: run the build that wrote it"
    )]
    Version(u8),
    /// Key or value are not what was written.
    #[error("an alarm row is damaged; restore the database from a backup")]
    Damaged,
}

impl Alarms {
    /// A machine without alarms.
    pub fn new(policy: Policy) -> Self {
        let (patients, due, changed) = Default::default();
        Self { policy, patients, due, changed, refused: 0 }
    }

    /// A machine as it was when these rows were written. The policy may be another: what is under way
    /// follows it from now on.
    ///
    /// # Errors
    /// If a row is not one of [`Alarms::take_changes`].
    pub fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        policy: Policy,
        rows: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, RestoreError> {
        let mut alarms = Self::new(policy);
        for (key, row) in rows {
            let who = who(key.as_ref()).ok_or(RestoreError::Damaged)?;
            let (patient, due): (Patient, Option<Timestamp>) = match row.as_ref().split_first() {
                Some((&ROW_VERSION, rest)) => {
                    postcard::from_bytes(rest).map_err(|_| RestoreError::Damaged)?
                }
                Some((version, _)) => return Err(RestoreError::Version(*version)),
                None => return Err(RestoreError::Damaged),
            };
            // Whatever has become due meanwhile is found by the first tick.
            alarms.due.extend(due.map(|at| (at, who)));
            alarms.patients.insert(who, Timed { patient, due });
        }
        Ok(alarms)
    }

    /// Takes one step. `now` is the fog's time; it may go back, then nothing is due until it has caught up.
    ///
    /// # Errors
    /// Only for an [`Input::Action`]; nothing has changed then.
    pub fn step(&mut self, now: Timestamp, input: &Input) -> Result<Vec<Transition>, StepError> {
        let mut out = Vec::new();
        match input {
            Input::Window(window) => self.window(now, window, &mut out),
            Input::Action(action) => self.act(now, action, &mut out)?,
            Input::Tick => self.tick(now, &mut out),
        }
        Ok(out)
    }

    /// The rows that have changed since they were last taken. The key is the subject's 16 bytes, or none
    /// for the site.
    pub fn take_changes(&mut self) -> Vec<ChangedRow> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|who| {
                let key = who.map_or(Vec::new(), |subject| subject.to_bytes().to_vec());
                let row = self.patients.get(&who).map(|Timed { patient, due }| {
                    // Into a vector, of types that postcard knows: no failure is possible.
                    postcard::to_extend(&(patient, due), vec![ROW_VERSION]).unwrap_or_default()
                });
                (key, row)
            })
            .collect()
    }

    /// Forgets a patient and all alarms of theirs, without a step and without a row to write: who calls has removed the row.
    pub fn forget(&mut self, subject: Subject) {
        let who = Some(subject);
        if let Some(Timed { due: Some(at), .. }) = self.patients.remove(&who) {
            self.due.remove(&(at, who));
        }
        self.changed.remove(&who);
    }

    /// The alarms that are not over, the most pressing first, then by their beginning.
    pub fn open(&self) -> Vec<OpenAlarm> {
        let mut open: Vec<OpenAlarm> = self
            .patients
            .iter()
            .flat_map(|(who, timed)| {
                timed
                    .patient
                    .alarms
                    .iter()
                    .map(|((flag, priority), alarm)| alarm.shown(*who, flag, *priority))
            })
            .filter(|alarm| alarm.phase != Phase::Ended)
            .collect();
        open.sort_by(|a, b| {
            b.priority
                .cmp(&a.priority)
                .then(a.opened_us.cmp(&b.opened_us))
                .then(a.alarm.cmp(&b.alarm))
        });
        open
    }

    /// Whether there is nothing to do at `now` before another input comes.
    pub fn is_idle_at(&self, now: Timestamp) -> bool {
        self.due.first().is_none_or(|(due, _)| *due > now)
    }

    /// Flags that were refused for a limit since the machine was made.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    fn window(&mut self, now: Timestamp, window: &Window, out: &mut Vec<Transition>) {
        let who = window.subject;
        if !self.patients.contains_key(&who) {
            if window.raised.is_empty() {
                return;
            }
            if self.patients.len() >= MAX_PATIENTS {
                self.refused += window.raised.len() as u64;
                return;
            }
        }
        let refused = self.with(now, who, out, |patient, step| patient.window(step, window));
        self.refused += refused;
    }

    fn act(
        &mut self,
        now: Timestamp,
        action: &Action,
        out: &mut Vec<Transition>,
    ) -> Result<(), StepError> {
        let (who, key) = self.find(action.alarm).ok_or(StepError::NoSuchAlarm)?;
        self.with(now, who, out, |patient, step| match patient.alarms.get_mut(&key) {
            Some(alarm) => step.act(&key, alarm, action),
            None => Err(StepError::NoSuchAlarm),
        })
    }

    fn find(&self, id: AlarmId) -> Option<(Option<Subject>, (String, haar_schema::Priority))> {
        self.patients.iter().find_map(|(who, timed)| Some((*who, timed.patient.find(id)?)))
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Transition>) {
        // Each patient once: what its tick makes due again is due later, or at the next tick. In the order of the
        // subjects: after a restart the exact times are not known.
        let due: BTreeSet<_> =
            self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, who)| *who).collect();
        for who in due {
            self.with(now, who, out, |patient, step| patient.tick(step));
        }
    }

    /// Works on one patient, made if there is none and dropped if nothing is left, and keeps its timer and
    /// its row.
    fn with<T>(
        &mut self,
        now: Timestamp,
        who: Option<Subject>,
        out: &mut Vec<Transition>,
        work: impl FnOnce(&mut Patient, &mut Step<'_>) -> T,
    ) -> T {
        let before = self.patients.remove(&who);
        if let Some(at) = before.as_ref().and_then(|timed| timed.due) {
            self.due.remove(&(at, who));
        }
        let was_there = before.is_some();
        let mut patient = before.map(|timed| timed.patient).unwrap_or_default();
        let mut step = Step { policy: &self.policy, subject: who, now, out };
        let done = work(&mut patient, &mut step);
        let due = patient.due(&step);
        let is_left = !patient.alarms.is_empty();
        if was_there || is_left {
            self.changed.insert(who);
        }
        if is_left {
            self.due.extend(due.map(|at| (at, who)));
            self.patients.insert(who, Timed { patient, due });
        }
        done
    }
}

/// Whose a row is.
fn who(key: &[u8]) -> Option<Option<Subject>> {
    if key.is_empty() {
        return Some(None);
    }
    let bytes: [u8; 16] = key.try_into().ok()?;
    Some(Some(Subject::from_bytes(bytes)))
}

#[cfg(test)]
mod tests;
