//! `kill -9` of edge and fog at random moments under load: no acknowledged reading is missing, none is
//! counted twice, no digest is there twice.
//!
//! Readings that were sent and not acknowledged may be there or not; each counts at most once.
//! `HAAR_KILLS` says how many kills (20), `HAAR_SEED` which moments; the seed is printed.

use crate::ward::{
    Answer, Leaves, Live, Monitors, PATIENCE, Patch, Process, Site, Wanted, now, within,
};
use haar_alarms::Phase;
use haar_schema::{Subject, Timestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Kills, unless `HAAR_KILLS` says otherwise.
const KILLS: u32 = 20;
/// Between a node's start and the next kill, of it or of the other; so that some hit a node that is
/// still recovering.
const BETWEEN_KILLS_MS: std::ops::Range<u64> = 100..2_500;
/// How long the load goes on after the last node has come back.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// Patients with a monitor, each of which publishes so often.
const MONITORED: u32 = 4;
const MONITOR_EVERY: Duration = Duration::from_millis(10);
/// Patients with a patch, each of which posts again so soon after an answer.
const PATCHED: u32 = 2;
const PATCH_EVERY: Duration = Duration::from_millis(10);
/// A patch's patience: so long for one answer, so many times. Then it gives the reading up.
const AGAIN: (Duration, u32) = (Duration::from_millis(20), 2);
/// Length of the windows: short, so that a reading too many or too few is not lost in a crowd.
const WINDOW_US: i64 = 2_000_000;

const PIPELINE: &str = r#"
id = "narrow"
version = 1
title = "Short windows, each of which is flagged"
family = "vitals"

[window]
size = "2s"
lateness = "600s"

[[signals]]
name = "heart_rate"
rate_hz = 50.0

[[signals]]
name = "temperature"
rate_hz = 50.0

[[flags]]
name = "alive"
priority = "information"
text = "There is a heart rate."
when = "heart_rate.mean > 0"
"#;

const MONITOR: &str = r#"
name = "monitor"
connector = "mqtt"
path = "ward/{patient}/{device}/vitals"
idle_after_ms = 10000

[json]
time = { pointer = "/ts", format = "epoch_us" }

[[json.observations]]
signal = "heart_rate"
pointer = "/hr"
unit = "/min"
"#;

const PATCH: &str = r#"
name = "patch"
connector = "coap"
path = "ward/{patient}/{device}/temperature"
idle_after_ms = 10000

[json]
time = { pointer = "/ts", format = "epoch_us" }

[[json.observations]]
signal = "temperature"
pointer = "/v"
unit = "Cel"
"#;

/// Readings of one patient: when, and whether they were acknowledged.
struct Sent {
    patient: String,
    readings: Vec<(Timestamp, bool)>,
}

#[test]
fn kills_lose_nothing_that_was_acknowledged_and_commit_nothing_twice() {
    let kills = setting("HAAR_KILLS").unwrap_or(u64::from(KILLS));
    let seed = setting("HAAR_SEED").unwrap_or(now().micros() as u64);
    println!("HAAR_KILLS={kills} HAAR_SEED={seed}");
    let profiles = [MONITOR.to_owned(), PATCH.to_owned()];
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: PIPELINE, otlp: None });
    let _broker = site.broker();
    let mut nodes = Nodes { fog: Some(site.fog()), edge: Some(site.edge()), site: &site };
    nodes.wait_ready();

    let stop = AtomicBool::new(false);
    let (killed, sent) = std::thread::scope(|scope| {
        let monitors = scope.spawn(|| publish(&site, &stop));
        let patches: Vec<_> = (0..PATCHED)
            .map(|number| {
                scope.spawn({
                    let (site, stop) = (&site, &stop);
                    move || post(site, number, stop)
                })
            })
            .collect();
        // However this ends, the devices stop.
        let _stopped = Stopped(&stop);
        let killed = nodes.kill(kills, seed);
        nodes.wait_ready();
        std::thread::sleep(AFTERWARDS);
        stop.store(true, Relaxed);
        let mut sent = monitors.join().unwrap();
        sent.extend(patches.into_iter().map(|patch| patch.join().unwrap()));
        (killed, sent)
    });
    let (acknowledged, all) = (windows(&site, &sent, true), windows(&site, &sent, false));
    let mut live = Live::new(site.fog_admin);
    // What is missing after this is shown below.
    within(PATIENCE, || {
        let found = live.windows();
        acknowledged.iter().all(|(key, count)| found.get(key).is_some_and(|n| n >= count))
    });
    assert!(nodes.edge.take().unwrap().terminate().success());
    assert!(nodes.fog.take().unwrap().terminate().success());

    // This is fsck too.
    let leaves = Leaves::read(&site.database(), &site.vkey());
    let totals = [&all, &acknowledged].map(|windows| windows.values().sum::<u64>());
    println!(
        "{} kills of the edge, {} of the fog; {} readings sent, {} acknowledged; {} windows, {} digests, {} flags",
        killed[0],
        killed[1],
        totals[0],
        totals[1],
        leaves.newest().len(),
        leaves.digests.len(),
        leaves.flagged.len(),
    );
    check_counts(&leaves, &acknowledged, &all);
    check_nothing_twice(&leaves);
}

