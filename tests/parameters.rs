//! A doctor sets limits for one patient of a running ward: signed with a key that the fog trusts, committed as a leaf, and in force
//! from the effective time on, for this patient alone.

use crate::programs;
use crate::ward::{Leaves, Monitors, Site, Wanted, now, until};
use haar_normalize::BUILT_IN;
use haar_schema::{Timestamp, WindowDigest};
use std::process::Command;

const PIPELINE: &str = r#"
id = "fast"
version = 1
title = "Fast heart"
family = "vitals"

[window]
size = "2s"

[[signals]]
name = "heart_rate"
rate_hz = 2.0

[[flags]]
name = "fast"
priority = "medium"
text = "The heart beats fast."
when = "heart_rate.mean > 100"
"#;
/// The patient with limits of her own, and one without.
const PATIENTS: [&str; 2] = ["bed-1", "bed-2"];
/// Both hearts beat so fast: over everybody's limit, within hers.
const FAST: f64 = 120.0;
/// Over hers as well.
const TOO_FAST: f64 = 160.0;

#[test]
fn a_doctors_limits_hold_for_one_patient_from_their_time_on() {
    let profiles: Vec<String> = BUILT_IN.iter().map(|(_, text)| (*text).to_owned()).collect();
    let site = Site::new(&Wanted { profiles: &profiles, pipeline: PIPELINE, otlp: None });
    let key = site.path("doctor.key");
    let key = key.to_str().unwrap();
    let vkey = haar(&["model", "key", "--name", "hospital.example/doctor", "--out", key], 0);
    let path = site.path("fog.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(&format!("\n[parameters]\ntrusted_keys = [{:?}]\n", vkey.trim()));
    std::fs::write(&path, text).unwrap();
    let _broker = site.broker();
    let mut fog = site.fog();
    site.wait_ready(&mut fog, site.fog_admin);
    let mut edge = site.edge();
    site.wait_ready(&mut edge, site.edge_admin);

    let begin = now().plus_micros(-20_000_000);
    publish(&site, begin, 10, FAST);
    let effective = set(&site, key);
    // Devices that are ahead of the clock would be put right by the edge.
    until("the limits are in force", || now() > effective.plus_micros(10_500_000));
    publish(&site, effective, 4, FAST);
    publish(&site, effective.plus_micros(4_000_000), 2, TOO_FAST);
    // Readings well behind the last window let it go.
    publish(&site, effective.plus_micros(6_000_000), 4, 80.0);
    assert!(edge.terminate().success());
    assert!(fog.terminate().success());

    let leaves = Leaves::read(&site.database(), &site.vkey());
    assert_eq!(leaves.others.len(), 1, "the parameters are a leaf");
    let flags = |patient: &str, rate: f64, after: bool| -> Vec<Vec<String>> {
        let subject = site.subject(patient);
        let fits = |digest: &&WindowDigest| {
            let mean = digest.features["heart_rate.mean"].get();
            let is_after = digest.key.end_us >= effective;
            digest.key.subject == subject && mean == Some(rate) && is_after == after
        };
        leaves.newest().into_values().filter(fits).map(|digest| digest.flags.clone()).collect()
    };
    let all = |found: Vec<Vec<String>>, wanted: &[&str]| {
        assert!(!found.is_empty() && found.iter().all(|flags| flags == wanted), "{found:?}");
    };
    all(flags("bed-1", FAST, false), &["fast"]);
    all(flags("bed-1", FAST, true), &[]);
    all(flags("bed-1", TOO_FAST, true), &["heart-rate-above-limit"]);
    all(flags("bed-2", FAST, true), &["fast"]);
    all(flags("bed-2", TOO_FAST, true), &["fast"]);
}

/// Signs limits and hands them in; says from when they hold.
fn set(site: &Site, key: &str) -> Timestamp {
    let subject = site.subject("bed-1").to_hex();
    let fog = format!("http://127.0.0.1:{}", site.fog_admin);
    let sign = |version: &str, effective: &str| {
        let args = ["parameters", "sign", "--subject", &subject, "--revision", version];
        let more = ["--effective", effective, "--limit", "heart_rate=40..150", "--key", key];
        haar(&[&args[..], &more[..], &["--reason", "paced"][..]].concat(), 0)
    };
    let hand_in = |note: &str, status: i32| {
        let path = site.path("note.txt");
        std::fs::write(&path, note).unwrap();
        haar(&["parameters", "set", path.to_str().unwrap(), "--fog", &fog], status)
    };
    // On the next whole even second but one: where a window begins.
    let effective = now().floor_to(2_000_000).plus_micros(4_000_000);
    let note = sign("1", &effective.to_string());
    let forged = hand_in(&note.replace("150", "190"), 1);
    assert!(forged.contains("no authorised key signed"), "{forged}");
    let late = hand_in(&sign("1", "2020-01-01T00:00:00Z"), 1);
    assert!(late.contains("choose a later effective time"), "{late}");
    assert!(hand_in(&note, 0).starts_with("version 1 is leaf "));
    let again = hand_in(&note, 1);
    assert!(again.contains("next version of this patient's parameters is 2"), "{again}");
    assert!(
        haar(&["parameters", "show", &subject, "--fog", &fog], 0)
            .contains("heart_rate /min 40.0 150.0")
    );
    effective
}

fn publish(site: &Site, begin: Timestamp, seconds: i64, rate: f64) {
    let mut monitors = Monitors::connect(site.broker_port);
    for half in 0..2 * seconds {
        for patient in PATIENTS {
            let at = begin.plus_micros(half * 500_000);
            let number = at.micros() / 500_000;
            let topic = format!("ward/{patient}/monitor-of-{patient}/vitals");
            let payload = format!(r#"{{"ts":"{at}","seq":{number},"hr":{rate:.1},"spo2":97.0}}"#);
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
