//! Watermarks: how far event time has come, for each device on each subject.
//!
//! The policy, per pair of device and subject:
//! - the first observation gives a mark at once;
//! - then one whenever the latest event time, less the profile's out-of-orderness, has come on by the
//!   profile's mark interval, or a new signal appears;
//! - silence for the idle timeout (in ingest time) gives [`MarkKind::Idle`]; the next observation gives a
//!   mark at once;
//! - [`GONE_AFTER_MS`] of silence gives [`MarkKind::Gone`], and the pair is forgotten;
//! - a device that appears on another subject leaves the one before idle at once.
//!
//! The times of a pair's marks never go back. A reading with a clamped clock never moves a mark. A device
//! that sends nothing else counts as silent for all but the last two of these rules, and is idle from
//! its first reading: a clock that runs ahead must not hold up a window. So that windows end all the
//! same, each idle timeout such a device is marked idle anew, no further than ingest time less the
//! out-of-orderness.
//!
//! A mark belongs before the observations of the frame that caused it.

use crate::normalizer::Frame;
use crate::profile::Timing;
use haar_schema::{DeviceId, Mark, MarkKind, Quality, SignalId, SignalSet, Subject, Timestamp};
use std::collections::BTreeMap;

/// How many pairs a node follows unless it says otherwise.
pub const DEFAULT_MAX_PAIRS: usize = 16_384;
/// Silence after which a pair is forgotten.
pub const GONE_AFTER_MS: u64 = 24 * 3_600_000;

/// The state of all pairs. Pure: give it what happened and append what it returns.
///
/// What it returned is taken for written by [`Watermarks::commit`], and undone by
/// [`Watermarks::rollback`].
///
/// At most as many pairs as it is made with. At that bound a new pair takes the place of the one that
/// was silent for longest, which is marked [`MarkKind::Gone`].
#[derive(Debug)]
pub struct Watermarks {
    max_pairs: usize,
    pairs: BTreeMap<Key, Pair>,
    /// The pair that each device was last on.
    current: BTreeMap<DeviceId, Subject>,
    /// What the touched pairs and devices were at the last commit.
    pairs_before: BTreeMap<Key, Option<Pair>>,
    current_before: BTreeMap<DeviceId, Option<Subject>>,
}

type Key = (DeviceId, Subject);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Pair {
    signals: SignalSet,
    /// The time of the last mark; the next is not before it.
    marked: Timestamp,
    idle: bool,
    /// Latest event time of readings with a sound clock.
    latest: Timestamp,
    /// Ingest time of the last such reading.
    sound: Timestamp,
    /// Ingest time of the last reading at all.
    heard: Timestamp,
    timing: Timing,
}

/// The spool's key of a mark: the subject's 16 bytes and the device.
pub fn mark_key(mark: &Mark) -> Vec<u8> {
    [&mark.subject.to_bytes(), mark.device.as_str().as_bytes()].concat()
}

impl Watermarks {
    /// Without a pair; follows at most `max_pairs` (at least one).
    pub fn new(max_pairs: usize) -> Self {
        Self {
            max_pairs: max_pairs.max(1),
            pairs: BTreeMap::new(),
            current: BTreeMap::new(),
            pairs_before: BTreeMap::new(),
            current_before: BTreeMap::new(),
        }
    }

    /// From the last marks of each pair in the order in which they were written. Silence counts from
    /// `now`, and until a device has been heard again by the default [`Timing`].
    pub fn restore(
        max_pairs: usize,
        marks: impl IntoIterator<Item = Mark>,
        now: Timestamp,
    ) -> Self {
        let mut watermarks = Self::new(max_pairs);
        for mark in marks {
            let (marked, idle) = match mark.kind {
                MarkKind::Progress(time) => (time, false),
                MarkKind::Idle(time) => (time, true),
                MarkKind::Gone => continue,
            };
            let pair = Pair {
                signals: mark.signals,
                marked,
                idle,
                latest: marked,
                sound: now,
                heard: now,
                timing: Timing::default(),
            };
            watermarks.current.insert(mark.device.clone(), mark.subject);
            watermarks.pairs.insert((mark.device, mark.subject), pair);
        }
        watermarks
    }

