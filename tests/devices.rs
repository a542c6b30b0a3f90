//! Devices that are stuck, spiky or noisy on a running ward: the flag with its reasons, the technical alarm, the leaf; and none of a device
//! that works. The fog is killed between. How many faults of every kind are found is measured in `haar-inference`.

use crate::ward::{Leaves, Monitors, Site, Wanted, metric, now, until};
use haar_alarms::Condition;
use haar_inference::faults::inject::inject;
use haar_inference::faults::{FaultKind, Reading};
use haar_normalize::BUILT_IN;
use haar_schema::{FlaggedEvent, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PIPELINE: &str = include_str!("../pipelines/catalog/definitions/device-faults.toml");
/// Readings of each device, one a second.
const SECONDS: usize = 420;
/// What is wrong is in the 128 readings before this one.
const FAULTY_UNTIL: usize = 330;
/// After so many the fog is killed: in the middle of the fault.
const KILLED_AT: usize = 260;
const SEED: u64 = 7;
const KINDS: [FaultKind; 4] =
    [FaultKind::Sound, FaultKind::Stuck, FaultKind::Spike, FaultKind::Noise];

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
    let beds: Vec<(FaultKind, Vec<Reading>)> =
        KINDS.into_iter().map(|kind| (kind, device(kind))).collect();
    publish(&site, begin, &beds, 0..KILLED_AT);
    until("windows are committed", || metric(site.fog_admin, "haar_fog_windows_total") >= 30.0);
    fog.kill();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    publish(&site, begin, &beds, KILLED_AT..SECONDS);
    until("windows are committed", || metric(site.fog_admin, "haar_fog_windows_total") >= 18.0);
    assert!(metric(site.fog_admin, "haar_fog_device_faults_total") >= 1.0);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());

    let leaves = Leaves::read(&site.database(), &site.vkey());
    let windows = leaves.newest();
    let mut keys: Vec<_> = windows.values().map(|digest| &digest.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), windows.len(), "a window is committed once, whatever was killed");
    for (kind, _) in &beds {
        let subject = site.subject(&bed(*kind));
        let of_bed = |event: &&FlaggedEvent| event.key.subject == subject;
        let events: Vec<&FlaggedEvent> =
            leaves.flagged.iter().map(|(_, event)| event).filter(of_bed).collect();
        let sounded = leaves.transitions.iter().any(|(_, step)| {
            step.subject == Some(subject)
                && step.flag == "heart-rate-fault"
                && step.condition == Condition::Technical
        });
        if *kind == FaultKind::Sound {
            assert!(events.is_empty() && !sounded, "{events:?}");
            continue;
        }
        let name = format!("heart_rate.{kind}");
        let flag = match kind {
            FaultKind::Drift | FaultKind::Spike => "heart-rate-doubtful",
            _ => "heart-rate-fault",
        };
        let is_told = |event: &&&FlaggedEvent| {
            event.flag == flag && event.scores.iter().any(|score| score.name == name)
        };
        let told: Vec<_> = events.iter().filter(is_told).collect();
        assert!(!told.is_empty(), "{kind}: {events:?}");
        assert_eq!(sounded, events.iter().any(|event| event.flag == "heart-rate-fault"), "{kind}");
        for event in events {
            check(event, begin);
        }
    }
}

/// What every flag must carry.
fn check(event: &FlaggedEvent, begin: Timestamp) {
    assert!(event.key.end_us > begin.plus_micros((FAULTY_UNTIL as i64 - 128) * 1_000_000));
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

fn bed(kind: FaultKind) -> String {
    format!("bed-{kind}")
}

/// A heart rate that wanders about 75, with what is wrong put in.
fn device(kind: FaultKind) -> Vec<Reading> {
    let mut random = ChaCha8Rng::seed_from_u64(SEED + kind.index() as u64);
    let mut rate = 75.0_f64;
    let sound: Vec<Reading> = (0..SECONDS)
        .map(|second| {
            let noise: f64 = (0..12).map(|_| random.random_range(-0.5..0.5)).sum();
            rate += 0.07 * (75.0 - rate) + 0.55 * noise;
            Reading { time_s: second as f64, value: ((rate * 10.0).round() / 10.0) as f32 }
        })
        .collect();
    let range = Some((0.0, 300.0));
    let mut made = inject(&sound[..FAULTY_UNTIL], kind, range, &mut random).unwrap().readings;
    made.extend_from_slice(&sound[FAULTY_UNTIL..]);
    made
}

/// What the monitors send whose place is within `rows`, all beds side by side.
fn publish(
    site: &Site,
    begin: Timestamp,
    beds: &[(FaultKind, Vec<Reading>)],
    rows: std::ops::Range<usize>,
) {
    let mut monitors = Monitors::connect(site.broker_port);
    for row in rows {
        for (kind, readings) in beds {
            let Some(reading) = readings.get(row).filter(|own| own.value.is_finite()) else {
                continue;
            };
            let at = begin.plus_micros((reading.time_s * 1e6).round() as i64);
            let bed = bed(*kind);
            let topic = format!("ward/{bed}/monitor-of-{bed}/vitals");
            let payload = format!(r#"{{"ts":"{at}","seq":{row},"hr":{:.1}}}"#, reading.value);
            monitors.publish(&topic, &payload);
        }
    }
    monitors.finish();
}
