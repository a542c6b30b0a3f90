//! The built-in pipelines as they run: what is concluded depends on the lanes and on nothing else, and
//! it is what the same mathematics gives when it is applied to the readings directly.

#![allow(clippy::unwrap_used)]

use haar_catalog::{Curve, Family, OPTIONAL, Pipeline, builtin};
use haar_dataflow::conclude::SharedWard;
use haar_dataflow::deployment::{Deployments, SharedDeployments};
use haar_dataflow::item::{Items, Lane};
use haar_dataflow::runtime::{Feed, WorkerEpoch, common_pane_us, start};
use haar_inference::{BeatModel, BeatScore};
use haar_normalize::{Frame, Timing, Watermarks};
use haar_recordings::bidmc::{RATE_HZ, Recording, is_part, names};
use haar_recordings::corpus::Corpus;
use haar_recordings::wfdb::Record;
use haar_schema::{
    ClockEvidence, EdgeId, Entry, Feature, Features, Observation, Quality, Quantity, SampleRate,
    SampledData, SignalId, Subject, Timestamp, Value, WindowDigest,
};
use haar_signals::moments::Moments;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const SECOND_US: i64 = 1_000_000;
/// A border of every pane of the built-in pipelines.
const BEGIN_US: i64 = 1_795_000_000 * SECOND_US;
const TIMING: Timing =
    Timing { out_of_orderness_ms: 2_000, idle_after_ms: 30_000, mark_interval_ms: 1_000 };

/// What an edge spooled, from sequence number 1.
struct Spooled {
    edge: EdgeId,
    entries: Vec<Entry>,
}

impl Spooled {
    /// Frames as (ingest time, readings of one device and subject), in the order of their arrival.
    fn of(edge: &str, frames: Vec<(i64, Vec<Observation>)>) -> Self {
        let mut policy = Watermarks::new(64);
        let mut entries = Vec::new();
        let mut now_us = BEGIN_US;
        for (received_us, observations) in frames {
            now_us = now_us.max(received_us);
            let received = Timestamp::from_micros(received_us);
            entries.extend(policy.tick(received).into_iter().map(Entry::Mark));
            let frame = Frame {
                device: observations[0].device.clone(),
                subject: observations[0].subject,
                observations: observations.clone(),
                frame_id: None,
                profile: "test".into(),
                timing: TIMING,
                received,
            };
            entries.extend(policy.observe(&frame).into_iter().map(Entry::Mark));
            entries.extend(observations.into_iter().map(Entry::Observation));
        }
        let later = Timestamp::from_micros(now_us + 60 * SECOND_US);
        entries.extend(policy.tick(later).into_iter().map(Entry::Mark));
        Self { edge: edge.parse().unwrap(), entries }
    }

    fn observations(&self) -> impl Iterator<Item = &Observation> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Observation(observation) => Some(observation),
            _ => None,
        })
    }
}

fn observation(
    (subject, device): (u8, &str),
    signal: SignalId,
    value: Value,
    at_us: i64,
    received_us: i64,
) -> Observation {
    Observation {
        subject: Subject::from_bytes([subject.wrapping_mul(59); 16]),
        device: device.parse().unwrap(),
        signal,
        value,
        effective: Timestamp::from_micros(at_us),
        ingested: Timestamp::from_micros(received_us),
        quality: Quality::GOOD,
        clock: ClockEvidence::Device,
    }
}

/// Vitals once a second, up to two seconds late and some of them much later.
fn vitals(random: &mut ChaCha8Rng, subject: u8, seconds: i64) -> Vec<(i64, Vec<Observation>)> {
    let device = format!("monitor-{subject}");
    let frames = (0..seconds).map(|second| {
        let at_us = BEGIN_US + second * SECOND_US + random.random_range(0..400_000);
        let far = random.random_bool(0.02);
        let late_us = if far { 15_000_000 } else { random.random_range(0..1_500_000) };
        let readings = [
            (SignalId::HEART_RATE, random.random_range(45.0..140.0)),
            (SignalId::SPO2, random.random_range(86.0..100.0)),
            (SignalId::RESPIRATION_RATE, random.random_range(8.0..30.0)),
            (SignalId::SYSTOLIC, random.random_range(80.0..160.0)),
        ];
        let received_us = at_us + late_us;
        let observations = readings.map(|(signal, value)| {
            let value = Value::Quantity(Quantity::new(value).unwrap());
            observation((subject, &device), signal, value, at_us, received_us)
        });
        (received_us, observations.to_vec())
    });
    frames.collect()
}

