//! The alarm machine over the windows of one recording, with nobody there to act.
//!
//! The fog's clock is the event time of the window that is just concluded plus [`LAG_US`], and never goes back; between
//! windows it ticks once a second, so that what time alone brings about happens when it would.

use std::collections::{BTreeMap, BTreeSet};

use haar_alarms::{AlarmId, Alarms, Condition, Input, Phase, Policy, Transition, Window};
use haar_schema::{Priority, Timestamp};

/// From a window's end to its being seen: the out-of-orderness that profiles grant by default, and an epoch with its
/// commit. A constant, so nothing but a suppression's time limit could depend on it.
pub(super) const LAG_US: i64 = 3_000_000;
/// How often the clock ticks.
const TICK_US: i64 = 1_000_000;

/// What alarms are told apart by here.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Kind {
    /// How soon somebody must act.
    pub(super) priority: Priority,
    /// What kind of condition, by the policy.
    pub(super) condition: Condition,
    /// The flag.
    pub(super) flag: String,
}

/// An episode that sounded or was suppressed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Episode {
    /// What of.
    pub(super) kind: Kind,
    /// When it first sounded, by the fog's clock; `None`: it never did.
    pub(super) sounded: Option<Timestamp>,
    /// From the end of the first flagged window of the run that led to it, seen at once, to the sounding.
    pub(super) delay_us: Option<i64>,
    /// What suppressed it first, if anything did.
    pub(super) suppressed_by: Option<String>,
    /// How often the condition came back in the episode after it had sounded.
    pub(super) returns: u64,
}

/// Lets the machine see the windows, and then time go on until `end` (event time) is seen. The episodes in the order in
/// which they began to sound or to be suppressed.
pub(super) fn watch(policy: &Policy, windows: &[Window], end: Timestamp) -> Vec<Episode> {
    let mut watch = Watch {
        alarms: Alarms::new(policy.clone()),
        onsets: Onsets::default(),
        episodes: Vec::new(),
        places: BTreeMap::new(),
    };
    let mut now: Option<Timestamp> = None;
    for window in windows {
        let at = window.end.plus_micros(LAG_US);
        let at = now.map_or(at, |now| now.max(at));
        watch.pass(now.unwrap_or(at), at);
        now = Some(at);
        watch.onsets.add(policy, window);
        watch.step(at, &Input::Window(window.clone()));
    }
    if let Some(now) = now {
        watch.pass(now, end.plus_micros(LAG_US));
    }
    watch.episodes
}

/// The kind of every flag that a window raises, as the machine sees it.
pub(super) fn kinds<'w>(
    policy: &Policy,
    window: &'w Window,
) -> impl Iterator<Item = Kind> + use<'w> {
    let conditions: Vec<Option<Condition>> =
        window.raised.iter().map(|raised| policy.condition(&raised.flag)).collect();
    window.raised.iter().zip(conditions).map(|(raised, said)| Kind {
        priority: raised.priority,
        condition: said.unwrap_or(raised.condition),
        flag: raised.flag.clone(),
    })
}

struct Watch {
    alarms: Alarms,
    onsets: Onsets,
    episodes: Vec<Episode>,
    places: BTreeMap<AlarmId, usize>,
}

impl Watch {
    /// Ticks from `from` up to, but not at, `to`; then at `to`.
    fn pass(&mut self, from: Timestamp, to: Timestamp) {
        let mut at = from;
        while at < to {
            at = at.plus_micros(TICK_US).min(to);
            if !self.alarms.is_idle_at(at) {
                self.step(at, &Input::Tick);
            }
        }
    }

    fn step(&mut self, now: Timestamp, input: &Input) {
        // Only actions can be refused, and nobody acts.
        for transition in self.alarms.step(now, input).unwrap_or_default() {
            self.note(&transition);
        }
    }

    fn note(&mut self, transition: &Transition) {
        let (from, to) = (transition.from, transition.to);
        let returned = to == Phase::Active && matches!(from, Phase::Latched | Phase::Ended);
        if to == Phase::Suppressed || (to == Phase::Active && from != Phase::Active) {
            let episode = self.episode(transition);
            if to == Phase::Suppressed {
                // Once it has sounded, that it comes back silently is no loss.
                if episode.sounded.is_none() && episode.suppressed_by.is_none() {
                    episode.suppressed_by.clone_from(&transition.suppressed_by);
                }
            } else if episode.sounded.is_some() {
                episode.returns += u64::from(returned);
            } else {
                episode.sounded = Some(transition.at_us);
                let onset = self.onsets.of(&transition.flag, transition.priority);
                let delay_us =
                    onset.map(|onset| transition.at_us.micros_since(onset.plus_micros(LAG_US)));
                self.episode(transition).delay_us = delay_us;
            }
        }
    }

    fn episode(&mut self, transition: &Transition) -> &mut Episode {
        let place = *self.places.entry(transition.alarm).or_insert_with(|| {
            self.episodes.push(Episode {
                kind: Kind {
                    priority: transition.priority,
                    condition: transition.condition,
                    flag: transition.flag.clone(),
                },
                sounded: None,
                delay_us: None,
                suppressed_by: None,
                returns: 0,
            });
            self.episodes.len() - 1
        });
        &mut self.episodes[place]
    }
}

/// Since when flags are raised, by flag, priority and pipeline.
#[derive(Default)]
struct Onsets(BTreeMap<(String, Priority, String), Raised>);

/// The votes of one pipeline on one flag.
#[derive(Clone, Copy, Default)]
struct Raised {
    /// One bit a window, the newest lowest; set: raised.
    recent: u64,
    /// How many of them count.
    of: u8,
    /// End of the first raised window with no other among as many before it.
    since: Option<Timestamp>,
    /// End of the newest that voted.
    latest: Option<Timestamp>,
}

