//! [`Windows`] against a model that keeps every reading of every window and knows no panes.

use super::*;
use crate::item::device_number;
use haar_normalize::{Frame, Timing, Watermarks};
use haar_schema::{
    ClockEvidence, DeviceId, Mark, Observation, Quality, Quantity, Timestamp, Value,
};
use haar_signals::moments::Moments;
use proptest::prelude::*;

const SECOND_US: i64 = 1_000_000;
const LANE: Lane = Lane(3);
const SIGNALS: [SignalId; 4] =
    [SignalId::HEART_RATE, SignalId::SPO2, SignalId::SYSTOLIC, SignalId::ECG];

fn timing() -> Timing {
    Timing { out_of_orderness_ms: 2_000, idle_after_ms: 30_000, mark_interval_ms: 1_000 }
}

/// What happens at an edge.
#[derive(Clone, Debug)]
enum Step {
    /// After `wait_ms`, a device sends a reading that is so late, or is ahead if negative.
    Reading { wait_ms: i64, device: u8, subject: u8, signal: usize, late_ms: i64 },
    /// Nothing for so many seconds.
    Silence(i64),
    /// The edge looks for silent devices.
    Tick,
}

/// A lane: its entries have the numbers from 1.
#[derive(Clone, Debug)]
enum Sent {
    Reading(Reading<f64>),
    Mark(Mark),
}

/// The lane that an edge's watermark policy makes of it.
fn lane(steps: &[Step], max_pairs: usize) -> Vec<Sent> {
    let mut policy = Watermarks::new(max_pairs);
    let mut now_us = 1_795_000_000 * SECOND_US;
    let mut lane = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match *step {
            Step::Silence(seconds) => now_us += seconds * SECOND_US,
            Step::Tick => {
                now_us += SECOND_US;
                lane.extend(
                    policy.tick(Timestamp::from_micros(now_us)).into_iter().map(Sent::Mark),
                );
            }
            Step::Reading { wait_ms, device, subject, signal, late_ms } => {
                now_us += wait_ms * 1_000;
                let said_us = now_us - late_ms * 1_000;
                let clamped = said_us > now_us + 5 * SECOND_US;
                let observation = Observation {
                    subject: Subject::from_bytes([subject; 16]),
                    device: device_id(device),
                    signal: SIGNALS[signal],
                    value: Value::Quantity(Quantity::new((number * 37 % 101) as f64).unwrap()),
                    effective: Timestamp::from_micros(if clamped { now_us } else { said_us }),
                    ingested: Timestamp::from_micros(now_us),
                    quality: if clamped { Quality::CLOCK_CLAMPED } else { Quality::GOOD },
                    clock: ClockEvidence::Device,
                };
                let frame = Frame {
                    device: observation.device.clone(),
                    subject: observation.subject,
                    observations: vec![observation.clone()],
                    frame_id: None,
                    profile: "test".into(),
                    timing: timing(),
                    received: observation.ingested,
                };
                lane.extend(policy.observe(&frame).into_iter().map(Sent::Mark));
                lane.push(Sent::Reading(Reading {
                    subject: observation.subject,
                    at_us: observation.effective.micros(),
                    ingested_us: now_us,
                    fingerprint: observation.fingerprint(),
                    signal: observation.signal,
                    payload: (number * 37 % 101) as f64,
                }));
            }
        }
    }
    lane
}

fn device_id(device: u8) -> DeviceId {
    format!("device-{device}").parse().unwrap()
}

fn vitals() -> SignalSet {
    SIGNALS[..3].iter().copied().collect()
}

fn item(seq: u64, sent: &Sent) -> Item<f64> {
    let body = match sent {
        Sent::Reading(reading) => Body::Reading(reading.clone()),
        Sent::Mark(mark) => Body::Mark(mark.clone().into()),
    };
    Item { lane: LANE, seq, body }
}

