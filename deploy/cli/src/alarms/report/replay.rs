//! A recording on its way: as an edge would spool it, through the pipelines, to the windows that alarms see.
//!
//! The windows, their order and what is in them are those of a fog: `haar-normalize` writes the watermarks, `haar-dataflow`
//! cuts and concludes the windows, `haar-fog` says what of them alarms see. Readings come in order and at once.
//!
//! # Limits
//! A recording is in memory whole; what goes in and out of the dataflow is bounded by its queues.

use std::collections::BTreeMap;

use haar_alarms::Window;
use haar_catalog::Pipeline;
use haar_dataflow::conclude::{Concluded, SharedWard};
use haar_dataflow::deployment::{Deployments, SharedDeployments, Timeline};
use haar_dataflow::item::{Items, Lane};
use haar_dataflow::runtime::{Feed, Runtime, Stopped, common_pane_us, start};
use haar_inference::BeatModel;
use haar_normalize::{Frame, Timing, Watermarks};
use haar_schema::{
    ClockEvidence, DeviceId, EdgeId, Entry, Observation, Quality, Quantity, SampledData, SignalId,
    Subject, Timestamp, Value,
};

use super::recordings::{Ecg, Recording};
use crate::failure::Failure;

const SECOND_US: i64 = 1_000_000;
/// When every recording begins: an instant at which windows of any usual width begin.
pub(super) const BEGIN_US: i64 = 1_795_000_800 * SECOND_US;
/// As the simulator and a monitor send it: an ECG in microvolts, for a second at a time.
const STEP_MV: f32 = 0.001;
/// Frames after which an epoch ends. No result depends on it.
const FRAMES_PER_EPOCH: usize = 64;
/// A recording is a patient of its own at an edge of its own.
const LANE: Lane = Lane(0);
const SUBJECT: Subject = Subject::from_bytes([1; 16]);

/// What recordings are replayed through.
pub(super) struct Means {
    /// The pipelines.
    pub(super) pipelines: Vec<Pipeline>,
    /// Scores beats, by the members of the committee that have not seen the recording.
    pub(super) beats: BeatModel,
    /// Everything else.
    pub(super) models: Deployments,
}

/// What a recording came to.
pub(super) struct Replayed {
    /// In the order in which a fog would have concluded them; none reaches beyond the recording's end.
    pub(super) windows: Vec<Window>,
    /// By pipeline: from the end of a window to that of the next, microseconds.
    pub(super) slides_us: BTreeMap<String, i64>,
    /// Whether the beats were scored by the member of the committee that was not trained on them.
    pub(super) held_out: bool,
}

/// Replays one recording. Windows that reach beyond its end are left out: that the recording is over is no fault of a
/// sensor.
pub(super) fn replay(recording: &Recording, means: &Means) -> Result<Replayed, Failure> {
    let (model, held_out) = unbiased(recording, &means.beats);
    let beats = Timeline::constant(model);
    let models = SharedDeployments::new(Deployments { beats, ..means.models.clone() });
    let Runtime { feed, epochs, thread } =
        start(&means.pipelines, &models, &SharedWard::default(), 1)?;
    let edge: EdgeId = "replay".parse()?;
    let frames = frames(recording)?;
    let pane_us = common_pane_us(&means.pipelines);
    let end_us = BEGIN_US + (recording.seconds * 1e6) as i64;
    let mut seen: Vec<(Order, Window)> = Vec::new();
    let mut unscored = 0;
    std::thread::scope(|scope| {
        let sent = scope.spawn(move || send(frames, &feed, &edge, pane_us));
        for epoch in &epochs {
            unscored += epoch.unscored;
            let within = |window: &&Concluded| window.digest.key.end_us.micros() <= end_us;
            seen.extend(
                epoch
                    .windows
                    .iter()
                    .filter(within)
                    .map(|w| (order(w), haar_fog::seen_by_alarms(w))),
            );
        }
        // A panic of the sender is a bug, and told as one.
        sent.join()
            .map_err(|_| Failure::new("the replay stopped; this is a fault of haar"))?
            .map_err(Failure::from)
    })?;
    let ended =
        thread.join().map_err(|_| Failure::new("the dataflow stopped; this is a fault of haar"))?;
    ended.map_err(Failure::new)?;
    if unscored > 0 {
        return Err(Failure::new(format!(
            "{}: the model refused {unscored} beats",
            recording.name
        )));
    }
    seen.sort_by(|(a, _), (b, _)| a.cmp(b));
    let slide = |pipeline: &Pipeline| (pipeline.reference().id.clone(), pipeline.window().slide_us);
    Ok(Replayed {
        windows: seen.into_iter().map(|(_, window)| window).collect(),
        slides_us: means.pipelines.iter().map(slide).collect(),
        held_out,
    })
}

/// The model for a recording: if it was trained on it, the one member that was not.
fn unbiased(recording: &Recording, beats: &BeatModel) -> (BeatModel, bool) {
    match recording.case.filter(|case| beats.lineage().held_out_by(*case).is_some()) {
        Some(case) => (beats.only(beats.lineage().members_for(case, beats.members())), true),
        None => (beats.clone(), false),
    }
}

/// A fog takes windows in this order, see its `commit`.
type Order = (u64, u32, String, i64);