/// Beats of a narrow wave about every 0.8 s, one in ten early and broad, as frames of half a second.
fn ecg(random: &mut ChaCha8Rng, subject: u8, seconds: i64) -> Vec<(i64, Vec<Observation>)> {
    let rate = SampleRate::from_hz(250).unwrap();
    let mut microvolts = vec![0.0f64; (seconds * 250) as usize];
    let mut at = 0.4;
    while at < seconds as f64 {
        let ectopic = random.random_bool(0.1);
        let (width, height) = if ectopic { (0.045, 1_600.0) } else { (0.012, 1_100.0) };
        for (index, sample) in microvolts.iter_mut().enumerate() {
            let distance = (index as f64 / 250.0 - at) / width;
            if distance.abs() < 5.0 {
                *sample += height * (-0.5 * distance * distance).exp();
            }
        }
        at += random.random_range(0.75..0.85) * if ectopic { 1.3 } else { 1.0 };
    }
    let raw: Vec<i16> =
        microvolts.iter().map(|v| (v + random.random_range(-20.0..20.0)) as i16).collect();
    let device = format!("ecg-{subject}");
    // 130 samples: frames that do not end where panes end.
    frames(random, (subject, &device, SignalId::ECG), rate, 0.001, &raw, 130)
}

/// A waveform as frames that arrive up to 1.5 s late, so in another order.
fn frames(
    random: &mut ChaCha8Rng,
    source: (u8, &str, SignalId),
    rate: SampleRate,
    factor: f32,
    raw: &[i16],
    samples_per_frame: usize,
) -> Vec<(i64, Vec<Observation>)> {
    let begin = Timestamp::from_micros(BEGIN_US);
    let mut at = 0;
    raw.chunks(samples_per_frame)
        .map(|samples| {
            let at_us = rate.sample_time(begin, at).micros();
            at += samples.len() as u64;
            let received_us = at_us + random.random_range(0..1_500_000);
            let data = SampledData::new(rate, 0.0, factor, samples.to_vec()).unwrap();
            let value = Value::Sampled(data);
            let (subject, device, signal) = source;
            let one = observation((subject, device), signal, value, at_us, received_us);
            (received_us, vec![one])
        })
        .collect()
}

/// In the order of their arrival.
fn arrived(mut frames: Vec<(i64, Vec<Observation>)>) -> Vec<(i64, Vec<Observation>)> {
    frames.sort_by_key(|(received_us, _)| *received_us);
    frames
}

fn models() -> SharedDeployments {
    SharedDeployments::new(Deployments::built_in().unwrap())
}

/// The concluded windows: edge, number of the firing mark, canonical digest, canonical flags.
type Concluded = BTreeSet<(String, u64, Vec<u8>, Vec<Vec<u8>>)>;

/// Runs the lanes through the dataflow, in batches and epochs of random length.
fn run(lanes: &[Spooled], workers: usize, seed: u64) -> (Concluded, u64) {
    run_with(&builtin(), lanes, workers, seed)
}

fn run_with(
    pipelines: &[Pipeline],
    lanes: &[Spooled],
    workers: usize,
    seed: u64,
) -> (Concluded, u64) {
    let runtime = start(pipelines, &models(), &SharedWard::default(), workers).unwrap();
    let epochs = runtime.epochs;
    let collector = std::thread::spawn(move || epochs.iter().collect::<Vec<WorkerEpoch>>());
    send(lanes, runtime.feed, common_pane_us(pipelines), seed);
    let collected = collector.join().unwrap();
    runtime.thread.join().unwrap().unwrap();
    let mut concluded = Concluded::new();
    let (mut windows, mut dropped) = (0, 0);
    for epoch in collected {
        assert_eq!(epoch.unscored, 0);
        dropped += epoch.counts.values().map(|counts| counts.dropped_late).sum::<u64>();
        windows += epoch.windows.len();
        concluded.extend(epoch.windows.into_iter().map(|window| {
            let flagged = window.flagged.iter().map(|event| event.to_json()).collect();
            let edge = window.digest.key.edge.as_str().to_owned();
            (edge, window.seq, window.digest.to_json(), flagged)
        }));
    }
    assert_eq!(concluded.len(), windows, "no window is concluded twice");
    (concluded, dropped)
}