fn opened(windowing: Windowing) -> Windows<Moments> {
    let mut windows = Windows::new(windowing, vitals());
    let body = Body::Open { worker: 0, edge: "edge-1".parse().unwrap() };
    windows.push(Item { lane: LANE, seq: 0, body }, &mut |_| panic!("nothing to fire"));
    windows
}

/// Feeds the entries with numbers from `first` on.
fn feed(windows: &mut Windows<Moments>, first: u64, sent: &[Sent]) -> Vec<Fired<Moments>> {
    let mut fired = Vec::new();
    for (seq, sent) in (first..).zip(sent) {
        windows.push(item(seq, sent), &mut |window| fired.push(window));
    }
    fired
}

/// A reading as the model keeps it: signal, pane, time, value, fingerprint.
type Part = (SignalId, i64, i64, f64, Fingerprint);

/// The model's window.
#[derive(Default)]
struct Whole {
    readings: Vec<Part>,
    /// How many of them were in it when it last fired, and that firing's revision.
    fired: Option<(usize, u32)>,
}

#[derive(Default)]
struct Person {
    marks: BTreeMap<u64, MarkKind>,
    watermark_us: Option<i64>,
    final_us: Option<i64>,
    windows: BTreeMap<i64, Whole>,
}

/// What a window came to, by the model: (seq, subject, end, revision, readings).
type Expected = (u64, Subject, i64, u32, Vec<Part>);

fn model(spec: Windowing, lane: &[Sent]) -> (Vec<Expected>, Counts) {
    let mut people: BTreeMap<Subject, Person> = BTreeMap::new();
    let (mut fired, mut counts) = (Vec::new(), Counts::default());
    for (seq, sent) in (1..).zip(lane) {
        match sent {
            Sent::Reading(reading) if vitals().contains(reading.signal) => {
                people.entry(reading.subject).or_default().read(spec, reading, &mut counts);
            }
            Sent::Mark(mark) if vitals().intersects(mark.signals) => {
                let person = people.entry(mark.subject).or_default();
                let ended = person.mark(spec, mark);
                fired.extend(ended.into_iter().map(|(end_us, revision, readings)| {
                    (seq, mark.subject, end_us, revision, readings)
                }));
                if person.marks.is_empty() {
                    people.remove(&mark.subject);
                }
            }
            _ => {}
        }
    }
    (fired, counts)
}

impl Person {
    fn read(&mut self, spec: Windowing, reading: &Reading<f64>, counts: &mut Counts) {
        let pane = reading.at_us.div_euclid(spec.slide_us);
        let (mut added, mut late) = (false, false);
        for ahead in 1..=spec.size_us / spec.slide_us {
            let end_us = (pane + ahead) * spec.slide_us;
            let fixed = self.final_us.is_some_and(|time| end_us <= time)
                || self.watermark_us.is_some_and(|time| end_us + spec.lateness_us <= time);
            if !fixed {
                added = true;
                late |= self.watermark_us.is_some_and(|time| end_us <= time);
                let part =
                    (reading.signal, pane, reading.at_us, reading.payload, reading.fingerprint);
                self.windows.entry(end_us).or_default().readings.push(part);
            }
        }
        counts.added += u64::from(added);
        counts.late += u64::from(late);
        counts.dropped_late += u64::from(!added);
    }

