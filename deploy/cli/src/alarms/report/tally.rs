//! Alarms counted five ways, from every flagged window to what the whole machine lets sound.

use std::collections::{BTreeMap, BTreeSet};

use haar_alarms::Policy;
use haar_recordings::corpus::CaseId;
use haar_schema::{Priority, Timestamp};
use serde::Serialize;

use super::machine::{Episode, Kind, LAG_US, kinds, watch};
use super::recordings::Recording;
use super::replay::{BEGIN_US, Replayed};

const HOURS_PER_DAY: f64 = 24.0;
/// The most alarms that `--json` lists one by one.
const MAX_LISTED: usize = 10_000;

/// The machines that are compared.
pub(super) struct Machines {
    /// As the site has it.
    pub(super) full: Policy,
    delayed: Policy,
    undelayed: Policy,
}

impl Machines {
    /// The policy, and what is left of it.
    pub(super) fn new(full: Policy) -> Self {
        let delayed = full.clone().without_suppressions();
        Self { undelayed: delayed.clone().without_delays(), delayed, full }
    }
}

/// One figure for each way of counting.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(super) struct Stages<T> {
    /// Every flagged window is an alarm: a system without any memory.
    pub(super) windows: T,
    /// Every run of flagged windows of one pipeline, one right after the other.
    pub(super) runs: T,
    /// The machine without delays and suppression: episodes. Seldom there may be fewer than with delays: one that begins
    /// with a single window can reach over the gap between two that do not.
    pub(super) undelayed: T,
    /// The machine without suppression.
    pub(super) delayed: T,
    /// The machine.
    pub(super) full: T,
}

impl Stages<u64> {
    fn add(&mut self, other: Self) {
        self.windows += other.windows;
        self.runs += other.runs;
        self.undelayed += other.undelayed;
        self.delayed += other.delayed;
        self.full += other.full;
    }

    /// Alarms per patient-day.
    fn per_day(self, hours: f64) -> Stages<f64> {
        let rate =
            |count: u64| if hours > 0.0 { count as f64 * HOURS_PER_DAY / hours } else { 0.0 };
        Stages {
            windows: rate(self.windows),
            runs: rate(self.runs),
            undelayed: rate(self.undelayed),
            delayed: rate(self.delayed),
            full: rate(self.full),
        }
    }

    /// In the order of the letters in which they are shown.
    pub(super) fn each(self) -> [u64; 5] {
        [self.windows, self.runs, self.undelayed, self.delayed, self.full]
    }
}

impl Stages<f64> {
    /// In the order of the letters in which they are shown.
    pub(super) fn each(self) -> [f64; 5] {
        [self.windows, self.runs, self.undelayed, self.delayed, self.full]
    }
}

/// Counts, and alarms per patient-day.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Figures {
    /// How many.
    pub(super) count: Stages<u64>,
    /// How many a day of one patient.
    pub(super) per_patient_day: Stages<f64>,
}

impl Figures {
    fn of(count: Stages<u64>, hours: f64) -> Self {
        Self { count, per_patient_day: count.per_day(hours) }
    }
}

/// What has been counted so far.
#[derive(Default)]
pub(super) struct Tally {
    records: Vec<Record>,
    people: BTreeSet<CaseId>,
    unnamed: usize,
    held_out: usize,
    delayed: Vec<Episode>,
    full: Vec<Episode>,
    /// Of each of the former, the recording's place.
    places: Vec<usize>,
    undelayed_returns: u64,
    left_out: Vec<String>,
}

struct Record {
    name: String,
    hours: f64,
    counts: BTreeMap<Kind, Stages<u64>>,
}