fn send(lanes: &[Spooled], feed: Feed, pane_us: i64, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut epoch = 0;
    let mut places = vec![0; lanes.len()];
    for (number, lane) in lanes.iter().enumerate() {
        let mut items = Items::default();
        items.push_open(Lane(number as u32), &lane.edge, feed.workers());
        feed.send(Lane(number as u32), items).unwrap();
    }
    loop {
        let unsent = |number: &usize| places[*number] < lanes[*number].entries.len();
        let open: Vec<usize> = (0..lanes.len()).filter(unsent).collect();
        if open.is_empty() {
            break;
        }
        let number = open[random.random_range(0..open.len())];
        let (from, entries) = (places[number], &lanes[number].entries);
        let to = entries.len().min(from + random.random_range(1..400));
        let lane = Lane(number as u32);
        let mut items = Items::default();
        for (seq, entry) in (from as u64 + 1..).zip(&entries[from..to]) {
            items.push(lane, seq, entry.clone(), pane_us);
        }
        feed.send(lane, items).unwrap();
        places[number] = to;
        if random.random_bool(0.4) {
            epoch += 1;
            feed.end_epoch(epoch).unwrap();
        }
    }
}

fn pipeline(family: Family) -> Pipeline {
    builtin().into_iter().find(|pipeline| pipeline.family() == family).unwrap()
}

/// Of each window its last revision.
fn last_digests(concluded: &Concluded, pipeline: &Pipeline) -> Vec<WindowDigest> {
    let mut last = BTreeMap::new();
    for (edge, _, digest, _) in concluded {
        let digest = WindowDigest::from_json(digest).unwrap();
        if digest.pipeline == *pipeline.reference() {
            let key = (edge, digest.key.subject, digest.key.end_us);
            let known = last.entry(key).or_insert_with(|| digest.clone());
            if known.revision < digest.revision {
                *known = digest;
            }
        }
    }
    last.into_values().collect()
}

/// Equal but for the last of the six decimals that are kept.
fn assert_near(got: &Features, expected: &Features) {
    assert!(got.keys().eq(expected.keys()));
    for (name, got) in got {
        match (got.get(), expected[name].get()) {
            (Some(a), Some(b)) => {
                assert!((a - b).abs() <= 2e-6 + 1e-9 * b.abs(), "{name}: {a}, not {b}");
            }
            _ => assert_eq!(got, &expected[name], "{name}"),
        }
    }
}

fn ward(seconds: i64) -> Vec<Spooled> {
    let mut random = ChaCha8Rng::seed_from_u64(17);
    let random = &mut random;
    let first = [vitals(random, 1, seconds), vitals(random, 2, seconds), ecg(random, 1, seconds)];
    let second = [vitals(random, 3, seconds), ecg(random, 3, seconds / 2)];
    // The same patient as at the first edge: another lane, so other windows.
    let third = [vitals(random, 2, seconds / 2), ecg(random, 4, seconds)];
    vec![
        Spooled::of("edge-1", arrived(first.concat())),
        Spooled::of("edge-2", arrived(second.concat())),
        Spooled::of("edge-3", arrived(third.concat())),
    ]
}

#[test]
fn workers_and_cuts_change_nothing() {
    let lanes = ward(150);
    let (expected, dropped) = run(&lanes, 1, 0);
    assert_eq!(dropped, 0);
    let revisions = expected
        .iter()
        .filter(|(_, _, digest, _)| WindowDigest::from_json(digest).unwrap().revision > 0);
    assert!(revisions.count() > 0, "late readings must have corrected windows");
    assert!(expected.iter().any(|(_, _, _, flags)| !flags.is_empty()));
    for (workers, seed) in [(1, 1), (2, 2), (2, 3), (4, 4), (4, 5)] {
        let (concluded, _) = run(&lanes, workers, seed);
        assert!(concluded == expected, "{workers} workers, cuts of seed {seed}");
    }
}