    /// Of the windows that fire: end, revision, readings.
    fn mark(&mut self, spec: Windowing, mark: &Mark) -> Vec<(i64, u32, Vec<Part>)> {
        let device = device_number(mark.device.as_str());
        match mark.kind {
            MarkKind::Gone => self.marks.remove(&device),
            kind => self.marks.insert(device, kind),
        };
        let active = self.marks.values().filter_map(|kind| match kind {
            MarkKind::Progress(time) => Some(time.micros()),
            _ => None,
        });
        let idle = self.marks.values().filter_map(|kind| match kind {
            MarkKind::Idle(time) => Some(time.micros()),
            _ => None,
        });
        let (promise, all_idle) = match (active.min(), idle.max()) {
            (Some(lowest), _) => (lowest, false),
            (None, Some(latest)) => {
                (latest.div_euclid(spec.slide_us) * spec.slide_us + spec.size_us, true)
            }
            (None, None) => (i64::MAX, false),
        };
        let reached = self.watermark_us.map_or(promise, |before| before.max(promise));
        self.watermark_us = Some(if all_idle { promise } else { reached });
        if all_idle {
            self.final_us = Some(promise);
        }
        let mut fired = Vec::new();
        for (end_us, window) in self.windows.range_mut(..=reached) {
            let revision = match window.fired {
                Some((count, _)) if count == window.readings.len() => continue,
                Some((_, revision)) => revision + 1,
                None => 0,
            };
            window.fired = Some((window.readings.len(), revision));
            fired.push((*end_us, revision, window.readings.clone()));
        }
        if all_idle {
            self.windows.retain(|end_us, _| *end_us <= promise);
        }
        fired
    }
}

fn near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * (1.0 + a.abs()),
        (a, b) => a == b,
    }
}

