//! The whole path over real sockets: monitors publish through mosquitto, patches post with libcoap's
//! client, `haar-edge` and `haar-fog` run as programs with configuration files.
//!
//! The ward is run once (about twenty seconds); each test looks at one side of what came of it.

use crate::programs;
use crate::ward::{
    Collector, Leaves, Live, Monitors, Site, Span, Wanted, coap_client, http_get, http_post,
    metric, now, until,
};
use haar_alarms::{Actor, Cause, Transition};
use haar_ledger::{RecordsKey, Snapshot, Trust, VerifierKey, open_read_only, verify};
use haar_normalize::BUILT_IN;
use haar_schema::{Subject, Timestamp, WindowDigest};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;

/// Everything random in these tests comes from here.
const SEED: u64 = 20_261_122;
/// Length of the windows.
const WINDOW_US: i64 = 10_000_000;
/// Seconds of event time that each monitor reports, once a second.
const SECONDS: i64 = 60;
/// How far frames come out of order; the profiles allow 2 s.
const DISORDER_MS: i64 = 1_900;
/// One frame in so many is delivered again.
const REDELIVERED: u32 = 10;
/// Those that have a monitor; the first is to be flagged.
const MONITORED: [&str; 6] = ["bed-1", "bed-2", "bed-3", "bed-4", "bed-5", "bed-6"];
/// Those of them that have a patch too.
const PATCHED: [&str; 2] = ["bed-1", "bed-2"];
/// One with a patch alone, which reports before and after everything is stopped and started again.
const PATCH_ONLY: &str = "bed-7";
/// Frames that no profile can decode.
const MALFORMED: [&str; 3] = ["not json", r#"{"hr":71.0}"#, r#"{"ts":"yesterday","hr":71.0}"#];
/// Bits that are flipped in each row of the log, one at a time.
const BITS_PER_ROW: u32 = 8;

/// Tumbling windows over the signals that are sent. Patches are slow to post, hence the lateness.
const PIPELINE: &str = r#"
id = "every-reading"
version = 1
title = "Every reading in exactly one window"
family = "vitals"

[window]
size = "10s"
lateness = "600s"

[[signals]]
name = "heart_rate"
rate_hz = 1.0

[[signals]]
name = "spo2"
rate_hz = 1.0

[[signals]]
name = "temperature"
rate_hz = 0.1

[[flags]]
name = "fast"
priority = "medium"
text = "The heart beats fast."
when = "heart_rate.mean > 100"
"#;

/// A device that says nothing for so long is idle, and its windows end.
const IDLE_AFTER: &str = "idle_after_ms = 5000\n";

static RUN: LazyLock<Run> = LazyLock::new(run);

/// Values by subject and window, then by signal.
type Published = BTreeMap<(Subject, Timestamp), BTreeMap<&'static str, Vec<f64>>>;

/// What came of the ward.
struct Run {
    published: Published,
    fast: Subject,
    leaves: Leaves,
    proofs: Vec<(u64, String)>,
    vkey: VerifierKey,
    database: Vec<u8>,
    /// The file, next to the database.
    records_key: Vec<u8>,
    spans: Vec<Span>,
    edge_log: String,
}

impl Run {
    /// The fog's database as a file of its own.
    fn copy(&self) -> (TempDir, PathBuf) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("fog.redb");
        std::fs::write(&path, &self.database).unwrap();
        let key = folder.path().join("records.key");
        std::fs::write(&key, &self.records_key).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
        (folder, path)
    }
}

