//! All alarms of one patient (or of the site itself): votes in, suppression among them, timers.

use crate::alarm::{Alarm, MAX_SOURCES, Phase};
use crate::episode::{Key, Step, renewed};
use crate::{AlarmId, Cause, Condition, Window};
use haar_schema::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most alarms of one patient that are not over for good. A flag beyond is refused and counted.
pub const MAX_ALARMS_PER_PATIENT: usize = 64;
/// The most pipelines of which a patient's newest window is remembered.
pub const MAX_PIPELINES_PER_PATIENT: usize = 32;
/// An alarm that ended so long ago by the fog's clock is forgotten, whether or not windows came since.
pub const FORGET_AFTER_US: i64 = 24 * 3_600 * 1_000_000;

/// What suppresses an alarm whose data are history.
const STALE: &str = "stale";

/// The state of one patient. There is one only while there is an alarm.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Patient {
    /// By pipeline: end of the newest window, and when it came by the fog's clock.
    pipelines: BTreeMap<String, (Timestamp, Timestamp)>,
    pub(crate) alarms: BTreeMap<Key, Alarm>,
}

impl Patient {
    /// Takes a window; says how many flags were refused for a limit.
    pub(crate) fn window(&mut self, step: &mut Step<'_>, window: &Window) -> u64 {
        if let Some((newest, _)) = self.pipelines.get(&window.pipeline)
            && window.end < *newest
        {
            // Alarms are about the present: what an older window says is in its own leaf.
            return 0;
        }
        let room = self.pipelines.len() < MAX_PIPELINES_PER_PATIENT;
        if room || self.pipelines.contains_key(&window.pipeline) {
            self.pipelines.insert(window.pipeline.clone(), (window.end, step.now));
        }
        let refused = self.vote(step, window);
        self.settle(step, Cause::Cleared);
        self.alarms.retain(|(flag, priority), alarm| {
            let gap_us = step.policy.rule(flag, *priority).gap_us;
            alarm.phase != Phase::Ended || window.end.micros_since(alarm.ended) <= gap_us
        });
        refused
    }

    /// What time alone brings about.
    pub(crate) fn tick(&mut self, step: &mut Step<'_>) {
        if step.subject.is_some() {
            for alarm in self.alarms.values_mut() {
                for (pipeline, source) in &mut alarm.sources {
                    let newest = self.pipelines.get(pipeline);
                    let silent = |(_, came): &(Timestamp, Timestamp)| {
                        step.now.micros_since(*came) >= step.policy.silent_after_us
                    };
                    if newest.is_none_or(silent) {
                        source.silence();
                    }
                }
            }
        }
        self.settle(step, Cause::NoData);
        let keys: Vec<Key> = self.alarms.keys().cloned().collect();
        for key in keys {
            if let Some(mut alarm) = self.alarms.remove(&key) {
                if step.tick(&key, &mut alarm) {
                    let opened = alarm.event();
                    alarm = renewed(step.subject, &key, &alarm, opened);
                    let suppressor = self.suppressor(step, &key, &alarm);
                    step.settle(&key, &mut alarm, suppressor, Cause::NoData);
                }
                self.alarms.insert(key, alarm);
            }
        }
        self.alarms.retain(|_, alarm| {
            alarm.phase != Phase::Ended || step.now.micros_since(alarm.phase_at) < FORGET_AFTER_US
        });
    }

    /// When [`Patient::tick`] has something to do.
    pub(crate) fn due(&self, step: &Step<'_>) -> Option<Timestamp> {
        let of_alarms = self.alarms.iter().filter_map(|(key, alarm)| {
            let forget =
                (alarm.phase == Phase::Ended).then(|| alarm.phase_at.plus_micros(FORGET_AFTER_US));
            let silent = alarm
                .sources
                .keys()
                .filter(|_| step.subject.is_some() && alarm.phase != Phase::Ended)
                .filter_map(|pipeline| self.pipelines.get(pipeline))
                .map(|(_, came)| came.plus_micros(step.policy.silent_after_us))
                .filter(|silent| *silent > step.now)
                .min();
            step.due(key, alarm).into_iter().chain(forget).chain(silent).min()
        });
        of_alarms.min()
    }