/// In two passes, as in the textbook: mean, standard deviation, slope per second.
fn naive(part: &[(i64, f64)]) -> (f64, Option<f64>, Option<f64>) {
    let n = part.len() as f64;
    let first_us = part[0].0;
    let seconds = |time: i64| (time - first_us) as f64 * 1e-6;
    let mean = part.iter().map(|(_, value)| value).sum::<f64>() / n;
    let mean_time = part.iter().map(|(time, _)| seconds(*time)).sum::<f64>() / n;
    let squares: f64 = part.iter().map(|(_, value)| (value - mean).powi(2)).sum();
    let times: f64 = part.iter().map(|(time, _)| (seconds(*time) - mean_time).powi(2)).sum();
    let both: f64 =
        part.iter().map(|(time, value)| (seconds(*time) - mean_time) * (value - mean)).sum();
    let deviation = (part.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
    (mean, deviation, (times > 0.0).then(|| both / times))
}

fn agree(fired: &Fired<Moments>, expected: &Expected) {
    let (seq, subject, end_us, revision, readings) = expected;
    assert_eq!(
        (fired.seq, fired.subject, fired.end.micros(), fired.revision),
        (*seq, *subject, *end_us, *revision)
    );
    let mut by_signal: BTreeMap<SignalId, Vec<(i64, f64)>> = BTreeMap::new();
    let mut by_pane: BTreeMap<(SignalId, i64), Vec<Fingerprint>> = BTreeMap::new();
    for (signal, pane, at_us, value, fingerprint) in readings {
        by_signal.entry(*signal).or_default().push((*at_us, *value));
        by_pane.entry((*signal, *pane)).or_default().push(*fingerprint);
    }
    let panes = by_pane.into_iter().map(|((signal, _), mut fingerprints)| {
        fingerprints.sort_unstable();
        (signal, InputsDigest::of_pane(&fingerprints))
    });
    assert_eq!(fired.inputs, InputsDigest::of_window(readings.len() as u64, panes));
    let signals: Vec<SignalId> = fired.series.iter().map(|(signal, _)| *signal).collect();
    assert_eq!(signals, by_signal.keys().copied().collect::<Vec<_>>());
    for ((_, moments), part) in fired.series.iter().zip(by_signal.values()) {
        let values = || part.iter().map(|(_, value)| *value);
        let (mean, deviation, slope) = naive(part);
        assert_eq!(moments.count(), part.len() as u64);
        assert_eq!(moments.min(), values().reduce(f64::min));
        assert_eq!(moments.max(), values().reduce(f64::max));
        assert!(near(moments.mean(), Some(mean)));
        assert!(near(moments.standard_deviation(), deviation));
        assert!(near(moments.slope_per_s(), slope));
    }
}

fn windowing() -> impl Strategy<Value = Windowing> {
    (1..7i64, prop_oneof![Just(1i64), Just(5), Just(10)], 0..40i64).prop_map(
        |(panes, slide, lateness)| {
            let slide_us = slide * SECOND_US;
            Windowing::new(panes * slide_us, slide_us, lateness * SECOND_US).unwrap()
        },
    )
}

/// Readings of two subjects by three devices, within the out-of-orderness and without a pause.
fn orderly() -> impl Strategy<Value = Vec<Step>> {
    let reading = (0..900i64, 0..3u8, 0..SIGNALS.len(), 0..=2_000i64).prop_map(
        |(wait_ms, device, signal, late_ms)| {
            // Each device stays on one subject.
            Step::Reading { wait_ms, device, subject: device % 2, signal, late_ms }
        },
    );
    proptest::collection::vec(reading, 1..200)
}

/// Anything: late and early readings, devices that change subjects, fall silent, wake, and are forgotten.
fn unruly() -> impl Strategy<Value = Vec<Step>> {
    let reading = (
        0..4_000i64,
        0..4u8,
        0..2u8,
        0..SIGNALS.len(),
        prop_oneof![4 => 0..2_000i64, 2 => 0..60_000i64, 1 => -9_000..0i64],
    )
        .prop_map(|(wait_ms, device, subject, signal, late_ms)| Step::Reading {
            wait_ms,
            device,
            subject,
            signal,
            late_ms,
        });
    let step = prop_oneof![
        24 => reading,
        2 => Just(Step::Tick),
        1 => (1..50i64).prop_map(Step::Silence),
    ];
    let gone = proptest::bool::weighted(0.1);
    (proptest::collection::vec(step, 1..250), gone).prop_map(|(mut steps, gone)| {
        if gone {
            let middle = steps.len() / 2;
            steps.splice(middle..middle, [Step::Tick, Step::Silence(90_000), Step::Tick]);
        }
        steps
    })
}

/// The last marks before `first`, by device and subject, as an edge's spool keeps them.
fn base(lane: &[Sent], first: u64) -> Vec<Mark> {
    let mut base: BTreeMap<(DeviceId, Subject), Mark> = BTreeMap::new();
    for sent in &lane[..first as usize - 1] {
        if let Sent::Mark(mark) = sent {
            let key = (mark.device.clone(), mark.subject);
            if mark.kind == MarkKind::Gone {
                base.remove(&key);
            } else {
                base.insert(key, mark.clone());
            }
        }
    }
    base.into_values().collect()
}

/// A machine without state, fed from `first` on.
fn replayed(spec: Windowing, lane: &[Sent], first: u64) -> Vec<Fired<Moments>> {
    let mut windows = opened(spec);
    for mark in base(lane, first) {
        let body = Body::Base(mark.into());
        windows.push(Item { lane: LANE, seq: 0, body }, &mut |_| panic!("nothing to fire"));
    }
    feed(&mut windows, first, &lane[first as usize - 1..])
}

/// Everything of a firing, to the bit.
fn shown(fired: &[Fired<Moments>], after: u64) -> Vec<String> {
    fired
        .iter()
        .filter(|window| window.seq > after)
        .map(|window| format!("{} {window:?}", window.subject.to_hex()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn windows_are_what_a_recomputation_from_scratch_gives(
        spec in windowing(), steps in orderly(),
    ) {
        let silence = [Step::Silence(60), Step::Tick];
        let lane = lane(&[steps.as_slice(), &silence].concat(), 16);
        let mut windows = opened(spec);
        let fired = feed(&mut windows, 1, &lane);
        let (expected, counts) = model(spec, &lane);
        prop_assert_eq!(fired.len(), expected.len());
        fired.iter().zip(&expected).for_each(|(fired, expected)| agree(fired, expected));
        let got = windows.take_counts();
        prop_assert_eq!(got, counts);
        prop_assert_eq!((got.late, got.dropped_late), (0, 0));
        prop_assert!(fired.iter().all(|window| window.revision == 0));
        prop_assert!(windows.holds().is_empty());
    }

    #[test]
    fn unruly_lanes_give_what_the_model_gives(
        spec in windowing(), steps in unruly(), max_pairs in prop_oneof![Just(3usize), Just(16)],
    ) {
        let lane = lane(&steps, max_pairs);
        let mut windows = opened(spec);
        let fired = feed(&mut windows, 1, &lane);
        let (expected, counts) = model(spec, &lane);
        prop_assert_eq!(fired.len(), expected.len());
        fired.iter().zip(&expected).for_each(|(fired, expected)| agree(fired, expected));
        let got = windows.take_counts();
        prop_assert_eq!(got, counts);
        let readings = lane.iter().filter(|sent| match sent {
            Sent::Reading(reading) => vitals().contains(reading.signal),
            Sent::Mark(_) => false,
        });
        prop_assert_eq!(got.added + got.dropped_late, readings.count() as u64);
    }

    #[test]
    fn a_replay_fires_the_same_from_the_cut_on(
        spec in windowing(), steps in unruly(), cut in any::<prop::sample::Index>(),
        pruned_late in 0..30u64,
    ) {
        let lane = lane(&steps, 16);
        let cut = cut.index(lane.len() + 1);
        let mut windows = opened(spec);
        let mut whole = feed(&mut windows, 1, &lane[..cut]);
        let hold = windows.holds().get(&LANE).copied().unwrap_or(cut as u64 + 1);
        whole.extend(feed(&mut windows, cut as u64 + 1, &lane[cut..]));
        // A spool may still have what stands before the hold.
        for first in [hold, hold.saturating_sub(pruned_late).max(1)] {
            let again = replayed(spec, &lane, first);
            prop_assert_eq!(shown(&again, cut as u64), shown(&whole, cut as u64));
        }
    }
}

fn reading(at_s: i64) -> Sent {
    Sent::Reading(Reading {
        subject: Subject::from_bytes([1; 16]),
        at_us: at_s * SECOND_US,
        ingested_us: at_s * SECOND_US,
        fingerprint: Fingerprint([at_s as u64, 0]),
        signal: SignalId::HEART_RATE,
        payload: at_s as f64,
    })
}

fn mark(device: u8, kind: MarkKind) -> Sent {
    let subject = Subject::from_bytes([1; 16]);
    Sent::Mark(Mark { device: device_id(device), subject, signals: vitals(), kind })
}

fn progress(device: u8, at_s: i64) -> Sent {
    mark(device, MarkKind::Progress(Timestamp::from_micros(at_s * SECOND_US)))
}

fn idle(device: u8, at_s: i64) -> Sent {
    mark(device, MarkKind::Idle(Timestamp::from_micros(at_s * SECOND_US)))
}

/// (end in seconds, revision, readings) of what fires.
fn ends(fired: &[Fired<Moments>]) -> Vec<(i64, u32, u64)> {
    fired
        .iter()
        .map(|window| {
            (window.end.micros() / SECOND_US, window.revision, window.inputs.observations)
        })
        .collect()
}

fn tumbling(lateness_s: i64) -> Windowing {
    Windowing::new(10 * SECOND_US, 10 * SECOND_US, lateness_s * SECOND_US).unwrap()
}

#[test]
fn a_late_reading_corrects_and_a_later_one_is_dropped() {
    let mut windows = opened(tumbling(20));
    let sent = [reading(3), progress(0, 12), reading(4), reading(5), progress(0, 12), reading(6)];
    assert_eq!(ends(&feed(&mut windows, 1, &sent)), [(10, 0, 1), (10, 1, 3)]);
    let sent = [progress(0, 29), reading(7), progress(0, 30), reading(8), progress(0, 40)];
    assert_eq!(ends(&feed(&mut windows, 7, &sent)), [(10, 2, 4), (10, 3, 5)]);
    let counts = windows.take_counts();
    assert_eq!((counts.added, counts.late, counts.dropped_late), (5, 4, 1));
    assert!(windows.holds().is_empty());
}

#[test]
fn an_idle_device_holds_nothing_up_and_is_waited_for_again() {
    let mut windows = opened(tumbling(0));
    let sent = [progress(0, 0), progress(1, 0), reading(3), progress(0, 25)];
    assert_eq!(ends(&feed(&mut windows, 1, &sent)), []);
    assert_eq!(windows.holds(), BTreeMap::from([(LANE, 3)]));
    assert_eq!(ends(&feed(&mut windows, 5, &[idle(1, 3)])), [(10, 0, 1)]);
    // It wakes; the other one's progress is not enough any more.
    let sent = [reading(26), progress(1, 26), progress(0, 45)];
    assert_eq!(ends(&feed(&mut windows, 6, &sent)), []);
    assert_eq!(ends(&feed(&mut windows, 9, &[progress(1, 30)])), [(30, 0, 1)]);
}

#[test]
fn when_all_are_idle_everything_fires_and_nothing_is_held() {
    let mut windows =
        opened(Windowing::new(30 * SECOND_US, 10 * SECOND_US, 60 * SECOND_US).unwrap());
    let sent = [progress(0, 3), progress(1, 4), reading(5), reading(12), idle(0, 12), idle(1, 5)];
    assert_eq!(
        ends(&feed(&mut windows, 1, &sent)),
        [(10, 0, 1), (20, 0, 2), (30, 0, 2), (40, 0, 1)]
    );
    assert!(windows.holds().is_empty());
    // Awake within what is final: only windows beyond it take part.
    let sent = [progress(0, 12), reading(18), reading(21), progress(0, 80)];
    assert_eq!(ends(&feed(&mut windows, 7, &sent)), [(50, 0, 1)]);
    let counts = windows.take_counts();
    assert_eq!((counts.added, counts.dropped_late), (3, 1));
}

#[test]
fn when_the_last_is_gone_what_is_open_fires_and_the_subject_is_forgotten() {
    let mut windows = opened(tumbling(0));
    let sent = [progress(0, 0), reading(3), mark(0, MarkKind::Gone)];
    assert_eq!(ends(&feed(&mut windows, 1, &sent)), [(10, 0, 1)]);
    assert!(windows.subjects.is_empty());
}

#[test]
fn a_device_that_joins_behind_is_held_until_it_has_caught_up() {
    let mut windows = opened(tumbling(0));
    assert_eq!(ends(&feed(&mut windows, 1, &[progress(0, 100), progress(1, 50)])), []);
    assert_eq!(windows.holds(), BTreeMap::from([(LANE, 2)]));
    feed(&mut windows, 3, &[reading(101), progress(1, 60), progress(0, 120)]);
    assert_eq!(windows.holds(), BTreeMap::from([(LANE, 2)]));
    assert_eq!(ends(&feed(&mut windows, 6, &[progress(1, 110)])), [(110, 0, 1)]);
    assert!(windows.holds().is_empty());
}

#[test]
fn base_marks_have_no_order() {
    let mut windows = opened(tumbling(0));
    for kind in [(0, 100), (1, 50)] {
        let Sent::Mark(mark) = progress(kind.0, kind.1) else { unreachable!() };
        let body = Body::Base(mark.into());
        windows.push(Item { lane: LANE, seq: 0, body }, &mut |_| panic!("nothing to fire"));
    }
    let sent = [reading(55), progress(1, 60)];
    assert_eq!(ends(&feed(&mut windows, 8, &sent)), [(60, 0, 1)]);
}

#[test]
fn a_closed_lane_is_forgotten() {
    let mut windows = opened(tumbling(0));
    feed(&mut windows, 1, &[progress(0, 0), reading(3)]);
    let close = Item { lane: LANE, seq: 0, body: Body::Close { worker: 0 } };
    windows.push(close, &mut |_| panic!("nothing to fire"));
    assert!(windows.holds().is_empty());
    assert_eq!(ends(&feed(&mut windows, 3, &[progress(0, 30)])), []);
}