#[test]
fn vitals_are_what_a_recomputation_gives() {
    let lanes = ward(150);
    let pipeline = pipeline(Family::Vitals);
    let spec = pipeline.window();
    let digests = last_digests(&run(&lanes, 2, 7).0, &pipeline);
    let mut expected: BTreeMap<(&str, Subject, i64), BTreeMap<SignalId, Moments>> = BTreeMap::new();
    let mut counts: BTreeMap<(&str, Subject, i64), u64> = BTreeMap::new();
    for lane in &lanes {
        for reading in lane.observations().filter(|o| pipeline.signals().contains(o.signal)) {
            let Value::Quantity(value) = &reading.value else { panic!("not a vital sign") };
            let at_us = reading.effective.micros();
            let pane = at_us.div_euclid(spec.slide_us);
            for ahead in 1..=spec.size_us / spec.slide_us {
                let key = (lane.edge.as_str(), reading.subject, (pane + ahead) * spec.slide_us);
                let series = expected.entry(key).or_default();
                series.entry(reading.signal).or_default().add(at_us, value.get());
                *counts.entry(key).or_default() += 1;
            }
        }
    }
    assert_eq!(digests.len(), expected.len());
    for digest in digests {
        let key = (digest.key.edge.as_str(), digest.key.subject, digest.key.end_us.micros());
        let series: Vec<_> = expected[&key].iter().map(|(signal, of)| (*signal, *of)).collect();
        assert_eq!(digest.inputs.observations, counts[&key]);
        assert_near(&digest.features, &pipeline.describe_vitals(&series));
    }
}

fn data(path: &str) -> PathBuf {
    let folder = std::env::var_os("HAAR_DATA")
        .expect("set HAAR_DATA to the folder with the recordings (mitdb, …), see README");
    PathBuf::from(folder).join(path)
}

/// The first ten minutes of a record's first lead, in steps of its converter.
fn recorded(name: &str) -> (SampleRate, f32, Vec<i16>) {
    let record = Record::open(data("mitdb").join(name)).unwrap();
    let rate = SampleRate::from_millihertz((record.header.rate_hz * 1e3) as u32).unwrap();
    let gain = record.header.signals[0].gain as f32;
    let samples = &record.signals[0][..(record.header.rate_hz * 600.0) as usize];
    let raw =
        samples.iter().map(|mv| if mv.is_nan() { i16::MIN } else { (mv * gain).round() as i16 });
    (rate, 1.0 / gain, raw.collect())
}

/// Features and flags of the window that ends so many seconds after the record begins, from its slice.
fn directly(
    pipeline: &Pipeline,
    model: &BeatModel,
    (rate, factor, raw): &(SampleRate, f32, Vec<i16>),
    end_s: i64,
) -> (Features, Vec<String>) {
    let hz = rate.hz() as i64;
    let mv: Vec<f32> = ((end_s - 30) * hz..end_s * hz)
        .map(|index| match usize::try_from(index).ok().and_then(|index| raw.get(index)) {
            None | Some(&i16::MIN) => f32::NAN,
            Some(sample) => factor * f32::from(*sample),
        })
        .collect();
    let mut description = pipeline.describe_ecg(&mv, *rate);
    let inputs: Vec<_> = description.inputs.iter().flatten().cloned().collect();
    let mut scores = model.classify(&inputs).unwrap().into_iter();
    let own: Vec<Option<BeatScore>> =
        description.inputs.iter().map(|input| input.as_ref().and_then(|_| scores.next())).collect();
    pipeline.conclude_ecg(&mut description, &own);
    let raised = pipeline.decide(&description.features, None).raised;
    (description.features, raised.into_iter().map(|raised| raised.flag).collect())
}