    /// The alarm of this id.
    pub(crate) fn find(&self, id: AlarmId) -> Option<Key> {
        self.alarms.iter().find(|(_, alarm)| alarm.id == id).map(|(key, _)| key.clone())
    }

    fn vote(&mut self, step: &mut Step<'_>, window: &Window) -> u64 {
        let mut refused = 0;
        for raised in &window.raised {
            let key = (raised.flag.clone(), raised.priority);
            let rule = step.policy.rule(&key.0, key.1);
            let known = self.alarms.get(&key);
            if known.is_none() && self.alarms.len() >= MAX_ALARMS_PER_PATIENT {
                refused += 1;
                continue;
            }
            let condition = step.policy.condition(&key.0).unwrap_or(raised.condition);
            let is_new = known.is_none_or(|alarm| {
                // An acknowledgement that has run out covers nothing any more.
                let uncovered = alarm.acknowledged_until.is_some_and(|until| until <= step.now);
                let apart = window.end.micros_since(alarm.ended) > rule.gap_us;
                let pending = alarm.sources.values().any(|source| source.is_pending(rule));
                alarm.phase == Phase::Ended && !pending && (apart || uncovered)
            });
            if is_new {
                let ordinal = known.map_or(0, |alarm| alarm.ordinal + 1);
                let id = AlarmId::new(step.subject, &key.0, key.1, window.end, ordinal);
                self.alarms.insert(key.clone(), Alarm::new(id, condition, window.end, ordinal));
            }
            let Some(alarm) = self.alarms.get_mut(&key) else { continue };
            let room = alarm.sources.len() < MAX_SOURCES;
            if room || alarm.sources.contains_key(&window.pipeline) {
                alarm.text.clone_from(&raised.text);
                alarm.window = window.id;
                let source = alarm.sources.entry(window.pipeline.clone()).or_default();
                source.vote(true, window.end, rule);
            } else {
                refused += 1;
            }
        }
        for (key, alarm) in &mut self.alarms {
            let raised =
                window.raised.iter().any(|raised| raised.flag == key.0 && raised.priority == key.1);
            if !raised
                && !window.undetermined.contains(&key.0)
                && let Some(source) = alarm.sources.get_mut(&window.pipeline)
            {
                source.vote(false, window.end, step.policy.rule(&key.0, key.1));
            }
        }
        refused
    }

    /// Lets every alarm follow its condition; what suppresses others goes first, so that what one window
    /// raises together is suppressed at once.
    fn settle(&mut self, step: &mut Step<'_>, over: Cause) {
        let mut keys: Vec<Key> = self.alarms.keys().cloned().collect();
        keys.sort_by_key(|(flag, _)| !step.policy.suppresses(flag));
        for key in keys {
            if let Some(mut alarm) = self.alarms.remove(&key) {
                let suppressor = self.suppressor(step, &key, &alarm);
                step.settle(&key, &mut alarm, suppressor, over);
                self.alarms.insert(key, alarm);
            }
        }
    }

    /// By what an alarm that is about to sound is suppressed.
    fn suppressor(&self, step: &Step<'_>, key: &Key, alarm: &Alarm) -> Option<String> {
        if step.now.micros_since(alarm.event()) > step.policy.stale_after_us {
            return Some(STALE.to_owned());
        }
        let suppressed_us = alarm.suppressed_at.map_or(0, |since| step.now.micros_since(since));
        step.policy
            .suppressions(&key.0, alarm.condition)
            .filter(|suppression| suppressed_us < suppression.at_most_us)
            .find(|suppression| {
                self.alarms.iter().any(|((flag, priority), other)| {
                    *flag == suppression.by
                        && other.present()
                        && (other.condition == Condition::Technical || *priority > key.1)
                })
            })
            .map(|suppression| suppression.by.clone())
    }
}