    /// What a frame makes known. Append the marks before the frame's observations, in one append.
    pub fn observe(&mut self, frame: &Frame) -> Vec<Mark> {
        let mut marks = Vec::new();
        let key = (frame.device.clone(), frame.subject);
        if let Some(before) = self.current.get(&frame.device).copied()
            && before != frame.subject
        {
            marks.extend(self.leave((frame.device.clone(), before)));
        }
        if self.current.get(&frame.device) != Some(&frame.subject) {
            self.set_current(&frame.device, Some(frame.subject));
        }
        if !self.pairs.contains_key(&key) {
            while self.pairs.len() >= self.max_pairs {
                marks.extend(self.evict());
            }
        }
        let seen = Seen::of(frame);
        let (pair, mark) = match self.pairs.get(&key) {
            None => seen.first(frame),
            Some(pair) => seen.next(pair.clone(), frame),
        };
        marks.extend(mark.map(|kind| mark_of(&key, &pair, kind)));
        self.set(key, Some(pair));
        marks
    }

    /// What the passing of time makes known. To be called about once a second with ingest time.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Mark> {
        let changes: Vec<(Key, Option<Pair>, Mark)> = self
            .pairs
            .iter()
            .filter_map(|(key, pair)| {
                let (after, kind) = pair.after_silence(now)?;
                let mark = mark_of(key, pair, kind);
                Some((key.clone(), after, mark))
            })
            .collect();
        let mut marks = Vec::with_capacity(changes.len());
        for (key, after, mark) in changes {
            if after.is_none() {
                self.forget(&key);
            } else {
                self.set(key, after);
            }
            marks.push(mark);
        }
        marks
    }

    /// What was returned since the last commit has been written.
    pub fn commit(&mut self) {
        self.pairs_before.clear();
        self.current_before.clear();
    }

    /// What was returned since the last commit has certainly not been written, and what caused it will
    /// come again or is lost: the state is as at the last commit.
    pub fn rollback(&mut self) {
        for (key, before) in std::mem::take(&mut self.pairs_before) {
            match before {
                Some(pair) => self.pairs.insert(key, pair),
                None => self.pairs.remove(&key),
            };
        }
        for (device, before) in std::mem::take(&mut self.current_before) {
            match before {
                Some(subject) => self.current.insert(device, subject),
                None => self.current.remove(&device),
            };
        }
    }

    /// How many pairs it follows.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether it follows none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The device has gone to another subject.
    fn leave(&mut self, key: Key) -> Option<Mark> {
        let mut pair = self.pairs.get(&key).filter(|pair| !pair.idle)?.clone();
        pair.idle = true;
        pair.marked = pair.marked.max(pair.latest);
        let mark = mark_of(&key, &pair, MarkKind::Idle(pair.marked));
        self.set(key, Some(pair));
        Some(mark)
    }

    /// Forgets the pair that was silent for longest.
    fn evict(&mut self) -> Option<Mark> {
        let (key, pair) = self.pairs.iter().min_by_key(|(_, pair)| pair.heard)?;
        let (key, mark) = (key.clone(), mark_of(key, pair, MarkKind::Gone));
        self.forget(&key);
        Some(mark)
    }

    fn forget(&mut self, key: &Key) {
        if self.current.get(&key.0) == Some(&key.1) {
            self.set_current(&key.0, None);
        }
        self.set(key.clone(), None);
    }

    fn set(&mut self, key: Key, pair: Option<Pair>) {
        let before = match pair {
            Some(pair) => self.pairs.insert(key.clone(), pair),
            None => self.pairs.remove(&key),
        };
        self.pairs_before.entry(key).or_insert(before);
    }

    fn set_current(&mut self, device: &DeviceId, subject: Option<Subject>) {
        let before = match subject {
            Some(subject) => self.current.insert(device.clone(), subject),
            None => self.current.remove(device),
        };
        self.current_before.entry(device.clone()).or_insert(before);
    }
}

fn mark_of((device, subject): &Key, pair: &Pair, kind: MarkKind) -> Mark {
    Mark { device: device.clone(), subject: *subject, signals: pair.signals, kind }
}