impl Onsets {
    fn add(&mut self, policy: &Policy, window: &Window) {
        let raised: BTreeSet<(&str, Priority)> =
            window.raised.iter().map(|raised| (raised.flag.as_str(), raised.priority)).collect();
        for (flag, priority) in &raised {
            let key = ((*flag).to_owned(), *priority, window.pipeline.clone());
            let of = policy.rule(flag, *priority).of;
            let entry = self.0.entry(key).or_default();
            entry.of = of;
            let silent = entry
                .latest
                .is_some_and(|latest| window.end.micros_since(latest) >= policy.silent_after_us());
            if silent || entry.before() == 0 {
                entry.since = Some(window.end);
            }
            (entry.recent, entry.latest) = (entry.recent << 1 | 1, Some(window.end));
        }
        for ((flag, priority, pipeline), entry) in &mut self.0 {
            let decided = !window.undetermined.contains(flag);
            if *pipeline == window.pipeline
                && decided
                && !raised.contains(&(flag.as_str(), *priority))
            {
                (entry.recent, entry.latest) = (entry.recent << 1, Some(window.end));
            }
        }
    }

    /// The earliest onset that a pipeline still stands by.
    fn of(&self, flag: &str, priority: Priority) -> Option<Timestamp> {
        let own = self.0.iter().filter(|((name, level, _), _)| name == flag && *level == priority);
        own.filter(|(_, entry)| entry.recent & mask(entry.of) != 0)
            .filter_map(|(_, entry)| entry.since)
            .min()
    }
}

impl Raised {
    /// The votes among which a new window's would be counted.
    fn before(self) -> u64 {
        self.recent & mask(self.of.saturating_sub(1))
    }
}

const fn mask(windows: u8) -> u64 {
    if windows >= 64 { u64::MAX } else { (1 << windows) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_alarms::RaisedFlag;

    /// Windows of one pipeline, 10 s apart; a letter a flag that is raised.
    fn windows(raised: &[&str]) -> Vec<Window> {
        let flag = |letter| match letter {
            'q' => ("ecg-quality-low", Priority::Low),
            'v' => ("ventricular-ectopy", Priority::Medium),
            _ => ("hypoxia", Priority::High),
        };
        let window = |(place, letters): (usize, &&str)| Window {
            subject: None,
            pipeline: "p".to_owned(),
            end: Timestamp::from_millis(10_000 * (place as i64 + 1)),
            id: None,
            raised: letters
                .chars()
                .map(flag)
                .map(|(flag, priority)| RaisedFlag {
                    flag: flag.to_owned(),
                    priority,
                    condition: Condition::Limit,
                    text: String::new(),
                })
                .collect(),
            undetermined: Vec::new(),
        };
        raised.iter().enumerate().map(window).collect()
    }

    /// Flag, second of sounding, delay in seconds, what suppressed it, returns.
    type Shown<'e> = (&'e str, Option<i64>, Option<i64>, Option<&'e str>, u64);

    fn shown(episodes: &[Episode]) -> Vec<Shown<'_>> {
        let seconds = |us: i64| us / 1_000_000;
        episodes
            .iter()
            .map(|episode| {
                (
                    episode.kind.flag.as_str(),
                    episode.sounded.map(|at| seconds(at.micros() - LAG_US)),
                    episode.delay_us.map(seconds),
                    episode.suppressed_by.as_deref(),
                    episode.returns,
                )
            })
            .collect()
    }

    fn watched(policy: &Policy, raised: &[&str], end_s: i64) -> Vec<Episode> {
        watch(policy, &windows(raised), Timestamp::from_millis(1_000 * end_s))
    }

    #[test]
    fn a_delay_counts_from_the_run_that_led_to_the_alarm() {
        let policy = Policy::default();
        // One window alone is forgotten, four windows later it begins anew.
        let episodes = watched(&policy, &["h", "", "", "", "h", "", "h", "", ""], 90);
        assert_eq!(shown(&episodes), [("hypoxia", Some(70), Some(20), None, 0)]);
    }

    #[test]
    fn a_latched_alarm_is_one_and_its_returns_are_counted() {
        let episodes =
            watched(&Policy::default(), &["h", "h", "", "", "h", "h", "", "", "h", "h"], 7_200);
        assert_eq!(shown(&episodes), [("hypoxia", Some(20), Some(10), None, 2)]);
    }

    #[test]
    fn what_is_explained_is_silent_and_sounds_if_it_outlasts_the_explanation() {
        let policy = Policy::default();
        let silenced = ["qv", "qv", "qv", "q", "q", "", "", ""];
        let quality = ("ecg-quality-low", Some(10), Some(0), None, 0);
        let ectopy =
            |sounded, delay| ("ventricular-ectopy", sounded, delay, Some("ecg-quality-low"), 0);
        assert_eq!(shown(&watched(&policy, &silenced, 80)), [quality, ectopy(None, None)]);
        // Three windows without it end the technical one.
        let outlasts = ["qv", "qv", "qv", "v", "v", "v", "v"];
        let outlasting = watched(&policy, &outlasts, 70);
        assert_eq!(shown(&outlasting), [quality, ectopy(Some(60), Some(50))]);
        let without = watched(&policy.without_suppressions(), &silenced, 80);
        let plain = ("ventricular-ectopy", Some(30), Some(20), None, 0);
        assert_eq!(shown(&without), [quality, plain]);
    }

    #[test]
    fn time_goes_on_between_windows_and_after_them() {
        // Explained for at most 10 minutes: the clock alone brings it out.
        let held: Vec<&str> = std::iter::repeat_n("qv", 70).collect();
        let episodes = watched(&Policy::default(), &held, 700);
        assert_eq!(shown(&episodes)[1].1, Some(630));
    }
}
