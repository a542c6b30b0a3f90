//! Figures for detectors of faults: injected faults, and the labelled events of motes.
//!
//! # Injected faults
//! From each stream [`Cases::windows_per_stream`] sound windows, evenly spread, and into each every [`FaultKind`] in turn (where it can show). So the kinds are
//! about equally frequent, and "none" is one of eight: precision on a ward, where faults are rare, is lower; the share of sound windows that are
//! called faulty says by how much. Two figures:
//! - *by window*: a window's kind is that of the segment with the greatest sum of probabilities (for rules: the most readings), or none without a segment;
//! - *by reading*: each of the window's readings by itself, those that the injector calls sound included.
//!
//! # Motes
//! A reading is called an event if the probability of no fault is below one half in temperature or humidity. By reading.

use super::features::{Features, features};
use super::inject::{blemish, inject};
use super::model::{FaultError, FaultModel, likeliest, segments};
use super::streams::{Origin, Stream};
use super::{FaultKind, WINDOW, rules};
use crate::statistics::Confusion;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// The kinds' names, for confusions.
pub const NAMES: [&str; FaultKind::ALL.len()] =
    ["none", "stuck", "drift", "spike", "noise", "dropout", "detached", "clock"];
/// Names of event and no event.
pub const EVENT_NAMES: [&str; 2] = ["none", "event"];

/// Which cases are made.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Cases {
    /// What the random numbers grow from.
    pub seed: u64,
    /// Sound windows from each stream.
    pub windows_per_stream: usize,
}

/// Who judges.
#[derive(Clone, Copy, Debug)]
pub enum Judge<'m> {
    /// The model; a patient or mote that it was trained on by the member that was not.
    Model(&'m FaultModel),
    /// The rules.
    Rules,
}

/// How injected faults were told.
#[derive(Clone, PartialEq, Debug)]
pub struct InjectedFigures {
    /// By window.
    pub windows: Confusion,
    /// By reading.
    pub readings: Confusion,
    /// By window, for each data set.
    pub origins: BTreeMap<Origin, Confusion>,
    /// Found and all windows of spike and noise by magnitude, in noises: below 8, below 16, and from 16 on.
    pub by_magnitude: BTreeMap<FaultKind, [(u64, u64); 3]>,
    /// By window: the probability that something is wrong with the reading that is most surely wrong, and whether a fault was put in.
    pub scores: (Vec<f64>, Vec<bool>),
    /// By reading: the probability that something is wrong, and whether it is; every [`SCORED_EVERY`]th reading.
    pub reading_scores: (Vec<f64>, Vec<bool>),
    /// The surest windows called faulty without being so, and the surest called sound without being so; at most [`MISTAKES`] each, the surest first.
    pub mistakes: [Vec<Mistake>; 2],
    /// Patients and motes judged by the one member that had not seen them.
    pub held_out: usize,
    /// Patients and motes that the model does not know.
    pub unknown: usize,
}

/// The most mistakes of each sort that are kept.
pub const MISTAKES: usize = 12;
/// Of so many readings one is kept for calibration.
pub const SCORED_EVERY: usize = 16;

/// A window that was judged wrongly.
#[derive(Clone, PartialEq, Debug)]
pub struct Mistake {
    /// Where the stream comes from.
    pub origin: Origin,
    /// What was put in.
    pub truth: FaultKind,
    /// What it was called.
    pub called: FaultKind,
    /// The probability that something is wrong.
    pub wrong: f64,
    /// Values, NaN where there is none.
    pub values: Vec<f32>,
    /// What is wrong with each.
    pub labels: Vec<FaultKind>,
    /// What each was called.
    pub readings: Vec<FaultKind>,
}

impl InjectedFigures {
    /// The mean F1 of the seven faults by window.
    pub fn mean_f1(&self) -> Option<f64> {
        self.windows.mean_f1(1..FaultKind::ALL.len())
    }
}

/// Puts faults into streams and has them judged.
///
/// # Errors
/// If a network cannot be computed.
pub fn injected(
    streams: &[Stream],
    cases: Cases,
    judge: Judge,
    progress: &mut dyn FnMut(usize),
) -> Result<InjectedFigures, FaultError> {
    let mut figures = InjectedFigures {
        windows: Confusion::new(&NAMES),
        readings: Confusion::new(&NAMES),
        origins: BTreeMap::new(),
        by_magnitude: BTreeMap::new(),
        scores: Default::default(),
        reading_scores: Default::default(),
        mistakes: Default::default(),
        held_out: 0,
        unknown: 0,
    };
    let mut patients = BTreeMap::new();
    for (at, stream) in streams.iter().enumerate() {
        let made = cases.of(stream, at);
        if !made.is_empty() {
            let seen = matches!(judge, Judge::Model(model) if model.has_seen(stream.case));
            patients.insert(stream.case, seen);
        }
        let windows: Vec<&Features> = made.iter().map(|case| &case.features).collect();
        for (case, verdict) in made.iter().zip(judge.windows(&windows, stream)?) {
            figures.count(stream.origin, case, &verdict);
        }
        progress(at + 1);
    }
    figures.held_out = patients.values().filter(|seen| **seen).count();
    figures.unknown = patients.len() - figures.held_out;
    Ok(figures)
}