/// What of a frame concerns its pair.
struct Seen {
    signals: SignalSet,
    /// Latest event time with a sound clock.
    sound: Option<Timestamp>,
}

impl Seen {
    fn of(frame: &Frame) -> Self {
        let signals: SignalSet =
            frame.observations.iter().map(|reading| -> SignalId { reading.signal }).collect();
        let sound = frame
            .observations
            .iter()
            .filter(|reading| !reading.quality.has(Quality::CLOCK_CLAMPED));
        Self { signals, sound: sound.map(|reading| reading.effective).max() }
    }

    fn first(&self, frame: &Frame) -> (Pair, Option<MarkKind>) {
        let latest = self.sound.unwrap_or(frame.received);
        let marked = behind(latest, frame.timing);
        let idle = self.sound.is_none();
        let pair = Pair {
            signals: self.signals,
            marked,
            idle,
            latest: if idle { marked } else { latest },
            sound: frame.received,
            heard: frame.received,
            timing: frame.timing,
        };
        let kind = if idle { MarkKind::Idle(marked) } else { MarkKind::Progress(marked) };
        (pair, Some(kind))
    }

    fn next(&self, mut pair: Pair, frame: &Frame) -> (Pair, Option<MarkKind>) {
        let union = pair.signals.union(self.signals);
        let grown = union != pair.signals;
        pair.signals = union;
        pair.timing = frame.timing;
        pair.heard = pair.heard.max(frame.received);
        let woken = pair.idle && self.sound.is_some();
        if let Some(effective) = self.sound {
            pair.latest = pair.latest.max(effective);
            pair.sound = pair.sound.max(frame.received);
            pair.idle = false;
        }
        let reached = behind(pair.latest, pair.timing);
        let interval_us = i64::from(pair.timing.mark_interval_ms) * 1_000;
        let due = reached > pair.marked && reached.micros_since(pair.marked) >= interval_us;
        if !(due || grown || woken) || (self.sound.is_none() && !grown) {
            return (pair, None);
        }
        if self.sound.is_some() {
            pair.marked = pair.marked.max(reached);
        }
        let kind =
            if pair.idle { MarkKind::Idle(pair.marked) } else { MarkKind::Progress(pair.marked) };
        (pair, Some(kind))
    }
}

impl Pair {
    /// The pair and its mark if so much silence means something; no pair if it is gone.
    fn after_silence(&self, now: Timestamp) -> Option<(Option<Self>, MarkKind)> {
        if now.micros_since(self.heard) >= GONE_AFTER_MS as i64 * 1_000 {
            return Some((None, MarkKind::Gone));
        }
        let idle_us = i64::from(self.timing.idle_after_ms) * 1_000;
        if now.micros_since(self.sound) < idle_us {
            return None;
        }
        let mut marked = self.marked.max(self.latest);
        if self.heard > self.sound {
            // It sends, but with a clock that runs ahead: ingest time is all that is known.
            marked = marked.max(behind(self.heard, self.timing));
        }
        if self.idle && marked == self.marked {
            return None;
        }
        // The next of these not before another idle timeout.
        let sound = if self.heard > self.sound { now } else { self.sound };
        let heard = self.heard;
        Some((
            Some(Self { marked, idle: true, sound, heard, ..self.clone() }),
            MarkKind::Idle(marked),
        ))
    }
}