#[test]
fn every_reading_published_is_in_exactly_one_window() {
    let run = &*RUN;
    let newest = run.leaves.newest();
    let windows: BTreeMap<_, &WindowDigest> = newest
        .values()
        .map(|digest| ((digest.key.subject, digest.key.start_us), *digest))
        .collect();
    assert_eq!(newest.len(), windows.len(), "two windows of one patient begin at the same time");
    let published: BTreeSet<_> = run.published.keys().collect();
    assert_eq!(windows.keys().collect::<BTreeSet<_>>(), published);
    let mut counted = 0;
    for (key, signals) in &run.published {
        let digest = windows[key];
        assert_eq!(digest.key.end_us, key.1.plus_micros(WINDOW_US));
        let sent: usize = signals.values().map(Vec::len).sum();
        assert_eq!(digest.inputs.observations, sent as u64, "window at {}", key.1);
        counted += digest.inputs.observations;
        for (signal, values) in signals {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let found = digest.features[&format!("{signal}.mean")].get().unwrap();
            // Features are rounded to six decimals; a patch and its profile may differ by an ulp of a unit.
            assert!((found - mean).abs() < 2e-6, "{signal} at {}: {found}, not {mean}", key.1);
        }
    }
    let sent: usize = run.published.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    assert_eq!(counted, sent as u64);
    println!("{sent} readings in {} windows, {} leaves", windows.len(), run.leaves.digests.len());
}

#[test]
fn every_flag_has_a_proof_that_verifies() {
    let run = &*RUN;
    let expected: BTreeSet<_> = run
        .leaves
        .newest()
        .values()
        .filter(|digest| digest.key.subject == run.fast)
        .map(|digest| digest.id)
        .collect();
    let flagged: BTreeSet<_> = run.leaves.flagged.iter().map(|(_, event)| event.window).collect();
    assert_eq!(flagged, expected);
    assert_eq!(expected.len() as i64, SECONDS * 1_000_000 / WINDOW_US);

    let trust = Trust::Pinned(std::slice::from_ref(&run.vkey));
    for ((index, event), (proven, proof)) in run.leaves.flagged.iter().zip(&run.proofs) {
        assert_eq!(index, proven);
        let verified = verify(proof, trust).unwrap();
        assert!(verified.key_pinned && verified.index == *index);
        assert_eq!(verified.record.body, event.to_json());
    }

    // The same by the command line: prove, verify, fsck.
    let (folder, database) = run.copy();
    let file = folder.path().join("flag.tlog-proof");
    let (index, _) = run.leaves.flagged[0];
    let (database, file) = (shown(&database), shown(&file));
    haar(&["prove", "--index", &index.to_string(), "--log", database, "--out", file], 0);
    let verified = haar(&["verify", file, "--key", run.vkey.as_str()], 0);
    println!("{}", String::from_utf8_lossy(&verified.stdout));
    let sound = haar(&["fsck", "--log", database, "--key", run.vkey.as_str()], 0);
    println!("{}", String::from_utf8_lossy(&sound.stdout));
    let mut proof = std::fs::read(file).unwrap();
    let middle = proof.len() / 2;
    proof[middle] ^= 1;
    std::fs::write(file, proof).unwrap();
    haar(&["verify", file, "--key", run.vkey.as_str()], 1);
}