/// Asks about every reading of every mote; counts events by reading, and the events themselves: found, all.
///
/// # Errors
/// If a network cannot be computed.
pub fn events(streams: &[Stream], judge: Judge) -> Result<(Confusion, (u64, u64)), FaultError> {
    let mut readings = Confusion::new(&EVENT_NAMES);
    let (mut found, mut all) = (0, 0);
    let motes: Vec<&Stream> =
        streams.iter().filter(|stream| stream.origin == Origin::Suthaharan).collect();
    for pair in motes.chunk_by(|a, b| a.case == b.case) {
        let events = &pair[0].events;
        let mut called = vec![false; events.len()];
        for stream in pair {
            for (called, own) in called.iter_mut().zip(judge.stream(stream)?) {
                *called |= own;
            }
        }
        for (event, called) in events.iter().zip(&called) {
            readings.add(usize::from(*event), usize::from(*called));
        }
        let rows: Vec<usize> = (0..events.len()).filter(|row| events[*row]).collect();
        for event in rows.chunk_by(|a, b| a + 1 == *b) {
            all += 1;
            found += u64::from(event.iter().any(|row| called[*row]));
        }
    }
    Ok((readings, (found, all)))
}

/// One window with a known fault.
struct Case {
    kind: FaultKind,
    magnitude: f32,
    labels: Vec<FaultKind>,
    values: Vec<f32>,
    features: Features,
}

impl Cases {
    fn of(&self, stream: &Stream, at: usize) -> Vec<Case> {
        let ends = stream.sound_windows(WINDOW / 4);
        let count = self.windows_per_stream.min(ends.len());
        let mut cases = Vec::new();
        for window in 0..count {
            // Evenly spread, from the middles of as many equal parts.
            let end = ends[(2 * window + 1) * ends.len() / (2 * count)];
            for kind in FaultKind::ALL {
                let mut random = ChaCha8Rng::seed_from_u64(self.seed);
                random.set_stream(
                    (at * self.windows_per_stream + window) as u64 * 8 + kind.index() as u64,
                );
                let mut sound = stream.context(end).to_vec();
                blemish(&mut sound, &mut random);
                let injected = inject(&sound, kind, stream.range, &mut random);
                cases.extend(injected.and_then(|injected| {
                    let features = features(&injected.readings, stream.range)?;
                    let first = injected.labels.len() - features.rows;
                    let labels = injected.labels[first..].to_vec();
                    let values = injected.readings[first..].iter().map(|row| row.value).collect();
                    Some(Case { kind, magnitude: injected.magnitude, labels, values, features })
                }));
            }
        }
        cases
    }
}

/// What a judge says of one window.
struct Verdict {
    window: FaultKind,
    readings: Vec<FaultKind>,
    /// By reading: the probability that something is wrong; rules are sure.
    wrong: Vec<f64>,
}

impl Judge<'_> {
    fn windows(&self, windows: &[&Features], stream: &Stream) -> Result<Vec<Verdict>, FaultError> {
        match self {
            Self::Rules => Ok(windows
                .iter()
                .map(|window| {
                    let readings = rules::judge(window);
                    let sure = |kind: &FaultKind| f64::from(u8::from(*kind != FaultKind::Sound));
                    let wrong = readings.iter().map(sure).collect();
                    Verdict { window: commonest(&readings), readings, wrong }
                })
                .collect()),
            Self::Model(model) => {
                let judged = model.mean_windows(windows, model.members_for(stream.case))?;
                let verdict = |(window, rows): (&&Features, Vec<_>)| {
                    let rows = &rows[..window.rows];
                    Verdict {
                        window: heaviest(rows),
                        readings: rows.iter().map(likeliest).collect(),
                        wrong: rows.iter().map(|row| 1.0 - f64::from(row[0])).collect(),
                    }
                };
                Ok(windows.iter().zip(judged).map(verdict).collect())
            }
        }
    }

    /// Whether each reading of a whole stream is called faulty.
    fn stream(&self, stream: &Stream) -> Result<Vec<bool>, FaultError> {
        if let Self::Model(model) = self {
            let members = model.members_for(stream.case);
            let judged = model.judge_by(&stream.readings, stream.range, members)?;
            return Ok(judged.probabilities.iter().map(|row| row[0] < 0.5).collect());
        }
        let rows = stream.readings.len();
        let mut called = vec![false; rows];
        for part in 0..rows.div_ceil(WINDOW) {
            let end = ((part + 1) * WINDOW).min(rows);
            let window =
                features(&stream.readings[..end], stream.range).ok_or(FaultError::TooFew)?;
            let kinds = rules::judge(&window);
            for (called, kind) in called[end - window.rows..end].iter_mut().zip(kinds) {
                *called |= kind != FaultKind::Sound;
            }
        }
        Ok(called)
    }
}

