//! The steps of one alarm: what its phase makes of the condition, of time and of people.

use crate::alarm::{Alarm, Phase};
use crate::policy::{Policy, Rule};
use crate::{Action, AlarmId, Cause, Deed, StepError, Transition};
use haar_schema::{Priority, Subject, Timestamp};

/// What a step needs to know beside the alarm, and where its transitions go.
pub(crate) struct Step<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) subject: Option<Subject>,
    pub(crate) now: Timestamp,
    pub(crate) out: &'a mut Vec<Transition>,
}

/// What an alarm is of: its flag, and the priority with which it was raised.
pub(crate) type Key = (String, Priority);

impl Step<'_> {
    /// Lets the alarm's phase follow its condition. `suppressor` says by what it is suppressed just now;
    /// `over` is the cause if the condition is over.
    pub(crate) fn settle(
        &mut self,
        key: &Key,
        alarm: &mut Alarm,
        suppressor: Option<String>,
        over: Cause,
    ) {
        let rule = self.policy.rule(&key.0, key.1);
        let pending = alarm.sources.values().any(|source| source.is_pending(rule));
        match (alarm.phase, alarm.present()) {
            (Phase::Inactive, true) => self.rise(key, alarm, suppressor, Cause::Raised),
            (Phase::Pending, true) => self.rise(key, alarm, suppressor, Cause::Held),
            (Phase::Suppressed, true) => {
                self.rise(key, alarm, suppressor, Cause::SuppressionOver);
            }
            (Phase::Ended, true) => self.rise(key, alarm, suppressor, Cause::Returned),
            (Phase::Inactive, false) if pending => {
                self.go(key, alarm, Phase::Pending, Cause::Raised, Vec::new());
            }
            (Phase::Pending, false) if !pending => {
                self.go(key, alarm, Phase::Ended, over, Vec::new());
            }
            (Phase::Active, false) if rule.latching => {
                let told = told(rule, alarm);
                self.go(key, alarm, Phase::Latched, over, told);
            }
            (Phase::Paused, false) if rule.latching => {}
            (Phase::Active | Phase::Acknowledged | Phase::Paused, false) => {
                let told = told(rule, alarm);
                self.go(key, alarm, Phase::Ended, over, told);
            }
            (Phase::Suppressed, false) => self.go(key, alarm, Phase::Ended, over, Vec::new()),
            (Phase::Latched, true) => {
                self.go(key, alarm, Phase::Active, Cause::Returned, Vec::new());
            }
            _ => {}
        }
    }

    /// The condition is there: the alarm sounds, unless somebody has it or something explains it.
    fn rise(&mut self, key: &Key, alarm: &mut Alarm, suppressor: Option<String>, cause: Cause) {
        if alarm.acknowledged_until.is_some() {
            // Nothing sounds again in an episode that somebody has taken on.
            return self.go(key, alarm, Phase::Acknowledged, Cause::Returned, Vec::new());
        }
        if let Some(by) = suppressor {
            if alarm.phase != Phase::Suppressed {
                alarm.suppressed_at = Some(alarm.suppressed_at.unwrap_or(self.now));
                alarm.suppressed_by = Some(by);
                self.go(key, alarm, Phase::Suppressed, cause, Vec::new());
            }
            return;
        }
        alarm.level_at = self.now;
        let rule = self.policy.rule(&key.0, key.1);
        let mut notify = Vec::new();
        if alarm.level == 0 {
            alarm.told_at = self.now;
            if let Some(first) = rule.escalate.first().filter(|step| step.after_us == 0) {
                alarm.level = 1;
                notify.clone_from(&first.to);
            }
        }
        self.go(key, alarm, Phase::Active, cause, notify);
    }

    /// What time alone brings about. `true`: the acknowledgement ran out, and a new episode begins.
    pub(crate) fn tick(&mut self, key: &Key, alarm: &mut Alarm) -> bool {
        let rule = self.policy.rule(&key.0, key.1);
        match alarm.phase {
            Phase::Paused if alarm.paused_until <= self.now => {
                self.unpause(key, alarm, Cause::PauseExpired);
            }
            Phase::Active | Phase::Latched => {
                while let Some(due) = next_level(rule, alarm).filter(|due| *due <= self.now) {
                    let step = &rule.escalate[usize::from(alarm.level)];
                    alarm.level += 1;
                    (alarm.level_at, alarm.told_at) = (due, self.now);
                    self.go(key, alarm, alarm.phase, Cause::Escalation, step.to.clone());
                }
                if next_reminder(rule, alarm).is_some_and(|due| due <= self.now) {
                    alarm.told_at = self.now;
                    let told = told(rule, alarm);
                    self.go(key, alarm, alarm.phase, Cause::Reminder, told);
                }
            }
            Phase::Acknowledged if alarm.acknowledged_until.is_some_and(|at| at <= self.now) => {
                let told = told(rule, alarm);
                self.go(key, alarm, Phase::Ended, Cause::AcknowledgementExpired, told);
                return true;
            }
            _ => {}
        }
        false
    }

    /// When [`Step::tick`], or a suppression's limit, next concerns this alarm.
    pub(crate) fn due(&self, key: &Key, alarm: &Alarm) -> Option<Timestamp> {
        let rule = self.policy.rule(&key.0, key.1);
        match alarm.phase {
            Phase::Paused => Some(alarm.paused_until),
            Phase::Active | Phase::Latched => {
                next_level(rule, alarm).into_iter().chain(next_reminder(rule, alarm)).min()
            }
            Phase::Acknowledged => alarm.acknowledged_until,
            Phase::Suppressed => {
                let limits = self.policy.suppressions(&key.0, alarm.condition);
                let at = alarm.suppressed_at?;
                limits
                    .map(|limit| at.plus_micros(limit.at_most_us))
                    .filter(|due| *due > self.now)
                    .min()
            }
            Phase::Inactive | Phase::Pending | Phase::Ended => None,
        }
    }

    /// Somebody acts.
    pub(crate) fn act(
        &mut self,
        key: &Key,
        alarm: &mut Alarm,
        action: &Action,
    ) -> Result<(), StepError> {
        let rule = self.policy.rule(&key.0, key.1);
        let refused = |allowed, done| StepError::Phase { phase: alarm.phase, allowed, done };
        match action.deed {
            Deed::Acknowledge => {
                if !matches!(alarm.phase, Phase::Active | Phase::Paused | Phase::Latched) {
                    return Err(refused("active, paused or latched", "acknowledged"));
                }
                alarm.by = Some(action.by.clone());
                alarm.acknowledged_until = Some(self.now.plus_micros(rule.acknowledged_for_us));
                let over = !alarm.present();
                let next = if over { Phase::Ended } else { Phase::Acknowledged };
                let told = told(rule, alarm);
                self.go(key, alarm, next, Cause::Acknowledged, told);
            }
            Deed::Pause { for_us } => {
                if !alarm.phase.sounds() {
                    return Err(refused("active or latched", "paused"));
                }
                if !(1..=rule.pause_us_max).contains(&for_us) {
                    return Err(StepError::PauseLength { most_s: rule.pause_us_max / 1_000_000 });
                }
                alarm.by = Some(action.by.clone());
                alarm.paused_until = self.now.plus_micros(for_us);
                let told = told(rule, alarm);
                self.go(key, alarm, Phase::Paused, Cause::Paused, told);
            }
            Deed::Resume => {
                if alarm.phase != Phase::Paused {
                    return Err(refused("paused", "resumed"));
                }
                alarm.by = Some(action.by.clone());
                self.unpause(key, alarm, Cause::Resumed);
            }
        }
        Ok(())
    }

    fn unpause(&mut self, key: &Key, alarm: &mut Alarm, cause: Cause) {
        // Escalation and reminder begin again where they were.
        (alarm.level_at, alarm.told_at) = (self.now, self.now);
        let next = if alarm.present() { Phase::Active } else { Phase::Latched };
        let told = told(self.policy.rule(&key.0, key.1), alarm);
        self.go(key, alarm, next, cause, told);
    }

    /// Takes the step and records it.
    fn go(&mut self, key: &Key, alarm: &mut Alarm, to: Phase, cause: Cause, notify: Vec<String>) {
        let from = std::mem::replace(&mut alarm.phase, to);
        if from != to {
            alarm.phase_at = self.now;
        }
        if to == Phase::Ended {
            alarm.ended = alarm.event();
        }
        if to != Phase::Suppressed && from == Phase::Suppressed {
            (alarm.suppressed_at, alarm.suppressed_by) = (None, None);
        }
        let by_person = matches!(cause, Cause::Acknowledged | Cause::Paused | Cause::Resumed);
        self.out.push(Transition {
            alarm: alarm.id,
            number: alarm.transitions,
            subject: self.subject,
            flag: key.0.clone(),
            priority: key.1,
            condition: alarm.condition,
            text: alarm.text.clone(),
            from,
            to,
            cause,
            at_us: self.now,
            event_us: alarm.event(),
            window: alarm.window,
            by: alarm.by.clone().filter(|_| by_person),
            until_us: alarm.until(),
            suppressed_by: alarm.suppressed_by.clone(),
            level: alarm.level,
            notify,
        });
        alarm.transitions += 1;
    }
}

