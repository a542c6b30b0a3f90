//! Devices with a fault of each kind on a running ward: the flag with its reasons, the technical alarm, the leaf; and none of a device
//! that works. The fog is killed between. Over sockets the same faults are told as the watch tells of the same readings without any. How many of
//! each kind are found, `haar evaluate faults` measures.

use crate::ward::{Leaves, Monitors, Site, Wanted, metric, now, until};
use haar_alarms::Condition;
use haar_inference::faults::inject::inject;
use haar_inference::faults::watch::{Series, threshold};
use haar_inference::faults::{FaultKind, FaultModel, Reading};
use haar_normalize::BUILT_IN;
use haar_schema::{FlaggedEvent, SignalId, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

const PIPELINE: &str = include_str!("../pipelines/catalog/definitions/device-faults.toml");
/// Readings of each device, one a second.
const SECONDS: usize = 420;
/// What is wrong is in the 128 readings before this one.
const FAULTY_UNTIL: usize = 330;
/// After so many the fog is killed: in the middle of the fault.
const KILLED_AT: usize = 260;
/// The last window that is certain to be committed ends here.
const LAST_END: usize = 390;
const SEED: u64 = 7;
/// Devices with each kind of fault: not every one is found, of drifts in such a heart rate about half.
const OF_A_KIND: u64 = 4;
/// Windows of one device that are certain to be committed before the fog is killed, and after.
const WINDOWS: (usize, usize) = (7, 4);

/// A device, what is wrong with it, and what it reads.
struct Bed {
    kind: FaultKind,
    name: String,
    readings: Vec<Reading>,
}

#[test]
fn a_fault_is_flagged_with_reasons_and_sounds_as_technical() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: PIPELINE, otlp: None });
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);

    let begin = now().floor_to(30_000_000).plus_micros(-480_000_000);
    let beds: Vec<Bed> = FaultKind::ALL
        .into_iter()
        .flat_map(|kind| (0..OF_A_KIND).map(move |at| Bed::new(kind, at)))
        .collect();
    publish(&site, begin, &beds, 0..KILLED_AT);
    let committed = || metric(site.fog_admin, "haar_fog_windows_total");
    until("windows are committed", || committed() >= (WINDOWS.0 * beds.len()) as f64);
    fog.kill();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    publish(&site, begin, &beds, KILLED_AT..SECONDS);
    until("windows are committed", || committed() >= (WINDOWS.1 * beds.len()) as f64);
    assert!(metric(site.fog_admin, "haar_fog_device_faults_total") >= 1.0);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());

    let leaves = Leaves::read(&site.database(), &site.vkey());
    let windows = leaves.newest();
    let mut keys: Vec<_> = windows.values().map(|digest| &digest.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), windows.len(), "a window is committed once, whatever was killed");
    let model = FaultModel::builtin().unwrap();
    let mut found: BTreeMap<FaultKind, usize> = BTreeMap::new();
    for bed in &beds {
        let subject = site.subject(&bed.name);
        let of_bed = |event: &&FlaggedEvent| event.key.subject == subject;
        let events: Vec<&FlaggedEvent> =
            leaves.flagged.iter().map(|(_, event)| event).filter(of_bed).collect();
        let sounded = leaves.transitions.iter().any(|(_, step)| {
            step.subject == Some(subject)
                && step.flag == "heart-rate-fault"
                && step.condition == Condition::Technical
        });
        if bed.kind == FaultKind::Sound {
            assert!(events.is_empty() && !sounded, "{events:?}");
            continue;
        }
        let is_told = events.iter().any(|event| tells(event, bed.kind));
        assert_eq!(is_told, bed.would_be_told(&model), "{}: {events:?}", bed.name);
        *found.entry(bed.kind).or_default() += usize::from(is_told);
        assert_eq!(
            sounded,
            events.iter().any(|event| event.flag == "heart-rate-fault"),
            "{}",
            bed.name
        );
        for event in events {
            check(event);
            // A clock that goes back changes windows before the fault, too.
            let earliest = begin.plus_micros((FAULTY_UNTIL as i64 - 128) * 1_000_000);
            assert!(bed.kind == FaultKind::Clock || event.key.end_us > earliest, "{event:?}");
        }
    }
    println!("found of {OF_A_KIND} each: {found:?}");
    assert!(found.values().all(|found| *found >= 1), "{found:?}");
}