impl InjectedFigures {
    fn count(&mut self, origin: Origin, case: &Case, verdict: &Verdict) {
        self.windows.add(case.kind.index(), verdict.window.index());
        self.origins
            .entry(origin)
            .or_insert_with(|| Confusion::new(&NAMES))
            .add(case.kind.index(), verdict.window.index());
        for (truth, called) in case.labels.iter().zip(&verdict.readings) {
            self.readings.add(truth.index(), called.index());
        }
        let wrong = verdict.wrong.iter().copied().fold(0.0, f64::max);
        self.scores.0.push(wrong);
        self.scores.1.push(case.kind != FaultKind::Sound);
        for (label, wrong) in case.labels.iter().zip(&verdict.wrong).step_by(SCORED_EVERY) {
            self.reading_scores.0.push(*wrong);
            self.reading_scores.1.push(*label != FaultKind::Sound);
        }
        self.keep_mistake(origin, case, verdict, wrong);
        if matches!(case.kind, FaultKind::Spike | FaultKind::Noise) {
            let bin =
                if case.magnitude < 8.0 { 0 } else { usize::from(case.magnitude >= 16.0) + 1 };
            let (found, all) = &mut self.by_magnitude.entry(case.kind).or_default()[bin];
            *all += 1;
            *found += u64::from(verdict.window == case.kind);
        }
    }
}

impl InjectedFigures {
    fn keep_mistake(&mut self, origin: Origin, case: &Case, verdict: &Verdict, wrong: f64) {
        let sort = match (case.kind, verdict.window) {
            (FaultKind::Sound, called) if called != FaultKind::Sound => 0,
            (kind, FaultKind::Sound) if kind != FaultKind::Sound => 1,
            _ => return,
        };
        let surer = |own: &Mistake| if sort == 0 { own.wrong >= wrong } else { own.wrong <= wrong };
        let kept = &mut self.mistakes[sort];
        let at = kept.partition_point(surer);
        if at == MISTAKES {
            return;
        }
        kept.truncate(MISTAKES - 1);
        let mistake = Mistake {
            origin,
            truth: case.kind,
            called: verdict.window,
            wrong,
            values: case.values.clone(),
            labels: case.labels.clone(),
            readings: verdict.readings.clone(),
        };
        kept.insert(at, mistake);
    }
}

fn heaviest(rows: &[[f32; FaultKind::ALL.len()]]) -> FaultKind {
    let weight = |segment: &super::Segment| segment.probability * segment.rows.len() as f32;
    segments(rows)
        .iter()
        .max_by(|a, b| weight(a).total_cmp(&weight(b)))
        .map_or(FaultKind::Sound, |segment| segment.kind)
}

fn commonest(readings: &[FaultKind]) -> FaultKind {
    let count = |kind: FaultKind| readings.iter().filter(|own| **own == kind).count();
    FaultKind::ALL
        .into_iter()
        .skip(1)
        .filter(|kind| count(*kind) > 0)
        .max_by_key(|kind| count(*kind))
        .unwrap_or(FaultKind::Sound)
}

#[cfg(test)]
mod tests {
    use super::super::inject::tests::wave;
    use super::*;
    use haar_recordings::corpus::CaseId;

    fn stream(rows: usize, events: bool) -> Stream {
        let mut readings = wave(rows, 1);
        let mut marked = vec![false; rows];
        if events {
            for row in 400..460 {
                readings[row].value += 20.0;
                marked[row] = true;
            }
        }
        Stream {
            case: CaseId(1),
            origin: Origin::Suthaharan,
            range: None,
            readings,
            events: marked,
        }
    }

    #[test]
    fn names_are_those_of_the_kinds() {
        assert_eq!(NAMES, FaultKind::ALL.map(FaultKind::name));
    }

    #[test]
    fn every_kind_is_made_and_counted() {
        let cases = Cases { seed: 1, windows_per_stream: 5 };
        let figures = injected(&[stream(900, false)], cases, Judge::Rules, &mut |_| {}).unwrap();
        assert_eq!(figures.windows.cases(), 40);
        assert_eq!(figures.unknown, 1);
        assert!((0..8).all(|kind| figures.windows.class(kind).cases == 5));
        assert_eq!(figures.readings.cases(), 40 * WINDOW as u64);
        let spikes: u64 = figures.by_magnitude[&FaultKind::Spike].iter().map(|(_, all)| all).sum();
        assert_eq!(spikes, 5);
        assert!(figures.mean_f1() > Some(0.5), "{}", figures.windows);
        assert_eq!(figures.scores.0.len(), 40);
        let missed: u64 = (1..8).map(|kind| figures.windows.counts()[kind][0]).sum();
        let [alarms, misses] = &figures.mistakes;
        assert_eq!(misses.len() as u64, missed.min(MISTAKES as u64));
        assert_eq!(alarms.len() as u64, 5 - figures.windows.counts()[0][0]);
        assert!(misses.iter().all(|own| own.values.len() == own.labels.len()));
    }

    #[test]
    fn events_are_counted_by_reading_and_by_event() {
        let (readings, (found, all)) = events(&[stream(900, true)], Judge::Rules).unwrap();
        assert_eq!((found, all), (1, 1));
        assert_eq!(readings.class(1).cases, 60);
        assert!(readings.class(1).f1 > Some(0.7), "{readings}");
    }
}