fn order(window: &Concluded) -> Order {
    let key = &window.digest.key;
    (window.seq, window.digest.revision, key.pipeline.clone(), key.start_us.micros())
}

/// What devices send, in the order of its arrival.
fn frames(recording: &Recording) -> Result<Vec<Frame>, Failure> {
    let monitor: DeviceId = "monitor".parse()?;
    let mut frames: Vec<Frame> = Vec::new();
    for (second, values) in &recording.vitals {
        let at = Timestamp::from_micros(BEGIN_US + second * SECOND_US);
        let readings: Vec<Observation> = values
            .iter()
            .filter_map(|(signal, value)| {
                let quality = plausible(*signal, *value);
                Some(observed(
                    &monitor,
                    *signal,
                    Value::Quantity(Quantity::new(*value)?),
                    (at, at),
                    quality,
                ))
            })
            .collect();
        if !readings.is_empty() {
            frames.push(frame(&monitor, readings, at));
        }
    }
    if let Some(ecg) = &recording.ecg {
        frames.extend(waves(ecg)?);
    }
    frames.sort_by_key(|frame| frame.received);
    Ok(frames)
}

/// A lead in frames of a second, each sent when its second is over.
fn waves(ecg: &Ecg) -> Result<Vec<Frame>, Failure> {
    let device: DeviceId = "telemetry".parse()?;
    let begin = Timestamp::from_micros(BEGIN_US);
    let per_frame = (ecg.rate.hz().ceil() as usize).clamp(1, haar_schema::MAX_SAMPLES);
    let mut frames = Vec::with_capacity(ecg.mv.len() / per_frame + 1);
    for (number, samples) in ecg.mv.chunks(per_frame).enumerate() {
        let first = (number * per_frame) as u64;
        let at = ecg.rate.sample_time(begin, first);
        let received = ecg.rate.sample_time(begin, first + samples.len() as u64);
        let raw: Vec<i16> = samples.iter().map(|mv| microvolts(*mv)).collect();
        let off = raw.iter().all(|sample| *sample == i16::MIN);
        let quality = if off { Quality::SENSOR_OFF } else { Quality::GOOD };
        let value = Value::Sampled(SampledData::new(ecg.rate, 0.0, STEP_MV, raw)?);
        let reading = observed(&device, SignalId::ECG, value, (at, received), quality);
        frames.push(frame(&device, vec![reading], received));
    }
    Ok(frames)
}

/// `i16::MIN` is no sample.
fn microvolts(mv: f32) -> i16 {
    let steps = (mv / STEP_MV).round();
    if steps.is_nan() { i16::MIN } else { steps.clamp(-32_767.0, 32_767.0) as i16 }
}

/// As `haar-normalize` has it.
fn plausible(signal: SignalId, value: f64) -> Quality {
    let (low, high) = signal.definition().plausible;
    if (low..=high).contains(&value) { Quality::GOOD } else { Quality::IMPLAUSIBLE }
}

fn observed(
    device: &DeviceId,
    signal: SignalId,
    value: Value,
    (effective, ingested): (Timestamp, Timestamp),
    quality: Quality,
) -> Observation {
    let (subject, device, clock) = (SUBJECT, device.clone(), ClockEvidence::Device);
    Observation { subject, device, signal, value, effective, ingested, quality, clock }
}

fn frame(device: &DeviceId, observations: Vec<Observation>, received: Timestamp) -> Frame {
    Frame {
        device: device.clone(),
        subject: SUBJECT,
        observations,
        frame_id: None,
        profile: "replay".into(),
        timing: Timing::default(),
        received,
    }
}

/// Spools the frames with their watermarks and sends what was spooled.
fn send(frames: Vec<Frame>, feed: &Feed, edge: &EdgeId, pane_us: i64) -> Result<(), Stopped> {
    let idle_us = i64::from(Timing::default().idle_after_ms) * 1_000;
    let mut policy = Watermarks::new(2);
    let (mut items, mut seq, mut epoch) = (Items::default(), 0, 0);
    items.push_open(LANE, edge, feed.workers());
    let mut push = |items: &mut Items, entry: Entry| {
        seq += 1;
        items.push(LANE, seq, entry, pane_us);
    };
    let mut before = Timestamp::from_micros(BEGIN_US);
    for (number, frame) in frames.into_iter().enumerate() {
        // An edge looks for silence once a second; it finds some only after this long.
        let silent = before.plus_micros(idle_us + SECOND_US);
        for now in [silent.min(frame.received), frame.received] {
            policy.tick(now).into_iter().for_each(|mark| push(&mut items, Entry::Mark(mark)));
        }
        policy.observe(&frame).into_iter().for_each(|mark| push(&mut items, Entry::Mark(mark)));
        policy.commit();
        before = frame.received;
        for observation in frame.observations {
            push(&mut items, Entry::Observation(observation));
        }
        if (number + 1) % FRAMES_PER_EPOCH == 0 {
            epoch += 1;
            feed.send(LANE, std::mem::take(&mut items))?;
            feed.end_epoch(epoch)?;
        }
    }
    let later = before.plus_micros(2 * idle_us);
    policy.tick(later).into_iter().for_each(|mark| push(&mut items, Entry::Mark(mark)));
    feed.send(LANE, items)?;
    feed.end_epoch(epoch + 1)
}