#[test]
fn recorded_streaming_equals_naive() {
    let pipeline = pipeline(Family::Ecg);
    let model = BeatModel::builtin().unwrap();
    let records = ["106", "207"].map(recorded);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let lanes: Vec<Spooled> = records
        .iter()
        .zip([1, 2])
        .map(|((rate, factor, raw), subject)| {
            let device = format!("holter-{subject}");
            let source = (subject, device.as_str(), SignalId::ECG);
            let mut frames = frames(&mut random, source, *rate, *factor, raw, 360);
            frames.shuffle(&mut random);
            Spooled::of(&format!("edge-{subject}"), arrived(frames))
        })
        .collect();
    let (concluded, dropped) = run(&lanes, 1, 1);
    assert_eq!(dropped, 0);
    for workers in [2, 4] {
        assert!(run(&lanes, workers, workers as u64).0 == concluded, "{workers} workers");
    }
    let digests = last_digests(&concluded, &pipeline);
    // 600 s in panes of 10 s; a window has three of them.
    assert_eq!(digests.len(), 2 * 62);
    for digest in digests {
        let record = usize::from(digest.key.edge.as_str() == "edge-2");
        let end_s = (digest.key.end_us.micros() - BEGIN_US) / SECOND_US;
        let (features, flags) = directly(&pipeline, &model, &records[record], end_s);
        assert_eq!(digest.features, features, "window that ends at {end_s} s");
        assert_eq!(digest.flags, flags);
        assert!(matches!(features["ecg.coverage"], Feature::Value(_)));
    }
}

/// Plethysmogram, ECG and impedance of a patient, by three devices.
#[test]
fn recorded_pulses_stream_as_they_stand() {
    const FACTOR: f32 = 1e-4;
    let (name, text) = OPTIONAL.into_iter().find(|(name, _)| *name == "pulse.toml").unwrap();
    let pipeline = Pipeline::parse(name, text).unwrap();
    let corpus = Corpus::open(&data("bidmc"), "a recording", is_part).unwrap();
    let recording = Recording::read(&corpus, names(&corpus).first().unwrap()).unwrap();
    let rate = SampleRate::from_hz(RATE_HZ).unwrap();
    let columns =
        [(SignalId::PPG, "PLETH"), (SignalId::ECG, "II"), (SignalId::RESPIRATION, "RESP")];
    let curves: Vec<(SignalId, Vec<i16>)> = columns
        .into_iter()
        .map(|(signal, column)| {
            let samples = &recording.signal(column).unwrap()[..120 * RATE_HZ as usize];
            let raw = samples.iter().map(|value| match value.is_nan() {
                true => i16::MIN,
                false => (value / FACTOR).round() as i16,
            });
            (signal, raw.collect())
        })
        .collect();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut all = Vec::new();
    for (signal, raw) in &curves {
        let device = format!("{}-1", signal.name());
        all.extend(frames(&mut random, (1, &device, *signal), rate, FACTOR, raw, 130));
    }
    let lanes = [Spooled::of("edge-1", arrived(all))];
    let own = std::slice::from_ref(&pipeline);
    let (concluded, dropped) = run_with(own, &lanes, 1, 1);
    assert_eq!(dropped, 0);
    assert!(run_with(own, &lanes, 2, 2).0 == concluded);
    let digests = last_digests(&concluded, &pipeline);
    // 120 s that begin within a pane of 15 s; a window has two of them.
    assert_eq!(digests.len(), 10);
    for digest in digests {
        let end_s = (digest.key.end_us.micros() - BEGIN_US) / SECOND_US;
        let cut: Vec<(SignalId, Vec<f32>)> = curves
            .iter()
            .map(|(signal, raw)| {
                let hz = i64::from(RATE_HZ);
                let range = (end_s - 30) * hz..end_s * hz;
                let samples = range.map(|at| {
                    let sample = usize::try_from(at).ok().and_then(|at| raw.get(at));
                    match sample {
                        None | Some(&i16::MIN) => f32::NAN,
                        Some(sample) => FACTOR * f32::from(*sample),
                    }
                });
                (*signal, samples.collect())
            })
            .collect();
        let curves: Vec<Curve<'_>> =
            cut.iter().map(|(signal, samples)| Curve { signal: *signal, rate, samples }).collect();
        assert_eq!(digest.features, pipeline.describe_pulse(&curves), "that ends at {end_s} s");
    }
}