impl Tally {
    /// Counts a recording; returns the episodes of the whole machine on it.
    pub(super) fn add(
        &mut self,
        recording: &Recording,
        replayed: &Replayed,
        machines: &Machines,
    ) -> &[Episode] {
        let mut counts: BTreeMap<Kind, Stages<u64>> = BTreeMap::new();
        for (kind, windows, runs) in flagged(replayed, &machines.full) {
            counts.entry(kind).or_default().add(Stages { windows, runs, ..Stages::default() });
        }
        let end = Timestamp::from_micros(BEGIN_US + (recording.seconds * 1e6) as i64);
        let watch = |policy| watch(policy, &replayed.windows, end);
        let [undelayed, delayed, full] =
            [&machines.undelayed, &machines.delayed, &machines.full].map(watch);
        let mut sounding = |episodes: &[Episode], one: Stages<u64>| {
            for episode in episodes.iter().filter(|episode| episode.sounded.is_some()) {
                counts.entry(episode.kind.clone()).or_default().add(one);
            }
        };
        sounding(&undelayed, Stages { undelayed: 1, ..Stages::default() });
        sounding(&delayed, Stages { delayed: 1, ..Stages::default() });
        sounding(&full, Stages { full: 1, ..Stages::default() });
        self.undelayed_returns += undelayed.iter().map(|episode| episode.returns).sum::<u64>();
        self.delayed.extend(delayed);
        self.places.resize(self.places.len() + full.len(), self.records.len());
        let heard_before = self.full.len();
        self.full.extend(full);
        self.held_out += usize::from(replayed.held_out);
        match recording.person {
            Some(person) => self.people.extend([person]),
            None => self.unnamed += 1,
        }
        let hours = recording.seconds / 3_600.0;
        self.records.push(Record { name: recording.name.clone(), hours, counts });
        &self.full[heard_before..]
    }

    /// There is nothing to replay in the recording of this name.
    pub(super) fn leave_out(&mut self, name: String) {
        self.left_out.push(name);
    }

    /// What it comes to.
    pub(super) fn summary(&self) -> Summary {
        let hours = self.records.iter().map(|record| record.hours).sum();
        let all = self.records.iter().flat_map(|record| &record.counts);
        let (mut total, mut by_priority) = (Stages::default(), BTreeMap::new());
        let (mut by_condition, mut by_kind) = (BTreeMap::new(), BTreeMap::new());
        for (kind, counts) in all {
            total.add(*counts);
            // The most urgent first.
            let urgency = std::cmp::Reverse(kind.priority);
            let priority: &mut Stages<u64> = by_priority.entry(urgency).or_default();
            priority.add(*counts);
            let condition: &mut Stages<u64> = by_condition.entry(kind.condition).or_default();
            condition.add(*counts);
            let own: &mut Stages<u64> = by_kind.entry((urgency, kind)).or_default();
            own.add(*counts);
        }
        let figures = |counts| Figures::of(counts, hours);
        Summary {
            task: "alarms",
            recordings: self.records.len(),
            patients: self.people.len() + self.unnamed,
            recordings_held_out: self.held_out,
            hours,
            acknowledged: false,
            total: figures(total),
            by_priority: by_priority
                .into_iter()
                .map(|(std::cmp::Reverse(priority), counts)| {
                    Line::new(priority.as_str(), figures(counts))
                })
                .collect(),
            by_condition: by_condition
                .into_iter()
                .map(|(condition, counts)| Line::new(condition.as_str(), figures(counts)))
                .collect(),
            by_flag: by_kind
                .into_iter()
                .map(|((_, kind), counts)| FlagLine {
                    flag: kind.flag.clone(),
                    priority: kind.priority,
                    condition: kind.condition.as_str(),
                    figures: figures(counts),
                })
                .collect(),
            suppression: Suppression::of(&self.full),
            delay_s: Delay::of(&self.full),
            delay_without_suppression_s: Delay::of(&self.delayed),
            returns: Returns {
                undelayed: self.undelayed_returns,
                delayed: self.delayed.iter().map(|episode| episode.returns).sum(),
                full: self.full.iter().map(|episode| episode.returns).sum(),
            },
            per_record: self.records.iter().map(Record::line).collect(),
            alarms: self.alarms(),
            alarms_not_listed: self.full.len().saturating_sub(MAX_LISTED),
            left_out: self.left_out.clone(),
        }
    }
}

impl Tally {
    fn alarms(&self) -> Vec<Alarm> {
        let seconds = |us: i64| us as f64 / 1e6;
        let placed = self.places.iter().zip(&self.full).take(MAX_LISTED);
        placed
            .map(|(place, episode)| Alarm {
                record: self.records[*place].name.clone(),
                flag: episode.kind.flag.clone(),
                priority: episode.kind.priority,
                sounded_s: episode.sounded.map(|at| seconds(at.micros() - LAG_US - BEGIN_US)),
                delay_s: episode.delay_us.map(seconds),
                suppressed_by: episode.suppressed_by.clone(),
                returns: episode.returns,
            })
            .collect()
    }
}