/// So much behind the latest event time that what comes out of order is not late.
fn behind(latest: Timestamp, timing: Timing) -> Timestamp {
    latest.plus_micros(-i64::from(timing.out_of_orderness_ms) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use haar_schema::{ClockEvidence, Observation, Quantity, Value};
    use proptest::prelude::*;

    /// One reading, times in seconds.
    fn frame(device: &str, subject: u8, signal: SignalId, effective: i64, received: i64) -> Frame {
        let received = Timestamp::from_millis(received * 1_000);
        let said = Timestamp::from_millis(effective * 1_000);
        let clamped = said > received.plus_micros(5_000_000);
        let observation = Observation {
            subject: Subject::from_bytes([subject; 16]),
            device: device.parse().unwrap(),
            signal,
            value: Value::Quantity(Quantity::new(1.0).unwrap()),
            effective: if clamped { received } else { said },
            ingested: received,
            quality: if clamped { Quality::CLOCK_CLAMPED } else { Quality::GOOD },
            clock: ClockEvidence::Device,
        };
        Frame {
            device: observation.device.clone(),
            subject: observation.subject,
            observations: vec![observation],
            frame_id: None,
            profile: "test".into(),
            timing: Timing::default(),
            received,
        }
    }

    fn heart_rate(effective: i64, received: i64) -> Frame {
        frame("a", 1, SignalId::HEART_RATE, effective, received)
    }

    fn kinds(marks: &[Mark]) -> Vec<MarkKind> {
        marks.iter().map(|mark| mark.kind).collect()
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn marks_follow_event_time_at_the_interval() {
        let mut marks = Watermarks::new(8);
        let mut at = |time| kinds(&marks.observe(&heart_rate(time, time)));
        assert_eq!(at(100), [MarkKind::Progress(second(98))]);
        assert_eq!(at(100), []);
        assert_eq!(at(101), [MarkKind::Progress(second(99))]);
        assert_eq!(at(90), []);
        assert_eq!(at(105), [MarkKind::Progress(second(103))]);
        let grown = marks.observe(&frame("a", 1, SignalId::SPO2, 104, 105));
        assert_eq!(kinds(&grown), [MarkKind::Progress(second(103))]);
        assert!(grown[0].signals.contains(SignalId::HEART_RATE));
        assert!(grown[0].signals.contains(SignalId::SPO2));
    }

    #[test]
    fn silence_is_idle_then_gone() {
        let mut marks = Watermarks::new(8);
        marks.observe(&heart_rate(100, 100));
        assert_eq!(marks.tick(second(129)), []);
        assert_eq!(kinds(&marks.tick(second(130))), [MarkKind::Idle(second(100))]);
        assert_eq!(marks.tick(second(131)), []);
        // It wakes with a reading from before: the mark does not go back.
        assert_eq!(kinds(&marks.observe(&heart_rate(90, 140))), [MarkKind::Progress(second(100))]);
        assert_eq!(kinds(&marks.tick(second(140 + 86_400))), [MarkKind::Gone]);
        assert!(marks.is_empty());
        assert_eq!(kinds(&marks.observe(&heart_rate(90, 140))), [MarkKind::Progress(second(88))]);
    }

    #[test]
    fn a_device_that_moves_leaves_idle_behind() {
        let mut marks = Watermarks::new(8);
        marks.observe(&heart_rate(100, 100));
        let moved = marks.observe(&frame("a", 2, SignalId::HEART_RATE, 101, 101));
        assert_eq!(kinds(&moved), [MarkKind::Idle(second(100)), MarkKind::Progress(second(99))]);
        assert_eq!(moved[0].subject, Subject::from_bytes([1; 16]));
        let back = marks.observe(&heart_rate(103, 103));
        assert_eq!(kinds(&back), [MarkKind::Idle(second(101)), MarkKind::Progress(second(101))]);
    }

    #[test]
    fn a_clock_that_runs_ahead_holds_nothing_up() {
        let mut marks = Watermarks::new(8);
        let mut at = |time| kinds(&marks.observe(&heart_rate(time + 3_600, time)));
        assert_eq!(at(100), [MarkKind::Idle(second(98))]);
        assert_eq!(at(101), []);
        assert_eq!(at(129), []);
        assert_eq!(kinds(&marks.tick(second(130))), [MarkKind::Idle(second(127))]);
        assert_eq!(marks.tick(second(131)), []);
        // Set right, it is waited for again.
        assert_eq!(kinds(&marks.observe(&heart_rate(131, 131))), [MarkKind::Progress(second(129))]);
    }

    #[test]
    fn at_the_bound_the_most_silent_pair_goes() {
        let mut marks = Watermarks::new(2);
        marks.observe(&frame("a", 1, SignalId::SPO2, 100, 100));
        marks.observe(&frame("b", 2, SignalId::SPO2, 101, 101));
        marks.observe(&frame("a", 1, SignalId::SPO2, 102, 102));
        let new = marks.observe(&frame("c", 3, SignalId::SPO2, 103, 103));
        assert_eq!(kinds(&new), [MarkKind::Gone, MarkKind::Progress(second(101))]);
        assert_eq!(new[0].device.as_str(), "b");
        assert_eq!(marks.len(), 2);
    }

    #[test]
    fn restored_pairs_go_on_where_they_were() {
        let mut marks = Watermarks::new(8);
        let written = marks.observe(&heart_rate(100, 100));
        let mut restored = Watermarks::restore(8, written, second(200));
        assert_eq!(kinds(&restored.observe(&heart_rate(100, 201))), []);
        assert_eq!(
            kinds(&restored.observe(&heart_rate(102, 202))),
            [MarkKind::Progress(second(100))]
        );
        let idle = Watermarks::restore(8, marks.tick(second(130)), second(200)).tick(second(300));
        assert_eq!(idle, []);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Observe { device: u8, subject: u8, signal: u8, late: i64 },
        Tick(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3u8, 0..3u8, 0..3u8, -20..20i64)
                .prop_map(|(device, subject, signal, late)| Step::Observe { device, subject, signal, late }),
            1 => (0..90i64).prop_map(Step::Tick),
        ]
    }

    fn run(marks: &mut Watermarks, step: &Step, now: &mut i64) -> Vec<Mark> {
        match step {
            Step::Tick(seconds) => {
                *now += seconds;
                marks.tick(second(*now))
            }
            Step::Observe { device, subject, signal, late } => {
                *now += 1;
                let signal = SignalId::from_index(*signal).unwrap();
                marks.observe(&frame(&format!("d{device}"), *subject, signal, *now - late, *now))
            }
        }
    }

    fn time(kind: MarkKind) -> Option<Timestamp> {
        match kind {
            MarkKind::Progress(time) | MarkKind::Idle(time) => Some(time),
            MarkKind::Gone => None,
        }
    }

    proptest! {
        #[test]
        fn marks_never_go_back_and_never_pass_ingest_time(
            steps in proptest::collection::vec(step(), 1..120), max_pairs in 1..6usize,
        ) {
            let mut marks = Watermarks::new(max_pairs);
            let mut last: BTreeMap<Key, Timestamp> = BTreeMap::new();
            let mut now = 1_000;
            for step in &steps {
                for mark in run(&mut marks, step, &mut now) {
                    let key = (mark.device.clone(), mark.subject);
                    match time(mark.kind) {
                        None => { last.remove(&key); }
                        Some(time) => {
                            prop_assert!(last.get(&key).is_none_or(|before| *before <= time));
                            // The skew that a clock is allowed is all that it can be ahead.
                            prop_assert!(time <= second(now + 5));
                            last.insert(key, time);
                        }
                    }
                }
                prop_assert!(marks.len() <= max_pairs);
                prop_assert!(marks.current.len() <= marks.pairs.len());
            }
        }

        #[test]
        fn a_clamped_reading_never_moves_a_mark(
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut marks = Watermarks::new(8);
            let mut now = 1_000;
            for step in &steps {
                run(&mut marks, step, &mut now);
            }
            let ahead = frame("d0", 0, SignalId::HEART_RATE, now + 100, now);
            let key = (ahead.device.clone(), ahead.subject);
            let before = marks.pairs.get(&key).map(|pair| pair.marked);
            marks.observe(&ahead);
            if let Some(before) = before {
                prop_assert_eq!(marks.pairs[&key].marked, before);
            }
        }

        #[test]
        fn rolling_back_is_as_if_it_had_not_been(
            before in proptest::collection::vec(step(), 0..40),
            undone in proptest::collection::vec(step(), 0..40),
            max_pairs in 1..6usize,
        ) {
            let mut marks = Watermarks::new(max_pairs);
            let mut now = 1_000;
            for step in &before {
                run(&mut marks, step, &mut now);
            }
            marks.commit();
            let (pairs, current) = (marks.pairs.clone(), marks.current.clone());
            for step in &undone {
                run(&mut marks, step, &mut now);
            }
            marks.rollback();
            prop_assert!(marks.pairs == pairs && marks.current == current);
        }
    }
}