/// A new episode of the alarm that `old` was.
pub(crate) fn renewed(
    subject: Option<Subject>,
    key: &Key,
    old: &Alarm,
    opened: Timestamp,
) -> Alarm {
    let ordinal = old.ordinal + 1;
    let id = AlarmId::new(subject, &key.0, key.1, opened, ordinal);
    Alarm {
        text: old.text.clone(),
        sources: old.sources.clone(),
        window: old.window,
        ..Alarm::new(id, old.condition, opened, ordinal)
    }
}

/// The contacts that have been told of the alarm.
fn told(rule: &Rule, alarm: &Alarm) -> Vec<String> {
    let mut contacts: Vec<String> = Vec::new();
    for step in rule.escalate.iter().take(usize::from(alarm.level)) {
        contacts.extend(
            step.to.iter().filter(|name| !contacts.contains(name)).cloned().collect::<Vec<_>>(),
        );
    }
    contacts
}

fn next_level(rule: &Rule, alarm: &Alarm) -> Option<Timestamp> {
    let level = usize::from(alarm.level);
    let next = rule.escalate.get(level)?;
    let before = level.checked_sub(1).and_then(|last| rule.escalate.get(last));
    Some(alarm.level_at.plus_micros(next.after_us - before.map_or(0, |step| step.after_us)))
}

fn next_reminder(rule: &Rule, alarm: &Alarm) -> Option<Timestamp> {
    rule.remind_us.map(|every| alarm.told_at.plus_micros(every))
}