/// Whether a flag is for this kind of fault, and the one that should be.
fn tells(event: &FlaggedEvent, kind: FaultKind) -> bool {
    let name = format!("heart_rate.{kind}");
    let flag = match kind {
        FaultKind::Drift | FaultKind::Spike | FaultKind::Noise => "heart-rate-doubtful",
        _ => "heart-rate-fault",
    };
    event.flag == flag && event.scores.iter().any(|score| score.name == name)
}

/// What every flag must carry.
fn check(event: &FlaggedEvent) {
    let model = event.model.as_ref().unwrap();
    assert_eq!((model.id.as_str(), model.sha256.len()), ("device-faults", 64));
    assert!(event.condition.is_none() && !event.scores.is_empty());
    for score in &event.scores {
        assert_eq!((&score.model, score.features_sha256.len()), (model, 64));
        assert!(score.attribution.is_complete(), "{score:?}");
        let evidence = event.evidence.iter().find(|own| own.feature == score.name).unwrap();
        assert_eq!(evidence.value.get(), Some(score.value));
    }
}

impl Bed {
    /// A heart rate that wanders about 75, with what is wrong put in.
    fn new(kind: FaultKind, at: u64) -> Self {
        let seed = SEED + at * FaultKind::ALL.len() as u64 + kind.index() as u64;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut rate = 75.0_f64;
        let sound: Vec<Reading> = (0..SECONDS)
            .map(|second| {
                let noise: f64 = (0..12).map(|_| random.random_range(-0.5..0.5)).sum();
                rate += 0.07 * (75.0 - rate) + 0.55 * noise;
                Reading { time_s: second as f64, value: ((rate * 10.0).round() / 10.0) as f32 }
            })
            .collect();
        let range = Some((0.0, 300.0));
        let mut readings =
            inject(&sound[..FAULTY_UNTIL], kind, range, &mut random).unwrap().readings;
        readings.extend_from_slice(&sound[FAULTY_UNTIL..]);
        Self { kind, name: format!("bed-{kind}-{at}"), readings }
    }

    /// Whether the watch tells the fault in one of the windows, given the readings themselves.
    fn would_be_told(&self, model: &FaultModel) -> bool {
        let (low, high) = SignalId::HEART_RATE.definition().plausible;
        let range = Some((low as f32, high as f32));
        (30..=LAST_END).step_by(30).any(|end| {
            let within = (end as f64 - 300.0)..end as f64;
            let mut window: Vec<Reading> = self
                .readings
                .iter()
                .filter(|own| own.value.is_finite() && within.contains(&own.time_s))
                .copied()
                .collect();
            window.sort_by(|a, b| a.time_s.total_cmp(&b.time_s));
            // Where a stamp stands still, a value that was there is the same frame again.
            let mut seen: Vec<(u64, u32)> = Vec::new();
            window.retain(|own| {
                let own = (own.time_s.to_bits(), own.value.to_bits());
                let is_new = !seen.contains(&own);
                seen.push(own);
                is_new
            });
            let series = Series { readings: &window, range };
            let watched = model.watch(&[series]).unwrap().remove(0);
            watched.is_some_and(|own| own.probability(self.kind) >= threshold(self.kind))
        })
    }
}

/// What the monitors send whose place is within `rows`, all beds side by side.
fn publish(site: &Site, begin: Timestamp, beds: &[Bed], rows: std::ops::Range<usize>) {
    let mut monitors = Monitors::connect(site.broker_port);
    for row in rows {
        for Bed { name, readings, .. } in beds {
            let Some(reading) = readings.get(row).filter(|own| own.value.is_finite()) else {
                continue;
            };
            let at = begin.plus_micros((reading.time_s * 1e6).round() as i64);
            let topic = format!("ward/{name}/monitor-of-{name}/vitals");
            let payload = format!(r#"{{"ts":"{at}","seq":{row},"hr":{:.1}}}"#, reading.value);
            monitors.publish(&topic, &payload);
        }
    }
    monitors.finish();
}