impl Record {
    fn line(&self) -> RecordLine {
        let mut total = Stages::default();
        let mut flags: BTreeMap<String, Stages<u64>> = BTreeMap::new();
        for (kind, counts) in &self.counts {
            total.add(*counts);
            flags.entry(kind.flag.clone()).or_default().add(*counts);
        }
        RecordLine {
            record: self.name.clone(),
            hours: self.hours,
            figures: Figures::of(total, self.hours),
            flags,
        }
    }
}

/// By kind: flagged windows, and runs of them.
fn flagged(replayed: &Replayed, policy: &Policy) -> Vec<(Kind, u64, u64)> {
    let mut counts: BTreeMap<Kind, (u64, u64)> = BTreeMap::new();
    let mut before: BTreeMap<&str, (Timestamp, BTreeSet<Kind>)> = BTreeMap::new();
    for window in &replayed.windows {
        let now: BTreeSet<Kind> = kinds(policy, window).collect();
        let slide_us = replayed.slides_us.get(&window.pipeline).copied().unwrap_or(0);
        let (end, last) = before.entry(&window.pipeline).or_default();
        let is_next = window.end.micros_since(*end) <= slide_us;
        for kind in &now {
            let (windows, runs) = counts.entry(kind.clone()).or_default();
            *windows += 1;
            *runs += u64::from(!(is_next && last.contains(kind)));
        }
        (*end, *last) = (window.end, now);
    }
    counts.into_iter().map(|(kind, (windows, runs))| (kind, windows, runs)).collect()
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Summary {
    task: &'static str,
    pub(super) recordings: usize,
    /// A recording whose person the data do not name counts as one patient.
    pub(super) patients: usize,
    /// Whose beats were scored by the member of the committee that was not trained on them.
    pub(super) recordings_held_out: usize,
    pub(super) hours: f64,
    /// Whether anybody acts: nobody does in a replay.
    acknowledged: bool,
    #[serde(flatten)]
    pub(super) total: Figures,
    pub(super) by_priority: Vec<Line>,
    pub(super) by_condition: Vec<Line>,
    pub(super) by_flag: Vec<FlagLine>,
    pub(super) suppression: Suppression,
    /// From the first flagged window to sounding.
    pub(super) delay_s: Delay,
    pub(super) delay_without_suppression_s: Delay,
    pub(super) returns: Returns,
    pub(super) per_record: Vec<RecordLine>,
    /// The episodes of the whole machine, at most [`MAX_LISTED`].
    pub(super) alarms: Vec<Alarm>,
    alarms_not_listed: usize,
    /// Recordings in which there is nothing to replay.
    pub(super) left_out: Vec<String>,
}

/// An episode of the whole machine. Times are seconds of the recording.
#[derive(Serialize)]
pub(super) struct Alarm {
    pub(super) record: String,
    pub(super) flag: String,
    pub(super) priority: Priority,
    /// End of the window on which it sounded; null: it never did.
    pub(super) sounded_s: Option<f64>,
    /// From the end of the first flagged window.
    pub(super) delay_s: Option<f64>,
    pub(super) suppressed_by: Option<String>,
    pub(super) returns: u64,
}

#[derive(Serialize)]
pub(super) struct Line {
    pub(super) name: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

impl Line {
    const fn new(name: &'static str, figures: Figures) -> Self {
        Self { name, figures }
    }
}

#[derive(Serialize)]
pub(super) struct FlagLine {
    pub(super) flag: String,
    pub(super) priority: Priority,
    pub(super) condition: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

#[derive(Serialize)]
pub(super) struct RecordLine {
    pub(super) record: String,
    pub(super) hours: f64,
    #[serde(flatten)]
    pub(super) figures: Figures,
    flags: BTreeMap<String, Stages<u64>>,
}

/// Episodes that would have sounded.
#[derive(Serialize, Default)]
pub(super) struct Suppression {
    /// That sounded or were suppressed.
    pub(super) episodes: u64,
    /// That never sounded.
    pub(super) silenced: u64,
    /// That sounded, but later.
    pub(super) postponed: u64,
    /// Silenced of all.
    pub(super) share: Option<f64>,
    /// By what explained them first.
    pub(super) by: BTreeMap<String, Suppressed>,
}

#[derive(Serialize, Default)]
pub(super) struct Suppressed {
    pub(super) silenced: u64,
    pub(super) postponed: u64,
}

impl Suppression {
    fn of(episodes: &[Episode]) -> Self {
        let mut found = Self { episodes: episodes.len() as u64, ..Self::default() };
        for episode in episodes {
            let Some(by) = &episode.suppressed_by else { continue };
            let own = found.by.entry(by.clone()).or_default();
            let (silenced, postponed) = match episode.sounded {
                None => (1, 0),
                Some(_) => (0, 1),
            };
            own.silenced += silenced;
            own.postponed += postponed;
            found.silenced += silenced;
            found.postponed += postponed;
        }
        found.share = (found.episodes > 0).then(|| found.silenced as f64 / found.episodes as f64);
        found
    }
}

/// Seconds from the first flagged window to sounding, by nearest rank; null where nothing sounded.
#[derive(Serialize)]
pub(super) struct Delay {
    pub(super) median: Option<f64>,
    pub(super) p90: Option<f64>,
}

impl Delay {
    fn of(episodes: &[Episode]) -> Self {
        let mut delays: Vec<i64> = episodes.iter().filter_map(|episode| episode.delay_us).collect();
        delays.sort_unstable();
        let rank = |share: f64| {
            let place = (share * delays.len() as f64).ceil() as usize;
            delays.get(place.saturating_sub(1)).map(|us| *us as f64 / 1e6)
        };
        Self { median: rank(0.5), p90: rank(0.9) }
    }
}

/// How often a condition came back in an episode that had sounded: because nobody acknowledges, a latching alarm
/// sounds on, and what comes back in it is none more.
#[derive(Serialize)]
pub(super) struct Returns {
    pub(super) undelayed: u64,
    pub(super) delayed: u64,
    pub(super) full: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_alarms::{Condition, RaisedFlag, Window};

    #[test]
    fn runs_are_of_windows_one_right_after_the_other_in_one_pipeline() {
        let window = |pipeline: &str, end_s: i64, raised: bool| Window {
            subject: None,
            pipeline: pipeline.to_owned(),
            end: Timestamp::from_millis(1_000 * end_s),
            id: None,
            raised: std::iter::repeat_n(
                RaisedFlag {
                    flag: "sensor-gaps".into(),
                    priority: Priority::Low,
                    condition: Condition::Limit,
                    text: String::new(),
                },
                usize::from(raised),
            )
            .collect(),
            undetermined: Vec::new(),
        };
        let votes = [
            ("a", 10, true),
            ("b", 10, false),
            ("a", 20, true),
            ("b", 20, true),
            ("a", 30, false),
            ("a", 40, true),
            // A window is missing in between.
            ("a", 60, true),
        ];
        let replayed = Replayed {
            windows: votes.map(|(pipeline, end_s, raised)| window(pipeline, end_s, raised)).into(),
            slides_us: ["a", "b"].map(|name| (name.to_owned(), 10_000_000)).into(),
            held_out: false,
        };
        let [(kind, windows, runs)] = &flagged(&replayed, &Policy::default())[..] else {
            panic!("one kind");
        };
        // The policy's word goes before the window's.
        assert_eq!((kind.condition, *windows, *runs), (Condition::Technical, 5, 4));
    }

    fn episode(delay_s: Option<i64>, by: Option<&str>) -> Episode {
        Episode {
            kind: Kind {
                priority: Priority::Low,
                condition: Condition::Limit,
                flag: "f".to_owned(),
            },
            sounded: delay_s.map(|_| Timestamp::default()),
            delay_us: delay_s.map(|s| s * 1_000_000),
            suppressed_by: by.map(str::to_owned),
            returns: 0,
        }
    }

    #[test]
    fn ranks_and_shares_by_hand() {
        let episodes: Vec<Episode> = (1..=10).rev().map(|s| episode(Some(s), None)).collect();
        let delay = Delay::of(&episodes);
        assert_eq!((delay.median, delay.p90), (Some(5.0), Some(9.0)));
        let explained = [
            episode(None, Some("q")),
            episode(Some(9), Some("q")),
            episode(Some(1), None),
            episode(None, Some("r")),
        ];
        let found = Suppression::of(&explained);
        assert_eq!((found.episodes, found.silenced, found.postponed), (4, 2, 1));
        assert_eq!(found.share, Some(0.5));
        assert_eq!(
            (found.by["q"].silenced, found.by["q"].postponed, found.by["r"].silenced),
            (1, 1, 1)
        );
        assert_eq!(Delay::of(&[]).median, None);
    }
}
