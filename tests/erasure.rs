//! A patient is erased from a fog that runs: what was recorded, what alarms and memory hold, and what the edge still has from before
//! is gone, through a kill as well; the other patient and what comes later are untouched.

use crate::programs;
use crate::ward::{FAST_HEART, Monitors, Site, Wanted, http_get, metric, now, until};
use haar_ledger::{RecordsKey, Trust, fsck, open_read_only};
use haar_normalize::BUILT_IN;
use haar_schema::{Subject, Timestamp, WindowDigest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;

const GONE: &str = "bed-1";
const STAYS: &str = "bed-2";
const SECOND_US: i64 = 1_000_000;
/// How long either patient is monitored before.
const BEFORE_S: i64 = 30;
const SITE: &str = "haar.invalid/site";

#[test]
fn a_patient_is_erased_from_a_running_fog() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    // Windows of two seconds, so that there are many.
    let pipeline = FAST_HEART.replace("10s", "2s").replace("1.0", "2.0");
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: &pipeline, otlp: None });
    let [officer, stranger] = ["officer.key", "stranger.key"].map(|name| key(&site, name));
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&format!("\n[erasure]\ntrusted_keys = [{:?}]\n", officer.1));
    std::fs::write(&path, text).unwrap();
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);
    let (gone, stays) = (site.subject(GONE), site.subject(STAYS));
    let begin = now().floor_to(2 * SECOND_US).plus_micros(-60 * SECOND_US);
    publish(&site, begin, BEFORE_S);
    until("both have an alarm", || alarmed(&site) == [gone, stays].map(|own| own.to_hex()).into());
    let theirs = windows(&site, gone).into_values().collect::<BTreeSet<u64>>();
    assert!(theirs.len() >= 10, "{theirs:?}");

    let refused = erase(&site, &stranger.0, SITE, gone, 1);
    assert!(refused.contains("no key of erasure.trusted_keys"), "{refused}");
    let elsewhere = erase(&site, &officer.0, "haar.invalid/other", gone, 1);
    assert!(elsewhere.contains("this is haar.invalid/site"), "{elsewhere}");
    let unknown = erase(&site, &officer.0, SITE, site.subject("bed-9"), 1);
    assert!(unknown.contains("nobody was erased"), "{unknown}");
    assert_eq!(windows(&site, gone).len(), theirs.len(), "nothing has happened yet");
    let said = erase(&site, &officer.0, SITE, gone, 0);
    let erased_at = now();
    assert!(said.contains(&gone.to_hex()) && said.contains("receipt"), "{said}");

    assert!(windows(&site, gone).is_empty());
    for leaf in &theirs {
        let (status, body) = http_get(site.fog_admin, &format!("/v1/records/{leaf}")).unwrap();
        assert_eq!(status, 410, "{body}");
    }
    assert_eq!(alarmed(&site), [stays.to_hex()].into());
    assert!(!http_get(site.fog_admin, "/v1/episodes").unwrap().1.contains(&gone.to_hex()));

    // What the dataflow and the edge still have from before, and what arrives late.
    publish(&site, begin.plus_micros(BEFORE_S * SECOND_US), 10);
    until("windows are left out", || metric(site.fog_admin, "haar_fog_left_out_total") >= 4.0);
    fog.kill();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    // A patient who is still there is recorded anew.
    let later = erased_at.floor_to(2 * SECOND_US).plus_micros(2 * SECOND_US);
    until("time has passed", || now() > later.plus_micros(8 * SECOND_US));
    publish(&site, later, 8);
    until("they are recorded again", || windows(&site, gone).len() >= 3);
    let anew = windows(&site, gone);
    assert!(anew.keys().all(|start| *start >= later), "{anew:?}, erased at {erased_at}");
    let others = windows(&site, stays);
    let starts = (0..(BEFORE_S + 10) / 2).map(|n| begin.plus_micros(n * 2 * SECOND_US));
    for start in starts {
        assert!(others.contains_key(&start), "the other patient's window from {start} is there");
    }
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());

    let database = site.database();
    let records = Arc::new(RecordsKey::load(&database.with_file_name("records.key")).unwrap());
    let db = open_read_only(&database).unwrap();
    let vkey = site.vkey();
    let trust = Trust::Pinned(std::slice::from_ref(&vkey));
    let report = fsck(&db, trust, Some(&records), &mut |_, _| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.problems);
    // Their flags and the steps of their alarms besides the windows.
    assert!(report.erased > theirs.len() as u64, "{}", report.erased);
    println!("{} leaves erased of {}, the log is sound", report.erased, report.leaves);
}

/// A key's file and verifier key.
fn key(site: &Site, name: &str) -> (String, String) {
    let path = site.path(name).to_str().unwrap().to_owned();
    let vkey = haar(&["model", "key", "--name", "hospital.example/officer", "--out", &path], 0);
    (path, vkey.trim().to_owned())
}

fn erase(site: &Site, key: &str, origin: &str, subject: Subject, status: i32) -> String {
    let fog = format!("http://127.0.0.1:{}", site.fog_admin);
    let subject = subject.to_hex();
    haar(&["erase", "--key", key, "--site", origin, "--subject", &subject, "--fog", &fog], status)
}

/// The windows of a patient that can be read, by their start, with their leaf.
fn windows(site: &Site, subject: Subject) -> BTreeMap<Timestamp, u64> {
    let mut windows = BTreeMap::new();
    for leaf in 0.. {
        match http_get(site.fog_admin, &format!("/v1/records/{leaf}")) {
            Some((200, body)) => {
                // The others are flags and alarms.
                if let Ok(digest) = WindowDigest::from_json(body.as_bytes())
                    && digest.key.subject == subject
                {
                    windows.insert(digest.key.start_us, leaf);
                }
            }
            Some((410, _)) => {}
            _ => break,
        }
    }
    windows
}

/// Whose alarms are not over.
fn alarmed(site: &Site) -> BTreeSet<String> {
    let (_, body) = http_get(site.fog_admin, "/v1/alarms").unwrap();
    let open: Value = serde_json::from_str(&body).unwrap();
    let open = open.as_array().unwrap().iter();
    open.map(|alarm| alarm["subject"].as_str().unwrap().to_owned()).collect()
}

fn publish(site: &Site, begin: Timestamp, seconds: i64) {
    let mut monitors = Monitors::connect(site.broker_port);
    for half in 0..2 * seconds {
        for patient in [GONE, STAYS] {
            let at = begin.plus_micros(half * SECOND_US / 2);
            let number = at.micros() / 500_000;
            let topic = format!("ward/{patient}/monitor-of-{patient}/vitals");
            let payload = format!(r#"{{"ts":"{at}","seq":{number},"hr":120.0,"spo2":97.0}}"#);
            monitors.publish(&topic, &payload);
        }
    }
    monitors.finish();
}

/// What `haar` prints; with another status than 0 what it says of it.
fn haar(args: &[&str], status: i32) -> String {
    let output = Command::new(programs::own("haar")).args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "haar {args:?}: {output:?}");
    String::from_utf8(if status == 0 { output.stdout } else { output.stderr }).unwrap()
}