#[test]
fn every_flipped_bit_of_a_proof_is_found() {
    let run = &*RUN;
    let (_, proof) = &run.proofs[0];
    let trust = Trust::Pinned(std::slice::from_ref(&run.vkey));
    verify(proof, trust).unwrap();
    for byte in 0..proof.len() {
        for bit in 0..8 {
            let mut flipped = proof.clone().into_bytes();
            flipped[byte] ^= 1 << bit;
            // What is not UTF-8 cannot even be handed in.
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert!(verify(&flipped, trust).is_err(), "byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_is_found() {
    const META: TableDefinition<&str, &[u8]> = TableDefinition::new("site_log.meta");
    const TILES: TableDefinition<(u8, u64), &[u8]> = TableDefinition::new("site_log.tiles");
    const BUNDLES: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.bundles");
    const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.records");
    const NAMES: TableDefinition<&[u8; 40], ()> = TableDefinition::new("site_log.names");
    const KEYS: TableDefinition<u64, &[u8]> = TableDefinition::new("site_log.keys");
    const SEALING: TableDefinition<&str, &[u8]> = TableDefinition::new("site_log.sealing");

    let (_folder, path) = RUN.copy();
    let mut flips = Flips {
        db: Database::open(&path).unwrap(),
        vkey: &RUN.vkey,
        key: RecordsKey::load(&path.with_file_name("records.key")).unwrap(),
        rng: ChaCha8Rng::seed_from_u64(SEED),
        found: 0,
    };
    assert!(flips.is_sound());
    let Leaves { digests, flagged, transitions, .. } = &RUN.leaves;
    let leaves = digests.len() + flagged.len() + transitions.len();
    for key in ["checkpoint", "vkey"] {
        flips.row(META, key);
    }
    for key in ["records-key", "slots"] {
        flips.row(SEALING, key);
    }
    let tx = flips.db.begin_read().unwrap();
    let keys = |table: TableDefinition<u64, &[u8]>| -> Vec<u64> {
        let rows = tx.open_table(table).unwrap();
        rows.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
    };
    let (bundles, records, slots) = (keys(BUNDLES), keys(RECORDS), keys(KEYS));
    let rows = tx.open_table(TILES).unwrap();
    let tiles: Vec<(u8, u64)> = rows.iter().unwrap().map(|row| row.unwrap().0.value()).collect();
    let rows = tx.open_table(NAMES).unwrap();
    let names: Vec<[u8; 40]> = rows.iter().unwrap().map(|row| *row.unwrap().0.value()).collect();
    drop((rows, tx));
    assert_eq!((records.len(), names.len()), (leaves, leaves));
    assert!(!tiles.is_empty() && !bundles.is_empty());
    for key in tiles {
        flips.row(TILES, key);
    }
    for key in bundles {
        flips.row(BUNDLES, key);
    }
    for key in records {
        flips.row(RECORDS, key);
    }
    assert_eq!(slots.len(), MONITORED.len() + 1, "one for every patient");
    for key in slots {
        flips.row(KEYS, key);
    }
    for row in names {
        flips.key(NAMES, &row);
    }
    println!("{} flipped bits, all found (seed {SEED})", flips.found);
}

#[test]
fn a_trace_runs_from_the_batch_at_the_edge_to_the_leaf() {
    let spans = &RUN.spans;
    let of = |service: &str, name: &str| -> Vec<&Span> {
        spans.iter().filter(|span| span.service == service && span.name == name).collect()
    };
    let sent = of("haar-edge", "edge.batch");
    let taken = of("haar-fog", "fog.batch");
    let committed = of("haar-fog", "fog.commit");
    assert!(!sent.is_empty() && !taken.is_empty() && !committed.is_empty());
    for batch in &taken {
        let parent = sent.iter().find(|span| span.id == batch.parent);
        assert_eq!(parent.expect("a batch was sent by the edge").trace, batch.trace);
    }
    for commit in &committed {
        let parent = taken.iter().find(|span| span.id == commit.parent);
        assert_eq!(parent.expect("a commit is of a batch").trace, commit.trace);
    }
    println!("{} batches sent, {} taken, {} commits", sent.len(), taken.len(), committed.len());
}

#[test]
fn a_stopped_edge_has_drained_its_spool() {
    let stopped: Vec<&str> =
        RUN.edge_log.lines().filter(|line| line.contains("edge stopped")).collect();
    assert_eq!(stopped.len(), 2, "{}", RUN.edge_log);
    assert!(stopped.iter().all(|line| line.contains("left_in_spool=0")), "{stopped:?}");
}

/// Flips bits of the log in a database, one at a time, and has each found.
struct Flips<'a> {
    db: Database,
    vkey: &'a VerifierKey,
    key: RecordsKey,
    rng: ChaCha8Rng,
    found: u32,
}

impl Flips<'_> {
    fn is_sound(&self) -> bool {
        let trust = Trust::Pinned(std::slice::from_ref(self.vkey));
        haar_ledger::fsck(&self.db, trust, Some(&self.key), &mut |_, _| {})
            .is_ok_and(|report| report.is_sound())
    }

    /// Bits of a row's value; afterwards it is as it was.
    fn row<'k, K: redb::Key + 'static>(
        &mut self,
        table: TableDefinition<'_, K, &'static [u8]>,
        key: K::SelfType<'k>,
    ) {
        let write = |db: &Database, value: &[u8]| {
            let mut tx = db.begin_write().unwrap();
            tx.set_durability(Durability::None).unwrap();
            tx.open_table(table).unwrap().insert(&key, value).unwrap();
            tx.commit().unwrap();
        };
        let tx = self.db.begin_read().unwrap();
        let value = tx.open_table(table).unwrap().get(&key).unwrap().unwrap().value().to_vec();
        for _ in 0..BITS_PER_ROW {
            let mut flipped = value.clone();
            let (byte, bit) = (self.rng.random_range(0..value.len()), self.rng.random_range(0..8));
            flipped[byte] ^= 1 << bit;
            write(&self.db, &flipped);
            assert!(!self.is_sound(), "{}: bit {bit} of byte {byte}", table);
            self.found += 1;
        }
        write(&self.db, &value);
        assert!(self.is_sound(), "all is as it was");
    }

    /// Bits of a row that is all key; afterwards it is as it was.
    fn key(&mut self, table: TableDefinition<'_, &'static [u8; 40], ()>, row: &[u8; 40]) {
        // Puts a row in the place of another; says whether it was there already.
        let replace = |db: &Database, old: Option<&[u8; 40]>, new: &[u8; 40]| {
            let mut tx = db.begin_write().unwrap();
            tx.set_durability(Durability::None).unwrap();
            let mut rows = tx.open_table(table).unwrap();
            if let Some(old) = old {
                rows.remove(old).unwrap().unwrap();
            }
            let was_there = rows.insert(new, ()).unwrap().is_some();
            drop(rows);
            tx.commit().unwrap();
            was_there
        };
        for _ in 0..BITS_PER_ROW {
            let mut flipped = *row;
            let (byte, bit) = (self.rng.random_range(0..row.len()), self.rng.random_range(0..8));
            flipped[byte] ^= 1 << bit;
            let was_there = replace(&self.db, Some(row), &flipped);
            assert!(!self.is_sound(), "{}: bit {bit} of byte {byte}", table);
            // A flag's row may be one bit away from its window's; then it stays.
            replace(&self.db, Some(&flipped).filter(|_| !was_there), row);
            self.found += 1;
        }
        assert!(self.is_sound(), "all is as it was");
    }
}

/// A monitor's frame.
struct Frame {
    patient: &'static str,
    at: Timestamp,
    heart_rate: f64,
    spo2: f64,
}

/// What the monitors send, in the order of their event time.
fn frames(begin: Timestamp, rng: &mut ChaCha8Rng) -> Vec<Frame> {
    let mut frames = Vec::new();
    for second in 0..SECONDS {
        for patient in MONITORED {
            let at = begin.plus_micros(second * 1_000_000 + rng.random_range(0..1_000) * 1_000);
            let tenths = if patient == MONITORED[0] { 1_100..1_400 } else { 600..990 };
            frames.push(Frame {
                patient,
                at,
                heart_rate: f64::from(rng.random_range(tenths)) / 10.0,
                spo2: f64::from(rng.random_range(930..1_000)) / 10.0,
            });
        }
    }
    frames
}

fn run() -> Run {
    println!("seed {SEED}");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let collector = Collector::start();
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| sooner_idle(text)).collect();
    let otlp = Some(collector.port);
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: PIPELINE, otlp });
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);

    let begin = now().plus_micros(-2 * SECONDS * 1_000_000).floor_to(WINDOW_US);
    let frames = frames(begin, &mut rng);
    let mut published = Published::new();
    let mut note = |patient: &str, at: Timestamp, signal, value| {
        let window = (site.subject(patient), at.floor_to(WINDOW_US));
        published.entry(window).or_default().entry(signal).or_default().push(value);
    };
    for frame in &frames {
        note(frame.patient, frame.at, "heart_rate", frame.heart_rate);
        note(frame.patient, frame.at, "spo2", frame.spo2);
    }
    let patches = patches(begin);
    for (patient, at, celsius) in &patches {
        note(patient, *at, "temperature", *celsius);
    }
    let sent = 2 * frames.len() + patches.len();
    std::thread::scope(|scope| {
        scope.spawn(|| publish(site.broker_port, frames, &mut rng));
        scope.spawn(|| post(site.coap_port, &patches));
    });
    let mut live = Live::new(site.fog_admin);
    until("every window has ended", || live.observations() >= sent as u64);
    check_metrics(&site, sent);

    // A reading that nothing has been done with yet; then everything is stopped and started again, and
    // the next reading falls into the same window.
    let (before, after) = (begin.plus_micros(1_500_000), begin.plus_micros(2_500_000));
    note(PATCH_ONLY, before, "temperature", 36.5);
    note(PATCH_ONLY, after, "temperature", 37.5);
    post(site.coap_port, &[(PATCH_ONLY, before, 36.5)]);
    acknowledge_the_most_pressing(&site);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    let (mut fog, mut edge) = (site.fog(), site.edge());
    site.wait_ready(&mut fog, site.fog_admin);
    site.wait_ready(&mut edge, site.edge_admin);
    post(site.coap_port, &[(PATCH_ONLY, after, 37.5)]);
    until("the last window has ended", || live.observations() >= sent as u64 + 2);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());
    gather(&site, published, collector.spans())
}