/// In every window: acknowledged ≤ counted ≤ sent.
fn check_counts(leaves: &Leaves, acknowledged: &Windows, sent: &Windows) {
    let mut counted: Windows = leaves
        .newest()
        .values()
        .map(|digest| ((digest.key.subject, digest.key.start_us), digest.inputs.observations))
        .collect();
    let mut wrong = Vec::new();
    for ((subject, start), sent) in sent {
        let acknowledged = acknowledged.get(&(*subject, *start)).copied().unwrap_or(0);
        let counted = counted.remove(&(*subject, *start)).unwrap_or(0);
        if !(acknowledged..=*sent).contains(&counted) {
            wrong.push(format!(
                "{} at {start}: {acknowledged} acknowledged, {counted} counted, {sent} sent",
                subject.to_hex()
            ));
        }
    }
    assert!(wrong.is_empty(), "{} windows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(counted.is_empty(), "windows in which nothing was sent: {}", counted.len());
}

fn check_nothing_twice(leaves: &Leaves) {
    let (mut revisions, mut inputs) = (BTreeMap::new(), BTreeSet::new());
    for (index, digest) in &leaves.digests {
        let before = revisions.insert(digest.id, digest.revision);
        assert!(before < Some(digest.revision), "leaf {index}: revision after {before:?}");
        let new = inputs.insert((digest.id, digest.inputs.sha256.clone()));
        assert!(new, "leaf {index}: a second digest of the same readings");
    }
    let mut flagged = BTreeSet::new();
    for (index, event) in &leaves.flagged {
        let new = flagged.insert((event.window, event.revision, event.flag.clone()));
        assert!(new, "leaf {index}: a second event of the same flag");
    }
    // Alarms stand where the log says, whenever the fog was killed: no step is missing and none is there twice.
    let mut alarms = BTreeMap::new();
    for (index, step) in &leaves.transitions {
        let (number, from) = alarms.get(&step.alarm).copied().unwrap_or((0, Phase::Inactive));
        assert_eq!((step.number, step.from), (number, from), "leaf {index}: a step out of order");
        alarms.insert(step.alarm, (number + 1, step.to));
    }
}

/// Readings by subject and window.
type Windows = BTreeMap<(Subject, Timestamp), u64>;

fn windows(site: &Site, sent: &[Sent], only_acknowledged: bool) -> Windows {
    let mut windows = Windows::new();
    for Sent { patient, readings } in sent {
        let subject = site.subject(patient);
        for (at, acknowledged) in readings {
            if *acknowledged || !only_acknowledged {
                *windows.entry((subject, at.floor_to(WINDOW_US))).or_default() += 1;
            }
        }
    }
    windows
}

/// The nodes that are killed. One that is `None` is stopped for good.
struct Nodes<'a> {
    site: &'a Site,
    edge: Option<Process>,
    fog: Option<Process>,
}

impl Nodes<'_> {
    fn wait_ready(&mut self) {
        self.site.wait_ready(self.fog.as_mut().unwrap(), self.site.fog_admin);
        self.site.wait_ready(self.edge.as_mut().unwrap(), self.site.edge_admin);
    }

    /// Kills one of them at a random moment and starts it again at once, so many times. How often each.
    fn kill(&mut self, kills: u64, seed: u64) -> [u32; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut killed = [0; 2];
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(rng.random_range(BETWEEN_KILLS_MS)));
            if rng.random() {
                self.edge.take().unwrap().kill();
                self.edge = Some(self.site.edge());
                killed[0] += 1;
            } else {
                self.fog.take().unwrap().kill();
                self.fog = Some(self.site.fog());
                killed[1] += 1;
            }
        }
        killed
    }
}

struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The monitors, until they are to stop and the broker has acknowledged all of it.
fn publish(site: &Site, stop: &AtomicBool) -> Vec<Sent> {
    let mut monitors = Monitors::connect(site.broker_port);
    let patient = |number| Sent { patient: format!("bed-{number}"), readings: Vec::new() };
    let mut sent: Vec<Sent> = (0..MONITORED).map(patient).collect();
    let mut at = now();
    while !stop.load(Relaxed) {
        at = now().max(at.plus_micros(1));
        for Sent { patient, readings } in &mut sent {
            let topic = format!("ward/{patient}/monitor-of-{patient}/vitals");
            monitors.publish(&topic, &format!(r#"{{"ts":{},"hr":72.5}}"#, at.micros()));
            readings.push((at, true));
        }
        std::thread::sleep(MONITOR_EVERY);
    }
    monitors.finish();
    sent
}

/// A patch, until it is to stop.
fn post(site: &Site, number: u32, stop: &AtomicBool) -> Sent {
    let patient = format!("patched-{number}");
    let path = format!("ward/{patient}/patch-of-{patient}/temperature");
    let mut patch = Patch::new(site.coap_port, number as u16 * 10_000);
    let mut readings = Vec::new();
    while !stop.load(Relaxed) {
        let at = now();
        let payload = format!(r#"{{"ts":{},"v":36.5}}"#, at.micros());
        let answer = patch.post(&path, &payload, AGAIN.0, AGAIN.1);
        readings.push((at, answer == Answer::Changed));
        std::thread::sleep(PATCH_EVERY);
    }
    Sent { patient, readings }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}