/// A nurse takes on the alarm that stands first; the answer names the leaf.
fn acknowledge_the_most_pressing(site: &Site) {
    let open = || http_get(site.fog_admin, "/v1/alarms").unwrap().1;
    until("an alarm sounds", || open().contains("\"active\""));
    let alarms: Vec<serde_json::Value> = serde_json::from_str(&open()).unwrap();
    let alarm = alarms.iter().find(|alarm| alarm["phase"] == "active").unwrap();
    let path = format!("/v1/alarms/{}/acknowledge", alarm["alarm"].as_str().unwrap());
    let (status, body) = http_post(site.fog_admin, &path, r#"{"by":"nurse 7"}"#).unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["transitions"][0]["to"], "acknowledged", "{body}");
    assert!(answer["leaves"][0].is_u64(), "{body}");
    // What is answered is what is shown.
    let shown: Vec<serde_json::Value> = serde_json::from_str(&open()).unwrap();
    let same = shown.iter().find(|shown| shown["alarm"] == alarm["alarm"]).unwrap();
    assert_eq!(same["phase"], "acknowledged");
    // Who acts must say so, and nobody acknowledges twice.
    assert_eq!(http_post(site.fog_admin, &path, r#"{"by":""}"#).unwrap().0, 422);
    assert_eq!(http_post(site.fog_admin, &path, r#"{"by":"nurse 7"}"#).unwrap().0, 409);
}

#[test]
fn an_acknowledgement_is_a_leaf() {
    let by_nurse: Vec<&Transition> = RUN
        .leaves
        .transitions
        .iter()
        .map(|(_, step)| step)
        .filter(|step| step.cause == Cause::Acknowledged)
        .collect();
    assert_eq!(by_nurse.len(), 1);
    assert_eq!(by_nurse[0].by.as_ref().map(Actor::as_str), Some("nurse 7"));
    let mut alarms: BTreeMap<_, u32> = BTreeMap::new();
    for (index, step) in &RUN.leaves.transitions {
        let next = alarms.entry(step.alarm).or_default();
        assert_eq!(step.number, *next, "leaf {index}");
        *next += 1;
    }
}

/// What the stopped site left behind.
fn gather(site: &Site, published: Published, spans: Vec<Span>) -> Run {
    let vkey = site.vkey();
    let leaves = Leaves::read(&site.database(), &vkey);
    let db = open_read_only(&site.database()).unwrap();
    let key_file = site.database().with_file_name("records.key");
    let key = Arc::new(RecordsKey::load(&key_file).unwrap());
    let snapshot = Snapshot::open_with(&db, key).unwrap();
    let prove = |(index, _): &(u64, _)| (*index, snapshot.prove(*index).unwrap().to_text());
    let proofs = leaves.flagged.iter().map(prove).collect();
    drop((snapshot, db));
    Run {
        published,
        fast: site.subject(MONITORED[0]),
        leaves,
        proofs,
        vkey,
        database: std::fs::read(site.database()).unwrap(),
        records_key: std::fs::read(key_file).unwrap(),
        spans,
        edge_log: site.log_of("edge"),
    }
}

/// A built-in profile, but for when its devices count as idle.
fn sooner_idle(profile: &str) -> String {
    let others = profile.lines().filter(|line| !line.starts_with("idle_after_ms"));
    IDLE_AFTER.to_owned() + &others.collect::<Vec<_>>().join("\n")
}

/// One temperature for each window of each patient who has a patch.
fn patches(begin: Timestamp) -> Vec<(&'static str, Timestamp, f64)> {
    let windows = SECONDS * 1_000_000 / WINDOW_US;
    let of = |window| {
        let at = begin.plus_micros(window * WINDOW_US + 4_500_000);
        PATCHED.map(|patient| (patient, at, 36.0 + window as f64 / 10.0))
    };
    (0..windows).flat_map(of).collect()
}

/// Publishes the frames out of order, some twice, and some that are none.
fn publish(broker_port: u16, frames: Vec<Frame>, rng: &mut ChaCha8Rng) {
    let mut frames: Vec<(Timestamp, Frame)> = frames
        .into_iter()
        .map(|frame| (frame.at.plus_micros(rng.random_range(0..DISORDER_MS) * 1_000), frame))
        .collect();
    frames.sort_by_key(|(arrival, _)| *arrival);
    let mut monitors = Monitors::connect(broker_port);
    for (number, (_, frame)) in (0..).zip(&frames) {
        let topic = format!("ward/{}/monitor-of-{}/vitals", frame.patient, frame.patient);
        let Frame { at, heart_rate, spo2, .. } = frame;
        let payload =
            format!(r#"{{"ts":"{at}","seq":{number},"hr":{heart_rate:.1},"spo2":{spo2:.1}}}"#);
        monitors.publish(&topic, &payload);
        if number % REDELIVERED == 0 {
            monitors.publish(&topic, &payload);
        }
        if number == 100 {
            for malformed in MALFORMED {
                monitors.publish(&topic, malformed);
            }
        }
    }
    monitors.finish();
}

/// Posts temperatures with libcoap's client; each must be answered 2.04.
fn post(coap_port: u16, readings: &[(&str, Timestamp, f64)]) {
    for (patient, at, celsius) in readings {
        let path = format!("ward/{patient}/patch-of-{patient}/temperature");
        let seconds = at.micros() as f64 / 1e6;
        let payload = format!(
            r#"[{{"bn":"urn:dev:mac:0024befffe804ff1:","bt":{seconds:.1},"n":"temperature","u":"Cel","v":{celsius:.1}}}]"#
        );
        coap_client(coap_port, &path, &payload).unwrap();
    }
}

/// What the nodes say of themselves is what was sent: no more, no less, no other.
fn check_metrics(site: &Site, sent: usize) {
    let refused = coap_client(site.coap_port, "ward/bed-1/patch-of-bed-1/temperature", "warm");
    assert!(refused.as_ref().is_err_and(|printed| printed.contains("4.00")), "{refused:?}");
    let frames = SECONDS as f64 * MONITORED.len() as f64;
    let expected = [
        (site.edge_admin, "haar_edge_quarantined_total", MALFORMED.len() as f64 + 1.0),
        (site.edge_admin, "haar_edge_duplicates_total", (frames / f64::from(REDELIVERED)).ceil()),
        (site.edge_admin, "haar_edge_readings_total", sent as f64),
        (site.fog_admin, "haar_fog_observations_total", sent as f64),
        (site.fog_admin, "haar_fog_late_total", 0.0),
        (site.fog_admin, "haar_fog_edges_connected", 1.0),
    ];
    for (port, name, value) in expected {
        assert_eq!(metric(port, name), value, "{name}");
    }
}

fn haar(args: &[&str], status: i32) -> Output {
    let output = Command::new(programs::own("haar")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "haar {args:?}: {output:?}");
    output
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}
